"""Listening sockets: what `ss -ltnu` shows, and who answers behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from kubenet_lab.packet.packet import Packet, endpoint

Handler = Callable[[Packet, float], Packet | None]
"""(request as delivered, now) -> the fields of the answer as a packet, or None to stay silent."""


UNIX = 0x10000
"""In place of a protocol: a socket in the file system (unix(7)), whose `address` is its path and whose `handler` takes
a command and gives what is answered. No packet reaches it."""


class Socket(Struct, frozen=True):
    """A bound socket. `address` is "0.0.0.0", "::", or one local address.

    `handler` produces the application's answer to a UDP datagram; a TCP listener accepts without one. It is not
    part of the state's identity: two sockets are equal when a tool cannot tell them apart.
    """

    proto: int
    address: str
    port: int
    process: str = ""
    uid: int = 0
    backlog_full: bool = False
    """True when a TCP listener's accept queue is full: SYNs are dropped, not refused."""
    handler: Any = None
    upstream: Any = None
    """For a TCP proxy: (the SYN it accepted, now) -> the SYN of the connection it opens in turn, or None. Not part of
    the state's identity either."""

    def __str__(self) -> str:
        if self.proto == UNIX:
            return f"{self.address} ({self.process})"
        return endpoint(self.address, self.port) + (f" ({self.process})" if self.process else "")
