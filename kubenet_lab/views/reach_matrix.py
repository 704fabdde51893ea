"""Who may talk to whom, as a matrix of workloads; and the same as a graph, before and after a change of policies.

A row is a source, a column a destination. A cell is green with the word "all" where every port is open, yellow with
the ports where some are, orange with a cross and "none" where none is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.views.theme import Box, Picture, Svg, image, text_width, wrap

if TYPE_CHECKING:
    from kubenet_lab.policy.world import World
    from kubenet_lab.reach.listing import Listing

WIDTH = 1000.0
COLUMNS = ("source", "destination", "connections", "partly")
OUTSIDE = "outside"
_ALL = "All Connections"


class ReachMatrix(Struct, frozen=True):
    """Workloads by workloads.

    Attributes:
        names: Rows and columns, as they are shown; the last one is "outside".
        cells: For each (source, destination): "All Connections", "TCP 80,443", or "" for none; a pair that is not there
            was not asked (a workload and itself, the outside and itself).
        partly: The pairs for which it is true of some pods only.
    """

    names: tuple[str, ...]
    cells: Mapping[tuple[str, str], str]
    partly: frozenset[tuple[str, str]] = frozenset()

    def __str__(self) -> str:
        lines = []
        for source in self.names:
            lines.append(f"from {source}")
            for target in self.names:
                if (source, target) in self.cells:
                    lines.append(f"  to {target}: {self.words(source, target)}")
        return "\n".join(lines)

    __repr__ = __str__

    def words(self, source: str, target: str) -> str:
        """A cell in words."""
        what = self.cells[source, target]
        said = "nothing" if not what else "everything" if what == _ALL else what
        return f"{said} (some of the pods)" if (source, target) in self.partly else said

    def rows(self) -> list[dict[str, Any]]:
        """One row a cell, keyed by `COLUMNS`."""
        return [
            dict(zip(COLUMNS, (*pair, self.words(*pair), pair in self.partly), strict=True))
            for pair in self.cells
        ]

    def table(self) -> Any:
        """A pandas DataFrame, a row a cell."""
        from kubenet_lab.views.tables import frame

        return frame(self.rows(), COLUMNS)

    def html(self) -> str:
        """An HTML table, for pages."""
        head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in self.names)
        body = ""
        for source in self.names:
            cells = ""
            for target in self.names:
                if (source, target) not in self.cells:
                    cells += "<td>-</td>"
                    continue
                colour = (
                    "#dff3ec"
                    if self.cells[source, target] == _ALL
                    else "#fdf8d2"
                    if self.cells[source, target]
                    else "#fdece2"
                )
                mark = "✕ " if not self.cells[source, target] else ""
                words = escape(self.words(source, target))
                cells += f"<td style='background:{colour};color:#1b2128'>{mark}{words}</td>"
            body += f"<tr><th scope='row'>{escape(source)}</th>{cells}</tr>"
        caption = "<caption>A row is a source, a column a destination.</caption>"
        return f"<table>{caption}<tr><td></td>{head}</tr>{body}</table>"

    def _repr_html_(self) -> str:
        return image(reach_matrix_svg(self), str(self))


def matrix(world: World, listed: Listing | None = None) -> ReachMatrix:
    """The matrix of a world's workloads. Outside addresses are one column, with the ports of all their ranges."""
    from kubenet_lab.reach.listing import listing

    found = listed or listing(world)
    names = [node.name for node in found.nodes if not node.outside]
    short = short_names(names)
    cells: dict[tuple[str, str], str] = {
        (short[source], short[target]): "" for source in names for target in names if source != target
    }
    for name in short.values():
        cells[name, OUTSIDE] = cells[OUTSIDE, name] = ""
    partly: set[tuple[str, str]] = set()
    whole = sum(node.outside for node in found.nodes) <= 1
    for item in found.connections:
        pair = (short.get(item.source, OUTSIDE), short.get(item.destination, OUTSIDE))
        before = cells[pair]
        cells[pair] = (
            item.what
            if not before or item.what == _ALL
            else before
            if before == item.what
            else f"{before}; {item.what}"
        )
        if item.partly or (OUTSIDE in pair and not whole and not _everywhere(item.source, item.destination)):
            partly.add(pair)
    return ReachMatrix((*short.values(), OUTSIDE), cells, frozenset(partly))


def _everywhere(*names: str) -> bool:
    return any(
        name.startswith(("0.0.0.0-255.255.255.255[", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff["))
        for name in names
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without their kinds, and without the namespace where there is one only, unless two would be the same."""
    spaces = {name.partition("/")[0] for name in names}
    made = {}
    for name in names:
        bare = name.partition("[")[0]
        made[name] = bare.partition("/")[2] if len(spaces) == 1 else bare
    return made if len(set(made.values())) == len(made) else {name: name for name in names}


_LEFT, _GAP, _SIZE, _LEAD = 170.0, 5.0, 11.5, 14.0


def reach_matrix_svg(found: ReachMatrix, before: ReachMatrix | None = None) -> str:
    """Draw the matrix; with `before`, cells that changed have a thick edge and say what they were."""
    svg = Svg(WIDTH)
    wide = (WIDTH - 24 - _LEFT) / max(1, len(found.names))
    heads = [wrap(name, wide - 10, 12, bold=True, breaks="-/ ") for name in found.names]
    svg.text(20, 26, "from ↓   to →", 12, cls="t-soft")
    for number, lines in enumerate(heads):
        for n, line in enumerate(lines):
            svg.text(12 + _LEFT + number * wide + 5, 26 + 15 * n, line, 12, bold=True)
    y = 22.0 + 15 * max(map(len, heads), default=1)
    for source in found.names:
        label = wrap(source, _LEFT - 14, 12, bold=True, breaks="-/ ")
        said = {target: _said(found, before, source, target, wide) for target in found.names}
        height = max(len(label) * 15, max((len(lines) for lines in said.values()), default=1) * _LEAD) + 16
        for n, line in enumerate(label):
            svg.text(20, y + 19 + 15 * n, line, 12, bold=True)
        for number, target in enumerate(found.names):
            box = Box(12 + _LEFT + number * wide, y, wide - _GAP, height)
            if (source, target) not in found.cells:
                svg.rect(box, "f-band", extra=' stroke="none"')
                continue
            what = found.cells[source, target]
            look = (
                "f-bridge s-bridgeline"
                if what == _ALL
                else "f-service s-serviceline"
                if what
                else "f-faultbg s-fault"
            )
            changed = before is not None and before.cells.get((source, target)) != what
            svg.rect(box, look, extra=f' stroke-width="{3.2 if changed else 1.2}"')
            svg.text(box.x + 6, box.y + 19, "✕" if not what else "✓", 12, bold=True)
            for n, line in enumerate(said[target]):
                svg.text(box.x + 21, box.y + 19 + _LEAD * n, line, _SIZE, bold=n == 0 and not changed)
            spoken = f"from {source} to {target}: {_phrase(found, before, source, target)}"
            svg.hit(box, spoken, door=source, place=target)
        y += height + _GAP
    return svg.document(y + 4, "Who may talk to whom", str(found))


def _said(found: ReachMatrix, before: ReachMatrix | None, source: str, target: str, wide: float) -> list[str]:
    if (source, target) not in found.cells:
        return []
    words = _phrase(found, before, source, target).replace("everything", "all").replace("nothing", "none")
    return wrap(words, wide - 32, _SIZE, bold=True, breaks=", ;-")


def _phrase(found: ReachMatrix, before: ReachMatrix | None, source: str, target: str) -> str:
    """A cell in words, with what it was where that is another."""
    words = found.words(source, target)
    old = before.cells.get((source, target)) if before is not None else None
    if before is None or old is None or old == found.cells[source, target]:
        return words
    return f"{words}, was {before.words(source, target)}"


def reach_graph_svg(found: ReachMatrix, start: str = "", reached: Mapping[str, int] | None = None) -> str:
    """Draw workloads in a ring, an arrow for each connection that is open; `start` is a pod that was taken over.

    `reached` are the workloads that can be reached from it, with the steps that takes; they are marked with words and
    a colour.
    """
    from math import cos, pi, sin

    steps = reached or {}
    count = max(1, len(found.names))
    width, height = WIDTH, 120.0 + 64 * count if count < 7 else 560.0
    svg = Svg(width)
    middle = (width / 2, height / 2)
    boxes: dict[str, Box] = {}
    widths = {name: max(96.0, text_width(name, 13, bold=True) + 30) for name in found.names}
    # As far out as the widest box allows: arrows between its neighbours then pass beside it, not along its edge.
    across = width / 2 - 8 - max(widths.values(), default=0.0) / 2
    for number, name in enumerate(found.names):
        angle = 2 * pi * number / count - pi / 2
        x, y = middle[0] + across * cos(angle), middle[1] + (height / 2 - 50) * sin(angle)
        boxes[name] = Box(x - widths[name] / 2, y - 22, widths[name], 44)
    for (source, target), what in found.cells.items():
        if what:
            _arrow(svg, boxes[source], boxes[target], source == start or source in steps)
    for name, box in boxes.items():
        taken, hit = name == start, name in steps
        look = (
            "f-faultbg s-fault"
            if taken or hit
            else "f-card s-line"
            if name == OUTSIDE
            else "f-bridge s-bridgeline"
        )
        svg.rect(box, look, extra=f' stroke-width="{3.4 if taken else 1.6}"')
        svg.text(box.cx, box.y + 19, name, 13, anchor="middle", bold=True)
        word = "taken over" if taken else "out of reach" if start and name != OUTSIDE else ""
        if hit:
            word = f"reached in {steps[name]} step{'s' if steps[name] > 1 else ''}"
        if word:
            svg.text(box.cx, box.y + 36, word, 11, anchor="middle")
    return svg.document(height, "Which connections are open", str(found))


def _arrow(svg: Svg, start: Box, end: Box, hot: bool) -> None:
    """A line between two boxes, to the right of the one that goes the other way, from edge to edge."""
    dx, dy = end.cx - start.cx, end.cy - start.cy
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    ux, uy = dx / length, dy / length
    off = (-uy * 5, ux * 5)

    def edge(box: Box, sign: float) -> tuple[float, float]:
        reach = min(
            (box.w / 2 + 3) / abs(ux) if abs(ux) > 1e-6 else 1e9,
            (box.h / 2 + 3) / abs(uy) if abs(uy) > 1e-6 else 1e9,
        )
        return (box.cx + sign * ux * reach + off[0], box.cy + sign * uy * reach + off[1])

    tail, tip = edge(start, 1), edge(end, -1)
    look = "s-fault" if hot else "s-line"
    svg.line([tail, tip], look, 2.2 if hot else 1.3)
    svg.arrow(tip, (ux, uy), "t-fault" if hot else "t-soft", 7)


def graph(world: World, start: str = "") -> Picture:
    """The graph of a world's open connections; with `start` ("namespace/pod") it tells how far one gets from there.

    Raises KeyError for a pod that is not there.
    """
    from kubenet_lab.reach.attack import attack
    from kubenet_lab.reach.listing import listing

    listed = listing(world)
    found = matrix(world, listed)
    names = [node.name for node in listed.nodes if not node.outside]
    short = short_names(names)
    owner = {pod: short[node.name] for node in listed.nodes if not node.outside for pod in node.pods}
    if not start:
        return Picture(reach_graph_svg(found), str(found))
    paths = attack(world, start)
    reached: dict[str, int] = {}
    for pod, hops in paths.paths.items():
        if owner[pod] != owner[start]:
            reached[owner[pod]] = min(len(hops), reached.get(owner[pod], len(hops)))
    return Picture(reach_graph_svg(found, owner[start], reached), paths.text())
