"""Services side by side: what each asks for, what its name resolves to, what a node writes for it, who answers."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kubenet_lab.views.theme import Box, Svg, image, wrap

WIDTH = 1000.0


class Kind(Struct, frozen=True):
    """One Service: its `spec` as lines of YAML, its DNS `answers`, the number of `rules` on a node that name it.

    `outcome` says what a call to its name and port saw, and `well` whether it was answered.
    """

    name: str
    spec: tuple[str, ...]
    answers: tuple[str, ...]
    rules: int
    outcome: str
    well: bool


class Kinds(Struct, frozen=True):
    """Several Services, and the node whose rules were counted."""

    node: str
    kinds: tuple[Kind, ...]

    def __str__(self) -> str:
        rows = []
        for one in self.kinds:
            rows.append(f"{one.name}: {', '.join(one.spec)}")
            rows.append(f"  its name resolves to: {', '.join(one.answers) or 'nothing'}")
            rows.append(f"  rules on {self.node}: {one.rules}")
            rows.append(f"  a call: {one.outcome}")
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return image(kinds_svg(self), str(self))


def kinds_svg(found: Kinds) -> str:
    """Draw a column a Service; what belongs together stands on one height."""
    svg = Svg(WIDTH)
    left, gap = 104.0, 8.0
    wide = (WIDTH - left - 12) / len(found.kinds)
    room = wide - gap - 18

    def lines(texts: Sequence[str], mono: bool = False) -> list[str]:
        size = 11 if mono else 12
        return [part for text in texts for part in wrap(text, room, size, mono=mono)]

    rows: list[tuple[str, str, list[list[str]], bool]] = [
        ("it asks for", "f-card s-line", [lines(one.spec, True) for one in found.kinds], True),
        (
            "its name resolves to",
            "f-service s-serviceline",
            [lines(one.answers or ("nothing",), True) for one in found.kinds],
            True,
        ),
        (
            f"rules on {found.node}",
            "f-band s-line",
            [[f"{one.rules} rules" if one.rules else "none at all"] for one in found.kinds],
            False,
        ),
        ("a call to it", "", [lines((one.outcome,)) for one in found.kinds], False),
    ]
    y = 14.0
    for number, one in enumerate(found.kinds):
        svg.text(left + number * wide + 4, y + 12, one.name, 14, bold=True)
    y += 26
    for label, look, cells, mono in rows:
        names = wrap(label, left - 18, 12, bold=True)
        height = max(len(names), *map(len, cells)) * 15 + 16
        for n, word in enumerate(names):
            svg.text(12, y + 20 + 15 * n, word, 12, bold=True)
        for number, words in enumerate(cells):
            box = Box(left + number * wide, y, wide - gap, height)
            own = look or ("f-bridge s-bridgeline" if found.kinds[number].well else "f-faultbg s-fault")
            svg.rect(box, own, extra=' stroke-width="1.3"')
            for n, word in enumerate(words):
                svg.text(box.x + 9, y + 20 + 15 * n, word, 11 if mono else 12, mono=mono)
        y += height + 8
    return svg.document(y + 4, "Services side by side", str(found))
