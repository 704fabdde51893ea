"""kube-proxy does not run on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class KubeProxyStopped(Fault, frozen=True):
    """kube-proxy was stopped on a node; what it wrote into the kernel stays.

    Symptom: none at first. With every pod that is replaced, calls from that node to its Service fail more often.
    Where it lives: no process kube-proxy on that node; rules there are those of the moment it stopped.
    Which tool shows it: `curl NODE:10256/healthz` is refused; the addresses in `iptables-save` are not those in
    `kubectl get endpointslices`.
    Cure: start it; it reads everything anew and writes all rules.
    """

    NAME: ClassVar[str] = "kube-proxy-stopped"
    TITLE: ClassVar[str] = "kube-proxy does not run on a node"

    node: str = "node-1"

    def inject(self, cluster: Cluster) -> Undo:
        """Stop it."""
        mode = cluster.kube_proxy(self.node).process.mode
        cluster.stop_kube_proxy(self.node)

        def undo() -> None:
            cluster.start_kube_proxy(self.node, mode=mode)

        return undo
