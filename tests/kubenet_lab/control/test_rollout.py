"""Deployments in simulated time: how many pods there are at each second, and what the slices say of them."""

from __future__ import annotations

import math

import pytest

from kubenet_lab import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.control.deployment import MAXIMUM, REVISION, REVISION_HISTORY
from kubenet_lab.control.replay import Moment, changes_only, replay
from kubenet_lab.objects import EndpointSlice, Pod, ReplicaSet

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  minReadySeconds: {min_ready}
  paused: {paused}
  revisionHistoryLimit: {history}
  progressDeadlineSeconds: {deadline}
  strategy: {strategy}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: {grace}
      containers:
      - name: web
        image: "nginx:{image}"
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{port: 8080}}, initialDelaySeconds: {delay}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: {sleep}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


def web(
    image: str = "1",
    replicas: int = 4,
    delay: int = 3,
    sleep: int = 5,
    min_ready: int = 0,
    strategy: str = "{type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
    paused: str = "false",
    history: int = 10,
    grace: int = 30,
    deadline: int = 600,
) -> str:
    return WEB.format(**locals())


def rolling(surge: int | str, unavailable: int | str) -> str:
    return f"{{type: RollingUpdate, rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {unavailable}}}}}"


def sizes(cluster: Cluster) -> dict[str, int]:
    """Wished pods by image."""
    return {
        item.spec.template.spec.containers[0].image.removeprefix("nginx:"): item.spec.replicas or 0
        for item in cluster.store.list(ReplicaSet)
        if item.name.startswith("web-")
    }


def staying(moment: Moment) -> int:
    return sum(pod.state != "Terminating" for pod in moment.pods)


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "least", "most"),
    [
        (4, 1, 0, 4, 5),
        (4, 0, 1, 3, 4),
        (4, "25%", "25%", 3, 5),
        (3, "25%", "25%", 3, 4),
        (10, 3, 2, 8, 13),
        (5, "100%", "0%", 5, 10),
        (1, "25%", "25%", 1, 2),
        (6, 0, "50%", 3, 6),
    ],
)
def test_a_roll_out_keeps_within_its_limits(
    replicas: int, surge: int | str, unavailable: int | str, least: int, most: int
) -> None:
    strategy = rolling(surge, unavailable)
    cluster = Cluster.from_files(web("1", replicas, strategy=strategy))
    cluster.apply(web("2", replicas, strategy=strategy))
    rows = replay(cluster, "web", node="node-1", seconds=90)
    for row in rows:
        assert least <= row.ready, row
        assert staying(row) <= most, row
    assert min(row.ready for row in rows) == least, "it could have gone further"
    assert max(staying(row) for row in rows) == most, "it could have gone further"
    assert {pod.image for pod in rows[-1].pods} == {"nginx:2"}
    assert (rows[-1].ready, len(rows[-1].pods)) == (replicas, replicas)


def test_a_roll_out_second_by_second() -> None:
    cluster = Cluster.from_files(web("1", 2, delay=3, sleep=5, min_ready=2))
    cluster.apply(web("2", 2, delay=3, sleep=5, min_ready=2))
    rows = replay(cluster, "web", node="node-2", seconds=30)
    seen = [
        (
            row.second,
            sorted(f"{pod.image[-1]}{pod.state[0]}{'+' if pod.ready else '-'}" for pod in row.pods),
            sorted((e.ready, e.serving, e.terminating) for e in row.endpoints),
        )
        for row in changes_only(rows)
    ]
    ready, fresh, going = (True, True, False), (False, False, False), (False, True, True)
    assert seen == [
        (0, ["1R+", "1R+", "2R-"], [fresh, ready, ready]),
        (3, ["1R+", "1R+", "2R+"], [ready, ready, ready]),
        # Available after minReadySeconds: an old pod may go, and the next new one comes.
        (5, ["1R+", "1T+", "2R+", "2R-"], [fresh, going, ready, ready]),
        (8, ["1R+", "1T+", "2R+", "2R+"], [going, ready, ready, ready]),
        (10, ["1T+", "2R+", "2R+"], [going, ready, ready]),
        (15, ["2R+", "2R+"], [ready, ready]),
    ]
    # The node's rules name the ready endpoints and nobody else.
    for row in rows:
        targets = {line.rpartition(" ")[2] for line in row.rules if "--to-destination" in line}
        assert targets == {f"{endpoint.address}:8080" for endpoint in row.endpoints if endpoint.ready}, row


def test_long_steps_and_short_ones_end_alike() -> None:
    long, short = (Cluster.from_files(web("1", 4, min_ready=1)) for _ in range(2))
    for cluster in (long, short):
        cluster.apply(web("2", 4, min_ready=1))
    long.advance(60)
    for _ in range(240):
        short.advance(0.25)
    assert long.now == short.now == 60
    for kind in ("Pod", "EndpointSlice", "ReplicaSet", "Deployment"):
        assert long.store.list(kind) == short.store.list(kind)


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        Cluster.from_files(web()).advance(-1)


def test_what_a_cluster_begins_with_has_been_running() -> None:
    cluster = Cluster.from_files(web("1", 4, delay=60, min_ready=30))
    assert cluster.store.get("Deployment", "web").status.available_replicas == 4


def test_recreate_never_runs_both() -> None:
    strategy = "{type: Recreate}"
    cluster = Cluster.from_files(web("1", 3, strategy=strategy))
    cluster.apply(web("2", 3, strategy=strategy))
    rows = replay(cluster, "web", node="node-1", seconds=12)
    for row in rows:
        assert len({pod.image for pod in row.pods}) <= 1, row
    assert [row.second for row in rows if row.ready == 0] == [*range(8)]
    assert rows[-1].ready == 3


def test_a_paused_deployment_does_not_roll_but_scales() -> None:
    cluster = Cluster.from_files(web("1", 3))
    cluster.apply(web("2", 3, paused="true"))
    cluster.advance(30)
    assert sizes(cluster) == {"1": 3}
    cluster.apply(web("2", 5, paused="true"))
    cluster.advance(30)
    assert sizes(cluster) == {"1": 5}
    cluster.apply(web("2", 5))
    cluster.advance(60)
    assert sizes(cluster) == {"1": 0, "2": 5}


def test_scaling_in_the_middle_is_shared_out() -> None:
    """The example of the documentation: 8 old and 5 new that never become ready; 10 -> 15 gives 11 and 7.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#proportional-scaling
    """
    strategy = rolling(3, 2)
    cluster = Cluster.from_files(web("1", 10, strategy=strategy))
    cluster.apply(web("2", 10, strategy=strategy, delay=10_000))
    cluster.advance(30)
    assert sizes(cluster) == {"1": 8, "2": 5}
    cluster.apply(web("2", 15, strategy=strategy, delay=10_000))
    assert sizes(cluster) == {"1": 11, "2": 7}
    assert {item.metadata.annotations[MAXIMUM] for item in _sets(cluster)} == {"18"}


def _sets(cluster: Cluster) -> list[ReplicaSet]:
    return [item for item in cluster.store.list(ReplicaSet) if item.name.startswith("web-")]


def test_a_template_that_comes_back_brings_its_replica_set_back() -> None:
    cluster = Cluster.from_files(web("1", 2))
    for image in ("2", "1"):
        cluster.apply(web(image, 2))
        cluster.advance(60)
    assert sizes(cluster) == {"1": 2, "2": 0}
    first, second = (item.metadata.annotations for item in _sets(cluster))
    assert (first[REVISION], first[REVISION_HISTORY], second[REVISION]) == ("3", "1", "2")
    assert cluster.store.get("Deployment", "web").metadata.annotations[REVISION] == "3"


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_old_replica_sets_are_forgotten(limit: int) -> None:
    cluster = Cluster.from_files(web("1", 1, history=limit))
    for image in "2345":
        cluster.apply(web(image, 1, history=limit))
        cluster.advance(30)
    assert [*sizes(cluster)] == [*"12345"][4 - limit :]


def test_a_roll_out_that_gets_nowhere_says_so() -> None:
    cluster = Cluster.from_files(web("1", 2))
    cluster.apply(web("2", 2, delay=10_000, deadline=60))

    def progressing() -> tuple[str, str]:
        conditions = cluster.store.get("Deployment", "web").status.conditions
        return next((c["status"], c["reason"]) for c in conditions if c["type"] == "Progressing")

    cluster.advance(59)
    assert progressing() == ("True", "ReplicaSetUpdated")
    cluster.advance(1)
    assert progressing() == ("False", "ProgressDeadlineExceeded")


@pytest.mark.parametrize(
    ("stop_seconds", "sleep", "grace", "lives"),
    [
        (0, 0, 30, 0),
        (0, 5, 30, 5),
        (4, 5, 30, 9),
        (math.inf, 0, 30, 30),
        (math.inf, 5, 12, 12),
        (30, 5, 20, 20),
    ],
)
def test_a_deleted_pod_lives_as_long_as_it_needs(
    stop_seconds: float, sleep: int, grace: int, lives: int
) -> None:
    settings = Settings(stop_seconds=stop_seconds)
    cluster = Cluster.from_files(web("1", 1, sleep=sleep, grace=grace), settings=settings)
    (pod,) = [item for item in cluster.store.list(Pod) if item.name.startswith("web-")]
    cluster.advance(100)
    cluster.delete("Pod", pod.name)
    rows = replay(cluster, "web", node="node-1", seconds=40)
    present = [row.second for row in rows if any(item.name == pod.name for item in row.pods)]
    assert present == [*range(lives)]
    for row in rows[:lives]:
        (endpoint,) = [item for item in row.endpoints if item.pod == pod.name]
        assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (False, True, True)
        assert len(row.pods) == 2, "its successor does not wait"
    name = f"default/{pod.name}"
    assert name not in cluster.network.netns


def test_a_terminating_pod_still_answers() -> None:
    cluster = Cluster.from_files(web("1", 1, sleep=10))
    (pod,) = [item for item in cluster.store.list(Pod) if item.name.startswith("web-")]
    cluster.delete("Pod", pod.name)
    assert cluster.connect("node/node-1", f"http://{pod.ips[0]}:8080").delivered
    cluster.advance(10)
    assert not cluster.connect("node/node-1", f"http://{pod.ips[0]}:8080").delivered


def test_a_pod_that_never_ran_goes_at_once() -> None:
    cluster = Cluster.from_files(web("1", 1), settings=Settings(stop_seconds=math.inf))
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: nowhere}\n"
        "spec: {nodeSelector: {disk: none}, containers: [{name: c, image: x}]}"
    )
    cluster.delete("Pod", "nowhere")
    assert cluster.store.find(Pod, "nowhere") is None


def test_slices_of_a_deployment_that_is_gone_are_empty() -> None:
    cluster = Cluster.from_files(web("1", 3, sleep=0))
    cluster.delete("Deployment", "web")
    (found,) = [item for item in cluster.store.list(EndpointSlice) if item.service_name == "web"]
    assert found.endpoints == ()
