"""Deployments: one ReplicaSet a template, scaled so that the roll-out never has too few or too many pods.

Source: `pkg/controller/deployment/{rolling,recreate,sync}.go`. What is not modelled here: the progress
deadline, pausing in the middle, rollback, and the proportional scaling of several ReplicaSets at once.
"""

from __future__ import annotations

import hashlib
import math

import msgspec
from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import Deployment, ObjectMeta, PodTemplate, ReplicaSet, ReplicaSetSpec, owned_by
from kubenet_lab.objects.selector import LabelSelector
from kubenet_lab.objects.workload import DeploymentSpec, DeploymentStatus
from kubenet_lab.store import ALPHABET, Store

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """ReplicaSets to create and to scale, and the counts in each Deployment's status."""
    changes: list[Change] = []
    owned: dict[str, list[ReplicaSet]] = {}
    for replica_set in store.list(ReplicaSet):
        owner = replica_set.metadata.controller
        if owner is not None:
            owned.setdefault(owner.uid, []).append(replica_set)
    for deployment in store.list(Deployment):
        changes += _one(deployment, owned.get(deployment.metadata.uid, []))
    return changes


def _one(deployment: Deployment, replica_sets: list[ReplicaSet]) -> list[Change]:
    spec = deployment.spec
    wished = 1 if spec.replicas is None else spec.replicas
    template_hash = pod_template_hash(spec.template)
    current = next(
        (item for item in replica_sets if item.metadata.labels.get(HASH_LABEL) == template_hash),
        None,
    )
    old = [item for item in replica_sets if item is not current]
    changes = []
    if current is None:
        alive = sum(_replicas(item) for item in old)
        start = wished if not alive else _new_size(spec, wished, 0, alive)
        revision = 1 + max((int(item.metadata.annotations.get(REVISION, 0)) for item in old), default=0)
        changes.append(
            Change(
                "create",
                _replica_set(deployment, template_hash, start, revision),
                "no ReplicaSet has this template",
            )
        )
    else:
        size = _new_size(spec, wished, _replicas(current), sum(_replicas(item) for item in old))
        if size != _replicas(current):
            changes.append(Change("update", _scaled(current, size), f"scale to {size}"))
        changes += _shrink_old(spec, wished, current, old)
    status = _status(deployment, current, replica_sets)
    if status != deployment.status:
        changes.append(Change("update", replace(deployment, status=status), "the counts changed"))
    return changes


def _replicas(replica_set: ReplicaSet) -> int:
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def _scaled(replica_set: ReplicaSet, size: int) -> ReplicaSet:
    return replace(replica_set, spec=replace(replica_set.spec, replicas=size))


def _share(value: int | str | None, total: int, up: bool) -> int:
    """A number, or a share such as "25%" of `total`, rounded up for maxSurge and down for maxUnavailable."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    part = total * int(value.rstrip("%")) / 100
    return math.ceil(part) if up else math.floor(part)


def _surge_and_unavailable(spec: DeploymentSpec, wished: int) -> tuple[int, int]:
    limits = spec.strategy.rolling_update
    if limits is None:
        return 0, wished
    surge, unavailable = _share(limits.max_surge, wished, True), _share(limits.max_unavailable, wished, False)
    # Both zero would never move; the controller then allows one pod to be missing.
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _new_size(spec: DeploymentSpec, wished: int, now: int, old: int) -> int:
    """How many pods the newest ReplicaSet may have."""
    if spec.strategy.type == "Recreate":
        return wished if not old else now
    if now >= wished:
        return wished
    surge, _ = _surge_and_unavailable(spec, wished)
    return min(wished, now + max(0, wished + surge - now - old))


def _shrink_old(
    spec: DeploymentSpec, wished: int, current: ReplicaSet, old: list[ReplicaSet]
) -> list[Change]:
    """Take pods from older ReplicaSets: the unavailable ones first, then as many as may be missing."""
    if spec.strategy.type == "Recreate":
        return [
            Change("update", _scaled(item, 0), "Recreate: old pods go first")
            for item in old
            if _replicas(item)
        ]
    _, unavailable = _surge_and_unavailable(spec, wished)
    everyone = [current, *old]
    total = sum(_replicas(item) for item in everyone)
    new_missing = _replicas(current) - current.status.available_replicas
    may_go = total - (wished - unavailable) - new_missing
    available = sum(item.status.available_replicas for item in everyone)
    changes = []
    for item in old:
        broken = _replicas(item) - item.status.available_replicas
        spare = available - (wished - unavailable)
        healthy = min(item.status.available_replicas, max(0, spare))
        step = max(0, min(_replicas(item), broken + healthy, may_go))
        if step:
            may_go -= step
            available -= max(0, step - broken)
            changes.append(
                Change("update", _scaled(item, _replicas(item) - step), f"{step} of its pods may go")
            )
    return changes


def _replica_set(deployment: Deployment, template_hash: str, replicas: int, revision: int) -> ReplicaSet:
    template = deployment.spec.template
    labels = {**template.metadata.labels, HASH_LABEL: template_hash}
    selector = deployment.spec.selector
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.name}-{template_hash}",
            namespace=deployment.namespace,
            labels=labels,
            annotations={REVISION: str(revision)},
            owner_references=owned_by(deployment),
        ),
        spec=ReplicaSetSpec(
            replicas=replicas,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=LabelSelector(
                match_labels={**selector.match_labels, HASH_LABEL: template_hash},
                match_expressions=selector.match_expressions,
            ),
            template=replace(template, metadata=replace(template.metadata, labels=labels)),
        ),
    )


def _status(
    deployment: Deployment, current: ReplicaSet | None, replica_sets: list[ReplicaSet]
) -> DeploymentStatus:
    available = sum(item.status.available_replicas for item in replica_sets)
    total = sum(item.status.replicas or 0 for item in replica_sets)
    wished = 1 if deployment.spec.replicas is None else deployment.spec.replicas
    return replace(
        deployment.status,
        replicas=total,
        updated_replicas=(current.status.replicas or 0) if current else 0,
        ready_replicas=sum(item.status.ready_replicas for item in replica_sets),
        available_replicas=available,
        unavailable_replicas=max(0, max(total, wished) - available),
    )


def pod_template_hash(template: PodTemplate) -> str:
    """The label that tells one template's pods from another's, and the middle of their names.

    Looks as the real one does (FNV-1a over the template, written with the alphabet of generated names), but
    Kubernetes hashes Go's own print of the structure, so a real cluster gives the same template another hash.
    """
    number = 2166136261
    for byte in hashlib.blake2b(msgspec.json.encode(template, order="deterministic")).digest():
        number = ((number ^ byte) * 16777619) & 0xFFFFFFFF
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(number))
