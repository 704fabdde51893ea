"""CoreDNS cannot reach the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class ApiUnreachable(Fault, frozen=True):
    """The watches of CoreDNS are cut off from the API server.

    Symptom: none at first: CoreDNS answers from what it has seen. Services made later do not exist for it (NXDOMAIN). A
    replica that restarts meanwhile knows nothing: SERVFAIL for every cluster name, and it never becomes ready.
    Where it lives: the connection from the CoreDNS pods to the Service `kubernetes`; only they are cut off here.
    Which tool shows it: `curl COREDNS-POD:8181/ready` says `kubernetes` after a restart; `kubectl logs` of CoreDNS.
    Cure: mend the way to the API server; the watches catch up by themselves.
    """

    NAME: ClassVar[str] = "coredns-without-api"
    TITLE: ClassVar[str] = "CoreDNS cannot reach the API server"

    pod: str = "*"
    """ "namespace/name" of one CoreDNS pod, or all."""

    def inject(self, cluster: Cluster) -> Undo:
        """Cut the watches."""
        if self.pod != "*":
            cluster.pod(self.pod)
        cluster.core_dns.cut_off(self.pod)

        def undo() -> None:
            cluster.core_dns.reconnect(self.pod)
            cluster.settle()

        return undo
