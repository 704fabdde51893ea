"""Deployments: one ReplicaSet a template, scaled so that the roll-out never has too few or too many pods.

Source: `pkg/controller/deployment/{rolling,recreate,sync,progress}.go` and `util/deployment_util.go`. Not modelled:
hash collisions, and `kubectl rollout undo` (apply the older template instead, which is what it does).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.clock import timestamp
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import seconds
from kubenet_lab.control.template import pod_template_hash
from kubenet_lab.control.view import Context, Keyed, View, controller_key, own_key
from kubenet_lab.objects import (
    Deployment,
    Json,
    ObjectMeta,
    PodTemplate,
    ReplicaSet,
    ReplicaSetSpec,
    owned_by,
)
from kubenet_lab.objects.selector import LabelSelector
from kubenet_lab.objects.workload import DeploymentSpec, DeploymentStatus
from kubenet_lab.store import Key, Store

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_OWN_ANNOTATIONS = (
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
)


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """ReplicaSets to create, scale and delete, and the counts in each Deployment's status."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    deployment: Deployment | None = context.view.all("Deployment").get(key)
    if deployment is None:
        return []
    uid = deployment.metadata.uid
    owned = [item for item in context.view.owned.of(uid) if item.kind == "ReplicaSet"]
    if not deployment.metadata.deletion_timestamp:
        adopted = _adopted(context.view, deployment)
        if adopted:
            return adopted
    return _Rollout(context, key, deployment, owned).changes()


def _adopted(view: View, deployment: Deployment) -> list[Change]:
    selector = deployment.spec.selector
    if not selector.match_labels and not selector.match_expressions:
        return []
    return [
        Change(
            "update",
            item.with_metadata(owner_references=(*item.metadata.owner_references, *owned_by(deployment))),
            f"adopted by Deployment {deployment.name}",
        )
        for item in view.loose_replica_sets.of(deployment.namespace)
        if selector.matches(item.metadata.labels) and not item.metadata.deletion_timestamp
    ]


class _Rollout:
    """One Deployment with its ReplicaSets, and what one run of the controller does about them."""

    def __init__(self, context: Context, key: Key, deployment: Deployment, owned: list[ReplicaSet]) -> None:
        self.context, self.key, self.deployment = context, key, deployment
        self.spec = deployment.spec
        self.wished = 1 if self.spec.replicas is None else self.spec.replicas
        self.hash = pod_template_hash(self.spec.template)
        owned = sorted(owned, key=lambda item: (item.metadata.creation_timestamp, _revision(item)))
        # By the template and not by its hash: a dump's comes from Go's print of the template, not from ours.
        self.current = next((item for item in owned if _bare(item.spec.template) == self.spec.template), None)
        self.old = [item for item in owned if item is not self.current]
        self.sizes = {item.name: _replicas(item) for item in owned}
        self.surge, self.unavailable = surge_and_unavailable(self.spec, self.wished)
        self.revision = 1 + max(map(_revision, self.old), default=0)
        if self.current is not None and self.spec.paused:
            self.revision = _revision(self.current)

    def changes(self) -> list[Change]:
        changes: list[Change] = []
        create: list[Change] = []
        if not self.deployment.metadata.deletion_timestamp:
            why = "the pods of the older templates make room for the newer"
            if self._paused_or_scaled():
                self._proportional()
                why = f"{self.wished} pods wished in all"
            elif self.spec.strategy.type == "Recreate":
                create = self._recreate()
            elif self.current is None:
                size = self._new_size(0)
                create = [Change("create", self._new(size), "no ReplicaSet has this template")]
            elif not self._grow():
                self._shrink()
            changes = create + self._resized(why)
            if not changes:
                changes = self._forgotten()
        return changes + self._reported(bool(create))

    # -- how many pods each ReplicaSet may have

    def _everyone(self) -> list[ReplicaSet]:
        return [*self.old, self.current] if self.current is not None else [*self.old]

    def _paused_or_scaled(self) -> bool:
        if self.spec.paused:
            return True
        return any(
            self.sizes[item.name]
            and _number(item.metadata.annotations.get(DESIRED, str(self.wished))) != self.wished
            for item in self._everyone()
        )

    def _new_size(self, now: int) -> int:
        room = self.wished + self.surge - sum(self.sizes.values())
        return min(self.wished, now + max(0, room)) if now < self.wished else self.wished

    def _grow(self) -> bool:
        assert self.current is not None
        now = self.sizes[self.current.name]
        self.sizes[self.current.name] = self._new_size(now)
        return self.sizes[self.current.name] != now

    def _shrink(self) -> None:
        """Take pods from older ReplicaSets: the unavailable ones first, then as many as may be missing."""
        assert self.current is not None
        least = self.wished - self.unavailable
        missing = self.sizes[self.current.name] - self.current.status.available_replicas
        room = sum(self.sizes.values()) - least - missing
        for item in self.old:
            broken = self.sizes[item.name] - item.status.available_replicas
            step = max(0, min(room, broken))
            self.sizes[item.name] -= step
            room -= step
        if room <= 0:
            return
        available = sum(item.status.available_replicas for item in self._everyone())
        spare = available - least
        for item in self.old:
            step = max(0, min(self.sizes[item.name], spare))
            self.sizes[item.name] -= step
            spare -= step

    def _recreate(self) -> list[Change]:
        """All old pods go, and are gone, before the first new one comes."""
        pods = self.context.view.pods_by_controller
        for item in self.old:
            self.sizes[item.name] = 0
        if any(not pod.finished for item in self.old for pod in pods.of(item.metadata.uid)):
            return []
        if self.current is None:
            return [Change("create", self._new(self.wished), "no ReplicaSet has this template")]
        self.sizes[self.current.name] = self.wished
        return []

    def _proportional(self) -> None:
        """Scale in the middle of a roll-out: each ReplicaSet gets its share of what comes or goes."""
        live = [item for item in self._everyone() if self.sizes[item.name]]
        if len(live) <= 1:
            newest = self.current if self.current is not None else (self.old[-1] if self.old else None)
            only = live[0] if live else newest
            if only is not None:
                self.sizes[only.name] = self.wished
            return
        current = self.current
        if (
            current is not None
            and self.sizes[current.name] == self.wished == current.status.available_replicas
        ):
            for item in self.old:
                self.sizes[item.name] = 0
            return
        if self.spec.strategy.type == "Recreate":
            return
        allowed = self.wished + self.surge if self.wished else 0
        to_add = allowed - sum(self.sizes[item.name] for item in live)
        # The largest first; of equals the newer when pods come, the older when they go.
        live.sort(key=_revision, reverse=to_add > 0)
        live.sort(key=lambda item: -self.sizes[item.name])
        added = 0
        for item in live:
            added += self._proportion(item, allowed, to_add, added)
        if to_add != added:
            self.sizes[live[0].name] = max(0, self.sizes[live[0].name] + to_add - added)

    def _proportion(self, item: ReplicaSet, allowed: int, to_add: int, added: int) -> int:
        now = self.sizes[item.name]
        if not to_add or to_add == added:
            return 0
        if not self.wished:
            part = -now
        else:
            before = _number(item.metadata.annotations.get(MAXIMUM, "")) or self.deployment.status.replicas
            part = _rounded(now * (self.wished + self.surge) / before) - now if before else 0
        part = min(part, to_add - added) if to_add > 0 else max(part, to_add - added)
        self.sizes[item.name] = now + part
        return part

    # -- what is written

    def _annotations(self, item: ReplicaSet) -> dict[str, str]:
        annotations = dict(item.metadata.annotations)
        if self.sizes.get(item.name, 0) or item is self.current:
            annotations[DESIRED], annotations[MAXIMUM] = str(self.wished), str(self.wished + self.surge)
        if item is self.current:
            before = annotations.get(REVISION, "")
            if _number(before) < self.revision:
                annotations[REVISION] = str(self.revision)
                if before:
                    history = [
                        number for number in annotations.get(REVISION_HISTORY, "").split(",") if number
                    ]
                    annotations[REVISION_HISTORY] = ",".join([*history, before])
            annotations.update(self._copied())
        return annotations

    def _copied(self) -> dict[str, str]:
        given = self.deployment.metadata.annotations
        return {key: text for key, text in given.items() if key not in _OWN_ANNOTATIONS}

    def _resized(self, why: str) -> list[Change]:
        changes = []
        for item in self._everyone():
            size = self.sizes[item.name]
            new = item.with_metadata(annotations=self._annotations(item))
            if size != _replicas(item):
                new = replace(new, spec=replace(new.spec, replicas=size))
            if item is self.current and new.spec.min_ready_seconds != self.spec.min_ready_seconds:
                new = replace(new, spec=replace(new.spec, min_ready_seconds=self.spec.min_ready_seconds))
            if new != item:
                changes.append(Change("update", new, why))
        return changes

    def _new(self, replicas: int) -> ReplicaSet:
        template = self.spec.template
        labels = {**template.metadata.labels, HASH_LABEL: self.hash}
        selector = self.spec.selector
        return ReplicaSet(
            metadata=ObjectMeta(
                name=f"{self.deployment.name}-{self.hash}",
                namespace=self.deployment.namespace,
                labels=labels,
                annotations={
                    **self._copied(),
                    REVISION: str(self.revision),
                    DESIRED: str(self.wished),
                    MAXIMUM: str(self.wished + self.surge),
                },
                owner_references=owned_by(self.deployment),
            ),
            spec=ReplicaSetSpec(
                replicas=replicas,
                min_ready_seconds=self.spec.min_ready_seconds,
                selector=LabelSelector(
                    match_labels={**selector.match_labels, HASH_LABEL: self.hash},
                    match_expressions=selector.match_expressions,
                ),
                template=replace(template, metadata=replace(template.metadata, labels=labels)),
            ),
        )

    def _forgotten(self) -> list[Change]:
        """ReplicaSets beyond `revisionHistoryLimit`, once the roll-out is complete."""
        limit = 10 if self.spec.revision_history_limit is None else self.spec.revision_history_limit
        empty = [item for item in self.old if not _replicas(item) and not item.status.replicas]
        excess = len(self.old) - limit
        if excess <= 0 or not self._complete():
            return []
        why = f"more than {limit} old ReplicaSets"
        return [Change("delete", item, why) for item in sorted(empty, key=_revision)[:excess]]

    def _complete(self) -> bool:
        current = self.current
        return (
            current is not None
            and (current.status.replicas or 0) == self.wished == current.status.available_replicas
            and not any(item.status.replicas for item in self.old)
        )

    def _reported(self, created: bool) -> list[Change]:
        deployment, current = self.deployment, self.current
        everyone = self._everyone()
        annotations = dict(deployment.metadata.annotations)
        if current is not None or created:
            annotations[REVISION] = str(self.revision)
        available = sum(item.status.available_replicas for item in everyone)
        status = replace(
            deployment.status,
            observed_generation=deployment.metadata.generation,
            replicas=sum(item.status.replicas or 0 for item in everyone),
            updated_replicas=(current.status.replicas or 0) if current is not None else 0,
            ready_replicas=sum(item.status.ready_replicas for item in everyone),
            available_replicas=available,
            unavailable_replicas=max(0, sum(map(_replicas, everyone)) - available),
            terminating_replicas=sum(item.status.terminating_replicas or 0 for item in everyone),
        )
        status = self._conditions(status, created)
        new = replace(deployment.with_metadata(annotations=annotations), status=status)
        return [] if new == deployment else [Change("update", new, "the counts changed")]

    def _conditions(self, status: DeploymentStatus, created: bool) -> DeploymentStatus:
        enough = status.available_replicas >= self.wished - self.unavailable
        status = self._condition(
            status,
            "Available",
            enough,
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            f"Deployment {'has' if enough else 'does not have'} minimum availability.",
        )
        name = self.current.name if self.current is not None else f"{self.deployment.name}-{self.hash}"
        before, was = self.deployment.status, _found(status, "Progressing")
        if self.spec.paused:
            return self._condition(status, "Progressing", None, "DeploymentPaused", "Deployment is paused")
        if created:
            text = f'Created new replica set "{name}"'
            return self._condition(status, "Progressing", True, "NewReplicaSetCreated", text, renew=True)
        if self._complete():
            text = f'ReplicaSet "{name}" has successfully progressed.'
            return self._condition(status, "Progressing", True, "NewReplicaSetAvailable", text)
        moved = (
            status.updated_replicas > before.updated_replicas
            or status.replicas - status.updated_replicas < before.replicas - before.updated_replicas
            or status.ready_replicas > before.ready_replicas
            or status.available_replicas > before.available_replicas
        )
        if moved or was is None or was["reason"] in ("NewReplicaSetAvailable", "DeploymentPaused"):
            text = f'ReplicaSet "{name}" is progressing.'
            return self._condition(status, "Progressing", True, "ReplicaSetUpdated", text, renew=True)
        return self._deadline(status, was, name)

    def _deadline(self, status: DeploymentStatus, was: Json, name: str) -> DeploymentStatus:
        limit = 600 if self.spec.progress_deadline_seconds is None else self.spec.progress_deadline_seconds
        since = was.get("lastUpdateTime")
        if limit >= 2**31 - 1 or not since:
            return status
        at = seconds(since) + limit
        if at > self.context.now:
            self.context.wake(self.key, at)
            return status
        text = f'ReplicaSet "{name}" has timed out progressing.'
        return self._condition(status, "Progressing", False, "ProgressDeadlineExceeded", text)

    def _condition(
        self,
        status: DeploymentStatus,
        kind: str,
        holds: bool | None,
        reason: str,
        message: str,
        renew: bool = False,
    ) -> DeploymentStatus:
        """With this condition; its times change with its state and reason, or, `renew`ed, anyway."""
        answer = "Unknown" if holds is None else str(holds)
        was = _found(status, kind)
        if was is not None and (was["status"], was.get("reason")) == (answer, reason) and not renew:
            return status
        now = timestamp(self.context.now)
        same = was is not None and was["status"] == answer
        condition: Json = {
            "type": kind,
            "status": answer,
            "lastUpdateTime": now,
            "lastTransitionTime": was["lastTransitionTime"] if was is not None and same else now,
            "reason": reason,
            "message": message,
        }
        others = tuple(item for item in status.conditions if item["type"] != kind)
        return replace(status, conditions=(*others, condition))


def _bare(template: PodTemplate) -> PodTemplate:
    """A ReplicaSet's template without the label that its Deployment added."""
    labels = {key: text for key, text in template.metadata.labels.items() if key != HASH_LABEL}
    return replace(template, metadata=replace(template.metadata, labels=labels))


def _found(status: DeploymentStatus, kind: str) -> Json | None:
    return next((item for item in status.conditions if item["type"] == kind), None)


def _replicas(replica_set: ReplicaSet) -> int:
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def _revision(replica_set: ReplicaSet) -> int:
    return _number(replica_set.metadata.annotations.get(REVISION, ""))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _rounded(value: float) -> int:
    """To the nearest whole number, halves away from zero, as Go's `integer.RoundToInt32` does."""
    return math.floor(value + 0.5)


def _share(value: int | str | None, total: int, up: bool) -> int:
    """A number, or a share such as "25%" of `total`, rounded up for maxSurge and down for maxUnavailable."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    part = total * int(value.rstrip("%")) / 100
    return math.ceil(part) if up else math.floor(part)


def surge_and_unavailable(spec: DeploymentSpec, wished: int) -> tuple[int, int]:
    """How many pods a roll-out may have too many, and how many may be missing."""
    limits = spec.strategy.rolling_update
    if spec.strategy.type == "Recreate" or limits is None:
        return 0, wished if spec.strategy.type != "Recreate" else 0
    surge, unavailable = _share(limits.max_surge, wished, True), _share(limits.max_unavailable, wished, False)
    # Both zero would never move; the controller then allows one pod to be missing.
    return (surge, min(unavailable, wished)) if surge or unavailable else (0, 1)


def revisions(replica_sets: Iterable[ReplicaSet]) -> dict[int, ReplicaSet]:
    """A Deployment's ReplicaSets by revision: `kubectl rollout history deployment NAME`."""
    return {_revision(item): item for item in sorted(replica_sets, key=_revision)}


_LOOP = Keyed(("Deployment",), {"Deployment": own_key, "ReplicaSet": controller_key("Deployment")}, _sync)
