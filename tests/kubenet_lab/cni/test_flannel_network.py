"""Flannel in a cluster: its state is made when somebody looks, and is then what daemons that write at once leave."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from kubenet_lab import Cluster, manifests
from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.flannel.config import PARSING, load
from kubenet_lab.cni.flannel.network import Flannel
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


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n"


def config_map(namespace: str = "kube-flannel", **data: Any) -> str:
    """The ConfigMap of kube-flannel.yml, and its namespace."""
    texts = {f"{key.replace('_', '-')}.json": value for key, value in data.items()}
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-flannel-cfg", "namespace": namespace},
        "data": {key: value if isinstance(value, str) else json.dumps(value) for key, value in texts.items()},
    }
    return f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n{json.dumps(body)}\n---\n{POD}"


def flannel_with(text: str) -> Cluster:
    return Cluster.from_objects(manifests.load(text), cni="flannel", nodes=1)


def vxlan(**more: Any) -> dict[str, Any]:
    return {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", **more}}


def agent_of(cluster: Cluster) -> Agent:
    network = cluster.pod_network
    assert isinstance(network, Flannel)
    return network.agents["node-1"]


@pytest.mark.parametrize("namespace", ["kube-flannel", "kube-system"])
def test_flanneld_reads_its_config_map(namespace: str) -> None:
    conf = {"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}
    cluster = flannel_with(config_map(namespace, net_conf=conf))
    assert agent_of(cluster).backend == "host-gw"
    assert "FLANNEL_MTU=1500" in cluster.network.ns("node-1").files["/run/flannel/subnet.env"]
    assert cluster.pod("a").ips[0].startswith("10.244.0.")


@pytest.mark.parametrize(
    ("conf", "log"),
    [
        ("{", f"main.go:250] {PARSING}unexpected end of JSON input"),
        ({"Network": "10.244.0.0/33"}, f"main.go:250] {PARSING}invalid CIDR address: 10.244.0.0/33"),
        (
            {"Network": "10.244.0.0/16", "Backend": {"Type": "nosuch"}},
            "main.go:375] Error fetching backend: unknown backend type: nosuch",
        ),
        (
            {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}},
            'main.go:383] Error registering network: failed to acquire lease: subnet "10.5.0.0/16" specified in the '
            'flannel net config doesn\'t contain "10.244.0.0/24" PodCIDR of the "node-1" node',
        ),
        (
            vxlan(MTU="1500"),
            "main.go:383] Error registering network: error decoding VXLAN backend config: json: cannot unmarshal "
            "string into Go struct field .MTU of type int",
        ),
        (vxlan(MTU=100), "main.go:383] Error registering network: invalid argument"),
        (vxlan(MTU=70_000), "main.go:383] Error registering network: invalid argument"),
        (vxlan(VNI=1 << 24), "main.go:383] Error registering network: numerical result out of range"),
        (None, "main.go:250] Failed to create SubnetManager: failed to read net conf: open "
               "/etc/kube-flannel/net-conf.json: no such file or directory"),
    ],
)  # fmt: skip
def test_a_config_map_that_flanneld_cannot_use(conf: Any, log: str) -> None:
    """It ends and says why; pods say that they wait for it; and a right one mends all."""
    cluster = flannel_with(config_map(net_conf=conf) if conf is not None else config_map(other="{}"))
    agent = agent_of(cluster)
    assert (agent.exited, [line for line in agent.log if line.startswith("E ")]) == (1, [f"E {log}"])
    assert "/run/flannel/subnet.env" not in cluster.network.ns("node-1").files
    assert cluster.pod("a").status.phase == "Pending"
    event = [event for key, event in cluster.events if key == "default/a"][-1]
    assert event.reason == "FailedCreatePodSandBox"
    assert event.message.endswith(
        "failed to load flannel 'subnet.env' file: open /run/flannel/subnet.env: no such file or directory. "
        "Check the flannel pod log for this node."
    )
    cluster.apply(config_map(net_conf=vxlan()))
    cluster.advance(30)
    assert agent_of(cluster).exited is None
    assert cluster.pod("a").ips[0].startswith("10.244.0.")


@pytest.mark.parametrize(
    ("asked", "device", "pods"), [(0, 1450, 1450), (1400, 1350, 1350), (9000, 1450, 8950)]
)
def test_no_tunnel_is_larger_than_the_wire_but_pods_are_told_what_was_asked(
    asked: int, device: int, pods: int
) -> None:
    """The kernel cuts a vxlan device's MTU to what fits into the link under it (vxlan_config_apply)."""
    cluster = flannel_with(config_map(net_conf=vxlan(MTU=asked)))
    assert cluster.network.ns("node-1").link("flannel.1").mtu == device
    assert f"FLANNEL_MTU={pods}" in cluster.network.ns("node-1").files["/run/flannel/subnet.env"]
    assert cluster.network.ns("default/a").link("eth0").mtu == pods


def test_the_config_map_has_the_nodes_conflist_too() -> None:
    cluster = flannel_with(config_map(net_conf=vxlan(), cni_conf="{"))
    assert cluster.pod("a").status.phase == "Pending"
    assert cluster.events[-1][1].message.endswith("cni plugin not initialized")
