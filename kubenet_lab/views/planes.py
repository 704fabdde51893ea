"""One call through several Service data planes, side by side: the same question answered row by row.

A pure view of calls that were made: who looked the Service up, where, in what; who chose the backend; where addresses
were rewritten and put right again; how many entries a linear kernel compares, and how that grows with the number of
Services. `kubenet_lab.scenarios.planes` makes the calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from kubenet_lab.packet.packet import endpoint
from kubenet_lab.trace import Hop, RuleRef, Step
from kubenet_lab.views import nft_words
from kubenet_lab.views.theme import Box, Picture, Svg, wrap
from kubenet_lab.views.words import place_name, target_of
from kubenet_lab.walk.exchange import Exchange
from kubenet_lab.walk.nft import NftRef

WIDTH = 900.0
TITLES = {"iptables": "iptables", "nftables": "nftables", "ipvs": "IPVS", "ebpf": "eBPF"}
NOTHING = "-"

Growth = Mapping[str, Sequence[tuple[int, int]]]
"""Mode -> (number of Services, entries compared for the packet to the last of them)."""


class Cell(Struct, frozen=True):
    """What one data plane does for one question: where, and by what."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} ({self.where})" if self.where else self.what


class PlanesRow(Struct, frozen=True):
    """One question, one answer a data plane; `same` when all say the same."""

    question: str
    cells: tuple[Cell, ...]

    @property
    def same(self) -> bool:
        """True when every data plane does the same here."""
        return len(set(self.cells)) == 1


class Planes(Struct, frozen=True):
    """The comparison: rows in the order of the packet's way."""

    title: str
    modes: tuple[str, ...]
    rows: tuple[PlanesRow, ...]
    tried: tuple[int, ...]
    """Entries compared for the request, one a data plane."""
    growth: Growth = {}
    width: float = WIDTH
    """Of the picture, in its own units: less of it makes larger words in the same window."""

    def text(self) -> str:
        """Return everything the picture shows as text."""
        lines = [self.title]
        for row in self.rows:
            lines.append(f"{row.question}:")
            if row.same:
                lines.append(f"  all: {row.cells[0]}")
                continue
            names = [TITLES.get(mode, mode) for mode in self.modes]
            lines += [f"  {name}: {cell}" for name, cell in zip(names, row.cells, strict=True)]
        if self.growth:
            lines.append("Entries compared for the packet to the last of N Services:")
            for mode in self.modes:
                points = ", ".join(f"{tried} of {count}" for count, tried in self.growth.get(mode, ()))
                lines.append(f"  {TITLES.get(mode, mode)}: {points}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return planes_picture(self)._repr_html_()


# -- reading the traces -----------------------------------------------------------------------------------------------


def planes(
    calls: Mapping[str, Exchange], *, called: str, title: str = "", growth: Growth | None = None
) -> Planes:
    """Compare calls of one client to one Service, by the name of the data plane.

    `called` is what the client wrote, "10.96.0.100:80".
    """
    columns = [_column(one, called) for one in calls.values()]
    questions = list(columns[0]) if columns else []
    rows = tuple(PlanesRow(q, tuple(column[q] for column in columns)) for q in questions)
    tried = tuple(one.request.rules_tried for one in calls.values())
    return Planes(title or f"One call to {called}", tuple(calls), rows, tried, growth or {})


def _column(call: Exchange, called: str) -> dict[str, Cell]:
    request = call.request
    steps = request.steps()
    at = next((n for n, (_, step) in enumerate(steps) if _moves(step, "dst")), len(steps))
    found, chosen = _decisions([*steps[: at + 1]])
    replies = [one for one in call.traces[1:] if one.role == "reply"]
    reply = replies[0] if replies else None
    seen = request.delivered_as
    return {
        "The program calls": Cell("", called),
        "The Service is found by": found,
        "The backend is chosen by": chosen,
        "The destination is rewritten": _rewritten(steps, "dst"),
        "On its way the packet is for": Cell("", endpoint(request.packet.dst, request.packet.dport)),
        "The source is rewritten": _rewritten(steps, "src"),
        "The server sees": Cell("", f"a client at {seen.src}" if seen is not None else "nothing"),
        "The answer is put right": _rewritten(reply.steps(), "src")
        if reply is not None
        else Cell("", "no answer"),
        "The connection is kept in": _kept(steps),
        "Entries compared": Cell("", str(request.rules_tried)),
        "It ends": Cell("", call.verdict),
    }


def _moves(step: Step, side: str) -> bool:
    if step.kind not in ("nat", "bpf", "ipvs") or step.before is None or step.after is None:
        return False
    return bool(getattr(step.before, side) != getattr(step.after, side))


def _spot(hop: Hop, step: Step) -> str:
    if step.kind == "bpf":
        return f"{place_name(hop.netns)}, {_program(step)}"
    if step.kind == "ipvs":
        return f"{place_name(hop.netns)}, IPVS"
    if step.kind == "nat":
        return f"{place_name(hop.netns)}, netfilter"
    return f"{place_name(hop.netns)}, {step.spot}"


def _program(step: Step) -> str:
    name = step.spot.split()[0]
    return f"{name} at the system call" if name.startswith("cil_sock") else name


def _decisions(steps: Sequence[tuple[Hop, Step]]) -> tuple[Cell, Cell]:
    """What recognised the Service, and what picked the backend."""
    found = chosen = Cell("", NOTHING)
    for hop, step in steps:
        entry, where = step.entry, _spot(hop, step)
        if step.kind == "rule" and isinstance(entry, NftRef):
            named = nft_words.title(entry)
            if named == "Service recognised" and found.what == NOTHING:
                found = Cell(where, _nft_found(entry))
            elif named == "Backend drawn" or nft_words.rewrites(entry):
                chosen = Cell(where, "numgen random" if "numgen" in str(entry.rule) else "the only one")
        elif step.kind == "rule" and isinstance(entry, RuleRef):
            target, _ = target_of(entry)
            if target.startswith(("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-")) and found.what == NOTHING:
                found = Cell(where, f"rule {entry.number} of {entry.chain}")
            elif target.startswith("KUBE-SEP-"):
                chosen = Cell(where, f"rule {entry.number} of its chain, by chance")
        elif step.kind == "ipvs" and step.before is None:
            found = Cell(where, "the table of virtual servers")
            chosen = Cell(where, f"scheduler {step.spot}")
        elif step.kind == "bpf" and "services" in getattr(entry, "map", ""):
            if step.before is None:
                found = Cell(where, f"an entry of {entry.map}")
            else:
                chosen = Cell(where, f"slot {entry.key.slot}, by chance")
        elif step.kind == "bpf" and step.before is not None and hasattr(entry, "map"):
            chosen = Cell(where, f"an entry of {entry.map}")
    return found, chosen


def _nft_found(entry: NftRef) -> str:
    within = getattr(entry, "within", "")
    return f"an element of the map {within}" if within else f"rule {entry.number} of {entry.chain}"


def _rewritten(steps: Sequence[tuple[Hop, Step]], side: str) -> Cell:
    for hop, step in steps:
        if _moves(step, side) and step.before is not None and step.before.src:
            port = "sport" if side == "src" else "dport"
            after = step.after
            what = endpoint(getattr(after, side), getattr(after, port))
            return Cell(_spot(hop, step), f"to {what}")
        if side == "dst" and _moves(step, side):
            return Cell(_spot(hop, step), f"to {endpoint(step.after.dst, step.after.dport)}")  # type: ignore[union-attr]
    return Cell("", "nowhere")


def _kept(steps: Sequence[tuple[Hop, Step]]) -> Cell:
    kept: dict[str, None] = {}
    for _hop, step in steps:
        if step.kind == "conntrack" and step.spot == "confirmed":
            translated = step.entry is not None and step.entry.orig[2] != step.entry.reply[1]
            kept["conntrack, with both addresses" if translated else "conntrack, as any other connection"] = (
                None
            )
        elif step.kind == "ipvs" and step.before is None:
            kept["the IPVS connection table"] = None
        elif step.kind == "bpf" and "reverse_sk" in getattr(step.entry, "map", ""):
            kept["cilium_lb4_reverse_sk, for getpeername()"] = None
        elif step.kind == "bpf" and "services" in getattr(step.entry, "map", "") and "from_" in step.spot:
            kept["cilium_ct4_global"] = None
        elif step.kind == "bpf" and "snat" in getattr(step.entry, "map", ""):
            kept["cilium_snat_v4_external"] = None
    return Cell("", "; ".join(kept) or NOTHING)


# -- picture ----------------------------------------------------------------------------------------------------------

_SIZE = 12.0
_LEFT = 168.0


def planes_picture(found: Planes) -> Picture:
    """Draw the comparison as a grid, one column a data plane, with the growth below."""
    return Picture(planes_svg(found), f"{found.title}, through {', '.join(found.modes)}")


def planes_svg(found: Planes) -> str:
    """Return the picture's SVG."""
    svg = Svg(found.width)
    svg.text(16, 28, found.title, 17, bold=True)
    count = max(1, len(found.modes))
    column = (found.width - _LEFT - 24) / count
    y = 62.0
    for index, mode in enumerate(found.modes):
        x = _LEFT + index * column
        svg.rect(Box(x + 4, y - 20, column - 8, 28), "f-band")
        svg.text(x + column / 2, y, TITLES.get(mode, mode), 14, anchor="middle", bold=True)
    y += 14
    for row in found.rows:
        y = _row(svg, found, row, y, column)
    y += 10
    if found.growth:
        y = _growth(svg, found, y)
    return svg.document(y + 12, found.title, found.text())


def _row(svg: Svg, found: Planes, row: PlanesRow, y: float, column: float) -> float:
    cells = (row.cells[0],) if row.same and len(row.cells) > 1 else row.cells
    width = column * (len(row.cells) if len(cells) == 1 else 1) - 24
    texts = [
        (wrap(c.what, width, _SIZE, bold=True, breaks=" -."), wrap(c.where, width, 11) if c.where else [])
        for c in cells
    ]
    height = max(len(what) * 16 + len(where) * 14 for what, where in texts) + 12
    question = wrap(row.question, _LEFT - 28, _SIZE)
    height = max(height, len(question) * 16 + 12)
    for n, line in enumerate(question):
        svg.text(16, y + 20 + n * 16, line, _SIZE, cls="t-soft")
    for index, (what, where) in enumerate(texts):
        x = _LEFT + index * column
        box = Box(x + 4, y + 4, width + 16, height)
        svg.rect(box, "f-card" if len(cells) == 1 else "f-service")
        for n, line in enumerate(what):
            svg.text(x + 12, y + 20 + n * 16, line, _SIZE, bold=True)
        for n, line in enumerate(where):
            svg.text(x + 12, y + 20 + len(what) * 16 + n * 14, line, 11, cls="t-soft")
    return y + height + 6


_MARKS = ("request", "reply", "good", "error")


def _growth(svg: Svg, found: Planes, y: float) -> float:
    """Lines on two logarithmic axes: how many entries are compared as Services are added."""
    svg.text(
        16, y + 18, "How many entries are compared for the packet to the last of N Services", 14, bold=True
    )
    plot = Box(_LEFT, y + 34, found.width - _LEFT - 230, 190)
    counts = sorted({count for points in found.growth.values() for count, _ in points})
    most = max(tried for points in found.growth.values() for _, tried in points)
    top = math.ceil(math.log10(max(10, most)))
    low, high = math.log10(counts[0]), math.log10(counts[-1])

    def place(count: int, tried: int) -> tuple[float, float]:
        across = (math.log10(count) - low) / (high - low or 1)
        return plot.x + across * plot.w, plot.bottom - math.log10(max(1, tried)) / top * plot.h

    for power in range(top + 1):
        level = plot.bottom - power / top * plot.h
        svg.line([(plot.x, level), (plot.right, level)], "s-line", 0.5)
        svg.text(plot.x - 8, level + 4, f"{10**power:,}", 11, anchor="end", cls="t-soft")
    for count in counts:
        svg.text(place(count, 1)[0], plot.bottom + 18, f"{count:,}", 11, anchor="middle", cls="t-soft")
    svg.text(plot.cx, plot.bottom + 36, "Services", 11, anchor="middle", cls="t-soft")
    labels: list[tuple[float, str, str]] = []
    for index, mode in enumerate(found.modes):
        points = found.growth.get(mode, ())
        if not points:
            continue
        mark = _MARKS[index % len(_MARKS)]
        where = [place(count, tried) for count, tried in points]
        dash = ' stroke-dasharray="6 4"' if index % 2 else ""
        svg.line(where, f"s-{mark}", 2.5, dash)
        labels.append((where[-1][1], f"{TITLES.get(mode, mode)}: {points[-1][1]:,}", mark))
    level = -math.inf
    for wanted, label, mark in sorted(labels):
        level = max(wanted + 4, level + 16)
        svg.text(plot.right + 12, level, label, 12, cls=f"t-{mark}", bold=True)
    return plot.bottom + 44
