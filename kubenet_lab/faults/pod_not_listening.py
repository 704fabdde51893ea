"""A container that runs and does not listen on its port."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.control.kubelet import netns_name
from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class PodNotListening(Fault, frozen=True):
    """A pod's process does not listen (wrong port, bound to 127.0.0.1, still starting) and no probe notices.

    Symptom: some calls of its Service are refused at once, one in n with n pods.
    Where it lives: the socket table of the pod's namespace.
    Which tool shows it: `ss -ltn` in the pod; `curl` of the pod's own address.
    Cure: let the program listen on the port the Service targets, and give the pod a readiness probe.
    """

    NAME: ClassVar[str] = "pod-not-listening"
    TITLE: ClassVar[str] = "a pod does not listen on its port"

    pod: str = "backend"
    port: int = 0
    """0 closes every port."""

    def inject(self, cluster: Cluster) -> Undo:
        """Close the pod's listening sockets."""
        pod = cluster.pod(self.pod)
        space = cluster.network.ns(netns_name(pod))
        closed = [
            s for group in space.sockets.values() for s in group if not self.port or s.port == self.port
        ]
        if not closed:
            raise NotFound("listening socket", str(self.port or "any"), pod.namespace)
        for socket in closed:
            space.close(socket)

        def undo() -> None:
            for socket in closed:
                space.listen(socket)

        return undo
