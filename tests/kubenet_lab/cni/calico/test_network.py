"""Calico's daemons in a running cluster: what pods, nodes, pools, peers and policies change, and when."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.bgp.birdc import show_protocols
from kubenet_lab.cni.calico.felix import wanted_chains
from kubenet_lab.cni.calico.graph import World
from kubenet_lab.cni.calico.names import interface
from kubenet_lab.cni.calico.network import Calico
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dump import dump
from kubenet_lab.objects.node import Node
from kubenet_lab.packet.packet import Packet
from kubenet_lab.packet.wire import packet_bytes, read_packet
from kubenet_lab.trip import Trip

API = "apiVersion: projectcalico.org/v3\n"
DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec: {podSelector: {matchLabels: {app: backend}}, policyTypes: [Ingress]}
"""


def calico(cluster: Cluster) -> Calico:
    network = cluster.pod_network
    assert isinstance(network, Calico)
    return network


def bird_routes(cluster: Cluster, node: str) -> dict[str, str]:
    """Prefix -> gateway of what BIRD wrote, without the node's own block."""
    table = cluster.network.ns(node).route_list(4)
    return {r.dst: r.via for r in table if r.proto == "bird" and r.type == "unicast"}


def pool(**spec: Any) -> str:
    body = {"cidr": "10.244.0.0/16", "natOutgoing": "true"} | spec
    lines = "".join(f"  {key}: {value}\n" for key, value in body.items())
    return f"{API}kind: IPPool\nmetadata: {{name: p}}\nspec:\n{lines}"


def pods(count: int, node: str = "node-1") -> str:
    return "".join(
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{n}, namespace: default}}\nspec:\n  nodeName: {node}\n"
        "  containers: [{name: c, image: x, ports: [{containerPort: 80}]}]\n"
        for n in range(count)
    )


def rules(state: dict[str, Any]) -> list[str]:
    """All chains and rules, without counters and order."""
    return sorted(re.sub(r"\[\d+:\d+\]", "", line) for lines in state["iptables"].values() for line in lines)


def wrapped_by(trip: Trip) -> list[Packet]:
    """What tunnels made of the request's first packet."""
    steps = (step for _, _, step in trip.steps() if step.kind == "encapsulate")
    return [step.after for step in steps if isinstance(step.after, Packet)]


def block_of(cluster: Cluster, node: str) -> str:
    (block,) = calico(cluster).ipam.blocks_of(node)
    return block


# -- pods --------------------------------------------------------------------------------------------------------------


def test_a_pod_has_a_pair_a_gateway_that_nobody_has_and_a_host_route() -> None:
    cluster = scenarios.shop(cni="calico")
    pod = cluster.pod("frontend")
    node = cluster.network.ns(pod.spec.node_name)
    inside = cluster.network.ns("default/frontend")
    name = interface("default", "frontend")
    (address,) = pod.ips
    assert [str(r) for r in inside.route_list(4)] == [
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1/32 dev eth0",
    ]
    assert [f"{a.local}/{a.length}" for a in inside.addrs("eth0", 4)] == [f"{address}/32"]
    assert node.link(name).mac == "ee:ee:ee:ee:ee:ee"
    assert not any(link.kind == "bridge" for link in node.links.values())
    assert node.sysctl(f"net.ipv4.conf.{name}.proxy_arp") == "1"
    assert node.sysctl(f"net.ipv4.conf.{name}.rp_filter") == "1"
    assert f"{address}/32 dev {name} metric 1024" in [str(r) for r in node.route_list(4)]


def test_a_deleted_pod_leaves_nothing() -> None:
    cluster = scenarios.shop(cni="calico")
    cluster.advance(5)
    before = dump(cluster.network)
    cluster.apply(pods(1))
    assert interface("default", "p0") in cluster.network.ns("node-1").links
    cluster.delete("Pod", "p0")
    cluster.advance(60)
    for node in ("node-1", "node-2"):
        was, now = (
            next(n for n in d["namespaces"] if n["name"] == node) for d in (before, dump(cluster.network))
        )
        assert {part for part in was if was[part] != now[part]} <= {"iptables", "neighbours"}
        assert rules(was) == rules(now)


def test_an_exhausted_pool_leaves_the_pod_without_a_sandbox() -> None:
    cluster = Cluster.from_files(pool(cidr="10.244.0.0/30", blockSize="30") + pods(5), cni="calico")
    waiting = [pod for pod in cluster.store.list("Pod", "default") if not pod.ips]
    assert len(waiting) == 1
    (told,) = {event.message for name, event in cluster.events if name.endswith(waiting[0].name)}
    assert "No IPs available in pools: [10.244.0.0/30]" in told


def test_a_borrowed_address_is_announced_by_itself() -> None:
    text = (
        pool(cidr="10.244.0.0/29", blockSize="29") + pods(1) + pods(2, "node-2").replace("name: p", "name: q")
    )
    cluster = Cluster.from_files(text, cni="calico")
    cluster.advance(5)
    addresses = {pod.name: pod.ips[0] for pod in cluster.store.list("Pod", "default")}
    for node in cluster.store.list(Node):
        for name, address in addresses.items():
            at = cluster.pod(name).spec.node_name
            route = cluster.network.ns(node.name).lookup(address)
            assert route is not None
            assert route.via == ("" if node.name == at else cluster.store.get("Node", at).internal_ips[0])
    assert cluster.connect("p0", f"tcp://{addresses['q0']}:80").verdict == "connected"
    assert cluster.connect("q1", f"tcp://{addresses['p0']}:80").verdict == "connected"


# -- nodes and BGP -----------------------------------------------------------------------------------------------------


def test_every_node_has_a_route_to_every_others_block() -> None:
    cluster = scenarios.shop(cni="calico")
    for node, others in (("node-1", ("node-2", "node-3")), ("node-3", ("node-1", "node-2"))):
        wished = {block_of(cluster, o): cluster.store.get("Node", o).internal_ips[0] for o in others}
        assert bird_routes(cluster, node) == wished
    assert show_protocols(calico(cluster).bird("node-1")).count("Established") == 2


def test_a_node_that_goes_takes_its_routes_along() -> None:
    cluster = scenarios.shop(cni="calico")
    gone = block_of(cluster, "node-3")
    cluster.delete("Node", "node-3")
    cluster.advance(300)
    assert gone not in bird_routes(cluster, "node-1")
    assert list(calico(cluster).fabric.daemons) == ["node-1", "node-2"]


def test_a_node_that_comes_is_heard_of_within_seconds() -> None:
    cluster = scenarios.shop(cni="calico")
    cluster.apply(
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-4}\n"
        "status: {addresses: [{type: InternalIP, address: 192.168.1.40}]}\n"
    )
    cluster.apply(pods(1, "node-4"))
    cluster.advance(30)
    assert bird_routes(cluster, "node-1")[block_of(cluster, "node-4")] == "192.168.1.40"
    assert cluster.connect("frontend", f"tcp://{cluster.pod('p0').ips[0]}:80").verdict == "connected"


def test_without_mesh_and_peers_no_node_knows_anothers_pods() -> None:
    cluster = scenarios.shop(cni="calico")
    cluster.apply(
        f"{API}kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false}}\n"
    )
    cluster.advance(5)
    assert bird_routes(cluster, "node-1") == {}
    cluster.apply(
        f"{API}kind: BGPPeer\nmetadata: {{name: x}}\nspec: {{node: node-1, peerIP: 192.168.1.20, asNumber: 64512}}\n"
    )
    cluster.advance(30)
    assert list(bird_routes(cluster, "node-1")) in ([], [block_of(cluster, "node-2")])


def test_a_world_that_is_set_back_goes_on() -> None:
    cluster = scenarios.shop(cni="calico")

    def fail() -> None:
        with cluster.transaction():
            cluster.apply(DENY)
            raise InputError([])

    with pytest.raises(InputError):
        fail()
    cluster.advance(60)
    assert len(bird_routes(cluster, "node-1")) == 2
    assert cluster.connect("frontend", "http://backend").verdict == "connected"


# -- encapsulation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cni", "mtu"), [("calico", 1500), ("calico-ipip", 1480), ("calico-vxlan", 1450)])
def test_the_pods_mtu_leaves_room(cni: str, mtu: int) -> None:
    cluster = scenarios.shop(cni=cni)
    assert cluster.network.ns("default/frontend").link("eth0").mtu == mtu


def test_ipip_wraps_the_packet() -> None:
    cluster = scenarios.shop(cni="calico-ipip")
    far = next(p for p in cluster.store.list("Pod", "default") if p.spec.node_name == "node-2")
    trip = cluster.connect("frontend", f"tcp://{far.ips[0]}:8080")
    assert trip.verdict == "connected"
    assert str(wrapped_by(trip)[0]).startswith("192.168.1.10 > 192.168.1.20 IPIP [")
    node = cluster.network.ns("node-1")
    assert (node.link("tunl0").kind, node.link("tunl0").mtu) == ("ipip", 1480)
    route = next(r for r in node.route_list(4) if r.dst == block_of(cluster, "node-2"))
    assert (route.dev, route.via, route.onlink) == ("tunl0", "192.168.1.20", True)


def test_ipip_on_the_wire() -> None:
    cluster = scenarios.shop(cni="calico-ipip")
    far = next(p for p in cluster.store.list("Pod", "default") if p.spec.node_name == "node-2")
    trip = cluster.connect("frontend", f"tcp://{far.ips[0]}:8080")
    outer = wrapped_by(trip)[0]
    data = packet_bytes(outer)
    assert (data[9], len(data)) == (4, outer.length)
    again = read_packet(data)
    assert again.inner is not None
    assert packet_bytes(again) == data


def test_vxlan_speaks_no_bgp() -> None:
    cluster = scenarios.shop(cni="calico-vxlan")
    network = calico(cluster)
    assert not network.fabric.daemons
    node = cluster.network.ns("node-1")
    assert node.link("vxlan.calico").vxlan.vni == 4096  # type: ignore[union-attr]
    routes = {r.dst: r for r in node.route_list(4)}
    route = routes[block_of(cluster, "node-2")]
    assert (route.dev, route.onlink) == ("vxlan.calico", True)
    assert routes[block_of(cluster, "node-1")].type == "blackhole"
    (vtep,) = cluster.network.ns("node-2").addrs("vxlan.calico", 4)
    assert (route.via, vtep.length) == (vtep.local, 32)


@pytest.mark.parametrize("mode", ["ipipMode", "vxlanMode"])
def test_cross_subnet_tunnels_only_between_networks(mode: str) -> None:
    cluster = Cluster.from_files(
        pool(**{mode: "CrossSubnet"}) + pods(1) + pods(1, "node-2").replace("p0", "q0"), cni="calico"
    )
    cluster.advance(5)
    route = next(
        r for r in cluster.network.ns("node-1").route_list(4) if r.dst == block_of(cluster, "node-2")
    )
    assert (route.dev, route.via) == ("eth0", "192.168.1.20")
    assert cluster.connect("p0", f"tcp://{cluster.pod('q0').ips[0]}:80").verdict == "connected"


# -- policies ----------------------------------------------------------------------------------------------------------


def test_a_policy_is_programmed_when_it_is_applied() -> None:
    cluster = scenarios.shop(cni="calico")
    before = sorted(cluster.node("node-1").iptables_save().splitlines())
    assert cluster.connect("frontend", "http://backend").verdict == "connected"
    cluster.apply(DENY)
    trip = cluster.connect("frontend", "http://backend")
    assert (trip.verdict, trip.reason) == ("timed out", "rule-drop")
    cluster.delete("NetworkPolicy", "deny")
    assert cluster.connect("frontend", "http://backend").verdict == "connected"
    after = sorted(cluster.node("node-1").iptables_save().splitlines())
    assert after == before, "but for the jumps, which Felix puts first again whenever it writes"


def test_calicos_own_policies() -> None:
    cluster = scenarios.shop(cni="calico")
    cluster.apply(
        f"{API}kind: GlobalNetworkPolicy\nmetadata: {{name: no-database}}\nspec:\n  selector: app == 'database'\n"
        "  types: [Ingress]\n  ingress:\n  - {action: Deny, source: {selector: app == 'frontend'}}\n"
        "  - {action: Allow}\n"
    )
    assert cluster.connect("frontend", "tcp://10.96.0.200:5432").verdict == "timed out"
    assert cluster.connect("backend", "tcp://10.96.0.200:5432").verdict == "connected"


def test_rules_of_a_node_are_a_function_of_objects() -> None:
    """What anybody can compute without a cluster is what the running one has."""
    cluster = scenarios.shop(cni="calico")
    cluster.apply(DENY)
    network = calico(cluster)
    for name, felix in network.felix.items():
        picture = World(network.objects()).picture(name)
        assert felix.wanted is not None
        made = wanted_chains(picture, felix.wanted.config, 4, nat=True)
        there = cluster.network.ns(name).iptables[4].tables["filter"].chains
        ours = {name for name in there if name.startswith("cali-")}
        assert ours
        assert ours <= {chain.name for chain in made["filter"]}


def test_what_is_not_modelled_is_refused() -> None:
    cluster = scenarios.shop(cni="calico")
    with pytest.raises(InputError, match=r"the eBPF data plane\) is not modelled"):
        cluster.apply(
            f"{API}kind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {{bpfEnabled: true}}\n"
        )
    assert cluster.connect("frontend", "http://backend").verdict == "connected"


def test_both_families() -> None:
    """IPv6 blocks of 64 addresses by IPv6 sessions; the pod's gateway is its host's link-local address."""
    cluster = scenarios.shop(cni="calico", dual_stack=True)
    pod, node = cluster.network.ns("default/frontend"), cluster.network.ns("node-1")
    six = next(ip for ip in cluster.pod("frontend").ips if ":" in ip)
    assert [f"{a.local}/{a.length}" for a in pod.addrs("eth0", 6) if a.scope == "global"] == [f"{six}/128"]
    (way,) = [r for r in pod.route_list(6) if r.dst == "::/0"]
    host = pod.link("eth0").peer
    assert host is not None
    assert way.via == "fe80::ecee:eeff:feee:eeee", "of ee:ee:ee:ee:ee:ee"
    assert node.is_local(way.via)
    assert node.sysctl(f"net.ipv6.conf.{host.link}.forwarding") == "1"
    own = [(r.type, r.dst.rpartition("/")[2]) for r in node.route_list(6) if r.proto == "bird"]
    assert sorted(own) == [("blackhole", "122"), ("unicast", "122"), ("unicast", "122")]
    learned = {r.via for r in node.route_list(6) if r.proto == "bird" and r.via}
    assert learned == {"fd00:192:168:1::20", "fd00:192:168:1::30"}
    notes = cluster.store.get(Node, "node-1").metadata.annotations
    assert notes["projectcalico.org/IPv6Address"] == "fd00:192:168:1::10/64"
    with cluster.fault("bgp-session-lost", node="node-1", peer="fd00:192:168:1::20"):
        cluster.advance(600)
        kept = {r.via for r in node.route_list(6) if r.proto == "bird" and r.via}
        assert kept == {"fd00:192:168:1::30"}
        four = {r.via for r in node.route_list(4) if r.proto == "bird" and r.via}
        assert four == {"192.168.1.20", "192.168.1.30"}, "IPv4's sessions go on"


def test_rules_follow_pools_that_change_before_anybody_looks_again() -> None:
    """kube-proxy may have put its rules off anew when Felix changes its own; a world set back is looked at twice."""
    from kubenet_lab.kernel.dialects import iptables

    cluster = scenarios.shop(cni="calico")
    node = cluster.network.ns("node-1")

    def masquerades() -> bool:
        return "-A cali-nat-outgoing" in iptables.save(node.iptables[4])

    cluster.apply(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: default-ipv4-ippool}\n"
        "spec: {cidr: 10.244.0.0/16, natOutgoing: false}\n"
    )
    kept = node.snapshot()
    assert not masquerades()
    node.restore(kept)
    assert not masquerades()
    cluster.apply(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: default-ipv4-ippool}\n"
        "spec: {cidr: 10.244.0.0/16, natOutgoing: true}\n"
    )
    assert masquerades()


def test_vxlan_for_both_families() -> None:
    """vxlan-v6.calico beside vxlan.calico: 20 bytes more around each packet, and nobody speaks BGP."""
    cluster = scenarios.shop(cni="calico-vxlan", dual_stack=True)
    node = cluster.network.ns("node-1")
    notes = cluster.store.get(Node, "node-1").metadata.annotations
    assert node.link("vxlan-v6.calico").mtu == node.link("vxlan.calico").mtu - 20 == 1430
    assert cluster.network.ns("default/frontend").link("eth0").mtu == 1430
    assert [a.local for a in node.addrs("vxlan-v6.calico", 6) if a.scope == "global"] == [
        notes["projectcalico.org/IPv6VXLANTunnelAddr"]
    ]
    assert node.link("vxlan-v6.calico").mac == notes["projectcalico.org/VXLANTunnelMACAddrV6"]
    ways = {r.via for r in node.route_list(6) if r.dev == "vxlan-v6.calico" and r.via}
    other = [cluster.store.get(Node, name).metadata.annotations for name in ("node-2", "node-3")]
    assert ways == {found["projectcalico.org/IPv6VXLANTunnelAddr"] for found in other}
    assert not isinstance(cluster.pod_network, Calico) or not cluster.pod_network.fabric.daemons
    trip = cluster.ping("frontend", next(ip for ip in backend(cluster).ips if ":" in ip), size=1430 - 48)
    assert trip.delivered, trip.text()
    cluster.delete("Node", "node-2")
    assert {r.via for r in node.route_list(6) if r.dev == "vxlan-v6.calico" and r.via} == {
        other[1]["projectcalico.org/IPv6VXLANTunnelAddr"]
    }


def backend(cluster: Cluster) -> Any:
    return next(
        pod
        for pod in cluster.store.list("Pod", "default")
        if pod.name.startswith("backend") and pod.spec.node_name == "node-2"
    )
