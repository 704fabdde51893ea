"""Trips written by hand, step by step, so that views are tested without an engine."""

from __future__ import annotations

from typing import Any

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects.iptables import rule as parse_rule
from kubenet_lab.kernel.link import BridgeOptions, VxlanOptions
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import Route
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import ACK, RST, SYN, TCP, UDP, Frame, Packet
from kubenet_lab.trace import Hop, Place, Query, RuleRef, Step, Trace
from kubenet_lab.trip import Trip
from kubenet_lab.walk.exchange import Exchange

NAMES = {
    "10.244.0.2": "pod default/frontend",
    "10.244.1.2": "pod default/backend-2",
    "10.96.0.100": "Service default/backend",
    "10.96.0.10": "Service kube-system/kube-dns",
    "192.168.1.10": "node node-1",
    "192.168.1.20": "node node-2",
    "10.244.0.1": "node node-1",
    "10.244.1.0": "node node-2",
}

POD_A, POD_B = "0a:58:0a:f4:00:02", "0a:58:0a:f4:01:02"
CNI_1, CNI_2 = "0a:58:0a:f4:00:01", "0a:58:0a:f4:01:01"
VTEP_1, VTEP_2 = "0a:00:00:00:00:11", "0a:00:00:00:00:22"
ETH_1, ETH_2 = "0a:00:00:00:01:10", "0a:00:00:00:01:20"

SYN_OUT = Packet("10.244.0.2", "10.96.0.100", TCP, 32768, 80, flags=SYN, mss=1410)
FLOW = (
    "SYN_SENT src=10.244.0.2 dst=10.96.0.100 sport=32768 dport=80 [UNREPLIED] "
    "src=10.244.1.2 dst=10.244.0.2 sport=8080 dport=32768"
)
SVC, SEP = "KUBE-SVC-ABCDEFGHIJKLMNOP", "KUBE-SEP-QRSTUVWXYZABCDEF"


def rule(chain: str, number: int, text: str, table: str = "nat") -> Step:
    return Step("rule", f"{table} {chain}", RuleRef(table, chain, number, parse_rule(text)))


def request(end: str = "") -> Trace:
    """frontend's SYN to the Service, to a backend on the other node; `end` "rule-drop" lets node-2 drop it."""
    dnat = SYN_OUT.replace(dst="10.244.1.2", dport=8080, ttl=64)
    on_way = dnat.replace(ttl=63)
    arrived = dnat.replace(ttl=62)
    frame_in = Frame(VTEP_1, VTEP_2, on_way)
    outer = Packet("192.168.1.10", "192.168.1.20", UDP, 51000, 8472, df=False, inner=frame_in, vni=1)
    first = Frame(POD_A, CNI_1, SYN_OUT)
    wire = Frame(ETH_1, ETH_2, outer)
    last = Frame(CNI_2, POD_B, arrived)
    fdb = FdbEntry("flannel.1", VTEP_2, dst="192.168.1.20", state="permanent")
    hops = [
        Hop(
            "default/frontend",
            "node-1",
            "",
            SYN_OUT,
            [
                Step("send", "socket", note=str(SYN_OUT)),
                Step("route", "output", Route("0.0.0.0/0", "eth0", "10.244.0.1")),
                Step("neighbour", "eth0", Neighbour("eth0", "10.244.0.1", CNI_1)),
                Step("transmit", "eth0", first),
            ],
            "eth0",
        ),
        Hop(
            "node-1",
            "node-1",
            "veth1",
            SYN_OUT,
            [
                Step("receive", "veth1", first),
                Step("bridge", "cni0", note="the frame is for the bridge itself"),
                Step("conntrack", "new", note="a new connection"),
                rule("PREROUTING", 1, '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'),
                rule("KUBE-SERVICES", 3, f"-d 10.96.0.100/32 -p tcp -m tcp --dport 80 -j {SVC}"),
                rule(SVC, 2, f"-m statistic --mode random --probability 0.50000000000 -j {SEP}"),
                rule(SEP, 2, "-p tcp -m tcp -j DNAT --to-destination 10.244.1.2:8080"),
                Step("nat", "destination", FLOW, before=SYN_OUT, after=dnat),
                Step("route", "input", Route("10.244.1.0/24", "flannel.1", "10.244.1.0", onlink=True)),
                Step("conntrack", "confirmed", FLOW),
                Step("neighbour", "flannel.1", Neighbour("flannel.1", "10.244.1.0", VTEP_2, "PERMANENT")),
                Step("transmit", "flannel.1", frame_in),
                Step("fdb", "flannel.1", fdb),
                Step("encapsulate", "flannel.1", fdb, before=on_way, after=outer),
            ],
            "flannel.1",
        ),
        Hop(
            "node-1",
            "node-1",
            "flannel.1",
            outer,
            [
                Step("route", "output", Route("192.168.1.0/24", "eth0", prefsrc="192.168.1.10")),
                Step("neighbour", "eth0", Neighbour("eth0", "192.168.1.20", ETH_2)),
                Step("transmit", "eth0", wire),
            ],
            "eth0",
            True,
        ),
    ]
    node2 = Hop(
        "node-2",
        "node-2",
        "eth0",
        outer,
        [
            Step("receive", "eth0", wire),
            Step(
                "route", "input", Route("192.168.1.20/32", "eth0", type="local", table=255), "for this host"
            ),
        ],
        "",
        True,
    )
    hops.append(node2)
    trace = Trace(SYN_OUT, "request", hops, caused=[])
    if end:
        drop = RuleRef("filter", "INPUT", 1, parse_rule("-p udp -m udp --dport 8472 -j DROP"))
        node2.steps.append(Step("end", end, drop))
        trace.verdict, trace.reason, trace.place = "dropped", end, Place("node-2", "INPUT filter")
        trace.decided_by = drop
        return trace
    node2.steps.append(Step("decapsulate", "flannel.1", before=outer, after=on_way))
    socket = Socket(TCP, "0.0.0.0", 8080, "backend")
    hops += [
        Hop(
            "node-2",
            "node-2",
            "flannel.1",
            on_way,
            [
                Step("receive", "flannel.1", frame_in),
                Step("route", "input", Route("10.244.1.0/24", "cni0", prefsrc="10.244.1.1")),
                Step("neighbour", "cni0", Neighbour("cni0", "10.244.1.2", POD_B)),
                Step("transmit", "cni0", last),
                Step("fdb", "cni0", FdbEntry("veth2", POD_B, master="cni0")),
                Step("transmit", "veth2", last),
            ],
            "veth2",
        ),
        Hop(
            "default/backend-2",
            "node-2",
            "eth0",
            arrived,
            [
                Step("receive", "eth0", last),
                Step(
                    "route", "input", Route("10.244.1.2/32", "eth0", type="local", table=255), "for this host"
                ),
                Step("deliver", "socket", socket, "socket"),
            ],
        ),
    ]
    trace.verdict, trace.reason, trace.place = "delivered", "socket", Place("default/backend-2", "socket")
    trace.decided_by, trace.delivered_as = socket, arrived
    return trace


def reply() -> Trace:
    """The SYN-ACK on its way back."""
    sent = Packet("10.244.1.2", "10.244.0.2", TCP, 8080, 32768, flags=SYN | ACK, mss=1410)
    on_way = sent.replace(ttl=63)
    back = on_way.replace(src="10.96.0.100", sport=80, ttl=62)
    frame_in = Frame(VTEP_2, VTEP_1, on_way)
    outer = Packet("192.168.1.20", "192.168.1.10", UDP, 52000, 8472, df=False, inner=frame_in, vni=1)
    first, wire, last = Frame(POD_B, CNI_2, sent), Frame(ETH_2, ETH_1, outer), Frame(CNI_1, POD_A, back)
    fdb = FdbEntry("flannel.1", VTEP_1, dst="192.168.1.10", state="permanent")
    hops = [
        Hop(
            "default/backend-2",
            "node-2",
            "",
            sent,
            [
                Step("send", "socket", note=str(sent)),
                Step("route", "output", Route("0.0.0.0/0", "eth0", "10.244.1.1")),
                Step("transmit", "eth0", first),
            ],
            "eth0",
        ),
        Hop(
            "node-2",
            "node-2",
            "veth2",
            sent,
            [
                Step("receive", "veth2", first),
                Step("bridge", "cni0", note="the frame is for the bridge itself"),
                Step("route", "input", Route("10.244.0.0/24", "flannel.1", "10.244.0.0", onlink=True)),
                Step("transmit", "flannel.1", frame_in),
                Step("fdb", "flannel.1", fdb),
                Step("encapsulate", "flannel.1", fdb, before=on_way, after=outer),
            ],
            "flannel.1",
        ),
        Hop("node-2", "node-2", "flannel.1", outer, [Step("transmit", "eth0", wire)], "eth0", True),
        Hop(
            "node-1",
            "node-1",
            "eth0",
            outer,
            [
                Step("receive", "eth0", wire),
                Step("decapsulate", "flannel.1", before=outer, after=on_way),
            ],
            "",
            True,
        ),
        Hop(
            "node-1",
            "node-1",
            "flannel.1",
            on_way,
            [
                Step("receive", "flannel.1", frame_in),
                Step("conntrack", "reply", FLOW),
                Step("route", "input", Route("10.244.0.0/24", "cni0", prefsrc="10.244.0.1")),
                Step("nat", "source", FLOW, before=on_way.replace(ttl=62), after=back),
                Step("transmit", "cni0", last),
                Step("transmit", "veth1", last),
            ],
            "veth1",
        ),
        Hop(
            "default/frontend",
            "node-1",
            "eth0",
            back,
            [
                Step("receive", "eth0", last),
                Step("deliver", "socket", "client socket 10.244.0.2:32768", "socket"),
            ],
        ),
    ]
    return Trace(
        sent,
        "reply",
        hops,
        "delivered",
        "socket",
        Place("default/frontend", "socket"),
        "client socket",
        delivered_as=back,
        caused=[],
    )


def refusal() -> Trace:
    """An RST back from backend-2 on the same road."""
    trace = reply()
    trace.packet = trace.packet.replace(flags=RST | ACK)
    trace.role = "error"
    return trace


def _query() -> Query:
    asked = Packet("10.244.0.2", "10.96.0.10", UDP, 40000, 53, payload_size=50)
    hop = Hop(
        "default/frontend",
        "node-1",
        "",
        asked,
        [
            Step("send", "socket", note=str(asked)),
            Step("route", "output", Route("0.0.0.0/0", "eth0", "10.244.0.1")),
            Step("deliver", "socket", Socket(UDP, "0.0.0.0", 53, "coredns"), "socket"),
        ],
        "eth0",
    )
    trace = Trace(
        asked, "request", [hop], "delivered", "socket", Place("kube-system/coredns", "socket"), caused=[]
    )
    return Query(
        "backend.default.svc.cluster.local.", "A", "10.96.0.10", "NOERROR", ["10.96.0.100"], 0.0, [trace]
    )


def _trip(
    traces: list[Trace], verdict: str, reason: str, decided_by: Any, place: Place, server: str | None
) -> Trip:
    exchange = Exchange(traces[0], traces, verdict, reason, decided_by, place, source_seen="10.244.0.2")
    return Trip(
        "default/frontend",
        "default/frontend",
        "http://backend",
        "backend",
        80,
        "tcp",
        "10.96.0.100",
        [_query()],
        exchange,
        names=NAMES,
        server=server,
    )


def connected() -> Trip:
    """A call that works, over VXLAN."""
    there, back = request(), reply()
    return _trip([there, back], "connected", "socket", there.decided_by, there.place, "default/backend-2")


def dropped() -> Trip:
    """A call whose tunnel packets node-2 drops."""
    there = request("rule-drop")
    return _trip([there], "timed out", there.reason, there.decided_by, there.place, None)


def network() -> Network:
    """The two nodes and two pods that the trips above cross, with a router beside them."""
    net = Network()
    net.add_wire("underlay")
    for name in ("node-1", "node-2", "router"):
        net.add_netns(name)
    for node, mac, address in (
        ("node-1", ETH_1, 10),
        ("node-2", ETH_2, 20),
        ("router", "0a:00:00:00:01:01", 1),
    ):
        ns = net.ns(node)
        ns.add_link("eth0", "physical", mac=mac, up=True)
        ns.add_address("eth0", f"192.168.1.{address}/24")
        net.plug("underlay", node, "eth0")
    for number, (node, pod, cni, vtep, mac) in enumerate(
        (
            ("node-1", "default/frontend", CNI_1, VTEP_1, POD_A),
            ("node-2", "default/backend-2", CNI_2, VTEP_2, POD_B),
        ),
        1,
    ):
        ns = net.ns(node)
        ns.add_route("default", via="192.168.1.1", dev="eth0")
        ns.add_link("cni0", "bridge", mac=cni, bridge=BridgeOptions(), up=True)
        ns.add_address("cni0", f"10.244.{number - 1}.1/24")
        ns.add_link(
            "flannel.1", "vxlan", mac=vtep, mtu=1450, vxlan=VxlanOptions(1, f"192.168.1.{number}0"), up=True
        )
        ns.add_address("flannel.1", f"10.244.{number - 1}.0/32")
        net.add_netns(pod, node)
        net.add_veth(node, f"veth{number}", pod, "eth0", mac_a=f"0a:00:00:00:02:0{number}", mac_b=mac)
        ns.set_link(f"veth{number}", master="cni0", up=True)
        net.ns(pod).set_link("eth0", up=True)
        net.ns(pod).add_address("eth0", f"10.244.{number - 1}.2/24")
    return net
