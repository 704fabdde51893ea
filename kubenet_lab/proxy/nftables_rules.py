"""The nftables rules of one service port, and where its addresses stand in the shared maps.

Instead of a rule for each Service there are maps from address, protocol and port to the chain that goes on: one
look-up, however many Services there are. A port's own chains are service-, local- (choose an endpoint, by
policy), external- (traffic from outside), firewall- (source ranges) and, with session affinity only, endpoint-.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from kubenet_lab.packet.ip import PREFIX
from kubenet_lab.proxy.config import KubeProxyConfig, PodSource, ProxyNode, nodeport_blocks, pod_source
from kubenet_lab.proxy.names import nftables_base, nftables_name
from kubenet_lab.proxy.services import Choice, Endpoint, ServicePort

TABLE = "kube-proxy"
REJECT = "goto reject-chain"
MASQUERADE_MARK = "0x00004000"
"""The mark of packets to be masqueraded. `--iptables-masquerade-bit` is not for this mode, and no flag is: only
the configuration file's `nftables.masqueradeBit`, whose default this is."""


class Place(Struct, frozen=True):
    """What the rules of every service port depend on, for one node and IP family.

    `ip` is the family's word in nft, "ip" or "ip6"; `ours` and `not_ours` are the matches for "from a pod" and
    for its opposite, "" where nobody can tell; `nodeports` the blocks of addresses that answer on node ports,
    () for every address. Without `--nodeport-addresses` those are the node's own, unlike in iptables mode.
    """

    family: int
    ip: str
    node: ProxyNode
    config: KubeProxyConfig
    ours: str
    not_ours: str
    nodeports: tuple[str, ...]

    @classmethod
    def of(cls, node: ProxyNode, config: KubeProxyConfig, wanted: int) -> Place:
        """Return the place of a node's kube-proxy in IP family `wanted` (4 or 6)."""
        ip = "ip" if wanted == 4 else "ip6"
        source = pod_source(node, config, wanted)
        ours, not_ours = (_from_pods(ip, source, sign) for sign in ("", "!= "))
        nodeports = nodeport_blocks(node, config.nodeport_addresses or ("primary",), wanted)
        return cls(wanted, ip, node, config, ours, not_ours, nodeports)

    @property
    def mark(self) -> str:
        """The statement that marks a packet to be masqueraded."""
        return f"mark set mark or {MASQUERADE_MARK}"


def _from_pods(ip: str, source: PodSource | None, sign: str) -> str:
    if source is None:
        return ""
    if source.block:
        return f"{ip} saddr {sign}{source.block}"
    return f"iifname {sign}{source.interface}{'*' if source.wildcard else ''}"


class Element(NamedTuple):
    """An element of a shared set, or of a shared map where it has a `value`."""

    container: str
    key: str
    value: str = ""
    comment: str = ""

    def add(self, ip: str) -> str:
        """Return the command that adds it, in family `ip` or `ip6`."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        value = f" : {self.value}" if self.value else ""
        return f"add element {ip} {TABLE} {self.container} {{ {self.key}{comment}{value} }}"


class Block(Struct, frozen=True, gc=False):
    """What one service port has in the table.

    `parts` are chains (names) and elements, in the order in which kube-proxy sees to them; then come `commands`,
    which add affinity sets and rules. `sets` are the names of the affinity sets.
    """

    parts: list[str | Element]
    commands: list[str]
    sets: list[str]


class PortRules:
    """Writes what one service port needs, given the endpoints a node uses for it."""

    def __init__(self, place: Place, port: ServicePort, choice: Choice) -> None:
        self.place, self.port, self.choice = place, port, choice
        self.protocol = port.key.protocol.lower()
        self.key = (port.key.namespace, port.key.name, port.key.port_name, self.protocol)
        base = nftables_base(*self.key)
        self.cluster, self.local, self.external, self.firewall = (
            nftables_name(purpose, base) for purpose in ("cluster", "local", "external", "firewall")
        )
        # Without affinity an endpoint needs no chain: the policy's chain rewrites the destination itself.
        self.bases = (
            {e.text: nftables_base(*self.key, e.text) for e in choice.reachable or ()}
            if port.affinity_seconds
            else {}
        )
        self.answers_inside = choice.answers(port.internal_local)
        self.answers_outside = choice.answers(port.external_local)
        self.guarded = bool(port.load_balancer_ips and port.source_ranges)
        self.inside = self.local if port.internal_local else self.cluster

    def block(self) -> Block:
        """Return all of it."""
        return Block(
            list(self._parts()),
            list(self._commands()),
            [nftables_name("affinity", base) for base in self.bases.values()],
        )

    def _parts(self) -> Iterator[str | Element]:
        yield from self._endpoint_parts()
        if self.choice.cluster:
            yield self.cluster
        if self.choice.local:
            yield self.local
        if self.choice.any and self.port.externally_accessible:
            yield self.external
        yield Element("cluster-ips", self.port.cluster_ip)
        if self.answers_inside:
            yield Element("service-ips", self._to(self.port.cluster_ip), f"goto {self.inside}")
        else:
            yield self._refused(self.port.cluster_ip)
        yield from self._outside_parts()

    def _endpoint_parts(self) -> Iterator[str | Element]:
        """An endpoint of this node may call its own Service: then it must see another source than itself."""
        for endpoint in self.choice.reachable or ():
            if self.bases:
                yield nftables_name("endpoint", self.bases[endpoint.text])
            if endpoint.node == self.place.node.name:
                ip = endpoint.address
                yield Element("hairpin-connections", f"{ip} . {ip} . {self.protocol} . {endpoint.port}")

    def _outside_parts(self) -> Iterator[str | Element]:
        port, some = self.port, self.choice.any
        on = f"goto {self.external}"
        for ip in port.external_ips:
            if some:
                yield Element("service-ips", self._to(ip), on)
            if not self.answers_outside:
                yield self._refused(ip)
        if self.guarded:
            yield self.firewall
        for ip in port.load_balancer_ips:
            if some:
                yield Element("service-ips", self._to(ip), on)
            if self.guarded:
                yield Element("firewall-ips", self._to(ip), f"goto {self.firewall}")
        if not self.answers_outside:
            for ip in port.load_balancer_ips:
                yield self._refused(ip)
        if port.node_port:
            key = f"{self.protocol} . {port.node_port}"
            if some:
                yield Element("service-nodeports", key, on)
            if not self.answers_outside:
                yield Element("no-endpoint-nodeports", key, self._fate, port.label)

    def _to(self, address: str) -> str:
        return f"{address} . {self.protocol} . {self.port.port}"

    @property
    def _fate(self) -> str:
        # With none nobody can help the client, so it is told. With some elsewhere another node can.
        return "drop" if self.choice.any else REJECT

    def _refused(self, address: str) -> Element:
        return Element("no-endpoint-services", self._to(address), self._fate, self.port.label)

    def _commands(self) -> Iterator[str]:
        table = f"{self.place.ip} {TABLE}"
        add = f"add rule {table}"
        if self.choice.any and self.port.externally_accessible:
            yield from (f"{add} {rule}" for rule in self._outside_rules())
        if self.guarded:
            yield f"{add} {self._source_ranges()}"
        clients = (
            f"ipv{self.place.family}_addr ; flags dynamic,timeout ; timeout {self.port.affinity_seconds}s"
        )
        for base in self.bases.values():
            yield f"add set {table} {nftables_name('affinity', base)} {{ type {clients} ; }}"
        for policy, chosen in ((self.cluster, self.choice.cluster), (self.local, self.choice.local)):
            yield from (f"{add} {rule}" for rule in self._balance(policy, chosen or ()))
        for text, base in self.bases.items():
            chain = nftables_name("endpoint", base)
            yield f"{add} {chain} update @{nftables_name('affinity', base)} {{ {self.place.ip} saddr }}"
            yield f"{add} {chain} meta l4proto {self.protocol} dnat to {text}"

    # Rules, from their chain's name on

    def _outside_rules(self) -> Iterator[str]:
        place, start = self.place, self.external
        if not self.port.external_local:
            yield f'{start} {place.mark} comment "masquerade"'
            yield f"{start} goto {self.cluster}"
            return
        # Pods and the node itself are not "outside": as if their packets had gone out and come back in.
        if place.ours:
            yield f'{start} {place.ours} goto {self.cluster} comment "short-circuit pod traffic"'
        from_node = f"{start} fib saddr type local"
        yield f'{from_node} {place.mark} comment "masquerade local traffic"'
        yield f'{from_node} goto {self.cluster} comment "short-circuit local traffic"'
        if self.answers_outside:
            yield f"{start} goto {self.local}"

    def _source_ranges(self) -> str:
        sources = list(self.port.source_ranges)
        node_ip = self.place.node.ip(self.place.family)
        if node_ip and any(node_ip in PREFIX[block] for block in self.port.source_ranges):
            # The address may be on the node itself; the node's own packets to it then come from it.
            sources += self.port.load_balancer_ips
        return f"{self.firewall} {self.place.ip} saddr != {{ {' , '.join(sources)} }} drop"

    def _balance(self, policy: str, chosen: tuple[Endpoint, ...]) -> Iterator[str]:
        """Pick one endpoint: first the one this client had (affinity), then each with an equal chance."""
        if not chosen:
            return
        place = self.place
        if self.bases:
            bases = [self.bases[endpoint.text] for endpoint in chosen]
            chains = [f"goto {nftables_name('endpoint', base)}" for base in bases]
            for base, go in zip(bases, chains, strict=True):
                yield f"{policy} {place.ip} saddr @{nftables_name('affinity', base)} {go}"
            choices = " , ".join(f"{i} : {go}" for i, go in enumerate(chains))
            yield f"{policy} numgen random mod {len(chosen)} vmap {{ {choices} }}"
            return
        start = f"{policy} meta l4proto {self.protocol} dnat"
        if len(chosen) == 1:
            yield f"{start} to {chosen[0].text}"
            return
        choices = " , ".join(f"{i} : {e.address} . {e.port}" for i, e in enumerate(chosen))
        yield f"{start} {place.ip} addr . port to numgen random mod {len(chosen)} map {{ {choices} }}"
