"""Containers that end and are started anew, and what their kubelet reports of the pod: states, phase, conditions.

A pod keeps its sandbox, and so its address, however often its containers restart. Back-off as in
`client-go/util/flowcontrol/backoff.go` and `kuberuntime_manager.go` (doBackOff); phase and conditions as in
`pkg/kubelet/kubelet_pods.go` (getPhase) and `pkg/kubelet/status/generate.go`;
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.clock import timestamp
from kubenet_lab.control.probes import READINESS, STARTUP, SUCCESS, Worker
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Json, Pod
from kubenet_lab.objects.pod import Container, ContainerStatus, PodCondition, PodStatus

FIRST_BACK_OFF, LONGEST_BACK_OFF = 10.0, 300.0
RELIST = 1.0
"""Seconds after which a kubelet sees that a container has ended (`genericPlegRelistPeriod`)."""

RUNNING, STOPPING, ENDED, WAITING = "running", "stopping", "ended", "waiting"


class BackOff(Struct, frozen=True):
    """How long a container waits before it is started again, and when that was last worked out; in s."""

    seconds: float
    updated: float


def waits(back_off: BackOff | None, ended: float, now: float) -> bool:
    """Whether a container that ended at `ended` still has to wait (`IsInBackOffSince`)."""
    return back_off is not None and not _forgotten(back_off, ended) and now - ended < back_off.seconds


def next_back_off(back_off: BackOff | None, ended: float, now: float) -> BackOff:
    """The wait after the next end: 10 s at first, then twice the last, 300 s at most.

    Ten minutes without an end let it begin again.
    """
    if back_off is None or _forgotten(back_off, ended):
        return BackOff(FIRST_BACK_OFF, now)
    return BackOff(min(2 * back_off.seconds, LONGEST_BACK_OFF), now)


def _forgotten(back_off: BackOff, ended: float) -> bool:
    return ended - back_off.updated > 2 * LONGEST_BACK_OFF


class End(Struct, frozen=True):
    """How a container ended; `started` is None when it ran before this world began.

    `reason` is "" for what the exit code says: "Completed" or "Error".
    """

    exit_code: int
    started: float | None
    finished: float
    reason: str = ""

    def state(self) -> Json:
        """`status.containerStatuses[].state` of it."""
        reason = self.reason or ("Error" if self.exit_code else "Completed")
        body: Json = {"exitCode": self.exit_code, "reason": reason}
        if self.started is not None:
            body["startedAt"] = timestamp(self.started)
        return {"terminated": {**body, "finishedAt": timestamp(self.finished)}}


class Run(Struct, frozen=True):
    """A container as its kubelet knows it.

    Attributes:
        state: running; stopping (it still runs, its kubelet has told it to end); ended; waiting (in back-off).
        since: When it was started, None before this world began.
        until: When its state changes by itself: what is stopping ends, what has ended is seen, what waits starts.
        again: Whether it is started anew after it was stopped.
        end, before: Its last end and the one before.
        sockets: What it had open when it ended, to be opened by the next start.
        workers: Its probes'.
    """

    name: str
    policy: str
    state: str = RUNNING
    since: float | None = None
    until: float = math.inf
    again: bool = True
    restarts: int = 0
    end: End | None = None
    before: End | None = None
    back_off: BackOff | None = None
    sockets: tuple[Socket, ...] = ()
    workers: tuple[Worker, ...] = ()

    @property
    def alive(self) -> bool:
        """Whether its program runs."""
        return self.state in (RUNNING, STOPPING)

    @property
    def started(self) -> bool:
        """Whether its startup probe has let it through."""
        return self.alive and all(w.result == SUCCESS for w in self.workers if w.probe.kind == STARTUP)

    @property
    def ready(self) -> bool:
        """Whether it runs and its probes say that it serves."""
        return self.started and all(w.result == SUCCESS for w in self.workers if w.probe.kind == READINESS)

    @property
    def done(self) -> bool:
        """Whether it has ended and stays so."""
        return self.state == ENDED and self.until == math.inf

    @property
    def due(self) -> float:
        """When something happens to it next."""
        return min(self.until, *(w.due for w in self.probing), math.inf)

    @property
    def probing(self) -> tuple[Worker, ...]:
        """The workers that probe it now: none while it is down, only the startup probe's until that succeeds."""
        if not self.alive:
            return ()
        if self.started:
            return self.workers
        return tuple(w for w in self.workers if w.probe.kind == STARTUP)


def policy_of(pod: Pod, container: Container) -> str:
    """`restartPolicy` of a container: its own (a sidecar's is Always), else the pod's."""
    return container.restart_policy or pod.spec.restart_policy or "Always"


def restarts_after(policy: str, exit_code: int) -> bool:
    """Whether a container is started again (`ShouldContainerBeRestarted`)."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def duration(seconds: float) -> str:
    """Seconds as Go prints them: "40s", "2m40s", "5m0s"."""
    whole = int(seconds)
    return f"{whole // 60}m{whole % 60}s" if whole >= 60 else f"{whole}s"


def called(pod: Pod) -> str:
    """A pod in a kubelet's messages: NAME_NAMESPACE(UID)."""
    return f"{pod.name}_{pod.namespace}({pod.metadata.uid})"


# -- the report -----------------------------------------------------------------------------------------------------


def report(pod: Pod, runs: Sequence[Run], now: float) -> Pod:
    """The pod with the status its containers give it."""
    known = {run.name: run for run in runs}
    status = replace(
        pod.status,
        container_statuses=_statuses(pod, pod.spec.containers, pod.status.container_statuses, known),
        init_container_statuses=_statuses(
            pod, pod.spec.init_containers, pod.status.init_container_statuses, known
        ),
    )
    main = {c.name for c in pod.spec.containers}
    phase = _phase([run for run in runs if run.name in main])
    status = replace(status, phase=phase)
    unready = [run.name for run in runs if not run.ready]
    if phase in ("Succeeded", "Failed"):
        ended = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        if phase == "Succeeded":
            status = noted(status, "Initialized", True, "PodCompleted", "", now)
        status = noted(status, "ContainersReady", False, ended, "", now)
        return replace(pod, status=noted(status, "Ready", False, ended, "", now))
    message = f"containers with unready status: [{' '.join(unready)}]" if unready else ""
    reason = "ContainersNotReady" if unready else ""
    status = noted(status, "ContainersReady", not unready, reason, message, now)
    if unready:
        return replace(pod, status=noted(status, "Ready", False, reason, message, now))
    return gated(replace(pod, status=status), now)


def gated(pod: Pod, now: float) -> Pod:
    """The pod with its condition Ready as ContainersReady and its readiness gates give it.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-readiness-gate
    """
    state = {c.type: c.status for c in pod.status.conditions}
    if state.get("ContainersReady") != "True":
        return pod
    told = []
    for gate in pod.spec.readiness_gates:
        kind = str(gate.get("conditionType", ""))
        if kind not in state:
            told.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif state[kind] != "True":
            told.append(f'the status of pod readiness gate "{kind}" is not "True", but {state[kind]}')
    reason = "ReadinessGatesNotReady" if told else ""
    status = noted(pod.status, "Ready", not told, reason, ", ".join(told), now)
    return pod if status == pod.status else replace(pod, status=status)


def noted(status: PodStatus, kind: str, holds: bool, reason: str, message: str, now: float) -> PodStatus:
    """The status with a condition; the time of its last transition stays where it says the same as before."""
    answer = "True" if holds else "False"
    made = PodCondition(
        type=kind, status=answer, last_transition_time=timestamp(now), reason=reason, message=message
    )
    conditions = list(status.conditions)
    for at, old in enumerate(conditions):
        if old.type == kind:
            same = old.status == answer
            conditions[at] = replace(
                old,
                status=answer,
                last_transition_time=old.last_transition_time if same else timestamp(now),
                reason=reason,
                message=message,
            )
            break
    else:
        conditions.append(made)
    return replace(status, conditions=tuple(conditions))


def _phase(runs: Sequence[Run]) -> str:
    """`getPhase`: a pod has ended when all its containers have for good."""
    if not runs or not all(run.done for run in runs):
        return "Running"
    failed = any(run.end is not None and run.end.exit_code for run in runs)
    return "Failed" if failed else "Succeeded"


def _statuses(
    pod: Pod, containers: Iterable[Container], held: Iterable[ContainerStatus], runs: dict[str, Run]
) -> tuple[ContainerStatus, ...]:
    before = {item.name: item for item in held}
    out = []
    for container in containers:
        old = before.get(container.name)
        run = runs.get(container.name)
        if run is not None:
            old = old or ContainerStatus(name=container.name, image=container.image)
            out.append(_status(pod, old, run))
        elif old is not None:
            out.append(old)
        else:
            # An init container that is no sidecar: it has done its work before the others were started.
            ended: Json = {"terminated": {"exitCode": 0, "reason": "Completed"}}
            out.append(
                ContainerStatus(
                    name=container.name, image=container.image, ready=True, started=False, state=ended
                )
            )
    return tuple(out)


def _status(pod: Pod, old: ContainerStatus, run: Run) -> ContainerStatus:
    last = old.last_state
    if run.alive:
        state = {"running": {} if run.since is None else {"startedAt": timestamp(run.since)}}
        if run.since is None and "running" in old.state:
            state = old.state
        last = run.end.state() if run.end is not None else last
    elif run.state == ENDED:
        assert run.end is not None
        state = run.end.state()
        last = run.before.state() if run.before is not None else last
    else:
        wait = duration(run.back_off.seconds) if run.back_off is not None else "10s"
        message = f"back-off {wait} restarting failed container={run.name} pod={called(pod)}"
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
        last = run.end.state() if run.end is not None else last
    return replace(
        old,
        state=state,
        last_state=last,
        ready=run.ready,
        started=run.started,
        restart_count=run.restarts,
    )
