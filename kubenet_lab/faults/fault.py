"""What a fault is: a value that changes a cluster's state and hands back the way to mend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster
    from kubenet_lab.kernel.netfilter import Ruleset

Undo = Callable[[], None]


def put_back(cluster: Cluster, node: str, before: Mapping[int, Ruleset]) -> Undo:
    """Return what gives a node its iptables rules of before a fault; to be called when the fault is in.

    `before` is by IP family. Where anybody has written rules meanwhile, those of before are out of date, and a
    kube-proxy that runs writes all of its own anew.
    """
    space = cluster.node(node).ns
    broken = dict(space.iptables)

    def undo() -> None:
        kept = all(space.iptables[fam] is rules for fam, rules in broken.items())
        for fam, rules in before.items():
            space.set_iptables(fam, rules)
        if not kept and cluster.kube_proxies.view(node).running:
            cluster.restart_kube_proxy(node)

    return undo


class Fault(Struct, frozen=True):
    """A fault with its details.

    A subclass's docstring says symptom, where it lives, which tool shows it, and the cure.
    """

    NAME: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""

    def inject(self, cluster: Cluster) -> Undo:
        """Break it; the returned function mends it. Raises NotFound where there is nothing of the kind to break."""
        raise NotImplementedError
