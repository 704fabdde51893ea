"""Programs that need time from their start until they listen: only a probe finds that out."""

from __future__ import annotations

import pytest

from kubenet_lab import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.objects import Pod

POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: slow}}
spec:
  containers:
  - name: c
    image: x
    ports: [{{containerPort: 8080}}]
    {probe}
"""
EVERY_SECOND = "readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}"
EVERY_OTHER = "readinessProbe: {httpGet: {port: 8080}, initialDelaySeconds: 1, periodSeconds: 3}"


def slow(probe: str, seconds: float = 4) -> Cluster:
    cluster = Cluster.from_files(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}", settings=Settings(start_seconds=seconds)
    )
    cluster.apply(POD.format(probe=probe))
    return cluster


def states(cluster: Cluster, seconds: int) -> list[tuple[bool, bool]]:
    """(ready, answers) of each second."""
    out = []
    for second in range(seconds + 1):
        if second:
            cluster.advance(1)
        pod = cluster.store.get(Pod, "slow")
        answers = cluster.connect("node/node-1", f"http://{pod.ips[0]}:8080").delivered
        out.append((pod.ready, answers))
    return out


@pytest.mark.parametrize(
    ("probe", "ready", "answers"), [("", 0, 4), (EVERY_SECOND, 4, 4), (EVERY_OTHER, 6, 4)]
)
def test_a_started_pod(probe: str, ready: int, answers: int) -> None:
    assert states(slow(probe), 8) == [(s >= ready, s >= answers) for s in range(9)]


def test_a_restarted_program_needs_as_long_again_and_keeps_its_address() -> None:
    cluster = slow(EVERY_SECOND)
    cluster.advance(10)
    before = cluster.pod("slow").ips
    cluster.crash("slow")
    # Seen and started again after a second, listening four seconds later.
    assert states(cluster, 7) == [(s >= 5, s >= 5) for s in range(8)]
    assert cluster.pod("slow").ips == before


def test_a_program_that_ends_before_it_listens_does_so_after_the_next_start() -> None:
    cluster = slow(EVERY_SECOND)
    cluster.advance(2)
    cluster.crash("slow")
    assert states(cluster, 7) == [(s >= 5, s >= 5) for s in range(8)]


def test_a_pod_that_goes_before_it_listens_leaves_nothing() -> None:
    cluster = slow("")
    cluster.advance(2)
    cluster.delete("Pod", "slow")
    cluster.advance(10)
    assert "default/slow" not in cluster.network.netns


def test_what_a_cluster_begins_with_listens() -> None:
    cluster = Cluster.from_files(POD.format(probe=EVERY_SECOND), settings=Settings(start_seconds=4))
    assert states(cluster, 1) == [(True, True)] * 2
