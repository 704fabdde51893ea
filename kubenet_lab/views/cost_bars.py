"""Where the time of a way goes, as bars: one a way, cut by what the kernels do on it."""

from __future__ import annotations

from collections.abc import Mapping

from kubenet_lab.cost import Latency
from kubenet_lab.views.theme import Box, Picture, Svg, text_width

GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ends": ("the two ends", "f-database", ("packet",)),
    "links": ("links and look-ups", "f-frontend", ("link",)),
    "conntrack": ("conntrack", "f-service", ("tracked", "connection")),
    "rules": ("rules and NAT", "f-backend", ("rule", "match", "nat")),
    "tunnel": ("tunnel", "f-tunnel", ("tunnel",)),
    "other": ("BPF, IPVS", "f-bridge", ("program", "bpf", "ipvs")),
}
"""Group -> (words, colour, kinds of steps in it)."""
WIDTH, _LEFT, _RIGHT, _BAR, _STEP = 740.0, 210.0, 84.0, 26.0, 40.0


def grouped(way: Latency) -> dict[str, float]:
    """Return microseconds by group, empty groups left out."""
    found = {
        group: sum(share.us or 0.0 for share in way.shares if share.kind in kinds)
        for group, (_words, _colour, kinds) in GROUPS.items()
    }
    return {group: us for group, us in found.items() if us}


def cost_text(title: str, ways: Mapping[str, Latency]) -> str:
    """Return the same as lines: a way, its parts, the sum."""
    lines = [title]
    for name, way in ways.items():
        parts = ", ".join(f"{GROUPS[group][0]} {us:.1f}" for group, us in grouped(way).items())
        lines.append(f"  {name}: {way.us:.1f} us ({parts})")
        if way.unpriced:
            lines.append(f"  {name}: not measured: {_missing(way)}")
    return "\n".join(lines)


def _missing(way: Latency) -> str:
    """The groups of this way's steps that have no price."""
    return "; ".join(words for words, _colour, kinds in GROUPS.values() if set(kinds) & set(way.unpriced))


def cost_svg(title: str, ways: Mapping[str, Latency]) -> str:
    """Return the picture's SVG. Each part's microseconds stand in it where they fit, each sum at its bar's end."""
    svg = Svg(WIDTH)
    svg.text(16, 28, title, 15, bold=True)
    x = 16.0
    used = {group for way in ways.values() for group in grouped(way)}
    for group, (words, colour, _kinds) in GROUPS.items():
        if group in used:
            svg.rect(Box(x, 44, 16, 16), f"{colour} s-line", 3)
            svg.text(x + 22, 56.5, words, 12)
            x += 22 + text_width(words, 12) + 20
    scale = (WIDTH - _LEFT - _RIGHT) / max((way.us for way in ways.values()), default=1.0)
    y = 80.0
    for name, way in ways.items():
        svg.text(16, y + 17, name, 12.5)
        x = _LEFT
        for group, us in grouped(way).items():
            part = Box(x, y, us * scale, _BAR)
            svg.rect(part, f"{GROUPS[group][1]} s-line", 2)
            number = f"{us:.1f}"
            if text_width(number, 11) + 4 <= part.w:
                svg.text(part.cx, y + 17, number, 11, anchor="middle")
            x = part.right
        svg.text(x + 8, y + 17, f"{way.us:.1f} µs", 13, bold=True)
        if way.unpriced:
            svg.text(_LEFT, y + _BAR + 12, f"not measured, and not in it: {_missing(way)}", 11, cls="t-soft")
        y += _STEP
    return svg.document(y + 2, title, cost_text(title, ways))


def cost_picture(title: str, ways: Mapping[str, Latency]) -> Picture:
    """Draw the ways as bars of one scale; the words are in the picture's description too."""
    return Picture(cost_svg(title, ways), cost_text(title, ways))
