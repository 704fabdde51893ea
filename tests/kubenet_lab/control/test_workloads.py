"""StatefulSets, DaemonSets and Jobs: which pods there are, in which order they come and go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.objects import EndpointSlice, Node, Pod, from_manifest, make_node
from kubenet_lab.objects.node import Taint

DB = """\
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: {replicas}
  serviceName: db
  podManagementPolicy: {policy}
  updateStrategy: {strategy}
  ordinals: {{start: {start}}}
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      containers:
      - name: db
        image: "postgres:{image}"
        ports: [{{name: sql, containerPort: 5432}}]
        readinessProbe: {{tcpSocket: {{port: 5432}}, initialDelaySeconds: 2, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: {sleep}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: db}}
spec: {{clusterIP: None, selector: {{app: db}}, ports: [{{name: sql, port: 5432, targetPort: sql}}]}}
"""
NOTHING = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"


def db(
    image: str = "1",
    replicas: int = 3,
    policy: str = "OrderedReady",
    strategy: str = "{type: RollingUpdate}",
    start: int = 0,
    sleep: int = 0,
) -> str:
    return DB.format(**locals())


def pods(cluster: Cluster, prefix: str) -> list[Pod]:
    return sorted((p for p in cluster.store.list(Pod) if p.name.startswith(prefix)), key=lambda p: p.name)


def state(cluster: Cluster, prefix: str = "db-") -> list[str]:
    """Each pod as number, image, and + (ready), - (not) or x (terminating)."""
    return [
        f"{pod.name.removeprefix(prefix)}:{pod.spec.containers[0].image[-1]}"
        + ("x" if pod.terminating else "+" if pod.ready else "-")
        for pod in pods(cluster, prefix)
    ]


def watch(cluster: Cluster, seconds: int, prefix: str = "db-") -> list[tuple[int, list[str]]]:
    """The states at the seconds at which they changed."""
    rows = [(0, state(cluster, prefix))]
    for second in range(1, seconds + 1):
        cluster.advance(1)
        if state(cluster, prefix) != rows[-1][1]:
            rows.append((second, state(cluster, prefix)))
    return rows


def test_one_after_the_other() -> None:
    cluster = Cluster.from_files(NOTHING)
    cluster.apply(db())
    assert watch(cluster, 10) == [
        (0, ["0:1-"]),
        (2, ["0:1+", "1:1-"]),
        (4, ["0:1+", "1:1+", "2:1-"]),
        (6, ["0:1+", "1:1+", "2:1+"]),
    ]
    status = cluster.store.get("StatefulSet", "db").status
    assert (status.replicas, status.ready_replicas, status.current_replicas, status.updated_replicas) == (
        3,
        3,
        3,
        3,
    )
    assert status.current_revision == status.update_revision


def test_all_at_once() -> None:
    cluster = Cluster.from_files(NOTHING)
    cluster.apply(db(policy="Parallel"))
    assert watch(cluster, 5) == [(0, ["0:1-", "1:1-", "2:1-"]), (2, ["0:1+", "1:1+", "2:1+"])]


def test_pods_have_names_of_their_own() -> None:
    cluster = Cluster.from_files(db(start=5, replicas=2))
    (first, _) = pods(cluster, "db-")
    assert (first.name, first.spec.hostname, first.spec.subdomain) == ("db-5", "db-5", "db")
    assert first.metadata.labels["statefulset.kubernetes.io/pod-name"] == "db-5"
    assert first.metadata.labels["apps.kubernetes.io/pod-index"] == "5"
    (found,) = [item for item in cluster.store.list(EndpointSlice) if item.service_name == "db"]
    assert sorted(str(endpoint.hostname) for endpoint in found.endpoints) == ["db-5", "db-6"]
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: me}\nspec: {containers: [{name: c, image: x}]}"
    )
    assert cluster.connect("me", "tcp://db-6.db:5432").server == "default/db-6"


def test_a_pod_that_was_deleted_comes_back_under_its_name() -> None:
    cluster = Cluster.from_files(db())
    before = {pod.name: pod.metadata.uid for pod in pods(cluster, "db-")}
    cluster.delete("Pod", "db-1")
    cluster.advance(10)
    after = {pod.name: pod.metadata.uid for pod in pods(cluster, "db-")}
    assert [name for name in after if after[name] != before[name]] == ["db-1"]


def test_updates_go_from_the_highest_down() -> None:
    cluster = Cluster.from_files(db(sleep=1))
    cluster.apply(db("2", sleep=1))
    assert watch(cluster, 20) == [
        (0, ["0:1+", "1:1+", "2:1x"]),
        (1, ["0:1+", "1:1+", "2:2-"]),
        (3, ["0:1+", "1:1x", "2:2+"]),
        (4, ["0:1+", "1:2-", "2:2+"]),
        (6, ["0:1x", "1:2+", "2:2+"]),
        (7, ["0:2-", "1:2+", "2:2+"]),
        (9, ["0:2+", "1:2+", "2:2+"]),
    ]


def test_a_partition_holds_the_lower_ones_back() -> None:
    strategy = "{type: RollingUpdate, rollingUpdate: {partition: 2}}"
    cluster = Cluster.from_files(db())
    cluster.apply(db("2", strategy=strategy))
    cluster.advance(20)
    assert state(cluster) == ["0:1+", "1:1+", "2:2+"]
    # A pod below the partition comes back as it was.
    cluster.delete("Pod", "db-0")
    cluster.advance(5)
    assert state(cluster) == ["0:1+", "1:1+", "2:2+"]
    status = cluster.store.get("StatefulSet", "db").status
    assert status.current_revision != status.update_revision
    assert (status.current_replicas, status.updated_replicas) == (2, 1)


def test_on_delete_waits_for_somebody_to_delete() -> None:
    cluster = Cluster.from_files(db())
    cluster.apply(db("2", strategy="{type: OnDelete}"))
    cluster.advance(20)
    assert state(cluster) == ["0:1+", "1:1+", "2:1+"]
    cluster.delete("Pod", "db-1")
    cluster.advance(5)
    assert state(cluster) == ["0:1+", "1:2+", "2:1+"]


def test_several_may_be_missing_when_it_says_so() -> None:
    strategy = "{type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}}"
    cluster = Cluster.from_files(db(sleep=1, policy="Parallel", strategy=strategy))
    cluster.apply(db("2", sleep=1, policy="Parallel", strategy=strategy))
    assert watch(cluster, 20)[:2] == [(0, ["0:1+", "1:1x", "2:1x"]), (1, ["0:1+", "1:2-", "2:2-"])]
    assert state(cluster) == ["0:2+", "1:2+", "2:2+"]


def test_scaling_down_takes_the_highest_first_and_waits_for_it() -> None:
    cluster = Cluster.from_files(db(sleep=3))
    cluster.apply(db(replicas=1, sleep=3))
    assert watch(cluster, 10) == [
        (0, ["0:1+", "1:1+", "2:1x"]),
        (3, ["0:1+", "1:1x"]),
        (6, ["0:1+"]),
    ]


AGENT = """\
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  updateStrategy: {strategy}
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec:
      {extra}
      containers:
      - name: agent
        image: "agent:{image}"
        ports: [{{containerPort: 9100}}]
        readinessProbe: {{tcpSocket: {{port: 9100}}, initialDelaySeconds: 2, periodSeconds: 1}}
"""


def agent(image: str = "1", strategy: str = "{type: RollingUpdate}", extra: str = "") -> str:
    return AGENT.format(**locals())


def by_node(cluster: Cluster) -> dict[str, str]:
    """Images by node; + is ready."""
    found: dict[str, str] = {}
    for pod in pods(cluster, "agent-"):
        text = pod.spec.containers[0].image[-1] + ("+" if pod.ready else "-")
        found[pod.spec.node_name] = " ".join(sorted(filter(None, [found.get(pod.spec.node_name), text])))
    return dict(sorted(found.items()))


def test_one_pod_on_every_node() -> None:
    cluster = Cluster.from_files(agent())
    assert by_node(cluster) == {"node-1": "1+", "node-2": "1+", "node-3": "1+"}
    cluster.apply_objects([make_node("node-4", ("192.168.1.40",))])
    assert [*by_node(cluster)] == ["node-1", "node-2", "node-3", "node-4"]
    status = cluster.store.get("DaemonSet", "agent").status
    assert (status.desired_number_scheduled, status.current_number_scheduled, status.number_ready) == (
        4,
        4,
        3,
    )
    cluster.advance(2)
    assert cluster.store.get("DaemonSet", "agent").status.number_ready == 4


@pytest.mark.parametrize(
    ("extra", "nodes"),
    [
        ("nodeSelector: {topology.kubernetes.io/zone: zone-b}", ["node-2"]),
        ("", ["node-1", "node-2"]),
        ("tolerations: [{key: dedicated, operator: Exists}]", ["node-1", "node-2", "node-3"]),
        (
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "
            "[{matchExpressions: [{key: kubernetes.io/hostname, operator: NotIn, values: [node-1]}]}]}}}",
            ["node-2"],
        ),
    ],
)
def test_nodes_that_are_meant(extra: str, nodes: list[str]) -> None:
    cluster = Cluster.from_files(NOTHING)
    node = cluster.store.get(Node, "node-3")
    cluster.store.update(
        replace(node, spec=replace(node.spec, taints=(Taint(key="dedicated", effect="NoSchedule"),)))
    )
    node = cluster.store.get(Node, "node-1")
    cluster.store.update(replace(node, spec=replace(node.spec, unschedulable=True)))
    cluster.apply(agent(extra=extra))
    assert [*by_node(cluster)] == nodes


def test_a_taint_that_comes_drives_the_pod_out() -> None:
    cluster = Cluster.from_files(agent())
    node = cluster.store.get(Node, "node-2")
    cluster.store.update(replace(node, spec=replace(node.spec, taints=(Taint(key="x", effect="NoExecute"),))))
    cluster.settle()
    assert [*by_node(cluster)] == ["node-1", "node-3"]


@pytest.mark.parametrize(
    ("strategy", "least", "most"),
    [
        ("{type: RollingUpdate}", 2, 3),
        ("{type: RollingUpdate, rollingUpdate: {maxUnavailable: 2}}", 1, 3),
        ("{type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", 3, 4),
    ],
)
def test_agents_are_rolled_node_by_node(strategy: str, least: int, most: int) -> None:
    cluster = Cluster.from_files(agent(strategy=strategy))
    cluster.apply(agent("2", strategy=strategy))
    rows = []
    for _ in range(20):
        found = pods(cluster, "agent-")
        rows.append((sum(pod.ready for pod in found), len(found)))
        cluster.advance(1)
    assert (min(ready for ready, _ in rows), max(count for _, count in rows)) == (least, most), rows
    assert by_node(cluster) == {"node-1": "2+", "node-2": "2+", "node-3": "2+"}


def test_agents_on_delete() -> None:
    cluster = Cluster.from_files(agent())
    cluster.apply(agent("2", strategy="{type: OnDelete}"))
    cluster.advance(10)
    assert set(by_node(cluster).values()) == {"1+"}
    cluster.delete("Pod", next(pod.name for pod in pods(cluster, "agent-") if pod.spec.node_name == "node-2"))
    cluster.advance(10)
    assert by_node(cluster) == {"node-1": "1+", "node-2": "2+", "node-3": "1+"}


JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {{name: sum}}
spec:
  {spec}
  template:
    metadata: {{labels: {{app: sum}}}}
    spec: {{restartPolicy: Never, containers: [{{name: c, image: python}}]}}
"""


def end(cluster: Cluster, phase: str, count: int = 1) -> None:
    """Let the first running pods of the Job end."""
    running = [pod for pod in pods(cluster, "sum-") if not pod.finished]
    for pod in running[:count]:
        cluster.store.update(pod.with_status(phase=phase, ready=False))
    cluster.settle()


def verdict(cluster: Cluster) -> str:
    conditions = cluster.store.get("Job", "sum").status.conditions
    return next((f"{c['type']} {c['reason']}" for c in conditions if c["type"] in ("Complete", "Failed")), "")


def counts(cluster: Cluster) -> tuple[int, int, int]:
    status = cluster.store.get("Job", "sum").status
    return (status.active, status.succeeded, status.failed)


def test_a_job_runs_as_many_as_it_may_until_enough_succeeded() -> None:
    cluster = Cluster.from_files(JOB.format(spec="completions: 3\n  parallelism: 2"))
    assert counts(cluster) == (2, 0, 0)
    end(cluster, "Succeeded")
    assert counts(cluster) == (2, 1, 0)
    end(cluster, "Succeeded")
    assert counts(cluster) == (1, 2, 0)
    end(cluster, "Failed")
    assert counts(cluster) == (1, 2, 1)
    end(cluster, "Succeeded")
    assert (counts(cluster), verdict(cluster)) == ((0, 3, 1), "Complete CompletionsReached")


def test_indexed_jobs_number_their_pods() -> None:
    cluster = Cluster.from_files(
        JOB.format(spec="completions: 3\n  parallelism: 2\n  completionMode: Indexed")
    )
    first, second = pods(cluster, "sum-")
    assert [first.spec.hostname, second.spec.hostname] == ["sum-0", "sum-1"]
    assert first.name.startswith("sum-0-")
    end(cluster, "Failed")
    assert sorted(pod.spec.hostname for pod in pods(cluster, "sum-") if not pod.finished) == [
        "sum-0",
        "sum-1",
    ]
    end(cluster, "Succeeded", 2)
    end(cluster, "Succeeded")
    assert cluster.store.get("Job", "sum").status.completed_indexes == "0-2"
    assert verdict(cluster) == "Complete CompletionsReached"


def test_too_many_failures_end_a_job() -> None:
    cluster = Cluster.from_files(JOB.format(spec="backoffLimit: 2"))
    for _ in range(3):
        assert verdict(cluster) == ""
        end(cluster, "Failed")
    assert (counts(cluster), verdict(cluster)) == ((0, 0, 3), "Failed BackoffLimitExceeded")


def test_a_deadline_ends_a_job_and_a_time_to_live_takes_it_away() -> None:
    cluster = Cluster.from_files(JOB.format(spec="activeDeadlineSeconds: 20\n  ttlSecondsAfterFinished: 30"))
    cluster.advance(19)
    assert verdict(cluster) == ""
    cluster.advance(1)
    assert (counts(cluster), verdict(cluster)) == ((0, 0, 0), "Failed DeadlineExceeded")
    cluster.advance(29)
    assert cluster.store.find("Job", "sum") is not None
    cluster.advance(1)
    assert cluster.store.find("Job", "sum") is None


def test_a_suspended_job_waits() -> None:
    cluster = Cluster.from_files(JOB.format(spec="suspend: true"))
    assert (pods(cluster, "sum-"), counts(cluster)) == ([], (0, 0, 0))
    cluster.apply(JOB.format(spec="suspend: false"))
    assert counts(cluster) == (1, 0, 0)


WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: "nginx:1"}]}
"""
OURS = {
    "pod-template-hash",
    "controller-revision-hash",
}
"""Labels whose values a real cluster computes differently."""


@pytest.mark.parametrize("revisions", [True, False])
def test_a_dump_is_not_rolled_out_anew(revisions: bool) -> None:
    """Real hashes differ from the model's; a dump's pods, and the workloads that made them, stay as they are."""
    first = Cluster.from_files(WEB, db(), agent())
    text = []
    for kind in first.store.kinds():
        for obj in first.store.list(kind):
            if kind != "ControllerRevision" or revisions:
                text.append(obj)
    names = {
        value: f"real{number}"
        for number, value in enumerate(
            sorted({v for p in first.store.list(Pod) for k, v in p.metadata.labels.items() if k in OURS})
        )
    }
    body = msgspec.json.encode([obj.to_manifest() for obj in text]).decode()
    for value, real in names.items():
        bare = value.rpartition("-")[2]
        body = body.replace(bare, real)
    again = Cluster.from_objects([from_manifest(item) for item in msgspec.json.decode(body)])

    def shape(cluster: Cluster) -> list[Any]:
        return sorted((pod.metadata.uid, pod.spec.node_name, pod.ips) for pod in cluster.store.list(Pod))

    assert shape(again) == shape(first)
    again.advance(100)
    assert shape(again) == shape(first)
    again.apply(WEB.replace("nginx:1", "nginx:2"), db("2"), agent("2"))
    again.advance(100)
    images = {
        pod.spec.containers[0].image for prefix in ("web-", "db-", "agent-") for pod in pods(again, prefix)
    }
    assert images == {"nginx:2", "postgres:2", "agent:2"}
