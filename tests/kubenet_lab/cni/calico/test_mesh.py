"""A full mesh that is not played comes to the same routes as one that is."""

from __future__ import annotations

import pytest

from diagnostics.shell import run
from kubenet_lab import Cluster, scenarios
from kubenet_lab.cni.calico import mesh, network
from kubenet_lab.errors import InputError, KubenetLabError
from kubenet_lab.objects.node import make_node

MORE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: more}
spec:
  replicas: 5
  selector: {matchLabels: {app: more}}
  template:
    metadata: {labels: {app: more}}
    spec: {containers: [{name: web, image: web:1, ports: [{containerPort: 80}]}]}
"""
PEER = """
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack}
spec: {peerIP: 192.168.1.1, asNumber: 64513}
"""
LATE = """
apiVersion: v1
kind: Pod
metadata: {name: late}
spec: {nodeName: node-4, containers: [{name: c, image: x}]}
"""


def routes(cluster: Cluster) -> dict[tuple[str, int], list[str]]:
    """All nodes' routes."""
    return {
        (name, fam): [str(route) for route in space.route_list(fam)]
        for name, space in cluster.network.netns.items()
        if name == space.host
        for fam in (4, 6)
    }


@pytest.fixture
def unplayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meshes of three nodes are too big."""
    monkeypatch.setattr(mesh, "MOST_PLAYED", 2)
    monkeypatch.setattr(network, "MOST_PLAYED", 2)


def both(cni: str, monkeypatch: pytest.MonkeyPatch, **options: object) -> tuple[Cluster, Cluster]:
    """The shop with its mesh played, and without."""
    played = scenarios.shop(cni=cni, **options)
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "MOST_PLAYED", 2)
        patch.setattr(network, "MOST_PLAYED", 2)
        return played, scenarios.shop(cni=cni, **options)


@pytest.mark.parametrize("look", [False, True])
@pytest.mark.parametrize("cni", ["calico", "calico-ipip"])
def test_the_same_routes(cni: str, look: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    played, settled = both(cni, monkeypatch)
    for step in range(5):
        if look or step == 4:
            assert routes(settled) == routes(played), step
        for one in (played, settled):
            if step == 0:
                one.apply(MORE)
            elif step == 1:
                one.apply_objects([make_node("node-4", ("192.168.1.40",))])
                one.advance(60)
            elif step == 2:
                one.apply(LATE)
            elif step == 3:
                one.delete("Node", "node-2")
                # Graceful restart keeps a dead node's routes for two minutes; here they go with it.
                one.advance(600)
    calls = [one.ping("frontend", one.pod("late").ips[0]).verdict for one in (played, settled)]
    assert calls == ["answered", "answered"]


def test_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    played, settled = both("calico", monkeypatch, dual_stack=True)
    assert routes(settled) == routes(played)
    assert any(" proto bird" in f"{r} proto {r.proto}" for r in settled.network.ns("node-1").route_list(6))


def test_a_change_that_is_taken_back(unplayed: None) -> None:
    cluster = scenarios.shop(cni="calico")
    before = routes(cluster)

    def join_and_fail() -> None:
        with cluster.transaction():
            cluster.apply_objects([make_node("node-4", ("192.168.1.40",))])
            cluster.apply(LATE)
            assert routes(cluster) != before
            raise KubenetLabError("no")

    with pytest.raises(KubenetLabError):
        join_and_fail()
    cluster.settle()
    assert routes(cluster) == before


def test_what_needs_sessions_is_said_not_to_be_modelled(unplayed: None) -> None:
    cluster = scenarios.shop(cni="calico")
    before = routes(cluster)
    with pytest.raises(InputError, match="nodes are not modelled, only the routes"):
        cluster.pod_network.bird("node-1")
    with pytest.raises(InputError, match="not modelled"):
        cluster.apply(PEER)
    cluster.settle()
    assert routes(cluster) == before
    shown = run(cluster.network, "node-1", "birdc show protocols")
    assert "not modelled" in shown.text
    assert shown.exit_code != 0
