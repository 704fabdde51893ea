"""What one service port is in IPVS mode: virtual servers, elements of shared IP sets, addresses on kube-ipvs0.

And the iptables rules, which all Services share: they ask the sets, so that they stay the same for 1 Service and for
10,000. Kubernetes documentation: "Virtual IPs and Service Proxies", IPVS proxy mode.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from msgspec import Struct

from kubenet_lab.kernel.ipvs import SCHED_2, Server, VirtualServer
from kubenet_lab.packet.ip import PREFIX, family
from kubenet_lab.packet.packet import SCTP, TCP, UDP
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, nodeport_blocks, pod_source
from kubenet_lab.proxy.services import Endpoint, ServicePort, categorize

DUMMY = "kube-ipvs0"
"""The link that holds the Services' addresses: only what is for an address of the host passes IPVS."""

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}

# Names of sets, without the prefix KUBE- or KUBE-6-.
LOOP_BACK, CLUSTER_IP = "LOOP-BACK", "CLUSTER-IP"
EXTERNAL_IP, EXTERNAL_IP_LOCAL = "EXTERNAL-IP", "EXTERNAL-IP-LOCAL"
LOAD_BALANCER, LOAD_BALANCER_FW, LOAD_BALANCER_LOCAL = (
    "LOAD-BALANCER",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-LOCAL",
)
LOAD_BALANCER_SOURCE_IP, LOAD_BALANCER_SOURCE_CIDR = "LOAD-BALANCER-SOURCE-IP", "LOAD-BALANCER-SOURCE-CIDR"
HEALTH_CHECK, IPVS_IPS = "HEALTH-CHECK-NODE-PORT", "IPVS-IPS"
NODE_PORT = {"TCP": "NODE-PORT-TCP", "UDP": "NODE-PORT-UDP", "SCTP": "NODE-PORT-SCTP-HASH"}
NODE_PORT_LOCAL = {
    "TCP": "NODE-PORT-LOCAL-TCP",
    "UDP": "NODE-PORT-LOCAL-UDP",
    "SCTP": "NODE-PORT-LOCAL-SCTP-HASH",
}


class SetInfo(NamedTuple):
    """One of kube-proxy's sets: its type, and what the comment of a rule says that asks it."""

    type: str
    comment: str


SETS: dict[str, SetInfo] = {
    LOOP_BACK: SetInfo(
        "hash:ip,port,ip", "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"
    ),
    CLUSTER_IP: SetInfo("hash:ip,port", "Kubernetes service cluster ip + port for masquerade purpose"),
    EXTERNAL_IP: SetInfo(
        "hash:ip,port", "Kubernetes service external ip + port for masquerade and filter purpose"
    ),
    EXTERNAL_IP_LOCAL: SetInfo(
        "hash:ip,port", "Kubernetes service external ip + port with externalTrafficPolicy=local"
    ),
    LOAD_BALANCER: SetInfo("hash:ip,port", "Kubernetes service lb portal"),
    LOAD_BALANCER_FW: SetInfo(
        "hash:ip,port", "Kubernetes service load balancer ip + port for load balancer with sourceRange"
    ),
    LOAD_BALANCER_LOCAL: SetInfo(
        "hash:ip,port", "Kubernetes service load balancer ip + port with externalTrafficPolicy=local"
    ),
    LOAD_BALANCER_SOURCE_IP: SetInfo(
        "hash:ip,port,ip", "Kubernetes service load balancer ip + port + source IP for packet filter purpose"
    ),
    LOAD_BALANCER_SOURCE_CIDR: SetInfo(
        "hash:ip,port,net",
        "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    ),
    NODE_PORT["TCP"]: SetInfo("bitmap:port", "Kubernetes nodeport TCP port for masquerade purpose"),
    NODE_PORT_LOCAL["TCP"]: SetInfo(
        "bitmap:port", "Kubernetes nodeport TCP port with externalTrafficPolicy=local"
    ),
    NODE_PORT["UDP"]: SetInfo("bitmap:port", "Kubernetes nodeport UDP port for masquerade purpose"),
    NODE_PORT_LOCAL["UDP"]: SetInfo(
        "bitmap:port", "Kubernetes nodeport UDP port with externalTrafficPolicy=local"
    ),
    NODE_PORT["SCTP"]: SetInfo(
        "hash:ip,port", "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'"
    ),
    NODE_PORT_LOCAL["SCTP"]: SetInfo(
        "hash:ip,port",
        "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
    ),
    HEALTH_CHECK: SetInfo("bitmap:port", "Kubernetes health check node port"),
    IPVS_IPS: SetInfo("hash:ip", "Kubernetes service ip"),
}
"""The sets in the order in which kube-proxy makes them."""

_NAME_LIMIT = 31


def set_name(name: str, wanted: int) -> str:
    """Return a set's whole name in IP family `wanted` (4 or 6); ipset takes 31 characters."""
    return f"KUBE-{'6-' if wanted == 6 else ''}{name}"[:_NAME_LIMIT]


class IpvsPlace(Struct, frozen=True):
    """What every service port depends on, for one node and IP family.

    `own` are all addresses of the node's links but those of kube-ipvs0, loopback and IPv6 link-local ones left out;
    `nodeports` those that answer on node ports.
    """

    family: int
    node: ProxyNode
    config: KubeProxyConfig
    own: tuple[str, ...]
    nodeports: tuple[str, ...]

    @classmethod
    def of(
        cls, node: ProxyNode, config: KubeProxyConfig, wanted: int, addresses: tuple[str, ...]
    ) -> IpvsPlace:
        """Return the place of a node's kube-proxy in IP family `wanted`, given the addresses its links have now."""
        loopback, link_local = PREFIX[LOOPBACK[wanted]], PREFIX["fe80::/10"]
        mine = [a for a in dict.fromkeys(addresses) if family(a) == wanted and a not in loopback]
        blocks = nodeport_blocks(node, config.nodeport_addresses, wanted)
        own = tuple(a for a in mine if a not in link_local)
        nodeports = tuple(a for a in mine if any(a in PREFIX[b] for b in blocks)) if blocks else own
        return cls(wanted, node, config, own, nodeports)


class Claim(Struct, frozen=True, gc=False):
    """A virtual server that a service port wants, and its real servers, sorted."""

    virtual: VirtualServer
    servers: tuple[Server, ...]


class PortBlock(Struct, frozen=True, gc=False):
    """All that one service port adds: `entries` are (set, element), `bound` addresses on kube-ipvs0.

    `denied` are rules of KUBE-IPVS-OUT-FILTER: load balancer addresses that the node itself must not use.
    """

    claims: list[Claim]
    entries: list[tuple[str, str]]
    bound: list[str]
    denied: list[str]


def port_block(place: IpvsPlace, port: ServicePort, endpoints: tuple[Endpoint, ...]) -> PortBlock:
    """Return what a service port adds on a node."""
    node, config = place.node, place.config
    protocol = port.key.protocol.lower()
    suffix = f",{protocol}:{port.port}"
    entries = [
        (LOOP_BACK, f"{e.address},{protocol}:{e.port},{e.address}") for e in endpoints if e.node == node.name
    ]
    choice = categorize(port, endpoints, node.name, node.zone)
    cluster = tuple([(e.address, e.port) for e in choice.cluster or ()])
    # Local without a local endpoint: pods of this node still get through, and so does traffic from outside,
    # whose answers get lost.
    local = tuple([(e.address, e.port) for e in choice.local or ()]) or cluster
    number = PROTOCOLS[port.key.protocol]
    flags = SCHED_2 if config.ipvs_scheduler == "mh" else 0
    outside = local if port.external_local else cluster
    claims: list[Claim] = []
    bound: list[str] = []
    denied: list[str] = []

    def claim(address: str, number_of_port: int, servers: tuple[Server, ...]) -> None:
        virtual = VirtualServer(
            number, address, number_of_port, config.ipvs_scheduler, port.affinity_seconds, 0, flags
        )
        claims.append(Claim(virtual, servers))

    entries.append((CLUSTER_IP, port.cluster_ip + suffix))
    claim(port.cluster_ip, port.port, local if port.internal_local else cluster)
    bound.append(port.cluster_ip)
    for address in port.external_ips:
        entries.append((EXTERNAL_IP_LOCAL if port.external_local else EXTERNAL_IP, address + suffix))
        claim(address, port.port, outside)
        if address not in place.own:
            bound.append(address)
    for address in port.load_balancer_ips:
        entries.append((LOAD_BALANCER, address + suffix))
        if port.external_local:
            entries.append((LOAD_BALANCER_LOCAL, address + suffix))
        if port.source_ranges:
            entries.append((LOAD_BALANCER_FW, address + suffix))
            entries += [(LOAD_BALANCER_SOURCE_CIDR, f"{address}{suffix},{net}") for net in port.source_ranges]
            node_ip = node.ip(place.family)
            if node_ip and any(node_ip in PREFIX[net] for net in port.source_ranges):
                # What the node itself sends to an address of its own comes from that address.
                entries.append((LOAD_BALANCER_SOURCE_IP, f"{address}{suffix},{address}"))
            else:
                denied.append(
                    f"-A KUBE-IPVS-OUT-FILTER -s {address} -m ipvs --vaddr {address} --vproto {protocol} "
                    f"--vport {port.port} -j DROP"
                )
        claim(address, port.port, outside)
        if address not in place.own:
            bound.append(address)
    if port.node_port:
        if not place.nodeports:
            return PortBlock(claims, entries, bound, denied)
        elements = [str(port.node_port)]
        if port.key.protocol == "SCTP":
            elements = [f"{address},{protocol}:{port.node_port}" for address in place.nodeports]
        entries += [(NODE_PORT[port.key.protocol], element) for element in elements]
        if port.external_local:
            entries += [(NODE_PORT_LOCAL[port.key.protocol], element) for element in elements]
        for address in place.nodeports:
            claim(address, port.node_port, outside)
    if port.health_check_node_port:
        entries.append((HEALTH_CHECK, str(port.health_check_node_port)))
    return PortBlock(claims, entries, bound, denied)


# -- iptables -------------------------------------------------------------------------------------------------------

NAT_CHAINS = ("KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ")
FILTER_CHAINS = (
    "KUBE-FORWARD",
    "KUBE-NODE-PORT",
    "KUBE-PROXY-FIREWALL",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
)

_ASKING: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("nat", LOOP_BACK, "KUBE-POSTROUTING", "", "dst,dst,src", "MASQUERADE"),
    ("nat", LOAD_BALANCER, "KUBE-SERVICES", "", "dst,dst", "KUBE-LOAD-BALANCER"),
    ("nat", LOAD_BALANCER_LOCAL, "KUBE-LOAD-BALANCER", "", "dst,dst", "RETURN"),
    ("nat", NODE_PORT_LOCAL["TCP"], "KUBE-NODE-PORT", "tcp", "dst", "RETURN"),
    ("nat", NODE_PORT["TCP"], "KUBE-NODE-PORT", "tcp", "dst", "KUBE-MARK-MASQ"),
    ("nat", NODE_PORT_LOCAL["UDP"], "KUBE-NODE-PORT", "udp", "dst", "RETURN"),
    ("nat", NODE_PORT["UDP"], "KUBE-NODE-PORT", "udp", "dst", "KUBE-MARK-MASQ"),
    ("nat", NODE_PORT_LOCAL["SCTP"], "KUBE-NODE-PORT", "sctp", "dst,dst", "RETURN"),
    ("nat", NODE_PORT["SCTP"], "KUBE-NODE-PORT", "sctp", "dst,dst", "KUBE-MARK-MASQ"),
    ("filter", LOAD_BALANCER_FW, "KUBE-PROXY-FIREWALL", "", "dst,dst", "KUBE-SOURCE-RANGES-FIREWALL"),
    ("filter", LOAD_BALANCER_SOURCE_CIDR, "KUBE-SOURCE-RANGES-FIREWALL", "", "dst,dst,src", "RETURN"),
    ("filter", LOAD_BALANCER_SOURCE_IP, "KUBE-SOURCE-RANGES-FIREWALL", "", "dst,dst,src", "RETURN"),
)
"""Rules that are there while their set has elements: table, set, chain, protocol, directions, target."""


def iptables_text(place: IpvsPlace, filled: Container[str], denied: list[str]) -> list[str]:
    """Return the text for `iptables-restore --noflush --counters` as lines; `filled` are the sets with elements."""
    fam, config = place.family, place.config
    mark = config.masquerade_mark

    def name(of: str) -> str:
        return set_name(of, fam)

    def asking(table: str) -> Iterator[str]:
        for where, of, chain, protocol, directions, target in _ASKING:
            if where == table and of in filled:
                kind = f" -p {protocol}" if protocol else ""
                yield f"-A {chain}{kind} {_asks(of, fam)} {directions} -j {target}"

    nat = [f"-A KUBE-SERVICES -s {LOOPBACK[fam]} -j RETURN", *asking("nat")]
    if CLUSTER_IP in filled:
        nat.append(f"-A KUBE-SERVICES {_asks(CLUSTER_IP, fam)} {_outside(place)} -j KUBE-MARK-MASQ")
    for of in (EXTERNAL_IP, EXTERNAL_IP_LOCAL):
        if of in filled:
            start = f"-A KUBE-SERVICES {_asks(of, fam)} dst,dst"
            if of == EXTERNAL_IP:
                nat.append(f"{start} -j KUBE-MARK-MASQ")
            nat.append(f"{start} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j ACCEPT")
            nat.append(f"{start} -m addrtype --dst-type LOCAL -j ACCEPT")
    nat += [
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
        "-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ",
        *(
            f"-A KUBE-SERVICES -m set --match-set {name(of)} dst,dst -j ACCEPT"
            for of in (CLUSTER_IP, LOAD_BALANCER)
            if of in filled
        ),
        f"-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN",
        f"-A KUBE-POSTROUTING -j MARK --xor-mark {mark}",
        '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE'
        + (" --random-fully" if config.random_fully else ""),
        f"-A KUBE-MARK-MASQ -j MARK --or-mark {mark}",
    ]
    known = "-m conntrack --ctstate RELATED,ESTABLISHED"
    start = "-A KUBE-FORWARD -m comment --comment"
    return [
        "*nat",
        *(f":{chain} - [0:0]" for chain in NAT_CHAINS),
        *nat,
        "COMMIT",
        "*filter",
        *(f":{chain} - [0:0]" for chain in FILTER_CHAINS),
        *asking("filter"),
        "-A KUBE-SOURCE-RANGES-FIREWALL -j DROP",
        *denied,
        f'{start} "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT',
        f'{start} "kubernetes forwarding conntrack rule" {known} -j ACCEPT',
        f"-A KUBE-NODE-PORT {_asks(HEALTH_CHECK, fam)} dst -j ACCEPT",
        *(
            f"-A KUBE-IPVS-FILTER -m set --match-set {name(of)} dst,dst -j RETURN"
            for of in (LOAD_BALANCER, CLUSTER_IP, EXTERNAL_IP, EXTERNAL_IP_LOCAL)
        ),
        f"-A KUBE-IPVS-FILTER -m set --match-set {name(HEALTH_CHECK)} dst -j RETURN",
        f"-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set {name(IPVS_IPS)} dst -j REJECT",
        "COMMIT",
        "",
    ]


def _asks(of: str, fam: int) -> str:
    return f'-m comment --comment "{SETS[of].comment}" -m set --match-set {set_name(of, fam)}'


def _outside(place: IpvsPlace) -> str:
    """Return the directions of the cluster IPs' set, and the match for what comes from nobody's pod.

    Where nobody can tell, it is what comes from a cluster IP: the source the node itself takes towards one.
    """
    if place.config.masquerade_all:
        return "dst,dst"
    source = pod_source(place.node, place.config, place.family)
    if source is None:
        return "src,dst"
    if source.block:
        return f"dst,dst ! -s {source.block}"
    return f"dst,dst ! -i {source.interface}{'+' if source.wildcard else ''}"
