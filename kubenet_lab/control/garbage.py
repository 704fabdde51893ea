"""Deletes what has lost all its owners (kube-controller-manager's garbage collector).

https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from __future__ import annotations

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.store import Store


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A delete for each object all of whose owners are gone.

    An owner reference without uid (written by hand) is taken to be met, as it cannot be checked.
    """
    alive = {obj.metadata.uid for kind in store.kinds() for obj in store.list(kind)}
    return [
        Change("delete", obj, "its owner is gone")
        for kind in store.kinds()
        for obj in store.list(kind)
        if obj.metadata.owner_references
        and all(owner.uid and owner.uid not in alive for owner in obj.metadata.owner_references)
    ]
