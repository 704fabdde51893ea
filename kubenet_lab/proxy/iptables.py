"""kube-proxy in iptables mode: the text it feeds to `iptables-restore --noflush --counters`.

One sync is one text for each IP family. The first writes everything; later ones write the shared chains
again, and of the chains that belong to one Service only those of Services that changed, and delete chains
that no Service needs. Chains, comments and the order of rules are those of Kubernetes 1.37.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import repeat

from msgspec import Struct

from kubenet_lab.kernel import netfilter
from kubenet_lab.kernel.dialects import iptables as dialect
from kubenet_lab.kernel.netfilter import Rule, Ruleset
from kubenet_lab.kernel.netfilter.matches.comment import Comment
from kubenet_lab.kernel.netfilter.matches.conntrack import Conntrack
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects import EndpointSlice, Json, Service
from kubenet_lab.packet.ip import PREFIX
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, nodeport_ips
from kubenet_lab.proxy.iptables_rules import LOCALNET, Block, Place, PortRules
from kubenet_lab.proxy.names import is_service_chain
from kubenet_lab.proxy.services import (
    Named,
    PortKey,
    ServiceMap,
    ServiceTracker,
    categorize,
)

CANARY = "KUBE-PROXY-CANARY"
CANARY_TABLES = ("mangle", "nat", "filter")
"""kube-proxy watches an empty chain in each table; when it is gone somebody flushed the rules: a full sync
follows."""

LARGE_CLUSTER = 1000
"""With more endpoints than this the comments of per-endpoint rules are left out."""

FILTER_CHAINS = (
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
)
"""In the filter table, beside KUBE-FIREWALL."""

NAT_CHAINS = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ")


class Jump(Struct, frozen=True):
    """A rule of a built-in chain that kube-proxy ensures: `iptables -C` and, if it is missing, `iptables -I`.

    With `new` it is for a connection's first packet only. `kubelets` ones are the kubelet's too: they stay
    after `kube-proxy --cleanup`.
    """

    table: str
    source: str
    target: str
    comment: str = ""
    new: bool = False
    kubelets: bool = False

    @property
    def rule(self) -> Rule:
        """The rule as it is in the kernel."""
        new = (Conntrack(state=("NEW",)),) if self.new else ()
        comment = (Comment(self.comment),) if self.comment else ()
        return Rule(matches=(*new, *comment), target=netfilter.Jump(self.target))


_PORTALS, _OUTSIDE = "kubernetes service portals", "kubernetes externally-visible service portals"
_FIREWALL = "kubernetes load balancer firewall"
JUMPS = (
    Jump("filter", "INPUT", "KUBE-EXTERNAL-SERVICES", _OUTSIDE, new=True),
    Jump("filter", "FORWARD", "KUBE-EXTERNAL-SERVICES", _OUTSIDE, new=True),
    Jump("filter", "INPUT", "KUBE-NODEPORTS", "kubernetes health check service ports"),
    Jump("filter", "FORWARD", "KUBE-SERVICES", _PORTALS, new=True),
    Jump("filter", "OUTPUT", "KUBE-SERVICES", _PORTALS, new=True),
    Jump("filter", "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    Jump("filter", "INPUT", "KUBE-PROXY-FIREWALL", _FIREWALL, new=True),
    Jump("filter", "OUTPUT", "KUBE-PROXY-FIREWALL", _FIREWALL, new=True),
    Jump("filter", "FORWARD", "KUBE-PROXY-FIREWALL", _FIREWALL, new=True),
    Jump("nat", "OUTPUT", "KUBE-SERVICES", _PORTALS),
    Jump("nat", "PREROUTING", "KUBE-SERVICES", _PORTALS),
    Jump("nat", "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
    Jump("filter", "INPUT", "KUBE-FIREWALL", kubelets=True),
    Jump("filter", "OUTPUT", "KUBE-FIREWALL", kubelets=True),
)
"""In the order they are ensured. Each is put first in its chain, so the last ensured is the first met."""


def jumps(ip_family: int) -> tuple[Jump, ...]:
    """Return the jumps kube-proxy ensures before each sync; the two families (4, 6) have the same."""
    if ip_family not in (4, 6):
        raise ValueError(f"family {ip_family}: there are 4 and 6")
    return JUMPS


def flushed(ruleset: Ruleset) -> bool:
    """Tell whether a canary chain is missing: somebody flushed the rules, or kube-proxy never ran."""
    return any(CANARY not in ruleset.tables[t].chains if t in ruleset.tables else True for t in CANARY_TABLES)


def ensure_jumps(ruleset: Ruleset) -> Ruleset:
    """Return the ruleset with the canary chains and the jumps; what is there already stays where it is."""
    if not flushed(ruleset) and all(ruleset.has(j.table, j.source, j.rule) for j in JUMPS):
        return ruleset
    edit = ruleset.edit()
    for table in CANARY_TABLES:
        edit.ensure_chain(table, CANARY)
    for jump in JUMPS:
        edit.ensure_chain(jump.table, jump.target)
        if not ruleset.has(jump.table, jump.source, jump.rule):
            edit.insert(jump.table, jump.source, jump.rule)
    return edit.commit()


def cleanup(ruleset: Ruleset) -> Ruleset:
    """Return the ruleset without what kube-proxy made (`kube-proxy --cleanup`).

    KUBE-FIREWALL and the jumps to it stay: kubelet makes the same.
    """
    edit = ruleset.edit()
    for jump in JUMPS:
        if not jump.kubelets and ruleset.has(jump.table, jump.source, jump.rule):
            edit.delete(jump.table, jump.source, jump.rule)
    for table, ours in (("filter", FILTER_CHAINS), ("nat", NAT_CHAINS), ("mangle", ())):
        chains = ruleset.tables[table].chains if table in ruleset.tables else {}
        gone = [
            name for name in chains if name in (*ours, CANARY) or (table == "nat" and is_service_chain(name))
        ]
        for name in gone:
            edit.flush(table, name)
        for name in gone:
            edit.delete_chain(table, name)
    return edit.commit()


@lru_cache(maxsize=1 << 19)
def _rule(text: str, ip_family: int, table: str) -> Rule:
    """Return the rule behind "-A CHAIN ", read once: nodes share most of their rules, and so do syncs."""
    return dialect.rule(text, ip_family, table)


def restore(ruleset: Ruleset, text: Iterable[str]) -> Ruleset:
    """Do what `iptables-restore --noflush` does with a text of kube-proxy's, given as lines.

    It equals `kubenet_lab.kernel.dialects.iptables.restore`, which takes any text, but reads each rule once.
    Raises NetfilterError if the kernel would refuse; then nothing has changed.
    """
    edit = ruleset.edit()
    table = ""
    for line in text:
        start = line[:1]
        if start == "-":
            command, chain, *rest = line.split(" ", 2)
            if command == "-X":
                edit.delete_chain(table, chain)
            else:
                edit.append(table, chain, _rule(rest[0], ruleset.family, table))
        elif start == ":":
            edit.restore_chain(table, line[1 : line.index(" ")])
        elif start == "*":
            table = line[1:]
    return edit.commit()


class Written(Struct, frozen=True):
    """The texts of one sync as lists of lines (the last, empty, stands for the final newline).

    None for a family in which nothing had changed: kube-proxy then writes nothing.
    """

    iptables_restore: list[str] | None
    ip6tables_restore: list[str] | None


class _Half:
    """kube-proxy's half for one IP family: what it wrote last, and what it writes next."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig, ip_family: int) -> None:
        self.place = Place.of(node, config, ip_family)
        self.synced = False
        self._blocks: dict[PortKey, Block] = {}

    def sync(
        self,
        services: ServiceMap,
        changed: set[Named],
        full: bool,
        existing: Collection[str] | None,
    ) -> list[str] | None:
        """Return the next text, or None if nothing changed and nothing asks for a full one."""
        full = full or not self.synced
        if not changed and not full:
            return None
        large = sum(map(len, map(services.endpoints.get, services.ports, repeat(())))) > LARGE_CLUSTER
        node = self.place.node
        filter_rules: list[str] = []
        chain_lines: list[str] = []
        nat_rules: list[str] = []
        blocks: dict[PortKey, Block] = {}
        before = self._blocks
        active: set[str] = set()
        gone: list[Block] = [before[key] for key in before.keys() - services.ports.keys()]
        for key, port in services.ports.items():
            block = before.get(key)
            if block is None or full or key[:2] in changed:
                if block is not None:
                    gone.append(block)
                choice = categorize(port, services.endpoints.get(key, ()), node.name, node.zone)
                block = PortRules(self.place, port, choice, large).block()
                chain_lines += [f":{name} - [0:0]" for name in block.chains]
                nat_rules += block.dispatch
                nat_rules += block.rules
                active.update(block.chains)
            else:
                nat_rules += block.dispatch
            filter_rules += block.filter_rules
            blocks[key] = block
        if existing is None:
            stale = sorted({name for block in gone for name in block.chains} - active)
        else:
            needed = {name for block in blocks.values() for name in block.chains}
            stale = sorted(name for name in set(existing) - needed if is_service_chain(name))
        self.synced, self._blocks = True, blocks
        return [
            "*filter",
            *(f":{name} - [0:0]" for name in FILTER_CHAINS),
            *self._localnet_firewall(),
            *filter_rules,
            *self._forward_rules(),
            "COMMIT",
            "*nat",
            *(f":{name} - [0:0]" for name in NAT_CHAINS),
            *chain_lines,
            *(f":{name} - [0:0]" for name in stale),
            *self._masquerade_rules(),
            *nat_rules,
            *(f"-X {name}" for name in stale),
            *self._nodeports_jumps(),
            "COMMIT",
            "",
        ]

    # Rules that are there whatever the Services

    def _localnet_firewall(self) -> list[str]:
        """Keep other hosts from using what route_localnet=1 opens on 127.0.0.1 (CVE-2020-8558)."""
        if not self.place.localhost_nodeports:
            return []
        return [
            ":KUBE-FIREWALL - [0:0]",
            (
                '-A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 '
                "! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
            ),
        ]

    def _forward_rules(self) -> list[str]:
        mark = self.place.config.masquerade_mark
        start = "-A KUBE-FORWARD -m comment --comment"
        known = "-m conntrack --ctstate RELATED,ESTABLISHED"
        rules = [
            f'{start} "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT',
            f'{start} "kubernetes forwarding conntrack rule" {known} -j ACCEPT',
        ]
        if self.place.config.conntrack_tcp_be_liberal:
            return rules
        counter = " -m nfacct --nfacct-name ct_state_invalid_dropped_pkts" if self.place.config.nfacct else ""
        return [
            f"-A KUBE-FORWARD -m conntrack --ctstate INVALID{counter} -j DROP",
            *rules,
        ]

    def _masquerade_rules(self) -> list[str]:
        mark = self.place.config.masquerade_mark
        why = "kubernetes service traffic requiring SNAT"
        fully = " --random-fully" if self.place.config.random_fully else ""
        return [
            f"-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN",
            f"-A KUBE-POSTROUTING -j MARK --xor-mark {mark}",
            f'-A KUBE-POSTROUTING -m comment --comment "{why}" -j MASQUERADE{fully}',
            f"-A KUBE-MARK-MASQ -j MARK --or-mark {mark}",
        ]

    def _nodeports_jumps(self) -> list[str]:
        note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
        start = f'-A KUBE-SERVICES -m comment --comment "{note}"'
        if not self.place.nodeports:
            guard = "" if self.place.localhost_nodeports else f" ! -d {LOCALNET[self.place.family]}"
            return [f"{start} -m addrtype --dst-type LOCAL{guard} -j KUBE-NODEPORTS"]
        return [
            f"{start} -d {address} -j KUBE-NODEPORTS"
            for address in nodeport_ips(self.place.node, self.place.nodeports, self.place.family)
            if self.place.localhost_nodeports or address not in PREFIX[LOCALNET[self.place.family]]
        ]


class KubeProxyIptables:
    """One node's kube-proxy. `sync` gives what it writes; the object remembers what it wrote before."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig | None = None) -> None:
        self.node = node
        self.config = config or KubeProxyConfig()
        self._tracker = ServiceTracker()
        self._halves = {f: _Half(node, self.config, f) for f in (4, 6)}

    @property
    def sysctls(self) -> dict[str, int]:
        """What it sets at its start: node ports on 127.0.0.1 need packets of that address to be routed."""
        local = self._halves[4].place.localhost_nodeports
        return {"net.ipv4.conf.all.route_localnet": 1} if local else {}

    def start(self, space: Netns, tracker: ServiceTracker) -> None:
        """Set its sysctls; write all rules when somebody first looks at them (`NodeProxy.start`)."""
        for name, value in self.sysctls.items():
            space.set_sysctl(name, value)
        space.amend_iptables(lambda base: self.apply(base, tracker.maps, {4: set(), 6: set()}))

    def follow(self, space: Netns, tracker: ServiceTracker, changed: Mapping[int, set[Named]]) -> None:
        """A partial sync on a node whose rules somebody has looked at (`NodeProxy.follow`).

        The jumps are taken to be there, and the chains of Services that did not change. Raises NetfilterError where
        they are not, and the kernel refuses; nothing of that family has changed then.
        """
        if space.rules_deferred:
            return
        texts = {f: half.sync(tracker.maps[f], changed[f], False, None) for f, half in self._halves.items()}
        for f, text in texts.items():
            if text is not None:
                space.set_iptables(f, restore(space.iptables[f], text))

    def sync(
        self,
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
        *,
        full: bool = False,
        existing: Mapping[int, Collection[str]] | None = None,
    ) -> Written:
        """Return the texts that bring the kernel to these Services and EndpointSlices.

        The first sync is full; `full` asks for another, as after a flush. `existing` names the nat chains
        that are in the kernel, by family (4, 6); without it they are those written last.
        """
        changed = self._tracker.update(services, slices)
        return self.write(self._tracker.maps, changed, full=full, existing=existing)

    def write(
        self,
        maps: Mapping[int, ServiceMap],
        changed: Mapping[int, set[Named]],
        *,
        full: bool = False,
        existing: Mapping[int, Collection[str]] | None = None,
    ) -> Written:
        """Do what `sync` does, from the `maps` of a ServiceTracker and what its `update` returned.

        Many nodes can share one tracker; each must then be told of every change.
        """
        v4, v6 = (
            self._halves[f].sync(maps[f], changed[f], full, None if existing is None else existing.get(f, ()))
            for f in (4, 6)
        )
        return Written(v4, v6)

    def reconcile(
        self,
        rulesets: Mapping[int, Ruleset],
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
    ) -> dict[int, Ruleset]:
        """Return the node's rulesets, by family (4, 6), after one turn of kube-proxy's loop.

        A missing canary chain makes it write everything, and delete what an earlier kube-proxy left.
        """
        changed = self._tracker.update(services, slices)
        return self.apply(rulesets, self._tracker.maps, changed)

    def apply(
        self,
        rulesets: Mapping[int, Ruleset],
        maps: Mapping[int, ServiceMap],
        changed: Mapping[int, set[Named]],
    ) -> dict[int, Ruleset]:
        """Do what `reconcile` does, from the `maps` of a ServiceTracker and what its `update` returned."""
        after = {}
        for f, half in self._halves.items():
            full = flushed(rulesets[f])
            ruleset = ensure_jumps(rulesets[f])
            nat = ruleset.tables["nat"].chains
            text = half.sync(maps[f], changed[f], full, nat if full or not half.synced else None)
            after[f] = ruleset if text is None else restore(ruleset, text)
        return after
