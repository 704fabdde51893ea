"""The name server outside the cluster is slow, or says nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from kubenet_lab.control.machine import ROUTER
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.kernel.socket import Handler
from kubenet_lab.packet.packet import UDP

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster
    from kubenet_lab.packet.packet import Packet


class UpstreamDns(Fault, frozen=True):
    """The recursor that CoreDNS forwards to answers late, or not at all.

    Symptom: outside names take long or fail (SERVFAIL after some seconds); cluster names are answered as ever. Short
    names suffer too where they are looked up outside at last.
    Where it lives: the name server in the nodes' resolv.conf.
    Which tool shows it: `dig @ROUTER NAME` from a node; `forward` errors in CoreDNS's log.
    Cure: another upstream in the Corefile, or mend this one.
    """

    NAME: ClassVar[str] = "upstream-dns-silent"
    TITLE: ClassVar[str] = "the name server outside does not answer"

    seconds: float = math.inf
    """How late it answers; infinite: never."""

    def inject(self, cluster: Cluster) -> Undo:
        """Put the delay in front of its handler."""
        space = cluster.network.ns(ROUTER)
        before = [s for s in space.sockets.get((UDP, 53), ()) if s.handler is not None]
        after = [replace(socket, handler=_late(socket.handler, self.seconds)) for socket in before]
        for old, new in zip(before, after, strict=True):
            space.close(old)
            space.listen(new)

        def undo() -> None:
            for old, new in zip(before, after, strict=True):
                space.close(new)
                space.listen(old)

        return undo


def _late(handler: Handler, seconds: float) -> Handler:
    from kubenet_lab.dns.records import Response

    def answer(packet: Packet, now: float) -> Packet | None:
        if seconds == math.inf:
            return None
        said = handler(packet, now)
        if said is None or not isinstance(said.message, Response):
            return said
        return said.replace(message=replace(said.message, delay=said.message.delay + seconds))

    return answer
