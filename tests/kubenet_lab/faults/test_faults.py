"""Each fault: healthy before, broken with exactly this verdict and reason, healthy after its undo."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.errors import InputError, NotFound
from kubenet_lab.faults import FAULTS, Fault, make
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.dump import dump
from kubenet_lab.trip import Trip


def on(cluster: Cluster, node: str) -> str:
    """A backend pod of a node, as an address."""
    pods = [
        p for p in cluster.store.list("Pod", "default") if p.spec.node_name == node and "backend" in p.name
    ]
    return str(pods[0].ips[0])


def first(_rule: Any, _probability: float) -> bool:
    return True


# fault, details, call (cluster -> trip), verdict and reason when broken
ROWS = [
    (
        "pod-not-listening",
        {},
        lambda c: c.connect("frontend", f"tcp://{c.pod('backend').ips[0]}:8080"),
        "refused",
        "no-listener",
    ),
    (
        "fdb-entry-missing",
        {},
        lambda c: c.connect("frontend", f"tcp://{on(c, 'node-2')}:8080"),
        "timed out",
        "no-vtep",
    ),
    (
        "kube-dns-rules-missing",
        {},
        lambda c: c.connect("frontend", "http://backend"),
        "could not resolve",
        "dns-unreachable",
    ),
    (
        "kube-proxy-stopped",
        {},
        lambda c: c.connect("node/node-2", "http://192.168.1.10:10256/healthz"),
        "refused",
        "no-listener",
    ),
    (
        "kube-proxy-stale",
        {},
        lambda c: c.connect("frontend", "http://10.96.0.100", choose=first),
        "timed out",
        "neighbour-failed",
    ),
    (
        "rp-filter-asymmetry",
        {},
        lambda c: c.connect("frontend", f"tcp://{on(c, 'node-2')}:8080"),
        "timed out",
        "rp-filter",
    ),
    (
        "mtu-black-hole",
        {},
        lambda c: c.ping("frontend", on(c, "node-2"), size=1372),
        "timed out",
        "too-big-for-link",
    ),
    (
        "neighbour-stale",
        {},
        lambda c: c.connect("frontend", f"tcp://{on(c, 'node-2')}:8080"),
        "timed out",
        "not-my-mac",
    ),
    (
        "iptables-flushed",
        {},
        lambda c: c.connect("frontend", "http://10.96.0.100"),
        "timed out",
        "no-route",
    ),
]

OF_NAMES = (
    "coredns-replica-silent",
    "coredns-without-api",
    "upstream-dns-silent",
    "dns-packets-lost",
    "parallel-queries-race",
)
"""Their symptoms are lookups over time: tests/kubenet_lab/dns/test_life.py."""

OF_CALICO = ("bgp-session-lost", "ipam-exhausted")
"""They need Calico, or time: tests/kubenet_lab/faults/test_calico.py."""


@pytest.mark.parametrize(("name", "details", "call", "verdict", "reason"), ROWS, ids=[row[0] for row in ROWS])
def test_breaks_and_mends(name: str, details: dict[str, Any], call: Any, verdict: str, reason: str) -> None:
    cluster = scenarios.shop()
    before: Trip = call(cluster)
    assert before.delivered, before.text()
    with cluster.fault(name, **details):
        broken: Trip = call(cluster)
        assert (broken.verdict, broken.reason) == (verdict, reason), broken.text()
        assert str(broken.decided_by), broken.text()
    after: Trip = call(cluster)
    assert after.delivered, after.text()


@pytest.mark.parametrize(("name", "details"), [(row[0], row[1]) for row in ROWS])
def test_undo_leaves_no_trace(name: str, details: dict[str, Any]) -> None:
    cluster = scenarios.shop()
    state = dump(cluster.network)
    with cluster.fault(name, **details):
        assert dump(cluster.network) != state
    assert dump(cluster.network) == state


@pytest.mark.parametrize("name", ["iptables-flushed", "kube-dns-rules-missing", "dns-packets-lost"])
def test_undo_brings_back_no_rule_of_a_pod_that_went_meanwhile(name: str) -> None:
    cluster = scenarios.shop()
    gone = next(pod for pod in cluster.store.list("Pod", "default") if pod.name.startswith("backend"))
    with cluster.fault(name):
        cluster.delete("Pod", gone.name)
        cluster.advance(60)
        served = {
            ip
            for s in cluster.store.list("EndpointSlice", "default")
            for e in s.endpoints
            for ip in e.addresses
        }
        assert gone.ips[0] not in served
    rules = save(cluster.node("node-1").ns.iptables[4])
    assert "--to-destination" in rules
    assert gone.ips[0] not in rules


def test_others_are_not_touched() -> None:
    """A missing FDB entry on node-1 for node-2 leaves node-3 reachable, and node-2's own calls out."""
    cluster = scenarios.shop()
    with cluster.fault("fdb-entry-missing", node="node-1", peer="node-2"):
        assert cluster.connect("frontend", f"tcp://{on(cluster, 'node-3')}:8080").delivered
        assert cluster.ping("node/node-1", "192.168.1.20").delivered


def test_every_fault_has_a_row_and_a_full_docstring() -> None:
    assert {kind.NAME for kind in FAULTS} == {row[0] for row in ROWS} | set(OF_NAMES) | set(OF_CALICO)
    for kind in FAULTS:
        assert kind.TITLE
        for word in ("Symptom:", "Where it lives:", "Which tool shows it:", "Cure:"):
            assert word in (kind.__doc__ or ""), f"{kind.NAME} does not say {word}"
        assert isinstance(make(kind.NAME), Fault)


def test_what_is_not_there_cannot_break() -> None:
    cluster = scenarios.shop()
    with pytest.raises(NotFound, match="did you mean 'fdb-entry-missing'"):
        make("fdb-entry-mising")
    with pytest.raises(NotFound, match="node-9"), cluster.fault("fdb-entry-missing", node="node-9"):
        raise AssertionError("not reached")


def test_an_unknown_detail_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="mtu-black-hole has no detail size; there are: node, mtu"):
        make("mtu-black-hole", size=3)
