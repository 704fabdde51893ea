"""Who is reached through which door, and as whom: a matrix read off calls that were really made.

A row is a door (a node port, a load balancer's address), a column a place of the client. A cell says what the callers
saw, where the pods were that answered, and which source address these pods saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.views.theme import Box, Svg, image, wrap
from kubenet_lab.views.words import short

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip

WIDTH = 1000.0
COLUMNS = ("door", "client", "verdicts", "answered_by", "on_nodes", "source_seen", "way", "translations")


class Cell(Struct, frozen=True):
    """What came of the calls of one place through one door.

    `verdicts` counts them; `servers` are pods ("default/web-2"), `nodes` where these are, `seen` the sources they saw
    in words ("the client", "node-1", "cloud-lb"), each in order of name. `ways` are the hosts that the calls passed,
    and `translations` how often an address was rewritten on the way there, least to most.
    """

    verdicts: dict[str, int]
    servers: tuple[str, ...]
    nodes: tuple[str, ...]
    seen: tuple[str, ...]
    ways: tuple[str, ...]
    translations: tuple[int, int]
    trips: tuple[Any, ...]

    @property
    def delivered(self) -> int:
        """How many calls were answered."""
        return sum(trip.delivered for trip in self.trips)

    @property
    def verdict(self) -> str:
        """What callers saw, in words: "connected", "timed out", or "6 connected, 2 timed out"."""
        if len(self.verdicts) == 1:
            return next(iter(self.verdicts))
        return ", ".join(f"{n} {verdict}" for verdict, n in sorted(self.verdicts.items()))

    @property
    def lines(self) -> tuple[str, ...]:
        """The cell's words, a line each."""
        if not self.delivered:
            return (self.verdict,)
        return self.verdict, f"pods on {', '.join(self.nodes)}", f"who see {', '.join(self.seen)}"

    @property
    def telling(self) -> Trip:
        """The call that tells most: one that failed where some did, else the first."""
        trip: Trip = next((t for t in self.trips if not t.delivered), self.trips[0])
        return trip


class OutsideMatrix(Struct, frozen=True):
    """Doors by clients' places; `cells` has every pair."""

    doors: tuple[str, ...]
    places: tuple[str, ...]
    cells: dict[tuple[str, str], Cell]

    def __getitem__(self, key: tuple[str, str]) -> Cell:
        """Return the cell of (door, place)."""
        return self.cells[key]

    def __str__(self) -> str:
        rows = []
        for door in self.doors:
            rows.append(door)
            rows += [f"  {place}: {'; '.join(self.cells[door, place].lines)}" for place in self.places]
        return "\n".join(rows)

    __repr__ = __str__

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a cell, keyed by `COLUMNS`."""
        return [
            dict(
                zip(
                    COLUMNS,
                    (
                        door,
                        place,
                        cell.verdict,
                        ", ".join(s.removeprefix("default/") for s in cell.servers),
                        ", ".join(cell.nodes),
                        ", ".join(cell.seen),
                        "; ".join(cell.ways),
                        _range(cell.translations),
                    ),
                    strict=True,
                )
            )
            for (door, place), cell in self.cells.items()
        ]

    def table(self) -> Any:
        """Return a pandas DataFrame, one row a cell."""
        from kubenet_lab.views.tables import frame

        return frame(self.rows(), COLUMNS)

    def only(self, *words: str) -> OutsideMatrix:
        """Return the rows whose door has one of these words in its label."""
        doors = tuple(door for door in self.doors if any(word in door for word in words))
        return OutsideMatrix(doors, self.places, {k: cell for k, cell in self.cells.items() if k[0] in doors})

    def _repr_html_(self) -> str:
        return image(outside_matrix_svg(self), str(self))


def outside_matrix(trips: Mapping[tuple[str, str], Sequence[Trip]]) -> OutsideMatrix:
    """Read calls, by (door, place), into a matrix; doors and places keep the order in which they come.

    Raises ValueError where a pair of them has no call.
    """
    doors = tuple(dict.fromkeys(door for door, _place in trips))
    places = tuple(dict.fromkeys(place for _door, place in trips))
    missing = [(d, p) for d in doors for p in places if not trips.get((d, p))]
    if missing:
        raise ValueError(f"no call for {missing[0]}")
    return OutsideMatrix(doors, places, {(d, p): cell_of(trips[d, p]) for d in doors for p in places})


def cell_of(trips: Sequence[Trip]) -> Cell:
    """Read what calls from one place through one door came to."""
    good = [trip for trip in trips if trip.delivered]
    counts = [_translations(trip) for trip in trips]
    return Cell(
        dict(Counter(trip.verdict for trip in trips)),
        tuple(sorted({trip.server for trip in good if trip.server})),
        tuple(sorted({_hosts(trip)[-1] for trip in good})),
        tuple(sorted({seen_as(trip) for trip in good}, key=lambda word: (word != "the client", word))),
        tuple(sorted({" → ".join(_hosts(trip)) for trip in trips})),
        (min(counts), max(counts)),
        tuple(trips),
    )


def seen_as(trip: Trip) -> str:
    """Return whom the server took for the caller: "the client", or the machine whose address it saw."""
    if trip.exchange is None:
        return ""
    if trip.source_seen == trip.exchange.request.packet.src:
        return "the client"
    label = trip.names.get(trip.source_seen, "")
    # "node node-1 flannel.1": which of its devices' addresses it is changes nothing.
    words = label.split(" ")
    return (words[1] if words[0] == "node" else short(label)) or trip.source_seen


def _way(trip: Trip) -> list[Any]:
    """The hops of the request, and of the connection a proxy opened for it."""
    if trip.exchange is None:
        return []
    hops = list(trip.exchange.request.hops)
    onward = trip.exchange.onward
    return hops + (list(onward.request.hops) if onward is not None else [])


def _hosts(trip: Trip) -> list[str]:
    out: list[str] = []
    for hop in _way(trip):
        if not out or out[-1] != hop.host:
            out.append(hop.host)
    return out or ["nowhere"]


def _translations(trip: Trip) -> int:
    return sum(step.kind == "nat" for hop in _way(trip) for step in hop.steps)


def _range(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


# -- the picture ---------------------------------------------------------------------------------------------------

_LEFT, _GAP, _SIZE, _LEAD = 196.0, 6.0, 12.0, 15.0


def outside_matrix_svg(found: OutsideMatrix) -> str:
    """Draw the matrix: a card a cell, green where all calls were answered, orange where none was, yellow between."""
    svg = Svg(WIDTH)
    wide = (WIDTH - 24 - _LEFT) / len(found.places)
    y = 12.0
    heads = [wrap(place, wide - 16, 13, bold=True) for place in found.places]
    for number, lines in enumerate(heads):
        for n, line in enumerate(lines):
            svg.text(12 + _LEFT + number * wide + 8, y + 14 + 16 * n, line, 13, bold=True)
    svg.text(20, y + 14, "through this door", 12, cls="t-soft")
    y += 16 * max(map(len, heads)) + 8
    for door in found.doors:
        words = {place: _words(found[door, place], wide - 30) for place in found.places}
        label = wrap(door, _LEFT - 16, 12.5, bold=True, breaks=" ,")
        height = max(len(label) * 16, max(map(len, words.values())) * _LEAD) + 16
        for n, line in enumerate(label):
            svg.text(20, y + 19 + 16 * n, line, 12.5, bold=True)
        for number, place in enumerate(found.places):
            box = Box(12 + _LEFT + number * wide, y, wide - _GAP, height)
            _draw(svg, box, found[door, place], words[place])
            svg.hit(box, f"{door}, {place}: {found[door, place].verdict}", door=door, place=place)
        y += height + _GAP
    return svg.document(y + 6, "Who is reached through which door, and as whom", str(found))


def _words(cell: Cell, room: float) -> list[str]:
    return [part for n, line in enumerate(cell.lines) for part in wrap(line, room, _SIZE, bold=n == 0)]


def _draw(svg: Svg, box: Box, cell: Cell, lines: list[str]) -> None:
    every, none = cell.delivered == len(cell.trips), not cell.delivered
    look = "f-bridge s-bridgeline" if every else "f-faultbg s-fault" if none else "f-service s-serviceline"
    svg.rect(box, look, extra=' stroke-width="1.4"')
    svg.text(box.x + 7, box.y + 20, "✓" if every else "✕" if none else "!", 13, bold=True)
    first = len(wrap(cell.verdict, box.w - 30 + _GAP, _SIZE, bold=True))
    for n, line in enumerate(lines):
        svg.text(box.x + 23, box.y + 20 + _LEAD * n, line, _SIZE, bold=n < first)
