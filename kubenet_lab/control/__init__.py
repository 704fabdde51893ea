"""The control plane's loops: objects in, objects out.

`LOOPS` is their order; `settle(store, settings)` runs them until nothing changes, and costs what has changed since it
last did. Time passes between two calls: `next_due(store)` says when the next one has something to do. The kubelet, CNI
plugins and kube-proxy are not here: they join objects and kernel state.
"""

from __future__ import annotations

from kubenet_lab.control import (
    bootstrap,
    daemonset,
    deployment,
    endpoints,
    endpointslice,
    garbage,
    job,
    mirroring,
    namespaces,
    node_ipam,
    podgc,
    replicaset,
    scheduler,
    service_ip,
    statefulset,
    termination,
)
from kubenet_lab.control.loop import DUAL_STACK, Change, Reconcile, Settings, apply
from kubenet_lab.control.loop import settle as _settle
from kubenet_lab.control.view import Gated, view_of
from kubenet_lab.store import Store

LOOPS: tuple[Reconcile, ...] = (
    bootstrap.reconcile,
    garbage.reconcile,
    namespaces.reconcile,
    podgc.reconcile,
    Gated(("Node",), node_ipam.reconcile),
    Gated(("Service",), service_ip.reconcile),
    deployment.reconcile,
    replicaset.reconcile,
    statefulset.reconcile,
    daemonset.reconcile,
    job.reconcile,
    termination.reconcile,
    scheduler.reconcile,
    endpointslice.reconcile,
    endpoints.reconcile,
    mirroring.reconcile,
)
"""Each loop once, in the order that settles a fresh world in the fewest rounds."""


def settle(
    store: Store, settings: Settings | None = None, loops: tuple[Reconcile, ...] = LOOPS, limit: int = 100
) -> list[Change]:
    """Run the loops until none of them wishes anything; all or nothing. Returns the changes made.

    Raises:
        Invalid: A loop refused an object, such as a Service whose address is taken.
        DidNotSettle: After `limit` rounds.
    """
    return _settle(store, loops, settings, limit)


def next_due(store: Store) -> float | None:
    """The first moment, in simulated s, at which a loop waits for time to have passed; None when none does."""
    view = view_of(store)
    view.sync()
    return view.next_due()


__all__ = ["DUAL_STACK", "LOOPS", "Change", "Reconcile", "Settings", "apply", "next_due", "settle"]
