"""Routes, routing rules and the forwarding information base built from them.

Semantics: `ip-route(8)`, `ip-rule(8)`, Documentation/networking/ip-sysctl.rst. Rules are tried by priority, each
naming a table; in a table the longest prefix wins, then the lowest metric; a table without a match hands back to
the next rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from msgspec import Struct

from kubenet_lab.packet.ip import IP_INT, prefix

TABLE_DEFAULT, TABLE_MAIN, TABLE_LOCAL = 253, 254, 255
TABLE_NAMES = {TABLE_DEFAULT: "default", TABLE_MAIN: "main", TABLE_LOCAL: "local"}

REFUSING = {"blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES"}
"""Route types that end a look-up, with the error a local sender gets."""


class NextHop(Struct, frozen=True):
    """One leg of a multipath route."""

    via: str = ""
    dev: str = ""
    weight: int = 1
    onlink: bool = False


class Route(Struct, frozen=True):
    """One route. `dst` is a prefix; "0.0.0.0/0" and "::/0" print as "default"."""

    dst: str
    dev: str = ""
    via: str = ""
    type: str = "unicast"
    table: int = TABLE_MAIN
    proto: str = "boot"
    scope: str = "global"
    metric: int = 0
    prefsrc: str = ""
    onlink: bool = False
    mtu: int = 0
    nexthops: tuple[NextHop, ...] = ()

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.dst else 4

    @property
    def key(self) -> tuple[str, int, str]:
        """What must be unique in a table: destination and metric.

        In IPv6 the link too: every link has fe80::/64.
        """
        return (self.dst, self.metric, self.dev if ":" in self.dst else "")

    def __str__(self) -> str:
        words = [] if self.type == "unicast" else [self.type]
        words.append("default" if self.dst in ("0.0.0.0/0", "::/0") else self.dst)
        if self.via:
            words += ["via", self.via]
        if self.dev:
            words += ["dev", self.dev]
        for hop in self.nexthops:
            words += ["nexthop", "via", hop.via, "dev", hop.dev, "weight", str(hop.weight)]
        if self.onlink:
            words.append("onlink")
        if self.prefsrc:
            words += ["src", self.prefsrc]
        if self.metric:
            words += ["metric", str(self.metric)]
        if self.table not in (TABLE_MAIN, TABLE_LOCAL):
            words += ["table", str(self.table)]
        return " ".join(words)


class RouteRule(Struct, frozen=True):
    """One policy routing rule (`ip rule`)."""

    priority: int
    table: int = TABLE_MAIN
    src: str = ""
    dst: str = ""
    iif: str = ""
    oif: str = ""
    fwmark: int = 0
    fwmask: int = 0
    invert: bool = False
    action: str = "lookup"
    family: int = 4
    suppress_prefixlength: int = -1
    ipproto: int = 0

    def matches(self, src: str, dst: str, iif: str, oif: str, mark: int) -> bool:
        """True when the selector fits a look-up key (unset addresses are "").

        What is made here counts as coming in by lo; only the mask's bits of a mark are compared, whatever bits the
        rule's own value has (net/core/fib_rules.c).
        """
        fits = (
            (not self.src or (src != "" and src in prefix(self.src)))
            and (not self.dst or dst in prefix(self.dst))
            and (not self.iif or self.iif == (iif or "lo"))
            and (not self.oif or self.oif == oif)
            and (not self.fwmask or not (mark ^ self.fwmark) & self.fwmask)
        )
        return fits != self.invert

    def __str__(self) -> str:
        words = ["not"] if self.invert else []
        words += ["from", self.src or "all"]
        if self.dst:
            words += ["to", self.dst]
        if self.fwmask:
            mask = "" if self.fwmask == 0xFFFFFFFF else f"/{self.fwmask:#x}"
            words += ["fwmark", f"{self.fwmark:#x}{mask}"]
        if self.iif:
            words += ["iif", self.iif]
        if self.oif:
            words += ["oif", self.oif]
        if self.action != "lookup":
            words.append(self.action)
        else:
            words += ["lookup", TABLE_NAMES.get(self.table, str(self.table))]
        return f"{self.priority}: {' '.join(words)}"


@cache
def default_rules(family: int) -> tuple[RouteRule, ...]:
    """Return the rules every namespace starts with."""
    rules = (RouteRule(0, TABLE_LOCAL, family=family), RouteRule(32766, TABLE_MAIN, family=family))
    return (*rules, RouteRule(32767, TABLE_DEFAULT, family=family)) if family == 4 else rules


class Fib:
    """One table, indexed by prefix length, longest first."""

    __slots__ = ("_later", "_levels", "_nets", "seen")

    def __init__(self, routes: Iterable[Route]) -> None:
        self._nets: dict[tuple[int, int], dict[int, list[Route]]] = {}
        """(prefix length, mask) -> network number -> its routes, by metric."""
        self._levels: list[tuple[int, dict[int, list[Route]]]] = []
        self._later: list[tuple[Sequence[Route], Sequence[Route]]] = []
        self.seen: dict[str, tuple[Route, ...]] = {}
        self._change((), routes)

    def update(self, gone: Sequence[Route], new: Sequence[Route]) -> None:
        """Take routes out of the index and others in; it is done when somebody looks something up."""
        self._later.append((gone, new))
        self.seen.clear()

    def _change(self, gone: Iterable[Route], new: Iterable[Route]) -> None:
        nets = self._nets
        for route in gone:
            block = prefix(route.dst)
            level = nets[block.length, block.mask]
            level[block.net] = [other for other in level[block.net] if other != route]
            if not level[block.net]:
                del level[block.net]
        for route in new:
            block = prefix(route.dst)
            place = (block.length, block.mask)
            known = nets.get(place)
            if known is None:
                known = nets[place] = {}
            present = known.get(block.net)
            if present is None:
                known[block.net] = [route]
            else:
                present.append(route)
                present.sort(key=lambda route: route.metric)
        self._levels = [(place[1], nets[place]) for place in sorted(nets, reverse=True) if nets[place]]

    def candidates(self, dst: str) -> tuple[Route, ...]:
        """Return every route whose prefix covers `dst`, best first."""
        found = self.seen.get(dst)
        if found is None:
            for gone, new in self._later:
                self._change(gone, new)
            self._later.clear()
            number = IP_INT[dst]
            out: list[Route] = []
            for mask, nets in self._levels:
                out += nets.get(number & mask, ())
            found = self.seen[dst] = tuple(out)
        return found
