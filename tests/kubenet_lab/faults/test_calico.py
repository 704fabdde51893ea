"""Faults of Calico: BGP that starves, addresses that run out, ways that differ."""

from __future__ import annotations

from typing import Any

import pytest

from diagnostics.shell import run
from kubenet_lab import Cluster, scenarios
from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.dump import dump
from kubenet_lab.trip import Trip

POD = """
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: default}
spec: {nodeName: node-2, containers: [{name: c, image: x}]}
"""


def call(cluster: Cluster, node: str) -> Trip:
    """From node-1's frontend to a backend on a node."""
    pods = cluster.store.list("Pod", "default")
    address = next(p.ips[0] for p in pods if p.spec.node_name == node and "backend" in p.name)
    return cluster.connect("frontend", f"tcp://{address}:8080")


def routes(cluster: Cluster, node: str) -> set[str]:
    return {r.dst for r in cluster.network.ns(node).route_list(4) if r.proto == "bird" and r.via}


def part(cluster: Cluster, name: str, what: str) -> Any:
    """A part of one namespace's dump."""
    return next(ns for ns in dump(cluster.network)["namespaces"] if ns["name"] == name)[what]


def test_a_lost_session_is_noticed_after_the_hold_time() -> None:
    cluster = scenarios.shop(cni="calico")
    before = {node: routes(cluster, node) for node in ("node-1", "node-2", "node-3")}
    with cluster.fault("bgp-session-lost"):
        assert call(cluster, "node-2").delivered
        cluster.advance(60)
        assert call(cluster, "node-2").delivered, "not yet noticed"
        cluster.advance(600)
        broken = call(cluster, "node-2")
        assert not broken.delivered, broken.text()
        assert call(cluster, "node-1").delivered, "within a node all goes on"
        assert routes(cluster, "node-1") == set()
        assert routes(cluster, "node-2") < before["node-2"]
        assert len(routes(cluster, "node-2")) == 1
    cluster.advance(300)
    assert {node: routes(cluster, node) for node in before} == before
    assert call(cluster, "node-2").delivered


def test_without_an_address_a_pod_waits() -> None:
    cluster = scenarios.shop(cni="calico")
    before = part(cluster, "router", "files")
    with cluster.fault("ipam-exhausted"):
        assert call(cluster, "node-2").delivered
        cluster.apply(POD)
        assert not cluster.store.get("Pod", "late", "default").ips
        assert any("No IPs available in pools: [10.244.0.0/16]" in e.message for _, e in cluster.events)
        cluster.delete("Pod", "late")
    assert part(cluster, "router", "files") == before
    cluster.apply(POD)
    assert cluster.pod("late").ips


@pytest.mark.parametrize("cni", ["calico-vxlan", "calico-ipip"])
def test_strict_reverse_path(cni: str) -> None:
    cluster = scenarios.shop(cni=cni)
    nodes = ("node-1", "node-2")
    before = [part(cluster, node, what) for node in nodes for what in ("routes", "sysctls")]
    with cluster.fault("rp-filter-asymmetry"):
        broken = call(cluster, "node-2")
        assert (broken.verdict, broken.reason) == ("timed out", "rp-filter"), broken.text()
        assert call(cluster, "node-3").delivered
    assert call(cluster, "node-2").delivered
    assert [part(cluster, node, what) for node in nodes for what in ("routes", "sysctls")] == before


@pytest.mark.parametrize("name", ["bgp-session-lost", "ipam-exhausted", "rp-filter-asymmetry"])
def test_elsewhere_there_is_nothing_to_break(name: str) -> None:
    cluster = scenarios.shop(cni="flannel-host-gw")
    with pytest.raises(NotFound), cluster.fault(name):
        raise AssertionError("not reached")


def test_the_undo_of_lost_sessions_misses_no_rule_that_somebody_took_away() -> None:
    cluster = scenarios.shop(cni="calico")
    with cluster.fault("bgp-session-lost"):
        run(cluster.network, "node-1", "iptables -t raw -F PREROUTING; ip6tables -t raw -F PREROUTING")
    assert call(cluster, "node-2").delivered
