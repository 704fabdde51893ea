"""Neighbour entries: which MAC answers for an address on a link (`ip neigh`, RFC 826, RFC 4861)."""

from __future__ import annotations

from msgspec import Struct

USABLE = frozenset({"PERMANENT", "REACHABLE", "STALE", "DELAY", "PROBE", "NOARP"})


class Neighbour(Struct, frozen=True):
    """One entry. `state` is a NUD state as `ip neigh` prints it; `updated` is simulated time in s."""

    dev: str
    address: str
    mac: str = ""
    state: str = "REACHABLE"
    updated: float = 0.0
    proxy: bool = False

    @property
    def usable(self) -> bool:
        """True when a frame may be sent by this entry."""
        return self.state in USABLE

    def __str__(self) -> str:
        mac = f" lladdr {self.mac}" if self.mac else ""
        return f"{self.address} dev {self.dev}{mac} {self.state}"
