"""What kubelets do to running pods as time passes: probe them, restart their containers, end them, and report it.

It joins `probes` (packets and what they mean) and `restarts` (back-off, states, conditions). Nothing happens here
while no time passes, but for what somebody asked for: a crash, a deletion, a readiness gate that was set.
Source: `pkg/kubelet/pod_workers.go`, `pkg/kubelet/kuberuntime/kuberuntime_manager.go` (computePodActions).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.control import probes
from kubenet_lab.control.deletion import lasting
from kubenet_lab.control.kubelet import Event, Handlers, Started, close_container, open_container, sockets_of
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import seconds
from kubenet_lab.control.probes import FAILURE, LIVENESS, STARTUP, SUCCESS, UNKNOWN, Outcome, Worker
from kubenet_lab.control.restarts import (
    ENDED,
    FIRST_BACK_OFF,
    RELIST,
    RUNNING,
    STOPPING,
    WAITING,
    BackOff,
    End,
    Run,
    called,
    gated,
    next_back_off,
    noted,
    policy_of,
    report,
    restarts_after,
    waits,
)
from kubenet_lab.errors import NotFound, NotRunning
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Pod
from kubenet_lab.objects.pod import Container, ContainerStatus
from kubenet_lab.store import Store

Record = Callable[[str, Event], None]
"""(pod "namespace/name", event): somebody keeps it."""

Who = tuple[str, str, str]
"""A pod: (namespace, name, uid)."""

Opening = tuple[float, Who, str, tuple[Socket, ...]]
"""A program that was started and does not listen yet: (when it will, pod, container, sockets)."""

RETRY = 10.0
"""Seconds until a kubelet tries again to make a sandbox (`backOffPeriod`)."""

MANY_FLOWS = 4096
"""Tracked connections from which on the dead ones are looked for, as the kernel's `gc_worker` does."""


class Life(Struct, frozen=True):
    """A pod whose containers somebody watches.

    Attributes:
        runs: Its containers; none while it has no sandbox.
        terminating: Its kubelet knows of its deletion.
        retry: When its sandbox is tried again.
        deadline: When it has been active for `activeDeadlineSeconds`.
    """

    runs: tuple[Run, ...] = ()
    terminating: bool = False
    retry: float = math.inf
    deadline: float = math.inf

    @property
    def due(self) -> float:
        """When something happens next."""
        return min(self.retry, self.deadline, *(run.due for run in self.runs))


class PodWorkers:
    """The kubelets' pod workers of one cluster.

    Only pods that need it are remembered: those with probes, and those that something has happened to.
    """

    def __init__(
        self,
        store: Store,
        network: Network,
        settings: Settings,
        record: Record,
        seed: int = 0,
        handlers: Handlers | None = None,
    ) -> None:
        self._store = store
        self._network = network
        self._settings = settings
        self._record = record
        self._seed = seed
        self._handlers = handlers
        self._lives: dict[Who, Life] = {}
        self._opening: list[Opening] = []
        self._watch = store.watch("Pod")

    @property
    def next(self) -> float | None:
        """The moment at which the next thing happens, None when nothing will."""
        due = min((life.due for life in self._lives.values()), default=math.inf)
        due = min([due, *(at for at, *_ in self._opening)])
        return None if due == math.inf else due

    def snapshot(self) -> tuple[Mapping[Who, Life], tuple[Opening, ...]]:
        """What is known now, for `restore`."""
        return dict(self._lives), tuple(self._opening)

    def restore(self, saved: tuple[Mapping[Who, Life], tuple[Opening, ...]]) -> None:
        """Know again what was known then; the store and the network are put back by others."""
        self._lives, self._opening = dict(saved[0]), list(saved[1])
        self._watch.poll()

    def started(self, before: Pod, started: Started, now: float, *, timed: bool) -> Pod:
        """A pod's containers have been started; returns the pod to write.

        Without `timed`, or when it was ready before (a dump's), it has run for long and its probes have just
        succeeded; else they begin now.
        """
        pod, who = started.pod, _who(started.pod)
        if pod.terminating:
            # It was being deleted before this world began, by means that nobody here knows.
            self._lives[who] = Life(terminating=True)
            return pod
        long = not timed or before.ready
        if not started.ok:
            if not started.events:
                return pod
            if started.result is None and not pod.spec.host_network:
                self._lives[who] = Life(retry=now + RETRY)
                return _creating(pod, now)
            life = self._lives[who] = Life(self._failed_at_once(pod, long, now), deadline=_deadline(pod, now))
            return report(pod, life.runs, now)
        if not long and self._settings.start_seconds:
            for container in pod.serving_containers:
                sockets = close_container(self._network, pod, container.name)
                self.open_later(pod, container.name, sockets, now)
        runs, deadline = _runs(pod, now, long), _deadline(pod, now)
        watched = probes.probed(pod) or deadline != math.inf
        if watched:
            self._lives[who] = Life(runs, deadline=deadline)
        if (watched and not long) or any("waiting" in s.state for s in pod.status.container_statuses):
            return report(pod, runs, now)
        if pod.spec.init_containers and pod.ready:
            pod = _with_inits(pod, now)
        return gated(pod, now) if pod.spec.readiness_gates else pod

    def _failed_at_once(self, pod: Pod, long: bool, now: float) -> tuple[Run, ...]:
        """Containers that could not have their ports have ended, and are tried again after a back-off."""
        runs = []
        for run in _runs(pod, now, long):
            wanted = tuple(s for port, s in sockets_of(pod, self._handlers) if port.container == run.name)
            held = close_container(self._network, pod, run.name)
            if len(held) == len(wanted):
                open_container(self._network, pod, held)
            else:
                until, back_off = now + FIRST_BACK_OFF, BackOff(FIRST_BACK_OFF, now)
                end = End(1, now, now)
                run = replace(run, state=WAITING, until=until, sockets=wanted, back_off=back_off, end=end)
            runs.append(run)
        return tuple(runs)

    def again(self, now: float) -> set[str]:
        """Pods ("namespace/name") whose sandbox is to be made anew now, because it could not be before."""
        due = [who for who, life in self._lives.items() if life.retry <= now]
        for who in due:
            del self._lives[who]
        return {f"{namespace}/{name}" for namespace, name, _ in due}

    def run(self, now: float) -> list[Change]:
        """Do what is due, and what the watched pods ask for; returns the new states of pods."""
        self._open_due(now)
        self._keep_shut()
        changes = self._notice(now)
        for who in [who for who, life in self._lives.items() if life.due <= now < life.retry]:
            pod = self._store.find(Pod, who[1], who[0])
            if pod is None or pod.metadata.uid != who[2] or pod.finished:
                del self._lives[who]
                continue
            life = self._lives[who]
            work = _Work(self, pod, life, now)
            work.catch_up()
            if life.deadline <= now:
                changes[who] = work.over(life.deadline)
                del self._lives[who]
                continue
            life = self._lives[who] = replace(life, runs=tuple(work.runs))
            for change in self._report(pod, life, now):
                changes[who] = change
        return [*changes.values()]

    def _keep_shut(self) -> None:
        """What somebody opened for a program that is down (a fault that was mended) opens with its next start."""
        for who, life in self._lives.items():
            if all(run.alive for run in life.runs):
                continue
            pod = self._store.find(Pod, who[1], who[0])
            if pod is None or pod.metadata.uid != who[2]:
                continue
            runs = []
            for run in life.runs:
                stray = () if run.alive else close_container(self._network, pod, run.name)
                runs.append(replace(run, sockets=(*run.sockets, *stray)) if stray else run)
            self._lives[who] = replace(life, runs=tuple(runs))

    def open_later(self, pod: Pod, container: str, sockets: tuple[Socket, ...], now: float) -> None:
        """A program was started and will listen after `Settings.start_seconds`."""
        self.never_opens(pod, container)
        self._opening.append((now + self._settings.start_seconds, _who(pod), container, sockets))

    def never_opens(self, pod: Pod, container: str) -> tuple[Socket, ...]:
        """A program ends before it listens; returns what it would have opened."""
        mine = [one for one in self._opening if one[1:3] == (_who(pod), container)]
        self._opening = [one for one in self._opening if one not in mine]
        return tuple(socket for one in mine for socket in one[3])

    def _open_due(self, now: float) -> None:
        for one in [one for one in self._opening if one[0] <= now]:
            self._opening.remove(one)
            pod = self._store.find(Pod, one[1][1], one[1][0])
            if pod is not None and pod.metadata.uid == one[1][2] and not pod.finished:
                open_container(self._network, pod, one[3])

    def crash(
        self, pod: Pod, container: str = "", exit_code: int = 1, *, now: float, reason: str = ""
    ) -> list[Change]:
        """A container's program ends by itself: `kubectl exec POD -c CONTAINER -- kill 1`.

        `reason` is what its state will say ("OOMKilled"), by default what the exit code means.

        Raises:
            NotFound: The pod has no such container.
            NotRunning: It does not run now.
        """
        name = f"{pod.namespace}/{pod.name}"
        names = [c.name for c in pod.serving_containers]
        wanted = container or pod.spec.containers[0].name
        if wanted not in names:
            raise NotFound("Container", wanted, name, "containers", known=names)
        who = _who(pod)
        life = self._lives.get(who)
        if life is None or not life.runs:
            life = Life(_runs(pod, now, True), terminating=pod.terminating)
        work = _Work(self, pod, life, now)
        at = next(at for at, run in enumerate(life.runs) if run.name == wanted)
        run = life.runs[at]
        if pod.finished or not pod.ips or not run.alive:
            raise NotRunning(name, f"container {wanted} is {run.state if pod.ips else 'not created'}")
        again = restarts_after(run.policy, exit_code) and not life.terminating
        work.end(at, exit_code, now, again=again, until=now + RELIST if again else math.inf, reason=reason)
        life = self._lives[who] = replace(life, runs=tuple(work.runs))
        return self._report(pod, life, now)

    def _report(self, pod: Pod, life: Life, now: float) -> list[Change]:
        new = report(pod, life.runs, now)
        return [] if new == pod else [Change("update", new, "its containers changed")]

    def _notice(self, now: float) -> dict[Who, Change]:
        """What the API server tells the kubelets: deletions, and readiness gates that somebody set."""
        changes: dict[Who, Change] = {}
        for who, (verb, pod) in self._newest().items():
            life = self._lives.get(who)
            gone = verb == "DELETED"
            if gone or pod.finished:
                if gone and pod.ips and not pod.finished and not (life and life.terminating):
                    if not pod.terminating:
                        self._stopping(pod, life)
                self._lives.pop(who, None)
            elif verb == "MODIFIED" and pod.terminating and not (life and life.terminating):
                if pod.ips and pod.spec.node_name:
                    self._lives[who] = self._terminate(pod, life or Life(_runs(pod, now, True)), now)
            elif pod.spec.readiness_gates and pod.ips:
                new = gated(pod, now)
                if new is not pod:
                    changes[who] = Change("update", new, "its readiness gates say so")
        return changes

    def _newest(self) -> dict[Who, tuple[str, Pod]]:
        """The last event of each pod: (ADDED, MODIFIED or DELETED, its state)."""
        told = ((event.type, event.object) for event in self._watch.poll())
        return {_who(pod): (verb, pod) for verb, pod in told if isinstance(pod, Pod)}

    def _stopping(self, pod: Pod, life: Life | None) -> None:
        alive = {run.name for run in life.runs if run.alive} if life is not None else None
        for container in pod.serving_containers:
            if alive is None or container.name in alive:
                self.tell(
                    pod, "Normal", "Killing", f"Stopping container {container.name}", self._store.clock.now
                )

    def _terminate(self, pod: Pod, life: Life, now: float) -> Life:
        """The pod is to end: each container when its `preStop` hook and its program are done; sidecars last.

        Nobody asks any more whether it is alive, but still whether it is ready.
        """
        self._stopping(pod, life)
        grace = pod.metadata.deletion_grace_period_seconds or 0
        asked = seconds(pod.metadata.deletion_timestamp or "") - grace
        main = {c.name: c for c in pod.spec.containers}
        ends = {name: asked + min(grace, _lasting(pod, c, self._settings)) for name, c in main.items()}
        last = asked + min(grace, lasting(pod, self._settings))
        runs = []
        for run in life.runs:
            run = replace(run, workers=tuple(map(_let_be, run.workers)))
            if not run.alive:
                run = replace(run, state=ENDED, until=math.inf) if run.end is not None else run
            elif ends.get(run.name, last) < last:
                run = replace(run, state=STOPPING, until=max(ends[run.name], now), again=False)
            runs.append(run)
        return replace(life, runs=tuple(runs), terminating=True)

    def tell(self, pod: Pod, kind: str, reason: str, message: str, at: float) -> None:
        """Record an event of a pod."""
        self._record(f"{pod.namespace}/{pod.name}", Event(kind, reason, message, at))


class _Work:
    """One pod being brought up to a moment."""

    def __init__(self, workers: PodWorkers, pod: Pod, life: Life, now: float) -> None:
        self.workers, self.pod, self.now = workers, pod, now
        self.terminating = life.terminating
        self.runs = [*life.runs]

    def over(self, moment: float) -> Change:
        """The pod has been active for `activeDeadlineSeconds`: it fails, and its kubelet stops it."""
        words = "Pod was active on the node longer than the specified deadline"
        self._tell("Normal", "DeadlineExceeded", words, moment)
        for at, run in enumerate(self.runs):
            if run.alive:
                self._tell("Normal", "Killing", f"Stopping container {run.name}", moment)
                self.end(at, 137, moment, again=False, until=math.inf)
        new = report(self.pod, [replace(run, state=ENDED, until=math.inf) for run in self.runs], moment)
        failed = replace(new.status, phase="Failed", reason="DeadlineExceeded", message=words)
        return Change("update", replace(new, status=failed), words)

    def catch_up(self) -> None:
        """Do all that is due, each thing at its moment, containers in their order."""
        while self.runs:
            at = min(range(len(self.runs)), key=lambda index: self.runs[index].due)
            moment = self.runs[at].due
            if moment > self.now:
                return
            if self.runs[at].until <= moment:
                self._turn(at, moment)
            else:
                self._probe(at, moment)

    # -- probes -----------------------------------------------------------------------------------------------------

    def _probe(self, at: int, moment: float) -> None:
        run = self.runs[at]
        worker = next(w for w in run.probing if w.due <= moment)
        if worker.pending is not None:
            self._judge(at, worker, worker.pending, moment)
            return
        outcome = probes.send(
            self.workers._network, self.pod, worker.probe, now=moment, seed=self.workers._seed
        )
        self._clear_flows(moment)
        known = moment + outcome.seconds
        ticked = probes.ticked(worker, moment, known)
        if outcome.seconds:
            self._put(at, worker, replace(ticked, pending=outcome, known_at=known))
            return
        self._put(at, worker, ticked)
        self._judge(at, ticked, outcome, moment)

    def _judge(self, at: int, worker: Worker, outcome: Outcome, moment: float) -> None:
        kind = worker.probe.kind
        if outcome.result == FAILURE:
            self._tell("Warning", "Unhealthy", f"{kind} probe failed: {outcome.output}", moment)
        elif outcome.result == UNKNOWN:
            words = f"{kind} probe errored and resulted in unknown state: {outcome.output}"
            self._tell("Warning", "Unhealthy", words, moment)
        was_started = self.runs[at].started
        new = probes.judged(worker, outcome)
        self._put(at, worker, new)
        run = self.runs[at]
        if kind == STARTUP and new.result == SUCCESS and not was_started:
            since = run.since if run.since is not None else moment
            others = tuple(
                w if w.probe.kind == STARTUP else probes.released(w, moment, since) for w in run.workers
            )
            self.runs[at] = replace(run, workers=others)
        elif new.result == FAILURE and kind in (STARTUP, LIVENESS):
            self._kill(at, new, moment)

    def _put(self, at: int, old: Worker, new: Worker) -> None:
        run = self.runs[at]
        self.runs[at] = replace(run, workers=tuple(new if w is old else w for w in run.workers))

    def _clear_flows(self, moment: float) -> None:
        table = self.workers._network.ns(self.pod.spec.node_name).conntrack
        if len(table.flows) > MANY_FLOWS:
            table.expire(moment)

    # -- ends and starts --------------------------------------------------------------------------------------------

    def _kill(self, at: int, worker: Worker, moment: float) -> None:
        """The kubelet ends a container whose probe failed: `preStop`, SIGTERM, and SIGKILL after the grace period."""
        run = self.runs[at]
        if run.state != RUNNING or self.terminating:
            return
        again = run.policy != "Never"
        text = f"Container {run.name} failed {worker.probe.kind.lower()} probe"
        self._tell("Normal", "Killing", text + (", will be restarted" if again else ""), moment)
        container = next(c for c in self.pod.serving_containers if c.name == run.name)
        given = worker.probe.grace
        if given is None:
            given = self.pod.spec.termination_grace_period_seconds
        grace = 30 if given is None else given
        lasts = min(grace, _lasting(self.pod, container, self.workers._settings))
        self.runs[at] = replace(run, state=STOPPING, until=moment + lasts, again=again)

    def _turn(self, at: int, moment: float) -> None:
        """Its state changes by itself."""
        run = self.runs[at]
        if run.state == STOPPING:
            held = self.workers._settings.stop_seconds == math.inf
            self.end(at, 137 if held else 0, moment, again=run.again, until=math.inf)
            if run.again:
                # The kubelet starts it in the same pass, and looks at the end before this one: `doBackOff`.
                prior = run.end.finished if run.end is not None else None
                self._start_or_wait(at, prior, moment)
        elif run.state == ENDED:
            assert run.end is not None
            self._start_or_wait(at, run.end.finished, moment)
        else:
            assert run.end is not None
            back_off = next_back_off(run.back_off, run.end.finished, moment)
            self._start(at, replace(run, back_off=back_off), moment)

    def _start_or_wait(self, at: int, ended: float | None, moment: float) -> None:
        run = self.runs[at]
        assert run.end is not None
        if ended is None:
            self._start(at, run, moment)
            return
        if waits(run.back_off, ended, moment):
            assert run.back_off is not None
            words = f"Back-off restarting failed container {run.name} in pod {called(self.pod)}"
            self._tell("Warning", "BackOff", words, moment)
            self.runs[at] = replace(run, state=WAITING, until=run.end.finished + run.back_off.seconds)
            return
        self._start(at, replace(run, back_off=next_back_off(run.back_off, ended, moment)), moment)

    def _start(self, at: int, run: Run, moment: float) -> None:
        self._tell("Normal", "Created", "Container created", moment)
        self._tell("Normal", "Started", "Container started", moment)
        workers = tuple(probes.restarted(w, moment) for w in run.workers)
        self.runs[at] = replace(
            run,
            state=RUNNING,
            since=moment,
            until=math.inf,
            again=True,
            restarts=run.restarts + 1,
            sockets=(),
            workers=workers,
        )
        if self.workers._settings.start_seconds:
            self.workers.open_later(self.pod, run.name, run.sockets, moment)
        elif open_container(self.workers._network, self.pod, run.sockets) is not None:
            again = restarts_after(run.policy, 1)
            self.end(at, 1, moment, again=again, until=moment + RELIST if again else math.inf)
            self.runs[at] = replace(self.runs[at], sockets=run.sockets)

    def end(
        self, at: int, exit_code: int, moment: float, *, again: bool, until: float, reason: str = ""
    ) -> None:
        """A container's program is over and its sockets close."""
        run = self.runs[at]
        unopened = self.workers.never_opens(self.pod, run.name)
        sockets = unopened or close_container(self.workers._network, self.pod, run.name)
        self.runs[at] = replace(
            run,
            state=ENDED,
            until=until,
            again=again,
            end=End(exit_code, run.since, moment, reason),
            before=run.end,
            sockets=sockets,
        )

    def _tell(self, kind: str, reason: str, message: str, moment: float) -> None:
        self.workers.tell(self.pod, kind, reason, message, moment)


def _who(pod: Pod) -> Who:
    return (pod.namespace, pod.name, pod.metadata.uid)


def _runs(pod: Pod, now: float, long: bool) -> tuple[Run, ...]:
    """Its containers as they run now; with `long` they have done so for long."""
    counts = {
        s.name: s.restart_count for s in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    }
    begin = probes.passed if long else probes.fresh
    return tuple(
        Run(
            c.name,
            policy_of(pod, c),
            since=None if long else now,
            restarts=counts.get(c.name, 0),
            workers=tuple(begin(p, now) for p in probes.probes_of(c)),
        )
        for c in pod.serving_containers
    )


def _deadline(pod: Pod, now: float) -> float:
    """When the pod has been active for as long as it may; counted from now where nobody wrote down its start."""
    given = pod.spec.active_deadline_seconds
    return math.inf if given is None else now + given


def _creating(pod: Pod, now: float) -> Pod:
    """A pod whose sandbox could not be made: Pending, its containers "ContainerCreating"."""
    before = {s.name: s.restart_count for s in pod.status.container_statuses}
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    statuses = tuple(
        ContainerStatus(
            name=c.name, image=c.image, started=False, state=waiting, restart_count=before.get(c.name, 0)
        )
        for c in pod.spec.containers
    )
    status = replace(pod.status, phase="Pending", container_statuses=statuses)
    status = noted(status, "Initialized", not pod.spec.init_containers, "", "", now)
    message = f"containers with unready status: [{' '.join(c.name for c in pod.spec.containers)}]"
    for kind in ("ContainersReady", "Ready"):
        status = noted(status, kind, False, "ContainersNotReady", message, now)
    return replace(pod, status=status)


def _with_inits(pod: Pod, now: float) -> Pod:
    """The pod with the states of its init containers, which have ended, and of its sidecars, which run."""
    told = report(pod, _runs(pod, now, True), now).status.init_container_statuses
    return replace(pod, status=replace(pod.status, init_container_statuses=told))


def _lasting(pod: Pod, container: Container, settings: Settings) -> float:
    """How long one container's hook and program take to end."""
    alone = replace(pod, spec=replace(pod.spec, init_containers=(), containers=(container,)))
    return lasting(alone, settings)


def _let_be(worker: Worker) -> Worker:
    """A probe of a pod that is being deleted: only readiness is still asked for (`worker.go`)."""
    if worker.probe.kind in (LIVENESS, STARTUP):
        return replace(worker, result=SUCCESS, on_hold=True, pending=None, known_at=math.inf)
    return worker
