"""Gives pods their nodes: kube-scheduler as far as networking needs it.

A node is out of the question when it is unschedulable, not ready, lacks a label of the pod's `nodeSelector` or of its
required node affinity, has a taint the pod does not tolerate, or has the pod's host port taken. Among the others the
one with the fewest pods of the same kind (the same controller, or else the same labels) wins, then the one with the
fewest pods, then the first. Not modelled: resources, pod affinity, preferences, topologySpreadConstraints, priorities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.view import Context, Keyed, View
from kubenet_lab.objects import Json, LabelSelectorRequirement, Node, Pod, matches_map
from kubenet_lab.objects.node import Taint
from kubenet_lab.objects.pod import PodCondition, Toleration, with_condition
from kubenet_lab.store import Key, Store

HostPort = tuple[str, str, int]

_UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
_NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A node for each pod that has none; a pod that fits nowhere is told so in its condition PodScheduled."""
    return _LOOP(store, settings)


class _Placed:
    """The pods that were placed in this run, which the view does not know of yet."""

    def __init__(self) -> None:
        self.load: Counter[str] = Counter()
        self.alike: Counter[tuple[str, object]] = Counter()
        self.ports: dict[str, set[HostPort]] = {}


def _sync_all(context: Context, keys: Iterable[Key]) -> Iterator[tuple[Key, list[Change]]]:
    placed = _Placed()
    for key in keys:
        pod: Pod | None = context.view.all("Pod").get(key)
        if pod is None or pod.terminating or pod.finished or _marked(pod):
            yield key, []
        elif pod.spec.node_name:
            yield key, [Change("update", pod.with_node(pod.spec.node_name), "placed by its author")]
        elif pod.spec.scheduling_gates or pod.spec.scheduler_name not in ("", "default-scheduler"):
            yield key, []
        else:
            yield key, _place(context.view, pod, placed)


def _place(view: View, pod: Pod, placed: _Placed) -> list[Change]:
    nodes: list[Node] = [*view.all("Node").values()]
    group = _group(pod)
    alike = Counter(other.spec.node_name for other in _kin(view, pod))
    wanted = [*_host_ports(pod)]
    fits: list[tuple[int, int, int, str]] = []
    refusals: Counter[str] = Counter()
    for index, node in enumerate(nodes):
        name = node.name
        reason = _refusal(pod, node)
        if not reason and wanted and _conflict(view, wanted, name, placed):
            reason = "node(s) didn't have free ports for the requested pod ports"
        if reason:
            refusals[reason] += 1
        else:
            like = alike[name] + placed.alike[name, group]
            fits.append((like, view.load_of_node.count(name) + placed.load[name], index, name))
    if fits:
        name = min(fits)[3]
        placed.load[name] += 1
        placed.alike[name, group] += 1
        placed.ports.setdefault(name, set()).update(wanted)
        return [Change("update", pod.with_node(name), f"placed on {name}")]
    condition = PodCondition(
        type="PodScheduled", status="False", reason="Unschedulable", message=_message(len(nodes), refusals)
    )
    status = with_condition(pod.status, condition)
    if status == pod.status:
        return []
    return [Change("update", replace(pod, status=status), "it fits on no node")]


def _marked(pod: Pod) -> bool:
    return any(item.type == "PodScheduled" and item.status == "True" for item in pod.status.conditions)


def _group(pod: Pod) -> object:
    owner = pod.metadata.controller
    return (pod.namespace, owner.uid if owner else tuple(sorted(pod.metadata.labels.items())))


def _kin(view: View, pod: Pod) -> Iterator[Pod]:
    """The placed pods of the same controller, or, without one, those with the same labels."""
    owner = pod.metadata.controller
    shelf = ("", pod.namespace) if owner is None else owner.uid
    for other in view.pods_by_controller.of(shelf):
        same = owner is not None or other.metadata.labels == pod.metadata.labels
        if same and other.spec.node_name and not other.finished:
            yield other


def _host_ports(pod: Pod) -> Iterator[HostPort]:
    for container in pod.serving_containers:
        for port in container.ports:
            if port.host_port:
                yield (port.protocol or "TCP", port.host_ip or "0.0.0.0", port.host_port)


def _conflict(view: View, wanted: Iterable[HostPort], node: str, placed: _Placed) -> bool:
    taken = {port for pod in view.load_of_node.of(node) for port in _host_ports(pod)}
    taken |= placed.ports.get(node, set())
    return any(_taken(port, taken) for port in wanted)


def _taken(wished: HostPort, taken: set[HostPort]) -> bool:
    protocol, address, port = wished
    return any(
        (protocol, port) == (other[0], other[2]) and (address == other[1] or "0.0.0.0" in (address, other[1]))
        for other in taken
    )


def _refusal(pod: Pod, node: Node) -> str:
    """Why the pod cannot go there, in kube-scheduler's words; empty when it can."""
    tolerations = pod.spec.tolerations
    if node.spec.unschedulable and not tolerated(_UNSCHEDULABLE, tolerations):
        return "node(s) were unschedulable"
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerated(taint, tolerations):
            return f"node(s) had untolerated taint(s) {{{taint.key}: {taint.value}}}"
    if not node.ready and not tolerated(_NOT_READY, tolerations):
        return "node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }"
    if not meant(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def meant(pod: Pod, node: Node) -> bool:
    """Whether a node has what the pod's `nodeSelector` and required node affinity ask for."""
    if not matches_map(pod.spec.node_selector, node.metadata.labels):
        return False
    affinity = (pod.spec.affinity or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(_term(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term(term: Json, node: Node) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    names = {"metadata.name": node.name}
    return all(_holds(item, node.metadata.labels) for item in expressions) and all(
        _holds(item, names) for item in fields
    )


def _holds(item: Json, labels: Mapping[str, str]) -> bool:
    key, operator = str(item.get("key", "")), str(item.get("operator", ""))
    values = tuple(map(str, item.get("values") or ()))
    if operator in ("Gt", "Lt"):
        here = labels.get(key, "")
        if not here.lstrip("-").isdecimal() or len(values) != 1 or not values[0].lstrip("-").isdecimal():
            return False
        return int(here) > int(values[0]) if operator == "Gt" else int(here) < int(values[0])
    return LabelSelectorRequirement(key=key, operator=operator, values=values).matches(labels)


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether one of the tolerations puts up with a taint."""
    return any(
        item.effect in ("", taint.effect)
        and item.key in ("", taint.key)
        and (item.operator == "Exists" or (bool(item.key) and item.value == taint.value))
        for item in tolerations
    )


def _message(nodes: int, refusals: Counter[str]) -> str:
    """As in `kubectl describe pod`: 0/3 nodes are available: 3 node(s) were unschedulable. ..."""
    if not nodes:
        return "no nodes available to schedule pods"
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in refusals.items()))
    return (
        f"0/{nodes} nodes are available: {reasons}. "
        f"no new claims to deallocate, preemption: 0/{nodes} nodes are available: "
        f"{nodes} Preemption is not helpful for scheduling."
    )


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    if new is not None and not _marked(new):
        yield (new.namespace, new.name)
    if old is not None and old.spec.node_name and (new is None or new.finished) and any(_host_ports(old)):
        yield from _waiting(view)


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    if new is None or old is None or _asked_of(new) != _asked_of(old):
        yield from _waiting(view)


def _asked_of(node: Node) -> object:
    return (node.spec.unschedulable, node.spec.taints, node.ready, node.metadata.labels)


def _waiting(view: View) -> Iterator[Key]:
    for pod in view.pods_by_node.of(""):
        yield (pod.namespace, pod.name)


_LOOP = Keyed(("Pod",), {"Pod": _of_pod, "Node": _of_node}, many=_sync_all)
