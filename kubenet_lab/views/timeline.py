"""A Service second by second: its pods, what the slices and a node's rules say of them, and what callers feel.

Seconds run from left to right. Where the three do not agree, and where a call fails, a word or a sign says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.views.theme import Box, Picture, Svg, role_of, text_width

if TYPE_CHECKING:
    from kubenet_lab.control.replay import Moment, PodMoment

WIDTH = 1000.0
GOOD = ("connected", "answered")
"""Verdicts of a call that got its answer."""

PENDING, STARTING, READY, UNREADY, ENDING = "pending", "starting", "ready", "not ready", "terminating"


class Call(Struct, frozen=True):
    """One call a client really made: what it saw, and which pod answered ("" when none did)."""

    verdict: str
    pod: str = ""

    @property
    def good(self) -> bool:
        """True when it was answered."""
        return self.verdict in GOOD


class Second(Struct, frozen=True):
    """One second: how the Service stands, the calls made then, and what somebody did at its beginning.

    `dead` are addresses, of those the rules name, that did not answer when they were called directly.
    """

    moment: Moment
    calls: tuple[Call, ...] = ()
    did: str = ""
    dead: frozenset[str] = frozenset()

    @property
    def ready(self) -> frozenset[str]:
        """Addresses the slices call ready."""
        return frozenset(e.address for e in self.moment.endpoints if e.ready)

    @property
    def named(self) -> frozenset[str]:
        """Addresses the node's rules send new connections to."""
        return frozenset(address for address, _ in self.moment.targets)


class TimeLine(Struct, frozen=True):
    """A Service's seconds. `node` is the one whose rules are shown, `caller` who called.

    With `who` the picture shows in each pod's lane how many calls it answered.
    """

    service: str
    node: str
    caller: str
    seconds: tuple[Second, ...]
    who: bool = False

    @property
    def calls(self) -> list[Call]:
        """Every call, in order."""
        return [call for second in self.seconds for call in second.calls]

    @property
    def lost(self) -> int:
        """How many calls got no answer."""
        return sum(not call.good for call in self.calls)

    @property
    def bad_seconds(self) -> list[float]:
        """The seconds in which a call got no answer."""
        return [s.moment.second for s in self.seconds if not all(c.good for c in s.calls)]

    @property
    def summary(self) -> str:
        """What the callers saw, in a sentence."""
        total, lost = len(self.calls), self.lost
        if not total:
            return "Nobody called."
        if not lost:
            return f"{total} calls, all answered."
        kinds = Counter(call.verdict for call in self.calls if not call.good)
        seen = ", ".join(f"{n} {verdict}" for verdict, n in sorted(kinds.items()))
        return f"{total} calls, {total - lost} answered, {lost} not ({seen})."

    @property
    def told(self) -> list[str]:
        """What there is in each second, in a line."""
        seen: set[str] = set()
        rows = []
        for second in self.seconds:
            rows.append(tell(second, self.node, seen))
            seen |= {pod.name for pod in second.moment.pods if pod.ready}
        return rows

    def __repr__(self) -> str:
        rows = [self.summary]
        before = None
        for second, told in zip(self.seconds, self.told, strict=True):
            if second.did or told != before:
                did = f" [{second.did}]" if second.did else ""
                rows.append(f"  {second.moment.second:>3g} s{did} {told}")
            before = told
        return "\n".join(rows)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return timeline_picture(self)._repr_html_()


def tell(second: Second, node: str, seen: Set[str] = frozenset()) -> str:
    """Return what there is in one second, in a line; `seen` are pods that were ready before."""
    pods = ", ".join(f"{tail(p.name)} {state_of(p, p.name in seen)}" for p in second.moment.pods)
    failed = Counter(c.verdict for c in second.calls if not c.good)
    felt = "; failed: " + ", ".join(f"{n} {v}" for v, n in sorted(failed.items())) if failed else ""
    late = "" if second.ready == second.named else f"; {node}'s rules name {len(second.named)} addresses"
    return f"{pods or 'no pod'}; {len(second.ready)} ready in the slice{late}{felt}"


def state_of(pod: PodMoment, was_ready: bool = False) -> str:
    """Return a pod's state in a word; one that runs and is not ready is starting unless it `was_ready`."""
    if pod.state == "Terminating":
        return ENDING
    if pod.state == "Pending":
        return PENDING
    if pod.ready:
        return READY
    return UNREADY if was_ready or pod.restarts else STARTING


def tail(name: str) -> str:
    """Return the part of a pod's name that tells it from its sisters: "…5227x"."""
    return f"…{name.rpartition('-')[2]}" if "-" in name else name


class Bar(Struct, frozen=True):
    """A pod in one state from a column to another (exclusive)."""

    state: str
    begin: int
    end: int


class Lane(Struct, frozen=True):
    """A pod's bars, the columns in which the rules name its address, those where it is dead, and its restarts."""

    pod: PodMoment
    bars: tuple[Bar, ...]
    named: tuple[bool, ...]
    dead: tuple[bool, ...]
    restarts: tuple[int, ...]
    addresses: tuple[str, ...] = ()


def lanes(line: TimeLine) -> list[Lane]:
    """Return a lane for each pod that is ever there, in the order they appear."""
    order: dict[str, None] = {}
    for second in line.seconds:
        for pod in second.moment.pods:
            order.setdefault(pod.name)
    return [_lane(line, name) for name in order]


def _lane(line: TimeLine, name: str) -> Lane:
    bars: list[Bar] = []
    restarts: list[int] = []
    addresses: dict[str, None] = {}
    last: PodMoment | None = None
    was_ready = False
    for column, second in enumerate(line.seconds):
        pod = next((p for p in second.moment.pods if p.name == name), None)
        if pod is None:
            continue
        was_ready = was_ready or pod.ready
        state = state_of(pod, was_ready)
        if last is not None and pod.restarts > last.restarts:
            restarts.append(column)
        if pod.ip:
            addresses.setdefault(pod.ip)
        if bars and bars[-1].state == state and bars[-1].end == column:
            bars[-1] = Bar(state, bars[-1].begin, column + 1)
        else:
            bars.append(Bar(state, column, column + 1))
        last = pod
    assert last is not None
    named = tuple(bool(second.named & addresses.keys()) for second in line.seconds)
    dead = tuple(bool(second.named & second.dead & addresses.keys()) for second in line.seconds)
    return Lane(last, tuple(bars), named, dead, tuple(restarts), tuple(addresses))


# -- the picture -------------------------------------------------------------------------------------------------

LEFT, RIGHT = 226.0, 16.0
_LANE, _CALL = 40.0, 9.0


def columns(line: TimeLine) -> tuple[float, float]:
    """Return where the first second begins and how wide each is, in pixels of the picture."""
    return LEFT, (WIDTH - LEFT - RIGHT) / max(1, len(line.seconds))


def timeline_picture(line: TimeLine) -> Picture:
    """Draw it; see `timeline_svg`."""
    return Picture(timeline_svg(line), str(line))


def timeline_svg(line: TimeLine) -> str:
    """Draw a lane for each pod, then the slices' ready set, the node's rules, and the calls of each second."""
    svg = Svg(WIDTH)
    left, wide = columns(line)
    y = 10.0
    svg.text(14, y + 14, f"Service {line.service}, second by second", 14, bold=True)
    svg.text(14, y + 32, line.summary, 12.5, cls="t-fault" if line.lost else "t-good", bold=True)
    y = _done(svg, line, y + 42)
    top = y
    _axis(svg, line, y)
    y += 22
    for lane in lanes(line):
        _draw_lane(svg, line, lane, y)
        y += _LANE
    y = _sets(svg, line, y + 4)
    y = _calls(svg, line, y + 8)
    for column, (second, said) in enumerate(zip(line.seconds, line.told, strict=True)):
        if second.did:
            x = left + column * wide
            svg.line([(x, top - 2), (x, y)], "s-ink", 1.2, ' stroke-dasharray="3 3"')
        told = f"second {second.moment.second:g}: {said}"
        svg.hit(Box(left + column * wide, top, wide, y - top), told, second=str(column))
    y = _legend(svg, line, y + 10)
    return svg.document(y, f"Service {line.service} second by second", str(line))


def _done(svg: Svg, line: TimeLine, y: float) -> float:
    """Write what was done above the column it was done in; texts that would meet go on lines of their own."""
    left, wide = columns(line)
    ends: list[float] = []
    for column, second in enumerate(line.seconds):
        if not second.did:
            continue
        x = left + column * wide
        size = text_width(second.did, 12, bold=True)
        begin = min(x, WIDTH - RIGHT - size)
        row = next((n for n, end in enumerate(ends) if end < begin), len(ends))
        ends[row : row + 1] = [begin + size + 10]
        svg.text(begin, y + 14 + 17 * row, f"{second.did}", 12, bold=True)
    return y + 17 * len(ends) + (8 if ends else 0)


def _axis(svg: Svg, line: TimeLine, y: float) -> None:
    left, wide = columns(line)
    svg.text(14, y + 14, "seconds", 11.5, cls="t-soft")
    step = 5 if wide * 5 >= 34 else 10
    for column, second in enumerate(line.seconds):
        if column % step == 0:
            svg.line([(left + column * wide, y + 17), (left + column * wide, y + 22)], "s-line", 1)
            svg.text(left + column * wide + 2, y + 14, f"{second.moment.second:g}", 11, cls="t-soft")
    svg.line([(left, y + 22), (WIDTH - RIGHT, y + 22)], "s-line", 1)


def _draw_lane(svg: Svg, line: TimeLine, lane: Lane, y: float) -> None:
    left, wide = columns(line)
    role = role_of(line.service)
    image = lane.pod.image.rpartition("/")[2]
    svg.text(14, y + 16, tail(lane.pod.name), 12.5, bold=True)
    svg.text(78, y + 16, image, 11.5)
    svg.text(14, y + 31, f"{lane.pod.ip or 'no address'} on {lane.pod.node or 'no node'}", 10.5, mono=True)
    for bar in lane.bars:
        box = Box(left + bar.begin * wide + 0.5, y + 5, (bar.end - bar.begin) * wide - 1, 20)
        _draw_bar(svg, box, bar.state, role, named=not (line.who and bar.state == READY))
    for column in lane.restarts:
        svg.text(left + column * wide + 2, y + 19, "↻", 13, bold=True)
    for begin, end in _runs(lane.named):
        box = Box(left + begin * wide + 0.5, y + 28, (end - begin) * wide - 1, 5)
        svg.rect(box, "t-serviceline", radius=2)
    for begin, end in _runs(lane.dead):
        _dead(svg, left + begin * wide, left + end * wide, y + 30.5)
    for column, second in enumerate(line.seconds if line.who else ()):
        answered = sum(call.good and call.pod == lane.pod.name for call in second.calls)
        if answered:
            x = left + (column + 0.5) * wide
            svg.rect(Box(x - 8, y + 7, 16, 16), "f-bg s-line", radius=8)
            svg.text(x, y + 19, str(answered), 11, anchor="middle", bold=True, cls="t-good")


def _dead(svg: Svg, begin: float, end: float, y: float) -> None:
    svg.rect(Box(begin + 0.5, y - 4, end - begin - 1, 8), "f-bg s-fault", radius=1)
    svg.line(
        [(begin + 2, y), (end - 1, y)], "s-fault", 6, ' stroke-dasharray="4 2.5" style="stroke-linecap:butt"'
    )


def _draw_bar(svg: Svg, box: Box, state: str, role: str, named: bool = True) -> None:
    style, dash, words = {
        READY: (f"f-{role or 'pod'} s-{role or 'pod'}line", ' stroke-width="1.6"', ""),
        STARTING: ("f-bg s-line", ' stroke-width="1.2" stroke-dasharray="2 2"', "t-soft"),
        PENDING: ("f-bg s-line", ' stroke-width="1" stroke-dasharray="1 3"', "t-soft"),
        UNREADY: ("f-faultbg s-fault", ' stroke-width="1.4" stroke-dasharray="4 2"', "t-fault"),
        ENDING: ("f-band s-line", ' stroke-width="1.2" stroke-dasharray="5 3"', "t-soft"),
    }[state]
    svg.rect(box, style, radius=4, extra=dash)
    for word in (state, _SHORT[state]) if named else ():
        if text_width(word, 11.5) <= box.w - 6:
            svg.text(box.cx, box.y + 14.5, word, 11.5, anchor="middle", cls=words)
            return


_SHORT = {READY: "✓", STARTING: "…", PENDING: "…", UNREADY: "✕", ENDING: "▿"}


def _runs(flags: tuple[bool, ...]) -> Iterator[tuple[int, int]]:
    begin = None
    for column, flag in enumerate((*flags, False)):
        if flag and begin is None:
            begin = column
        elif not flag and begin is not None:
            yield begin, column
            begin = None


def _sets(svg: Svg, line: TimeLine, y: float) -> float:
    """Draw how many addresses the slices call ready and the rules name; where they differ, the rules are late."""
    left, wide = columns(line)
    svg.line([(14, y), (WIDTH - RIGHT, y)], "s-line", 1)
    svg.text(14, y + 20, "ready in the EndpointSlice", 12)
    svg.text(14, y + 46, f"named by {line.node}'s rules", 12)
    for row, sets in enumerate(([s.ready for s in line.seconds], [s.named for s in line.seconds])):
        begin = 0
        for column in range(1, len(sets) + 1):
            same = column < len(sets) and sets[column] == sets[begin]
            if same and (row == 0 or _late(line, column) == _late(line, begin)):
                continue
            late = row == 1 and _late(line, begin)
            box = Box(left + begin * wide + 0.5, y + 6 + 26 * row, (column - begin) * wide - 1, 20)
            style = "f-faultbg s-fault" if late else "f-service s-serviceline" if row else "f-card s-line"
            svg.rect(box, style, radius=4, extra=' stroke-width="1.8"' if late else "")
            count = str(len(sets[begin]))
            words = [f"{count}, late", f"{count}!"] if late else []
            fitting = next((w for w in words if text_width(w, 11.5) <= box.w - 4), count)
            svg.text(box.cx, box.y + 14.5, fitting, 11.5, anchor="middle", bold=late)
            begin = column
    return y + 56


def _late(line: TimeLine, column: int) -> bool:
    return line.seconds[column].ready != line.seconds[column].named


def _calls(svg: Svg, line: TimeLine, y: float) -> float:
    left, wide = columns(line)
    most = max((len(s.calls) for s in line.seconds), default=0)
    svg.line([(14, y), (WIDTH - RIGHT, y)], "s-line", 1)
    svg.text(14, y + 20, f"calls by {line.caller}", 12)
    svg.text(14, y + 36, f"{most} new connections a second", 10.5, cls="t-soft")
    svg.text(14, y + 50, "● answered   ✕ not", 10.5, cls="t-soft")
    for column, second in enumerate(line.seconds):
        x = left + (column + 0.5) * wide
        bad = [call for call in second.calls if not call.good]
        if bad:
            box = Box(left + column * wide + 0.5, y + 4, wide - 1, most * _CALL + 18)
            svg.rect(box, "f-faultbg s-fault", radius=3)
        # The failed ones stand at the bottom, so that they make a bar of their own.
        ordered = [*(c for c in second.calls if c.good), *bad]
        for row, call in enumerate(ordered):
            cy = y + 10 + row * _CALL
            if call.good:
                svg.rect(Box(x - 3, cy - 3, 6, 6), "t-good", radius=3)
            else:
                svg.line([(x - 3, cy - 3), (x + 3, cy + 3)], "s-fault", 1.8)
                svg.line([(x - 3, cy + 3), (x + 3, cy - 3)], "s-fault", 1.8)
        if bad:
            svg.text(x, y + 16 + most * _CALL, str(len(bad)), 11, anchor="middle", bold=True, cls="t-fault")
    return y + max(most * _CALL + 24, 58)


def _legend(svg: Svg, line: TimeLine, y: float) -> float:
    words = f"{line.node}'s rules send new connections to this pod"
    x = 14.0
    svg.rect(Box(x, y + 4, 26, 5), "t-serviceline", radius=2)
    svg.text(x + 32, y + 11, words, 11)
    x += 32 + text_width(words, 11) + 22
    if line.who:
        words = "how many calls it answered"
        svg.rect(Box(x, y - 1, 16, 16), "f-bg s-line", radius=8)
        svg.text(x + 8, y + 11, "n", 11, anchor="middle", bold=True, cls="t-good")
        svg.text(x + 22, y + 11, words, 11)
        x += 22 + text_width(words, 11) + 22
    if any(second.named & second.dead for second in line.seconds):
        words = "and nobody answers there"
        _dead(svg, x, x + 26, y + 6.5)
        svg.text(x + 32, y + 11, words, 11)
        x += 32 + text_width(words, 11) + 22
    if any(lane.restarts for lane in lanes(line)):
        svg.text(x, y + 11, "↻ its program was started again", 11)
        x += text_width("↻ its program was started again", 11) + 22
    if any(_late(line, column) for column in range(len(line.seconds))):
        late = "late: not what the slice says"
        svg.text(x, y + 11, late, 11, cls="t-fault")
    return y + 24


# -- who gets how many ---------------------------------------------------------------------------------------------


class Shares(Struct, frozen=True):
    """Requests counted by the pod that got them: title -> pod -> how many."""

    parts: Mapping[str, Mapping[str, int]]

    def __repr__(self) -> str:
        return "\n".join(
            f"{title}: " + ", ".join(f"{tail(pod)} {n}" for pod, n in counts.items())
            for title, counts in self.parts.items()
        )

    def _repr_html_(self) -> str:
        return Picture(shares_svg(self), repr(self))._repr_html_()


def shares_svg(found: Shares) -> str:
    """Draw a row of bars for each title, all to one scale."""
    svg = Svg(WIDTH)
    most = max((n for counts in found.parts.values() for n in counts.values()), default=1) or 1
    y = 10.0
    for title, counts in found.parts.items():
        svg.text(14, y + 14, title, 13, bold=True)
        y += 24
        for pod, count in counts.items():
            svg.text(26, y + 13, tail(pod), 12, bold=True)
            svg.rect(Box(130, y + 2, max(1, 760 * count / most), 14), "t-podline s-podline", radius=3)
            svg.text(
                138 + 760 * count / most, y + 13, f"{count:,}", 12, bold=True, cls="" if count else "t-fault"
            )
            y += 21
        y += 8
    return svg.document(y, "Requests by pod", repr(found))
