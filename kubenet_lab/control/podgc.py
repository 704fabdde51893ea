"""Takes pods away whose node is gone (kube-controller-manager's pod garbage collector).

A node that was deleted may come back under its name: its pods are given 40 s. `pkg/controller/podgc/gc_controller.go`.
Pods that name a node nobody here ever knew (part of a dump) stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.view import Context, Keyed, View
from kubenet_lab.objects import Node, Pod
from kubenet_lab.store import Key, Store

QUARANTINE_SECONDS = 40


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A delete for each pod whose node has been gone for 40 s."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    kind, name = key
    if kind == "deleted":
        # The quarantine begins when the loop hears of it; the same node is asked for again when it ends.
        context.wake(("quarantined", name), context.now + QUARANTINE_SECONDS)
        return []
    if ("", name) in context.view.all("Node"):
        return []
    pods: list[Pod] = context.view.pods_by_node.of(name)
    return [Change("delete", pod, f"its node {name} is gone") for pod in pods]


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    if old is not None and new is None:
        yield ("deleted", old.name)


_LOOP = Keyed((), {"Node": _of_node}, _sync)
