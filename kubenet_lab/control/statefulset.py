"""StatefulSets: numbered pods that keep their names, made and replaced one at a time.

Source: `pkg/controller/statefulset/stateful_set_control.go`. Not modelled: the claims of `volumeClaimTemplates` (the
pods name them as volumes, nobody makes them).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec.structs import replace

from kubenet_lab.control import deletion
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import available, available_at
from kubenet_lab.control.template import REVISION_LABEL, Revisions, pod_of, revisions, template_of
from kubenet_lab.control.view import Context, Keyed, controller_key, own_key
from kubenet_lab.objects import Generic, Pod, PodTemplate
from kubenet_lab.objects.workload import StatefulSet, StatefulSetStatus
from kubenet_lab.store import Key, Store

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Pods to create and to delete, revisions of the template, and the counts in each StatefulSet's status."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    stateful_set: StatefulSet | None = context.view.all("StatefulSet").get(key)
    if stateful_set is None:
        return []
    uid = stateful_set.metadata.uid
    owned = [item for item in context.view.owned.of(uid) if item.kind == "ControllerRevision"]
    known_as = stateful_set.status.update_revision
    history = revisions(stateful_set, stateful_set.spec.template, owned, known_as)
    if stateful_set.metadata.deletion_timestamp:
        return []
    if history.create is not None:
        return [Change("create", history.create, "no revision has this template")]
    if history.update is not None:
        return [Change("update", history.update, "the template is an older one again")]
    return _Set(context, key, stateful_set, history).changes()


class _Set:
    """One StatefulSet with its pods, and what one run of the controller does about them."""

    def __init__(self, context: Context, key: Key, stateful_set: StatefulSet, history: Revisions) -> None:
        self.context, self.key, self.set, self.history = context, key, stateful_set, history
        spec = self.spec = stateful_set.spec
        self.start = spec.ordinals.start if spec.ordinals is not None else 0
        self.wished = 1 if spec.replicas is None else spec.replicas
        self.one_by_one = spec.pod_management_policy != "Parallel"
        self.update = history.newest
        known = {item.name: item for item in history.all}
        self.current: Generic = known.get(stateful_set.status.current_revision, self.update)
        pods = context.view.pods_by_controller.of(stateful_set.metadata.uid)
        numbered = {
            number: pod for pod in pods if (number := ordinal(stateful_set.name, pod.name)) is not None
        }
        ordinals = range(self.start, self.start + self.wished)
        self.replicas: dict[int, Pod | None] = {number: numbered.get(number) for number in ordinals}
        self.condemned = [
            pod for number, pod in sorted(numbered.items(), reverse=True) if number not in ordinals
        ]
        self.pods = [*numbered.values()]

    def changes(self) -> list[Change]:
        changes = [*self._next()]
        return changes + self._reported() + self._forgotten()

    def _next(self) -> Iterator[Change]:
        """The pods to create or delete now: when one at a time, the first such step only."""
        for number, pod in self.replicas.items():
            if pod is None:
                yield Change("create", self._pod(number), f"pod {number} of {self.wished}")
            elif pod.finished:
                yield from self._delete(pod, "it has ended, which no pod of a StatefulSet should")
            elif not self.one_by_one or self._healthy(pod):
                continue
            if self.one_by_one:
                return
        sick = [
            pod
            for pod in (*self.replicas.values(), *reversed(self.condemned))
            if pod and not self._healthy(pod)
        ]
        for pod in self.condemned:
            if pod.terminating:
                if self.one_by_one:
                    return
                continue
            if self.one_by_one and not self._healthy(pod) and pod is not sick[0]:
                return
            yield from self._delete(pod, f"{self.wished} pods wished")
            if self.one_by_one:
                return
        if self.spec.update_strategy.type != "OnDelete" and not self.condemned:
            yield from self._roll()

    def _roll(self) -> Iterator[Change]:
        """Pods of an older template, from the highest ordinal down, as many as may be missing."""
        limits = self.spec.update_strategy.rolling_update
        partition = (limits.partition or 0) if limits is not None else 0
        may_miss = _maximum(limits.max_unavailable if limits is not None else None, self.wished)
        room = may_miss - sum(pod is None or not self._healthy(pod) for pod in self.replicas.values())
        for number in reversed(self.replicas):
            pod = self.replicas[number]
            if number - self.start < partition:
                return
            if pod is None:
                continue
            outdated = pod.metadata.labels.get(REVISION_LABEL) != self.update.name
            if outdated and not pod.terminating:
                sick = not self._healthy(pod)
                # A sick pod is missing already: replacing it costs nobody anything.
                if room <= 0 and not sick:
                    return
                room -= 0 if sick else 1
                yield from self._delete(pod, f"it has an older template than {self.update.name}")

    def _delete(self, pod: Pod, why: str) -> Iterator[Change]:
        change = deletion.of_pod(pod, self.context.now, self.context.settings, why)
        if change is not None:
            yield change

    def _healthy(self, pod: Pod) -> bool:
        """Whether a pod runs, is ready and available, and stays."""
        if pod.terminating or pod.status.phase != "Running":
            return False
        at = available_at(pod, self.spec.min_ready_seconds, self.context.now)
        if at is not None and at > self.context.now:
            self.context.wake(self.key, at)
        return at is not None and at <= self.context.now

    def _pod(self, number: int) -> Pod:
        revision = self._revision_for(number)
        name = f"{self.set.name}-{number}"
        template: PodTemplate = self.spec.template if revision is self.update else template_of(revision)
        labels = {NAME_LABEL: name, INDEX_LABEL: str(number), REVISION_LABEL: revision.name}
        pod = pod_of(self.set, template, name, labels)
        spec = replace(
            pod.spec, hostname=name, subdomain=self.spec.service_name, volumes=self._volumes(pod, name)
        )
        return replace(pod, spec=spec)

    def _volumes(self, pod: Pod, name: str) -> tuple[dict[str, object], ...]:
        claims = [str(claim["metadata"]["name"]) for claim in self.spec.volume_claim_templates]
        others = tuple(volume for volume in pod.spec.volumes if volume.get("name") not in claims)
        made = (
            {"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims
        )
        return (*others, *made)

    def _revision_for(self, number: int) -> Generic:
        strategy = self.spec.update_strategy
        limits = strategy.rolling_update
        if strategy.type == "OnDelete":
            return self.update
        if limits is None:
            before = number < self.start + self.set.status.current_replicas
        else:
            before = number < self.start + (limits.partition or 0)
        return self.current if before else self.update

    def _reported(self) -> list[Change]:
        pods = [pod for pod in self.pods if pod.metadata.uid]
        alive = [pod for pod in pods if not pod.terminating and not pod.finished]
        running = [pod for pod in pods if pod.status.phase == "Running" and pod.ready]
        seconds, now = self.spec.min_ready_seconds, self.context.now
        status = replace(
            self.set.status,
            observed_generation=self.set.metadata.generation,
            replicas=len(pods),
            ready_replicas=len(running),
            available_replicas=sum(available(pod, seconds, now) for pod in running),
            current_replicas=self._count(alive, self.current),
            updated_replicas=self._count(alive, self.update),
            current_revision=self.current.name,
            update_revision=self.update.name,
            collision_count=0,
        )
        status = self._completed(status)
        if status == self.set.status:
            return []
        return [Change("update", replace(self.set, status=status), "the counts changed")]

    def _completed(self, status: StatefulSetStatus) -> StatefulSetStatus:
        """Once all pods have the newest template, it is the current one."""
        done = status.updated_replicas == status.replicas == status.ready_replicas == self.wished
        if not done or self.spec.update_strategy.type == "OnDelete":
            return status
        return replace(status, current_replicas=status.updated_replicas, current_revision=self.update.name)

    @staticmethod
    def _count(pods: list[Pod], revision: Generic) -> int:
        return sum(pod.metadata.labels.get(REVISION_LABEL) == revision.name for pod in pods)

    def _forgotten(self) -> list[Change]:
        limit = 10 if self.spec.revision_history_limit is None else self.spec.revision_history_limit
        live = {pod.metadata.labels.get(REVISION_LABEL) for pod in self.pods} | {
            self.update.name,
            self.current.name,
        }
        spare = [item for item in self.history.all if item.name not in live]
        excess = max(0, len(spare) - limit)
        return [Change("delete", item, f"more than {limit} old revisions") for item in spare[:excess]]


def ordinal(name: str, pod_name: str) -> int | None:
    """The number at the end of a pod's name, None where it is not one of this StatefulSet's names."""
    prefix, _, number = pod_name.rpartition("-")
    return int(number) if prefix == name and number.isdecimal() else None


def _maximum(value: int | str | None, total: int) -> int:
    """`maxUnavailable` as a number of at least one; a share is rounded up."""
    if isinstance(value, str):
        return max(1, math.ceil(total * int(value.rstrip("%")) / 100))
    return max(1, 1 if value is None else value)


_LOOP = Keyed(
    ("StatefulSet",),
    {
        "StatefulSet": own_key,
        "Pod": controller_key("StatefulSet"),
        "ControllerRevision": controller_key("StatefulSet"),
    },
    _sync,
)
