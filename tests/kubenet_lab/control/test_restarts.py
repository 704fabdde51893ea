"""Containers that end: when they are started again, what is left of the pod meanwhile, and what is said of it."""

from __future__ import annotations

import contextlib
import math
import random
from typing import Any

import pytest
from msgspec.structs import replace

from diagnostics.kubectl.kinds import pod_state
from kubenet_lab import Cluster, NotFound
from kubenet_lab.cni.runtime import CONF_DIR
from kubenet_lab.control import Settings
from kubenet_lab.control.restarts import BackOff, duration, next_back_off, waits
from kubenet_lab.errors import NotRunning
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import EndpointSlice, Pod
from kubenet_lab.objects.pod import PodCondition, with_condition
from kubenet_lab.packet.packet import TCP

WEB = """\
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  nodeName: node-2
  {spec}
  containers:
  - {{name: web, image: nginx, ports: [{{containerPort: 8080}}], {container}}}
  {more}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{containers: [{{name: sh, image: busybox}}]}}
"""


def world(spec: str = "", container: str = "", more: str = "", **options: Any) -> Cluster:
    return Cluster.from_files(WEB.format(spec=spec, container=container, more=more), **options)


def web(cluster: Cluster) -> Pod:
    return cluster.store.get(Pod, "web")


def shown(cluster: Cluster, name: str = "web") -> tuple[str, str, int]:
    """STATUS, READY and RESTARTS of `kubectl get pods`."""
    state = pod_state(cluster.store.get(Pod, name).to_manifest())
    return state.reason, f"{state.ready}/{state.total}", state.restarts


def calls(cluster: Cluster) -> str:
    return cluster.connect("node/node-1", f"http://{web(cluster).ips[0]}:8080").verdict


def endpoints(cluster: Cluster) -> list[tuple[bool, bool, bool]]:
    (found,) = [item for item in cluster.store.list(EndpointSlice) if item.service_name == "web"]
    return [(e.ready, e.serving, e.terminating) for e in found.endpoints]


def said(cluster: Cluster, *reasons: str) -> list[tuple[float, str]]:
    return [(e.at, f"{e.reason}: {e.message}") for _, e in cluster.events if e.reason in reasons]


def condition(cluster: Cluster, kind: str) -> tuple[str, str, str]:
    (found,) = [c for c in web(cluster).status.conditions if c.type == kind]
    return found.status, found.reason, found.message


def test_a_program_that_keeps_ending_waits_longer_and_longer() -> None:
    """10 s, 20 s, 40 s, 80 s, 160 s, then 300 s; the first restart waits for the kubelet to look."""
    cluster = world()
    downs = []
    for _ in range(8):
        cluster.crash("web")
        begin = cluster.now
        while not web(cluster).ready:
            cluster.advance(1)
        downs.append(cluster.now - begin)
    assert downs == [1, 10, 20, 40, 80, 160, 300, 300]
    assert web(cluster).status.container_statuses[0].restart_count == 8


def test_ten_good_minutes_let_the_wait_begin_again() -> None:
    cluster = world()
    for expected, good in ((1, 0), (10, 0), (20, 590), (40, 601), (1, 0), (10, 0)):
        cluster.crash("web")
        begin = cluster.now
        while not web(cluster).ready:
            cluster.advance(1)
        assert cluster.now - begin == expected
        cluster.advance(good)


@pytest.mark.parametrize(
    ("back_off", "ended", "now", "wait", "following"),
    [
        (None, 5, 5, False, BackOff(10, 5)),
        (BackOff(10, 0), 3, 12.9, True, BackOff(20, 12.9)),
        (BackOff(10, 0), 3, 13, False, BackOff(20, 13)),
        (BackOff(160, 0), 3, 200, False, BackOff(300, 200)),
        (BackOff(300, 0), 600, 600, True, BackOff(300, 600)),
        (BackOff(300, 0), 601, 601, False, BackOff(10, 601)),
    ],
)
def test_back_off(back_off: BackOff | None, ended: float, now: float, wait: bool, following: BackOff) -> None:
    assert waits(back_off, ended, now) is wait
    assert next_back_off(back_off, ended, now) == following


def test_durations_are_printed_as_go_does() -> None:
    assert [duration(s) for s in (10, 40, 80, 160, 300)] == ["10s", "40s", "1m20s", "2m40s", "5m0s"]


def test_a_pod_keeps_its_network_while_its_container_is_down() -> None:
    cluster = world()
    pod = web(cluster)
    space = cluster.network.ns("default/web")
    assert calls(cluster) == "connected"
    cluster.crash("web")
    cluster.advance(1)
    cluster.crash("web")
    # Down: the address answers, and nothing listens there.
    assert (web(cluster).ready, web(cluster).ips) == (False, pod.ips)
    assert calls(cluster) == "refused"
    assert cluster.ping("client", pod.ips[0]).delivered
    assert endpoints(cluster) == [(False, False, False)]
    assert cluster.connect("client", "http://web").verdict == "refused"
    cluster.advance(10)
    assert (web(cluster).ready, web(cluster).ips) == (True, pod.ips)
    assert cluster.network.ns("default/web") is space
    assert calls(cluster) == "connected"
    assert endpoints(cluster) == [(True, True, False)]
    assert cluster.connect("client", "http://web").delivered


def test_what_kubectl_shows_of_a_crash_second_by_second() -> None:
    cluster = world()
    rows = [(cluster.now, *shown(cluster))]

    def note() -> None:
        row = shown(cluster)
        if row != rows[-1][1:]:
            rows.append((cluster.now, *row))

    for second in range(40):
        if second in (2, 5):
            cluster.crash("web", exit_code=3)
            note()
        cluster.advance(1)
        note()
    assert rows == [
        (0, "Running", "1/1", 0),
        (2, "Error", "0/1", 0),
        (3, "Running", "1/1", 1),
        (5, "Error", "0/1", 1),
        (6, "CrashLoopBackOff", "0/1", 1),
        (15, "Running", "1/1", 2),
    ]
    uid = web(cluster).metadata.uid
    assert said(cluster, "BackOff", "Started") == [
        (3, "Started: Container started"),
        (6, f"BackOff: Back-off restarting failed container web in pod web_default({uid})"),
        (15, "Started: Container started"),
    ]
    status = web(cluster).status.container_statuses[0]
    assert status.state == {"running": {"startedAt": "2026-01-01T00:00:15Z"}}
    assert status.last_state == {
        "terminated": {
            "exitCode": 3,
            "reason": "Error",
            "startedAt": "2026-01-01T00:00:03Z",
            "finishedAt": "2026-01-01T00:00:05Z",
        }
    }


def test_the_waiting_state_says_how_long() -> None:
    cluster = world()
    for _ in range(2):
        cluster.crash("web")
        cluster.advance(1)
    uid = web(cluster).metadata.uid
    message = f"back-off 10s restarting failed container=web pod=web_default({uid})"
    assert web(cluster).status.container_statuses[0].state == {
        "waiting": {"reason": "CrashLoopBackOff", "message": message}
    }


@pytest.mark.parametrize(
    ("policy", "exit_code", "phase", "restarts", "reason"),
    [
        ("Always", 0, "Running", 1, ""),
        ("Always", 1, "Running", 1, ""),
        ("OnFailure", 1, "Running", 1, ""),
        ("OnFailure", 0, "Succeeded", 0, "PodCompleted"),
        ("Never", 0, "Succeeded", 0, "PodCompleted"),
        ("Never", 1, "Failed", 0, "PodFailed"),
    ],
)
def test_the_restart_policy_decides(
    policy: str, exit_code: int, phase: str, restarts: int, reason: str
) -> None:
    cluster = world(f"restartPolicy: {policy}")
    cluster.crash("web", exit_code=exit_code)
    cluster.advance(60)
    assert web(cluster).status.phase == phase
    assert web(cluster).status.container_statuses[0].restart_count == restarts
    ended = bool(reason)
    for kind in ("Ready", "ContainersReady"):
        assert condition(cluster, kind)[:2] == ("False" if ended else "True", reason)
    assert condition(cluster, "PodScheduled")[0] == "True"
    assert condition(cluster, "Initialized")[0] == "True"
    assert ("default/web" in cluster.network.netns) is not ended
    assert endpoints(cluster) == ([] if ended else [(True, True, False)])
    if ended:
        with pytest.raises(NotRunning):
            cluster.crash("web")


def test_one_container_of_two() -> None:
    cluster = world("restartPolicy: Never", more="- {name: log, image: x, ports: [{containerPort: 9000}]}")
    cluster.crash("web", "log", exit_code=0)
    assert web(cluster).status.phase == "Running"
    assert condition(cluster, "ContainersReady") == (
        "False",
        "ContainersNotReady",
        "containers with unready status: [log]",
    )
    assert calls(cluster) == "connected"
    assert cluster.connect("client", f"tcp://{web(cluster).ips[0]}:9000").verdict == "refused"
    cluster.crash("web", "web", exit_code=1)
    assert web(cluster).status.phase == "Failed"


def test_a_program_that_never_listens_is_killed_again_and_again() -> None:
    """The example everybody meets: liveness, and CrashLoopBackOff only once the wait outgrows the probe."""
    cluster = world(
        container="livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 10, failureThreshold: 3}"
    )
    rows: list[tuple[float, str, int]] = []
    with cluster.fault("pod-not-listening", pod="web"):
        for _ in range(310):
            status, _, restarts = shown(cluster)
            if not rows or rows[-1][1:] != (status, restarts):
                rows.append((cluster.now, status, restarts))
            cluster.advance(1)
    assert rows == [
        (0, "Running", 0),
        (30, "Running", 1),
        (60, "Running", 2),
        (90, "Running", 3),
        (120, "Running", 4),
        (150, "CrashLoopBackOff", 4),
        (190, "Running", 5),
        (220, "CrashLoopBackOff", 5),
        (300, "Running", 6),
    ]
    killed = [at for at, _ in said(cluster, "Killing")]
    assert killed == [30, 60, 90, 120, 150, 220]
    assert said(cluster, "Killing")[0][1] == "Killing: Container web failed liveness probe, will be restarted"


def test_a_restart_cures_a_program_that_hangs() -> None:
    """It takes no connection: SYNs are dropped, its probe times out, and the next one has an empty queue."""
    cluster = world(
        container="livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 5, failureThreshold: 2}"
    )
    space = cluster.network.ns("default/web")
    (socket,) = space.sockets[TCP, 8080]
    space.sockets[TCP, 8080] = (replace(socket, backlog_full=True),)
    cluster.advance(10)
    assert calls(cluster) == "timed out"
    cluster.advance(1)
    assert calls(cluster) == "connected"
    assert shown(cluster) == ("Running", "1/1", 1)


def test_a_fault_that_is_mended_while_the_program_is_down_is_mended_for_the_next_one() -> None:
    cluster = world()
    with cluster.fault("pod-not-listening", pod="web"):
        for _ in range(2):
            cluster.crash("web")
            cluster.advance(1)
            assert calls(cluster) == "refused"
    cluster.advance(1)
    assert (shown(cluster)[0], calls(cluster)) == ("CrashLoopBackOff", "refused")
    cluster.advance(8)
    assert (shown(cluster)[0], calls(cluster)) == ("Running", "connected")


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_liveness_and_the_restart_policy(policy: str) -> None:
    probe = "livenessProbe: {exec: {command: ['false']}, periodSeconds: 5, failureThreshold: 1}"
    cluster = world(f"restartPolicy: {policy}", container=probe)
    cluster.advance(5)
    if policy == "Never":
        assert web(cluster).finished
        assert said(cluster, "Killing") == [(5, "Killing: Container web failed liveness probe")]
    else:
        assert shown(cluster) == ("Running", "1/1", 1)


@pytest.mark.parametrize(
    ("hook", "probe_grace", "stop_seconds", "lasts", "exit_code"),
    [
        ("", "", 0, 0, 0),
        ("lifecycle: {preStop: {sleep: {seconds: 4}}}", "", 0, 4, 0),
        ("", "", 3, 3, 0),
        ("lifecycle: {preStop: {sleep: {seconds: 4}}}", "", 3, 7, 0),
        ("", "", math.inf, 20, 137),
        ("", ", terminationGracePeriodSeconds: 6", math.inf, 6, 137),
    ],
)
def test_a_killed_container_has_its_grace_period(
    hook: str, probe_grace: str, stop_seconds: float, lasts: int, exit_code: int
) -> None:
    """While it ends it still answers, and still counts as ready."""
    probe = f"livenessProbe: {{exec: {{command: ['false']}}, periodSeconds: 50, failureThreshold: 1{probe_grace}}}"
    cluster = world(
        "terminationGracePeriodSeconds: 20",
        container=", ".join(filter(None, (probe, hook))),
        settings=Settings(stop_seconds=stop_seconds),
    )
    cluster.advance(49)
    for _ in range(lasts):
        cluster.advance(1)
        assert calls(cluster) == "connected"
        assert shown(cluster) == ("Running", "1/1", 0)
    cluster.advance(1)
    status = web(cluster).status.container_statuses[0]
    assert (status.restart_count, status.last_state["terminated"]["exitCode"]) == (1, exit_code)
    assert (
        status.last_state["terminated"]["finishedAt"]
        == f"2026-01-01T00:{(50 + lasts) // 60:02}:{(50 + lasts) % 60:02}Z"
    )


# -- the end of pods --------------------------------------------------------------------------------------------------


def test_a_deleted_pod_is_told_to_stop_and_its_sockets_close_at_the_end() -> None:
    cluster = world(container="lifecycle: {preStop: {sleep: {seconds: 5}}}")
    ip = web(cluster).ips[0]
    cluster.delete("Pod", "web")
    assert said(cluster, "Killing") == [(0, "Killing: Stopping container web")]
    for _ in range(5):
        assert endpoints(cluster) == [(False, True, True)]
        assert calls(cluster) == "connected"
        cluster.advance(1)
    assert cluster.store.find(Pod, "web") is None
    assert endpoints(cluster) == []
    assert not cluster.connect("node/node-1", f"http://{ip}:8080").delivered
    assert said(cluster, "Killing") == [(0, "Killing: Stopping container web")]


def test_a_pod_that_goes_at_once_was_told_too() -> None:
    cluster = world(more="- {name: log, image: x}")
    cluster.delete("Pod", "web")
    assert cluster.store.find(Pod, "web") is None
    assert said(cluster, "Killing") == [
        (0, "Killing: Stopping container web"),
        (0, "Killing: Stopping container log"),
    ]


def test_each_container_ends_in_its_own_time() -> None:
    """One has a hook and serves on, the other does not: the pod is no longer ready, so no longer serving."""
    log = (
        "- {name: log, image: x, ports: [{containerPort: 9000}], lifecycle: {preStop: {sleep: {seconds: 5}}}}"
    )
    cluster = world(more=log)
    ip = web(cluster).ips[0]
    cluster.delete("Pod", "web")
    assert calls(cluster) == "refused"
    assert cluster.connect("client", f"tcp://{ip}:9000").delivered
    assert endpoints(cluster) == [(False, False, True)]
    cluster.advance(4)
    assert cluster.connect("client", f"tcp://{ip}:9000").delivered
    assert web(cluster).status.container_statuses[0].state["terminated"]["reason"] == "Completed"
    cluster.advance(1)
    assert cluster.store.find(Pod, "web") is None


def test_a_pod_that_ends_is_asked_whether_it_is_ready_but_not_whether_it_is_alive() -> None:
    probe = "{tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 2}"
    cluster = world(
        container=f"readinessProbe: {probe}, livenessProbe: {probe}, "
        "lifecycle: {preStop: {sleep: {seconds: 20}}}"
    )
    cluster.delete("Pod", "web")
    with cluster.fault("pod-not-listening", pod="web"):
        cluster.advance(1)
        assert endpoints(cluster) == [(False, True, True)]
        cluster.advance(1)
        assert endpoints(cluster) == [(False, False, True)]
        cluster.advance(8)
    assert {message.split()[1] for _, message in said(cluster, "Unhealthy")} == {"Readiness"}
    assert web(cluster).status.container_statuses[0].restart_count == 0


def test_a_container_that_ends_in_a_deleted_pod_is_not_started_again() -> None:
    log = "- {name: log, image: x, lifecycle: {preStop: {sleep: {seconds: 20}}}}"
    cluster = world(container="lifecycle: {preStop: {sleep: {seconds: 20}}}", more=log)
    cluster.delete("Pod", "web")
    cluster.crash("web", "web")
    cluster.advance(15)
    assert web(cluster).status.container_statuses[0].restart_count == 0
    assert calls(cluster) == "refused"
    # Nothing of it runs any more: there is nothing to wait for.
    cluster.crash("web", "log")
    assert cluster.store.find(Pod, "web") is None


# -- conditions -------------------------------------------------------------------------------------------------------


def test_readiness_gates_hold_a_pod_back_until_somebody_sets_them() -> None:
    cluster = world("readinessGates: [{conditionType: example.com/lb}]")
    assert condition(cluster, "ContainersReady")[0] == "True"
    assert condition(cluster, "Ready") == (
        "False",
        "ReadinessGatesNotReady",
        'corresponding condition of pod readiness gate "example.com/lb" does not exist.',
    )
    assert endpoints(cluster) == [(False, False, False)]
    for status, ready in (("True", True), ("False", False), ("True", True)):
        pod = web(cluster)
        gate = PodCondition(type="example.com/lb", status=status)
        cluster.store.update(replace(pod, status=with_condition(pod.status, gate)))
        cluster.advance(1)
        assert web(cluster).ready is ready
        assert endpoints(cluster) == [(ready, ready, False)]
        if not ready:
            said_of_it = 'the status of pod readiness gate "example.com/lb" is not "True", but False'
            assert condition(cluster, "Ready")[2] == said_of_it
    cluster.crash("web")
    assert condition(cluster, "Ready")[1] == "ContainersNotReady"
    cluster.advance(1)
    assert web(cluster).ready


def test_a_gate_that_is_set_at_the_moment_of_a_probe() -> None:
    """Both write the pod's status; neither may take the other for a conflict."""
    cluster = world(
        "readinessGates: [{conditionType: example.com/lb}]",
        container="readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 5, failureThreshold: 1}",
    )
    with cluster.fault("pod-not-listening", pod="web"):
        cluster.advance(4)
        pod = web(cluster)
        gate = PodCondition(type="example.com/lb", status="True")
        cluster.store.update(replace(pod, status=with_condition(pod.status, gate)))
        cluster.advance(1)
        assert condition(cluster, "Ready")[:2] == ("False", "ContainersNotReady")
    cluster.advance(5)
    assert web(cluster).ready


def test_conditions_keep_the_time_at_which_they_changed() -> None:
    cluster = world(
        container="readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 5, failureThreshold: 1}"
    )

    def since() -> str | None:
        (found,) = [c for c in web(cluster).status.conditions if c.type == "Ready"]
        return found.last_transition_time

    with cluster.fault("pod-not-listening", pod="web"):
        cluster.advance(20)
        assert since() == "2026-01-01T00:00:05Z"
    cluster.advance(20)
    assert since() == "2026-01-01T00:00:25Z"


def test_sidecars_count_and_restart_whatever_the_pods_policy() -> None:
    init = (
        "initContainers: [{name: setup, image: x}, "
        "{name: proxy, image: x, restartPolicy: Always, ports: [{containerPort: 15001}]}]"
    )
    cluster = world(f"restartPolicy: Never\n  {init}")
    assert shown(cluster) == ("Running", "2/2", 0)
    cluster.crash("web", "proxy", exit_code=0)
    assert shown(cluster)[1] == "1/2"
    cluster.advance(1)
    assert shown(cluster) == ("Running", "2/2", 1)
    assert [s.name for s in web(cluster).status.init_container_statuses] == ["setup", "proxy"]


def test_a_job_completes_when_its_programs_have_ended() -> None:
    cluster = Cluster.from_files(
        """\
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 2
  template: {spec: {restartPolicy: OnFailure, containers: [{name: c, image: x}]}}
"""
    )
    for exit_code in (1, 0, 0):
        (pod,) = [p for p in cluster.store.list(Pod, "default") if not p.finished]
        cluster.crash(pod.name, exit_code=exit_code)
        cluster.advance(1)
    status = cluster.store.get("Job", "sum", "default").status
    assert (status.succeeded, status.failed, status.active) == (2, 0, 0)
    assert any(c["type"] == "Complete" for c in status.conditions)


def test_a_taken_port_of_the_node_is_tried_again() -> None:
    cluster = Cluster(nodes=2)
    space = cluster.network.ns("node-2")
    squatter = space.listen(Socket(TCP, "0.0.0.0", 8080, "squatter"))
    cluster.apply(WEB.format(spec="hostNetwork: true", container="", more=""))
    assert not web(cluster).ready
    cluster.advance(9)
    assert said(cluster, "BackOff")[0][1].startswith("BackOff: Back-off restarting failed container web")
    space.close(squatter)
    cluster.advance(1)
    assert shown(cluster) == ("Running", "1/1", 1)
    assert calls(cluster) == "connected"


def test_two_containers_cannot_have_one_port() -> None:
    """They share a network: the second one crashes until the first is gone."""
    cluster = world(more="- {name: second, image: x, ports: [{containerPort: 8080}]}")
    assert shown(cluster) == ("CrashLoopBackOff", "1/2", 0)
    assert calls(cluster) == "connected"
    cluster.advance(10)
    assert shown(cluster) == ("Error", "1/2", 1)
    cluster.advance(1)
    assert shown(cluster) == ("CrashLoopBackOff", "1/2", 1)
    cluster.crash("web", "web")
    cluster.advance(30)
    holders = [s.process for s in cluster.network.ns("default/web").sockets[TCP, 8080]]
    assert len(holders) == 1


def test_a_sandbox_that_could_not_be_made_is_tried_again() -> None:
    cluster = Cluster(nodes=2)
    node = cluster.network.ns("node-2")
    conf = node.files.pop(f"{CONF_DIR}/10-flannel.conflist")
    cluster.apply(WEB.format(spec="", container="", more=""))
    assert shown(cluster) == ("ContainerCreating", "0/1", 0)
    assert web(cluster).status.phase == "Pending"
    assert condition(cluster, "Ready")[:2] == ("False", "ContainersNotReady")
    cluster.advance(25)
    assert [at for at, _ in said(cluster, "NetworkNotReady")] == [0, 10, 20]
    assert endpoints(cluster) == []
    node.files[f"{CONF_DIR}/10-flannel.conflist"] = conf
    cluster.advance(4)
    assert shown(cluster) == ("ContainerCreating", "0/1", 0)
    cluster.advance(1)
    assert shown(cluster) == ("Running", "1/1", 0)
    assert calls(cluster) == "connected"
    assert endpoints(cluster) == [(True, True, False)]


def test_a_pod_that_was_active_for_too_long_fails() -> None:
    cluster = world("activeDeadlineSeconds: 30")
    cluster.advance(29)
    assert shown(cluster) == ("Running", "1/1", 0)
    cluster.advance(1)
    status = web(cluster).status
    assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded")
    assert "default/web" not in cluster.network.netns
    assert endpoints(cluster) == []


def test_a_crash_in_a_change_that_is_taken_back_has_not_happened() -> None:
    cluster = world(container="livenessProbe: {tcpSocket: {port: 8080}}")
    events = [*cluster.events]

    def crash_and_fail() -> None:
        with cluster.transaction():
            cluster.crash("web")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        crash_and_fail()
    assert calls(cluster) == "connected"
    cluster.advance(5)
    assert shown(cluster) == ("Running", "1/1", 0)
    assert cluster.events == events
    cluster.crash("web")
    assert shown(cluster) == ("Error", "0/1", 0)


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 6
      containers:
      - name: web
        image: x
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 2, failureThreshold: 1}
        livenessProbe: {httpGet: {port: 8080}, periodSeconds: 3, failureThreshold: 2, initialDelaySeconds: 4}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
      - {name: log, image: x, ports: [{containerPort: 9000}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_objects_and_sockets_tell_one_story(seed: int) -> None:
    """Crashes, deletions and faults at random: what the status says runs listens, and what is ready is sent calls."""
    chance = random.Random(seed)
    cluster = Cluster.from_files(DEPLOYMENT, seed=seed)
    addresses: dict[str, tuple[str, ...]] = {}
    with contextlib.ExitStack() as mended:
        for _ in range(80):
            pods = [p for p in cluster.store.list(Pod, "default") if p.ips]
            pod = chance.choice(pods)
            what = chance.random()
            if what < 0.15:
                with contextlib.suppress(NotRunning):
                    cluster.crash(pod.name, chance.choice(["web", "log"]), exit_code=chance.choice([0, 1]))
            elif what < 0.2 and not pod.terminating:
                cluster.delete("Pod", pod.name)
            elif what < 0.25:
                with contextlib.suppress(NotFound):
                    mended.enter_context(cluster.fault("pod-not-listening", pod=pod.name, port=9000))
            cluster.advance(chance.choice([0.5, 1, 1, 4]))
            ready = set()
            for pod in cluster.store.list(Pod, "default"):
                space = cluster.network.ns(f"default/{pod.name}")
                running = {s.name for s in pod.status.container_statuses if "running" in s.state}
                assert {s.process for group in space.sockets.values() for s in group} <= running
                assert ((TCP, 8080) in space.sockets) is ("web" in running), pod.status
                assert pod.ready is all(s.ready for s in pod.status.container_statuses)
                assert addresses.setdefault(pod.metadata.uid, pod.ips) == pod.ips
                if pod.ready and not pod.terminating:
                    ready |= {*pod.ips}
            (found,) = [item for item in cluster.store.list(EndpointSlice) if item.service_name == "web"]
            assert {e.addresses[0] for e in found.endpoints if e.ready} == ready
    assert any(event.reason == "BackOff" for _, event in cluster.events)


@pytest.mark.parametrize(
    ("pod", "container", "error", "words"),
    [
        ("nobody", "", NotFound, "nobody"),
        ("web", "wob", NotFound, "web"),
        ("later", "", NotRunning, "not created"),
    ],
)
def test_what_does_not_run_cannot_end(pod: str, container: str, error: type[Exception], words: str) -> None:
    cluster = world()
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: later}\n"
        "spec: {nodeSelector: {disk: none}, containers: [{name: c, image: x}]}"
    )
    with pytest.raises(error, match=words):
        cluster.crash(pod, container)


def test_a_container_that_is_down_cannot_end_again() -> None:
    cluster = world()
    cluster.crash("web")
    with pytest.raises(NotRunning, match="container web is ended"):
        cluster.crash("web")
    cluster.advance(1)
    cluster.crash("web")
    cluster.advance(2)
    with pytest.raises(NotRunning, match="container web is waiting"):
        cluster.crash("web")
