"""An HTTP request over the modelled network: `curl -m PATIENCE http://ADDRESS:PORT/PATH` from a namespace.

The connection is packets through the walk; what the program answers is its socket's handler's word, which gets the
request's bytes as payload. A listener without a handler accepts, and what it would say is not known.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.packet.http import Request, Response
from kubenet_lab.packet.packet import ACK, FIN, PSH, SYN, TCP, Packet, endpoint
from kubenet_lab.walk.deliver import own_mss
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import Exchange, exchange


class Got(Struct):
    """What came of a request: the connection, and the response if the program gave one."""

    exchange: Exchange
    response: Response | None = None

    @property
    def status(self) -> int:
        """The status, 0 without a response."""
        return self.response.status if self.response is not None else 0


def get(
    walk: Walk,
    ns: str,
    address: str,
    port: int,
    path: str = "/",
    *,
    source: str = "",
    patience: float = 5.0,
    method: str = "GET",
) -> Got:
    """Send `GET PATH` from namespace `ns` and return what came back; the connection is closed again.

    A proxy on the way may refuse the request and answer itself.
    """
    mss = own_mss(walk.network.ns(ns), address, source)
    opened = exchange(walk, ns, Packet(source, address, TCP, 0, port, flags=SYN, mss=mss), patience=patience)
    seen, answer = opened.request.delivered_as, opened.answer
    if not opened.ok or seen is None or answer is None:
        return Got(opened)
    request = Request(method, path, {"host": endpoint(address, port)}).to_bytes()
    # A socket that was given a backend goes on with it.
    there = opened.request.packet
    mine = Packet(
        answer.dst, there.dst, TCP, answer.dport, there.dport, flags=PSH | ACK, seq=1, ack=1, payload=request
    )
    sent = walk.send(ns, mine, role="data")
    if isinstance(sent.decided_by, Response):
        return Got(opened, sent.decided_by)
    if not sent.delivered:
        return Got(opened)
    response = ask(walk, opened, request)
    told = response.to_bytes() if response is not None else b""
    back = Packet(
        seen.dst,
        seen.src,
        TCP,
        seen.dport,
        seen.sport,
        flags=PSH | ACK,
        seq=1,
        ack=1 + len(request),
        payload=told,
    )
    if told and not walk.send(opened.server_ns, back, role="data").delivered:
        return Got(opened)
    asked, after = 1 + len(request), 1 + len(told)
    walk.send(opened.server_ns, back.replace(flags=FIN | ACK, seq=after, ack=asked, payload=b""), role="data")
    walk.send(ns, mine.replace(flags=FIN | ACK, seq=asked, ack=after + 1, payload=b""), role="data")
    walk.send(
        opened.server_ns, back.replace(flags=ACK, seq=after + 1, ack=asked + 1, payload=b""), role="data"
    )
    return Got(opened, response)


def ask(walk: Walk, opened: Exchange, request: bytes) -> Response | None:
    """Hand a request's bytes to the program behind a connection; None where it speaks no HTTP or has no handler."""
    seen = opened.request.delivered_as
    if seen is None:
        return None
    listener = walk.network.ns(opened.server_ns).socket_for(TCP, seen.dst, seen.dport)
    if listener is None or listener.handler is None:
        return None
    answer = listener.handler(seen.replace(flags=PSH | ACK, payload=request), walk.now)
    return Response.from_bytes(answer.payload) if answer is not None else None
