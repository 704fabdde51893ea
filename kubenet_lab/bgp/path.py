"""Paths: one way to one or many prefixes, and which of several BIRD prefers.

Source: BIRD 1.6.8 and 2.0.12, `nest/rt-table.c` (rte_better) and `proto/bgp/attrs.c` (bgp_rte_better,
bgp_rte_mergable); RFC 4271 section 9.1, RFC 4456 section 9.
"""

from __future__ import annotations

from typing import Any

from kubenet_lab.bgp.message import Attributes
from kubenet_lab.packet.ip import IP_INT

PREFERENCE = {"direct": 240, "static": 200, "bgp": 100, "kernel": 10}
HIGH_PREFERENCE = 200
"""Of BGP routes for pods in live migration: as good as a static one."""


class Path:
    """One way, with all that decides between it and another. Compared by identity; many prefixes share one.

    Attributes:
        source: "static", "direct", "kernel" or "bgp".
        protocol: Name of the protocol instance it came from.
        metric: The kernel's metric of a learned route, or None.
        via, dev: For direct and kernel routes. A static one is a blackhole.
        session: The BGP session it came by.
        alone: The tuple with only this path, which most prefixes have.
    """

    __slots__ = (
        "alone", "attributes", "dev", "igp_metric", "metric", "number", "order", "preference", "protocol",
        "resolved", "routes", "session", "source", "stale", "via",
    )  # fmt: skip

    def __init__(
        self,
        source: str,
        protocol: str,
        *,
        attributes: Attributes | None = None,
        session: Any = None,
        metric: int | None = None,
        via: str = "",
        dev: str = "",
        preference: int = 0,
        number: int = 0,
    ) -> None:
        self.source = source
        self.protocol = protocol
        self.attributes = attributes
        self.session = session
        self.metric = metric
        self.via = via
        self.dev = dev
        self.preference = preference or PREFERENCE[source]
        self.number = number
        self.stale = False
        self.igp_metric: int | None = 0
        """Distance to the next hop: 0 on a connected network, None behind a route that has none."""
        self.resolved: tuple[str, str] | None = (via, dev) if dev else None
        """(gateway, link) of the next hop, or None while it is unreachable."""
        self.routes: Any = None
        """Its kernel routes by destination, shared with other nodes, where nothing but the next hop decides them."""
        self.alone: tuple[Path, ...] = (self,)
        self.order: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return f"<Path {self.protocol} {self.attributes or self.dev or 'blackhole'}>"

    def rank(self) -> tuple[int, ...]:
        """Sort key, the best first (without MED, which only compares paths of one neighbouring AS)."""
        if self.order is None:
            self.order = self._rank()
        return self.order

    def _rank(self) -> tuple[int, ...]:
        a = self.attributes
        if a is None:
            return (-self.preference, 0, 0, 0, 0, 0, 0, self.metric or 0)
        external = self.session.external
        router = a.originator_id or self.session.neighbour_id
        return (
            -self.preference,
            int(self.resolved is None),
            -(a.local_pref if a.local_pref is not None else 100),
            len(a.as_path),
            ("IGP", "EGP", "Incomplete").index(a.origin),
            int(not external),
            0xFFFFFFFF if self.igp_metric is None else self.igp_metric,
            IP_INT[router] if router else 0,
            len(a.cluster_list),
            IP_INT[self.session.peer.address],
            self.number,
        )

    def equal_cost(self, other: Path) -> bool:
        """True when both can be used at once (`merge paths`): they differ in nothing before the router id."""
        if self.source != "bgp" or other.source != "bgp":
            return False
        return self.resolved is not None and self.rank()[:7] == other.rank()[:7] and _med(self) == _med(other)


def _med(path: Path) -> int:
    return (path.attributes.med or 0) if path.attributes is not None else 0


def _plain(path: Path) -> bool:
    return path.attributes is None or path.attributes.med is None


def in_order(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the paths of one prefix, the best first.

    MED decides between paths whose nearest AS is the same and that are equal up to it; as in BIRD the order of the
    others does not depend on it.
    """
    if len(paths) == 2 and _plain(paths[0]) and _plain(paths[1]):
        return paths if paths[0].rank() <= paths[1].rank() else (paths[1], paths[0])
    ordered = sorted(paths, key=Path.rank)
    best = ordered[0]
    for other in ordered[1:]:
        if (
            best.attributes is not None
            and other.attributes is not None
            and best.rank()[:5] == other.rank()[:5]
            and best.attributes.as_path[:1] == other.attributes.as_path[:1]
            and _med(other) < _med(best)
        ):
            best = other
    if best is not ordered[0]:
        ordered.remove(best)
        ordered.insert(0, best)
    return tuple(ordered)
