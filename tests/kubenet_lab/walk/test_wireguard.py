"""WireGuard: which peer a packet goes to and may come from, sessions, roaming, sizes, and what an onlooker sees."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kubenet_lab.kernel.dialects import ip_link, wg
from kubenet_lab.kernel.dump import dump, load
from kubenet_lab.kernel.link import WireguardOptions, WireguardPeer
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import RouteRule
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet import ICMP, ICMPV6, SYN, TCP, UDP, Packet
from kubenet_lab.packet.packet import Frame, WireguardMessage
from kubenet_lab.packet.wire import frame_bytes
from kubenet_lab.trace import Trace, captures
from kubenet_lab.views.trip_steps import headers
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import Exchange, exchange
from tests.flows.stacked import host


def tunnel(space: Netns, number: int, *peers: WireguardPeer, **options: object) -> None:
    """wg0 with 10.9.N.1/24 and fd00:9:N::1/64, and routes to what the peers may send."""
    settings = WireguardOptions(f"key-{number}", peers=peers, **options)  # type: ignore[arg-type]
    space.add_link("wg0", "wireguard", mac="", mtu=1420, wireguard=settings)
    space.set_link("wg0", up=True)
    space.add_address("wg0", f"10.9.{number}.1/24")
    space.add_address("wg0", f"fd00:9:{number}::1/64")
    for cidr in dict.fromkeys(cidr for peer in peers for cidr in peer.allowed_ips):
        if cidr not in ("0.0.0.0/0", "::/0"):
            space.add_route(cidr, dev="wg0", replace_existing=True)


def three() -> Network:
    """Three hosts on a wire. node-1 knows the others and where they are; they know node-1 only, node-3 not where."""
    net = Network()
    net.add_wire("lan")
    spaces = [host(net, f"node-{n}", f"10.1.0.{n}/24", f"fd00:1::{n}/64") for n in (1, 2, 3)]
    tunnel(
        spaces[0], 1,
        WireguardPeer("key-2", "10.1.0.2:51820", ("10.9.0.0/16", "fd00:9:2::/64"), 25),
        WireguardPeer("key-3", "[fd00:1::3]:51820", ("10.9.3.0/24", "fd00:9:3::/64")),
    )  # fmt: skip
    tunnel(spaces[1], 2, WireguardPeer("key-1", "10.1.0.1:51820", ("10.9.1.0/24", "fd00:9:1::/64")))
    tunnel(spaces[2], 3, WireguardPeer("key-1", "", ("10.9.1.0/24", "fd00:9:1::/64")))
    return net


def ask(walk: Walk, ns: str, dst: str, proto: int = TCP, size: int = 0, src: str = "") -> Exchange:
    kind = {ICMP: 8, ICMPV6: 128}.get(proto, 0)
    flags = SYN if proto == TCP else 0
    port = {TCP: 8080, UDP: 9}.get(proto, 0)
    packet = Packet(src, dst, proto, 0, port, flags=flags, icmp_type=kind, payload_size=size)
    return exchange(walk, ns, packet)


def change(net: Network, ns: str, **fields: object) -> None:
    old = net.ns(ns).links["wg0"].wireguard
    assert old is not None
    net.ns(ns).set_link("wg0", wireguard=replace(old, **fields))


def outer(trace: Trace) -> list[Packet]:
    """The sealed packets that left a host."""
    bodies = [hop.packet for hop in trace.hops if hop.encapsulated and hop.indev == "wg0"]
    assert all(isinstance(one.message, WireguardMessage) for one in bodies)
    return bodies


def handshakes(done: Exchange) -> list[Trace]:
    found = [step.entry for trace in done.traces for _hop, step in trace.steps() if step.kind == "handshake"]
    return [one for one in found if isinstance(one, Trace)]


def text(done: Exchange) -> str:
    return f"{done.verdict} {done.reason} {done.errno}\n" + "\n".join(map(str, done.traces))


@pytest.mark.parametrize(
    ("dst", "proto", "place", "underlay"),
    [
        ("10.9.2.1", TCP, "node-2", "10.1.0.2"),
        ("10.9.2.1", ICMP, "node-2", "10.1.0.2"),
        ("10.9.3.1", TCP, "node-3", "fd00:1::3"),  # /24 is longer than the other peer's /16
        ("fd00:9:2::1", TCP, "node-2", "10.1.0.2"),
        ("fd00:9:3::1", ICMPV6, "node-3", "fd00:1::3"),
    ],
)
def test_the_longest_allowed_prefix_chooses_the_peer(dst: str, proto: int, place: str, underlay: str) -> None:
    done = ask(Walk(three()), "node-1", dst, proto)
    assert (done.ok, done.server_ns) == (True, place), text(done)
    assert [packet.dst for packet in outer(done.request)] == [underlay]
    assert len(handshakes(done)) == 1
    assert done.source_seen in ("10.9.1.1", "fd00:9:1::1")


@pytest.mark.parametrize(
    ("proto", "errno"), [(TCP, "EHOSTUNREACH"), (UDP, "ENOKEY"), (ICMP, "ENOKEY")], ids=str
)
def test_no_peer(proto: int, errno: str) -> None:
    """`ping: sendmsg: Required key not available`; a TCP socket hears the ICMP error only."""
    net = three()
    net.ns("node-2").add_route("10.77.0.0/16", dev="wg0")
    done = ask(Walk(net), "node-2", "10.77.0.1", proto)
    assert (done.verdict, done.reason, done.errno) == ("unreachable", "wireguard-no-peer", errno), text(done)
    assert done.answer is not None
    assert (done.answer.icmp_type, done.answer.icmp_code) == (3, 1)


def test_no_endpoint() -> None:
    """`Destination address required`, until the peer has been heard of."""
    walk = Walk(three())
    done = ask(walk, "node-3", "10.9.1.1", UDP)
    assert (done.reason, done.errno) == ("wireguard-no-endpoint", "EDESTADDRREQ"), text(done)
    assert ask(walk, "node-1", "10.9.3.1").ok
    assert ask(walk, "node-3", "10.9.1.1", ICMP).ok


def test_no_peer_for_a_forwarded_packet() -> None:
    """A router tells the sender that the host cannot be reached."""
    net = three()
    net.ns("node-2").set_sysctl("net.ipv4.ip_forward", 1)
    net.ns("node-2").add_route("10.77.0.0/16", dev="wg0")
    net.ns("node-3").add_route("10.77.0.0/16", via="10.1.0.2")
    done = ask(Walk(net), "node-3", "10.77.0.1", UDP)
    assert (done.verdict, done.reason, done.errno) == ("unreachable", "wireguard-no-peer", "EHOSTUNREACH")
    assert done.answer is not None
    assert done.answer.src == "10.1.0.2"


def test_a_peer_may_send_from_its_own_addresses_only() -> None:
    net = three()
    net.ns("node-2").add_address("lo", "10.66.0.1/32")
    done = ask(Walk(net), "node-2", "10.9.1.1", ICMP, src="10.66.0.1")
    assert (done.verdict, done.reason) == ("timed out", "wireguard-source"), text(done)
    assert done.place.netns == "node-1"
    change(net, "node-1", peers=(WireguardPeer("key-2", "10.1.0.2:51820", ("10.9.2.0/24", "10.66.0.1/32")),))
    net.ns("node-1").add_route("10.66.0.1/32", dev="wg0")
    assert ask(Walk(net), "node-2", "10.9.1.1", ICMP, src="10.66.0.1").ok


def test_another_peers_address_is_not_its_own() -> None:
    """What node-2 sends with an address of node-3's is authentic, and thrown away."""
    net = three()
    net.ns("node-2").add_address("lo", "10.9.3.5/32")
    done = ask(Walk(net), "node-2", "10.9.1.1", ICMP, src="10.9.3.5")
    assert done.reason == "wireguard-source", text(done)


@pytest.mark.parametrize("side", ["node-1", "node-2"])
def test_strangers_get_no_answer(side: str) -> None:
    """A wrong public key on either side: the handshake is not answered, and nothing else is sent."""
    net = three()
    other = "10.1.0.2:51820" if side == "node-1" else "10.1.0.1:51820"
    allowed = ("10.9.2.0/24",) if side == "node-1" else ("10.9.1.0/24",)
    change(net, side, peers=(WireguardPeer("key-9", other, allowed),))
    done = ask(Walk(net), "node-1", "10.9.2.1")
    assert (done.verdict, done.reason) == ("timed out", "wireguard-no-handshake"), text(done)
    assert [one.reason for one in handshakes(done)] == ["wireguard-stranger"]
    assert not outer(done.request)


def test_a_device_that_is_down_or_has_another_port_is_no_listener() -> None:
    for fields in ({"up": False}, {"wireguard": WireguardOptions("key-2", 51821)}):
        net = three()
        net.ns("node-2").set_link("wg0", **fields)
        (told,) = handshakes(ask(Walk(net), "node-1", "10.9.2.1"))
        assert told.reason == "no-listener", told


def test_to_any_other_program_a_message_is_bytes() -> None:
    """An endpoint that is a name server's port: what arrives is a datagram that it cannot read."""
    net = three()
    heard: list[Packet] = []

    def server(packet: Packet, _now: float) -> None:
        heard.append(packet)

    net.ns("node-2").listen(Socket(UDP, "0.0.0.0", 53, "dns", handler=server))
    change(net, "node-1", peers=(WireguardPeer("key-2", "10.1.0.2:53", ("10.9.2.0/24",)),))
    assert ask(Walk(net), "node-1", "10.9.2.1").reason == "wireguard-no-handshake"
    assert [(len(one.payload), one.message) for one in heard] == [(148, None)]


def test_handshakes_happen_when_they_are_due() -> None:
    """Who began a session begins anew after 120 s, the other side never; nobody takes a key of 180 s."""
    net = three()
    counts = []
    for moment, ns in ((0, "node-1"), (119, "node-1"), (121, "node-2"), (122, "node-1"), (123, "node-1")):
        done = ask(Walk(net, now=moment), ns, "10.9.2.1" if ns == "node-1" else "10.9.1.1")
        assert done.ok, text(done)
        counts.append(len(handshakes(done)))
    # The answer to what node-2 sends at 121 leaves node-1, which began the session: so it begins another.
    assert counts == [1, 0, 1, 0, 0]
    done = ask(Walk(net, now=400), "node-2", "10.9.1.1")
    assert len(handshakes(done)) == 1
    session = net.ns("node-2").wireguard["wg0", "key-1"]
    assert (session.initiator, session.handshake) == (True, 400)


def test_who_lost_its_sessions_drops_what_is_sealed_with_them() -> None:
    net = three()
    walk = Walk(net)
    assert ask(walk, "node-1", "10.9.2.1").ok
    net.ns("node-2").wireguard.clear()
    done = ask(walk, "node-1", "10.9.2.1")
    assert (done.verdict, done.reason) == ("timed out", "wireguard-no-session"), text(done)
    assert ask(Walk(net, now=200), "node-1", "10.9.2.1").ok


def test_a_peer_that_moves_is_found_where_it_was_last_heard() -> None:
    """Roaming: node-2 gets another address, and node-1 answers there from its next packet on."""
    net = three()
    walk = Walk(net)
    assert ask(walk, "node-1", "10.9.2.1").ok
    net.ns("node-2").delete_address("eth0", "10.1.0.2/24")
    net.ns("node-2").add_address("eth0", "10.1.0.52/24")
    assert not ask(walk, "node-1", "10.9.2.1").ok
    done = ask(walk, "node-2", "10.9.1.1")
    assert done.ok, text(done)
    assert not handshakes(done)
    assert net.ns("node-1").wireguard["wg0", "key-2"].endpoint == "10.1.0.52:51820"
    assert ask(walk, "node-1", "10.9.2.1").ok
    assert "endpoint: 10.1.0.52:51820" in wg.show(net.ns("node-1"))


def test_what_becomes_of_sessions_when_a_device_changes() -> None:
    """Down, another key or a peer taken away end them; a handshake that was is still shown; an endpoint can be set."""
    net = three()
    walk = Walk(net)
    key = ("wg0", "key-2")
    one = net.ns("node-1")
    for fields in ({"up": False}, {"public_key": "key-9"}):
        assert len(handshakes(ask(walk, "node-1", "10.9.2.1"))) == 1
        if "up" in fields:
            one.set_link("wg0", up=False)
            one.set_link("wg0", up=True)
            one.add_route("10.9.0.0/16", dev="wg0", replace_existing=True)
        else:
            change(net, "node-1", **fields)
        assert not one.wireguard[key].usable(0)
        assert "latest handshake: Now" in wg.show(one)
    peers = one.links["wg0"].wireguard.peers  # type: ignore[union-attr]
    change(net, "node-1", peers=(replace(peers[0], endpoint="10.1.0.7:51820"), *peers[1:]))
    assert one.wireguard[key].endpoint == "10.1.0.7:51820"
    change(net, "node-1", peers=peers[1:])
    assert key not in one.wireguard


@pytest.mark.parametrize(
    ("size", "dst", "length"),
    [
        (0, "10.9.2.1", 28 + 4 + 60),  # the packet is filled up to a multiple of 16
        (20, "10.9.2.1", 48 + 60),
        (1392, "10.9.2.1", 1420 + 60),  # but not beyond the device's MTU
        (20, "10.9.3.1", 48 + 80),
    ],
)
def test_sizes(size: int, dst: str, length: int) -> None:
    (packet,) = outer(ask(Walk(three()), "node-1", dst, ICMP, size).request)
    assert packet.length == length
    assert not packet.df


def test_what_is_too_big_for_the_device() -> None:
    packet = Packet("", "10.9.2.1", UDP, 0, 9, payload_size=1400)
    done = exchange(Walk(three()), "node-1", packet, pmtudisc="do")
    assert (done.verdict, done.errno) == ("message too long", "EMSGSIZE")


def test_what_wg_show_says() -> None:
    net = three()
    ask(Walk(net), "node-1", "10.9.2.1")
    change(net, "node-1", fwmark=0x51)
    assert wg.show(net.ns("node-1"), now=3663) == (
        "interface: wg0\n  public key: key-1\n  private key: (hidden)\n  listening port: 51820\n  fwmark: 0x51\n\n"
        "peer: key-2\n  endpoint: 10.1.0.2:51820\n  allowed ips: 10.9.0.0/16, fd00:9:2::/64\n"
        "  latest handshake: 1 hour, 1 minute, 3 seconds ago\n  transfer: 172 B received, 308 B sent\n"
        "  persistent keepalive: every 25 seconds\n\n"
        "peer: key-3\n  endpoint: [fd00:1::3]:51820\n  allowed ips: 10.9.3.0/24, fd00:9:3::/64\n"
    )
    text = ip_link.show(net.ns("node-1"), links=[net.ns("node-1").links["wg0"]])
    assert text.splitlines()[1] == "    link/none "


def test_the_mark_keeps_the_outer_packet_out_of_the_tunnel() -> None:
    """`wg-quick` with 0.0.0.0/0: all goes into the tunnel but what it sends itself, which has a mark."""
    net = three()
    one = net.ns("node-1")
    change(net, "node-1", peers=(WireguardPeer("key-2", "10.1.0.2:51820", ("0.0.0.0/0",)),))
    one.add_route("default", dev="wg0", table=51820)
    one.add_rule(RouteRule(100, 51820, fwmark=0xCA6C, fwmask=0xFFFFFFFF, invert=True))
    assert ask(Walk(net), "node-1", "10.9.2.1").reason == "wireguard-no-handshake"
    change(net, "node-1", fwmark=0xCA6C)
    done = ask(Walk(net), "node-1", "10.9.2.1")
    assert done.ok, text(done)


def test_a_device_that_was_moved_sends_from_where_it_was_made() -> None:
    """A container with nothing but wg0: its sealed packets leave by its host's eth0."""
    net = three()
    box = net.add_netns("box", "node-2")
    net.ns("node-2").delete_address("wg0", "10.9.2.1/24")
    net.move_link("node-2", "wg0", "box")
    box.set_link("wg0", up=True)
    box.add_address("wg0", "10.9.2.1/24")
    box.add_route("10.9.1.0/24", dev="wg0")
    for ns, dst in (("node-1", "10.9.2.1"), ("box", "10.9.1.1")):
        done = ask(Walk(net), ns, dst, ICMP)
        assert done.ok, text(done)
        assert {hop.netns for hop in done.request.hops} == {"node-1", "node-2", "box"}


def test_sessions_are_state() -> None:
    """Snapshots and dumps hold them; they go with the device."""
    net = three()
    before = net.snapshot()
    ask(Walk(net), "node-1", "10.9.2.1")
    document = dump(net)
    again = load(document)
    assert dump(again) == document
    assert again.wireguards == net.wireguards
    assert ask(Walk(again), "node-1", "10.9.2.1").ok
    net.restore(before)
    assert not net.ns("node-1").wireguard
    ask(Walk(net), "node-1", "10.9.2.1")
    net.ns("node-1").delete_link("wg0")
    assert not net.ns("node-1").wireguard
    assert "node-1" not in net.wireguards


def test_what_others_see_on_the_wire() -> None:
    """A type 4 message: four bytes of type, the receiver's number, a counter, and nothing of what is inside."""
    done = ask(Walk(three()), "node-1", "10.9.2.1", ICMP, 20)
    frames = [
        c.frame
        for c in captures(done.traces)
        if (c.netns, c.link, c.direction) == ("node-1", "eth0", "out") and isinstance(c.frame.body, Packet)
    ]
    data = [frame for frame in frames if frame.body.message.type == 4]  # type: ignore[union-attr]
    bytes_ = [frame_bytes(frame) for frame in data]
    assert len(bytes_) == 1
    assert len(bytes_[0]) == 14 + 48 + 60
    assert bytes_[0][42:46] == b"\x04\0\0\0"
    assert bytes_[0][50:58] == bytes(8)  # the first message of its session
    inner = data[0].body.inner  # type: ignore[union-attr]
    assert inner is not None
    plain = frame_bytes(Frame("0a:00:00:00:00:01", "0a:00:00:00:00:02", inner.body))[14:]
    assert plain[12:20] not in bytes_[0]  # its addresses
    kinds = [(frame.body.message.type, len(frame_bytes(frame)) - 42) for frame in frames]  # type: ignore[union-attr]
    assert kinds == [(1, 148), (4, 80)]


def test_the_headers_of_a_sealed_packet() -> None:
    (packet,) = outer(ask(Walk(three()), "node-1", "10.9.2.1", ICMP).request)
    shown = [(header.name, header.depth) for header in headers(Frame("a", "b", packet))]
    assert shown == [
        ("Ethernet", 0), ("IPv4", 0), ("UDP", 0), ("WireGuard", 0), ("IPv4", 1), ("ICMP", 1),
    ]  # fmt: skip
