"""Deletes what has lost all its owners, and works off cascades (kube-controller-manager's garbage collector).

Background: an owner goes at once, what it owned goes next. Foreground: the owner stays, marked, until what it owned
with `blockOwnerDeletion` is gone. Orphan: what it owned is let go first.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from collections.abc import Iterator

from kubenet_lab.control import deletion
from kubenet_lab.control.deletion import FOREGROUND, ORPHAN
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.view import Context, Keyed, View
from kubenet_lab.objects import AnyObject, OwnerReference, Pod
from kubenet_lab.store import Key, Store, kind_key


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A delete for each object all of whose owners are gone, and the steps of foreground and orphaning deletions.

    An owner reference without uid (written by hand) is taken to be met, as it cannot be checked.
    """
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    view = context.view
    kind, _, place = key[0].partition(" ")
    obj: AnyObject | None = view.all(kind).get((place, key[1]))
    if obj is None:
        return []
    owners = obj.metadata.owner_references
    if owners:
        kept = tuple(owner for owner in owners if not _lets_go(view, owner))
        if kept != owners:
            return [
                Change("update", obj.with_metadata(owner_references=kept), "its owner is deleted without it")
            ]
        if all(_gone(view, owner) for owner in owners):
            return _deleted(context, obj, "its owner is gone")
        if all(_gone(view, owner) or _in_foreground(view, owner) for owner in owners):
            # What has dependents of its own takes them along in the same way.
            waiting = FOREGROUND if view.owned.count(obj.metadata.uid) else ""
            return _deleted(context, obj, "its owner waits for it to go", waiting)
    return _released(view, obj)


def _gone(view: View, owner: OwnerReference) -> bool:
    return bool(owner.uid) and owner.uid not in view.uids


def _lets_go(view: View, owner: OwnerReference) -> bool:
    found = view.uids.get(owner.uid)
    return (
        found is not None and bool(found.metadata.deletion_timestamp) and ORPHAN in found.metadata.finalizers
    )


def _in_foreground(view: View, owner: OwnerReference) -> bool:
    found = view.uids.get(owner.uid)
    return (
        found is not None
        and bool(found.metadata.deletion_timestamp)
        and FOREGROUND in found.metadata.finalizers
    )


def _deleted(context: Context, obj: AnyObject, why: str, finalizer: str = "") -> list[Change]:
    if isinstance(obj, Pod) and not finalizer:
        change = deletion.of_pod(obj, context.now, context.settings, why)
        return [] if change is None else [change]
    if obj.metadata.deletion_timestamp:
        return _released(context.view, obj)
    return deletion.of_object(obj, context.now, why, finalizer)


def _released(view: View, obj: AnyObject) -> list[Change]:
    """An object that is being deleted loses the finalizers of a cascade that is done, and with the last one goes."""
    metadata = obj.metadata
    if not metadata.deletion_timestamp or not {FOREGROUND, ORPHAN} & {*metadata.finalizers}:
        return []
    owned = view.owned.of(metadata.uid)
    finalizers = metadata.finalizers
    if not owned:
        finalizers = tuple(item for item in finalizers if item != ORPHAN)
    if not any(_blocks(item, metadata.uid) for item in owned):
        finalizers = tuple(item for item in finalizers if item != FOREGROUND)
    if finalizers == metadata.finalizers:
        return []
    if finalizers or (isinstance(obj, Pod) and obj.spec.node_name):
        return [Change("update", obj.with_metadata(finalizers=finalizers), "what it owned is taken care of")]
    return [Change("delete", obj, "what it owned is taken care of")]


def _blocks(obj: AnyObject, uid: str) -> bool:
    return any(owner.uid == uid and owner.block_owner_deletion for owner in obj.metadata.owner_references)


def _of_any(view: View, old: AnyObject | None, new: AnyObject | None) -> Iterator[Key]:
    obj = new or old
    assert obj is not None
    if new is not None and (new.metadata.owner_references or new.metadata.deletion_timestamp):
        yield _key(new)
    if new is None or new.metadata.deletion_timestamp:
        for dependent in view.owned.of(obj.metadata.uid):
            yield _key(dependent)
    if old is not None and (new is None or new.metadata.owner_references != old.metadata.owner_references):
        for owner in old.metadata.owner_references:
            above = view.uids.get(owner.uid)
            if above is not None and above.metadata.deletion_timestamp:
                yield _key(above)


def _key(obj: AnyObject) -> Key:
    return (f"{kind_key(obj)} {obj.metadata.namespace}", obj.metadata.name)


_LOOP = Keyed(("*",), {"*": _of_any}, _sync)
