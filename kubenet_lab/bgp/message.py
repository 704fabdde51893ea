"""The four messages of BGP-4 as values (RFC 4271 section 4), with the capabilities BIRD announces.

A path's attributes are one frozen value that all prefixes of an UPDATE share, as on the wire.
"""

from __future__ import annotations

from msgspec import Struct

CEASE, HOLD_TIMER_EXPIRED, OPEN_ERROR = 6, 4, 2

NOTIFICATION_TEXTS = {
    (4, 0): "Hold timer expired",
    (2, 2): "Bad peer AS",
    (2, 3): "Bad BGP identifier",
    (6, 2): "Administrative shutdown",
    (6, 3): "Peer de-configured",
    (6, 5): "Connection rejected",
    (6, 7): "Connection collision resolution",
}
"""(code, subcode) -> what BIRD calls it (RFC 4486 for code 6)."""


class Attributes(Struct, frozen=True):
    """Path attributes.

    Attributes:
        next_hop: Address the prefixes are reached through.
        as_path: Autonomous systems crossed, the nearest first.
        local_pref: Preference inside one AS, bigger is better; None outside it.
        originator_id, cluster_list: Set by route reflectors (RFC 4456).
        communities: (AS, value) pairs (RFC 1997).
    """

    next_hop: str
    as_path: tuple[int, ...] = ()
    local_pref: int | None = None
    origin: str = "IGP"
    med: int | None = None
    originator_id: str = ""
    cluster_list: tuple[str, ...] = ()
    communities: tuple[tuple[int, int], ...] = ()


class Open(Struct, frozen=True):
    """OPEN: who speaks, and what it can do.

    Attributes:
        hold_time: Seconds without a message after which the session is dead; the smaller of both sides counts.
        restart_time: Seconds to keep the routes of a peer that restarts (RFC 4724), or None without that capability.
        add_paths: Whether several paths of one prefix may be sent (RFC 7911).
        aware: Whether it keeps the routes of others that restart, be it that it does not restart so itself.
    """

    asn: int
    router_id: str
    hold_time: int
    family: int = 4
    restart_time: int | None = None
    add_paths: bool = False
    aware: bool = True


class Keepalive(Struct, frozen=True):
    """KEEPALIVE: still here; also the answer that accepts an OPEN."""


class Update(Struct, frozen=True):
    """UPDATE: prefixes that share their attributes, or prefixes withdrawn.

    `path` tells paths of one prefix apart where both sides can (RFC 7911); 0 is the only one. An UPDATE with neither
    is the End-of-RIB marker (RFC 4724).
    """

    attributes: Attributes | None = None
    prefixes: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    path: int = 0

    @property
    def end_of_rib(self) -> bool:
        """True for the marker that the initial routes are complete."""
        return not self.prefixes and not self.withdrawn


class Notification(Struct, frozen=True):
    """NOTIFICATION: why the session ends. The connection is closed after it."""

    code: int
    subcode: int = 0

    def __str__(self) -> str:
        return NOTIFICATION_TEXTS.get((self.code, self.subcode), f"Error {self.code}.{self.subcode}")


Message = Open | Keepalive | Update | Notification

END_OF_RIB = Update()
KEEPALIVE = Keepalive()
