"""kube-proxy in nftables mode: the transactions it feeds to `nft -f -`.

Each IP family has a table of its own, kube-proxy, which nobody else touches. The first transaction makes it
whole; later ones add and delete elements of the shared sets and maps one by one, and write only the chains of
Services that changed. Chains, maps, comments and the order of commands are those of Kubernetes 1.37 (KEP-3866).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from msgspec import Struct

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.nftables import Ruleset
from kubenet_lab.kernel.nftables.datatypes import value_text
from kubenet_lab.kernel.nftables.expressions import Data, Key, Verdict
from kubenet_lab.objects import EndpointSlice, Json, Service
from kubenet_lab.packet.ip import PREFIX, family
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, nodeport_ips
from kubenet_lab.proxy.names import is_nftables_service_chain
from kubenet_lab.proxy.nftables_rules import MASQUERADE_MARK, TABLE, Block, Element, Place, PortRules
from kubenet_lab.proxy.services import Named, PortKey, ServiceMap, ServicePort, ServiceTracker, categorize

BASE_CHAINS = {
    "filter-prerouting-pre-dnat": "type filter hook prerouting priority -110",
    "filter-output-pre-dnat": "type filter hook output priority -110",
    "filter-input": "type filter hook input priority 0",
    "filter-forward": "type filter hook forward priority 0",
    "filter-output": "type filter hook output priority 0",
    "nat-prerouting": "type nat hook prerouting priority -100",
    "nat-output": "type nat hook output priority -100",
    "nat-postrouting": "type nat hook postrouting priority 100",
}
"""Chains at hooks. What filters by a Service's own address comes before its translation (-100)."""

JUMPS = (
    ("filter-input", "ct state new ", "nodeport-endpoints-check"),
    ("filter-input", "ct state new ", "service-endpoints-check"),
    ("filter-forward", "ct state new ", "service-endpoints-check"),
    ("filter-output", "ct state new ", "service-endpoints-check"),
    ("filter-prerouting-pre-dnat", "ct state new ", "firewall-check"),
    ("filter-output-pre-dnat", "ct state new ", "firewall-check"),
    ("nat-output", "", "services"),
    ("nat-prerouting", "", "services"),
    ("nat-postrouting", "", "masquerading"),
    ("filter-forward", "ct state new ", "cluster-ips-check"),
    ("filter-output", "ct state new ", "cluster-ips-check"),
)
"""(chain at a hook, match, chain it jumps to), in the order they are written."""

CONTAINERS = (
    "cluster-ips",
    "service-ips",
    "firewall-ips",
    "no-endpoint-services",
    "no-endpoint-nodeports",
    "service-nodeports",
    "hairpin-connections",
)
"""Shared sets and maps whose elements follow the Services, in the order in which leftovers are deleted."""

LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}

Elements = dict[tuple[str, str], str]
"""(set or map, key) -> value, "" in sets."""


class Existing(Struct, frozen=True):
    """What of kube-proxy's table is in the kernel: chains, sets (both by name) and elements."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    elements: Mapping[tuple[str, str], str] = {}


class Written(Struct, frozen=True):
    """The transactions of one sync, by family; none for a family in which nothing had changed.

    Each is a list of lines; the last, empty, stands for the final newline.
    """

    ip: list[list[str]]
    ip6: list[list[str]]

    @property
    def nft(self) -> list[list[str]]:
        """All of them, IPv4 first."""
        return [*self.ip, *self.ip6]


class _Half:
    """kube-proxy's half for one IP family: what it wrote last, and what it writes next."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig, ip_family: int) -> None:
        self.place = Place.of(node, config, ip_family)
        self.synced = False
        # What is in the kernel, as far as is known.
        self._elements: Elements = {}
        self._chains: set[str] = set()
        self._sets: set[str] = set()
        self._stale: list[str] = []
        # What should be there: each port's part of it, and the sums of the parts.
        self._blocks: dict[PortKey, Block] = {}
        self._used_chains: set[str] = set()
        self._used_sets: set[str] = set()
        self._users: dict[tuple[str, str], int] = {}
        self._contested: set[tuple[str, str]] = set()

    def sync(
        self, services: ServiceMap, changed: set[Named], full: bool, existing: Existing | None
    ) -> list[list[str]]:
        """Return the next transactions: none if nothing changed and nothing asks for a full one."""
        full = full or not self.synced
        if not changed and not full:
            return []
        if existing is not None:
            self._chains = set(filter(is_nftables_service_chain, existing.chains))
            self._sets = {name for name in existing.sets if name.startswith("affinity-")}
            if full:
                self._elements = {k: v for k, v in existing.elements.items() if k[0] in CONTAINERS}
        deleted = [f"delete chain {self.place.ip} {TABLE} {c}" for c in self._stale if c in self._chains]
        self._chains.difference_update(self._stale)
        lines = list(self._setup(first=not self.synced)) if full else []
        lines += self._ports(services, changed, full)
        self.synced = True
        return [[*text, ""] for text in (deleted, lines) if text]

    def _ports(self, services: ServiceMap, changed: set[Named], full: bool) -> Iterator[str]:
        start = f"{self.place.ip} {TABLE}"
        everything = full or bool(self._contested)
        old = list(self._blocks) if full else [key for key in self._blocks if key[:2] in changed]
        freed = {which for key in old for which in self._forget(key)}
        for key, port in services.ports.items():
            write = full or key[:2] in changed
            # Another port may have taken an element just now: then this one takes its own back.
            if not write and not everything and not self._contested:
                continue
            block = self._remember(key, port, services) if write else self._blocks[key]
            for part in block.parts:
                if isinstance(part, Element):
                    yield from self._ensure(part)
                elif write:
                    yield f"add chain {start} {part}"
                    yield f"flush chain {start} {part}"
            if write:
                yield from block.commands
        # A chain is only emptied: older kernels still count a deleted element's reference to it for a moment.
        self._stale = sorted(self._chains - self._used_chains)
        yield from (f"flush chain {start} {name}" for name in self._stale)
        yield from (f"delete set {start} {name}" for name in sorted(self._sets - self._used_sets))
        yield from self._leftovers(self._elements if full else freed)
        self._sets = set(self._used_sets)
        self._chains |= self._used_chains

    def _forget(self, key: PortKey) -> Iterator[tuple[str, str]]:
        """Count a port's block out, and return its elements."""
        block = self._blocks.pop(key)
        self._used_sets.difference_update(block.sets)
        for part in block.parts:
            if isinstance(part, str):
                self._used_chains.discard(part)
                continue
            which = part[:2]
            self._users[which] -= 1
            if self._users[which] < 2:
                self._contested.discard(which)
            yield which

    def _remember(self, key: PortKey, port: ServicePort, services: ServiceMap) -> Block:
        """Make a port's block and count it in."""
        node = self.place.node
        choice = categorize(port, services.endpoints.get(key, ()), node.name, node.zone)
        block = self._blocks[key] = PortRules(self.place, port, choice).block()
        self._used_sets.update(block.sets)
        for part in block.parts:
            if isinstance(part, str):
                self._used_chains.add(part)
            else:
                self._users[part[:2]] = self._users.get(part[:2], 0) + 1
        return block

    def _ensure(self, element: Element) -> Iterator[str]:
        """Add an element unless it is there.

        A map has no way to change a value. Where two Services claim one address each takes it from the other, in
        every sync again.
        """
        which = element[:2]
        known = self._elements.get(which)
        if known == element.value:
            return
        if known is not None:
            yield self._delete(*which)
            if self._users[which] > 1:
                self._contested.add(which)
        yield element.add(self.place.ip)
        self._elements[which] = element.value

    def _leftovers(self, candidates: Iterable[tuple[str, str]]) -> Iterator[str]:
        left = [which for which in candidates if not self._users.get(which)]
        for which in sorted(left, key=lambda which: (CONTAINERS.index(which[0]), which[1])):
            self._users.pop(which, None)
            if self._elements.pop(which, None) is not None:
                yield self._delete(*which)

    def _delete(self, container: str, key: str) -> str:
        return f"delete element {self.place.ip} {TABLE} {container} {{ {key} }}"

    # What is there whatever the Services

    def _setup(self, first: bool) -> Iterator[str]:
        start = f"{self.place.ip} {TABLE}"
        yield f'add table {start} {{ comment "rules for kube-proxy" ; }}'
        for command in self._fixed(first):
            verb, kind, rest = command.split(" ", 2)
            yield f"{verb} {kind} {start} {rest}"

    def _fixed(self, first: bool) -> Iterator[str]:
        """The commands after "add table", without the two words for the table ("ip kube-proxy")."""
        if first:
            # An older kube-proxy's chain of that name may have another priority, which cannot be changed.
            for name in BASE_CHAINS:
                yield from _absent("chain", name)
        for name, hook in BASE_CHAINS.items():
            yield from _emptied(name, f" {{ {hook} ; }}")
        seen = set()
        for source, match, target in JUMPS:
            if target not in seen:
                seen.add(target)
                yield from _emptied(target)
            yield _rule(source, f"{match}jump {target}")
        yield from self._masquerading()
        yield from self._cluster_ips()
        yield from self._nodeport_ips()
        yield from self._no_endpoints()
        yield from _localhost_leftovers()
        yield from self._dispatch()

    @property
    def _address(self) -> str:
        return f"ipv{self.place.family}_addr"

    def _service_map(self, name: str, comment: str) -> str:
        return _map(name, f"{self._address} . inet_proto . inet_service", comment)

    def _masquerading(self) -> Iterator[str]:
        ip, mark = self.place.ip, MASQUERADE_MARK
        pair = f"{self._address} . {self._address} . inet_proto . inet_service"
        yield _set("hairpin-connections", pair, "service hairpin connections")
        marked = f"mark and {mark} != 0 mark set mark xor {mark}"
        yield _rule("masquerading", f"{marked} masquerade fully-random")
        hairpin = f"ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections"
        yield _rule("masquerading", f"{hairpin} masquerade fully-random")

    def _cluster_ips(self) -> Iterator[str]:
        ip = self.place.ip
        yield _set("cluster-ips", self._address, "Active ClusterIPs")
        why = "Reject traffic to invalid ports of ClusterIPs"
        yield _rule("cluster-ips-check", f'{ip} daddr @cluster-ips reject comment "{why}"')
        blocks = ",".join(b for b in self.place.config.service_cidrs if family(b) == self.place.family)
        if blocks:
            why = "Drop traffic to unallocated ClusterIPs"
            yield _rule("cluster-ips-check", f'{ip} daddr {{ {blocks} }} drop comment "{why}"')

    def _nodeport_ips(self) -> Iterator[str]:
        yield _set("nodeport-ips", self._address, "IPs that accept NodePort traffic")
        if not self.place.nodeports:
            yield "delete set nodeport-ips"
            return
        yield "flush set nodeport-ips"
        for address in nodeport_ips(self.place.node, self.place.nodeports, self.place.family):
            if address not in PREFIX[LOOPBACK[self.place.family]]:
                yield f"add element nodeport-ips {{ {address} }}"

    def _no_endpoints(self) -> Iterator[str]:
        why = "vmap to drop or reject packets to service"
        yield self._service_map("no-endpoint-services", f"{why}s with no endpoints")
        yield _map("no-endpoint-nodeports", "inet_proto . inet_service", f"{why} nodeports with no endpoints")
        comment = "helper for @no-endpoint-services / @no-endpoint-nodeports"
        yield f'add chain reject-chain {{ comment "{comment}" ; }}'
        yield "flush chain reject-chain"
        yield _rule("reject-chain", "reject")
        yield _rule("service-endpoints-check", self._look_up("no-endpoint-services"))
        nodeport = f"{self._not_loopback} {self._look_up_port('no-endpoint-nodeports')}"
        if self.place.nodeports:
            nodeport = self._look_up_nodeport("no-endpoint-nodeports")
        yield _rule("nodeport-endpoints-check", nodeport)

    def _dispatch(self) -> Iterator[str]:
        place = self.place
        yield self._service_map("firewall-ips", "destinations that are subject to LoadBalancerSourceRanges")
        yield _rule("firewall-check", self._look_up("firewall-ips"))
        yield self._service_map("service-ips", "ClusterIP, ExternalIP and LoadBalancer IP traffic")
        yield _map("service-nodeports", "inet_proto . inet_service", "NodePort traffic")
        ours = f"{place.ip} daddr @cluster-ips"
        if place.config.masquerade_all:
            yield _rule("services", f'{ours} {place.mark} comment "masquerade all clusterIP traffic"')
        elif place.not_ours:
            why = "masquerade clusterIP traffic from outside cluster"
            yield _rule("services", f'{ours} {place.not_ours} {place.mark} comment "{why}"')
        yield _rule("services", self._look_up("service-ips"))
        nodeport = f"fib daddr type local {self._not_loopback} {self._look_up_port('service-nodeports')}"
        if place.nodeports:
            nodeport = self._look_up_nodeport("service-nodeports")
        yield _rule("services", nodeport)

    @property
    def _not_loopback(self) -> str:
        return f"{self.place.ip} daddr != {LOOPBACK[self.place.family].removesuffix('/128')}"

    def _look_up(self, name: str) -> str:
        return f"{self.place.ip} daddr . meta l4proto . th dport vmap @{name}"

    def _look_up_port(self, name: str) -> str:
        return f"meta l4proto . th dport vmap @{name}"

    def _look_up_nodeport(self, name: str) -> str:
        return f"{self.place.ip} daddr @nodeport-ips {self._look_up_port(name)}"


def _rule(chain: str, text: str) -> str:
    return f"add rule {chain} {text}"


def _set(name: str, kind: str, comment: str) -> str:
    return f'add set {name} {{ type {kind} ; comment "{comment}" ; }}'


def _map(name: str, kind: str, comment: str) -> str:
    return f'add map {name} {{ type {kind} : verdict ; comment "{comment}" ; }}'


def _emptied(chain: str, hook: str = "") -> Iterator[str]:
    yield f"add chain {chain}{hook}"
    yield f"flush chain {chain}"


def _absent(kind: str, name: str, declared: str = "") -> Iterator[str]:
    """Deleting what is not there fails the whole transaction; so it is added first."""
    yield f"add {kind} {name}{declared}"
    yield f"delete {kind} {name}"


def _localhost_leftovers() -> Iterator[str]:
    """What serves node ports on localhost (KEP-6032, alpha) is deleted while its gate is off."""
    declared = ' { type inet_proto . inet_service : verdict ; comment "localhost NodePorts rejected by kube-proxy" ; }'
    yield from _absent("map", "localhost-nodeport-reject-ports", declared)
    for protocol in ("tcp", "udp", "sctp"):
        yield from _absent("chain", f"localhost-nodeport-reject-{protocol}")
        yield from _absent("counter", f"localhost-nodeport-rejected-{protocol}")


class KubeProxyNftables:
    """One node's kube-proxy. `sync` gives what it writes; the object remembers what it wrote before."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig | None = None) -> None:
        self.node = node
        self.config = config or KubeProxyConfig()
        self._tracker = ServiceTracker()
        self._halves = {f: _Half(node, self.config, f) for f in (4, 6)}

    @property
    def sysctls(self) -> dict[str, int]:
        """What it sets at its start: nothing, as node ports do not answer on 127.0.0.1 in this mode."""
        return {}

    @property
    def synced(self) -> bool:
        """Whether it wrote its rules yet."""
        return all(half.synced for half in self._halves.values())

    def start(self, space: Netns, tracker: ServiceTracker) -> None:
        """Write all rules when somebody first looks at them (`NodeProxy.start`)."""
        present = space.nftables
        nothing: dict[int, set[Named]] = {4: set(), 6: set()}
        # A network that is restored may build twice: nothing then tells kube-proxy that its table is gone.
        space.defer_nftables(lambda: self.apply(present, tracker.maps, nothing, full=True))

    def follow(self, space: Netns, tracker: ServiceTracker, changed: Mapping[int, set[Named]]) -> None:
        """A partial sync on a node whose rules somebody has looked at (`NodeProxy.follow`).

        Raises InputError where the kernel refuses, as when somebody deleted the table; nothing has changed then.
        """
        if not self.synced:
            return
        ruleset = space.nftables
        for f, half in self._halves.items():
            there = existing(ruleset, f, elements=False)
            ruleset = _run(ruleset, half.sync(tracker.maps[f], changed[f], False, there))
        space.set_nftables(ruleset)

    def sync(
        self,
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
        *,
        full: bool = False,
        existing: Mapping[int, Existing] | None = None,
    ) -> Written:
        """Return the transactions that bring the kernel to these Services and EndpointSlices.

        The first sync is full; `full` asks for another, as after a transaction that failed. `existing` is what is
        in the kernel, by family (4, 6); without it that is what was written last.

        Chains that no Service needs any more are emptied, and deleted before the next sync, in a transaction of
        their own: kube-proxy waits a second, and here that second is taken to have passed.
        """
        changed = self._tracker.update(services, slices)
        return self.write(self._tracker.maps, changed, full=full, existing=existing)

    def write(
        self,
        maps: Mapping[int, ServiceMap],
        changed: Mapping[int, set[Named]],
        *,
        full: bool = False,
        existing: Mapping[int, Existing] | None = None,
    ) -> Written:
        """Do what `sync` does, from the `maps` of a ServiceTracker and what its `update` returned.

        Many nodes can share one tracker; each must then be told of every change.
        """
        v4, v6 = (
            self._halves[f].sync(
                maps[f], changed[f], full, None if existing is None else existing.get(f, Existing())
            )
            for f in (4, 6)
        )
        return Written(v4, v6)

    def reconcile(
        self,
        ruleset: Ruleset,
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
    ) -> Ruleset:
        """Return the node's nftables ruleset after one turn of kube-proxy's loop."""
        changed = self._tracker.update(services, slices)
        return self.apply(ruleset, self._tracker.maps, changed)

    def apply(
        self,
        ruleset: Ruleset,
        maps: Mapping[int, ServiceMap],
        changed: Mapping[int, set[Named]],
        *,
        full: bool = False,
    ) -> Ruleset:
        """Do what `reconcile` does, from the `maps` of a ServiceTracker and what its `update` returned.

        There is no canary in this mode: that somebody flushed the rules shows only when the next transaction fails.
        Then everything is written again, as it is with `full`.
        """
        for f, half in self._halves.items():
            there = existing(ruleset, f, elements=full or not half.synced)
            texts = half.sync(maps[f], changed[f], full, there)
            try:
                ruleset = _run(ruleset, texts)
            except InputError:
                ruleset = _run(ruleset, half.sync(maps[f], changed[f], True, existing(ruleset, f)))
        return ruleset


def existing(ruleset: Ruleset, ip_family: int, *, elements: bool = True) -> Existing:
    """Return what is in a ruleset of kube-proxy's table of one family (4 or 6)."""
    table = ruleset.tables.get(("ip" if ip_family == 4 else "ip6", TABLE))
    if table is None:
        return Existing()
    sets = [table.sets[name] for name in CONTAINERS if elements and name in table.sets]
    known = {
        (one.name, _text(one.key, element.key)): _value(element.data)
        for one in sets
        for element in one.elements.values()
    }
    return Existing(frozenset(table.chains), frozenset(table.sets), known)


def cleanup(ruleset: Ruleset) -> Ruleset:
    """Return the ruleset without what kube-proxy made (`kube-proxy --cleanup`): its two tables."""
    edit = ruleset.edit()
    for ip in ("ip", "ip6"):
        edit.delete_table(ip, TABLE, destroy=True)
    return edit.commit()


def _run(ruleset: Ruleset, texts: list[list[str]]) -> Ruleset:
    """Do what `nft -f -` does with each text."""
    from kubenet_lab.kernel.dialects import nft

    for text in texts[:-1]:
        # Stale chains. Where one cannot be deleted yet kube-proxy goes on, and tries again at its next sync.
        with suppress(InputError):
            ruleset = nft.apply(ruleset, "\n".join(text))
    for text in texts[-1:]:
        ruleset = nft.apply(ruleset, "\n".join(text))
    return ruleset


def _text(types: tuple[str, ...], key: Key) -> str:
    fields = key if isinstance(key, tuple) else (key,)
    return " . ".join(
        value_text(t, v) for t, v in zip(types, fields, strict=True) if isinstance(v, str | int)
    )


def _value(data: Data) -> str:
    return f"{data.kind} {data.chain}".rstrip() if isinstance(data, Verdict) else ""
