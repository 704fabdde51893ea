"""Jobs: pods that run until enough of them succeeded.

Source: `pkg/controller/job/{job_controller,indexed_job_utils}.go`. When a program ends is nothing a manifest says: a
pod of a Job runs until somebody reports its phase (`pod.with_status(phase="Succeeded")`). Not modelled: pod failure
and success policies, back-off limits for each index, the growing delay between retries, the job-tracking finalizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from kubenet_lab.clock import timestamp
from kubenet_lab.control import deletion
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import seconds
from kubenet_lab.control.template import pod_of
from kubenet_lab.control.view import Context, Keyed, controller_key, own_key
from kubenet_lab.objects import Json, Pod
from kubenet_lab.objects.workload import Job
from kubenet_lab.store import Key, Store

INDEX = "batch.kubernetes.io/job-completion-index"


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Pods to create and to delete, the counts in each Job's status, and Jobs whose time to live is over."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    job: Job | None = context.view.all("Job").get(key)
    if job is None or job.metadata.deletion_timestamp:
        return []
    pods: list[Pod] = context.view.pods_by_controller.of(job.metadata.uid)
    verdict = _condition(job, ("Complete", "Failed"))
    if verdict is not None:
        return _after(context, key, job, verdict)
    return _Run(context, key, job, pods).changes()


def _after(context: Context, key: Key, job: Job, verdict: Json) -> list[Change]:
    """A Job that has ended goes with its pods when `ttlSecondsAfterFinished` is over."""
    ttl = job.spec.ttl_seconds_after_finished
    if ttl is None:
        return []
    at = seconds(str(verdict["lastTransitionTime"])) + ttl
    if at > context.now:
        context.wake(key, at)
        return []
    return [Change("delete", job, f"it ended {ttl} s ago")]


class _Run:
    """One Job with its pods, and what one run of the controller does about them."""

    def __init__(self, context: Context, key: Key, job: Job, pods: list[Pod]) -> None:
        self.context, self.key, self.job, self.spec = context, key, job, job.spec
        self.indexed = job.spec.completion_mode == "Indexed"
        self.pods = pods
        self.alive = [pod for pod in pods if not pod.finished and not pod.terminating]
        self.failed = [pod for pod in pods if pod.status.phase == "Failed"]
        self.succeeded = [pod for pod in pods if pod.status.phase == "Succeeded"]
        self.done = sorted({_index(pod) for pod in self.succeeded}) if self.indexed else []
        self.count = len(self.done) if self.indexed else len(self.succeeded)

    def changes(self) -> list[Change]:
        verdict = self._verdict()
        changes: list[Change] = []
        keep = self.alive
        if verdict is not None or self.spec.suspend:
            why = verdict[2] if verdict is not None else "the Job is suspended"
            changes += self._delete(self.alive, why)
            keep = []
        else:
            changes += self._fill()
        return self._reported(verdict, keep) + changes

    def _verdict(self) -> tuple[str, str, str] | None:
        """(condition, reason, message) of a Job that has ended."""
        limit = 6 if self.spec.backoff_limit is None else self.spec.backoff_limit
        if len(self.failed) > limit:
            return ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        deadline, start = self.spec.active_deadline_seconds, self.job.status.start_time
        if deadline is not None and start:
            at = seconds(start) + deadline
            if at <= self.context.now:
                return ("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            self.context.wake(self.key, at)
        reached = f"Reached expected number of succeeded pods ({self.count})"
        if self.spec.completions is None:
            enough = bool(self.succeeded) and not self.alive
            reached = "Any number of succeeded pods suffices"
        else:
            enough = self.count >= self.spec.completions and not self.spec.suspend
        return ("Complete", "CompletionsReached", reached) if enough else None

    def _fill(self) -> Iterator[Change]:
        parallel = 1 if self.spec.parallelism is None else self.spec.parallelism
        if self.spec.completions is None:
            wanted = len(self.alive) if self.succeeded else parallel
        else:
            wanted = min(parallel, self.spec.completions - self.count)
        if len(self.alive) > wanted:
            spare = sorted(self.alive, key=lambda pod: (pod.ready, -int(pod.metadata.resource_version or 0)))
            yield from self._delete(spare[: len(self.alive) - wanted], f"{wanted} pods may run at once")
            return
        missing = wanted - len(self.alive)
        names: list[str] = []
        for index in self._free_indexes(missing):
            prefix = f"{self.job.name}-" if index is None else f"{self.job.name}-{index}-"
            name = self.context.store.generated_name("Pod", prefix, self.job.namespace, skip=names)
            names.append(name)
            yield Change("create", self._pod(name, prefix, index), f"{wanted} pods may run at once")

    def _free_indexes(self, missing: int) -> Sequence[int | None]:
        if not self.indexed:
            return [None] * missing
        taken = {*self.done, *map(_index, self.alive)}
        return [index for index in range(self.spec.completions or 0) if index not in taken][:missing]

    def _pod(self, name: str, prefix: str, index: int | None) -> Pod:
        uid = self.job.metadata.uid
        labels = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": self.job.name,
            "controller-uid": uid,
            "job-name": self.job.name,
        }
        if index is None:
            return pod_of(self.job, self.spec.template, name, labels)
        pod = pod_of(self.job, self.spec.template, name, {**labels, INDEX: str(index)})
        annotations = {**pod.metadata.annotations, INDEX: str(index)}
        metadata = replace(pod.metadata, generate_name=prefix, annotations=annotations)
        return replace(pod, metadata=metadata, spec=replace(pod.spec, hostname=f"{self.job.name}-{index}"))

    def _delete(self, pods: Iterable[Pod], why: str) -> Iterator[Change]:
        for pod in pods:
            change = deletion.of_pod(pod, self.context.now, self.context.settings, why)
            if change is not None:
                yield change

    def _reported(self, verdict: tuple[str, str, str] | None, keep: list[Pod]) -> list[Change]:
        now = timestamp(self.context.now)
        before = self.job.status
        conditions = list(before.conditions)
        if self.spec.suspend and _condition(self.job, ("Suspended",)) is None:
            conditions.append(_made("Suspended", "JobSuspended", "Job suspended", now))
        if verdict is not None:
            kind, reason, message = verdict
            interim = "SuccessCriteriaMet" if kind == "Complete" else "FailureTarget"
            conditions += [_made(interim, reason, message, now), _made(kind, reason, message, now)]
        start = before.start_time or (None if self.spec.suspend else now)
        status = replace(
            before,
            conditions=tuple(conditions),
            start_time=start,
            completion_time=now
            if verdict is not None and verdict[0] == "Complete"
            else before.completion_time,
            active=len(keep),
            ready=sum(pod.ready for pod in keep),
            succeeded=self.count,
            failed=len(self.failed),
            terminating=sum(pod.terminating and not pod.finished for pod in self.pods),
            completed_indexes=_ranges(self.done),
        )
        return (
            []
            if status == before
            else [Change("update", replace(self.job, status=status), "the counts changed")]
        )


def _condition(job: Job, kinds: tuple[str, ...]) -> Json | None:
    return next(
        (item for item in job.status.conditions if item["type"] in kinds and item["status"] == "True"), None
    )


def _made(kind: str, reason: str, message: str, now: str) -> Json:
    return {
        "type": kind,
        "status": "True",
        "lastProbeTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def _index(pod: Pod) -> int:
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else -1


def _ranges(indexes: Iterable[int]) -> str:
    """Numbers as Jobs write them: "0-2,5"."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a},{b}" for a, b in runs)


_LOOP = Keyed(("Job",), {"Job": own_key, "Pod": controller_key("Job")}, _sync)
