"""Pods attached by macvlan, ipvlan, vlan and bridge with VLANs: who can talk to whom."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import Runtime, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.link import Peer, VlanOptions
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet import SYN, TCP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

from .recorded import sandbox

Json = dict[str, Any]
NODES = {"node-1": "192.168.1.10", "node-2": "192.168.1.20"}


def ipam(node: str, network: str = "192.168.1", gateway: bool = False) -> Json:
    """host-local with a range of its own a node, so that pods on one wire get different addresses."""
    base = 100 if node == "node-1" else 200
    block = {
        "subnet": f"{network}.0/24",
        "rangeStart": f"{network}.{base}",
        "rangeEnd": f"{network}.{base + 9}",
        "gateway": f"{network}.1",
    }
    return {"type": "host-local", "ranges": [[block]], "routes": [{"dst": "0.0.0.0/0"}] if gateway else []}


def attach(network: Network, node: str, pod: str, plugin: Json) -> str:
    """Run a chain of one plugin for a pod with a server on port 80; return its address."""
    runtime = Runtime(network, node)
    conf = parse(json.dumps({"cniVersion": "1.0.0", "name": f"net-{plugin['type']}", "plugins": [plugin]}))
    result = runtime.add(conf, pod, sandbox(network, node, pod))
    network.ns(pod).listen(Socket(TCP, "::", 80, "web"))
    return result.ips[0].address.partition("/")[0]


def machines() -> Network:
    network = Network()
    for name, address in NODES.items():
        build_node(network, name, f"{address}/24").listen(Socket(TCP, "::", 80, "web"))
    return network


def pods(**plugin: Any) -> tuple[Network, dict[str, str]]:
    """Two pods on node-1 and one on node-2, attached alike; the addresses of pods and nodes by name."""
    network = machines()
    where = {"a": "node-1", "b": "node-1", "far": "node-2"}
    found = dict(NODES)
    for pod, node in where.items():
        found[pod] = attach(network, node, pod, {"master": "eth0", "ipam": ipam(node), **plugin})
    return network, found


def reach(network: Network, addresses: dict[str, str]) -> set[tuple[str, str]]:
    """Return the pairs of which the first cannot connect to the second."""
    lost = set()
    for src in addresses:
        for dst, address in addresses.items():
            if src != dst:
                done = exchange(Walk(network), src, Packet("", address, TCP, 0, 80, flags=SYN))
                if not done.ok:
                    assert done.verdict in ("unreachable", "timed out"), (src, dst, done.request.text())
                    lost.add((src, dst))
    return lost


def both(*pairs: tuple[str, str]) -> set[tuple[str, str]]:
    return {one for pair in pairs for one in (pair, pair[::-1])}


OWN_HOST = both(("a", "node-1"), ("b", "node-1"), ("far", "node-2"))
SIBLINGS = both(("a", "b"))


@pytest.mark.parametrize(
    ("plugin", "lost"),
    [
        ({"type": "macvlan"}, OWN_HOST),
        ({"type": "macvlan", "mode": "private"}, OWN_HOST | SIBLINGS),
        ({"type": "macvlan", "mode": "vepa"}, OWN_HOST | SIBLINGS),
        ({"type": "ipvlan"}, OWN_HOST),
    ],
    ids=str,
)
def test_pods_on_the_wire_of_their_host(plugin: Json, lost: set[tuple[str, str]]) -> None:
    """Every pod reaches every other and the other host; none reaches its own, nor is reached by it."""
    assert reach(*pods(**plugin)) == lost


def test_passthru_takes_the_link_for_one_pod() -> None:
    """Everybody reaches the pod, which has the host's MAC; the host itself is deaf."""
    network = machines()
    plugin = {"type": "macvlan", "master": "eth0", "mode": "passthru", "ipam": ipam("node-1")}
    addresses = {**NODES, "a": attach(network, "node-1", "a", plugin)}
    assert reach(network, addresses) == both(("a", "node-1"), ("node-1", "node-2"))
    with pytest.raises(CniError, match="failed to create macvlan: invalid argument"):
        attach(network, "node-1", "b", plugin)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_ipvlan_pods_routed_by_their_host(mode: str) -> None:
    """Pods have a network of their own, which others reach by the host; the host itself does not."""
    network = machines()
    addresses = dict(NODES)
    for pod, node, block in (
        ("a", "node-1", "10.7.1"),
        ("b", "node-1", "10.7.1"),
        ("far", "node-2", "10.7.2"),
    ):
        plugin = {"type": "ipvlan", "master": "eth0", "mode": mode, "ipam": ipam(node, block, gateway=True)}
        addresses[pod] = attach(network, node, pod, plugin)
    for node, other, block in (("node-1", "node-2", "10.7.2.0/24"), ("node-2", "node-1", "10.7.1.0/24")):
        network.ns(node).add_route(block, via=NODES[other])
    assert reach(network, addresses) == OWN_HOST


def test_vlan_pods_hear_their_own_tag_only() -> None:
    network = machines()
    addresses = {}
    for pod, node, tag in (
        ("a", "node-1", 100),
        ("b", "node-1", 200),
        ("far", "node-2", 100),
        ("off", "node-2", 300),
    ):
        plugin = {"type": "vlan", "master": "eth0", "vlanId": tag, "ipam": ipam(node, "10.50.0")}
        addresses[pod] = attach(network, node, pod, plugin)
    everybody = {(one, other) for one in addresses for other in addresses if one != other}
    assert reach(network, addresses) == everybody - both(("a", "far"))
    done = exchange(Walk(network), "a", Packet("", addresses["far"], TCP, 0, 80, flags=SYN))
    tags = {
        step.entry.vlan
        for hop, step in done.request.steps()
        if step.kind == "transmit" and step.spot == "eth0" and hop.netns == "node-1"
    }
    assert tags == {100}


def test_one_vlan_id_is_one_device_on_a_link() -> None:
    """The plugin makes a VLAN device in the pod, and a link has one device an id: the second pod gets none."""
    network = machines()
    plugin = {"type": "vlan", "master": "eth0", "vlanId": 100, "ipam": ipam("node-1", "10.50.0")}
    attach(network, "node-1", "a", plugin)
    with pytest.raises(CniError, match="failed to create vlan: file exists"):
        attach(network, "node-1", "b", plugin)


def test_pods_of_one_bridge_in_different_vlans() -> None:
    """`vlan` parts one bridge into several; the gateway of each VLAN is a device of the host's in it."""
    network = machines()
    addresses = {}
    for pod, tag, block in (("a", 10, "10.60.0"), ("b", 10, "10.60.0"), ("c", 20, "10.60.0")):
        plugin = {"type": "bridge", "bridge": "br0", "vlan": tag, "ipam": ipam("node-1", block)}
        addresses[pod] = attach(network, "node-1", pod, plugin)
    assert reach(network, addresses) == both(("a", "c"), ("b", "c"))


def test_the_gateway_of_a_vlan() -> None:
    network = machines()
    block = ipam("node-1", "10.60.0", gateway=True)
    plugin = {"type": "bridge", "bridge": "br0", "vlan": 10, "isGateway": True, "ipam": block}
    attach(network, "node-1", "a", plugin)
    assert [a.local for a in network.ns("node-1").addrs("br0.10", 4)] == ["10.60.0.1"]
    done = exchange(Walk(network), "a", Packet("", NODES["node-1"], TCP, 0, 80, flags=SYN))
    assert done.ok, done.request.text()


@pytest.mark.parametrize("keeps", [True, False])
def test_a_port_taken_out_of_the_default_vlan(keeps: bool) -> None:
    """With `preserveDefaultVlan` a port of VLAN 10 still lets frames of VLAN 1 out, but none in: nobody gains by it."""
    network = machines()
    plugin = {"type": "bridge", "bridge": "br0", "ipam": ipam("node-1", "10.60.0")}
    addresses = {
        pod: attach(network, "node-1", pod, {**plugin, "vlan": 10, "preserveDefaultVlan": keeps})
        for pod in ("a", "b")
    }
    addresses["plain"] = attach(network, "node-1", "plain", plugin)
    # The question gets to a port that is in VLAN 1 too; the answer comes back in VLAN 10.
    assert reach(network, addresses) == both(("a", "plain"), ("b", "plain"))
    ports = [port.port for port in network.ns("node-1").ports("br0")]
    tagged = [1, 10] if keeps else [10]
    assert [[vlan.vid for vlan in port.vlans] for port in ports if port] == [tagged, tagged, [1]]


def test_a_trunk_to_a_pod() -> None:
    """A pod that a whole trunk leads to puts the tags on itself, and can route between VLANs."""
    network = machines()
    plugin = {"type": "bridge", "bridge": "br0"}
    for pod, tag in (("a", 10), ("b", 20)):
        attach(network, "node-1", pod, {**plugin, "vlan": tag, "ipam": ipam("node-1", f"10.{tag}.0")})
    trunk = [{"minID": 10, "maxID": 12}, {"id": 20}]
    attach(network, "node-1", "gate", {**plugin, "vlanTrunk": trunk, "ipam": ipam("node-1", "10.99.0")})
    gate = network.ns("gate")
    for tag in (10, 11, 20):
        network.add_upper("gate", f"eth0.{tag}", VlanOptions(Peer("gate", "eth0"), tag))
        gate.set_link(f"eth0.{tag}", up=True)
        gate.add_address(f"eth0.{tag}", f"10.{tag}.0.1/24")
    gate.set_sysctl("net.ipv4.ip_forward", 1)
    for pod, tag, other in (("a", 10, 20), ("b", 20, 10)):
        network.ns(pod).add_route(f"10.{other}.0.0/24", via=f"10.{tag}.0.1")
    there = network.ns("b").addrs("eth0", 4)[0].local
    done = exchange(Walk(network), "a", Packet("", there, TCP, 0, 80, flags=SYN))
    assert done.ok, done.request.text()
    assert [hop.netns for hop in done.request.hops] == ["a", "node-1", "gate", "node-1", "b"]
