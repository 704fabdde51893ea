"""The pod network carries packets: on a node, across nodes, to the outside, through a host port."""

from __future__ import annotations

from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.runtime import CONF_DIR, FLANNEL_CONFLIST
from kubenet_lab.control import kubelet, machine
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Container, ContainerPort, Node, ObjectMeta, Pod, PodSpec, default_nodes
from kubenet_lab.packet.packet import ICMP, TCP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

CONFLIST = CONF_DIR + "/10-flannel.conflist"


def pod(name: str, node: str = "node-1", *, port: int = 8080, host_port: int = 0) -> Pod:
    """A pod with one container that declares one port."""
    ports = (ContainerPort(container_port=port, host_port=host_port, protocol="TCP"),)
    spec = PodSpec(node_name=node, containers=(Container(name="main", ports=ports),))
    return Pod(metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"), spec=spec)


def cluster(count: int = 3, conflist: str = FLANNEL_CONFLIST) -> tuple[Network, dict[str, Node]]:
    """Nodes with Flannel, as after its DaemonSet ran."""
    network = Network()
    nodes = {n.name: n.with_pod_cidrs((f"10.244.{i}.0/24",)) for i, n in enumerate(default_nodes(count))}
    for node in nodes.values():
        machine.build_node(network, node.name, f"{node.internal_ips[0]}/24")
        if conflist:
            network.ns(node.name).files[CONFLIST] = conflist
    agents = [Agent(network, name) for name in nodes]
    for _ in range(2):
        for agent in agents:
            nodes |= {node.name: node for node in agent.reconcile(nodes.values())}
    return network, nodes


def test_pods_reach_each_other_and_the_outside() -> None:
    """Same node, across nodes, and outside, where the server sees the node's address."""
    network, nodes = cluster()
    for name, node in (("a", "node-1"), ("b", "node-1"), ("c", "node-2")):
        assert kubelet.start_pod(network, pod(name, node), nodes[node]).ok
    for target in ("10.244.0.3", "10.244.1.2"):
        ping = Packet(src="", dst=target, proto=ICMP, icmp_type=8, icmp_id=1, icmp_seq=1)
        assert exchange(Walk(network), "default/a", ping).verdict == "answered", target
    call = exchange(
        Walk(network), "default/a", Packet(src="", dst=machine.OUTSIDE_ADDRESS, proto=TCP, dport=80, flags=2)
    )
    assert (call.verdict, call.source_seen) == ("connected", "192.168.1.10")
    api = exchange(
        Walk(network), "default/a", Packet(src="", dst="192.168.1.1", proto=TCP, dport=6443, flags=2)
    )
    assert api.verdict == "connected"


def test_a_host_port_leads_to_the_pod() -> None:
    """`hostPort` is portmap's DNAT, seen from another node."""
    network, nodes = cluster()
    assert kubelet.start_pod(network, pod("web", host_port=80), nodes["node-1"]).ok
    call = exchange(Walk(network), "node-2", Packet(src="", dst="192.168.1.10", proto=TCP, dport=80, flags=2))
    assert (call.verdict, call.server_ns) == ("connected", "default/web")


def test_the_tunnel_crosses_a_router() -> None:
    """A node in another subnet is reached by the default route, its pods by VXLAN."""
    network, nodes = cluster(25)
    for name, node in (("a", "node-1"), ("far", "node-25")):
        assert kubelet.start_pod(network, pod(name, node), nodes[node]).ok
    ping = Packet(src="", dst="10.244.24.2", proto=ICMP, icmp_type=8, icmp_id=1, icmp_seq=1)
    assert exchange(Walk(network), "default/a", ping).verdict == "answered"
