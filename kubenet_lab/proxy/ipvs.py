"""kube-proxy in IPVS mode (deprecated since Kubernetes 1.35): virtual servers instead of rules for each Service.

Each sync brings five things of a node to what the Services want: the table of virtual servers (`ipvsadm -Ln`), the IP
sets, the addresses of kube-ipvs0, the iptables rules that ask the sets, and the health checks' ports. A real server
whose endpoint goes keeps its place with weight 0 until its connections have ended, for TCP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.kernel import netfilter
from kubenet_lab.kernel.ipset import IpSet
from kubenet_lab.kernel.ipvs import (
    PERSISTENT,
    SCHED_2,
    RealServer,
    Server,
    ServiceKey,
    VirtualServer,
    socket_text,
)
from kubenet_lab.kernel.netfilter import Rule, Ruleset
from kubenet_lab.kernel.netfilter.matches.comment import Comment
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects import EndpointSlice, Json, Service
from kubenet_lab.packet.ip import PREFIX, mac_from
from kubenet_lab.packet.packet import TCP
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.iptables import restore
from kubenet_lab.proxy.ipvs_rules import (
    DUMMY,
    FILTER_CHAINS,
    IPVS_IPS,
    NAT_CHAINS,
    SETS,
    Claim,
    IpvsPlace,
    PortBlock,
    iptables_text,
    port_block,
    set_name,
)
from kubenet_lab.proxy.services import Named, PortKey, ServiceMap, ServiceTracker

TERMINATION_CHECK = 60.0
"""Seconds after which kube-proxy looks again whether a terminating real server's connections have ended."""

PROTOCOL_NAMES = {6: "TCP", 17: "UDP", 132: "SCTP"}


class Jump(Struct, frozen=True):
    """A rule of a built-in chain that kube-proxy ensures before each sync, and puts first in its chain."""

    table: str
    source: str
    target: str
    comment: str

    @property
    def rule(self) -> Rule:
        """The rule as it is in the kernel."""
        return Rule(matches=(Comment(self.comment),), target=netfilter.Jump(self.target))


JUMPS = (
    Jump("nat", "OUTPUT", "KUBE-SERVICES", "kubernetes service portals"),
    Jump("nat", "PREROUTING", "KUBE-SERVICES", "kubernetes service portals"),
    Jump("nat", "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
    Jump("filter", "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    Jump("filter", "INPUT", "KUBE-NODE-PORT", "kubernetes health check rules"),
    Jump("filter", "INPUT", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    Jump("filter", "FORWARD", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    Jump("filter", "INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
    Jump("filter", "OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
)
"""In the order they are ensured. Each is put first in its chain, so the last ensured is the first met."""


def jumps(ip_family: int) -> tuple[Jump, ...]:
    """Return the jumps kube-proxy ensures before each sync; the two families (4, 6) have the same."""
    if ip_family not in (4, 6):
        raise ValueError(f"family {ip_family}: there are 4 and 6")
    return JUMPS


def ensure_jumps(ruleset: Ruleset) -> Ruleset:
    """Return the ruleset with kube-proxy's chains and the jumps; what is there already stays where it is."""
    edit = ruleset.edit()
    for table, chains in (("nat", NAT_CHAINS), ("filter", FILTER_CHAINS)):
        for chain in chains:
            edit.ensure_chain(table, chain)
    for jump in JUMPS:
        if not ruleset.has(jump.table, jump.source, jump.rule):
            edit.insert(jump.table, jump.source, jump.rule)
    return edit.commit()


def cleanup(space: Netns) -> None:
    """Take away what kube-proxy made (`kube-proxy --cleanup`): all virtual servers, kube-ipvs0, rules and sets."""
    if space.has_ipvs:
        space.ipvs.clear()
    if DUMMY in space.links:
        space.delete_link(DUMMY)
    for fam in (4, 6):
        ruleset = space.iptables[fam]
        edit = ruleset.edit()
        for jump in JUMPS:
            if ruleset.has(jump.table, jump.source, jump.rule):
                edit.delete(jump.table, jump.source, jump.rule)
        for table, chains in (("nat", NAT_CHAINS), ("filter", FILTER_CHAINS)):
            here = [
                chain for chain in chains if table in ruleset.tables and chain in ruleset.tables[table].chains
            ]
            for chain in here:
                edit.flush(table, chain)
            for chain in here:
                edit.delete_chain(table, chain)
        space.set_iptables(fam, edit.commit())
        for name in SETS:
            space.ipsets.pop(set_name(name, fam), None)


class HealthCheck(Struct, frozen=True):
    """What kube-proxy serves on a Service's healthCheckNodePort: 200 while this node has ready endpoints."""

    service: str
    port: int
    local_endpoints: int


class _Half:
    """kube-proxy's half for one IP family."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig, ip_family: int) -> None:
        self.node, self.config, self.family = node, config, ip_family
        self.place = IpvsPlace(ip_family, node, config, (), ())
        self.synced = False
        self.terminating: dict[str, tuple[ServiceKey, Server]] = {}
        """Graceful termination's list, by its items' names ("10.96.0.1:80/TCP/10.244.0.5:8080")."""
        self._blocks: dict[PortKey, PortBlock] = {}
        self._known: dict[Named, dict[PortKey, None]] = {}
        self._claims: dict[ServiceKey, dict[PortKey, Claim]] = {}
        self._entries: dict[str, dict[str, int]] = {name: {} for name in SETS}
        self._bound: dict[str, int] = {}
        self._denied: dict[str, int] = {}

    def sync(self, services: ServiceMap, changed: set[Named], space: Netns, full: bool) -> list[str] | None:
        """Bring a node to the Services; return the text for iptables-restore, None when nothing changed."""
        addresses = tuple(a.local for dev, there in space.addresses.items() if dev != DUMMY for a in there)
        place = IpvsPlace.of(self.node, self.config, self.family, addresses)
        first = not self.synced
        full = full or first or place != self.place
        if not full and not changed:
            return None
        self.place = place
        known = [key for named in changed for key in self._known.get(named, ())]
        keys = list(services.ports)
        if not full:
            fresh = services.ports.keys() - self._blocks.keys()
            keys = [*(key for key in known if key in services.ports), *sorted(fresh)]
        touched: dict[ServiceKey, None] = {}
        moved: dict[str, set[str]] = {}
        for key in [key for key in (list(self._blocks) if full else known) if key not in services.ports]:
            self._take(key, touched, moved)
        for key in keys:
            port = services.ports[key]
            block = port_block(place, port, services.endpoints.get(key, ()))
            old = self._blocks.get(key)
            if old is not None and old == block and not full:
                continue
            if old is not None:
                self._take(key, touched, moved)
            self._give(key, block, touched, moved)
        self._addresses(space, moved.get(IPVS_IPS, ()), full)
        if full:
            self._all_sets(space)
        else:
            self._some_sets(space, moved)
        self._servers(space, [*self._claims] if full else [*touched], touched, first)
        if full:
            self._strangers(space)
        self.synced = True
        return iptables_text(
            place, {name for name, entries in self._entries.items() if entries}, [*self._denied]
        )

    def _take(self, key: PortKey, touched: dict[ServiceKey, None], moved: dict[str, set[str]]) -> None:
        block = self._blocks.pop(key)
        self._known[key[:2]].pop(key)
        for claim in block.claims:
            virtual = claim.virtual.key
            touched[virtual] = None
            claims = self._claims.get(virtual)
            if claims is not None:
                claims.pop(key, None)
                if not claims:
                    del self._claims[virtual]
        for name, element in block.entries:
            _less(self._entries[name], element)
            moved.setdefault(name, set()).add(element)
        for address in block.bound:
            _less(self._bound, address)
            moved.setdefault(IPVS_IPS, set()).add(address)
        for rule in block.denied:
            _less(self._denied, rule)

    def _give(
        self, key: PortKey, block: PortBlock, touched: dict[ServiceKey, None], moved: dict[str, set[str]]
    ) -> None:
        self._blocks[key] = block
        self._known.setdefault(key[:2], {})[key] = None
        for claim in block.claims:
            virtual = claim.virtual.key
            touched[virtual] = None
            self._claims.setdefault(virtual, {})[key] = claim
        for name, element in block.entries:
            _more(self._entries[name], element)
            moved.setdefault(name, set()).add(element)
        for address in block.bound:
            _more(self._bound, address)
            moved.setdefault(IPVS_IPS, set()).add(address)
        for rule in block.denied:
            _more(self._denied, rule)

    # Sets

    def _all_sets(self, space: Netns) -> None:
        sets = dict(space.ipsets)
        fam = "inet6" if self.family == 6 else "inet"
        for name, info in SETS.items():
            full_name = set_name(name, self.family)
            elements = self._bound if name == IPVS_IPS else self._entries[name]
            made = IpSet(full_name, info.type, fam, None, dict.fromkeys(elements, ()))
            if sets.get(full_name) != made:
                sets[full_name] = made
        space.ipsets = sets

    def _some_sets(self, space: Netns, moved: Mapping[str, set[str]]) -> None:
        for name, elements in moved.items():
            full_name = set_name(name, self.family)
            here = space.ipsets[full_name]
            wanted = self._bound if name == IPVS_IPS else self._entries[name]
            gone = [one for one in elements if one not in wanted and one in here.entries]
            new = [one for one in elements if one in wanted and one not in here.entries]
            if gone or new:
                space.ipsets = {**space.ipsets, full_name: _changed_set(here, gone, new)}

    # Addresses

    def _addresses(self, space: Netns, moved: Collection[str], full: bool) -> None:
        if DUMMY not in space.links:
            space.add_link(DUMMY, "dummy", mac=mac_from(space.name, DUMMY), noarp=True)
        if not full and not moved:
            return
        have: Collection[str]
        if full:
            have = {a.local for a in space.addresses.get(DUMMY, ()) if a.family == self.family}
        else:
            have = space.ipsets[set_name(IPVS_IPS, self.family)].entries
        add = [
            one for one in (self._bound if full else sorted(moved)) if one in self._bound and one not in have
        ]
        remove = [one for one in (have if full else moved) if one in have and one not in self._bound]
        if add or remove:
            space.bind_hosts(DUMMY, add, remove)

    # Virtual servers

    def _servers(
        self, space: Netns, wanted: list[ServiceKey], touched: Mapping[ServiceKey, None], first: bool
    ) -> None:
        table = space.ipvs
        for key in wanted:
            claims = self._claims.get(key)
            if not claims:
                continue
            # Two Services may want one address and port: the one that comes last has it, whichever that is.
            claim = claims[next(reversed(claims))]
            present = table.services.get(key)
            if present is None:
                table.add_service(claim.virtual)
            elif present != claim.virtual:
                table.edit_service(claim.virtual)
            self._reals(space, claim.virtual, claim.servers, first)
        for key in touched:
            if key not in self._claims and key in table.services:
                table.delete_service(key)

    def _reals(self, space: Netns, virtual: VirtualServer, wanted: tuple[Server, ...], first: bool) -> None:
        table, key = space.ipvs, virtual.key
        present = table.reals[key]
        listed = self.terminating
        # kube-proxy adds them in no certain order. The kernel's list has the youngest first, so that in this order
        # round robin begins with the first endpoint.
        for server in reversed(wanted):
            here = present.get(server)
            if here is None:
                table.add_server(key, RealServer(*server))
                continue
            if first and here.weight != 1:
                table.edit_server(key, replace(here, weight=1))
            name = real_server_name(virtual, server) if listed else ""
            if name in listed:
                table.delete_server(key, server)
                del listed[name]
                table.add_server(key, RealServer(*server))
        if len(present) == len(wanted) and not listed:
            return
        keep = set(wanted)
        for server in [server for server in present if server not in keep]:
            name = real_server_name(virtual, server)
            if name not in listed and not self._end(space, virtual, server):
                table.edit_server(key, replace(present[server], weight=0))
                listed[name] = (key, server)

    def _end(self, space: Netns, virtual: VirtualServer, server: Server) -> bool:
        """Delete a real server unless TCP connections to it are left."""
        table, key = space.ipvs, virtual.key
        active, inactive, _templates = table.connections(key, server)
        if virtual.protocol == TCP and active + inactive:
            return False
        table.delete_server(key, server)
        return True

    def end_terminating(self, space: Netns, now: float) -> int:
        """Delete the terminating real servers whose connections have ended; return how many."""
        table = space.ipvs
        table.expire(now)
        done = 0
        for name, (key, server) in list(self.terminating.items()):
            virtual = table.services.get(key)
            if virtual is None or server not in table.reals[key] or self._end(space, virtual, server):
                del self.terminating[name]
                done += 1
        return done

    def _strangers(self, space: Netns) -> None:
        """Delete virtual servers of this family that no Service wants, but those that must be left alone."""
        table = space.ipvs
        excluded = [PREFIX[block] for block in self.config.ipvs_exclude_cidrs]
        for key, virtual in list(table.services.items()):
            if key in self._claims or virtual.fwmark or virtual.family != self.family:
                continue
            if not any(virtual.address in block for block in excluded):
                table.delete_service(key)


def _more(counted: dict[str, int], what: str) -> None:
    counted[what] = counted.get(what, 0) + 1


def _less(counted: dict[str, int], what: str) -> None:
    left = counted[what] - 1
    if left:
        counted[what] = left
    else:
        del counted[what]


def _changed_set(here: IpSet, gone: Iterable[str], new: Iterable[str]) -> IpSet:
    entries = dict(here.entries)
    for one in gone:
        entries.pop(one, None)
    for one in new:
        entries[one] = ()
    made = IpSet(here.name, here.type, here.family, here.settings)
    made.entries = entries  # a set of many elements is not copied twice
    return made


def real_server_name(virtual: VirtualServer, server: Server) -> str:
    """Return the name of a terminating real server in kube-proxy's log: "10.96.0.1:80/TCP/10.244.0.5:8080"."""
    place = socket_text(virtual.address, virtual.port)
    return f"{place}/{PROTOCOL_NAMES[virtual.protocol]}/{socket_text(*server)}"


class KubeProxyIpvs:
    """One node's kube-proxy in IPVS mode. It works on the node's kernel; the object remembers what it did."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig | None = None) -> None:
        self.node = node
        self.config = config or KubeProxyConfig()
        self._tracker = ServiceTracker()
        self._halves = {f: _Half(node, self.config, f) for f in (4, 6)}

    @property
    def sysctls(self) -> dict[str, int]:
        """What it sets at its start."""
        strict = {"net.ipv4.conf.all.arp_announce": 2, "net.ipv4.conf.all.arp_ignore": 1}
        return {
            **(strict if self.config.ipvs_strict_arp else {}),
            "net.ipv4.ip_forward": 1,
            "net.ipv4.vs.conntrack": 1,
            "net.ipv4.vs.expire_nodest_conn": 1,
            "net.ipv4.vs.expire_quiescent_template": 1,
        }

    @property
    def terminating(self) -> list[str]:
        """The real servers that wait for their connections' end, by name, sorted."""
        return sorted(name for half in self._halves.values() for name in half.terminating)

    def start(self, space: Netns, tracker: ServiceTracker) -> None:
        """Set its sysctls and time-outs and do the first sync (`NodeProxy.start`).

        Nothing is left to the first look: the addresses of kube-ipvs0 decide about packets before any rule does.
        """
        for name, value in self.sysctls.items():
            space.set_sysctl(name, value)
        if any(self.config.ipvs_timeouts):
            tcp, tcp_fin, udp = (int(seconds) for seconds in self.config.ipvs_timeouts)
            space.ipvs.set_timeouts(tcp, tcp_fin, udp)
        self.apply(space, tracker.maps, {4: set(), 6: set()})

    def follow(self, space: Netns, tracker: ServiceTracker, changed: Mapping[int, set[Named]]) -> None:
        """One turn of its loop (`NodeProxy.follow`)."""
        self.apply(space, tracker.maps, changed)

    def sync(
        self,
        space: Netns,
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
        *,
        full: bool = False,
    ) -> dict[int, list[str]]:
        """Bring a node to these Services and EndpointSlices; return the iptables texts it wrote, by family (4, 6).

        The first sync is full, and so is one after the node's addresses changed; `full` asks for another, which also
        takes away what others did to the virtual servers. The texts are lists of lines.
        """
        changed = self._tracker.update(services, slices)
        return self.apply(space, self._tracker.maps, changed, full=full)

    def apply(
        self,
        space: Netns,
        maps: Mapping[int, ServiceMap],
        changed: Mapping[int, set[Named]],
        *,
        full: bool = False,
    ) -> dict[int, list[str]]:
        """Do what `sync` does, from the `maps` of a ServiceTracker and what its `update` returned."""
        written = {}
        for f, half in self._halves.items():
            text = half.sync(maps[f], changed[f], space, full)
            if text is None:
                continue
            written[f] = text
            before = space.iptables[f]
            after = restore(ensure_jumps(before), text)
            if after != before:
                space.set_iptables(f, after)
        return written

    def end_terminating(self, space: Netns, now: float) -> int:
        """Delete terminating real servers whose connections have ended, as it does each `TERMINATION_CHECK` s."""
        return sum(half.end_terminating(space, now) for half in self._halves.values() if half.terminating)

    def health_checks(self, maps: Mapping[int, ServiceMap] | None = None) -> list[HealthCheck]:
        """Return what is served on the Services' healthCheckNodePorts, sorted by Service.

        `maps` are those of the last sync, by default of the last call of `sync`.
        """
        maps = maps or self._tracker.maps
        ports: dict[Named, int] = {}
        local: dict[Named, int] = {}
        for services in maps.values():
            ready: dict[Named, set[str]] = {}
            for key, port in services.ports.items():
                if port.health_check_node_port:
                    ports[key[:2]] = port.health_check_node_port
                    ready.setdefault(key[:2], set()).update(
                        e.address
                        for e in services.endpoints.get(key, ())
                        if e.ready and e.node == self.node.name
                    )
            # The two families count for themselves; a Service is as healthy as the better of them.
            for named, addresses in ready.items():
                local[named] = max(local.get(named, 0), len(addresses))
        return [HealthCheck("/".join(named), ports[named], local[named]) for named in sorted(ports)]


def sysctl_path(name: str) -> str:
    """Return a parameter as kube-proxy names it: "net/ipv4/ip_forward"."""
    return name.replace(".", "/")


def state_document(space: Netns) -> dict[str, Any]:
    """Return the virtual servers, sets and addresses of a node as plain lists, sorted.

    {"virtualServers": [{"address", "port", "protocol", "scheduler", "flags", "timeout", "realServers": [{"address",
    "port", "weight"}], and "flagNames" where there are any}], "ipsets": [{"name", "type", "family", "entries"}],
    "kubeIpvs0": [address]}.
    """
    table = space.ipvs
    servers = []
    for key, virtual in sorted(table.services.items(), key=lambda item: _order(item[1])):
        names = [
            name
            for name, bit in (("persistent", PERSISTENT), ("source-hash", SCHED_2))
            if virtual.all_flags & bit
        ]
        servers.append(
            {
                "address": virtual.address,
                "port": virtual.port,
                "protocol": PROTOCOL_NAMES[virtual.protocol],
                "scheduler": virtual.scheduler,
                "flags": virtual.all_flags,
                **({"flagNames": names} if names else {}),
                "timeout": virtual.persistent,
                "realServers": [
                    {"address": real.address, "port": real.port, "weight": real.weight}
                    for real in sorted(table.reals[key].values(), key=lambda real: (real.address, real.port))
                ],
            }
        )
    sets = []
    for fam in (4, 6):
        for name, info in SETS.items():
            found = space.ipsets[set_name(name, fam)]
            sets.append(
                {
                    "name": found.name,
                    "type": info.type,
                    "family": "inet6" if fam == 6 else "inet",
                    "entries": sorted(found.entries),
                }
            )
    return {
        "virtualServers": servers,
        "ipsets": sets,
        "kubeIpvs0": [
            address for fam in (4, 6) for address in sorted(one.local for one in space.addrs(DUMMY, fam))
        ],
    }


def _order(virtual: VirtualServer) -> tuple[Any, ...]:
    return (virtual.family, virtual.address, virtual.port, PROTOCOL_NAMES[virtual.protocol])
