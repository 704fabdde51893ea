"""kube-proxy in iptables mode: the text it feeds to `iptables-restore --noflush --counters`.

One sync is one text for each IP family. The first writes everything; later ones write the shared chains again, and of
the chains that belong to one Service only those of Services that changed, and delete chains that no Service needs.
Chains, comments and the order of rules are those of Kubernetes 1.37.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import repeat

from msgspec import Struct

from kubenet_lab.objects import EndpointSlice, Json, Service
from kubenet_lab.packet.ip import PREFIX, family, prefix
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.names import (
    IPTABLES_PREFIXES,
    iptables_chain,
    iptables_hash,
    is_service_chain,
)
from kubenet_lab.proxy.services import (
    Endpoint,
    Named,
    PortKey,
    ServiceMap,
    ServicePort,
    ServiceTracker,
    categorize,
)

CANARY = "KUBE-PROXY-CANARY"
CANARY_TABLES = ("mangle", "nat", "filter")
"""kube-proxy watches an empty chain in each table; when it is gone somebody flushed the rules: a full sync follows."""

LARGE_CLUSTER = 1000
"""With more endpoints than this the comments of per-endpoint rules are left out."""

FILTER_CHAINS = (
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-FORWARD",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
)
NAT_CHAINS = ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ")

_LOCALNET = {4: "127.0.0.0/8", 6: "::1/128"}


class Jump(Struct, frozen=True):
    """A rule of a built-in chain that kube-proxy ensures by `iptables -C` and, if it is missing, `iptables -I`.

    `match` and `comment` stand in front of the jump, as iptables-save prints them.
    """

    table: str
    source: str
    target: str
    comment: str = ""
    match: str = ""

    @property
    def rule(self) -> str:
        """What follows "-A CHAIN " in a restore text."""
        comment = f'-m comment --comment "{self.comment}"' if self.comment else ""
        return " ".join(filter(None, (self.match, comment, f"-j {self.target}")))


_NEW = "-m conntrack --ctstate NEW"
JUMPS = (
    Jump(
        "filter",
        "INPUT",
        "KUBE-EXTERNAL-SERVICES",
        "kubernetes externally-visible service portals",
        _NEW,
    ),
    Jump(
        "filter",
        "FORWARD",
        "KUBE-EXTERNAL-SERVICES",
        "kubernetes externally-visible service portals",
        _NEW,
    ),
    Jump("filter", "INPUT", "KUBE-NODEPORTS", "kubernetes health check service ports"),
    Jump("filter", "FORWARD", "KUBE-SERVICES", "kubernetes service portals", _NEW),
    Jump("filter", "OUTPUT", "KUBE-SERVICES", "kubernetes service portals", _NEW),
    Jump("filter", "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    Jump(
        "filter",
        "INPUT",
        "KUBE-PROXY-FIREWALL",
        "kubernetes load balancer firewall",
        _NEW,
    ),
    Jump(
        "filter",
        "OUTPUT",
        "KUBE-PROXY-FIREWALL",
        "kubernetes load balancer firewall",
        _NEW,
    ),
    Jump(
        "filter",
        "FORWARD",
        "KUBE-PROXY-FIREWALL",
        "kubernetes load balancer firewall",
        _NEW,
    ),
    Jump("nat", "OUTPUT", "KUBE-SERVICES", "kubernetes service portals"),
    Jump("nat", "PREROUTING", "KUBE-SERVICES", "kubernetes service portals"),
    Jump("nat", "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
    Jump("filter", "INPUT", "KUBE-FIREWALL"),
    Jump("filter", "OUTPUT", "KUBE-FIREWALL"),
)
"""In the order they are ensured. Each is put first in its chain, so the last ensured is the first met."""


def jumps(ip_family: int) -> tuple[Jump, ...]:
    """Return the jumps kube-proxy ensures before each sync; the two families (4, 6) have the same."""
    if ip_family not in (4, 6):
        raise ValueError(f"family {ip_family}: there are 4 and 6")
    return JUMPS


class Written(Struct, frozen=True):
    """The texts of one sync as lists of lines (the last, empty, stands for the final newline).

    None for a family in which nothing had changed: kube-proxy then writes nothing.
    """

    iptables_restore: list[str] | None
    ip6tables_restore: list[str] | None


class _Block(Struct, frozen=True, gc=False):
    """The lines of one service port, by the place they have in the text."""

    filter_rules: list[str]
    dispatch: list[str]
    chains: list[str]
    rules: list[str]


class _Family:
    """kube-proxy's half for one IP family: what it wrote last, and what it writes next."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig, ip_family: int) -> None:
        self.family = ip_family
        self.node = node
        self.config = config
        self.zone = node.zone
        self.nodeports = _nodeport_blocks(config, node, ip_family)
        self.localhost_nodeports = (
            ip_family == 4
            and config.localhost_nodeports
            and any(prefix(block).net >> 24 == 127 or prefix(block).length == 0 for block in self.nodeports)
        )
        self.ours, self.not_ours = _local_matches(config, node, ip_family)
        self._synced = False
        self._blocks: dict[PortKey, _Block] = {}

    def sync(
        self,
        services: ServiceMap,
        changed: set[Named],
        full: bool,
        existing: Collection[str] | None,
    ) -> list[str] | None:
        """Return the next text, or None if nothing changed and nothing asks for a full one."""
        full = full or not self._synced
        if not changed and not full:
            return None
        large = sum(map(len, map(services.endpoints.get, services.ports, repeat(())))) > LARGE_CLUSTER
        filter_rules: list[str] = []
        chain_lines: list[str] = []
        nat_rules: list[str] = []
        blocks: dict[PortKey, _Block] = {}
        before = self._blocks
        active: set[str] = set()
        gone: list[_Block] = [before[key] for key in before.keys() - services.ports.keys()]
        for key, port in services.ports.items():
            block = before.get(key)
            if block is None or full or key[:2] in changed:
                if block is not None:
                    gone.append(block)
                block = self._block(port, services.endpoints.get(key, ()), large)
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
        self._synced, self._blocks = True, blocks
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
        """route_localnet=1 lets node ports answer on 127.0.0.1; this keeps other hosts from using it (CVE-2020-8558)."""
        if not self.localhost_nodeports:
            return []
        return [
            ":KUBE-FIREWALL - [0:0]",
            (
                '-A KUBE-FIREWALL -m comment --comment "block incoming localnet connections" -d 127.0.0.0/8 '
                "! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
            ),
        ]

    def _forward_rules(self) -> list[str]:
        mark, start = (
            self.config.masquerade_mark,
            "-A KUBE-FORWARD -m comment --comment",
        )
        rules = [
            f'{start} "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT',
            f'{start} "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
        ]
        if self.config.conntrack_tcp_be_liberal:
            return rules
        counter = " -m nfacct --nfacct-name ct_state_invalid_dropped_pkts" if self.config.nfacct else ""
        return [
            f"-A KUBE-FORWARD -m conntrack --ctstate INVALID{counter} -j DROP",
            *rules,
        ]

    def _masquerade_rules(self) -> list[str]:
        mark = self.config.masquerade_mark
        why = "kubernetes service traffic requiring SNAT"
        fully = " --random-fully" if self.config.random_fully else ""
        return [
            f"-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN",
            f"-A KUBE-POSTROUTING -j MARK --xor-mark {mark}",
            f'-A KUBE-POSTROUTING -m comment --comment "{why}" -j MASQUERADE{fully}',
            f"-A KUBE-MARK-MASQ -j MARK --or-mark {mark}",
        ]

    def _nodeports_jumps(self) -> list[str]:
        start = (
            '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule '
            'in this chain"'
        )
        if any(prefix(block).length == 0 for block in self.nodeports):
            guard = "" if self.localhost_nodeports else f" ! -d {_LOCALNET[self.family]}"
            return [f"{start} -m addrtype --dst-type LOCAL{guard} -j KUBE-NODEPORTS"]
        mine = (
            address
            for address in dict.fromkeys(self.node.interface_addresses)
            if family(address) == self.family and any(address in PREFIX[block] for block in self.nodeports)
        )
        return [
            f"{start} -d {address} -j KUBE-NODEPORTS"
            for address in mine
            if self.localhost_nodeports or address not in PREFIX[_LOCALNET[self.family]]
        ]

    # Rules of one service port

    def _block(self, port: ServicePort, endpoints: tuple[Endpoint, ...], large: bool) -> _Block:
        choice = categorize(port, endpoints, self.node.name, self.zone)
        label, protocol = port.label, port.key.protocol.lower()
        hashed = iptables_hash(label, protocol)
        cluster, local, external, firewall = (
            IPTABLES_PREFIXES[purpose] + hashed for purpose in ("cluster", "local", "external", "firewall")
        )
        layer4 = f"-m {protocol} -p {protocol}"
        has = choice.any
        has_internal = has and (not port.internal_local or bool(choice.local))
        has_external = has and (not port.external_local or bool(choice.local))
        internal_chain = local if port.internal_local else cluster
        fate = "REJECT" if not has else "DROP"
        why = f'-m comment --comment "{label} has no {"" if not has else "local "}endpoints"'

        filter_rules: list[str] = []
        dispatch: list[str] = []
        to_cluster_ip = (
            f'-m comment --comment "{label} cluster IP" {layer4} -d {port.cluster_ip} --dport {port.port}'
        )
        if has_internal:
            dispatch.append(f"-A KUBE-SERVICES {to_cluster_ip} -j {internal_chain}")
        else:
            filter_rules.append(
                f"-A KUBE-SERVICES {why} {layer4} -d {port.cluster_ip} --dport {port.port} -j {fate}"
            )
        for ip in port.external_ips:
            if has:
                dispatch.append(
                    f'-A KUBE-SERVICES -m comment --comment "{label} external IP" {layer4} -d {ip} '
                    f"--dport {port.port} -j {external}"
                )
            if not has_external:
                filter_rules.append(
                    f"-A KUBE-EXTERNAL-SERVICES {why} {layer4} -d {ip} --dport {port.port} -j {fate}"
                )
        guarded = bool(has and port.load_balancer_ips and port.source_ranges)
        for ip in port.load_balancer_ips:
            if has:
                dispatch.append(
                    f'-A KUBE-SERVICES -m comment --comment "{label} loadbalancer IP" {layer4} -d {ip} '
                    f"--dport {port.port} -j {firewall if guarded else external}"
                )
            if guarded:
                filter_rules.append(
                    f'-A KUBE-PROXY-FIREWALL -m comment --comment "{label} traffic not accepted by {firewall}" '
                    f"{layer4} -d {ip} --dport {port.port} -j DROP"
                )
            if not has_external:
                filter_rules.append(
                    f"-A KUBE-EXTERNAL-SERVICES {why} {layer4} -d {ip} --dport {port.port} -j {fate}"
                )
        if port.node_port:
            start = f"-A KUBE-NODEPORTS -m comment --comment {label} {layer4}"
            if has and self.localhost_nodeports and self.config.nfacct:
                dispatch.append(
                    f"{start} -d 127.0.0.0/8 --dport {port.node_port} -m nfacct "
                    f"--nfacct-name localhost_nps_accepted_pkts -j {external}"
                )
            if has:
                dispatch.append(f"{start} --dport {port.node_port} -j {external}")
            if not has_external:
                filter_rules.append(
                    f"-A KUBE-EXTERNAL-SERVICES {why} -m addrtype --dst-type LOCAL {layer4} "
                    f"--dport {port.node_port} -j {fate}"
                )
        if port.health_check_node_port:
            filter_rules.append(
                f'-A KUBE-NODEPORTS -m comment --comment "{label} health check node port" -m tcp -p tcp '
                f"--dport {port.health_check_node_port} -j ACCEPT"
            )
        if not has:
            return _Block(filter_rules, dispatch, [], [])

        chains: list[str] = []
        rules: list[str] = []
        if has_internal:
            if self.config.masquerade_all:
                rules.append(f"-A {internal_chain} {to_cluster_ip} -j KUBE-MARK-MASQ")
            elif self.not_ours:
                rules.append(f"-A {internal_chain} {to_cluster_ip} {self.not_ours} -j KUBE-MARK-MASQ")
        if port.externally_accessible:
            chains.append(external)
            rules += self._external_rules(port, external, cluster, local, has_external)
        if guarded:
            chains.append(firewall)
            rules += self._firewall_rules(port, firewall, external)
        comment = "" if large else f" -m comment --comment {label}"
        names = {e.text: iptables_chain("endpoint", label, protocol, e.text) for e in choice.reachable or ()}
        for policy, chosen in ((cluster, choice.cluster), (local, choice.local)):
            if chosen:
                chains.append(policy)
                rules += _balance(policy, port, chosen, names, large)
        for endpoint in choice.reachable or ():
            name = names[endpoint.text]
            chains.append(name)
            recent = f" -m recent --name {name} --set" if port.affinity_seconds else ""
            rules.append(f"-A {name}{comment} -s {endpoint.address} -j KUBE-MARK-MASQ")
            rules.append(f"-A {name}{comment}{recent} {layer4} -j DNAT --to-destination {endpoint.text}")
        return _Block(filter_rules, dispatch, chains, rules)

    def _external_rules(
        self,
        port: ServicePort,
        external: str,
        cluster: str,
        local: str,
        has_external: bool,
    ) -> list[str]:
        start = f'-A {external} -m comment --comment "'
        end = f"traffic for {port.label} external destinations"
        if not port.external_local:
            return [
                f'{start}masquerade {end}" -j KUBE-MARK-MASQ',
                f"-A {external} -j {cluster}",
            ]
        rules = []
        if self.ours:
            rules.append(f'{start}pod {end}" {self.ours} -j {cluster}')
        from_node = "-m addrtype --src-type LOCAL"
        rules.append(f'{start}masquerade LOCAL {end}" {from_node} -j KUBE-MARK-MASQ')
        rules.append(f'{start}route LOCAL {end}" {from_node} -j {cluster}')
        if has_external:
            rules.append(f"-A {external} -j {local}")
        return rules

    def _firewall_rules(self, port: ServicePort, firewall: str, external: str) -> list[str]:
        start = f'-A {firewall} -m comment --comment "{port.label} loadbalancer IP"'
        rest = f"other traffic to {port.label} will be dropped by KUBE-PROXY-FIREWALL"
        sources = list(port.source_ranges)
        node_ip = self.node.ip(self.family)
        if node_ip and any(node_ip in PREFIX[block] for block in sources):
            # The address may be on the node itself; the node's own packets to it then come from it.
            sources += port.load_balancer_ips
        return [
            *(f"{start} -s {source} -j {external}" for source in sources),
            f'-A {firewall} -m comment --comment "{rest}"',
        ]


def _balance(
    policy: str,
    port: ServicePort,
    chosen: tuple[Endpoint, ...],
    names: dict[str, str],
    large: bool,
) -> Iterable[str]:
    """Rules that pick one endpoint: first the one this client had (affinity), then each with an equal chance."""
    starts = {
        e.text: f"-A {policy}" + ("" if large else f' -m comment --comment "{port.label} -> {e.text}"')
        for e in chosen
    }
    rules = []
    if port.affinity_seconds:
        for text, start in starts.items():
            rules.append(
                f"{start} -m recent --name {names[text]} --rcheck --seconds {port.affinity_seconds} --reap "
                f"-j {names[text]}"
            )
    left = len(chosen)
    for text, start in starts.items():
        chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        rules.append(f"{start}{chance} -j {names[text]}")
        left -= 1
    return rules


def _nodeport_blocks(config: KubeProxyConfig, node: ProxyNode, ip_family: int) -> tuple[str, ...]:
    if config.nodeport_addresses == ("primary",):
        blocks = tuple(str(prefix(ip)) for ip in node.ips)
    else:
        blocks = config.nodeport_addresses
    mine = tuple(block for block in blocks if family(block) == ip_family)
    return mine or (("0.0.0.0/0",) if ip_family == 4 else ("::/0",))


def _local_matches(config: KubeProxyConfig, node: ProxyNode, ip_family: int) -> tuple[str, str]:
    """Return the matches for "from a pod of this node" (or cluster) and for its opposite; "" if nobody can tell."""
    if config.detect_local_mode in ("ClusterCIDR", "NodeCIDR"):
        blocks = config.cluster_cidrs if config.detect_local_mode == "ClusterCIDR" else node.pod_cidrs
        match = next((f"-s {block}" for block in blocks if family(block) == ip_family), "")
    elif config.detect_local_mode == "BridgeInterface":
        match = f"-i {config.pod_bridge_interface}"
    else:
        match = f"-i {config.pod_interface_name_prefix}+"
    return match, f"! {match}" if match else ""


class KubeProxyIptables:
    """One node's kube-proxy. `sync` gives what it writes; the object remembers what it wrote before."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig | None = None) -> None:
        self.node = node
        self.config = config or KubeProxyConfig()
        self._tracker = ServiceTracker()
        self._families = {f: _Family(node, self.config, f) for f in (4, 6)}

    def sync(
        self,
        services: Iterable[Service | Json],
        slices: Iterable[EndpointSlice | Json],
        *,
        full: bool = False,
        existing: Mapping[int, Collection[str]] | None = None,
    ) -> Written:
        """Return the texts that bring the kernel to these Services and EndpointSlices.

        The first sync is full; `full` asks for another, as after a flush. `existing` names the nat chains that are
        in the kernel, by family (4, 6); without it they are those written last.
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
            self._families[f].sync(
                maps[f], changed[f], full, None if existing is None else existing.get(f, ())
            )
            for f in (4, 6)
        )
        return Written(v4, v6)
