"""A network namespace: everything the kernel knows that decides a packet's fate there.

Edits are verbs (`add_route`, `set_link`, ...) that check what rtnetlink checks and raise `KernelError` in its words.
Each verb applies whole or not at all; `transaction()` does the same for a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from kubenet_lab.kernel import sysctl
from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.conntrack import ConntrackTable
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.ipset import IpSet
from kubenet_lab.kernel.ipvs import IpvsTable
from kubenet_lab.kernel.late import copied
from kubenet_lab.kernel.link import Link, Peer
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.nftables.ruleset import Ruleset as NftRuleset
from kubenet_lab.kernel.route import (
    REFUSING,
    TABLE_LOCAL,
    TABLE_MAIN,
    Fib,
    NextHop,
    Route,
    RouteRule,
    default_rules,
)
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.kernel.wireguard import Session, after_change
from kubenet_lab.packet.ip import IP_INT, eui64, family, ip_text, prefix

if TYPE_CHECKING:
    from kubenet_lab.kernel.bpf import BpfState
    from kubenet_lab.kernel.network import Network

ZERO_MAC = "00:00:00:00:00:00"
_TABLES = (
    "links",
    "addresses",
    "rules",
    "routes",
    "neighbours",
    "fdb",
    "sysctls",
    "sockets",
    "ipsets",
    "files",
    "wireguard",
)


class RouteLookup(NamedTuple):
    """The answer of the FIB: the route that won and the rule that led to its table."""

    route: Route
    rule: RouteRule
    via: str
    dev: str


class Netns:
    """One network namespace of a host. `name` is unique in its network ("node-1", "default/frontend")."""

    def __init__(self, name: str, host: str = "") -> None:
        self.name = name
        self.host = host or name
        self.network: Network | None = None
        """The network this namespace is part of: where the far ends of its veth pairs are."""
        self.links: dict[str, Link] = {}
        self.addresses: dict[str, tuple[Address, ...]] = {}
        self.rules: dict[int, tuple[RouteRule, ...]] = {4: default_rules(4), 6: default_rules(6)}
        self.routes: dict[tuple[int, int], dict[tuple[str, int, str], Route]] = {}
        self.neighbours: dict[tuple[str, str], Neighbour] = {}
        self.fdb: dict[tuple[str, str], tuple[FdbEntry, ...]] = {}
        self.sysctls: dict[str, str] = {}
        self.sockets: dict[tuple[int, int], tuple[Socket, ...]] = {}
        self.ipsets: dict[str, IpSet] = {}
        self.files: dict[str, str] = {}
        """The files of the mount namespace beside it that networking reads (/etc/resolv.conf, /etc/hosts)."""
        self.wireguard: dict[tuple[str, str], Session] = {}
        """What each WireGuard device knows of its peers: (link, public key) -> session."""
        self.conntrack = ConntrackTable()
        self._ipvs: IpvsTable | None = None
        self.bpf: BpfState | None = None
        """BPF maps and programs of a host, in its own namespace; None where nobody loaded any."""
        self.xt_state: dict[Any, Any] = {}
        """Private memory of matches that keep some (`statistic --mode nth`, `recent`)."""
        self.next_port: dict[int, int] = {}
        """Last ephemeral port handed out, a protocol."""
        self.pmtu: dict[str, tuple[int, float]] = {}
        """Path MTU learned from ICMP errors: destination -> (bytes, when it is forgotten in s)."""
        self._iptables: dict[int, Ruleset] = {}
        self._build_rules: Callable[[], dict[int, Ruleset]] | None = None
        self._nftables: NftRuleset | None = None
        self._build_nftables: Callable[[], NftRuleset] | None = None
        self._fibs: dict[tuple[int, int], Fib] = {}
        self._local: dict[str, str] | None = None
        self._parameters: dict[str, str] = {}
        self.trusted_sources: set[tuple[str, str]] = set()
        """(source, link) pairs that passed source validation where no reverse path filter is on."""
        self.timeouts: dict[str, float] = {}
        """Conntrack time-outs in s, by sysctl; derived when first needed."""
        self.rp_filter: dict[str, int] = {}
        """Reverse path mode in force, by link; derived from the sysctls when first needed."""
        self.plans: dict[int, Any] = {}
        """What the walk made of the present rules, by family; emptied whenever they change."""
        self._lookups: dict[tuple[str, str, str, str, int], RouteLookup | None] = {}
        self._macs: dict[str, frozenset[str]] = {}
        self.served: tuple[int, Any] = (-1, None)
        """Generation as the last container was connected, and what with: another like it succeeds while both stay."""
        self.generation = 0
        """Grows with every edit of links, addresses, routes or rules; derived values key on it."""
        if _NEW is None:
            self.add_link("lo", "loopback", mac=ZERO_MAC, mtu=65536)
            self.set_link("lo", up=True)
            self.add_address("lo", "127.0.0.1/8", scope="host")
            self.add_address("lo", "::1/128", scope="host")
        else:
            self.links = dict(_NEW.links)
            self.addresses = dict(_NEW.addresses)
            self.routes = {key: dict(table) for key, table in _NEW.routes.items()}

    def __repr__(self) -> str:
        return f"<Netns {self.name} on {self.host}: {', '.join(self.links)}>"

    # -- transactions ---------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Netns]:
        """Apply a group of edits whole or not at all."""
        before = self.snapshot()
        try:
            yield self
        except BaseException:
            self.restore(before)
            raise

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs to bring the present state back (values are shared, they are frozen)."""
        saved: dict[str, Any] = {name: copied(getattr(self, name)) for name in _TABLES}
        saved["routes"] = {key: copied(table) for key, table in self.routes.items()}
        saved["_iptables"] = dict(self._iptables)
        saved["_build_rules"] = self._build_rules
        saved["_nftables"] = self._nftables.snapshot() if self._nftables is not None else None
        saved["_build_nftables"] = self._build_nftables
        saved["conntrack"] = self.conntrack.copy()
        saved["_ipvs"] = self._ipvs.copy() if self._ipvs is not None else None
        saved["bpf"] = self.bpf.snapshot() if self.bpf is not None else None
        saved["xt_state"] = dict(self.xt_state)
        saved["next_port"] = dict(self.next_port)
        saved["pmtu"] = dict(self.pmtu)
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Bring back a state taken by `snapshot`."""
        if "waits" in saved:
            from kubenet_lab.kernel import put_off

            put_off.restore(self, saved)
            return
        for name, value in saved.items():
            if name == "_nftables":
                self._nftables = value.restore() if value is not None else None
            else:
                setattr(self, name, {k: copied(v) for k, v in value.items()} if name == "routes" else value)
        for name in _TABLES:
            if name != "routes":
                setattr(self, name, copied(getattr(self, name)))
        if self.network is not None and self.name in self.network.stacking:
            self.network.restack()
        self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._fibs.clear()
        self._lookups.clear()
        self._macs.clear()
        self._parameters.clear()
        self.rp_filter.clear()
        self.trusted_sources.clear()
        self.timeouts.clear()
        self.plans.clear()
        self._local = None

    # -- links ----------------------------------------------------------------------------------------------------

    def link(self, name: str) -> Link:
        """Return a link by name. Raises KernelError ENODEV."""
        try:
            return self.links[name]
        except KeyError:
            raise KernelError("ENODEV", f'"{name}" in {self.name}') from None

    def add_link(self, name: str, kind: str, *, index: int = 0, **fields: Any) -> Link:
        """`ip link add NAME type KIND ...`. The index is the next free one unless given. Raises EEXIST."""
        if name in self.links:
            raise KernelError("EEXIST", f"{name} in {self.name}")
        if self.network is not None and kind in self.network.lacks:
            raise KernelError("EOPNOTSUPP", f"link kind {kind}")
        index = index or max((link.index for link in self.links.values()), default=0) + 1
        made = Link(name=name, index=index, kind=kind, **fields)
        if made.up:
            made = replace(made, activated=True)
        self.links = {**self.links, name: made}
        if kind == "bridge":
            self._own_fdb(made, made.mac)
        if made.master:
            self._own_fdb(made, made.mac)
            self._bridge_follows(made.master)
        if made.up:
            self._link_up(made)
        if self.network is not None and (made.lower is not None or made.wireguard is not None):
            self.network.stacked(self.name)
        self._changed()
        return made

    def set_link(self, name: str, **fields: Any) -> Link:
        """`ip link set NAME up|down|mtu N|address MAC|master BR|...`.

        Down removes the link's routes, neighbours and IPv6 addresses, as the kernel does, and the far end of a
        veth pair loses its carrier. A bridge takes the lowest MAC and the smallest MTU of its ports until somebody
        sets them.
        """
        old = self.link(name)
        if "mac" in fields:
            fields["mac_set"] = True
        if "mtu" in fields:
            fields["mtu_set"] = True
        if fields.get("up"):
            fields["activated"] = True
        new = replace(old, **fields)
        if self.network is not None and new.mtu > old.mtu and (new.macvlan or new.vlan):
            self.network.check_mtu(new)
        if new.master and not old.master and self.network is not None:
            if any(upper.vlan is None for _home, upper in self.network.uppers(self.name, name)):
                raise KernelError("EBUSY", f"{name} has a macvlan or ipvlan")
        if self.network is not None and new.lower is not None and (new.up, new.mac) != (old.up, old.mac):
            if new.macvlan is not None and new.macvlan.mode != "passthru" and (new.up or new.mac != old.mac):
                self.network.check_mac(self.name, new)
            if old.up:
                self.network.upper_switched(self.name, replace(old, up=False))
            if new.up:
                self.network.upper_switched(self.name, new)
        self.links[name] = new
        if (new.mac, new.master) != (old.mac, old.master):
            if old.master and new.master != old.master:
                self._forget_fdb(name)
            if new.kind == "bridge" or new.master:
                self._own_fdb(new, old.mac)
        if old.up and not new.up:
            self._link_down(new)
            for address in [
                a for a in self.addresses.get(name, ()) if a.family == 6 and new.kind != "loopback"
            ]:
                self.delete_address(name, f"{address.local}/{address.length}")
        if new.up and not old.up:
            self._link_up(new)
        for bridge in {old.master, new.master} - {""}:
            self._bridge_follows(bridge)
        if old.wireguard is not None and (new.wireguard, new.up) != (old.wireguard, old.up):
            self.wireguard = after_change(self.wireguard, old, new)
        far = self._far_end(new)
        if far is not None and old.up != new.up:
            far[0].set_carrier(far[1], new.up)
        if self.network is not None and (self.name, name) in self.network.stacks:
            self.network.lower_changed(self.name, old, self.links[name])
        self._changed()
        return self.links[name]

    def set_carrier(self, name: str, carrier: bool) -> Link:
        """The cable was plugged in or pulled, or the far end of the pair went up or down."""
        old = self.link(name)
        if old.carrier == carrier:
            return old
        new = self.links[name] = replace(old, carrier=carrier)
        if carrier:
            self._link_ready(new)
        elif new.master:
            self._forget_fdb(name, learned_only=True)
        if new.master:
            self._bridge_follows(new.master)
        if self.network is not None and (self.name, name) in self.network.stacks:
            self.network.lower_changed(self.name, old, new)
        self._changed()
        return new

    def delete_link(self, name: str) -> None:
        """`ip link del NAME`: its addresses, routes, neighbours, FDB entries and a veth's far end go with it."""
        link = self.link(name)
        far = self._far_end(link)
        del self.links[name]
        if self.bpf is not None:
            self.bpf.detach(name)
        self.addresses.pop(name, None)
        self._link_down(link)
        self._forget_fdb(name)
        for port, other in list(self.links.items()):
            if other.master == name:
                self.links[port] = replace(other, master="", port=None)
        if link.master in self.links:
            self._bridge_follows(link.master)
        self._changed()
        if far is not None:
            far[0].delete_link(far[1])
        if link.wireguard is not None:
            self.wireguard = {key: seen for key, seen in self.wireguard.items() if key[0] != name}
        if self.network is not None:
            if link.lower is not None or (self.name, name) in self.network.stacks:
                self.network.unstack(self.name, link)
            if link.lower is not None or link.wireguard is not None:
                self.network.restack()

    def _far_end(self, link: Link) -> tuple[Netns, str] | None:
        """The namespace and name of a veth's other end, while both are there."""
        if link.peer is None or self.network is None:
            return None
        other = self.network.netns.get(link.peer.netns)
        if other is None or other.links.get(link.peer.link, link).peer != Peer(self.name, link.name):
            return None
        return other, link.peer.link

    def _own_fdb(self, link: Link, old_mac: str) -> None:
        """Keep the entry that makes a bridge deliver frames for its own or a port's MAC upwards (br_fdb_add_local)."""
        bridge = link.master or link.name
        own = FdbEntry(link.name, old_mac, master=bridge, state="permanent")
        if self.fdb.get((bridge, old_mac)) == (own,):
            del self.fdb[bridge, old_mac]
        present = self.fdb.get((bridge, link.mac), ())
        if not any(entry.state == "permanent" for entry in present):
            self.fdb[bridge, link.mac] = (FdbEntry(link.name, link.mac, master=bridge, state="permanent"),)

    def _forget_fdb(self, dev: str, learned_only: bool = False) -> None:
        for key, entries in list(self.fdb.items()):
            if key[0] != dev and all(entry.dev != dev for entry in entries):
                continue
            kept = tuple(e for e in entries if (e.state if learned_only else dev not in (e.dev, e.master)))
            if kept:
                self.fdb[key] = kept
            else:
                del self.fdb[key]

    def _bridge_follows(self, name: str) -> None:
        """Let a bridge take MAC, MTU and carrier from its ports (br_stp_recalculate_bridge_id, br_mtu_auto_adjust)."""
        bridge = self.links.get(name)
        if bridge is None:
            return
        ports = self.ports(name)
        carrier, mac, mtu = any(port.running for port in ports), bridge.mac, bridge.mtu
        if not bridge.mac_set:
            mac = min((port.mac for port in ports), default=ZERO_MAC)
        if not bridge.mtu_set:
            mtu = min((port.mtu for port in ports), default=1500)
        if (carrier, mac, mtu) == (bridge.carrier, bridge.mac, bridge.mtu):
            return
        new = self.links[name] = replace(bridge, carrier=carrier, mac=mac, mtu=mtu)
        if new.mac != bridge.mac:
            self._own_fdb(new, bridge.mac)
        if new.running and not bridge.running:
            self._link_ready(new)

    def _link_down(self, link: Link) -> None:
        for key, table in self.routes.items():
            keep_local = key[1] == TABLE_LOCAL and link.name in self.links
            self.routes[key] = {
                k: r
                for k, r in table.items()
                if not _uses(r, link.name) or (keep_local and r.type == "local")
            }
        self.neighbours = {k: n for k, n in self.neighbours.items() if k[0] != link.name}
        if link.master:
            self._forget_fdb(link.name, learned_only=True)

    def _link_up(self, link: Link) -> None:
        for address in self.addresses.get(link.name, ()):
            self._connect(address)
        if link.carrier:
            self._link_ready(link)

    def _link_ready(self, link: Link) -> None:
        """A link is up and has carrier: it gets its IPv6 link-local address (RFC 4862; ports of a bridge too)."""
        if (
            not link.up
            or link.kind == "loopback"
            or not link.mac
            or self.sysctl(sysctl.conf(6, link.name, "disable_ipv6")) != "0"
        ):
            return
        if all(a.family != 6 or a.scope != "link" for a in self.addresses.get(link.name, ())):
            taken = self._siblings_addresses(link)
            own = eui64(link.mac)
            # The devices of ipvlan share one MAC: each has a number, which stands in its interface identifier instead.
            number = 0
            while link.ipvlan is not None and (not number or own in taken):
                number += 1
                own = eui64(link.mac, number)
            self.add_address(link.name, f"{own}/64", scope="link")

    def _siblings_addresses(self, link: Link) -> set[str]:
        """The addresses of the other ipvlan devices on the same link."""
        if link.ipvlan is None or self.network is None:
            return set()
        lower = link.ipvlan.lower
        return {
            a.local
            for home, other in self.network.uppers(lower.netns, lower.link)
            if (home, other.name) != (self, link.name)
            for a in home.addresses.get(other.name, ())
        }

    def by_mac(self, mac: str) -> tuple[str, ...]:
        """Return the names of links that have this MAC."""
        return tuple(link.name for link in self.links.values() if link.mac == mac)

    def own_macs(self, link: str) -> frozenset[str]:
        """Return the MACs that frames for this namespace carry on a link: its own, and a bridge's ports' too."""
        found = self._macs.get(link)
        if found is None:
            macs = {self.links[link].mac, *(port.mac for port in self.links.values() if port.master == link)}
            found = self._macs[link] = frozenset(macs)
        return found

    def ports(self, bridge: str) -> tuple[Link, ...]:
        """Return the ports of a bridge, in order of their index."""
        return tuple(link for link in self.links.values() if link.master == bridge)

    # -- addresses ------------------------------------------------------------------------------------------------

    def add_address(
        self,
        dev: str,
        cidr: str,
        *,
        scope: str = "",
        broadcast: str = "",
        label: str = "",
        noprefixroute: bool = False,
    ) -> Address:
        """`ip addr add CIDR dev DEV`. Adds the local and connected routes the kernel adds.

        Raises KernelError: EEXIST, ENODEV, EADDRINUSE (ipvlan tells its devices apart by their addresses).
        """
        link = self.link(dev)
        local, _, length_text = cidr.partition("/")
        fam = family(local)
        length = int(length_text) if length_text else (32 if fam == 4 else 128)
        present = self.addresses.get(dev, ())
        if any(a.local == local and a.length == length for a in present):
            raise KernelError("EEXIST", f"{cidr} dev {dev}")
        if link.ipvlan is not None and local in self._siblings_addresses(link):
            raise KernelError(
                "EADDRINUSE", f"{local}: another ipvlan device on {link.ipvlan.lower.link} has it"
            )
        net = prefix(cidr)
        secondary = fam == 4 and any(
            a.length == length and a.family == 4 and local in a.network for a in present
        )
        made = Address(
            dev,
            local,
            length,
            scope or ("host" if link.kind == "loopback" else "global"),
            broadcast,
            label or (dev if fam == 4 else ""),
            secondary,
            ("noprefixroute",) if noprefixroute else (),
        )
        assert net.family == fam
        self.addresses[dev] = (*present, made)
        self._connect(made)
        self._changed()
        return made

    def bind_hosts(self, dev: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """`ip addr add A/32 dev DEV` (/128 in IPv6) for many addresses at once, and `ip addr del` for others.

        It does what `add_address` and `delete_address` do, in one edit: an IPVS node has an address a Service. What is
        there already stays, what is not there is not missed. Raises ENODEV.
        """
        self.link(dev)
        gone = set(remove)
        present = {a.local for a in self.addresses.get(dev, ())}
        new = [one for one in dict.fromkeys(add) if one not in present or one in gone]
        made = tuple(
            Address(dev, one, 128 if ":" in one else 32, "global", "", "" if ":" in one else dev)
            for one in new
        )
        self.addresses[dev] = (*(a for a in self.addresses.get(dev, ()) if a.local not in gone), *made)
        for key, table in self.routes.items():
            if gone and key[1] == TABLE_LOCAL:
                self.routes[key] = {
                    k: r for k, r in table.items() if r.dev != dev or r.dst.partition("/")[0] not in gone
                }
        for address in made:
            self._connect(address)
        self._changed()

    def delete_address(self, dev: str, cidr: str) -> None:
        """`ip addr del CIDR dev DEV`. Raises EADDRNOTAVAIL when it is not there.

        A subnet's secondary addresses go with its primary one, as they do while promote_secondaries is off.
        """
        local, _, length = cidr.partition("/")
        present = self.addresses.get(dev, ())
        kept = tuple(a for a in present if not (a.local == local and (not length or a.length == int(length))))
        if len(kept) == len(present):
            raise KernelError("EADDRNOTAVAIL", f"{cidr} dev {dev}")
        primary = [a for a in present if a not in kept and not a.secondary]
        kept = tuple(a for a in kept if not (a.secondary and any(a.network == p.network for p in primary)))
        gone = {a.local for a in present if a not in kept}
        self.addresses[dev] = kept
        for key, table in self.routes.items():
            self.routes[key] = {
                k: r
                for k, r in table.items()
                if not (
                    r.dev == dev
                    and (r.prefsrc in gone or (r.type == "local" and r.dst.split("/")[0] in gone))
                )
            }
        for address in kept:
            self._connect(address)
        self._changed()

    def _connect(self, address: Address) -> None:
        link = self.links[address.dev]
        full = 32 if address.family == 4 else 128
        if address.family == 4:
            scope_dst = f"{address.network}" if link.kind == "loopback" else f"{address.local}/32"
            locals_ = {scope_dst, f"{address.local}/32"}
            for dst in locals_:
                self._put(
                    Route(
                        dst,
                        address.dev,
                        type="local",
                        table=TABLE_LOCAL,
                        proto="kernel",
                        scope="host",
                        prefsrc=address.local,
                    )
                )
        else:
            self._put(
                Route(f"{address.local}/128", address.dev, type="local", table=TABLE_LOCAL, proto="kernel")
            )
        if not link.up or address.length == full or link.kind == "loopback":
            if address.family == 4 and link.kind == "loopback" and address.length < 31:
                self._broadcast(address)
            elif address.family == 6 and link.up and link.kind != "loopback":
                # A /128 gets a connected route as well (addrconf_prefix_route); a /32 gets none.
                self._put(Route(str(address.network), address.dev, proto="kernel", metric=256), keep=True)
            return
        if "noprefixroute" not in address.flags:
            if address.family == 4:
                self._put(
                    Route(
                        str(address.network), address.dev, proto="kernel", scope="link", prefsrc=address.local
                    ),
                    keep=True,
                )
            else:
                self._put(Route(str(address.network), address.dev, proto="kernel", metric=256), keep=True)
        if address.family == 4 and address.length < 31:
            self._broadcast(address)

    def _broadcast(self, address: Address) -> None:
        block = address.network
        last = ip_text(block.net | (~block.mask & 0xFFFFFFFF), 4)
        self._put(
            Route(
                f"{last}/32",
                address.dev,
                type="broadcast",
                table=TABLE_LOCAL,
                proto="kernel",
                scope="link",
                prefsrc=address.local,
            ),
            keep=True,
        )

    def _put(self, route: Route, keep: bool = False) -> None:
        table = self.routes.setdefault((route.family, route.table), {})
        if keep and route.key in table:
            there = table[route.key]
            if there.family == 6 or there.dev == route.dev:
                return
            # The kernel appends its own route behind one that has the same destination and metric.
            table[route.dst, route.metric, route.dev] = route
            return
        table[route.key] = route

    def addrs(self, dev: str | None = None, fam: int | None = None) -> list[Address]:
        """Return addresses, of one link or all, of one family or both, in the kernel's order."""
        names = [dev] if dev is not None else list(self.links)
        return [a for name in names for a in self.addresses.get(name, ()) if fam is None or a.family == fam]

    def is_local(self, address: str) -> bool:
        """True when the address belongs to this namespace (the local table says so)."""
        found = self._local
        if found is None:
            found = self._local = {}
        hit = found.get(address)
        if hit is None:
            hit = ""
            for route in self.fib(family(address), TABLE_LOCAL).candidates(address):
                hit = route.dev if route.type == "local" else ""
                break
            found[address] = hit
        return hit != ""

    # -- routes ---------------------------------------------------------------------------------------------------

    def add_route(self, dst: str, *, replace_existing: bool = False, **fields: Any) -> Route:
        """`ip route add|replace DST [via GW] [dev DEV] ...`.

        `dst` may be "default" (IPv4) or a prefix. Raises KernelError: EEXIST, ENODEV, ENETUNREACH (the gateway is on
        no connected network and `onlink` is not set).
        """
        if dst == "default":
            dst = "::/0" if ":" in fields.get("via", "") else "0.0.0.0/0"
        made = Route(str(prefix(dst)), **fields)
        if made.family == 6 and made.metric == 0 and made.table != TABLE_LOCAL:
            made = replace(made, metric=1024)
        if made.type in REFUSING or made.type == "throw":
            made = replace(made, dev="" if made.family == 4 else "lo")
        elif (
            not made.via
            and made.family == 4
            and "scope" not in fields
            and made.dev
            and made.type == "unicast"
        ):
            made = replace(made, scope="link")
        for via, dev, onlink in [
            (made.via, made.dev, made.onlink),
            *((n.via, n.dev, n.onlink) for n in made.nexthops),
        ]:
            if dev:
                self.link(dev)
            if via and not onlink and not self._on_link(via, dev):
                way = self.lookup(via, oif=dev)
                if way is None or way.via or way.route.type != "unicast":
                    raise KernelError("ENETUNREACH", str(made))
                if made.via and not made.dev:
                    made = replace(made, dev=way.dev)
        table = self.routes.setdefault((made.family, made.table), {})
        for key in (
            [k for k in table if k[:2] == made.key[:2]]
            if made.family == 6
            else [made.key]
            if made.key in table
            else []
        ):
            if not replace_existing:
                raise KernelError("EEXIST", str(made))
            del table[key]
        table[made.key] = made
        self._changed()
        return made

    def _on_link(self, via: str, dev: str) -> bool:
        """Whether a gateway is plainly in a network of the named link, so that no table has to be asked.

        Only where no rule leads past the main table and no route of it is longer than the network's own.
        """
        if not dev or not self.links[dev].up or len(self.rules[family(via)]) > 3:
            return False
        blocks = [a.network for a in self.addresses.get(dev, ()) if a.local != via and not a.flags]
        block = next((b for b in blocks if via in b), None)
        if block is None:
            return False
        table = self.routes.get((block.family, TABLE_MAIN), {})
        return len(table) <= 2 and all(r.type == "unicast" and not r.via for r in table.values())

    def delete_route(
        self, dst: str, *, table: int = TABLE_MAIN, metric: int | None = None, dev: str = "", via: str = ""
    ) -> Route:
        """`ip route del DST`. Raises ESRCH when no route fits."""
        if dst == "default":
            dst = "::/0" if ":" in via else "0.0.0.0/0"
        dst = str(prefix(dst))
        entries = self.routes.get((family(dst), table), {})
        for key, route in entries.items():
            if (
                route.dst == dst
                and (metric is None or metric == route.metric)
                and (not dev or dev == route.dev)
                and (not via or via == route.via)
            ):
                del entries[key]
                self._changed()
                return route
        raise KernelError("ESRCH", dst)

    def program_routes(self, gone: Iterable[Route], new: Iterable[Route]) -> list[tuple[Route, KernelError]]:
        """Remove and add many routes at once, as a routing daemon does over one netlink socket.

        A route to remove that is not there is passed over. Returns the routes that the kernel refuses, with its
        answer: EEXIST (another program has one with that destination and metric), ENODEV, ENETDOWN.
        """
        failed: list[tuple[Route, KernelError]] = []
        links, usable = self.links, set[str]()
        changed: dict[tuple[int, int], tuple[list[Route], list[Route]]] = {}

        def home(route: Route) -> tuple[dict[tuple[str, int, str], Route], tuple[list[Route], list[Route]]]:
            where = (6 if ":" in route.dst else 4, route.table)
            return self.routes.setdefault(where, {}), changed.setdefault(where, ([], []))

        for route in gone:
            table, news = home(route)
            if table.get(route.key) == route:
                del table[route.key]
                news[0].append(route)
        last: tuple[bool, int] | None = None
        for route in new:
            dst, dev = route.dst, route.dev
            six = ":" in dst
            if (six, route.table) != last:
                last = (six, route.table)
                table, news = home(route)
            key = (dst, route.metric, dev if six else "")
            present = table.get(key)
            if present is not None:
                if present.proto != route.proto:
                    failed.append((route, KernelError("EEXIST", str(route))))
                    continue
                news[0].append(present)
            if dev not in usable:
                devs = [hop.dev for hop in route.nexthops] or ([dev] if dev else [])
                lost = next((name for name in devs if name not in links or not links[name].up), None)
                if lost is not None:
                    failed.append((route, KernelError("ENETDOWN" if lost in links else "ENODEV", str(route))))
                    continue
                if dev:
                    usable.add(dev)
            table[key] = route
            news[1].append(route)
        fibs = dict(self._fibs)
        self._changed()
        for place, fib in fibs.items():
            if place in changed:
                fib.update(*changed[place])
            self._fibs[place] = fib
        return failed

    def route_list(self, fam: int = 4, table: int = TABLE_MAIN) -> list[Route]:
        """Return a table as `ip route` orders it.

        IPv4 walks the trie by address, longer prefix first; IPv6 walks its tree children first, so default comes last.
        """
        entries = list(self.routes.get((fam, table), {}).values())

        def place(route: Route) -> tuple[int, int, int]:
            block = prefix(route.dst)
            last = block.net | ((1 << 128 - block.length) - 1) if fam == 6 else block.net
            return (last, -block.length, route.metric)

        return sorted(entries, key=place)

    def fib(self, fam: int, table: int) -> Fib:
        """Return a table's look-up index, built on first use."""
        key = (fam, table)
        found = self._fibs.get(key)
        if found is None:
            found = self._fibs[key] = Fib(self.routes.get(key, {}).values())
        return found

    def add_rule(self, rule: RouteRule) -> None:
        """`ip rule add ...`. Raises EEXIST."""
        present = self.rules[rule.family]
        if rule in present:
            raise KernelError("EEXIST", str(rule))
        self.rules[rule.family] = tuple(sorted((*present, rule), key=lambda r: r.priority))
        self._changed()

    def delete_rule(self, rule: RouteRule) -> None:
        """`ip rule del ...`. Raises ENOENT."""
        if rule not in self.rules[rule.family]:
            raise KernelError("ENOENT", str(rule))
        self.rules[rule.family] = tuple(r for r in self.rules[rule.family] if r != rule)
        self._changed()

    def lookup(
        self, dst: str, *, src: str = "", iif: str = "", oif: str = "", mark: int = 0
    ) -> RouteLookup | None:
        """`ip route get DST [from SRC] [iif DEV] [oif DEV] [mark M]`: the route that wins, or None.

        Multipath picks a leg by a hash of source and destination (fib_multipath_hash_policy 0); `spread` does so
        for policy 1, which asks for ports too.
        """
        key = (dst, src, iif, oif, mark)
        try:
            return self._lookups[key]
        except KeyError:
            pass
        if len(self._lookups) > 65536:
            self._lookups.clear()
        found = self._lookups[key] = self._look_up(dst, src, iif, oif, mark)
        return found

    def _look_up(self, dst: str, src: str, iif: str, oif: str, mark: int) -> RouteLookup | None:
        fam = 6 if ":" in dst else 4
        for rule in self.rules[fam]:
            if not rule.matches(src, dst, iif, oif, mark):
                continue
            if rule.action != "lookup":
                refusing = Route("::/0" if fam == 6 else "0.0.0.0/0", type=rule.action, table=rule.table)
                return RouteLookup(refusing, rule, "", "")
            for route in self.fib(fam, rule.table).candidates(dst):
                if rule.suppress_prefixlength >= 0 and prefix(route.dst).length <= rule.suppress_prefixlength:
                    continue
                if route.type == "throw":
                    break
                via, dev = route.via, route.dev
                if route.nexthops:
                    legs = self._legs(route, oif)
                    if not legs:
                        continue
                    chosen = _pick(legs, (IP_INT[src] if src else 0) ^ IP_INT[dst])
                    via, dev = chosen.via, chosen.dev
                if oif and dev != oif and route.type not in ("local", *REFUSING):
                    continue
                if route.type == "unicast" and not self.links[dev].up:
                    continue
                return RouteLookup(route, rule, via, dev)
        return None

    def _legs(self, route: Route, oif: str = "") -> list[NextHop]:
        """The legs of a multipath route whose links run."""
        legs = [n for n in route.nexthops if n.dev in self.links and self.links[n.dev].running]
        return [n for n in legs if not oif or n.dev == oif]

    def spread(self, way: RouteLookup, number: int, oif: str = "") -> RouteLookup:
        """Choose the leg of a multipath route anew, by a number that stands for the flow.

        That is fib_multipath_hash_policy 1 (addresses, protocol, ports); a route with one leg stays as it is. The
        kernel's own hash has a secret that changes with each boot, so which leg a flow gets is arbitrary there too.
        """
        legs = self._legs(way.route, oif)
        if not legs:
            return way
        chosen = _pick(legs, number)
        return way._replace(via=chosen.via, dev=chosen.dev)

    # -- neighbours, FDB, sysctl, sockets -------------------------------------------------------------------------

    def set_neighbour(
        self, dev: str, address: str, mac: str, state: str = "PERMANENT", now: float = 0.0
    ) -> Neighbour:
        """`ip neigh replace ADDRESS lladdr MAC dev DEV nud STATE`."""
        self.link(dev)
        made = Neighbour(dev, address, mac, state, now)
        self.neighbours[dev, address] = made
        return made

    def delete_neighbour(self, dev: str, address: str) -> Neighbour:
        """`ip neigh del ADDRESS dev DEV`. Raises ENOENT."""
        try:
            return self.neighbours.pop((dev, address))
        except KeyError:
            raise KernelError("ENOENT", f"{address} dev {dev}") from None

    def fdb_key(self, entry: FdbEntry) -> tuple[str, str]:
        """Return the key of an entry: (bridge or VXLAN device, MAC)."""
        return (entry.master or entry.dev, entry.mac)

    def add_fdb(self, entry: FdbEntry, *, append: bool = False, replace_existing: bool = False) -> None:
        """`bridge fdb add|append|replace MAC dev DEV [dst IP] [master]`. Raises EEXIST, ENODEV."""
        self.link(entry.dev)
        key = self.fdb_key(entry)
        present = self.fdb.get(key, ())
        if present and not append and not replace_existing:
            raise KernelError("EEXIST", str(entry))
        self.fdb[key] = (*present, entry) if append else (entry,)

    def delete_fdb(self, dev: str, mac: str, dst: str = "") -> tuple[FdbEntry, ...]:
        """`bridge fdb del MAC dev DEV [dst IP]`: return what was removed. Raises ENOENT."""
        for key, entries in self.fdb.items():
            gone = tuple(e for e in entries if e.dev == dev and e.mac == mac and (not dst or e.dst == dst))
            if gone:
                kept = tuple(e for e in entries if e not in gone)
                if kept:
                    self.fdb[key] = kept
                else:
                    del self.fdb[key]
                return gone
        raise KernelError("ENOENT", f"{mac} dev {dev}")

    def sysctl(self, key: str) -> str:
        """`sysctl -n KEY`. Raises KeyError for a parameter that does not exist."""
        found = self._parameters.get(key)
        if found is None:
            found = self._parameters[key] = self._parameter(key)
        return found

    def _parameter(self, key: str) -> str:
        key = sysctl.ALIASES.get(key, key)
        value = self.sysctls.get(key)
        if value is not None:
            return value
        head, _, name = key.rpartition(".")
        base, sep, dev = head.partition(".conf.")
        if sep and dev not in ("all", "default"):
            inherited = self.sysctls.get(f"{base}.conf.default.{name}")
            if inherited is not None:
                return inherited
        return sysctl.default(key)

    def set_sysctl(self, key: str, value: str | int) -> None:
        """`sysctl -w KEY=VALUE`. Raises KeyError for a parameter that does not exist here."""
        key = sysctl.ALIASES.get(key, key)
        sysctl.default(key)
        self.sysctls[key] = str(value)
        self._changed()

    def forget_sysctls(self, dev: str) -> None:
        """A link is gone, and /proc/sys/net/ipv4/conf/DEV with it."""
        gone = [key for key in self.sysctls if f".conf.{dev}." in key]
        for key in gone:
            del self.sysctls[key]
        if gone:
            self._changed()

    def listen(self, socket: Socket) -> Socket:
        """Bind a socket. Raises EADDRINUSE when address and port are taken."""
        key = (socket.proto, socket.port)
        present = self.sockets.get(key, ())
        if any(_meet(s.address, socket.address) or _meet(socket.address, s.address) for s in present):
            raise KernelError("EADDRINUSE", str(socket))
        self.sockets[key] = (*present, socket)
        return socket

    def close(self, socket: Socket) -> None:
        """Close a bound socket. Raises ENOENT when it is not there."""
        key = (socket.proto, socket.port)
        present = self.sockets.get(key, ())
        if socket not in present:
            raise KernelError("ENOENT", str(socket))
        kept = tuple(s for s in present if s != socket)
        if kept:
            self.sockets[key] = kept
        else:
            del self.sockets[key]

    def socket_for(self, proto: int, address: str, port: int) -> Socket | None:
        """Return the socket a packet to (address, port) is delivered to; an exact address beats the wildcard."""
        best: Socket | None = None
        for socket in self.sockets.get((proto, port), ()):
            if socket.address == address:
                return socket
            if socket.address == "::" or (socket.address == "0.0.0.0" and ":" not in address):
                best = socket
        return best

    def ephemeral_port(self, proto: int) -> int:
        """Return the next free local port, walking `ip_local_port_range` in order so that a world repeats."""
        low, high = (int(part) for part in self.sysctl("net.ipv4.ip_local_port_range").split())
        port = self.next_port.get(proto, low - 1) + 1
        if not low <= port <= high:
            port = low
        self.next_port[proto] = port
        return port

    # -- netfilter ------------------------------------------------------------------------------------------------

    @property
    def iptables(self) -> dict[int, Ruleset]:
        """The xtables rules, `{4: Ruleset, 6: Ruleset}`; built when somebody first looks."""
        if self._build_rules is not None:
            build, self._build_rules = self._build_rules, None
            self._iptables = build()
            self.plans.clear()
        if not self._iptables:
            self._iptables = {4: Ruleset(4), 6: Ruleset(6)}
        return self._iptables

    def set_iptables(self, fam: int, ruleset: Ruleset) -> None:
        """Swap the whole rules of one family, as one `iptables-restore` does."""
        self._iptables = {**self.iptables, fam: ruleset}
        self.plans.clear()

    def defer_iptables(self, build: Callable[[], dict[int, Ruleset]]) -> None:
        """Leave building the rules to the first look (a node of a big cluster that no packet meets costs nothing)."""
        self._build_rules = build
        self.plans.clear()

    def amend_iptables(self, edit: Callable[[dict[int, Ruleset]], dict[int, Ruleset]]) -> None:
        """Leave an edit of the rules to the first look; it is given what was there, or left to that look, before."""
        earlier, have = self._build_rules, self._iptables or {4: Ruleset(4), 6: Ruleset(6)}
        self._build_rules = lambda: edit(dict(earlier() if earlier is not None else have))
        self.plans.clear()

    @property
    def rules_deferred(self) -> bool:
        """True while nobody has looked at the rules that `defer_iptables` promised."""
        return self._build_rules is not None

    @property
    def nftables(self) -> NftRuleset:
        """The nftables rules; built when somebody first looks."""
        if self._build_nftables is not None:
            build, self._build_nftables = self._build_nftables, None
            self._nftables = build()
            self.plans.clear()
        if self._nftables is None:
            self._nftables = NftRuleset()
        return self._nftables

    @property
    def nftables_built(self) -> NftRuleset | None:
        """The nftables rules as far as they have been built; looking here builds none. None where there are none."""
        return self._nftables or None

    @property
    def has_nftables(self) -> bool:
        """True when there are nftables tables, or `defer_nftables` promised some."""
        return bool(self._nftables) or self._build_nftables is not None

    def set_nftables(self, ruleset: NftRuleset) -> None:
        """Swap the whole nftables rules, as the commit of one `nft -f` does."""
        self._nftables, self._build_nftables = ruleset, None
        self.plans.clear()

    def defer_nftables(self, build: Callable[[], NftRuleset]) -> None:
        """Leave building the nftables rules to the first look."""
        self._build_nftables = build
        self.plans.clear()

    @property
    def ipvs(self) -> IpvsTable:
        """The virtual servers and their connections; the first look switches IPVS on (`modprobe ip_vs`)."""
        if self._ipvs is None:
            self._ipvs = IpvsTable()
            self.plans.clear()
        return self._ipvs

    @property
    def has_ipvs(self) -> bool:
        """True once somebody used IPVS here; before, its hooks are not registered."""
        return self._ipvs is not None

    def set_ipvs(self, table: IpvsTable) -> None:
        """Swap all virtual servers, as `ipvsadm -C` and `ipvsadm -R` do."""
        self._ipvs = table
        self.plans.clear()


_NEW: Netns | None = None
"""What a namespace is born with, made once; `lo` is up in it."""


def _meet(wide: str, address: str) -> bool:
    """True when a socket bound to `wide` takes what comes for `address`: "::" is for both families (ipv6(7))."""
    return wide in (address, "::") or (wide == "0.0.0.0" and ":" not in address)


def _uses(route: Route, dev: str) -> bool:
    return route.dev == dev or (bool(route.nexthops) and all(n.dev == dev for n in route.nexthops))


def _pick(legs: list[Any], number: int) -> Any:
    """Choose a leg by weight from a hash of the flow (Documentation/networking/nexthop-group, layer 3 policy)."""
    total = sum(leg.weight for leg in legs)
    spread = (number * 0x9E3779B1 & 0xFFFFFFFF) * total >> 32
    for leg in legs:
        spread -= leg.weight
        if spread < 0:
            return leg
    return legs[-1]


_NEW = Netns("new")
