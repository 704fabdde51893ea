"""A node's rules still name a pod that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.kernel.netfilter.targets import Dnat
from kubenet_lab.objects import Service

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class KubeProxyStale(Fault, frozen=True):
    """kube-proxy stopped on a node before a pod of a Service was replaced: one rule leads to the old address.

    Symptom: of the calls to the Service from that node one in n fails, with n endpoints; from other nodes none does.
    Where it lives: a KUBE-SEP chain of that node, and no process that would mend it.
    Which tool shows it: `iptables -t nat -S | grep to-destination` beside `kubectl get endpointslices`.
    Cure: start kube-proxy there.
    """

    NAME: ClassVar[str] = "kube-proxy-stale"
    TITLE: ClassVar[str] = "a node's rules lead to a pod that is gone"

    node: str = "node-1"
    service: str = "backend"
    namespace: str = "default"
    address: str = "10.244.0.250"
    """The address the pod had: one of the node's own block that nobody has now."""

    def inject(self, cluster: Cluster) -> Undo:
        """Stop kube-proxy, and let the Service's first endpoint have the old address in the rules."""
        cluster.store.get(Service, self.service, self.namespace)
        space = cluster.node(self.node).ns
        before = dict(space.iptables)
        edit = before[4].edit()
        named = f"{self.namespace}/{self.service}"
        ours = [
            (rule.target.addr_min, chain.name, number, replace(rule, target=self._stale(rule.target)))
            for table, chain, number, rule in before[4]
            if table == "nat"
            and isinstance(rule.target, Dnat)
            and any(getattr(match, "comment", "").partition(":")[0] == named for match in rule.matches)
        ]
        if not ours:
            raise NotFound("rule of Service", self.service, self.namespace)
        _, name, number, stale = min(ours, key=lambda one: one[:3])
        edit.replace("nat", name, number, stale)
        cluster.stop_kube_proxy(self.node)
        space.set_iptables(4, edit.commit())

        # Its first sync writes every rule of its own anew.
        return lambda: cluster.start_kube_proxy(self.node)

    def _stale(self, target: Dnat) -> Dnat:
        return replace(target, addr_min=self.address, addr_max=self.address)
