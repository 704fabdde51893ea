"""Who is whose BGP peer, by BGPConfiguration, BGPPeers and the nodes' labels."""

from __future__ import annotations

from typing import Any

from kubenet_lab.bgp.config import Config
from kubenet_lab.cni.calico.confd import BgpNode, BgpObjects, bird_config
from kubenet_lab.cni.calico.ipam import IpPool

NODES = [
    BgpNode(
        name=f"n{number}",
        address=f"192.168.1.{number}/24",
        blocks=(f"10.0.{number}.0/26",),
        labels={"rack": "a" if number < 3 else "b"},
    )
    for number in range(1, 5)
]
POOL = IpPool(name="p", cidr="10.0.0.0/16", ipip="CrossSubnet")


def of(node: int, nodes: list[BgpNode] = NODES, **objects: Any) -> Config:
    return bird_config(nodes[node - 1], nodes, [POOL], BgpObjects(**objects))


def peer(name: str = "x", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def off(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": False} | spec}


def test_the_mesh_is_everybody_with_everybody() -> None:
    config = of(2)
    assert [p.address for p in config.peers] == ["192.168.1.1", "192.168.1.3", "192.168.1.4"]
    assert [p.passive for p in config.peers] == [False, True, True], "the smaller address waits"
    assert {p.asn for p in config.peers} == {64512}
    assert config.peers[0].name == "Mesh_192_168_1_1"
    assert config.blocks == ("10.0.2.0/26",)
    assert config.pools[0].tunnel == "tunl0"
    assert config.pools[0].cross_subnet


def test_without_a_mesh_only_bgppeers() -> None:
    assert of(1, configuration=off()).peers == ()
    outside = peer(peerIP="192.168.1.254", asNumber=65001)
    (got,) = of(1, configuration=off(asNumber=65100), peers=(outside,)).peers
    assert (got.name, got.address, got.asn) == ("Global_192_168_1_254", "192.168.1.254", 65001)
    assert of(1, configuration=off(asNumber=65100), peers=(outside,)).asn == 65100


def test_a_peer_of_one_node_or_of_a_rack() -> None:
    one = peer("one", node="n1", peerIP="192.168.1.254", asNumber=65001)
    rack = peer("rack", nodeSelector="rack == 'b'", peerIP="192.168.1.253", asNumber=65002)
    found = {n: [p.address for p in of(n, configuration=off(), peers=(one, rack)).peers] for n in range(1, 5)}
    assert found == {1: ["192.168.1.254"], 2: [], 3: ["192.168.1.253"], 4: ["192.168.1.253"]}


def test_a_reflector_reflects_for_those_without_its_cluster_id() -> None:
    reflector = BgpNode(
        name="rr", address="192.168.1.9/24", labels={"reflector": "yes"}, cluster_id="244.0.0.1"
    )
    nodes = [*NODES, reflector]
    peers = (peer(nodeSelector="all()", peerSelector="reflector == 'yes'"),)
    of_reflector = of(5, nodes, configuration=off(), peers=peers)
    assert [p.address for p in of_reflector.peers] == [node.ip for node in NODES]
    assert all(p.rr_client and p.cluster_id == "244.0.0.1" for p in of_reflector.peers)
    (up,) = of(1, nodes, configuration=off(), peers=peers).peers
    assert (up.address, up.rr_client) == ("192.168.1.9", False)
    assert "192.168.1.9" not in [p.address for p in of(1, nodes).peers], "a reflector is no part of the mesh"


def test_filters_become_rules() -> None:
    rule = {"action": "Reject", "matchOperator": "In", "cidr": "10.0.1.0/24"}
    named = {"no-one": {"spec": {"exportV4": [rule], "importV4": [{"action": "Accept"}]}}}
    outside = peer(peerIP="192.168.1.254", asNumber=65001, filters=["no-one"])
    (got,) = of(1, configuration=off(), peers=(outside,), filters=named).peers
    assert [(r.cidr, r.action) for r in got.exports] == [("10.0.1.0/24", "Reject")]
    assert [(r.cidr, r.action) for r in got.imports] == [("0.0.0.0/0", "Accept")]


def test_nodes_with_ipv6_speak_over_it_too() -> None:
    from msgspec.structs import replace

    both = [replace(node, address6=f"fd00:192:168:1::{n}/64") for n, node in enumerate(NODES[:2], 1)]
    nodes = [*both, NODES[2]]
    config = of(1, nodes)
    assert [(p.name, p.address, p.source_address) for p in config.peers] == [
        ("Mesh_192_168_1_2", "192.168.1.2", "192.168.1.1"),
        ("Mesh_fd00_192_168_1__2", "fd00:192:168:1::2", "fd00:192:168:1::1"),
        ("Mesh_192_168_1_3", "192.168.1.3", "192.168.1.1"),
    ]
    assert [p.passive for p in config.peers] == [True, True, True]
    assert config.router_id == "192.168.1.1", "a router id is 32 bits, always"
    outside = peer(peerIP="[fd00:192:168:1::fe]:179", asNumber=65001)
    assert [p.name for p in of(2, nodes, configuration=off(), peers=(outside,)).peers] == [
        "Global_fd00_192_168_1__fe"
    ]
    assert of(3, nodes, configuration=off(), peers=(outside,)).peers == (), "it has no IPv6 address"
    selected = peer(nodeSelector="all()", peerSelector="rack == 'a'")
    found = of(1, nodes, configuration=off(), peers=(selected,)).peers
    assert [p.address for p in found] == ["192.168.1.2", "fd00:192:168:1::2", "192.168.1.3"]
