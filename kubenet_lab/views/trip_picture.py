"""A trip as one still picture and one page of HTML that need no kernel, no script and no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.packet.packet import Packet, endpoint, tunnel_name
from kubenet_lab.trace import REASONS
from kubenet_lab.views import words
from kubenet_lab.views.cluster_map import short_name
from kubenet_lab.views.theme import Box, Svg, image, role_of, text_width, wrap
from kubenet_lab.views.trip_steps import CHANGED, Leg, StepRow, Story, story

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip

WIDTH = 1000.0
_PAD = 12.0
_PER_LINE = 5


class Station(Struct):
    """A packet's stay on one host or in one pod: what happened there, and how the packet left (or was taken)."""

    netns: str
    rows: list[StepRow]
    leaves: Packet | None = None
    inner: Packet | None = None
    """The packet inside, where it left as the contents of a tunnel packet."""
    ended: bool = False


def stations(leg: Leg, rows: Sequence[StepRow]) -> list[Station]:
    """Group one packet's hops into stays: neighbouring hops in one namespace are one station."""
    out: list[Station] = []
    for number, hop in enumerate(leg.trace.hops):
        mine = [row for row in rows if row.hop == number]
        if not out or out[-1].netns != hop.netns:
            out.append(Station(hop.netns, []))
        here = out[-1]
        here.rows += mine
        last = next((s.entry for s in reversed(hop.steps) if s.kind == "transmit"), None)
        body = getattr(last, "body", None)
        if isinstance(body, Packet):
            here.leaves = body
            inner = body.inner.body if body.inner is not None else None
            here.inner = inner if isinstance(inner, Packet) else None
    if out and leg.trace.delivered and out[-1].leaves is None:
        out[-1].leaves = leg.trace.delivered_as
    if out and not leg.trace.delivered:
        at = next((s for s in reversed(out) if s.netns == leg.trace.place.netns), out[-1])
        at.ended = True
    return out


_EVENTS = {
    "send": "sends",
    "deliver": "takes it",
    "encapsulate": "wraps it: a letter in a letter",
    "decapsulate": "unwraps it",
}


def _event(row: StepRow, names: Mapping[str, str]) -> str:
    """Return a main step in few words for a station's card; "" for what the card shows otherwise."""
    if row.kind == "nat":
        changed = [
            f
            for header in row.headers
            for f in header.fields
            if f.mark == CHANGED and f.name in ("from", "to")
        ]
        field = changed[0] if changed else None
        if field is None:
            return row.title.lower()
        old, new = names.get(field.was, field.was), names.get(field.value, field.value)
        return f"{row.title.lower()}: {_brief(old)} becomes {_brief(new)}"
    if row.kind == "route":
        dev = row.entry.partition(" dev ")[2].partition(" ")[0]
        return f"route: out through {dev}" if dev else row.title.lower()
    if row.kind == "fdb":
        return f"bridge {row.spot} passes it on" if row.title == "Bridge passes it on" else ""
    if row.kind == "end":
        return REASONS.get(row.spot, row.spot)
    if row.kind == "rule":
        told = ("Service recognised", "Backend drawn", "Backend remembered")
        return "" if row.title in told else row.title.lower()
    return _EVENTS.get(row.kind, "")


def _entry(row: StepRow, told: Story) -> str:
    """Return the rule, route or entry behind an event, short enough for a card: without comments."""
    if row.kind == "end":
        return told.decided_by
    if row.kind == "nat" and not row.entry:
        return "as its conntrack entry says"
    if row.kind not in ("nat", "rule", "route", "fdb", "encapsulate") or "/" in row.netns:
        return ""
    rule, newline, element = row.entry.partition("\n")
    if newline:  # nftables: the element that was found stands for the rest of its map
        return f"{re.sub(r'{ [^{}]* }', '{ … }', rule)}\n{element}"
    entry = re.sub(r' -m comment --comment ("[^"]*"|\S+)', "", row.entry)
    return re.sub(r" -m (tcp|udp|sctp)(?= )", "", entry).removesuffix(" self permanent")


def _brief(label: str) -> str:
    return words.short(label) if " " in label else label


def _packet_lines(station: Station, came: Packet | None) -> list[tuple[str, str, str, str]]:
    """Return (word, address, address before or "", colour of the word) of the packet as it left a station."""
    packet = station.inner or station.leaves
    if packet is None:
        return []
    lines = []
    for word, new, old in (
        ("from", _source(packet), _source(came)),
        ("to", _destination(packet), _destination(came)),
    ):
        lines.append((word, new, old if old != new else "", "t-soft"))
    if station.inner is not None and station.leaves is not None:
        tone = "t-tunnelline"
        lines += [("in a packet from", station.leaves.src, "", tone), ("to", station.leaves.dst, "", tone)]
    return lines


def _source(packet: Packet | None) -> str:
    if packet is None:
        return ""
    return endpoint(packet.src, packet.sport) if packet.sport else packet.src


def _destination(packet: Packet | None) -> str:
    if packet is None:
        return ""
    return endpoint(packet.dst, packet.dport) if packet.dport else packet.dst


class _Card(Struct):
    """A station's content, measured and then wrapped to a width."""

    station: Station
    title: str
    small: str
    """The rest of a pod's name and its namespace, shown smaller."""
    role: str
    items: list[tuple[str, str]]
    """(text, class); an item of class "code" is the entry behind the event before it."""
    packet: list[tuple[str, str, str, str]]
    lines: list[tuple[str, float, float, str]] = []
    """(text, x from the card's edge, height, class) once wrapped; "code" and "" as in `items`."""
    height: float = 0.0

    @property
    def natural(self) -> float:
        """The width at which an event takes two lines at most and a rule is broken before its target only."""
        wide = [
            text_width(self.title, 13, bold=True) + (20 if self.role else 0),
            text_width(self.small, _TINY),
        ]
        for text, cls in self.items:
            if cls == "code":
                parts = _code_parts(text)
                limit = 250 if len(parts) > 1 else 190
                wide += [min(text_width(part, _TINY, mono=True), limit) + 14 for part in parts]
            else:
                wide.append(min(text_width(text, 12) + 12, max(200, text_width(text, 12) / 2 + 30)))
        for word, address, old, _ in self.packet:
            start = max(34.0, text_width(word, 10) + 8)
            wide += [start + text_width(text, 11, mono=True) for text in (address, old)]
        return max(wide) + 22


_TINY = 10.0


def _code_parts(code: str) -> list[str]:
    """Break a rule before its target, and an element of a map from its rule."""
    head, jump, tail = code.partition(" -j ")
    return [head, "-j " + tail] if jump else code.split("\n")


def _card(station: Station, came: Packet | None, names: Mapping[str, str], told: Story) -> _Card:
    title, small, role = words.place_name(station.netns), "", ""
    if "/" in station.netns:
        workload, suffix, space = short_name(station.netns)
        title, small = f"pod {workload}", "  ".join(part for part in (suffix, space) if part)
        role = role_of(workload)
    items: list[tuple[str, str]] = []
    for row in station.rows:
        text = _event(row, names) if row.main or row.kind == "end" else ""
        if not text or (text, "") in items[-2:]:
            continue
        items.append((text, {"end": "t-fault", "deliver": "t-good"}.get(row.kind, "")))
        if code := _entry(row, told):
            items.append((code, "code"))
    return _Card(station, title, small, role, items, _packet_lines(station, came))


def _lay(card: _Card, width: float) -> None:
    """Wrap a card's content to a width and measure it."""
    room = width - 20
    lines: list[tuple[str, float, float, str]] = []
    title = wrap(card.title, room - (20 if card.role else 0), 13, bold=True, breaks=" -.")
    lines += [(line, 10, 16, "b") for line in title]
    if card.small:
        lines += [(line, 10, 13, "small") for line in wrap(card.small, room, _TINY, breaks=" -.")]
    lines.append(("", 10, 5, ""))
    for text, cls in card.items:
        if cls == "code":
            for part in _code_parts(text):
                lines += [(line, 20, 13, cls) for line in wrap(part, room - 14, _TINY, mono=True)]
        else:
            lines.append(("•", 10, 0, cls))
            lines += [(line, 18, 15.5, cls) for line in wrap(text, room - 10, 12)]
    card.lines = lines
    card.height = 8 + sum(height for _, _, height, _ in lines) + 8
    if card.packet:
        card.height += 6 + 14.5 * len(_packet_rows(card, width))


def _packet_rows(card: _Card, width: float) -> list[list[tuple[str, float, bool, str]]]:
    """Return lines of (text, x, changed, class): the packet as it left; "x" counts from the card's edge."""
    out: list[list[tuple[str, float, bool, str]]] = []
    for word, text, old, tone in card.packet:
        start = 10 + max(34.0, text_width(word, 10) + 8)
        if start + text_width(text, 11, mono=True) > width - 8:
            out.append([(word, 10, False, tone)])
            start = 22
            for line in wrap(text, width - 30, 11, mono=True, breaks=".:"):
                out.append([(line, start, bool(old), "m")])
        else:
            out.append([(word, 10, False, tone), (text, start, bool(old), "m")])
        if old:
            was = 10 + text_width("was", 11) + 6
            out.append([("was", 10, False, "t-soft"), (old, max(start, was), False, "m t-soft")])
    return out


def _banner(svg: Svg, told: Story, y: float) -> float:
    mark, tone, ground = ("✓", "t-good", "bridge") if told.delivered else ("✕", "t-fault", "faultbg")
    lines = wrap(told.headline, WIDTH - 2 * _PAD - 50, 15, bold=True)
    reason = told.why + (f" ({told.place})" if not told.delivered and told.place else "")
    below = wrap(reason, WIDTH - 2 * _PAD - 50, 12.5)
    decided = (
        wrap(told.decided_by, WIDTH - 2 * _PAD - 50, 11, mono=True)
        if told.decided_by and not told.delivered
        else []
    )
    wanted = wrap(f"It would have needed {told.needed}.", WIDTH - 2 * _PAD - 50, 12.5) if told.needed else []
    height = 14 + 20 * len(lines) + 17 * (len(below) + len(wanted)) + 15 * len(decided) + 4
    svg.rect(
        Box(_PAD, y, WIDTH - 2 * _PAD, height),
        f"f-{ground} {'s-bridgeline' if told.delivered else 's-fault'}",
    )
    svg.text(_PAD + 14, y + 25, mark, 18, bold=True, cls=tone)
    at = y + 24
    for line in lines:
        svg.text(_PAD + 40, at, line, 15, bold=True)
        at += 20
    for line in below:
        svg.text(_PAD + 40, at - 2, line, 12.5, cls="t-soft" if told.delivered else "")
        at += 17
    for line in decided:
        svg.text(_PAD + 40, at - 2, line, 11, mono=True)
        at += 15
    for line in wanted:
        svg.text(_PAD + 40, at, line, 12.5, bold=False)
        at += 17
    y += height + 10
    for lookup in told.lookups:
        for index, line in enumerate(wrap(f"Name lookup: {lookup}", WIDTH - 2 * _PAD - 10, 12)):
            svg.text(_PAD + 4 + 12 * (index > 0), y + 12, line, 12, cls="t-soft")
            y += 17
    return y + (8 if told.lookups else 0)


_ARROW = (38.0, 90.0)
"""The least and the most room for the arrow between two cards."""
_WIDE = 440.0
"""Width of a host's card where there is room to spare: a rule of kube-proxy's fits on two lines."""


def _deal(cards: Sequence[_Card], naturals: Sequence[float]) -> tuple[list[float], float]:
    """Return the widths of one line's cards and the room between them: pods as wide as their words, hosts the rest."""
    room, gaps = WIDTH - 2 * _PAD, len(cards) - 1
    least = _ARROW[0] * gaps
    widths = list(naturals)
    hosts = [index for index, card in enumerate(cards) if "/" not in card.station.netns]
    over = sum(widths) + least - room
    for index in hosts or range(len(cards)):
        if over > 0:
            share = over * widths[index] / sum(widths[i] for i in (hosts or range(len(cards))))
            widths[index] = max(150.0, widths[index] - share)
    if sum(widths) + least > room:
        widths = [(room - least) * width / sum(widths) for width in widths]
    spare = room - sum(widths) - _ARROW[1] * gaps
    for index in hosts:
        widths[index] = max(widths[index], min(_WIDE, widths[index] + spare / len(hosts)))
    gap = min(_ARROW[1], (room - sum(widths)) / gaps) if gaps else 0.0
    return widths, gap


def _strips(svg: Svg, told: Story, shown: Sequence[int], y: float, names: Mapping[str, str]) -> float:
    """Draw packets as cards from left to right; an answer runs from right to left, under the cards it answers."""
    strips: list[tuple[Leg, list[_Card]]] = []
    for number in shown:
        leg = told.legs[number]
        came: Packet | None = None
        cards = []
        for stay in stations(leg, [row for row in told.rows if row.leg == number]):
            cards.append(_card(stay, came, names, told))
            came = stay.inner or stay.leaves or came
        if cards:
            strips.append((leg, cards))
    widest: dict[str, float] = {}
    for _, cards in strips:
        for card in cards:
            widest[card.station.netns] = max(widest.get(card.station.netns, 0.0), card.natural, 118.0)
    for leg, cards in strips:
        y = _strip(svg, leg, cards, [widest[card.station.netns] for card in cards], y)
    return y


def _strip(svg: Svg, leg: Leg, cards: Sequence[_Card], naturals: Sequence[float], y: float) -> float:
    style = leg.role if leg.role in ("request", "reply", "error") else "request"
    title = f"{leg.title}: {words.segment(leg.trace.packet)}"
    svg.text(_PAD + 4, y + 14, title, 13, bold=True, cls=f"t-{style}")
    y += 24
    backwards = style != "request"
    for start in range(0, len(cards), _PER_LINE):
        row, sizes = cards[start : start + _PER_LINE], naturals[start : start + _PER_LINE]
        if backwards:
            row, sizes = row[::-1], sizes[::-1]
        widths, gap = _deal(row, sizes)
        for card, width in zip(row, widths, strict=True):
            _lay(card, width)
        x = _PAD
        more = start + _PER_LINE < len(cards)
        for index, (card, width) in enumerate(zip(row, widths, strict=True)):
            _draw_card(svg, card, x, y, width)
            if index < len(row) - 1:
                leaves = row[index + 1] if backwards else card
                a, b = x + width + 4, x + width + gap - 4
                _draw_arrow(svg, (b, a) if backwards else (a, b), y + 18, style, _wrapping(leaves.station))
            x += width + gap
        height = max(card.height for card in row)
        if more:
            svg.text(_PAD + 4, y + height + 16, "… and on to:", 12, cls="t-soft")
        y += height + (30 if more else 16)
    return y


def _wrapping(station: Station) -> str:
    return tunnel_name(station.leaves) if station.inner is not None and station.leaves is not None else ""


def _draw_arrow(svg: Svg, ends: tuple[float, float], y: float, style: str, wrapping: str) -> None:
    a, b = ends
    if wrapping:
        svg.line([(a, y), (b, y)], "s-tunnelline", 11, ' opacity="0.45"')
        svg.text((a + b) / 2, y + 18, wrapping, 10, bold=True, cls="t-tunnelline", anchor="middle")
    dashes = {"reply": ' stroke-dasharray="7 4"', "error": ' stroke-dasharray="3 4"'}.get(style, "")
    svg.line([(a, y), (b, y)], f"s-{style}", 3, dashes)
    svg.arrow((b, y), (1 if b > a else -1, 0), f"t-{style}", 10)


def _draw_card(svg: Svg, card: _Card, x: float, y: float, width: float) -> None:
    pod = "/" in card.station.netns
    ground = card.role or "pod"
    svg.rect(Box(x, y, width, card.height), f"f-pod f-{ground} s-{ground}line" if pod else "f-card s-line")
    svg.icon(x + width - 22, y + 9, card.role)
    if card.station.ended:
        svg.rect(Box(x - 1, y - 1, width + 2, card.height + 2), "flt")
    at = y + 8
    code_from = 0.0
    for index, (text, across, height, cls) in enumerate(card.lines):
        if cls == "code":
            code_from = code_from or at
            svg.text(x + across, at + 10, text, _TINY, mono=True)
            if index + 1 == len(card.lines) or card.lines[index + 1][3] != "code":
                svg.line([(x + 15, code_from + 2), (x + 15, at + 12)], "s-serviceline", 2)
                code_from = 0.0
        elif cls == "b":
            svg.text(x + across, at + 13, text, 13, bold=True)
        elif cls == "small":
            svg.text(x + across, at + 10, text, _TINY, cls="t-soft")
        elif text:
            svg.text(x + across, at + 12, text, 12, cls=cls)
        at += height
    if card.packet:
        svg.line([(x + 8, at + 5), (x + width - 8, at + 5)], "s-line", 1)
        at += 19
        for pieces in _packet_rows(card, width):
            for text, across, changed, tone in pieces:
                mono = tone.startswith("m")
                if changed:
                    marked = Box(x + across - 3, at - 11, text_width(text, 11, mono=True) + 6, 15)
                    svg.rect(marked, "f-changed", radius=3)
                size = 11 if mono else 10
                cls = tone.removeprefix("m").strip()
                svg.text(x + across, at, text, size, bold=changed, mono=mono, cls=cls)
            at += 14.5


def trip_svg(trip: Trip, names: Mapping[str, str] | None = None, told: Story | None = None) -> str:
    """Return a trip as one SVG: the verdict, the lookups, and each packet's way as a strip of cards."""
    names = trip.names if names is None else names
    told = told or story(trip, names)
    svg = Svg(WIDTH)
    y = _banner(svg, told, 10.0)
    shown = [number for number, leg in enumerate(told.legs) if not leg.lookup and leg.role != "data"]
    if not shown:
        shown = sorted({row.leg for row in told.main_rows})
    y = _strips(svg, told, shown, y, names)
    return svg.document(y, told.headline, told.why)


_TABLE = "border-collapse:collapse;text-align:left;margin:4px 0"
_CELL = "text-align:left;vertical-align:top;padding:3px 8px;white-space:normal"


def _details(row: StepRow) -> str:
    parts = []
    if row.entry:
        told_by = (
            f" <small>(<code>{escape(row.command)}</code> in {escape(row.place)})</small>"
            if row.command
            else ""
        )
        parts.append(f"decided by <code>{escape(row.entry)}</code>{told_by}")
    if row.conntrack:
        parts.append(f"connection <code>{escape(row.conntrack)}</code>")
    for header in row.headers:
        fields = []
        for field in header.fields:
            text = f"{escape(field.name)} {escape(field.value)}"
            fields.append(
                f"<b>{text}</b> (changed, was {escape(field.was)})" if field.mark == CHANGED else text
            )
        inside = "inside: " * header.depth
        mark = f" ({header.mark})" if header.mark else ""
        parts.append(f"{inside}<b>{header.name}</b>{mark}: {', '.join(fields)}")
    return "<br/>".join(parts)


def _table(rows: Sequence[StepRow], told: Story) -> str:
    lines = []
    leg = -1
    for row in rows:
        if row.leg != leg:
            leg = row.leg
            title = told.legs[leg].title + (f" ({told.legs[leg].lookup})" if told.legs[leg].lookup else "")
            lines.append(f'<tr><th colspan="3" style="{_CELL}">{escape(title)}</th></tr>')
        details = _details(row)
        folded = f"<details><summary>look inside</summary>{details}</details>" if details else ""
        lines.append(
            f'<tr><td style="{_CELL}">{escape(row.place)}</td><td style="{_CELL}"><b>{escape(row.title)}</b></td>'
            f'<td style="{_CELL}">{escape(row.sentence)}{folded}</td></tr>'
        )
    return f'<table style="{_TABLE}"><tbody>{"".join(lines)}</tbody></table>'


def trip_html(trip: Trip, names: Mapping[str, str] | None = None) -> str:
    """Return a trip as HTML that stands alone: a picture, the verdict in words, and its main steps as a table.

    It needs no script and no style sheet, so it survives GitHub, nbconvert and notebooks that are not trusted.
    """
    names = trip.names if names is None else names
    told = story(trip, names)
    sign = "✓" if told.delivered else "✕"
    decided = (
        f"<br/>Decided by <code>{escape(told.decided_by)}</code> in {escape(told.place)}."
        if told.decided_by
        else ""
    )
    if told.needed:
        decided += f"<br/>It would have needed {escape(told.needed)}."
    why = escape(told.why) if told.delivered else f"Why: {escape(told.why)}"
    main = told.main_rows
    return (
        f'<div class="kubenet-trip">{image(trip_svg(trip, names, told), told.headline + ". " + told.why)}'
        f"<p><b>{sign} {escape(told.headline)}</b>. {why}.{decided}</p>"
        f"<details><summary>The {len(main)} steps that matter, of {len(told.rows)} the kernels took</summary>"
        f"{_table(main, told)}</details>"
        "</div>"
    )
