"""What runs on nodes beside the kubelet: daemons, each a loop that joins objects and kernel state.

The composition root (`cluster.py`) holds a list of them and knows no more of them than this: the pod network, a policy
agent, a load balancer's announcer are all daemons. kube-proxy has its own form, `kubenet_lab.proxy.mode`.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from kubenet_lab.kernel.network import Network
from kubenet_lab.store import Store


class World(Struct, frozen=True):
    """What a daemon can reach: the API and the machines. `store.clock.now` is the time in s."""

    store: Store
    network: Network
    cluster_cidrs: tuple[str, ...]
    """The pods' ranges, one a family."""
    service_cidrs: tuple[str, ...]
    """The Services' ranges, one a family."""
    seed: int = 0

    @property
    def now(self) -> float:
        """Simulated time in s."""
        return self.store.clock.now


class Daemon(Protocol):
    """The daemons of one kind on all nodes, made once a cluster: `make(world)`."""

    def reconcile(self) -> bool:
        """Bring nodes and objects one step on; return whether anything changed (then everybody is asked again)."""

    def forget(self, node: str) -> None:
        """A Node object was deleted and its machine switched off."""

    def restart(self) -> None:
        """Forget what is only in memory and read API and kernel anew (a world was set back to an earlier state)."""

    @property
    def next(self) -> float | None:
        """The moment, in simulated s, at which `reconcile` has something to do though nothing changed; None: never."""
