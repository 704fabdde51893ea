"""Flannel in a cluster: its state is made when somebody looks, and is then what daemons that write at once leave."""

from __future__ import annotations

import random

import pytest

from kubenet_lab import Cluster
from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.flannel.config import load
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.late import LateDict
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Container, Node, ObjectMeta, Pod, PodSpec, default_nodes

from .recorded import state

PARTS = ("link", "addr", "route", "route6", "neigh", "fdb")


def eager(cluster: Cluster, backend: str) -> dict[str, dict[str, object]]:
    """What flanneld on every node leaves that reads all Nodes at once."""
    network = Network()
    nodes = {node.name: node for node in cluster.store.list(Node)}
    for node in nodes.values():
        build_node(network, node.name, f"{node.internal_ips[0]}/24")
    conf = load({"Network": "10.244.0.0/16", "Backend": {"Type": backend}})
    agents = [Agent(network, name, conf) for name in nodes]
    for _ in range(3):
        for agent in agents:
            nodes |= {node.name: node for node in agent.reconcile(nodes.values())}
    return {name: {part: state(network.ns(name))[part] for part in PARTS} for name in nodes}


def shown(cluster: Cluster) -> dict[str, dict[str, object]]:
    return {
        node.name: {part: state(cluster.network.ns(node.name))[part] for part in PARTS}
        for node in cluster.store.list(Node)
    }


def waiting(cluster: Cluster) -> set[str]:
    return {ns.name for ns in cluster.network.netns.values() if isinstance(ns.neighbours, LateDict)}


@pytest.mark.parametrize(("cni", "backend"), [("flannel", "vxlan"), ("flannel-host-gw", "host-gw")])
def test_late_state_is_what_eager_daemons_leave(cni: str, backend: str) -> None:
    """Also with nodes behind the router, which host-gw cannot reach."""
    cluster = Cluster(nodes=27, cni=cni)
    assert len(waiting(cluster)) == 27
    assert shown(cluster) == eager(cluster, backend)
    assert waiting(cluster) == set()


@pytest.mark.parametrize("cni", ["flannel", "flannel-host-gw"])
def test_nodes_that_come_go_and_are_looked_at_in_any_order(cni: str) -> None:
    """Some were looked at before a node came or went, others never: all end alike."""
    chance = random.Random(7)
    cluster = Cluster(nodes=4, cni=cni)
    spare = default_nodes(12)[4:]
    for _ in range(12):
        names = [node.name for node in cluster.store.list(Node)]
        if spare and (len(names) < 4 or chance.random() < 0.6):
            cluster.apply_objects([spare.pop(0)])
        else:
            cluster.delete("Node", chance.choice(names))
        for node in cluster.store.list(Node):
            if chance.random() < 0.3:
                cluster.network.ns(node.name).lookup("10.244.9.9")
    assert shown(cluster) == eager(cluster, "vxlan" if cni == "flannel" else "host-gw")


def test_a_node_that_joins_writes_to_no_node_that_waits() -> None:
    cluster = Cluster(nodes=6)
    cluster.network.ns("node-2").lookup("10.244.3.3")
    before = waiting(cluster)
    assert before == {"node-1", "node-3", "node-4", "node-5", "node-6"}
    cluster.apply_objects([default_nodes(7)[6]])
    assert waiting(cluster) == before | {"node-7"}
    assert "10.244.6.0/24" in [route.dst for route in cluster.network.ns("node-2").route_list()]


def test_pods_that_are_plugged_in_leave_the_promises_standing() -> None:
    """The bridge gets its first port, address and MAC; nothing of it asks for another node's entries."""
    spec = PodSpec(node_name="node-1", containers=(Container(name="main", image="web:1"),))
    pods = [Pod(metadata=ObjectMeta(name=f"web-{n}", namespace="default"), spec=spec) for n in range(3)]
    cluster = Cluster(pods, nodes=4)
    assert len(waiting(cluster)) == 4
    cluster.delete("Pod", "web-1")
    entries = cluster.network.ns("node-1").fdb
    assert {mac for dev, mac in entries if dev == "flannel.1"} == {
        cluster.network.ns(f"node-{n}").link("flannel.1").mac for n in (2, 3, 4)
    }


def test_what_is_refused_leaves_the_promises_standing() -> None:
    cluster = Cluster(nodes=5)
    want = eager(cluster, "vxlan")

    def join_and_fail() -> None:
        with cluster.transaction():
            cluster.apply_objects([default_nodes(6)[5]])
            raise RuntimeError("kaput")

    with pytest.raises(RuntimeError, match="kaput"):
        join_and_fail()
    cluster.settle()
    assert len(waiting(cluster)) == 5
    assert shown(cluster) == want


def test_rules_taken_away_come_back_within_the_resync_period() -> None:
    """5 s; routes do not come back."""
    cluster = Cluster(nodes=2)
    space = cluster.network.ns("node-1")
    whole = iptables.save(space.iptables[4])
    text = "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n"
    space.set_iptables(4, iptables.restore(space.iptables[4], text, noflush=True))
    space.delete_route("10.244.1.0/24")
    cluster.settle()
    assert cluster.pod_network.next == 5.0
    cluster.advance(4.9)
    assert iptables.save(space.iptables[4]) != whole
    cluster.advance(0.2)
    assert iptables.save(space.iptables[4]) == whole
    assert cluster.pod_network.next is None
    assert "10.244.1.0/24" not in [route.dst for route in space.route_list()]


def test_a_node_whose_address_changed_is_reached_there_after_its_daemon_restarts() -> None:
    """flanneld reads its link's address when it starts; the others hear of it by the lease."""
    cluster = Cluster(nodes=3)
    space = cluster.network.ns("node-2")
    space.add_address("eth0", "192.168.1.99/24")
    space.delete_address("eth0", "192.168.1.20/24")
    space.add_address("eth0", "192.168.1.99/24") if not space.addrs("eth0", 4) else None
    cluster.settle()

    def ends() -> list[str]:
        fdb = cluster.network.ns("node-1").fdb
        return sorted(e.dst for entries in fdb.values() for e in entries if e.dev == "flannel.1")

    assert ends() == ["192.168.1.20", "192.168.1.30"]
    cluster.pod_network.restart()
    cluster.settle()
    assert ends() == ["192.168.1.30", "192.168.1.99"]
    vxlan = space.link("flannel.1").vxlan
    assert vxlan is not None
    assert vxlan.local == "192.168.1.99"
