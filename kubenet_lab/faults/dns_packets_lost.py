"""Some DNS packets are lost on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.faults.fault import Fault, Undo, put_back
from kubenet_lab.kernel.dialects import iptables

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class DnsPacketsLost(Fault, frozen=True):
    """A share of the UDP packets to port 53 gets lost on a node, as on a bad link or a full queue.

    Symptom: most lookups of that node's pods are quick, some take five seconds (glibc's timeout), few fail.
    Where it lives: here a rule `-m statistic --mode random -j DROP` in the raw table stands for the bad link.
    Which tool shows it: `tcpdump -ni any port 53` shows a query twice, five seconds apart; `iptables -t raw -S`.
    Cure: take the rule away. Against loss in general: NodeLocal DNSCache, which asks over TCP.
    """

    NAME: ClassVar[str] = "dns-packets-lost"
    TITLE: ClassVar[str] = "some DNS packets are lost on a node"

    node: str = "node-1"
    share: float = 0.2

    def inject(self, cluster: Cluster) -> Undo:
        """Insert the rule."""
        space = cluster.node(self.node).ns
        before = dict(space.iptables)
        rule = f"-p udp -m udp --dport 53 -m statistic --mode random --probability {self.share} -j DROP"
        text = f"*raw\n-I PREROUTING 1 {rule}\nCOMMIT\n"
        for fam, rules in before.items():
            space.set_iptables(fam, iptables.restore(rules, text, noflush=True))
        return put_back(cluster, self.node, before)
