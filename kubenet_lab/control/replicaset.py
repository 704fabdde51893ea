"""ReplicaSets: as many pods as wished, made from the template.

Source: `pkg/controller/replicaset/replica_set.go`.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import ObjectMeta, Pod, ReplicaSet, owned_by
from kubenet_lab.store import Store


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Pods to create and to delete, and the counts in each ReplicaSet's status.

    A pod without controller whose labels match is adopted, as the real controller does.
    """
    owned: dict[str, list[Pod]] = {}
    orphans: dict[str, list[Pod]] = {}
    for pod in store.list(Pod):
        owner = pod.metadata.controller
        if owner is not None:
            owned.setdefault(owner.uid, []).append(pod)
        elif not pod.terminating:
            orphans.setdefault(pod.namespace, []).append(pod)
    changes: list[Change] = []
    for replica_set in store.list(ReplicaSet):
        mine = owned.get(replica_set.metadata.uid, [])
        changes += _one(store, replica_set, mine, orphans.get(replica_set.namespace, []))
    return changes


def _one(store: Store, replica_set: ReplicaSet, mine: list[Pod], orphans: list[Pod]) -> list[Change]:
    changes = []
    selector = replica_set.spec.selector
    for pod in [*orphans] if selector.match_labels or selector.match_expressions else []:
        if selector.matches(pod.metadata.labels):
            orphans.remove(pod)
            adopted = pod.with_metadata(
                owner_references=(*pod.metadata.owner_references, *owned_by(replica_set))
            )
            changes.append(Change("update", adopted, f"adopted by ReplicaSet {replica_set.name}"))
            mine = [*mine, adopted]
    active = [pod for pod in mine if not pod.finished and not pod.terminating]
    wished = 1 if replica_set.spec.replicas is None else replica_set.spec.replicas
    missing = wished - len(active)
    names: list[str] = []
    for _ in range(missing):
        pod = _pod(store, replica_set, names)
        names.append(pod.name)
        changes.append(Change("create", pod, f"{wished} wished, {len(active)} there"))
    if missing < 0:
        for pod in sorted(active, key=_first_to_go)[:-missing]:
            changes.append(Change("delete", pod, f"{wished} wished, {len(active)} there"))
    ready = sum(pod.ready for pod in active)
    labels = replica_set.spec.template.metadata.labels.items()
    status = replace(
        replica_set.status,
        replicas=len(active),
        fully_labeled_replicas=sum(labels <= pod.metadata.labels.items() for pod in active),
        ready_replicas=ready,
        available_replicas=ready,
    )
    if status != replica_set.status:
        changes.append(Change("update", replace(replica_set, status=status), "the counts changed"))
    return changes


def _first_to_go(pod: Pod) -> tuple[bool, int, bool, int]:
    """Which pod goes first when there are too many: not placed, then Pending, then not ready, then the
    youngest.
    """
    phase = {"Pending": 0, "Unknown": 1}.get(pod.status.phase, 2)
    return (bool(pod.spec.node_name), phase, pod.ready, -int(pod.metadata.resource_version or 0))


def _pod(store: Store, replica_set: ReplicaSet, names: list[str]) -> Pod:
    template = replica_set.spec.template
    prefix = f"{replica_set.name}-"
    return Pod(
        metadata=ObjectMeta(
            name=store.generated_name("Pod", prefix, replica_set.namespace, skip=names),
            generate_name=prefix,
            namespace=replica_set.namespace,
            labels=template.metadata.labels,
            annotations=template.metadata.annotations,
            finalizers=template.metadata.finalizers,
            owner_references=owned_by(replica_set),
        ),
        spec=template.spec,
    )
