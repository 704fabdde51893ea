"""How long a node's rules take to follow the slices, and what a caller meets meanwhile."""

from __future__ import annotations

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.control.replay import replay


def named(cluster: Cluster) -> int:
    (moment,) = replay(cluster, "backend", node="node-1", seconds=0)
    return sum("--to-destination" in line for line in moment.rules)


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.apply(
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: backend}}\nspec:\n  replicas: {replicas}\n"
        "  selector: {matchLabels: {app: backend}}\n  template:\n    metadata: {labels: {app: backend}}\n"
        "    spec:\n      containers:\n"
        "      - {name: backend, image: 'shop/backend:1.0', ports: [{name: http, containerPort: 8080}]}"
    )


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_rules_follow_after_their_time(seconds: float) -> None:
    cluster = scenarios.shop(settings=Settings(sync_seconds=seconds))
    assert named(cluster) == 3
    scale(cluster, 5)
    cluster.advance(seconds - 0.25)
    assert named(cluster) == 3
    cluster.advance(0.25)
    assert named(cluster) == 5


def test_what_changes_meanwhile_goes_with_it() -> None:
    cluster = scenarios.shop(settings=Settings(sync_seconds=2))
    assert named(cluster) == 3
    scale(cluster, 5)
    cluster.advance(1)
    scale(cluster, 4)
    cluster.advance(1)
    assert named(cluster) == 4


def test_until_then_calls_go_to_a_pod_that_is_gone() -> None:
    late, prompt = (scenarios.shop(settings=Settings(sync_seconds=s)) for s in (1.0, 0.0))
    for cluster in (late, prompt):
        assert named(cluster) == 3
        cluster.delete("Pod", cluster.pod("backend").name)
    assert not all(late.connect("frontend", "http://10.96.0.100").delivered for _ in range(12))
    assert all(prompt.connect("frontend", "http://10.96.0.100").delivered for _ in range(12))
    late.advance(1)
    assert all(late.connect("frontend", "http://10.96.0.100").delivered for _ in range(12))


def test_a_failed_apply_leaves_the_rules_right() -> None:
    cluster = scenarios.shop(settings=Settings(sync_seconds=1))
    scale(cluster, 4)
    with pytest.raises(Exception, match="clusterIP"):
        cluster.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: 10.9.9.9, ports: [{port: 1}]}"
        )
    cluster.advance(2)
    assert named(cluster) == 4
    assert all(cluster.connect("frontend", "http://10.96.0.100").delivered for _ in range(12))
