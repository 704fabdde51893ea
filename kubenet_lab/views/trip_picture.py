"""A trip as one still picture and one page of HTML that need no kernel, no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.packet.packet import Packet, endpoint
from kubenet_lab.views import words
from kubenet_lab.views.theme import Box, Svg, image, text_width, wrap
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
    "encapsulate": "wraps it: a letter in a letter (VXLAN)",
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
        word = "destination" if field.name == "to" else "source"
        old, new = names.get(field.was, field.was), names.get(field.value, field.value)
        return f"{word} rewritten: {_brief(old)} becomes {_brief(new)}"
    if row.kind == "route":
        dev = row.entry.partition(" dev ")[2].partition(" ")[0]
        return f"route: out through {dev}" if dev else row.title.lower()
    if row.kind == "fdb":
        return f"bridge {row.spot} passes it on" if row.title == "Bridge passes it on" else ""
    if row.kind == "end":
        return row.sentence.partition(": ")[2] or row.sentence
    if row.kind == "rule":
        return "" if row.title in ("Service recognised", "Backend drawn") else row.title.lower()
    return _EVENTS.get(row.kind, "")


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
    station: Station
    title: list[str]
    events: list[tuple[str, str]]
    packet: list[list[tuple[str, float, bool, str]]]
    """Lines of (text, x, changed, class); addresses are monospaced, "x" counts from the card's edge."""
    height: float = 0.0


def _card(station: Station, came: Packet | None, width: float, names: Mapping[str, str]) -> _Card:
    room = width - 20
    title = wrap(words.place_name(station.netns), room, 13, bold=True, breaks=" -.")
    events: list[tuple[str, str]] = []
    for row in station.rows:
        text = _event(row, names) if row.main or row.kind == "end" else ""
        if not text or (events and events[-1][0] == text):
            continue
        tone = "t-fault" if row.kind == "end" else "t-good" if row.kind == "deliver" else ""
        lines = wrap(text, room - 12, 12)
        events += [(f"• {line}" if index == 0 else f"   {line}", tone) for index, line in enumerate(lines)]
    packet: list[list[tuple[str, float, bool, str]]] = []
    for word, text, old, tone in _packet_lines(station, came):
        start = 10 + max(34.0, text_width(word, 11) + 6)
        if start + text_width(text, 11, mono=True) > width - 8:
            packet.append([(word, 10, False, tone)])
            start = 22
            for line in wrap(text, width - 30, 11, mono=True, breaks=".:"):
                packet.append([(line, start, bool(old), "m")])
        else:
            packet.append([(word, 10, False, tone), (text, start, bool(old), "m")])
        if old:
            was = 10 + text_width("was", 11) + 6
            packet.append([("was", 10, False, "t-soft"), (old, max(start, was), False, "m t-soft")])
    height = 12 + 16 * len(title) + 6 + 15.5 * len(events) + (10 + 14.5 * len(packet) if packet else 0) + 6
    return _Card(station, title, events, packet, height)


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
    height = 14 + 20 * len(lines) + 17 * len(below) + 15 * len(decided) + 4
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
    y += height + 10
    for lookup in told.lookups:
        for index, line in enumerate(wrap(f"Name lookup: {lookup}", WIDTH - 2 * _PAD - 10, 12)):
            svg.text(_PAD + 4 + 12 * (index > 0), y + 12, line, 12, cls="t-soft")
            y += 17
    return y + (8 if told.lookups else 0)


def _strip(svg: Svg, leg: Leg, rows: Sequence[StepRow], y: float, names: Mapping[str, str]) -> float:
    """Draw one packet's way as cards from left to right; an answer runs from right to left, back to the caller."""
    stays = stations(leg, rows)
    if not stays:
        return y
    style = leg.role if leg.role in ("request", "reply", "error") else "request"
    svg.text(
        _PAD + 4, y + 14, f"{leg.title}: {words.segment(leg.trace.packet)}", 13, bold=True, cls=f"t-{style}"
    )
    y += 24
    came: Packet | None = None
    gap = 44.0
    width = (WIDTH - 2 * _PAD - gap * (min(len(stays), _PER_LINE) - 1)) / min(len(stays), _PER_LINE)
    width = min(width, 300.0)
    cards = []
    for stay in stays:
        cards.append(_card(stay, came, width, names))
        came = stay.inner or stay.leaves or came
    backwards = style != "request"
    for start in range(0, len(cards), _PER_LINE):
        row = cards[start : start + _PER_LINE]
        height = max(card.height for card in row)
        top_lines = max(len(card.title) for card in row)
        split = max(len(card.events) for card in row)
        height = (
            12
            + 16 * top_lines
            + 6
            + 15.5 * split
            + max((10 + 14.5 * len(card.packet) for card in row if card.packet), default=0)
            + 6
        )
        line_x = y + 12 + 16 * top_lines / 2 + 2
        total = len(row) * width + (len(row) - 1) * gap
        for index, card in enumerate(row):
            x = _PAD + index * (width + gap)
            if backwards:
                x = _PAD + total - width - index * (width + gap)
            last_here = index == len(row) - 1
            more = start + index < len(cards) - 1
            if more:
                a, b = (x + width + 4, x + width + gap - 4) if not backwards else (x - 4, x - gap + 4)
                if last_here:
                    svg.text(_PAD + 4, y + height + 16, "… and on to:", 12, cls="t-soft")
                else:
                    if card.station.inner is not None:
                        svg.line([(a, line_x), (b, line_x)], "s-tunnelline", 11, ' opacity="0.45"')
                        svg.text(
                            (a + b) / 2,
                            line_x + 20,
                            "VXLAN",
                            10.5,
                            bold=True,
                            cls="t-tunnelline",
                            anchor="middle",
                        )
                    dashes = {"reply": ' stroke-dasharray="7 4"', "error": ' stroke-dasharray="3 4"'}.get(
                        style, ""
                    )
                    svg.line([(a, line_x), (b, line_x)], f"s-{style}", 3, dashes)
                    svg.arrow((b, line_x), (1 if b > a else -1, 0), f"t-{style}", 10)
            pod = "/" in card.station.netns
            svg.rect(Box(x, y, width, height), "f-pod s-podline" if pod else "f-card s-line")
            if card.station.ended:
                svg.rect(Box(x - 1, y - 1, width + 2, height + 2), "flt")
            at = y + 22.0
            for line in card.title:
                svg.text(x + 10, at, line, 13, bold=True)
                at += 16
            at = y + 12 + 16 * top_lines + 6 + 11
            for line, tone in card.events:
                svg.text(x + 10, at, line, 12, cls=tone)
                at += 15.5
            if card.packet:
                rule_y = y + 12 + 16 * top_lines + 6 + 15.5 * split + 3
                svg.line([(x + 8, rule_y), (x + width - 8, rule_y)], "s-line", 1)
                at = rule_y + 16
                for pieces in card.packet:
                    for text, across, changed, tone in pieces:
                        mono = tone.startswith("m")
                        if changed:
                            svg.rect(
                                Box(x + across - 3, at - 11.5, text_width(text, 11, mono=True) + 6, 15),
                                "f-changed",
                                radius=3,
                            )
                        svg.text(
                            x + across,
                            at,
                            text,
                            11,
                            bold=changed,
                            mono=mono,
                            cls=tone.removeprefix("m").strip(),
                        )
                    at += 14.5
        y += height + (30 if start + _PER_LINE < len(cards) else 16)
    return y


def trip_svg(trip: Trip, names: Mapping[str, str] | None = None, told: Story | None = None) -> str:
    """Return a trip as one SVG: the verdict, the lookups, and each packet's way as a strip of cards."""
    names = trip.names if names is None else names
    told = told or story(trip, names)
    svg = Svg(WIDTH)
    y = _banner(svg, told, 10.0)
    shown = [number for number, leg in enumerate(told.legs) if not leg.lookup and leg.role != "data"]
    if not shown:
        shown = sorted({row.leg for row in told.main_rows})
    for number in shown:
        y = _strip(svg, told.legs[number], [row for row in told.rows if row.leg == number], y, names)
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
        f"<br/>Decided by <code>{escape(told.decided_by)}</code> in {escape(told.place)}"
        if told.decided_by
        else ""
    )
    why = escape(told.why) if told.delivered else f"Why: {escape(told.why)}"
    main = told.main_rows
    return (
        f'<div class="kubenet-trip">{image(trip_svg(trip, names, told), told.headline + ". " + told.why)}'
        f"<p><b>{sign} {escape(told.headline)}</b>. {why}.{decided}</p>"
        f"<details><summary>The {len(main)} steps that matter, of {len(told.rows)} the kernels took</summary>"
        f"{_table(main, told)}</details>"
        "</div>"
    )
