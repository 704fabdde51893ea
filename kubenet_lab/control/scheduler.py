"""Gives pods their nodes: kube-scheduler as far as networking needs it.

A node is out of the question when it is unschedulable, not ready, lacks a label of the pod's `nodeSelector`,
has a taint the pod does not tolerate, or has the pod's host port taken. Among the others the one with the
fewest pods of the same kind (the same controller, or else the same labels) wins, then the one with the fewest
pods, then the first. Not modelled: resources, affinity, topologySpreadConstraints, priorities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import Node, Pod, matches_map
from kubenet_lab.objects.node import Taint
from kubenet_lab.objects.pod import PodCondition, Toleration, with_condition
from kubenet_lab.store import Store

Group = tuple[str, object]
HostPort = tuple[str, str, int]


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A node for each pod that has none; a pod that fits nowhere is told so in its condition PodScheduled."""
    pods = store.list(Pod)
    waiting = [pod for pod in pods if not pod.spec.node_name and not pod.terminating and not pod.finished]
    unmarked = [pod for pod in pods if pod.spec.node_name and not _marked(pod)]
    changes = [
        Change("update", pod.with_node(pod.spec.node_name), "placed by its author") for pod in unmarked
    ]
    if not waiting:
        return changes
    nodes = store.list(Node)
    load: Counter[str] = Counter()
    alike: Counter[tuple[str, Group]] = Counter()
    ports: dict[str, set[HostPort]] = {node.name: set() for node in nodes}
    for pod in pods:
        if pod.spec.node_name and not pod.finished:
            load[pod.spec.node_name] += 1
            alike[pod.spec.node_name, _group(pod)] += 1
            ports.setdefault(pod.spec.node_name, set()).update(_host_ports(pod))
    for pod in waiting:
        fits, refusals = [], Counter[str]()
        for index, node in enumerate(nodes):
            reason = _refusal(pod, node, ports[node.name])
            if reason:
                refusals[reason] += 1
            else:
                fits.append((alike[node.name, _group(pod)], load[node.name], index, node.name))
        if fits:
            name = min(fits)[3]
            load[name] += 1
            alike[name, _group(pod)] += 1
            ports[name].update(_host_ports(pod))
            changes.append(Change("update", pod.with_node(name), f"placed on {name}"))
        else:
            status = with_condition(
                pod.status,
                PodCondition(
                    type="PodScheduled",
                    status="False",
                    reason="Unschedulable",
                    message=_message(len(nodes), refusals),
                ),
            )
            if status != pod.status:
                changes.append(Change("update", replace(pod, status=status), "it fits on no node"))
    return changes


def _marked(pod: Pod) -> bool:
    return any(item.type == "PodScheduled" and item.status == "True" for item in pod.status.conditions)


def _group(pod: Pod) -> Group:
    owner = pod.metadata.controller
    return (pod.namespace, owner.uid if owner else tuple(sorted(pod.metadata.labels.items())))


def _host_ports(pod: Pod) -> Iterable[HostPort]:
    for container in pod.serving_containers:
        for port in container.ports:
            if port.host_port:
                yield (port.protocol or "TCP", port.host_ip or "0.0.0.0", port.host_port)


def _taken(wished: HostPort, taken: set[HostPort]) -> bool:
    protocol, address, port = wished
    return any(
        (protocol, port) == (other[0], other[2]) and (address == other[1] or "0.0.0.0" in (address, other[1]))
        for other in taken
    )


def _refusal(pod: Pod, node: Node, taken: set[HostPort]) -> str:
    """Why the pod cannot go there, in kube-scheduler's words; empty when it can."""
    if node.spec.unschedulable:
        return "node(s) were unschedulable"
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not _tolerated(taint, pod.spec.tolerations):
            return f"node(s) had untolerated taint(s) {{{taint.key}: {taint.value}}}"
    if not node.ready:
        return "node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }"
    if not matches_map(pod.spec.node_selector, node.metadata.labels):
        return "node(s) didn't match Pod's node affinity/selector"
    if any(_taken(port, taken) for port in _host_ports(pod)):
        return "node(s) didn't have free ports for the requested pod ports"
    return ""


def _tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
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
