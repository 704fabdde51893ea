"""Colours, letter widths and the few SVG words that every picture here is written in.

Colours are Okabe and Ito's eight, which stay apart for every common kind of colour blindness; a colour never stands
alone, a word or a shape says the same. Text is measured with the widths of DejaVu Sans, the widest of the usual
sans-serif fonts, so that what fits here fits everywhere.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

_REGULAR = (
    "32 41 46 84 64 96 78 28 40 40 50 84 32 37 32 34 64 64 64 64 64 64 64 64 64 64 34 34 84 84 84 54 100 69 69 70 78 64"
    " 58 78 76 30 30 66 56 87 75 79 61 79 70 64 62 74 69 99 69 62 69 40 34 40 84 50 50 62 64 55 64 62 36 64 64 28 28 58"
    " 28 98 64 62 64 64 42 53 40 64 60 82 60 60 53 64 34 64 84"
)
_BOLD = (
    "35 46 53 84 70 101 88 31 46 46 53 84 38 42 38 37 70 70 70 70 70 70 70 70 70 70 40 40 84 84 84 59"
    " 100 78 77 74 84 69 69 83 84 38 38 78 64 100 84 86 74 86 78 73 69 82 78 111 78 73 73 46 37 46 84 50"
    " 50 68 72 60 72 68 44 72 72 35 35 67 35 105 72 69 72 72 50 60 48 72 66 93 65 66 59 72 37 72 84"
)
_WIDTHS = {
    bold: {chr(32 + i): int(w) / 100 for i, w in enumerate(table.split())} | {"•": 0.64}
    for bold, table in ((False, _REGULAR), (True, _BOLD))
}
_MONO = 0.605

SANS = "Helvetica Neue,Helvetica,Arial,Liberation Sans,DejaVu Sans,sans-serif"
MONO = "SFMono-Regular,Menlo,Consolas,DejaVu Sans Mono,Liberation Mono,monospace"

_LIGHT = {
    "bg": "#ffffff",
    "card": "#f6f8fa",
    "band": "#e8ecf0",
    "line": "#8a94a0",
    "ink": "#1b2128",
    "soft": "#4d5864",
    "pod": "#edf3f8",
    "podline": "#4a6f8c",
    "bridge": "#dff3ec",
    "bridgeline": "#00805c",
    "tunnel": "#f8e6f0",
    "tunnelline": "#a8507f",
    "service": "#fdf8d2",
    "serviceline": "#8a7a00",
    "request": "#0072b2",
    "reply": "#c87800",
    "error": "#c94a00",
    "fault": "#c94a00",
    "faultbg": "#fdece2",
    "good": "#00734f",
    "changed": "#fff1c2",
    "changedink": "#1b2128",
    "frontend": "#e2f3fd",
    "frontendline": "#1487c9",
    "backend": "#e9e6fb",
    "backendline": "#4a37a8",
    "database": "#e3e9ec",
    "databaseline": "#3b4f5a",
    "dns": "#f5eedd",
    "dnsline": "#85661a",
}
_DARK = {
    "bg": "#14181d",
    "card": "#1e242b",
    "band": "#2c343d",
    "line": "#7b8793",
    "ink": "#e8edf2",
    "soft": "#b0bac4",
    "pod": "#1d2a35",
    "podline": "#8fb0c9",
    "bridge": "#123229",
    "bridgeline": "#2fc49b",
    "tunnel": "#3a2030",
    "tunnelline": "#e09bc2",
    "service": "#38340f",
    "serviceline": "#e8da4a",
    "request": "#56b4e9",
    "reply": "#f2b134",
    "error": "#ff8a4a",
    "fault": "#ff8a4a",
    "faultbg": "#402010",
    "good": "#35cfa4",
    "changed": "#4b4012",
    "changedink": "#fff6d0",
    "frontend": "#10303f",
    "frontendline": "#5cc0f5",
    "backend": "#2a2550",
    "backendline": "#b3a6ff",
    "database": "#2b3338",
    "databaseline": "#cfd8dc",
    "dns": "#382e14",
    "dnsline": "#d9b75c",
}

ROLES: dict[str, tuple[str, ...]] = {
    "frontend": ("frontend", "front", "web", "www", "ui", "nginx"),
    "backend": ("backend", "back", "api", "app", "server"),
    "database": ("database", "db", "sql", "postgres", "postgresql", "mysql", "mariadb", "mongo", "redis"),
    "dns": ("dns", "coredns"),
}
"""Role of a workload -> words of its name that say so. A role has a colour and an icon, the same in every picture."""

_ICONS = {
    "frontend": "M0 1h12v10h-12zM0 4.2h12",
    "backend": "M3 .8h6l3 5.2-3 5.2h-6l-3-5.2zM4 6a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
    "database": "M1 2.6c0-2.4 10-2.4 10 0v6.8c0 2.4-10 2.4-10 0zM1 2.6c0 2.4 10 2.4 10 0",
    "dns": "M6 0v12M6 1h4.5l1.5 1.7-1.5 1.7h-4.5M6 6h-4.5l-1.5 1.6 1.5 1.6h4.5",
}
"""Twelve pixels square: a window, a gear, a cylinder, a signpost."""


def _variables(table: dict[str, str]) -> str:
    return "".join(f"--k-{name}:{value};" for name, value in table.items())


VARIABLES = (
    f".knl{{{_variables(_LIGHT)}}}"
    f"@media (prefers-color-scheme:dark){{.knl{{{_variables(_DARK)}}}}}"
    f'[data-jp-theme-light="true"] .knl{{{_variables(_LIGHT)}}}'
    f'[data-jp-theme-light="false"] .knl{{{_variables(_DARK)}}}'
)
"""Both sets of colours. JupyterLab's own theme decides where there is one, else the reader's system."""


def _svg_rules() -> str:
    rules = [
        f".knl text{{font-family:{SANS};fill:var(--k-ink)}}",
        f".knl text.m{{font-family:{MONO}}}",
        ".knl text.b{font-weight:bold}",
        ".knl .bgr{fill:var(--k-bg)}",
        ".knl .sel{stroke:var(--k-ink);stroke-width:3;fill:none}",
        ".knl .flt{stroke:var(--k-fault);stroke-width:2.5;stroke-dasharray:5 3;fill:none}",
        ".knl .nof{fill:none;stroke-linejoin:round;stroke-linecap:round}",
        ".knl .hit{fill:transparent}",
    ]
    for name in ("card", "band", "pod", "bridge", "tunnel", "service", "faultbg", "changed", "bg", *ROLES):
        rules.append(f".knl .f-{name}{{fill:var(--k-{name})}}")
        rules.append(
            f".knl .h-{name}{{stroke:var(--k-{name});stroke-width:3px;paint-order:stroke;stroke-linejoin:round}}"
        )
    for name in (
        "line",
        "podline",
        "bridgeline",
        "tunnelline",
        "serviceline",
        "request",
        "reply",
        "error",
        "fault",
        "good",
        "ink",
        *(f"{role}line" for role in ROLES),
    ):
        rules.append(f".knl .s-{name}{{stroke:var(--k-{name})}}")
    for name in (
        "soft",
        "request",
        "reply",
        "error",
        "fault",
        "good",
        "bridgeline",
        "tunnelline",
        "serviceline",
        "podline",
    ):
        rules.append(f".knl .t-{name},.knl text.t-{name}{{fill:var(--k-{name})}}")
    return "".join(rules)


CSS = VARIABLES + _svg_rules()
"""The style sheet inside every SVG drawn here, scoped to class `knl`."""


def text_width(text: str, size: float, *, bold: bool = False, mono: bool = False) -> float:
    """Return an upper bound, in pixels, of the width of a line of text at a font size in pixels."""
    if mono:
        return len(text) * size * _MONO
    table = _WIDTHS[bold]
    return sum(table.get(letter, 1.0) for letter in text) * size


def wrap(
    text: str, width: float, size: float, *, bold: bool = False, mono: bool = False, breaks: str = " "
) -> list[str]:
    """Break text into lines no wider than `width`, after a character of `breaks`, inside a word only if it must.

    No letter is lost, except spaces at a line's end.
    """
    pieces: list[str] = []
    word = ""
    for letter in text:
        word += letter
        if letter in breaks:
            pieces.append(word)
            word = ""
    pieces.append(word)
    lines: list[str] = []
    line = ""
    for piece in pieces:
        if line and text_width((line + piece).rstrip(), size, bold=bold, mono=mono) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
        while text_width(line.rstrip(), size, bold=bold, mono=mono) > width and len(line) > 1:
            cut = len(line) - 1
            while cut > 1 and text_width(line[:cut], size, bold=bold, mono=mono) > width:
                cut -= 1
            lines.append(line[:cut].rstrip())
            line = line[cut:]
    if line.strip() or not lines:
        lines.append(line.rstrip())
    return lines


class Box(Struct, frozen=True):
    """A rectangle: left, top, width, height in pixels."""

    x: float
    y: float
    w: float
    h: float

    @property
    def cx(self) -> float:
        """Middle, across."""
        return self.x + self.w / 2

    @property
    def cy(self) -> float:
        """Middle, down."""
        return self.y + self.h / 2

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.w

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.y + self.h


Point = tuple[float, float]


def num(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _where(box: Box) -> str:
    return f'x="{num(box.x)}" y="{num(box.y)}" width="{num(box.w)}" height="{num(box.h)}"'


class Svg:
    """A picture being written, element by element."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.parts: list[str] = []
        self.words: list[str] = []
        self.hits: list[str] = []

    def hit(self, box: Box, label: str, **data: str) -> None:
        """Add an invisible rectangle on top of everything that a widget can make clickable."""
        fields = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
        where = _where(box)
        self.hits.append(f'<rect {where} rx="6" class="hit" aria-label="{escape(label)}"{fields}/>')

    def rect(self, box: Box, cls: str, radius: float = 6, extra: str = "") -> None:
        """Add a rectangle."""
        self.parts.append(f'<rect {_where(box)} rx="{num(radius)}" class="{cls}"{extra}/>')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 12,
        *,
        cls: str = "",
        anchor: str = "start",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        """Add one line of text with its baseline at `y`. Text lies over every line, on a halo of its ground."""
        words = " ".join(word for word in (cls, "b" * bold, "m" * mono) if word)
        attributes = f' class="{words}"' if words else ""
        if anchor != "start":
            attributes += f' text-anchor="{anchor}"'
        self.words.append(
            f'<text x="{num(x)}" y="{num(y)}" font-size="{num(size)}"{attributes}>{escape(text, quote=False)}</text>'
        )

    def icon(self, x: float, y: float, role: str) -> None:
        """Add a role's icon with its upper left corner at a point; nothing for the role ""."""
        if role:
            place = f'transform="translate({num(x)} {num(y)})"'
            self.parts.append(
                f'<path d="{_ICONS[role]}" {place} class="nof s-{role}line" stroke-width="1.4"/>'
            )

    def line(self, points: Sequence[Point], cls: str, width: float = 1.5, extra: str = "") -> None:
        """Add an open line through points."""
        self.parts.append(
            f'<path d="{path_data(points)}" class="nof {cls}" stroke-width="{num(width)}"{extra}/>'
        )

    def arrow(self, tip: Point, direction: Point, cls: str, size: float = 7) -> None:
        """Add a filled arrow head with its tip at a point, pointing along (dx, dy) of length 1."""
        (x, y), (dx, dy) = tip, direction
        bx, by = x - dx * size, y - dy * size
        half = size * 0.62
        corners = [(x, y), (bx - dy * half, by + dx * half), (bx + dy * half, by - dx * half)]
        self.parts.append(f'<path d="{path_data(corners)}Z" class="{cls}"/>')

    def document(self, height: float, title: str, description: str = "") -> str:
        """Return the whole picture: style inside, background painted, title and description for screen readers."""
        size = (
            f'viewBox="0 0 {num(self.width)} {num(height)}" width="{num(self.width)}" height="{num(height)}"'
        )
        words = f"<desc>{escape(description, quote=False)}</desc>" if description else ""
        background = (
            f'<rect x="0" y="0" width="{num(self.width)}" height="{num(height)}" rx="8" class="bgr"/>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="knl" role="img" aria-label="{escape(title)}" {size}'
            f' style="max-width:100%;height:auto">{words}<style>{CSS}</style>{background}'
            f"{''.join(self.parts)}{''.join(self.words)}{''.join(self.hits)}</svg>"
        )


def role_of(workload: str) -> str:
    """Return the role that a workload's name tells: frontend, backend, database, dns, or ""."""
    words = workload.lower().split("-")
    return next((role for role, known in ROLES.items() if set(words) & set(known)), "")


def path_data(points: Iterable[Point]) -> str:
    """Return an SVG path through points."""
    return "M" + "L".join(f"{num(x)} {num(y)}" for x, y in points)


def image(svg: str, alt: str) -> str:
    """Return an `<img>` that carries the SVG inside.

    JupyterLab drops bare SVG from notebooks it does not trust, and GitHub from all; both keep this.
    """
    data = b64encode(svg.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}" style="max-width:100%"/>'


class Picture(Struct, frozen=True):
    """A finished SVG that a notebook shows, trusted or not. `str()` of it is the SVG."""

    svg: str
    alt: str = ""

    def __str__(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<picture: {self.alt}>"

    def _repr_html_(self) -> str:
        return image(self.svg, self.alt)
