"""A node's rules for the cluster DNS are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo, put_back

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class KubeDnsRulesMissing(Fault, frozen=True):
    """Every rule that leads to the DNS Service's address is missing on one node.

    Symptom: names do not resolve for pods of that node only (at once where a router says no, after time-outs where none
    does); addresses work.
    Where it lives: KUBE-SERVICES in the nat table of that node.
    Which tool shows it: `iptables -t nat -S KUBE-SERVICES | grep kube-dns`; `dig @COREDNS-POD` works, `dig` does not.
    Cure: restart kube-proxy on that node; it writes all its rules anew.
    """

    NAME: ClassVar[str] = "kube-dns-rules-missing"
    TITLE: ClassVar[str] = "the DNS Service's rules are missing on a node"

    node: str = "node-1"
    service: str = "kube-dns"
    namespace: str = "kube-system"

    def inject(self, cluster: Cluster) -> Undo:
        """Delete the rules by their destination address."""
        space = cluster.node(self.node).ns
        addresses = set(cluster.store.get("Service", self.service, self.namespace).addresses)
        before = dict(space.iptables)
        for fam, rules in before.items():
            edit = rules.edit()
            for table, chain, _number, rule in list(rules):
                if (
                    chain.name == "KUBE-SERVICES"
                    and rule.dst.partition("/")[0] in addresses
                    and not rule.not_dst
                ):
                    edit.delete(table, chain.name, rule)
            space.set_iptables(fam, edit.commit())
        if all(space.iptables[fam] == rules for fam, rules in before.items()):
            raise NotFound("rule of Service", self.service, self.namespace)
        return put_back(cluster, self.node, before)
