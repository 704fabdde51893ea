"""Chance led, counted, and taken branch by branch."""

from __future__ import annotations

from fractions import Fraction

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb12 import literal, scaled
from kubenet_lab.course.steer import branches, sample, toward

SERVICE, FRONTEND = "10.96.0.100", "10.244.0.2"


@pytest.fixture(scope="module")
def shop() -> Cluster:
    return scenarios.shop()


def test_a_call_goes_where_it_is_led(shop: Cluster) -> None:
    for pod in (p for p in shop.store.list("Pod", "default") if p.metadata.labels["app"] == "backend"):
        trip = shop.connect("frontend", "http://backend", choose=toward(shop, pod.ips[0]))
        assert trip.server == f"default/{pod.name}"


@pytest.mark.parametrize("replicas", [1, 2, 3, 5, 7])
def test_every_branch_together_is_everything_and_each_is_one_nth(replicas: int) -> None:
    shares = branches(scaled(replicas), "node-1", FRONTEND, SERVICE)
    assert len(shares) == replicas
    assert sum(shares.values()) == pytest.approx(1, abs=1e-12)
    for share in shares.values():
        assert share == pytest.approx(1 / replicas, abs=2e-9)


def test_the_documents_probabilities_share_as_arithmetic_says() -> None:
    shares = sorted(branches(literal("0.33", "0.50", ""), "node-1", FRONTEND, SERVICE).values())
    assert shares == pytest.approx([0.33, 0.335, 0.335], abs=1e-9)


def test_what_no_rule_takes_is_counted_too() -> None:
    lost = branches(literal("0.33", "0.33", "0.33"), "node-1", FRONTEND, SERVICE)[""]
    assert lost == pytest.approx(float(Fraction(67, 100) ** 3), abs=1e-9)


def test_counting_follows_the_odds(shop: Cluster) -> None:
    counts = sample(shop, "node-1", FRONTEND, SERVICE, packets=3000, seed=7)
    assert sum(counts.values()) == 3000
    assert all(850 < n < 1150 for n in counts.values())
    assert counts == sample(shop, "node-1", FRONTEND, SERVICE, packets=3000, seed=7)
