"""Packets through IPVS: a client, a director with a virtual server, two real servers behind it."""

from __future__ import annotations

from kubenet_lab.kernel.dialects import ipvsadm
from kubenet_lab.kernel.dialects.iptables import load
from kubenet_lab.kernel.ipvs import ConnRecord, RealServer, VirtualServer
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import ACK, SYN, TCP, UDP, Packet
from kubenet_lab.trace import Trace
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import Exchange, exchange

VIP, KEY = "10.96.0.100", (TCP, "10.96.0.100", 80)
UKEY = (UDP, VIP, 53)
SERVICES = """\
-A -t 10.96.0.100:80 -s rr
-a -t 10.96.0.100:80 -r 10.2.0.2:8080 -m -w 1
-a -t 10.96.0.100:80 -r 10.1.0.2:8080 -m -w 1
-A -t 10.96.0.100:81 -s rr
-A -u 10.96.0.100:53 -s rr
-a -u 10.96.0.100:53 -r 10.2.0.2:5353 -m -w 1
-a -u 10.96.0.100:53 -r 10.1.0.2:5353 -m -w 1
"""
MASQUERADE = "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -d 10.0.0.0/8 -p tcp -j MASQUERADE\nCOMMIT\n"


def echo(packet: Packet, _now: float) -> Packet:
    return Packet(packet.dst, packet.src, packet.proto)


def world(services: str = SERVICES, *, conntrack: bool = True) -> Network:
    """Three hosts on the director's links: client 10.0.0.2, servers 10.1.0.2 and 10.2.0.2, each behind .1."""
    net = Network()
    director = net.add_netns("director")
    director.set_sysctl("net.ipv4.ip_forward", 1)
    for number, name in enumerate(("client", "server-1", "server-2")):
        host = net.add_netns(name)
        net.add_veth(
            "director",
            f"v{number}",
            name,
            "eth0",
            mac_a=f"0a:00:00:00:00:0{number}",
            mac_b=f"0a:00:00:00:01:0{number}",
        )
        director.set_link(f"v{number}", up=True)
        director.add_address(f"v{number}", f"10.{number}.0.1/24")
        host.set_link("eth0", up=True)
        host.add_address("eth0", f"10.{number}.0.2/24")
        host.add_route("default", via=f"10.{number}.0.1", dev="eth0")
        if number:
            host.listen(Socket(TCP, "0.0.0.0", 8080, "web"))
            host.listen(Socket(UDP, "0.0.0.0", 5353, "dns", handler=echo))
    director.add_link("kube-ipvs0", "dummy", noarp=True)
    director.add_address("kube-ipvs0", f"{VIP}/32")
    director.set_sysctl("net.ipv4.vs.conntrack", int(conntrack))
    director.set_ipvs(ipvsadm.load(services))
    return net


def call(
    net: Network,
    port: int = 80,
    proto: int = TCP,
    *,
    ns: str = "client",
    sport: int = 0,
    walk: Walk | None = None,
) -> Exchange:
    """One call of the virtual server."""
    flags = SYN if proto == TCP else 0
    packet = Packet("", VIP, proto, sport, port, flags=flags, mss=1460 if proto == TCP else 0)
    return exchange(walk or Walk(net), ns, packet)


def steps(trace: Trace, kind: str = "ipvs") -> list[tuple[str, object]]:
    return [(step.spot, step.entry) for _hop, step in trace.steps() if step.kind == kind]


def test_round_robin_and_back() -> None:
    net = world()
    done = [call(net) for _ in range(4)]
    assert [one.verdict for one in done] == ["connected"] * 4
    assert [one.server_ns for one in done] == ["server-1", "server-2"] * 2
    assert {one.source_seen for one in done} == {"10.0.0.2"}
    request, answer = done[0].traces[0], done[0].traces[1]
    (scheduled, virtual), (sent, record) = steps(request)
    assert (scheduled, sent) == ("rr", "request")
    assert virtual == VirtualServer(TCP, VIP, 80)
    assert isinstance(record, ConnRecord)
    assert record.real == ("10.1.0.2", 8080)
    assert [spot for spot, _ in steps(answer)] == ["answer"]
    assert answer.delivered_as is not None
    assert (answer.delivered_as.src, answer.delivered_as.sport) == (VIP, 80)


def test_a_translated_request_leaves_by_output_and_postrouting() -> None:
    net = world()
    trace = call(net).traces[0]
    hop = next(hop for hop in trace.hops if hop.netns == "director")
    assert (hop.indev, hop.outdev) == ("v0", "v1")
    assert trace.delivered_as is not None
    assert trace.delivered_as.ttl == 63, "IPVS forwards: one hop less"


def test_conntrack_lets_rules_masquerade_only_when_told() -> None:
    for told, source in ((True, "10.1.0.1"), (False, "10.0.0.2")):
        net = world(conntrack=told)
        net.ns("director").set_iptables(4, load(MASQUERADE, 4))
        done = call(net)
        assert (done.verdict, done.source_seen) == ("connected", source)


def test_without_a_real_server_the_client_is_refused() -> None:
    net = world()
    done = call(net, 81)
    assert (done.verdict, done.errno) == ("refused", "ECONNREFUSED")
    assert done.traces[0].reason == "ipvs-no-server"
    assert done.traces[0].decided_by == VirtualServer(TCP, VIP, 81)
    assert done.answer is not None
    assert (done.answer.src, done.answer.icmp_type, done.answer.icmp_code) == (VIP, 3, 3)
    for server in list(net.ns("director").ipvs.reals[KEY]):
        net.ns("director").ipvs.edit_server(KEY, RealServer(*server, 0))
    assert call(net).verdict == "refused", "no weight is as good as no server"


def test_what_no_virtual_server_wants_goes_to_the_host() -> None:
    net = world()
    done = call(net, 82)
    assert done.verdict == "refused"
    assert done.traces[0].reason == "no-listener"
    net.ns("director").listen(Socket(TCP, "0.0.0.0", 82, "sshd"))
    assert call(net, 82).server_ns == "director"


def test_the_director_itself_calls() -> None:
    """Its source is the virtual address, until something masquerades."""
    net = world()
    done = call(net, ns="director")
    assert (done.verdict, done.source_seen) == ("connected", VIP)
    assert call(net, 81, ns="director").verdict == "refused"
    assert call(net, 53, UDP, ns="director").verdict == "answered"


def test_persistence_keeps_a_client() -> None:
    net = world(SERVICES.replace("-A -t 10.96.0.100:80 -s rr", "-A -t 10.96.0.100:80 -s rr -p 60"))
    walk = Walk(net)
    assert {call(net, walk=walk).server_ns for _ in range(5)} == {"server-1"}
    table = net.ns("director").ipvs
    assert [conn.client for conn in table.templates.values()] == [("10.0.0.2", 0)]
    walk.now = 2000.0
    assert call(net, walk=walk).server_ns == "server-2", "templates and their connections have expired"


def test_a_terminating_server_gets_no_new_connections_of_a_client_it_knows() -> None:
    net = world(SERVICES.replace("-A -t 10.96.0.100:80 -s rr", "-A -t 10.96.0.100:80 -s rr -p 60"))
    assert call(net).server_ns == "server-1"
    director = net.ns("director")
    director.ipvs.edit_server(KEY, RealServer("10.1.0.2", 8080, 0))
    assert call(net).server_ns == "server-1", "a template leads to it still"
    director.set_sysctl("net.ipv4.vs.expire_quiescent_template", 1)
    assert call(net).server_ns == "server-2"


def test_a_server_that_is_gone() -> None:
    """The first packet of an old UDP connection is lost; with expire_nodest_conn the next one starts anew."""
    for expires, verdicts in ((0, ["timed out", "timed out"]), (1, ["timed out", "answered"])):
        net = world()
        director = net.ns("director")
        director.set_sysctl("net.ipv4.vs.expire_nodest_conn", expires)
        walk = Walk(net)
        assert call(net, 53, UDP, sport=5000, walk=walk).server_ns == "server-1"
        director.ipvs.delete_server(UKEY, ("10.1.0.2", 5353))
        done = [call(net, 53, UDP, sport=5000, walk=walk) for _ in verdicts]
        assert [one.verdict for one in done] == verdicts
        assert done[0].traces[0].reason == "ipvs-server-gone"


def test_a_server_of_every_port_keeps_its_connections() -> None:
    """`-r ADDRESS:0`: the connection's port is the client's, the real server it counts for has none."""
    net = world(f"-A -t {VIP}:0 -s lc -p 300\n-a -t {VIP}:0 -r 10.1.0.2:0 -m -w 1\n")
    key, server = (TCP, VIP, 0), ("10.1.0.2", 0)
    walk = Walk(net)
    assert call(net, 8080, sport=5000, walk=walk).verdict == "connected"
    table = net.ns("director").ipvs
    assert [conn.real for conn in table.by_client.values()] == [("10.1.0.2", 8080)]
    assert sum(table.connections(key, server)) == 2, "the connection and its template"
    assert table.stats[key, server].conns == 1
    trace = walk.send("client", Packet("", VIP, TCP, 5000, 8080, flags=ACK, seq=1, ack=1), role="data")
    assert trace.delivered, trace.text()
    assert set(table.stats) == {(key, server), (key, None)}
    table.delete_server(key, server)
    assert not walk.send(
        "client", Packet("", VIP, TCP, 5000, 8080, flags=ACK, seq=1, ack=1), role="data"
    ).delivered


def test_a_segment_of_no_connection_is_reset() -> None:
    net = world()
    trace = Walk(net).send("client", Packet("", VIP, TCP, 4000, 80, flags=ACK))
    assert trace.reason == "no-listener"
    net.ns("director").set_sysctl("net.ipv4.vs.sloppy_tcp", 1)
    assert Walk(net).send("client", Packet("", VIP, TCP, 4000, 80, flags=ACK)).hops[-1].netns == "server-1"


def test_an_error_about_a_request_comes_from_the_virtual_address() -> None:
    net = world()
    net.ns("server-1").close(net.ns("server-1").sockets[UDP, 5353][0])
    done = call(net, 53, UDP)
    assert done.verdict == "refused"
    assert done.answer is not None
    assert (done.answer.src, done.answer.quoted.dst, done.answer.quoted.dport) == (VIP, VIP, 53)  # type: ignore[union-attr]


def test_ttl_runs_out_at_the_director() -> None:
    net = world()
    trace = Walk(net).send("client", Packet("", VIP, TCP, 0, 80, ttl=1, flags=SYN))
    assert (trace.verdict, trace.reason) == ("rejected", "ttl-exceeded")


def test_direct_routing_leaves_the_packet_as_it_is() -> None:
    """`-g`: the real server has the address itself, and answers past the director."""
    net = world("-A -t 10.96.0.100:80 -s rr\n-a -t 10.96.0.100:80 -r 10.1.0.2:80 -g -w 1\n")
    server = net.ns("server-1")
    server.add_address("lo", f"{VIP}/32")
    server.listen(Socket(TCP, VIP, 80, "web"))
    done = call(net)
    assert (done.verdict, done.server_ns, done.source_seen) == ("timed out", "server-1", "10.0.0.2")
    assert done.traces[1].reason == "martian-source", (
        "the director has that address, too: it cannot be the gateway"
    )
    net.ns("director").set_sysctl("net.ipv4.conf.all.accept_local", 1)
    done = call(net)
    assert done.verdict == "connected"
    assert steps(done.traces[1]) == []
    net.ns("director").set_ipvs(
        ipvsadm.load("-A -t 10.96.0.100:80 -s rr\n-a -t 10.96.0.100:80 -r 10.1.0.2:80 -i -w 1\n")
    )
    assert call(net).traces[0].verdict == "not modelled"


def test_a_virtual_server_by_mark() -> None:
    net = world("-A -f 7 -s rr\n-a -f 7 -r 10.1.0.2:8080 -m -w 1\n")
    rules = (
        "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -d 10.96.0.100/32 -j MARK --set-mark 7\nCOMMIT\n"
    )
    net.ns("director").set_iptables(4, load(rules, 4))
    assert call(net, 4711).server_ns == "server-1"


def test_every_way_can_be_tried() -> None:
    """A caller that chooses decides whose turn it is, as it decides random rules."""
    net = world()
    assert call(net, walk=Walk(net, choose=lambda _what, chance: chance == 1)).server_ns == "server-2"
    assert call(net, walk=Walk(net, choose=lambda _what, _chance: True)).server_ns == "server-2", (
        "rr has moved on"
    )
    assert call(net, walk=Walk(net, choose=lambda _what, _chance: True)).server_ns == "server-1"


def test_one_packet_scheduling_keeps_nothing() -> None:
    net = world(SERVICES.replace("-A -u 10.96.0.100:53 -s rr", "-A -u 10.96.0.100:53 -s rr -o"))
    trace = Walk(net).send("client", Packet("", VIP, UDP, 5000, 53))
    assert trace.delivered
    assert not net.ns("director").ipvs.by_client
