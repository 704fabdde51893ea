"""Flannel with VXLAN and host-gw: every table of every node equals what the real one left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.flannel.agent import PREFIX, Agent
from kubenet_lab.cni.flannel.config import load
from kubenet_lab.cni.plugin import Result
from kubenet_lab.cni.runtime import parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Node, default_nodes
from tests.oracles import open_case

from .recorded import Masks, Recording, compare, files_of, recorded_state, sandbox, state


class World:
    """Three nodes as the recording's, with flanneld on each."""

    def __init__(self, net_conf: Any) -> None:
        self.network = Network()
        self.nodes: dict[str, Node] = {}
        for index, node in enumerate(default_nodes(3, dual_stack=True)):
            v4, v6 = node.internal_ips
            ns = build_node(self.network, node.name, f"{v4}/24", sysctls={})
            ns.add_address("eth0", f"{v6}/64")
            ns.add_route("::/0", via="fd00:192:168:1::1", dev="eth0")
            cidrs = (f"10.244.{index}.0/24", "fd00:10:244::/64" if not index else f"fd00:10:244:{index}::/64")
            self.nodes[node.name] = node.with_pod_cidrs(cidrs)
        self.conf = load(net_conf)
        self.agents = {name: Agent(self.network, name, self.conf) for name in self.nodes}
        self.settle()

    def settle(self) -> int:
        """Run the daemons until nothing changes; return how many writes it took."""
        writes = 0
        while True:
            changed = [
                node for agent in self.agents.values() for node in agent.reconcile(self.nodes.values())
            ]
            if not changed:
                return writes
            writes += len(changed)
            self.nodes |= {node.name: node for node in changed if node.name in self.nodes}

    def tunnel(self, name: str) -> list[str]:
        """Return what a node knows about the tunnel, as text."""
        ns = self.network.ns(name)
        rows = [str(r) for r in ns.route_list() if r.dev == "flannel.1"]
        rows += [str(n) for n in ns.neighbours.values() if n.dev == "flannel.1"]
        return sorted(rows + [str(e) for entries in ns.fdb.values() for e in entries if e.dev == "flannel.1"])


@pytest.mark.parametrize("case", ["vxlan-ipv4", "hostgw-ipv4"])
def test_nodes_and_pods_equal_the_recording(case: str) -> None:
    """Links, addresses, routes, neighbours, FDB, rules, annotations, subnet.env; then the pods; then DEL."""
    start, pods = open_case("cni-flannel", case), open_case("cni-flannel", f"{case}.pods")
    world, masks = World(start["net-conf.json"]), Masks()
    for name, body in start["state"].items():
        ns = world.network.ns(name)
        compare(masks, recorded_state(body), state(ns), name)
        masks.match(
            body["subnet_env"], ns.files["/run/flannel/subnet.env"].splitlines(), f"{name}.subnet_env"
        )
        masks.match(
            body["node"]["annotations"], world.nodes[name].metadata.annotations, f"{name}.annotations"
        )
        [condition] = [c for c in world.nodes[name].status.conditions if c.type == "NetworkUnavailable"]
        assert body["node"]["conditions"] == [
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
            }
        ]
        assert ns.sysctl("net.ipv4.ip_forward") == body["sysctl"]["net.ipv4.ip_forward"]
    conf = parse(json.dumps(pods["conflist"]))
    runtimes = {name: Recording(world.network, name) for name in world.nodes}
    paths: dict[str, str] = {}
    for pod, body in pods["pods"].items():
        host = f"node-{pod[4]}"
        runtime = runtimes[host]
        paths[pod] = sandbox(world.network, host, pod)
        runtime.inputs.clear()
        given = body["steps"][-1]["stdin"].get("runtimeConfig")
        result = runtime.add(conf, pod, paths[pod], capabilities=given)
        masks.match(body["steps"][-1]["stdout"], result.to_json("1.0.0"), f"{pod}.result")
        assert [name for name, _ in runtime.inputs] == [step["plugin"] for step in body["steps"]]
        for step, (_, conf_given) in zip(body["steps"], runtime.inputs, strict=True):
            masks.match(step["stdin"], conf_given, f"{pod}.{step['plugin']}.stdin")
        compare(masks, recorded_state({**body["netns"], "fdb": []}), state(world.network.ns(pod)), pod)
        masks.match(body["files"], files_of(runtime.node), f"{pod}.files")
    for name, body in pods["node_state_with_pods"].items():
        compare(masks, recorded_state(body), state(world.network.ns(name)), f"{name} with pods")
    for key, value in pods["sysctl"]["node-1"].items():
        if key != "net.ipv6.conf.cni0.accept_dad":
            assert world.network.ns("node-1").sysctl(key) == value, key
    runtimes["node-1"].check(conf, "pod-11", paths["pod-11"])
    masks.check_distinct()


def test_del_leaves_what_the_real_one_leaves() -> None:
    """DEL, DEL again, DEL without a namespace: silent; only the bridge and shared chains stay."""
    pods, gone = open_case("cni-flannel", "vxlan-ipv4.pods"), open_case("cni-flannel", "vxlan-ipv4.del")
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    conf, runtime = parse(json.dumps(pods["conflist"])), Recording(world.network, "node-1")
    for pod in ("pod-11", "pod-12"):
        given = pods["pods"][pod]["steps"][-1]["stdin"].get("runtimeConfig")
        runtime.add(conf, pod, sandbox(world.network, "node-1", pod), capabilities=given)
    runtime.inputs.clear()
    runtime.delete(conf, "pod-11", "/run/netns/pod-11")
    assert [name for name, _ in runtime.inputs] == [step["plugin"] for step in gone["DEL pod-11"]]
    runtime.delete(conf, "pod-11", "/run/netns/pod-11")
    runtime.remove_sandbox("/run/netns/pod-12")
    runtime.delete(conf, "pod-12", "/run/netns/pod-12")
    assert files_of(runtime.node) == gone["files_after"]
    node = runtime.node
    assert list(node.links) == ["lo", "eth0", "flannel.1", "cni0"]
    lost = {line for line in gone["node_diff"]["iptables_save"]["-"] if "CNI" in line}
    assert lost
    assert not lost & set(state(node)["iptables_save"])
    bridge = gone["node_diff"]["link"]["+"][0]
    assert (node.link("cni0").mtu, node.link("cni0").carrier) == (
        bridge["mtu"],
        "LOWER_UP" in bridge["flags"],
    )


def test_a_node_that_joins_costs_the_others_three_entries() -> None:
    """One route, one neighbour, one FDB entry a node, and they go when the Node goes; its own state stays."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    three = world.tunnel("node-1")
    assert len(three) == 6
    left = world.nodes.pop("node-3")
    own = world.tunnel("node-3")
    world.settle()
    assert len(world.tunnel("node-1")) == 3
    assert world.tunnel("node-3") == own
    world.nodes["node-3"] = left
    world.settle()
    assert world.tunnel("node-1") == three


def test_what_is_deleted_by_hand_stays_deleted_until_a_restart() -> None:
    """As recorded in vxlan: only a restart, or a lease event, writes routes and entries again."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    whole, ns = world.tunnel("node-1"), world.network.ns("node-1")
    rules = state(ns)["iptables_save"]
    ns.delete_route("10.244.1.0/24")
    ns.delete_fdb("flannel.1", next(e.mac for es in ns.fdb.values() for e in es if e.dst == "192.168.1.20"))
    world.settle()
    assert len(world.tunnel("node-1")) == 4
    mac = ns.link("flannel.1").mac
    ns.delete_link("flannel.1")
    world.settle()
    assert ns.link("flannel.1").mac == mac
    assert world.tunnel("node-1") == []
    world.agents["node-1"] = Agent(world.network, "node-1", world.conf)
    world.settle()
    assert world.tunnel("node-1") == whole
    assert state(ns)["iptables_save"] == rules


def test_setting_the_tunnel_down_and_up_loses_routes_and_keeps_fdb() -> None:
    """`ip link set flannel.1 down; ip link set flannel.1 up`, as recorded."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    ns = world.network.ns("node-1")
    ns.set_link("flannel.1", up=False)
    ns.set_link("flannel.1", up=True)
    world.settle()
    assert [row.split()[1] for row in world.tunnel("node-1")] == ["dev", "dev"]
    assert len([e for entries in ns.fdb.values() for e in entries if e.dst]) == 2


def test_public_ip_overwrite_moves_the_other_nodes_entries() -> None:
    """The annotation wins over the interface's address after that node's daemon restarts."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    node = world.nodes["node-2"]
    notes = {**node.metadata.annotations, PREFIX + "public-ip-overwrite": "192.168.1.99"}
    world.nodes["node-2"] = node.with_metadata(annotations=notes)
    world.agents["node-2"] = Agent(world.network, "node-2", world.conf)
    world.settle()
    ns = world.network.ns("node-1")
    assert sorted(e.dst for entries in ns.fdb.values() for e in entries if e.dev == "flannel.1") == [
        "192.168.1.30",
        "192.168.1.99",
    ]


def test_a_settled_world_writes_nothing() -> None:
    """Reconciling is idempotent."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    assert world.settle() == 0


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ("{", "net-conf.json"),
        ({"Network": "10.244.0.0/99"}, "10.244.0.0/99"),
        ({"Network": "10.244.0.0/16", "Backend": {"Type": "zzz"}}, "zzz"),
        ({"Backend": {"VNI": "one"}}, "VNI"),
    ],
)
def test_a_bad_net_conf_is_refused(conf: Any, says: str) -> None:
    """The message names the value."""
    with pytest.raises(InputError, match=says):
        load(conf)


def test_a_node_without_pod_cidr_is_refused() -> None:
    """The real daemon exits with this message."""
    network = Network()
    node = default_nodes(1)[0]
    build_node(network, node.name, "192.168.1.10/24")
    with pytest.raises(InputError, match='node "node-1" pod cidr not assigned'):
        Agent(network, "node-1").reconcile([node])


def test_results_read_back() -> None:
    """`Result.from_json` and `to_json` are inverse for every version that has interfaces."""
    body = open_case("cni-flannel", "vxlan-ipv4.pods")["pods"]["pod-11"]["steps"][0]["stdout"]
    for version in ("0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        text = Result.from_json(body).to_json(version)
        assert Result.from_json(text) == Result.from_json(body)
