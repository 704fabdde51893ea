"""Pods for workloads that were written down without any: what a cluster would make of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubenet_lab import control
from kubenet_lab.objects import (
    AnyObject,
    DaemonSet,
    Deployment,
    Job,
    Namespace,
    Node,
    ObjectMeta,
    Pod,
    ReplicaSet,
    StatefulSet,
    default_nodes,
    with_defaults,
)
from kubenet_lab.packet.ip import ip_text, prefix
from kubenet_lab.store import Store

WORKLOADS = (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job)


def with_pods(objects: Iterable[AnyObject], seed: int = 0) -> list[AnyObject]:
    """The objects, with the pods of every workload that selects none of them, and an address for each pod without one.

    `kubectl apply`, and `kubectl get pods -A -o wide` when all of them run. A dump of a cluster, whose pods are there
    and have addresses, comes back as it is. Where no Node is among the objects there are three.

    Args:
        objects: Manifests or a dump.
        seed: Decides the ends of the pods' names.
    """
    given = list(objects)
    pods = [obj for obj in given if isinstance(obj, Pod)]
    lonely = [obj for obj in given if isinstance(obj, WORKLOADS) and not _has_pods(obj, pods)]
    if lonely:
        nodes = [obj for obj in given if isinstance(obj, Node)]
        if not nodes:
            nodes = default_nodes()
            given += nodes
        given += _made(lonely, nodes, seed)
    if all(obj.ips or obj.finished for obj in given if isinstance(obj, Pod)):
        return given
    return _addressed(given)


def _has_pods(workload: AnyObject, pods: Sequence[Pod]) -> bool:
    selector = getattr(workload.spec, "selector", None)  # type: ignore[union-attr]
    own = [pod for pod in pods if pod.namespace == workload.namespace]
    if any(
        owner.uid == workload.metadata.uid and owner.uid
        for pod in own
        if (owner := pod.metadata.controller) is not None
    ):
        return True
    if any(owner.controller for owner in workload.metadata.owner_references):
        return True  # its owner makes its pods
    return selector is not None and any(selector.matches(pod.metadata.labels) for pod in own)


def _made(workloads: Sequence[AnyObject], nodes: Sequence[Node], seed: int) -> list[AnyObject]:
    store = Store(seed)
    spaces = {workload.namespace for workload in workloads} - {""}
    store.apply_all(
        [
            *(Namespace(metadata=ObjectMeta(name=name)) for name in sorted(spaces)),
            *nodes,
            *(with_defaults(workload) for workload in workloads),
        ]
    )
    control.settle(store)
    made: list[AnyObject] = list(store.list(Pod))
    return made


def _addressed(objects: Sequence[AnyObject]) -> list[AnyObject]:
    """The same objects, each pod with an address: of its node's block where that is known, or of the cluster's."""
    nodes = {obj.name: obj for obj in objects if isinstance(obj, Node)}
    taken = {ip for obj in objects if isinstance(obj, Pod) for ip in obj.ips}
    blocks = {
        name: [block for block in node.spec.pod_cidrs if ":" not in block] for name, node in nodes.items()
    }
    known = {node.name: block for node, block in zip(nodes.values(), _blocks(), strict=False)}
    found: list[AnyObject] = []
    for obj in objects:
        if not isinstance(obj, Pod) or obj.ips or obj.finished:
            found.append(obj)
            continue
        node = nodes.get(obj.spec.node_name)
        if obj.spec.host_network:
            ips = node.internal_ips if node is not None else ()
        else:
            own = blocks.get(obj.spec.node_name) or [known.get(obj.spec.node_name, "10.244.0.0/16")]
            ips = (_free(own[0], taken),)
            taken.update(ips)
        found.append(obj.with_status(phase="Running", ips=ips, ready=True))
    return found


def _blocks() -> Iterable[str]:
    """Blocks for nodes that have not been given any, as the control plane hands them out."""
    return (f"10.244.{number}.0/24" for number in range(256))


def _free(block: str, taken: set[str]) -> str:
    base = prefix(block)
    number = base.net + 2
    while ip_text(number, base.family) in taken:
        number += 1
    return ip_text(number, base.family)
