"""The table of flows: what a caller does, and how it must end, in the model and in the kernel.

Names of places: a namespace ("node-1", "outside"), a pod by its role and node ("backend@node-2"), or an address. The
worlds are in `worlds.py`; each row names its own.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ICMP, TCP, UDP
from kubenet_lab.twin import Flow
from kubenet_lab.twin.flow import Outcome
from tests.flows.worlds import BACKEND, DNS, EMPTY_SERVICE, KUBERNETES, ODD, SHOP

OUTSIDE, ROUTER = "203.0.113.10", "192.168.1.1"

QUERY = bytes.fromhex("0001010000010000000000000762 61636b656e64".replace(" ", "")) + (
    b"\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)
"""A question for backend.default.svc.cluster.local, type A."""


class Row(Struct, frozen=True, kw_only=True):
    """One flow and its end.

    `servers` and `sources` are what may be seen over all attempts; () where nothing is. `icmp` is (type,
    code, from).
    """

    name: str
    src: str
    dst: str
    end: str
    port: int = 0
    proto: int = TCP
    size: int = 0
    df: bool = False
    ttl: int = 0
    count: int = 1
    payload: bytes = b""
    servers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    icmp: tuple[int, int, str] | None = None
    world: str = SHOP


B1, B2, B3 = "backend@node-1", "backend@node-2", "backend@node-3"
BACKENDS = (B1, B2, B3)
COREDNS = ("coredns@node-1", "coredns@node-2")

ROWS: tuple[Row, ...] = (
    # Pod to pod.
    Row(name="pod to pod, same node", src="frontend", dst=B1, port=8080,
        end="connected", servers=(B1,), sources=("frontend",)),
    Row(name="pod to pod, across", src="frontend", dst=B2, port=8080,
        end="connected", servers=(B2,), sources=("frontend",)),
    Row(name="pod to pod, other nodes", src=B2, dst="database", port=5432,
        end="connected", servers=("database",), sources=(B2,)),
    Row(name="pod to itself", src="frontend", dst="frontend", port=8080,
        end="connected", servers=("frontend",), sources=("frontend",)),
    Row(name="loopback", src="frontend", dst="127.0.0.1", port=8080,
        end="connected", servers=("frontend",), sources=("127.0.0.1",)),
    Row(name="loopback, refused", src="frontend", dst="127.0.0.1", port=81, end="refused"),
    # Services.
    Row(name="Service", src="frontend", dst=BACKEND, port=80, count=12,
        end="connected", servers=BACKENDS, sources=("frontend",)),
    Row(name="Service, from another node", src="database", dst=BACKEND, port=80, count=12,
        end="connected", servers=BACKENDS, sources=("database",)),
    Row(name="Service, maybe itself (hairpin)", src=B1, dst=BACKEND, port=80, count=12,
        end="connected", servers=BACKENDS, sources=(B1, "10.244.0.1")),
    Row(name="Service, from a node", src="node-1", dst=BACKEND, port=80, count=12,
        end="connected", servers=BACKENDS, sources=("10.244.0.0", "10.244.0.1")),
    Row(name="Service, with one endpoint", src="frontend", dst="10.96.0.200", port=5432,
        end="connected", servers=("database",), sources=("frontend",)),
    Row(name="Service kubernetes", src="frontend", dst=KUBERNETES, port=443,
        end="connected", servers=("router",), sources=("192.168.1.10",)),
    Row(name="Service kubernetes, from a node", src="node-2", dst=KUBERNETES, port=443,
        end="connected", servers=("router",), sources=("192.168.1.20",)),
    Row(name="Service without endpoints", src="frontend", dst=EMPTY_SERVICE, port=80,
        end="refused", icmp=(3, 3, "10.244.0.1")),
    Row(name="Service without endpoints, from a node", src="node-1", dst=EMPTY_SERVICE, port=80,
        end="refused", icmp=(3, 3, "192.168.1.10")),
    Row(name="Service, wrong port", src="frontend", dst=BACKEND, port=81, end="unreachable", icmp=(3, 0, ROUTER)),
    Row(name="ping a Service", src="frontend", dst=BACKEND, proto=ICMP, size=56,
        end="unreachable", icmp=(3, 0, ROUTER)),
    # DNS.
    Row(name="DNS over UDP", src="frontend", dst=DNS, port=53, proto=UDP, payload=QUERY, count=6,
        end="answered", servers=COREDNS, sources=("frontend",)),
    Row(name="DNS over UDP, from a node", src="node-3", dst=DNS, port=53, proto=UDP, payload=QUERY, count=6,
        end="answered", servers=COREDNS, sources=("10.244.2.0",)),
    Row(name="DNS over TCP", src="frontend", dst=DNS, port=53, count=6,
        end="connected", servers=COREDNS, sources=("frontend",)),
    Row(name="Service, itself only (hairpin)", src="alone", dst="10.96.0.201", port=80,
        end="connected", servers=("alone",), sources=("10.244.1.1",)),
    # Refused and unknown.
    Row(name="refused, same node", src="frontend", dst=B1, port=81, end="refused"),
    Row(name="refused, across", src="frontend", dst=B2, port=81, end="refused"),
    Row(name="refused by a node", src="frontend", dst="192.168.1.20", port=81, end="refused"),
    Row(name="refused, UDP", src="frontend", dst=B2, port=81, proto=UDP, end="refused", icmp=(3, 3, B2)),
    Row(name="unknown address of a remote node's pods", src="frontend", dst="10.244.1.77", port=80,
        end="unreachable", icmp=(3, 1, "10.244.1.0")),
    Row(name="unknown address of a remote node's pods, UDP", src="frontend", dst="10.244.1.77", port=80, proto=UDP,
        end="unreachable", icmp=(3, 1, "10.244.1.0")),
    Row(name="unknown address of the own node's pods", src="frontend", dst="10.244.0.77", port=80,
        end="unreachable", icmp=(3, 1, "frontend")),
    Row(name="pod network of no node", src="frontend", dst="10.244.77.1", port=80, end="timed out"),
    Row(name="unknown address outside", src="frontend", dst="198.51.100.9", port=80,
        end="unreachable", icmp=(3, 0, ROUTER)),
    Row(name="unknown neighbour of a node", src="node-1", dst="192.168.1.99", port=80,
        end="unreachable", icmp=(3, 1, "192.168.1.10")),
    Row(name="unknown neighbour of a node, from a pod", src="frontend", dst="192.168.1.99", port=80,
        end="unreachable", icmp=(3, 1, "192.168.1.10")),
    # Nodes.
    Row(name="node to its pod", src="node-1", dst="frontend", port=8080,
        end="connected", servers=("frontend",), sources=("10.244.0.1",)),
    Row(name="node to another node's pod", src="node-1", dst=B2, port=8080,
        end="connected", servers=(B2,), sources=("10.244.0.0",)),
    Row(name="pod to its node", src="frontend", dst="192.168.1.10", port=10250,
        end="connected", servers=("node-1",), sources=("frontend",)),
    Row(name="pod to another node", src="frontend", dst="192.168.1.20", port=10250,
        end="connected", servers=("node-2",), sources=("192.168.1.10",)),
    Row(name="node to node", src="node-1", dst="192.168.1.30", port=10250,
        end="connected", servers=("node-3",), sources=("192.168.1.10",)),
    # Outside.
    Row(name="pod to outside (masqueraded)", src="frontend", dst=OUTSIDE, port=80,
        end="connected", servers=("outside",), sources=("192.168.1.10",)),
    Row(name="node to outside", src="node-2", dst=OUTSIDE, port=80,
        end="connected", servers=("outside",), sources=("192.168.1.20",)),
    Row(name="outside to node", src="outside", dst="192.168.1.10", port=10250,
        end="connected", servers=("node-1",), sources=("outside",)),
    Row(name="outside to pod", src="outside", dst=B2, port=8080, end="unreachable", icmp=(3, 0, "203.0.113.1")),
    Row(name="outside to a Service", src="outside", dst=BACKEND, port=80,
        end="unreachable", icmp=(3, 0, "203.0.113.1")),
    # Ping, sizes and TTL.
    Row(name="ping, same node", src="frontend", dst=B1, proto=ICMP, size=56,
        end="answered", servers=(B1,), sources=("frontend",)),
    Row(name="ping, across", src="frontend", dst=B3, proto=ICMP, size=56,
        end="answered", servers=(B3,), sources=("frontend",)),
    Row(name="ping outside", src="frontend", dst=OUTSIDE, proto=ICMP, size=56,
        end="answered", servers=("outside",), sources=("192.168.1.10",)),
    Row(name="ping a node", src="frontend", dst="192.168.1.30", proto=ICMP, size=56,
        end="answered", servers=("node-3",), sources=("192.168.1.10",)),
    Row(name="as big as may be, DF", src="frontend", dst=B2, proto=ICMP, size=1422, df=True,
        end="answered", servers=(B2,), sources=("frontend",)),
    Row(name="too big, DF", src="frontend", dst=B2, proto=ICMP, size=1423, df=True, end="message too long"),
    Row(name="too big for the tunnel, DF, from a node", src="node-1", dst=B2, port=53, proto=UDP, size=1423, df=True,
        end="message too long"),
    Row(name="too big, fragmented", src="frontend", dst=B2, proto=ICMP, size=3000,
        end="answered", servers=(B2,), sources=("frontend",)),
    Row(name="too big, fragmented on the way out", src="frontend", dst=OUTSIDE, proto=ICMP, size=3000,
        end="answered", servers=("outside",), sources=("192.168.1.10",)),
    Row(name="TTL 1", src="frontend", dst=B2, proto=ICMP, size=56, ttl=1,
        end="ttl exceeded", icmp=(11, 0, "10.244.0.1")),
    Row(name="TTL 2, across", src="frontend", dst=B2, proto=ICMP, size=56, ttl=2,
        end="ttl exceeded", icmp=(11, 0, "10.244.1.0")),
    Row(name="TTL 3, across", src="frontend", dst=B2, proto=ICMP, size=56, ttl=3,
        end="answered", servers=(B2,), sources=("frontend",)),
    Row(name="TTL 1, UDP to a Service", src="database", dst=DNS, port=53, proto=UDP, payload=QUERY, ttl=1,
        end="ttl exceeded", icmp=(11, 0, DNS)),
    Row(name="TTL 1, TCP to a Service", src="frontend", dst="10.96.0.200", port=5432, ttl=1,
        end="ttl exceeded", icmp=(11, 0, "10.96.0.200")),
    # Odd worlds: routes that refuse, sources that cannot be, MTUs that do not fit.
    Row(name="blackhole route", world=ODD, src="node-1", dst="198.51.100.1", port=80, end="unreachable"),
    Row(name="blackhole route, from a pod", world=ODD, src="frontend", dst="198.51.100.1", port=80, end="timed out"),
    Row(name="unreachable route", world=ODD, src="node-1", dst="198.51.101.1", port=80, end="unreachable"),
    Row(name="unreachable route, from a pod", world=ODD, src="frontend", dst="198.51.101.1", port=80,
        end="unreachable", icmp=(3, 1, "10.244.0.1")),
    Row(name="prohibit route", world=ODD, src="node-1", dst="198.51.102.1", port=80, end="unreachable"),
    Row(name="prohibit route, from a pod", world=ODD, src="frontend", dst="198.51.102.1", port=80,
        end="unreachable", icmp=(3, 13, "10.244.0.1")),
    Row(name="rp_filter", world=ODD, src=B2, dst="database", port=5432, end="timed out"),
    Row(name="FDB entry missing", world=ODD, src="frontend", dst="database", port=5432, end="timed out"),
    Row(name="too big for a link on the way, DF", world=ODD, src="frontend", dst=B2, proto=ICMP, size=1410, df=True,
        end="message too long", icmp=(3, 4, "10.244.1.0")),
    Row(name="too big for a link on the way, fragmented", world=ODD, src="frontend", dst=B2, proto=ICMP, size=1410,
        end="answered", servers=(B2,), sources=("frontend",)),
    Row(name="accept queue full", world=ODD, src="frontend", dst=B1, port=8080, end="timed out"),
    Row(name="ping ignored", world=ODD, src="frontend", dst=B1, proto=ICMP, size=56, end="timed out"),
    Row(name="hairpin off", world=ODD, src="alone", dst="10.96.0.201", port=80, end="timed out"),
)  # fmt: skip


DIFFERENT: dict[str, dict[str, str]] = {
    "nftables": {"Service, wrong port": "refused", "ping a Service": "refused"},
}
"""Mode -> row -> how it ends there instead.

nftables: the chain cluster-ips-check rejects what no port of a cluster IP takes; in iptables mode it is routed on.
"""

INSTEAD: dict[str, dict[str, dict[str, object]]] = {
    "ipvs": {
        # The address is the node's own: IPVS refuses with it as the source, and KUBE-IPVS-FILTER all other ports.
        "Service without endpoints": {"icmp": (3, 3, EMPTY_SERVICE)},
        "Service without endpoints, from a node": {"icmp": (3, 3, EMPTY_SERVICE)},
        "Service, wrong port": {"end": "refused", "icmp": (3, 3, BACKEND)},
        "ping a Service": {"end": "refused", "icmp": (3, 3, BACKEND)},
        # The packet comes up to the node and is sent anew; it is the answer that the bridge would have to turn round.
        "hairpin off": {"servers": ("alone",), "sources": ("10.244.1.1",)},
    },
    "ebpf": {
        # The socket is given a backend, so nothing is translated on the way, and a pod's call of itself stays inside.
        "Service, maybe itself (hairpin)": {"sources": (B1,)},
        "Service, itself only (hairpin)": {"sources": ("alone",)},
        "hairpin off": {"end": "connected", "servers": ("alone",), "sources": ("alone",)},
        "TTL 1, UDP to a Service": {"icmp": (11, 0, "10.244.2.1")},
        "TTL 1, TCP to a Service": {"icmp": (11, 0, "10.244.0.1")},
        # Without a backend cil_sock4_connect sets EHOSTUNREACH.
        "Service without endpoints": {"end": "unreachable", "icmp": None},
        "Service without endpoints, from a node": {"end": "unreachable", "icmp": None},
    },
}
"""Mode -> row -> what else is otherwise there (Cilium's bpf/bpf_sock.c)."""


def place(network: Network, name: str) -> str:
    """Return the namespace that a role names: "backend@node-2" is the backend pod on node-2."""
    if name in network.netns:
        return name
    role, _, node = name.partition("@")
    found = [
        ns.name
        for ns in network.netns.values()
        if ns.name.partition("/")[2].split("-")[0] == role and (not node or ns.host == node)
    ]
    if not found:
        raise KeyError(f"no pod {name!r} in {sorted(network.netns)}")
    return found[0]


def address(network: Network, name: str) -> str:
    """Return an address as it is, or the first global one of a place."""
    if name[0].isdigit():
        return name
    ns = network.ns(place(network, name))
    return next(a.local for a in ns.addrs(None, 4) if a.scope == "global")


def flow(row: Row, network: Network) -> Flow:
    """Return a row as something to try."""
    return Flow(
        name=row.name, ns=place(network, row.src), dst=address(network, row.dst), port=row.port, proto=row.proto,
        size=row.size, df=row.df, ttl=row.ttl, count=row.count, payload=row.payload,
    )  # fmt: skip


def hold(row: Row, network: Network, outcomes: list[Outcome], trace: str) -> None:
    """Assert that a row ended as it says: for its caller, who took it, the source seen, the error that came."""
    assert {o.end for o in outcomes} == {row.end}, trace
    assert {o.server for o in outcomes if o.server} == {place(network, name) for name in row.servers}, trace
    seen = {o.source_seen for o in outcomes if o.source_seen}
    assert seen == {address(network, source) for source in row.sources}, trace
    errors = {(o.icmp.type, o.icmp.code, o.icmp.sender) for o in outcomes if o.icmp is not None}
    wanted = {(row.icmp[0], row.icmp[1], address(network, row.icmp[2]))} if row.icmp else set()
    assert errors == wanted, trace
