"""Faults of a pod network in the real kernel: what the model loses is lost there, and nothing else is."""

from __future__ import annotations

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.packet.packet import ICMP
from kubenet_lab.twin import Flow, Twin

FAULTS = ("mtu-black-hole", "neighbour-stale", "fdb-entry-missing", "rp-filter-asymmetry")


def flows(cluster: Cluster) -> list[Flow]:
    """Small and big packets from frontend to a backend on each node, and one between the nodes."""
    own = f"default/{cluster.pod('frontend').name}"
    out = [Flow(ns="node-1", proto=ICMP, dst="192.168.1.20", size=56)]
    for pod in cluster.store.list("Pod", "default"):
        if pod.name.startswith("backend"):
            out += [Flow(ns=own, proto=ICMP, dst=pod.ips[0], size=size) for size in (56, 1400)]
            out.append(Flow(ns=own, dst=pod.ips[0], port=8080))
    return out


@pytest.mark.parametrize("fault", FAULTS)
def test_model_and_kernel_lose_the_same(fault: str, kernel: None) -> None:
    cluster = scenarios.shop()
    with cluster.fault(fault), Twin(cluster.network, now=cluster.now) as twin:
        met = twin.compare(flows(cluster))
    for one in met:
        assert one.equal, f"\n{one}"
    ends = {o.end for one in met for o in one.kernel}
    assert len(ends) > 1, f"something is lost, and something is not: {ends}"
