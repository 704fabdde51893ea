"""The map of BGP sessions: what it reads, its text, table and picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.cni.calico.network import Calico
from kubenet_lab.views.bgp_map import BgpMap, bgp_map, bgp_map_svg

OFF = (
    "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n"
    "spec: {nodeToNodeMeshEnabled: false}\n"
)
PEER = (
    "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor}\n"
    "spec: {peerIP: 192.168.1.1, asNumber: 65001}\n"
)


def fabric(cluster: Cluster) -> Fabric:
    network = cluster.pod_network
    assert isinstance(network, Calico)
    return network.fabric


def drawn(found: BgpMap) -> list[str]:
    """The picture's words."""
    root = ElementTree.fromstring(bgp_map_svg(found))
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_mesh() -> None:
    found = bgp_map(fabric(scenarios.shop(cni="calico")))
    assert [speaker.name for speaker in found.speakers] == ["node-1", "node-2", "node-3"]
    assert {(line.one, line.other, line.kind, line.state) for line in found.lines} == {
        ("node-1", "node-2", "iBGP", "Established"),
        ("node-1", "node-3", "iBGP", "Established"),
        ("node-2", "node-3", "iBGP", "Established"),
    }
    text = str(found)
    assert text.startswith("node-1 192.168.1.10 AS 64512, announces 10.244.146.128/26; knows ")
    assert "  iBGP with node-2: Established" in text.splitlines()
    assert "BGP: 3 speakers, 3 of 3 sessions established" in drawn(found)


def test_what_broke_is_said() -> None:
    cluster = scenarios.shop(cni="calico")
    with cluster.fault("bgp-session-lost"):
        cluster.advance(600)
        found = bgp_map(fabric(cluster))
    states = {(line.one, line.other): line.up for line in found.lines}
    assert states == {("node-1", "node-2"): False, ("node-1", "node-3"): False, ("node-2", "node-3"): True}
    assert found.lines[0].words() in drawn(found)
    assert found.lines[0].words() == f"✕ {found.lines[0].state}"


def test_somebody_outside() -> None:
    cluster = scenarios.shop(cni="calico")
    cluster.apply(OFF + "---\n" + PEER)
    found = bgp_map(fabric(cluster))
    assert {(line.other if line.one.startswith("node") else line.one, line.kind) for line in found.lines} == {
        ("192.168.1.1", "eBGP")
    }
    assert "192.168.1.1" in drawn(found)


def test_tables() -> None:
    pytest.importorskip("pandas")
    found = bgp_map(fabric(scenarios.shop(cni="calico")))
    assert len(found.sessions_table()) == 3
    routes = found.routes_table()
    mine = routes[(routes.speaker == "node-1") & (routes.via == "192.168.1.20")]
    assert list(mine.prefix) == ["10.244.125.128/26"]
    assert list(mine.learned_from) == ["Mesh_192_168_1_20"]


@pytest.mark.parametrize("cni", ["calico-vxlan"])
def test_nobody(cni: str) -> None:
    found = bgp_map(fabric(scenarios.shop(cni=cni)))
    assert str(found) == "nobody speaks BGP"
    assert bgp_map_svg(found).startswith("<svg")


def test_many_speakers_are_drawn_too() -> None:
    found = bgp_map(fabric(Cluster(nodes=20, cni="calico")))
    assert len(found.lines) == 190
    assert {f"node-{number}" for number in range(1, 21)} <= set(drawn(found))
