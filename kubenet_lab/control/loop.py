"""The shape of a control loop: it reads the store and returns changes; applying them is the caller's line.

A loop is a function `reconcile(store, settings) -> list[Change]` that returns nothing when all is as it
should be. https://kubernetes.io/docs/concepts/architecture/controller/
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from kubenet_lab.errors import DidNotSettle
from kubenet_lab.objects import AnyObject
from kubenet_lab.store import Store, kind_key


class Settings(Struct, frozen=True):
    """What the control plane was started with; the names are those of the flags.

    Attributes:
        cluster_cidr: Where pod addresses come from, one range a family, the primary family first
            (`--cluster-cidr`).
        service_cluster_ip_range: Where Service addresses come from, likewise (`--service-cluster-ip-range`).
        node_cidr_mask_size_ipv4, node_cidr_mask_size_ipv6: Prefix length of a node's share of `cluster_cidr`.
        api_server: Address and port behind the Service `kubernetes`.
        stop_seconds: How long a program takes to end after SIGTERM, which no manifest says: by default it ends at
            once, so that only a `preStop` hook keeps a deleted pod alive; `math.inf` is one that ignores the signal
            and is killed when its grace period ends.
        start_seconds: How long a program needs from its start until it listens, which no manifest says either. What
            a cluster begins with has been running.
        sync_seconds: How long a node's rules take to follow a change of Services or slices: the watch, kube-proxy's
            `minSyncPeriod`, the size of the table. By default they follow at once.
        coredns_lameduck: How long CoreDNS serves on after SIGTERM: `health { lameduck 5s }` of kubeadm's Corefile.
        coredns_watch_seconds: How far CoreDNS is behind the API.
        kube_proxy: kube-proxy's command line on every node ("--masquerade-all", "--iptables-min-sync-period=1s").
    """

    cluster_cidr: tuple[str, ...] = ("10.244.0.0/16",)
    service_cluster_ip_range: tuple[str, ...] = ("10.96.0.0/16",)
    node_cidr_mask_size_ipv4: int = 24
    node_cidr_mask_size_ipv6: int = 64
    api_server: tuple[str, int] = ("192.168.1.1", 6443)
    stop_seconds: float = 0.0
    start_seconds: float = 0.0
    sync_seconds: float = 0.0
    coredns_lameduck: float = 5.0
    coredns_watch_seconds: float = 0.0
    kube_proxy: tuple[str, ...] = ()


DUAL_STACK = Settings(
    cluster_cidr=("10.244.0.0/16", "fd00:10:244::/56"),
    service_cluster_ip_range=("10.96.0.0/16", "fd00:10:96::/112"),
)
"""Both families, IPv4 first."""


class Change(Struct, frozen=True):
    """One wish of a loop: `verb` is create, update or delete; `why` says what made the loop wish it."""

    verb: str
    object: AnyObject
    why: str = ""

    def __str__(self) -> str:
        metadata = self.object.metadata
        name = (
            f"{metadata.namespace}/{metadata.name}"
            if metadata.namespace
            else metadata.name or metadata.generate_name
        )
        return f"{self.verb} {self.object.kind} {name}" + (f" ({self.why})" if self.why else "")


Reconcile: TypeAlias = Callable[[Store, Settings], list[Change]]


def apply(store: Store, changes: Iterable[Change]) -> list[Any]:
    """Carry out changes in order; returns the objects as stored (for a delete, the last state).

    Raises:
        Conflict: A change was worked out from an object that has changed since.
        AlreadyExists, NotFound: Likewise, about whole objects.
    """
    return [_apply(store, change) for change in changes]


def _apply(store: Store, change: Change) -> Any:
    if change.verb == "create":
        return store.create(change.object)
    if change.verb == "update":
        return store.update(change.object)
    if change.verb == "delete":
        return store.delete(
            kind_key(change.object), change.object.metadata.name, change.object.metadata.namespace
        )
    raise ValueError(f"a change creates, updates or deletes; it cannot {change.verb!r}")


def settle(
    store: Store,
    loops: Sequence[Reconcile],
    settings: Settings | None = None,
    limit: int = 100,
) -> list[Change]:
    """Run the loops in turn, applying what they wish, until none wishes anything; returns all the changes.

    All or nothing: when a loop refuses something (an address that is taken) the store is as before.

    Args:
        limit: Rounds after which the loops are taken to work against each other.

    Raises:
        Invalid: As a loop raises it.
        DidNotSettle: After `limit` rounds.
    """
    settings = settings or Settings()
    done: list[Change] = []
    with contextlib.ExitStack() as undo:
        for _ in range(limit):
            changed = False
            for reconcile in loops:
                changes = reconcile(store, settings)
                if changes and not done:
                    # Only now: where nothing is to be done, nothing has to be remembered.
                    undo.enter_context(store.transaction())
                apply(store, changes)
                done += changes
                changed = changed or bool(changes)
            if not changed:
                return done
        raise DidNotSettle(limit, str(done[-1]))


__all__ = ["DUAL_STACK", "Change", "Reconcile", "Settings", "apply", "settle"]
