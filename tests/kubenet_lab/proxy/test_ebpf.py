"""kube-proxy's replacement: what it writes into the maps, and what the programs make of packets."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.kernel.bpf import BpfState, LbKey
from kubenet_lab.kernel.dialects import cilium
from kubenet_lab.kernel.network import Network
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Service
from kubenet_lab.packet.packet import SYN, TCP, UDP, Frame, Packet
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.ebpf import EbpfOptions, ProxyEbpf, cleanup
from kubenet_lab.proxy.services import ServiceTracker
from kubenet_lab.scenarios.shop import MANIFEST, shop
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import Exchange, exchange
from tests.flows.services_worlds import DUAL_CIDRS, DUAL_NODES, by_hand, dual_services


def tracker_of(text: str) -> ServiceTracker:
    tracker = ServiceTracker()
    objects = load(text)
    tracker.update(
        [one for one in objects if isinstance(one, Service)],
        [one for one in objects if isinstance(one, EndpointSlice)],
    )
    return tracker


def with_options(options: EbpfOptions) -> Network:
    """The hand-made world (routes between nodes, no tunnel) with other settings of the agent."""
    net = by_hand("ebpf")
    tracker = tracker_of(dual_services())
    for name, (four, six, _number) in DUAL_NODES.items():
        node = ProxyNode(name, (four, six), (), "", ())
        proxy = ProxyEbpf(node, KubeProxyConfig(cluster_cidrs=DUAL_CIDRS[0]), options)
        proxy.start(net.ns(name), tracker)
    return net


@cache
def world(mode: str = "snat", algorithm: str = "random", no_backend: str = "reject") -> Network:
    return with_options(EbpfOptions(mode=mode, algorithm=algorithm, no_backend=no_backend))


def state(net: Network, node: str) -> BpfState:
    found = net.ns(node).bpf
    assert found is not None
    return found


def syn(dst: str, port: int, src: str = "", sport: int = 0) -> Packet:
    return Packet(src, dst, TCP, sport, port, flags=SYN, mss=1460)


def call(
    net: Network, src: str, dst: str, port: int, *, sport: int = 0, seed: int = 1, now: float = 0
) -> Exchange:
    return exchange(Walk(net, seed=seed, now=now), src, syn(dst, port, sport=sport))


def steps(met: Exchange) -> str:
    return "\n".join(trace.text() for trace in met.traces)


# -- maps -------------------------------------------------------------------------------------------------------------


def test_what_the_agent_writes_for_a_node_port() -> None:
    text = cilium.lb_list(state(world(), "node-1"))
    lines = [line for line in text.splitlines() if ":30807/" in line]
    assert [line.split()[0] + " " + line.split()[1] for line in lines] == [
        # Outside callers are for this node's web-1 alone (scope external), pods for both (scope internal).
        "0.0.0.0:30807/TCP (0)",
        "0.0.0.0:30807/TCP (1)",
        "0.0.0.0:30807/TCP/i (0)",
        "0.0.0.0:30807/TCP/i (1)",
        "0.0.0.0:30807/TCP/i (2)",
        "192.168.1.10:30807/TCP (0)",
        "192.168.1.10:30807/TCP (1)",
        "192.168.1.10:30807/TCP/i (0)",
        "192.168.1.10:30807/TCP/i (1)",
        "192.168.1.10:30807/TCP/i (2)",
        "[::]:30807/TCP (0)",
        "[::]:30807/TCP (1)",
        "[::]:30807/TCP/i (0)",
        "[::]:30807/TCP/i (1)",
        "[::]:30807/TCP/i (2)",
        "[fd00:1::10]:30807/TCP (0)",
        "[fd00:1::10]:30807/TCP (1)",
        "[fd00:1::10]:30807/TCP/i (0)",
        "[fd00:1::10]:30807/TCP/i (1)",
        "[fd00:1::10]:30807/TCP/i (2)",
    ]
    assert "[NodePort, Local, two-scopes]" in lines[5]
    assert "[NodePort, Local, two-scopes, non-routable]" in lines[0]


def test_sctp_services_are_left_out_unless_switched_on() -> None:
    key = LbKey("10.96.8.1", 9000, 132)
    assert key not in state(world(), "node-1").maps(4).services
    on = with_options(EbpfOptions(sctp=True))
    assert state(on, "node-1").maps(4).services[key].count == 2


def test_following_changes_leaves_what_a_fresh_start_writes() -> None:
    """Endpoints that come and go, a Service that is deleted: the maps are as if written anew, but for numbers."""
    cluster = Cluster.from_files(MANIFEST, proxy="ebpf")
    node = cluster.network.ns("node-2")
    before = cilium.service_list(state(cluster.network, "node-2"))
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: more}\n"
        "spec: {selector: {app: backend}, type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30123}]}\n"
    )
    assert "30123" in cilium.service_list(state(cluster.network, "node-2")) != before
    cluster.delete("Pod", cluster.pod("backend").name)
    cluster.delete("Service", "more")
    cluster.advance(60)
    followed = state(cluster.network, "node-2")
    again = ProxyEbpf(ProxyNode("node-2", ("192.168.1.20",), ("10.244.1.0/24",)), KubeProxyConfig())
    tracker = ServiceTracker()
    tracker.update(cluster.store.list(Service), cluster.store.list(EndpointSlice))
    node.bpf = None
    again.start(node, tracker)
    written = node.bpf
    assert written is not None
    assert shape(followed) == shape(written)


def shape(one: BpfState) -> list[tuple[object, ...]]:
    """Frontends with their backends' addresses, numbers left out."""
    out: list[tuple[object, ...]] = []
    for family in (4, 6):
        maps = one.maps(family)
        used = set()
        for key, value in maps.services.items():
            backend = maps.backends.get(value.backend)
            used.add(value.backend)
            out.append((str(key), value.count, value.flag_text, str(backend)))
            assert value.rev_nat in maps.rev_nat
        assert used - {0} == set(maps.backends)
    return sorted(out, key=str)


def test_a_cleanup_leaves_no_trace() -> None:
    net = with_options(EbpfOptions())
    cleanup(net.ns("node-1"))
    assert net.ns("node-1").bpf is None
    assert "bpf" not in steps(call(net, "default/client-1", "10.244.0.3", 8080))


# -- the socket -------------------------------------------------------------------------------------------------------


def test_the_wire_carries_the_backend_and_getpeername_the_service() -> None:
    net = with_options(EbpfOptions())
    met = call(net, "default/client-1", "10.96.8.2", 80)
    assert met.verdict == "connected"
    assert met.request.packet.dst == "10.244.1.4"
    (peer,) = state(net, "node-1").maps(4).reverse_sk.items()
    assert str(peer[0]) == f"socket default/client-1:{met.request.packet.sport}/TCP to 10.244.1.4:8080"
    assert str(peer[1]) == "10.96.8.2:80"
    assert "cil_sock4_connect" in steps(met)


def test_a_datagram_seems_to_come_from_the_service() -> None:
    net = with_options(EbpfOptions())
    walk = Walk(net, seed=3)
    asked = Packet("", "10.96.8.1", UDP, 0, 53, payload=b"hello")
    met = exchange(walk, "default/client-1", asked)
    assert met.answer is not None
    assert (met.answer.src, met.answer.sport) == ("10.96.8.1", 53)
    assert "cil_sock4_recvmsg" in steps(met)
    # The same socket keeps its backend.
    again = [
        walk.send(
            "default/client-1", Packet("", "10.96.8.1", UDP, met.request.packet.sport, 53, payload=b"x")
        )
        for _ in range(8)
    ]
    assert {trace.packet.dst for trace in again} == {met.request.packet.dst}


def test_without_backends_connect_says_no_route_to_host() -> None:
    met = call(world(), "default/client-1", "10.96.8.3", 80)
    assert (met.verdict, met.errno, met.reason) == ("unreachable", "EHOSTUNREACH", "bpf-no-backend")
    assert "cilium_lb4_services_v2[10.96.8.3:80/TCP (0)]" in str(met.decided_by)


def test_sockets_of_the_host_alone() -> None:
    """--bpf-lb-sock-hostns-only: a pod's socket is left as it is."""
    net = with_options(EbpfOptions(socket_lb="host-only"))
    assert call(net, "node-1", "10.96.8.2", 80).verdict == "connected"
    assert call(net, "default/client-1", "10.96.8.2", 80).request.packet.dst == "10.96.8.2"


@pytest.mark.parametrize("cni", ["flannel", "cilium"])
@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_back_to_kube_proxy_and_to_bpf_again(cni: str, mode: str) -> None:
    cluster = shop(cni=cni, proxy="ebpf")

    def sockets() -> bool:
        trip = cluster.connect("frontend", "http://backend")
        assert trip.delivered
        return any(step.spot.startswith("cil_sock") for _, _, step in trip.steps())

    assert sockets()
    cluster.stop_kube_proxy()
    assert sockets(), "programs stay when the agent ends"
    cluster.start_kube_proxy(mode=mode)
    cluster.settle()
    assert not sockets()
    cluster.start_kube_proxy(mode="ebpf")
    cluster.settle()
    assert sockets()


def test_affinity_is_a_namespace_s_and_times_out() -> None:
    net = with_options(EbpfOptions())
    first = call(net, "default/client-3", "10.96.8.5", 80).request.packet.dst
    for seed in range(12):
        assert call(net, "default/client-3", "10.96.8.5", 80, seed=seed, now=10).request.packet.dst == first
    late = {call(net, "default/client-3", "10.96.8.5", 80, seed=s, now=20_000 * (s + 1)).request.packet.dst
            for s in range(12)}  # fmt: skip
    assert len(late) == 2


# -- packets from outside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "seen"), [("snat", "192.168.1.30"), ("dsr", "203.0.113.10"), ("hybrid", "203.0.113.10")]
)
def test_a_backend_elsewhere_sees_the_node_or_by_dsr_the_client(mode: str, seen: str) -> None:
    met = call(world(mode), "outside", "192.168.1.30", 30806)
    assert (met.verdict, met.source_seen) == ("connected", seen), steps(met)
    assert met.answer is not None
    assert (met.answer.src, met.answer.sport) == ("192.168.1.30", 30806)
    reply = next(trace for trace in met.traces if trace.role == "reply")
    assert ("node-3" in {hop.netns for hop in reply.hops}) == (mode == "snat")


def test_dsr_in_ipv6_and_for_datagrams_in_hybrid_mode() -> None:
    six = call(world("dsr"), "outside", "fd00:1::30", 30806)
    assert (six.verdict, six.source_seen) == ("connected", "2001:db8:1::10"), steps(six)
    assert "option DSR [fd00:1::30]:30806" in steps(six)


def test_dsr_needs_room_in_the_packet() -> None:
    """The option makes a packet longer: 8 bytes in IPv4, 24 in IPv6, 12 in the header of Geneve."""
    from kubenet_lab.packet.packet import DsrOption

    for src, more in (("10.0.0.1", 8), ("fd00::1", 24)):
        plain = Packet(src, src, TCP)
        assert plain.replace(dsr=DsrOption(src, 80)).length == plain.length + more
    frame = Frame("02:00:00:00:00:01", "02:00:00:00:00:02", Packet("10.0.0.1", "10.0.0.2", TCP))
    outer = Packet("10.0.0.1", "10.0.0.2", UDP, 40000, 6081, inner=frame, vni=2)
    assert outer.replace(dsr=DsrOption("10.0.0.1", 80)).length == outer.length + 12


def test_without_an_answer_for_services_nobody_serves() -> None:
    assert call(world(no_backend="drop"), "outside", "192.168.1.10", 30813).verdict == "timed out"
    met = call(world(), "outside", "192.168.1.10", 30813)
    assert met.verdict == "refused"
    assert met.answer is not None
    assert met.answer.src == "192.168.1.10"


def test_a_client_outside_all_source_ranges_is_dropped() -> None:
    met = call(world(), "outside", "198.51.100.11", 80)
    assert (met.verdict, met.reason) == ("timed out", "bpf-source-range")
    assert call(world(), "outside", "198.51.100.10", 80).verdict == "connected"


def test_cluster_ips_are_not_for_the_world_unless_asked() -> None:
    closed, opened = with_options(EbpfOptions()), with_options(EbpfOptions(external_cluster_ip=True))
    for net, verdict in ((closed, "timed out"), (opened, "connected")):
        net.ns("router").add_route("10.96.0.0/16", via="192.168.1.10", dev="eth0")
        assert call(net, "outside", "10.96.8.1", 80).verdict == verdict


def test_maglev_gives_one_flow_the_same_backend_at_every_node() -> None:
    net = world(algorithm="maglev")
    chosen: dict[str, list[str]] = {}
    for node in ("192.168.1.10", "192.168.1.30"):
        for port in range(40_000, 40_040):
            met = call(net, "outside", node, 30806, sport=port)
            chosen.setdefault(node, []).append(met.server_ns)
    # Frontends differ by address, not by port and client: the hash is of client, ports and protocol.
    assert chosen["192.168.1.10"] == chosen["192.168.1.30"]
    assert len(set(chosen["192.168.1.10"])) == 2


def test_affinity_by_maglev_is_the_client_s() -> None:
    net = with_options(EbpfOptions(algorithm="maglev"))
    for name, (four, six, _number) in DUAL_NODES.items():
        tracker = tracker_of(
            dual_services().replace("type: NodePort", "type: NodePort, sessionAffinity: ClientIP")
        )
        ProxyEbpf(ProxyNode(name, (four, six)), KubeProxyConfig(), EbpfOptions(algorithm="maglev")).start(
            net.ns(name), tracker
        )
    servers = {
        call(net, "outside", "192.168.1.30", 30806, sport=port).server_ns for port in range(40_000, 40_020)
    }
    assert len(servers) == 1


def test_a_connection_keeps_its_backend_when_others_come() -> None:
    """The SVC entry of the connection table decides after the first packet."""
    net = with_options(EbpfOptions())
    walk = Walk(net, seed=5)
    first = walk.send("outside", syn("192.168.1.30", 30806, sport=41_000)).delivered_as
    assert first is not None
    later = [walk.send("outside", syn("192.168.1.30", 30806, sport=41_000)).delivered_as for _ in range(10)]
    assert {packet.dst for packet in later if packet is not None} == {first.dst}


def test_two_clients_with_one_port_get_two_ports_of_the_node() -> None:
    net = with_options(EbpfOptions())
    walk = Walk(net, seed=2)
    seen = Counter()
    net.ns("outside").add_address("eth0", "203.0.113.11/24")
    for src in ("203.0.113.10", "203.0.113.11"):
        trace = walk.send("outside", syn("192.168.1.30", 30806, src=src, sport=40_000))
        assert trace.delivered_as is not None
        seen[trace.delivered_as.src, trace.delivered_as.dst, trace.delivered_as.sport] += 1
    assert max(seen.values()) == 1


# -- cost -------------------------------------------------------------------------------------------------------------


def test_what_a_packet_costs_does_not_grow_with_the_number_of_services() -> None:
    tried = {}
    for count in (10, 300):
        text = dual_services() + "".join(
            f"apiVersion: v1\nkind: Service\nmetadata: {{name: many-{n}}}\n"
            f"spec: {{clusterIP: 10.96.{20 + n // 200}.{n % 200 + 1}, ports: [{{port: 80}}]}}\n---\n"
            for n in range(count)
        )
        net = by_hand("ebpf")
        proxy = ProxyEbpf(ProxyNode("node-1", ("192.168.1.10",)), KubeProxyConfig())
        proxy.start(net.ns("node-1"), tracker_of(text))
        tried[count] = [
            call(net, "default/client-1", "10.96.8.2", 80).request.rules_tried,
            call(net, "outside", "192.168.1.10", 30806, seed=1).request.rules_tried,
        ]
    assert tried[10] == tried[300]
    assert all(0 < n < 30 for n in tried[10])
