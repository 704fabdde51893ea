"""Ways through small worlds: each row is who sends what, how it must end, and why. A failing row prints its trace."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.link import BridgePort
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet import ICMP, ICMPV6, SYN, TCP, UDP, Packet, mac_from
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import Exchange, exchange
from tests.flows.worlds import two_nodes


def plug(network: Network, ns: str, dev: str, wire: str, cidr: str) -> Netns:
    space = network.ns(ns)
    space.add_link(dev, "physical", mac=mac_from(ns, dev))
    network.plug(wire, ns, dev)
    space.set_link(dev, up=True)
    space.add_address(dev, cidr)
    return space


def routed(family: int) -> Network:
    """a -- router -- b, on two wires."""
    one, two = ("10.0.1", "10.0.2") if family == 4 else ("fd00:1:", "fd00:2:")
    sep, length = (".", 24) if family == 4 else (":", 64)
    network = Network()
    for wire in ("left", "right"):
        network.add_wire(wire)
    for name in ("a", "router", "b"):
        network.add_netns(name)
    plug(network, "a", "eth0", "left", f"{one}{sep}10/{length}")
    plug(network, "router", "eth0", "left", f"{one}{sep}1/{length}")
    plug(network, "router", "eth1", "right", f"{two}{sep}1/{length}")
    plug(network, "b", "eth0", "right", f"{two}{sep}10/{length}")
    network.ns("router").set_sysctl(
        "net.ipv4.ip_forward" if family == 4 else "net.ipv6.conf.all.forwarding", 1
    )
    network.ns("a").add_route("default", via=f"{one}{sep}1")
    network.ns("b").add_route("default", via=f"{two}{sep}1")
    network.ns("b").listen(Socket(TCP, "::", 80, "web"))
    return network


def story(done: Exchange) -> str:
    return f"{done.verdict} ({done.reason}, {done.errno})\n" + "\n".join(
        trace.text() for trace in done.traces
    )


def check(done: Exchange, verdict: str, reason: str, errno: str = "") -> None:
    assert (done.verdict, done.reason, done.errno) == (verdict, reason, errno), story(done)


# dst, protocol and port, extra fields of the packet, verdict, reason, errno
ROUTED_4 = [
    ("10.0.2.10", TCP, 80, {}, "connected", "socket", ""),
    ("10.0.2.10", TCP, 81, {}, "refused", "no-listener", "ECONNREFUSED"),
    ("10.0.2.10", UDP, 81, {}, "refused", "no-listener", "ECONNREFUSED"),
    ("10.0.2.10", ICMP, 0, {}, "answered", "raw-socket", ""),
    ("10.0.2.99", ICMP, 0, {}, "unreachable", "neighbour-failed", "EHOSTUNREACH"),
    ("10.0.1.99", ICMP, 0, {}, "unreachable", "neighbour-failed", "EHOSTUNREACH"),
    ("10.9.9.9", TCP, 80, {}, "unreachable", "no-route", "ENETUNREACH"),
    ("10.0.2.10", ICMP, 0, {"ttl": 1}, "ttl exceeded", "ttl-exceeded", "EHOSTUNREACH"),
    ("127.0.0.1", TCP, 80, {}, "refused", "no-listener", "ECONNREFUSED"),
    ("10.0.1.10", ICMP, 0, {}, "answered", "raw-socket", ""),
]
ROUTED_6 = [
    ("fd00:2::10", TCP, 80, {}, "connected", "socket", ""),
    ("fd00:2::10", TCP, 81, {}, "refused", "no-listener", "ECONNREFUSED"),
    ("fd00:2::10", UDP, 81, {}, "refused", "no-listener", "ECONNREFUSED"),
    ("fd00:2::10", ICMPV6, 0, {}, "answered", "raw-socket", ""),
    ("fd00:2::99", ICMPV6, 0, {}, "unreachable", "neighbour-failed", "EHOSTUNREACH"),
    ("fd00:3::99", ICMPV6, 0, {}, "unreachable", "no-route", "ENETUNREACH"),
    ("fd00:2::10", ICMPV6, 0, {"ttl": 1}, "ttl exceeded", "ttl-exceeded", "EHOSTUNREACH"),
]


@pytest.mark.parametrize(
    ("dst", "proto", "port", "extra", "verdict", "reason", "errno"), [*ROUTED_4, *ROUTED_6]
)
def test_routed(
    dst: str, proto: int, port: int, extra: dict[str, int], verdict: str, reason: str, errno: str
) -> None:
    kind = {ICMP: 8, ICMPV6: 128}.get(proto, 0)
    packet = Packet("", dst, proto, 0, port, flags=SYN if proto == TCP else 0, icmp_type=kind, **extra)
    done = exchange(Walk(routed(6 if ":" in dst else 4)), "a", packet)
    check(done, verdict, reason, errno)


@pytest.mark.parametrize("family", [4, 6])
def test_a_smaller_link_behind_is_learned(family: int) -> None:
    """The router says how big a packet may be; the sender knows it from then on."""
    network = routed(family)
    network.ns("router").set_link("eth1", mtu=1400)
    walk = Walk(network)
    target = "10.0.2.10" if family == 4 else "fd00:2::10"
    big = Packet("", target, UDP, 0, 9, payload_size=1400)
    first = exchange(walk, "a", big, pmtudisc="do")
    check(first, "message too long", "too-big", "EMSGSIZE")
    assert first.place.netns == "router", story(first)
    assert first.answer is not None
    assert first.answer.icmp_mtu == 1400
    second = exchange(walk, "a", big, pmtudisc="do")
    check(second, "message too long", "too-big", "EMSGSIZE")
    assert second.place.netns == "a", story(second)


def test_a_packet_without_df_is_fragmented_on_the_way() -> None:
    network = routed(4)
    network.ns("router").set_link("eth1", mtu=1400)
    network.ns("b").set_link("eth0", mtu=1400)
    done = exchange(
        Walk(network), "a", Packet("", "10.0.2.10", ICMP, icmp_type=8, payload_size=1440, df=False)
    )
    check(done, "answered", "raw-socket")
    assert any(step.spot == "fragment" for _hop, step in done.request.steps()), story(done)


def test_no_forwarding_is_silence() -> None:
    network = routed(4)
    network.ns("router").set_sysctl("net.ipv4.ip_forward", 0)
    done = exchange(Walk(network), "a", Packet("", "10.0.2.10", ICMP, icmp_type=8))
    check(done, "timed out", "not-forwarding", "ETIMEDOUT")


@pytest.mark.parametrize(
    ("kind", "verdict", "errno"),
    [("blackhole", "timed out", "ETIMEDOUT"), ("unreachable", "unreachable", "EHOSTUNREACH"),
     ("prohibit", "unreachable", "EHOSTUNREACH")],
)  # fmt: skip
def test_refusing_routes_on_the_way(kind: str, verdict: str, errno: str) -> None:
    network = routed(4)
    network.ns("router").add_route("10.0.2.10/32", type=kind)
    done = exchange(Walk(network), "a", Packet("", "10.0.2.10", ICMP, icmp_type=8))
    check(done, verdict, f"route-{kind}", errno)


def test_refusing_routes_at_home() -> None:
    for kind, errno in (("blackhole", "EINVAL"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES")):
        network = routed(4)
        network.ns("a").add_route("10.0.2.10/32", type=kind)
        check(
            exchange(Walk(network), "a", Packet("", "10.0.2.10", TCP, 0, 80, flags=SYN)),
            "unreachable",
            f"route-{kind}",
            errno,
        )


def test_reverse_path_filter() -> None:
    """A source that would be reached another way is dropped in strict mode, taken in loose mode."""
    for mode, verdict in (("1", "timed out"), ("2", "answered"), ("0", "answered")):
        network = routed(4)
        network.ns("a").add_address("eth0", "10.7.7.7/32")
        router = network.ns("router")
        router.add_route("10.7.7.0/24", via="10.0.2.10", dev="eth1")
        router.add_route("10.7.7.7/32", via="10.0.1.10", dev="eth0", table=77)
        router.set_sysctl("net.ipv4.conf.eth0.rp_filter", mode)
        if mode != "1":
            router.add_route("10.7.7.7/32", via="10.0.1.10", dev="eth0", metric=0)
            router.set_sysctl("net.ipv4.conf.eth0.rp_filter", 0 if mode == "0" else 2)
        done = exchange(Walk(network), "a", Packet("10.7.7.7", "10.0.2.10", ICMP, icmp_type=8))
        assert done.verdict == verdict, story(done)
        if mode == "1":
            assert done.reason == "rp-filter", story(done)


def test_one_of_several_next_hops_is_kept_by_a_flow() -> None:
    from kubenet_lab.kernel.route import NextHop

    network = routed(4)
    network.ns("a").delete_route("default")
    network.ns("a").add_route("default", nexthops=(NextHop("10.0.1.1", "eth0"), NextHop("10.0.1.2", "eth0")))
    ways = {network.ns("a").lookup(f"10.0.2.{n}", src="10.0.1.10").via for n in range(1, 60)}  # type: ignore[union-attr]
    assert ways == {"10.0.1.1", "10.0.1.2"}
    again = {network.ns("a").lookup("10.0.2.10", src="10.0.1.10").via for _ in range(9)}  # type: ignore[union-attr]
    assert len(again) == 1


def test_hairpin_off_drops_at_the_bridge() -> None:
    """A pod that reaches itself through its own Service needs its port's hairpin flag."""
    network = two_nodes()
    node = network.ns("node-1")
    port = next(
        link
        for link in node.links.values()
        if link.master == "cni0" and link.peer.netns == "default/backend-1"
    )  # type: ignore[union-attr]
    node.set_link(port.name, port=BridgePort(hairpin=False))
    walk = Walk(network, choose=lambda _rule, _p: True)
    done = exchange(walk, "default/backend-1", Packet("", "10.96.0.100", TCP, 0, 80, flags=SYN))
    check(done, "timed out", "hairpin-off", "ETIMEDOUT")


def test_a_link_taken_down_loses_its_routes() -> None:
    network = two_nodes()
    network.ns("node-1").set_link("flannel.1", up=False)
    done = exchange(Walk(network), "default/frontend", Packet("", "10.244.1.2", TCP, 0, 8080, flags=SYN))
    assert done.reason != "socket", story(done)
    assert not [r for r in network.ns("node-1").route_list() if r.dev == "flannel.1"]


def test_what_is_not_modelled_says_so() -> None:
    network = routed(4)
    network.ns("a").add_link("vti0", "vti", mac="00:00:00:00:00:00", noarp=True)
    network.ns("a").set_link("vti0", up=True)
    network.ns("a").add_route("10.50.0.0/16", dev="vti0")
    done = exchange(Walk(network), "a", Packet("", "10.50.0.1", TCP, 0, 80, flags=SYN))
    check(done, "not modelled", "not-modelled")
