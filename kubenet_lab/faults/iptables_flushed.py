"""Somebody emptied a node's firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.faults.fault import Fault, Undo, put_back
from kubenet_lab.kernel.netfilter import Ruleset

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class IptablesFlushed(Fault, frozen=True):
    """All iptables rules and chains of a node are gone, as after a firewall's reload or `nft flush ruleset`.

    Symptom: calls from that node's pods to any Service fail, names included, and open ones stop: without a nat chain
    the kernel translates nothing (after `iptables -t nat -F`, which leaves built-in chains, open ones would go on).
    Calls to pods' own addresses work.
    Where it lives: every table of iptables on that node, the canary chains among them.
    Which tool shows it: `iptables-save` prints nothing of kube-proxy's.
    Cure: wait; kube-proxy misses its canary chain within its sync period (30 s) and writes everything again.
    """

    NAME: ClassVar[str] = "iptables-flushed"
    TITLE: ClassVar[str] = "a node's iptables rules were flushed"

    node: str = "node-1"

    def inject(self, cluster: Cluster) -> Undo:
        """Empty both families."""
        space = cluster.node(self.node).ns
        before = dict(space.iptables)
        for fam in before:
            space.set_iptables(fam, Ruleset(fam))
        return put_back(cluster, self.node, before)
