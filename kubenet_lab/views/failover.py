"""Callers of one address while a node behind it dies and comes back: how many are answered, and where it leads."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.views.theme import Box, Svg, image


class Moment(Struct, frozen=True):
    """One moment: how many calls of how many were answered, and which nodes the address leads to."""

    second: float
    did: str
    answered: int
    made: int
    leads_to: tuple[str, ...]


class Failover(Struct, frozen=True):
    """What callers outside felt while a node died and came back."""

    title: str
    moments: tuple[Moment, ...]

    @property
    def lost_until(self) -> float:
        """Seconds from the death of the node until no more calls are lost for it."""
        died = next(m.second for m in self.moments if m.did)
        lost = [m.second for m in self.moments if m.answered < m.made]
        return max(lost) - died if lost else 0.0

    def __str__(self) -> str:
        rows = [self.title]
        for m in self.moments:
            nodes = ", ".join(m.leads_to) or "nobody"
            rows.append(
                f"  {m.second:g} s: {m.answered} of {m.made} calls answered; leads to {nodes}. {m.did}".rstrip(
                    ". "
                )
            )
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return image(failover_svg(self), str(self))


def failover_svg(found: Failover) -> str:
    """Draw the moments, one column each: a bar of calls, answered below and lost above, and the nodes in words."""
    svg = Svg(1000)
    left, top, tall = 150.0, 64.0, 110.0
    wide = (1000 - left - 16) / len(found.moments)
    svg.text(14, 24, found.title, 14, bold=True)
    svg.text(14, top + 18, "✕ lost", 12.5, bold=True, cls="t-fault")
    svg.text(14, top + tall - 8, "■ answered", 12.5, bold=True, cls="t-podline")
    svg.text(14, top + tall + 22, "second", 12, cls="t-soft")
    nodes = sorted({node for m in found.moments for node in m.leads_to})
    for n, node in enumerate(nodes):
        svg.text(14, top + tall + 48 + 22 * n, f"leads to {node}", 12)
    for number, m in enumerate(found.moments):
        x = left + number * wide
        good = tall * m.answered / m.made
        if good:
            svg.rect(Box(x, top + tall - good, wide - 5, good), "t-podline s-podline", radius=2)
        if good < tall:
            svg.rect(
                Box(x, top, wide - 5, tall - good), "f-faultbg s-fault", radius=2, extra=' stroke-width="1.4"'
            )
            svg.text(
                x + wide / 2 - 2,
                top + 16,
                f"✕ {m.made - m.answered}",
                11.5,
                bold=True,
                anchor="middle",
                cls="t-fault",
            )
        svg.text(x + wide / 2 - 2, top + tall + 22, f"{m.second:g}", 12, anchor="middle")
        for n, node in enumerate(nodes):
            if node in m.leads_to:
                svg.rect(Box(x, top + tall + 36 + 22 * n, wide - 5, 15), "f-bridge s-bridgeline", radius=3)
        if m.did:
            anchor = "start" if x < 700 else "end"
            svg.text(
                x if anchor == "start" else x + wide, top - 12, f"▾ {m.did}", 12, bold=True, anchor=anchor
            )
    return svg.document(top + tall + 52 + 22 * len(nodes), found.title, str(found))
