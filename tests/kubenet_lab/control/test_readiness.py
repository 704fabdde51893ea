"""When started pods become ready, and where pods are put once there is room."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.control import Settings, deletion
from kubenet_lab.control.readiness import ready_seconds
from kubenet_lab.objects import Container, Node, ObjectMeta, Pod
from kubenet_lab.objects.node import Taint
from kubenet_lab.objects.pod import PodSpec, PodStatus


def pod(*containers: Container, sidecars: tuple[Container, ...] = (), grace: int | None = None) -> Pod:
    spec = PodSpec(containers=containers, init_containers=sidecars, termination_grace_period_seconds=grace)
    return Pod(metadata=ObjectMeta(name="p"), spec=spec, status=PodStatus(phase="Running"))


def probed(
    readiness: dict[str, Any] | None = None, startup: dict[str, Any] | None = None, **more: Any
) -> Container:
    return Container(name="c", readiness_probe=readiness, startup_probe=startup, **more)


@pytest.mark.parametrize(
    ("made", "seconds"),
    [
        (pod(probed()), 0),
        (pod(probed({"periodSeconds": 10})), 0),
        (pod(probed({"initialDelaySeconds": 5, "periodSeconds": 5})), 5),
        (pod(probed({"initialDelaySeconds": 5})), 10),
        (pod(probed({"initialDelaySeconds": 11, "periodSeconds": 4})), 12),
        (pod(probed({"initialDelaySeconds": 2, "periodSeconds": 2, "successThreshold": 3})), 6),
        (pod(probed(startup={"initialDelaySeconds": 20})), 20),
        # The first readiness probe goes out as soon as the startup probe has passed.
        (pod(probed({"initialDelaySeconds": 5}, {"initialDelaySeconds": 7, "periodSeconds": 7})), 7),
        (pod(probed({"initialDelaySeconds": 30}, {"initialDelaySeconds": 7})), 30),
        (pod(probed({"initialDelaySeconds": 10}), probed({"initialDelaySeconds": 20})), 20),
        (
            pod(probed(), sidecars=(probed({"initialDelaySeconds": 10}, restart_policy="Always"),)),
            10,
        ),
        (pod(probed(), sidecars=(probed({"initialDelaySeconds": 10}),)), 0),
    ],
)
def test_probes_say_when_a_pod_becomes_ready(made: Pod, seconds: float) -> None:
    assert ready_seconds(made) == seconds


@pytest.mark.parametrize(
    ("hook", "seconds"),
    [
        (None, 2),
        ({"sleep": {"seconds": 7}}, 9),
        ({"exec": {"command": ["sleep", "7"]}}, 9),
        ({"exec": {"command": ["sh", "-c", "nginx -s quit; sleep 3.5"]}}, 5.5),
        ({"httpGet": {"path": "/quit", "port": 80}}, 2),
    ],
)
def test_hooks_say_how_long_a_deleted_pod_runs_on(hook: dict[str, Any] | None, seconds: float) -> None:
    made = pod(probed(lifecycle=None if hook is None else {"preStop": hook}), probed())
    assert deletion.lasting(made, Settings(stop_seconds=2)) == seconds


POD = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{containers: [{{name: c, image: x}}], {spec}}}
---
"""


def scheduled(cluster: Cluster, name: str) -> tuple[str, str]:
    found = cluster.store.get(Pod, name)
    message = next((c.message for c in found.status.conditions if c.type == "PodScheduled"), "")
    return found.spec.node_name, message.partition(". ")[0]


def test_pods_that_fit_nowhere_are_placed_when_that_changes() -> None:
    cluster = Cluster.from_files(POD.format(name="a", spec="nodeSelector: {disk: ssd}"), nodes=2)
    assert scheduled(cluster, "a") == (
        "",
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector",
    )
    node = cluster.store.get(Node, "node-2")
    cluster.store.update(node.with_metadata(labels={**node.metadata.labels, "disk": "ssd"}))
    cluster.settle()
    assert scheduled(cluster, "a") == ("node-2", "")
    assert cluster.store.get(Pod, "a").ready


def test_a_host_port_that_is_freed_is_given_on() -> None:
    port = "hostNetwork: true, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]"
    text = "".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{port}}}\n---\n" for name in "abc"
    )
    cluster = Cluster.from_files(text, nodes=2)
    assert scheduled(cluster, "c") == (
        "",
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports",
    )
    cluster.delete("Pod", "a")
    assert scheduled(cluster, "c") == ("node-1", "")


def test_taints_keep_pods_away_that_do_not_tolerate_them() -> None:
    cluster = Cluster.from_files(POD.format(name="first", spec="nodeName: node-1"), nodes=2)
    for name in ("node-1", "node-2"):
        node = cluster.store.get(Node, name)
        taint = Taint(key="gpu", value="yes", effect="NoSchedule")
        cluster.store.update(replace(node, spec=replace(node.spec, taints=(taint,))))
    tolerations = "tolerations: [{key: gpu, operator: Equal, value: 'yes'}]"
    cluster.apply(POD.format(name="plain", spec="") + POD.format(name="fond", spec=tolerations))
    assert scheduled(cluster, "plain") == (
        "",
        "0/2 nodes are available: 2 node(s) had untolerated taint(s) {gpu: yes}",
    )
    assert scheduled(cluster, "fond")[0] in ("node-1", "node-2")
    assert scheduled(cluster, "first")[0] == "node-1"
