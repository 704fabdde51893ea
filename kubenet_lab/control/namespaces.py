"""Empties namespaces that are being deleted (kube-controller-manager's namespace controller).

`pkg/controller/namespace/deletion`. `kubectl delete namespace NAME` is
`control.deletion.wish(store, "Namespace", NAME)`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from kubenet_lab.control import deletion
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.view import Context, Keyed, View
from kubenet_lab.objects import AnyObject, Namespace, Pod
from kubenet_lab.store import Key, Store


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Deletes for what a terminating namespace holds, and for the namespace once it is empty."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    name = key[1]
    namespace: Namespace | None = context.view.all("Namespace").get(("", name))
    if namespace is None or not namespace.metadata.deletion_timestamp:
        return []
    changes: list[Change] = []
    left = False
    why = f"namespace {name} is being deleted"
    for kind in context.store.kinds():
        for obj in context.store.list(kind, name):
            left = True
            if isinstance(obj, Pod):
                change = deletion.of_pod(obj, context.now, context.settings, why)
                changes += [] if change is None else [change]
            elif not obj.metadata.deletion_timestamp:
                changes += deletion.of_object(obj, context.now, why)
    if left:
        return changes
    if namespace.metadata.finalizers:
        bare = replace(namespace, spec=replace(namespace.spec, finalizers=()))
        return [Change("update", bare, "it is empty")] if bare != namespace else []
    return [Change("delete", namespace, "it is empty")]


def _of_namespace(view: View, old: Namespace | None, new: Namespace | None) -> Iterator[Key]:
    if new is not None and new.metadata.deletion_timestamp:
        yield ("", new.name)


def _of_any(view: View, old: AnyObject | None, new: AnyObject | None) -> Iterator[Key]:
    obj = new or old
    assert obj is not None
    name = obj.metadata.namespace
    holder = view.all("Namespace").get(("", name)) if name else None
    if holder is not None and holder.metadata.deletion_timestamp:
        yield ("", name)


_LOOP = Keyed(("Namespace",), {"Namespace": _of_namespace, "*": _of_any}, _sync)
