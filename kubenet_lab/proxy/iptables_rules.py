"""The iptables rules of one service port.

Dispatch rules lead from chains that all Services share to the port's own chains; filter rules refuse or drop
what has nowhere to go. A port's own chains lead on to each other: FW (source ranges) -> EXT (traffic from
outside) -> SVC or SVL (choose an endpoint, by policy) -> SEP (rewrite the destination).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kubenet_lab.packet.ip import PREFIX
from kubenet_lab.proxy.config import KubeProxyConfig, PodSource, ProxyNode, nodeport_blocks, pod_source
from kubenet_lab.proxy.names import IPTABLES_PREFIXES, iptables_chain, iptables_hash
from kubenet_lab.proxy.services import Choice, Endpoint, ServicePort

LOCALNET = {4: "127.0.0.0/8", 6: "::1/128"}


class Place(Struct, frozen=True):
    """What the rules of every service port depend on, for one node and IP family.

    `ours` and `not_ours` are the matches for "from a pod" and for its opposite, "" where nobody can tell;
    `nodeports` the blocks of addresses that answer on node ports, () for every address.
    """

    family: int
    node: ProxyNode
    config: KubeProxyConfig
    ours: str
    not_ours: str
    nodeports: tuple[str, ...]
    localhost_nodeports: bool

    @classmethod
    def of(cls, node: ProxyNode, config: KubeProxyConfig, wanted: int) -> Place:
        """Return the place of a node's kube-proxy in IP family `wanted` (4 or 6)."""
        ours = _from_pods(pod_source(node, config, wanted))
        nodeports = nodeport_blocks(node, config.nodeport_addresses, wanted)
        # Linux routes 127.0.0.1 onwards only in IPv4 (route_localnet).
        on_localhost = not nodeports or any(block.startswith("127.") for block in nodeports)
        localhost = wanted == 4 and config.localhost_nodeports and on_localhost
        return cls(wanted, node, config, ours, f"! {ours}" if ours else "", nodeports, localhost)

    @property
    def counts_localhost(self) -> bool:
        """Whether packets to node ports by way of 127.0.0.1 are counted: who would miss it if it went?"""
        return self.localhost_nodeports and self.config.nfacct


def _from_pods(source: PodSource | None) -> str:
    if source is None:
        return ""
    if source.block:
        return f"-s {source.block}"
    return f"-i {source.interface}{'+' if source.wildcard else ''}"


class Block(Struct, frozen=True, gc=False):
    """The lines of one service port, by the place they have in the text. `chains` are names."""

    filter_rules: list[str]
    dispatch: list[str]
    chains: list[str]
    rules: list[str]


class PortRules:
    """Writes the rules of one service port, given the endpoints a node uses for it.

    In a large cluster (`terse`) the rules for endpoints have no comments.
    """

    def __init__(self, place: Place, port: ServicePort, choice: Choice, terse: bool) -> None:
        self.place, self.port, self.choice, self.terse = place, port, choice, terse
        self.label = port.label
        protocol = port.key.protocol.lower()
        hashed = iptables_hash(self.label, protocol)
        self.cluster, self.local, self.external, self.firewall = (
            IPTABLES_PREFIXES[purpose] + hashed for purpose in ("cluster", "local", "external", "firewall")
        )
        self.layer4 = f"-m {protocol} -p {protocol}"
        self.endpoint_chains = {
            e.text: iptables_chain("endpoint", self.label, protocol, e.text) for e in choice.reachable or ()
        }
        self.answers_inside = choice.answers(port.internal_local)
        self.answers_outside = choice.answers(port.external_local)
        self.guarded = bool(choice.any and port.load_balancer_ips and port.source_ranges)
        self.inside = self.local if port.internal_local else self.cluster

    def block(self) -> Block:
        """Return all lines."""
        chains, rules = [], []
        if self.choice.any:
            chains = list(self._chains())
            rules = list(self._rules())
        return Block(list(self._filter_rules()), list(self._dispatch()), chains, rules)

    def _to(self, address: str) -> str:
        return f"{self.layer4} -d {address} --dport {self.port.port}"

    def _dispatch(self) -> Iterator[str]:
        port, start = self.port, f'-A KUBE-SERVICES -m comment --comment "{self.label}'
        if self.answers_inside:
            yield f'{start} cluster IP" {self._to(port.cluster_ip)} -j {self.inside}'
        if not self.choice.any:
            return
        for ip in port.external_ips:
            yield f'{start} external IP" {self._to(ip)} -j {self.external}'
        for ip in port.load_balancer_ips:
            chain = self.firewall if self.guarded else self.external
            yield f'{start} loadbalancer IP" {self._to(ip)} -j {chain}'
        if port.node_port:
            start = f"-A KUBE-NODEPORTS -m comment --comment {self.label} {self.layer4}"
            if self.place.counts_localhost:
                counter = "-m nfacct --nfacct-name localhost_nps_accepted_pkts"
                yield f"{start} -d {LOCALNET[4]} --dport {port.node_port} {counter} -j {self.external}"
            yield f"{start} --dport {port.node_port} -j {self.external}"

    def _filter_rules(self) -> Iterator[str]:
        port = self.port
        # With none nobody can help the client, so it is told. With some elsewhere another node can.
        what, fate = ("local endpoints", "DROP") if self.choice.any else ("endpoints", "REJECT")
        why = f'-m comment --comment "{self.label} has no {what}"'
        if not self.answers_inside:
            yield f"-A KUBE-SERVICES {why} {self._to(port.cluster_ip)} -j {fate}"
        start = f"-A KUBE-EXTERNAL-SERVICES {why}"
        if not self.answers_outside:
            for ip in port.external_ips:
                yield f"{start} {self._to(ip)} -j {fate}"
        for ip in port.load_balancer_ips:
            if self.guarded:
                note = f'-m comment --comment "{self.label} traffic not accepted by {self.firewall}"'
                yield f"-A KUBE-PROXY-FIREWALL {note} {self._to(ip)} -j DROP"
            if not self.answers_outside:
                yield f"{start} {self._to(ip)} -j {fate}"
        if port.node_port and not self.answers_outside:
            local = "-m addrtype --dst-type LOCAL"
            yield f"{start} {local} {self.layer4} --dport {port.node_port} -j {fate}"
        if port.health_check_node_port:
            note = f'-m comment --comment "{self.label} health check node port"'
            yield f"-A KUBE-NODEPORTS {note} -m tcp -p tcp --dport {port.health_check_node_port} -j ACCEPT"

    def _chains(self) -> Iterator[str]:
        if self.port.externally_accessible:
            yield self.external
        if self.guarded:
            yield self.firewall
        if self.choice.cluster:
            yield self.cluster
        if self.choice.local:
            yield self.local
        yield from self.endpoint_chains.values()

    def _rules(self) -> Iterator[str]:
        if self.answers_inside:
            yield from self._masquerade_inside()
        if self.port.externally_accessible:
            yield from self._outside()
        if self.guarded:
            yield from self._source_ranges()
        yield from self._balance(self.cluster, self.choice.cluster or ())
        yield from self._balance(self.local, self.choice.local or ())
        for endpoint in self.choice.reachable or ():
            yield from self._endpoint(endpoint)

    def _masquerade_inside(self) -> Iterator[str]:
        """Who is not a pod gets a reply only if it comes back through here."""
        config = self.place.config
        who = " " + self.place.not_ours if self.place.not_ours and not config.masquerade_all else ""
        if who or config.masquerade_all:
            note = f'-m comment --comment "{self.label} cluster IP"'
            yield f"-A {self.inside} {note} {self._to(self.port.cluster_ip)}{who} -j KUBE-MARK-MASQ"

    def _outside(self) -> Iterator[str]:
        start = f'-A {self.external} -m comment --comment "'
        end = f"traffic for {self.label} external destinations"
        if not self.port.external_local:
            yield f'{start}masquerade {end}" -j KUBE-MARK-MASQ'
            yield f"-A {self.external} -j {self.cluster}"
            return
        # Pods and the node itself are not "outside": as if their packets had gone out and come back in.
        if self.place.ours:
            yield f'{start}pod {end}" {self.place.ours} -j {self.cluster}'
        from_node = "-m addrtype --src-type LOCAL"
        yield f'{start}masquerade LOCAL {end}" {from_node} -j KUBE-MARK-MASQ'
        yield f'{start}route LOCAL {end}" {from_node} -j {self.cluster}'
        if self.answers_outside:
            yield f"-A {self.external} -j {self.local}"

    def _source_ranges(self) -> Iterator[str]:
        start = f'-A {self.firewall} -m comment --comment "{self.label} loadbalancer IP"'
        node_ip = self.place.node.ip(self.place.family)
        for block in self.port.source_ranges:
            yield f"{start} -s {block} -j {self.external}"
        if node_ip and any(node_ip in PREFIX[block] for block in self.port.source_ranges):
            # The address may be on the node itself; the node's own packets to it then come from it.
            for ip in self.port.load_balancer_ips:
                yield f"{start} -s {ip} -j {self.external}"
        rest = f"other traffic to {self.label} will be dropped by KUBE-PROXY-FIREWALL"
        yield f'-A {self.firewall} -m comment --comment "{rest}"'

    def _balance(self, policy: str, chosen: tuple[Endpoint, ...]) -> Iterator[str]:
        """Pick one endpoint: first the one this client had (affinity), then each with an equal chance."""
        starts = {}
        for endpoint in chosen:
            text = endpoint.text
            note = "" if self.terse else f' -m comment --comment "{self.label} -> {text}"'
            starts[self.endpoint_chains[text]] = f"-A {policy}{note}"
        seconds = self.port.affinity_seconds
        if seconds:
            for chain, start in starts.items():
                yield f"{start} -m recent --name {chain} --rcheck --seconds {seconds} --reap -j {chain}"
        left = len(starts)
        for chain, start in starts.items():
            chance = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
            yield f"{start}{chance} -j {chain}"
            left -= 1

    def _endpoint(self, endpoint: Endpoint) -> Iterator[str]:
        chain = self.endpoint_chains[endpoint.text]
        start = f"-A {chain}" if self.terse else f"-A {chain} -m comment --comment {self.label}"
        recent = f" -m recent --name {chain} --set" if self.port.affinity_seconds else ""
        # An endpoint that calls its own Service must see another source, or it would answer itself directly.
        yield f"{start} -s {endpoint.address} -j KUBE-MARK-MASQ"
        yield f"{start}{recent} {self.layer4} -j DNAT --to-destination {endpoint.text}"
