"""ReplicaSets: as many pods as wished, made from the template.

Source: `pkg/controller/replicaset/replica_set.go` and, for which pods go first, `pkg/controller/controller_utils.go`.
A selector that consists of expressions alone adopts nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec.structs import replace

from kubenet_lab.control import deletion
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import available, available_at, ready_since
from kubenet_lab.control.template import active, pod_of
from kubenet_lab.control.view import Context, Keyed, View, controller_key, own_key
from kubenet_lab.objects import Pod, ReplicaSet, owned_by
from kubenet_lab.store import Key, Store

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Pods to create and to delete, and the counts in each ReplicaSet's status.

    A pod without controller whose labels match is adopted; one whose labels no longer match is let go.
    """
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    replica_set: ReplicaSet | None = context.view.all("ReplicaSet").get(key)
    if replica_set is None:
        return []
    changes: list[Change] = []
    mine = context.view.pods_by_controller.of(replica_set.metadata.uid)
    if not replica_set.metadata.deletion_timestamp:
        mine = _claimed(context.view, replica_set, mine, changes)
        changes += _scale(context, replica_set, mine)
    status = _status(context, key, replica_set, mine)
    if status != replica_set.status:
        changes.append(Change("update", replace(replica_set, status=status), "the counts changed"))
    return changes


def _claimed(view: View, replica_set: ReplicaSet, mine: list[Pod], changes: list[Change]) -> list[Pod]:
    """The pods that are the ReplicaSet's own, once the strays are adopted and the others let go."""
    selector = replica_set.spec.selector
    kept = []
    for pod in mine:
        if pod.terminating or selector.matches(pod.metadata.labels):
            kept.append(pod)
            continue
        uid = replica_set.metadata.uid
        owners = tuple(owner for owner in pod.metadata.owner_references if owner.uid != uid)
        released = pod.with_metadata(owner_references=owners)
        changes.append(Change("update", released, f"its labels are no longer those of {replica_set.name}"))
    if selector.match_labels:
        for pod in view.pods_by_controller.of(("", replica_set.namespace)):
            if not pod.terminating and not pod.finished and _claimant(view, pod) is replica_set:
                owners = (*pod.metadata.owner_references, *owned_by(replica_set))
                adopted = pod.with_metadata(owner_references=owners)
                changes.append(Change("update", adopted, f"adopted by ReplicaSet {replica_set.name}"))
                kept.append(adopted)
    return kept


def _claimant(view: View, pod: Pod) -> ReplicaSet | None:
    """The ReplicaSet that a pod without controller goes to: the first one whose selector means it."""
    labels = pod.metadata.labels
    for pair in labels.items():
        for replica_set in view.replica_sets_by_label.of((pod.namespace, *pair)):
            if replica_set.spec.selector.matches(labels) and not replica_set.metadata.deletion_timestamp:
                found: ReplicaSet = replica_set
                return found
    return None


def _scale(context: Context, replica_set: ReplicaSet, mine: list[Pod]) -> Iterator[Change]:
    there = active(mine)
    wished = 1 if replica_set.spec.replicas is None else replica_set.spec.replicas
    missing = wished - len(there)
    why = f"{wished} wished, {len(there)} there"
    names: list[str] = []
    for _ in range(missing):
        prefix = f"{replica_set.name}-"
        name = context.store.generated_name("Pod", prefix, replica_set.namespace, skip=names)
        names.append(name)
        yield Change("create", pod_of(replica_set, replica_set.spec.template, name), why)
    if missing < 0:
        crowd = _crowd(context.view, replica_set)
        for pod in sorted(there, key=lambda pod: _first_to_go(pod, crowd))[:-missing]:
            change = deletion.of_pod(pod, context.now, context.settings, why)
            if change is not None:
                yield change


def _crowd(view: View, replica_set: ReplicaSet) -> Counter[str]:
    """How many pods of this ReplicaSet, or of others of the same Deployment, each node has."""
    owner = replica_set.metadata.controller
    kin = (
        [item for item in view.owned.of(owner.uid) if item.kind == "ReplicaSet"] if owner is not None else []
    )
    pods = [pod for item in kin or [replica_set] for pod in view.pods_by_controller.of(item.metadata.uid)]
    return Counter(pod.spec.node_name for pod in active(pods))


def _first_to_go(pod: Pod, crowd: Counter[str]) -> tuple[bool, int, bool, int, int, float, int, int]:
    """Which pod goes first when there are too many.

    Not placed, then Pending, then not ready, then the cheapest (annotation `pod-deletion-cost`), then where most of
    its kind are, then ready for the shortest time, then restarted most often, then the youngest.
    """
    phase = {"Pending": 0, "Unknown": 1}.get(pod.status.phase, 2)
    try:
        cost = int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        cost = 0
    restarts = max((item.restart_count for item in pod.status.container_statuses), default=0)
    version = int(pod.metadata.resource_version or 0)
    since = ready_since(pod)
    recent = 0.0 if since is None else -since
    return (
        bool(pod.spec.node_name),
        phase,
        pod.ready,
        cost,
        -crowd[pod.spec.node_name],
        recent,
        -restarts,
        -version,
    )


def _status(context: Context, key: Key, replica_set: ReplicaSet, mine: list[Pod]) -> object:
    there = active(mine)
    labels = replica_set.spec.template.metadata.labels.items()
    seconds = replica_set.spec.min_ready_seconds
    for pod in there:
        at = available_at(pod, seconds, context.now)
        if at is not None and at > context.now:
            context.wake(key, at)
    return replace(
        replica_set.status,
        replicas=len(there),
        fully_labeled_replicas=sum(labels <= pod.metadata.labels.items() for pod in there),
        ready_replicas=sum(pod.ready for pod in there),
        available_replicas=sum(available(pod, seconds, context.now) for pod in there),
        terminating_replicas=sum(pod.terminating and not pod.finished for pod in mine),
        observed_generation=replica_set.metadata.generation,
    )


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    yield from _owner(view, old, new)
    if new is not None and new.metadata.controller is None and new.metadata.labels:
        claimant = _claimant(view, new)
        if claimant is not None:
            yield (claimant.namespace, claimant.name)


_owner = controller_key("ReplicaSet")
_LOOP = Keyed(("ReplicaSet",), {"ReplicaSet": own_key, "Pod": _of_pod}, _sync)
