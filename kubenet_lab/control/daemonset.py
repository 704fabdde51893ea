"""DaemonSets: one pod on each node that is meant.

Source: `pkg/controller/daemon/{daemon_controller,update}.go`. The pod names its node by a node affinity, and the
scheduler binds it, as in a real cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from kubenet_lab.control import deletion
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import available, available_at
from kubenet_lab.control.scheduler import meant, tolerated
from kubenet_lab.control.template import REVISION_LABEL, Revisions, pod_of, revisions
from kubenet_lab.control.view import Context, Keyed, View, controller_key, own_key
from kubenet_lab.objects import Json, Node, Pod
from kubenet_lab.objects.pod import Toleration
from kubenet_lab.objects.workload import DaemonSet
from kubenet_lab.store import Key, Store

GENERATION_LABEL = "pod-template-generation"
GENERATION = "deprecated.daemonset.template.generation"

_NODE = "node.kubernetes.io/"
TOLERATIONS = (
    Toleration(key=f"{_NODE}not-ready", operator="Exists", effect="NoExecute"),
    Toleration(key=f"{_NODE}unreachable", operator="Exists", effect="NoExecute"),
    Toleration(key=f"{_NODE}disk-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key=f"{_NODE}memory-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key=f"{_NODE}pid-pressure", operator="Exists", effect="NoSchedule"),
    Toleration(key=f"{_NODE}unschedulable", operator="Exists", effect="NoSchedule"),
)
"""What every pod of a DaemonSet puts up with; one in the node's network also `network-unavailable`."""
_NETWORK = Toleration(key=f"{_NODE}network-unavailable", operator="Exists", effect="NoSchedule")


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Pods to create and to delete, revisions of the template, and the counts in each DaemonSet's status."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    daemon_set: DaemonSet | None = context.view.all("DaemonSet").get(key)
    if daemon_set is None or daemon_set.metadata.deletion_timestamp:
        return []
    uid = daemon_set.metadata.uid
    owned = [item for item in context.view.owned.of(uid) if item.kind == "ControllerRevision"]
    history = revisions(daemon_set, daemon_set.spec.template, owned, _known_as(context.view, daemon_set))
    if history.create is not None:
        return [Change("create", history.create, "no revision has this template")]
    if history.update is not None:
        return [Change("update", history.update, "the template is an older one again")]
    return _Set(context, key, daemon_set, history).changes()


class _Set:
    """One DaemonSet with the nodes and its pods, and what one run of the controller does about them."""

    def __init__(self, context: Context, key: Key, daemon_set: DaemonSet, history: Revisions) -> None:
        self.context, self.key, self.set = context, key, daemon_set
        self.revision = history.newest
        self.history = history
        self.by_node: dict[str, list[Pod]] = {}
        for pod in context.view.pods_by_controller.of(daemon_set.metadata.uid):
            self.by_node.setdefault(target_node(pod), []).append(pod)
        nodes: Iterable[Node] = context.view.all("Node").values()
        probe = self._pod("", "")
        self.wanted = {node.name: _should_run(probe, node) for node in nodes}
        self.names: list[str] = []

    def changes(self) -> list[Change]:
        changes = [*self._manage()]
        if not changes and self.set.spec.update_strategy.type != "OnDelete":
            changes = [*self._roll()]
        return changes + self._reported() + self._forgotten()

    def _manage(self) -> Iterator[Change]:
        for name, (run, stay) in self.wanted.items():
            pods = [pod for pod in self.by_node.get(name, []) if not pod.terminating]
            failed = [pod for pod in pods if pod.finished]
            for pod in failed:
                yield from self._delete(pod, "it has ended, which no pod of a DaemonSet should")
            alive = [pod for pod in pods if not pod.finished]
            if run and not self.by_node.get(name):
                yield self._create(name)
            elif not stay:
                for pod in alive:
                    yield from self._delete(pod, f"{name} shall have none")
            elif len(alive) > 1 and not self._surge():
                for pod in sorted(alive, key=_oldest)[1:]:
                    yield from self._delete(pod, f"{name} has one already")
        for name, pods in self.by_node.items():
            if name not in self.wanted:
                for pod in pods:
                    yield from self._delete(pod, f"node {name} is gone")

    def _roll(self) -> Iterator[Change]:
        """Replace pods of an older template: those that serve nobody first, then as many as may be missing."""
        surge = self._surge()
        nodes = [name for name, (run, _) in self.wanted.items() if run]
        limits = self.set.spec.update_strategy.rolling_update
        room = surge or _share(limits.max_unavailable if limits is not None else 1, len(nodes)) or 1
        sick: list[Pod] = []
        sound: list[tuple[str, Pod]] = []
        for name in nodes:
            old, new = self._old_and_new(name)
            if surge:
                if new is not None and old is not None and self._available(new):
                    yield from self._delete(old, "its successor is available")
                elif new is not None and not self._available(new):
                    room -= 1
                elif old is not None and new is None:
                    sound.append((name, old))
            elif old is not None and not old.terminating:
                if self._available(old):
                    sound.append((name, old))
                else:
                    sick.append(old)
                    room -= 1
            elif new is None or not self._available(new):
                room -= 1
        why = f"it has an older template than {self.revision.name}"
        for pod in sick:
            yield from self._delete(pod, why)
        for name, pod in sound[: max(0, room)]:
            if surge:
                yield self._create(name)
            else:
                yield from self._delete(pod, why)

    def _old_and_new(self, name: str) -> tuple[Pod | None, Pod | None]:
        pods = self.by_node.get(name, [])
        new = [
            pod
            for pod in pods
            if pod.metadata.labels.get(REVISION_LABEL) == self._hash and not pod.terminating
        ]
        old = [pod for pod in pods if pod.metadata.labels.get(REVISION_LABEL) != self._hash]
        return next(iter(old), None), next(iter(new), None)

    @property
    def _hash(self) -> str:
        return self.revision.name.removeprefix(f"{self.set.name}-")

    def _surge(self) -> int:
        limits = self.set.spec.update_strategy.rolling_update
        wanted = sum(run for run, _ in self.wanted.values())
        return _share(limits.max_surge, wanted) if limits is not None and limits.max_surge else 0

    def _available(self, pod: Pod) -> bool:
        seconds = self.set.spec.min_ready_seconds
        at = available_at(pod, seconds, self.context.now)
        if at is not None and at > self.context.now:
            self.context.wake(self.key, at)
        return available(pod, seconds, self.context.now) and not pod.terminating

    def _create(self, node: str) -> Change:
        prefix = f"{self.set.name}-"
        name = self.context.store.generated_name("Pod", prefix, self.set.namespace, skip=self.names)
        self.names.append(name)
        return Change("create", self._pod(name, node), f"{node} has none")

    def _pod(self, name: str, node: str) -> Pod:
        labels = {
            REVISION_LABEL: self._hash,
            GENERATION_LABEL: self.set.metadata.annotations.get(GENERATION, "1"),
        }
        pod = pod_of(self.set, self.set.spec.template, name, labels)
        extra = (*TOLERATIONS, _NETWORK) if pod.spec.host_network else TOLERATIONS
        tolerations = (*pod.spec.tolerations, *(item for item in extra if item not in pod.spec.tolerations))
        affinity = _pinned(pod.spec.affinity, node) if node else pod.spec.affinity
        return replace(pod, spec=replace(pod.spec, tolerations=tolerations, affinity=affinity))

    def _delete(self, pod: Pod, why: str) -> Iterator[Change]:
        change = deletion.of_pod(pod, self.context.now, self.context.settings, why)
        if change is not None:
            yield change

    def _reported(self) -> list[Change]:
        wanted = [name for name, (run, _) in self.wanted.items() if run]
        serving = [sorted(self.by_node[name], key=_oldest) for name in wanted if self.by_node.get(name)]
        ready = [next((pod for pod in pods if pod.ready), None) for pods in serving]
        usable = sum(any(self._available(pod) for pod in pods) for pods in serving)
        misplaced = [name for name, (run, _) in self.wanted.items() if not run and self.by_node.get(name)]
        status = replace(
            self.set.status,
            observed_generation=self.set.metadata.generation,
            desired_number_scheduled=len(wanted),
            current_number_scheduled=len(serving),
            number_misscheduled=len(misplaced),
            number_ready=sum(pod is not None for pod in ready),
            number_available=usable,
            number_unavailable=len(wanted) - usable,
            updated_number_scheduled=sum(
                any(pod.metadata.labels.get(REVISION_LABEL) == self._hash for pod in pods) for pods in serving
            ),
        )
        if status == self.set.status:
            return []
        return [Change("update", replace(self.set, status=status), "the counts changed")]

    def _forgotten(self) -> list[Change]:
        limit = 10 if self.set.spec.revision_history_limit is None else self.set.spec.revision_history_limit
        live = {pod.metadata.labels.get(REVISION_LABEL, "") for pods in self.by_node.values() for pod in pods}
        kept = {f"{self.set.name}-{item}" for item in live} | {self.revision.name}
        spare = [item for item in self.history.all if item.name not in kept]
        excess = max(0, len(spare) - limit)
        return [Change("delete", item, f"more than {limit} old revisions") for item in spare[:excess]]


def _known_as(view: View, daemon_set: DaemonSet) -> str:
    """What the youngest of its pods calls the present template, "" where there is none."""
    pods: list[Pod] = view.pods_by_controller.of(daemon_set.metadata.uid)
    youngest = max(pods, key=_oldest, default=None)
    label = youngest.metadata.labels.get(REVISION_LABEL, "") if youngest is not None else ""
    return f"{daemon_set.name}-{label}" if label else ""


def target_node(pod: Pod) -> str:
    """The node a DaemonSet's pod is on, or, not yet placed, is meant for."""
    if pod.spec.node_name:
        return pod.spec.node_name
    affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and len(field.get("values") or ()) == 1:
                return str(field["values"][0])
    return ""


def _pinned(affinity: Json | None, node: str) -> Json:
    """An affinity that no other node has, in place of the required node affinity."""
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    given = affinity or {}
    return {
        **given,
        "nodeAffinity": {
            **(given.get("nodeAffinity") or {}),
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": fields}]
            },
        },
    }


def _should_run(pod: Pod, node: Node) -> tuple[bool, bool]:
    """Whether a node shall be given a pod, and whether one that is there may stay."""
    if (pod.spec.node_name and pod.spec.node_name != node.name) or not meant(pod, node):
        return False, False
    untolerated = [taint for taint in node.spec.taints if not tolerated(taint, pod.spec.tolerations)]
    run = not any(taint.effect in ("NoSchedule", "NoExecute") for taint in untolerated)
    return run, not any(taint.effect == "NoExecute" for taint in untolerated)


def _share(value: int | str | None, total: int) -> int:
    if isinstance(value, str):
        return math.ceil(total * int(value.rstrip("%")) / 100)
    return value or 0


def _oldest(pod: Pod) -> tuple[bool, str, int]:
    return (not pod.spec.node_name, pod.metadata.creation_timestamp, int(pod.metadata.resource_version or 0))


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    if old is None or new is None or _asked_of(old) != _asked_of(new):
        yield from view.all("DaemonSet")


def _asked_of(node: Node) -> object:
    return (node.spec.taints, node.spec.unschedulable, node.metadata.labels)


_LOOP = Keyed(
    ("DaemonSet",),
    {
        "DaemonSet": own_key,
        "Pod": controller_key("DaemonSet"),
        "Node": _of_node,
        "ControllerRevision": controller_key("DaemonSet"),
    },
    _sync,
)
