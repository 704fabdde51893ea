"""Felix with `nftablesMode: Enabled`: one table a family, kept in step by difference, gone when the mode changes."""

from __future__ import annotations

import re

import pytest

from diagnostics import shell
from kubenet_lab import Cluster, scenarios
from kubenet_lab.cni.calico.nftables import Contents, transaction
from kubenet_lab.kernel.dialects import iptables, nft
from kubenet_lab.kernel.nftables.ruleset import Ruleset
from tests.flows.test_calico import NFT_MODE

LOCK = (
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: lock, namespace: default}\n"
    "spec:\n  podSelector: {matchLabels: {app: database}}\n"
    "  ingress: [{from: [{podSelector: {matchLabels: {app: backend}}}]}]\n"
)
LATE = (
    "apiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: default}\n"
    "spec: {nodeName: node-1, containers: [{name: c, image: x}]}\n"
)


def world(**options: bool) -> Cluster:
    made = scenarios.shop(cni="calico", **options)
    made.apply(NFT_MODE)
    return made


def listing(cluster: Cluster, node: str = "node-3", family: str = "ip") -> str:
    return shell.run(cluster.network, node, f"nft list table {family} calico").text


def test_a_policy_stops_a_packet_and_lets_go_again() -> None:
    cluster = world()
    assert cluster.connect("frontend", "tcp://database:5432").delivered
    cluster.apply(LOCK)
    stopped = cluster.connect("frontend", "tcp://database:5432")
    assert (stopped.verdict, stopped.reason) == ("timed out", "rule-drop"), stopped.text()
    assert "End of tier default. Drop if no policies passed packet" in stopped.text()
    backend = next(pod.name for pod in cluster.store.list("Pod", "default") if pod.name.startswith("backend"))
    assert cluster.connect(backend, "tcp://database:5432").delivered
    cluster.delete("NetworkPolicy", "lock")
    assert cluster.connect("frontend", "tcp://database:5432").delivered


def test_nothing_of_it_is_in_iptables() -> None:
    cluster = world()
    node = cluster.network.ns("node-1")
    assert "cali" not in iptables.save(node.iptables[4])
    assert not [name for name in node.ipsets if name.startswith("cali")]
    assert {key for key in node.nftables.tables if key[1] == "calico"} == {
        ("ip", "calico"),
        ("ip6", "calico"),
    }


def test_the_mode_may_change_back() -> None:
    cluster = scenarios.shop(cni="calico")
    node = cluster.network.ns("node-1")
    cluster.advance(100)
    before = iptables.save(node.iptables[4])
    cluster.apply(NFT_MODE)
    assert "cali" not in iptables.save(node.iptables[4])
    cluster.apply(NFT_MODE.replace("Enabled", "Disabled"))
    assert not node.nftables.tables
    assert sorted(iptables.save(node.iptables[4]).splitlines()) == sorted(before.splitlines())
    assert cluster.connect("frontend", "http://backend").delivered


def test_what_did_not_change_keeps_its_counters() -> None:
    cluster = world()
    cluster.connect("frontend", "tcp://database:5432")
    line = next(one for one in listing(cluster).splitlines() if "jump filter-cali-FORWARD" in one)
    assert "packets 0" not in line
    cluster.apply(LOCK)
    cluster.apply(LATE)
    assert line in listing(cluster).splitlines()


def test_a_pod_that_goes_leaves_nothing() -> None:
    cluster = world()
    before = listing(cluster, "node-1")
    cluster.apply(LATE)
    assert (
        listing(cluster, "node-1").count("goto filter-cali-fw-") == before.count("goto filter-cali-fw-") + 1
    )
    cluster.delete("Pod", "late")
    assert listing(cluster, "node-1") == before


def test_what_somebody_breaks_is_written_again() -> None:
    cluster = world()
    cluster.apply(LOCK)
    before = listing(cluster)
    shell.run(cluster.network, "node-3", "nft flush chain ip calico filter-FORWARD")
    assert cluster.connect("frontend", "tcp://database:5432").delivered, "nobody asks the policy any more"
    cluster.advance(91)
    assert not cluster.connect("frontend", "tcp://database:5432").delivered
    assert sorted(_without_counters(listing(cluster))) == sorted(_without_counters(before))


def _without_counters(text: str) -> list[str]:
    return [re.sub(r"packets \d+ bytes \d+", "", line) for line in text.splitlines()]


def test_over_ipv6() -> None:
    cluster = world(dual_stack=True)
    six = _six(cluster, "database")
    assert cluster.connect("frontend", f"tcp://[{six}]:5432").delivered
    cluster.apply(LOCK)
    stopped = cluster.connect("frontend", f"tcp://[{six}]:5432")
    assert not stopped.delivered
    assert "ip6 calico filter-cali-tw-" in stopped.text()


def _six(cluster: Cluster, start: str) -> str:
    pod = next(pod for pod in cluster.store.list("Pod", "default") if pod.name.startswith(start))
    return next(ip for ip in pod.ips if ":" in ip)


ONE = Contents(
    {"filter-FORWARD": ("counter jump filter-a",), "filter-a": ("ip saddr @s drop",)},
    {"s": ("type ipv4_addr; flags interval", frozenset({"10.0.0.1", "10.0.1.0/24"}))},
    {"filter-m": frozenset({("cali1", "filter-a")})},
)
TWO = Contents(
    {"filter-FORWARD": ("counter jump filter-b",), "filter-b": ("accept",)},
    {"t": ("type ipv4_addr . inet_proto . inet_service", frozenset({"10.0.0.1 . tcp . 80"}))},
    {"filter-m": frozenset({("cali2", "filter-b")})},
)


@pytest.mark.parametrize(("start", "goal"), [(ONE, TWO), (TWO, ONE), (ONE, ONE)])
def test_a_difference_leads_to_the_same_as_a_fresh_start(start: Contents, goal: Contents) -> None:
    step = transaction(start, goal, 4)
    assert (step == "") == (start == goal)
    walked = nft.apply(Ruleset(), transaction(None, start, 4))
    walked = nft.apply(walked, step) if step else walked
    fresh = nft.apply(Ruleset(), transaction(None, goal, 4))
    assert sorted(nft.list_ruleset(walked).splitlines()) == sorted(nft.list_ruleset(fresh).splitlines())
