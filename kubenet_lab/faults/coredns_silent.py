"""One CoreDNS replica takes queries and never answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class CorednsSilent(Fault, frozen=True):
    """A CoreDNS replica hangs: its sockets are there, no answer comes, and nobody probes it.

    Symptom: with two replicas half of all lookups wait ten seconds or more, and most of those fail in the end: glibc's
    second try leaves by the same port, and conntrack leads it to the same replica again.
    Where it lives: one CoreDNS process.
    Which tool shows it: `dig @COREDNS-POD +time=1 +tries=1 NAME` for each replica; the Service's address hides which.
    Cure: delete the pod, and let `health` and `ready` be probed.
    """

    NAME: ClassVar[str] = "coredns-replica-silent"
    TITLE: ClassVar[str] = "a CoreDNS replica does not answer"

    pod: str = ""
    """ "namespace/name"; by default the first replica."""

    def inject(self, cluster: Cluster) -> Undo:
        """Let it hang. Raises NotFound where no CoreDNS runs."""
        known = sorted(cluster.core_dns.running)
        name = self.pod or next(iter(known), "")
        if name not in known:
            raise NotFound("CoreDNS pod", name, known=known)
        cluster.core_dns.silent.add(name)

        def undo() -> None:
            cluster.core_dns.silent.discard(name)

        return undo
