"""The control plane's loops: objects in, objects out.

`LOOPS` is their order; `settle(store, LOOPS, settings)` runs them until nothing changes. The kubelet, CNI
plugins and kube-proxy are not here: they join objects and kernel state.
"""

from __future__ import annotations

from kubenet_lab.control import (
    bootstrap,
    deployment,
    endpoints,
    endpointslice,
    garbage,
    mirroring,
    node_ipam,
    replicaset,
    scheduler,
    service_ip,
)
from kubenet_lab.control.loop import DUAL_STACK, Change, Reconcile, Settings, apply
from kubenet_lab.control.loop import settle as _settle
from kubenet_lab.store import Store

LOOPS: tuple[Reconcile, ...] = (
    bootstrap.reconcile,
    garbage.reconcile,
    node_ipam.reconcile,
    service_ip.reconcile,
    deployment.reconcile,
    replicaset.reconcile,
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


__all__ = ["DUAL_STACK", "LOOPS", "Change", "Reconcile", "Settings", "apply", "settle"]
