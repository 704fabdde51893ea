"""Who speaks BGP with whom, and who knows a way to what: a picture, a table and text, read off the speakers.

A line is a pair of sessions: whole and green while routes are exchanged, dotted where no packet gets through but
nobody has noticed yet, broken and orange with its state in words otherwise. An arrow points from a reflector to those
it reflects for. Speakers of other AS numbers stand on the right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.bgp.daemon import PROTO
from kubenet_lab.packet.ip import prefix
from kubenet_lab.views.theme import Box, Svg, image, text_width

if TYPE_CHECKING:
    from kubenet_lab.bgp.fabric import Fabric
    from kubenet_lab.bgp.session import Session

WIDE, NARROW = 1000.0, 600.0
"""Width of the picture of many speakers, and of few: their words are to be read in a narrow cell, too."""
SESSION_COLUMNS = ("one", "other", "kind", "state", "why")
ROUTE_COLUMNS = ("speaker", "prefix", "via", "dev", "learned_from", "as_path", "best")
MOST_LABELS = 12
"""Speakers up to which every broken line is labelled, and lines up to which every one is."""


class Speaker(Struct, frozen=True):
    """A daemon: its name, router id, AS number, the blocks it announces, and how many prefixes it knows."""

    name: str
    address: str
    asn: int
    blocks: tuple[str, ...]
    prefixes: int
    cluster_id: str = ""
    runs: bool = True


class End(Struct, frozen=True, kw_only=True):
    """One side of a session, as `birdc show protocols all` would show it there. Times in s.

    Attributes:
        speaker, far: Whose side, and with whom (a speaker's name, or an address).
        protocol: BIRD's name for it.
        since: Seconds since it went up or down.
        hold_left, hold_time: Until it is given up if nothing is heard, and the time both agreed on.
        keepalive_left: Until the next sign of life is sent.
        connect_left: While it is down: until the next attempt.
        restart_left: While a neighbour that went away without a word may come back, and its routes stay.
        learned, told: Prefixes that came by it, and that were sent.
    """

    speaker: str
    far: str
    protocol: str
    address: str
    local: str
    state: str
    why: str = ""
    since: float = 0.0
    hold_left: float = 0.0
    hold_time: float = 0.0
    keepalive_left: float = 0.0
    connect_left: float = 0.0
    restart_left: float = 0.0
    learned: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def up(self) -> bool:
        """True while routes are exchanged."""
        return self.state == "Established"

    def timers(self) -> str:
        """Return what this side waits for, in words."""
        out = []
        if self.up:
            if self.hold_time:
                out.append(f"gives up in {self.hold_left:.0f} s unless it hears something")
                out.append(f"says something in {self.keepalive_left:.0f} s")
        elif self.connect_left:
            out.append(f"tries again in {self.connect_left:.0f} s")
        if self.restart_left:
            out.append(f"keeps the routes for {self.restart_left:.0f} s more")
        return ", ".join(out)


class Line(Struct, frozen=True):
    """The session of two speakers, or of one with somebody unknown (`other` is then an address).

    `kind` is iBGP, eBGP, or "reflector" where `one` reflects for `other`. `state` is that of an end that is not
    established, of the one that calls rather than of the one that waits. `ends` are its sides: two, or one where the
    other speaker does not run or is not known. `silent`: it stands, but no packet gets through just now.
    """

    one: str
    other: str
    kind: str
    state: str
    why: str = ""
    silent: bool = False
    ends: tuple[End, ...] = ()

    @property
    def up(self) -> bool:
        """True while routes are exchanged."""
        return self.state == "Established"

    @property
    def key(self) -> str:
        """Its name: both ends' names in alphabetical order, "node-1|node-2"."""
        return "|".join(sorted((self.one, self.other)))

    @property
    def pair(self) -> str:
        """Both ends' names, for people: "node-1 – node-2"."""
        return self.key.replace("|", " – ")

    @property
    def hold_left(self) -> float:
        """Seconds until the first side gives up if nothing is heard."""
        return min((end.hold_left for end in self.ends if end.hold_time), default=0.0)

    def words(self) -> str:
        """Return its state in a few words."""
        if not self.up:
            return f"✕ {self.state}"
        return f"? silent, {self.hold_left:.0f} s left" if self.silent else "✓ Established"


class BgpMap(Struct, frozen=True):
    """Speakers and lines between them; `routes` are all paths of all tables.

    `kernel` are the ways that BIRD put into the kernels: (speaker, prefix, next hops in words).
    """

    speakers: tuple[Speaker, ...]
    lines: tuple[Line, ...]
    routes: tuple[dict[str, Any], ...]
    kernel: frozenset[tuple[str, str, str]] = frozenset()

    def line(self, key: str) -> Line:
        """Return a line by its name. Raises KeyError."""
        for line in self.lines:
            if line.key == key:
                return line
        raise KeyError(key)

    def __str__(self) -> str:
        out = []
        for who in self.speakers:
            role = f", reflector of cluster {who.cluster_id}" if who.cluster_id else ""
            own = f", announces {', '.join(who.blocks)}" if who.blocks and who.runs else ""
            role += "" if who.runs else ", BIRD is down"
            out.append(
                f"{who.name} {who.address} AS {who.asn}{role}{own}; knows {_many(who.prefixes, 'prefix')}"
            )
            for line in self.lines:
                if who.name in (line.one, line.other):
                    far = line.other if line.one == who.name else line.one
                    why = f" ({line.why})" if line.why else ""
                    out.append(f"  {line.kind} with {far}: {line.state}{why}")
        return "\n".join(out) if out else "nobody speaks BGP"

    __repr__ = __str__

    def sessions_table(self) -> Any:
        """Return a pandas DataFrame, one row a line."""
        from kubenet_lab.views.tables import frame

        rows = [{name: getattr(line, name) for name in SESSION_COLUMNS} for line in self.lines]
        return frame(rows, SESSION_COLUMNS)

    def routes_table(self) -> Any:
        """Return a pandas DataFrame, one row a path; the best of a prefix is marked."""
        from kubenet_lab.views.tables import frame

        return frame(list(self.routes), ROUTE_COLUMNS)

    def _repr_html_(self) -> str:
        return image(bgp_map_svg(self), str(self))


def bgp_map(fabric: Fabric) -> BgpMap:
    """Read the speakers of a fabric (`cluster.pod_network.fabric` with Calico)."""
    names = {bird.config.router_id: name for name, bird in fabric.daemons.items()}
    speakers, routes = [], []
    ends: dict[tuple[str, str], list[Any]] = {}
    for name, bird in fabric.daemons.items():
        config = bird.config
        clusters = [peer.cluster_id for peer in config.peers if peer.rr_client]
        speakers.append(
            Speaker(
                name,
                config.router_id,
                config.asn,
                config.blocks,
                len(bird.table),
                clusters[0] if clusters else "",
                bird.alive,
            )
        )
        for session in bird.bgp_sessions():
            far = names.get(session.peer.address, session.peer.address)
            ends.setdefault((min(name, far), max(name, far)), []).append((name, far, session))
        for dst, paths in sorted(bird.table.items()):
            for number, path in enumerate(paths):
                via, dev = path.resolved or ("", "")
                as_path = path.attributes.as_path if path.attributes is not None else ()
                routes.append(
                    {
                        "speaker": name,
                        "prefix": dst,
                        "via": via,
                        "dev": dev,
                        "learned_from": path.protocol,
                        "as_path": " ".join(map(str, as_path)),
                        "best": number == 0,
                    }
                )
    lines = tuple(_line(found, fabric) for found in ends.values())
    return BgpMap(tuple(speakers), lines, tuple(routes), frozenset(_kernel(fabric)))


def _kernel(fabric: Fabric) -> Iterator[tuple[str, str, str]]:
    for name in fabric.daemons:
        if name in fabric.network.netns:
            for fam in (4, 6):
                for route in fabric.network.ns(name).route_list(fam):
                    if route.proto == PROTO and route.type != "blackhole":
                        ways = [hop.via for hop in route.nexthops] or [route.via]
                        yield name, route.dst, " and ".join(ways) if all(ways) else route.type


def _line(ends: list[Any], fabric: Fabric) -> Line:
    one, other, session = next((end for end in ends if end[2].peer.rr_client), ends[0])
    kind = "reflector" if session.peer.rr_client else "eBGP" if session.external else "iBGP"
    sides = tuple(_end(name, far, side, fabric.now) for name, far, side in ends)
    down = [end[2] for end in ends if not end[2].up]
    if not down:
        silent = not fabric.passes(session.local, session.peer.address)
        return Line(one, other, kind, "Established", silent=silent, ends=sides)
    why = next((s.last_error for s in down if s.last_error), "")
    state = next((s.state for s in down if s.state != "Passive"), "Passive")
    return Line(one, other, kind, state, why, ends=sides)


def _end(name: str, far: str, session: Session, now: float) -> End:
    return End(
        speaker=name,
        far=far,
        protocol=session.peer.name,
        address=session.peer.address,
        local=session.local,
        state=session.state,
        why=session.last_error,
        since=now - session.since,
        hold_left=session.hold_left if session.up else 0.0,
        hold_time=session.hold_time,
        keepalive_left=session.keepalive_left,
        connect_left=session.connect_left,
        restart_left=session.restart_left,
        learned=tuple(_sorted(session.bird.heard(session))),
        told=tuple(_sorted(session.bird.told(session))),
    )


def _sorted(prefixes: Iterable[str]) -> list[str]:
    return sorted(prefixes, key=lambda text: (":" in text, prefix(text).net, prefix(text).length))


def changes(before: BgpMap, after: BgpMap) -> list[str]:
    """Return what is different, one sentence each: sessions up or down, then routes of kernels."""
    out = []
    was = {line.key: line for line in before.lines}
    for line in after.lines:
        old = was.get(line.key)
        if old is None or line.up != old.up:
            why = next((end.why for end in line.ends if end.why and not end.up), "")
            out.append(
                f"{line.pair}: "
                + ("session established" if line.up else f"session down ({why or line.state})")
            )
        elif line.up and line.silent != old.silent:
            out.append(
                f"{line.pair}: " + ("no packet gets through" if line.silent else "packets get through again")
            )
    now = {line.key for line in after.lines}
    out += [f"{one.pair}: no such session any more" for one in before.lines if one.key not in now]
    for who in after.speakers:
        for sign, one, other in (("loses", before, after), ("gets", after, before)):
            found = sorted((dst, via) for name, dst, via in one.kernel - other.kernel if name == who.name)
            if found:
                listed = ", ".join(f"{dst} via {via}" for dst, via in found)
                out.append(f"{who.name}'s kernel {sign} {listed}")
    return out


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}es"


# -- the picture -----------------------------------------------------------------------------------------------------


def _places(found: BgpMap, width: float, height: float) -> dict[str, tuple[float, float]]:
    """Nodes on an ellipse, reflectors within it, speakers of another AS number and unknown ones on the right."""
    count: dict[int, int] = {}
    for who in found.speakers:
        count[who.asn] = count.get(who.asn, 0) + 1
    home = max(count, key=lambda asn: (count[asn], -asn), default=0)
    inside = [w.name for w in found.speakers if w.asn == home and w.cluster_id]
    around = [w.name for w in found.speakers if w.asn == home and not w.cluster_id]
    known = {who.name for who in found.speakers}
    away = [w.name for w in found.speakers if w.asn != home]
    away += sorted({line.other for line in found.lines} - known)
    middle = (width - 130) / 2 if away else width / 2
    wide = middle - 75
    out = {}
    for names, scale in ((around, 1.0), (inside, 0.3 if len(inside) > 1 else 0.0)):
        for number, name in enumerate(names):
            angle = 2 * pi * number / max(len(names), 1) - pi / 2
            out[name] = (
                middle + scale * wide * cos(angle),
                height / 2 + scale * (height / 2 - 55) * sin(angle),
            )
    for number, name in enumerate(away):
        out[name] = (width - 75, height * (number + 1) / (len(away) + 1))
    return out


def _label(
    svg: Svg, line: Line, at: dict[str, tuple[float, float]], taken: list[Box], *, picked: bool
) -> None:
    """Write a line's state beside its middle, where nothing else is written yet."""
    (x, y), (u, v) = at[line.one], at[line.other]
    words = "✓ up" if line.up and not line.silent else line.words()
    wide = text_width(words, 13, bold=picked) + 14
    for share in (0.5, 0.46, 0.42, 0.38, 0.54, 0.58, 0.34, 0.66, 0.26, 0.74, 0.46):
        box = Box(x + share * (u - x) - wide / 2, y + share * (v - y) - 11, wide, 22)
        if not any(_meet(box, other) for other in taken):
            break
    taken.append(box)
    tone = "t-good" if line.up and not line.silent else "t-fault"
    edge = "s-ink" if picked else "s-good" if tone == "t-good" else "s-fault"
    svg.rect(box, f"f-card {edge}", 6, ' stroke-width="2.5"' if picked else "")
    svg.text(box.cx, box.y + 15.5, words, 13, cls=tone, anchor="middle", bold=picked)
    svg.hit(box, f"session {line.pair}: {line.words()}", session=line.key)


def _meet(a: Box, b: Box) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def _stroke(svg: Svg, line: Line, at: dict[str, tuple[float, float]], *, thin: bool, picked: bool) -> None:
    (x, y), (u, v) = at[line.one], at[line.other]
    if picked:
        svg.line([(x, y), (u, v)], "s-band", 12)
    if line.up and not line.silent:
        svg.line([(x, y), (u, v)], "s-good", 1.0 if thin else 2.0)
    else:
        svg.line([(x, y), (u, v)], "s-fault", 2.0, f' stroke-dasharray="{"1.5 4" if line.up else "7 5"}"')


def _arrow(svg: Svg, line: Line, at: dict[str, tuple[float, float]], goal: Box) -> Box:
    """Draw a reflector's arrow up to the box of whom it reflects for, and return the place it takes."""
    (x, y), (u, v) = at[line.one], at[line.other]
    long = hypot(u - x, v - y) or 1.0
    dx, dy = (u - x) / long, (v - y) / long
    back = min(goal.w / 2 / abs(dx) if dx else long, goal.h / 2 / abs(dy) if dy else long)
    tip = (u - back * dx, v - back * dy)
    svg.arrow(tip, (dx, dy), "t-good" if line.up and not line.silent else "t-fault")
    return Box(tip[0] - 7 * dx - 5, tip[1] - 7 * dy - 5, 10, 10)


def bgp_map_svg(found: BgpMap, picked: str = "") -> str:
    """Draw the map. `picked` is the `key` of a line that is drawn as chosen."""
    large = len(found.speakers) > MOST_LABELS
    inner = any(who.cluster_id for who in found.speakers)
    width, height = (
        (WIDE, 620.0) if large else (NARROW, 640.0 if inner else 460.0 if len(found.speakers) > 3 else 360.0)
    )
    svg = Svg(width)
    at = _places(found, width, height)
    for line in found.lines:
        _stroke(svg, line, at, thin=large, picked=line.key == picked)
    known = {who.name: who for who in found.speakers}
    boxes: dict[str, Box] = {}
    for name, (x, y) in at.items():
        who = known.get(name)
        words = [name]
        if who is not None:
            note = f"AS {who.asn}" + (", reflector" if who.cluster_id else "")
            last = _many(who.prefixes, "prefix") if who.runs else "BIRD is down"
            words += [note if who.runs else last] if large else [who.address, note, last]
        size, step = (11.0, 15.0) if large else (13.0, 17.0)
        wide = max(text_width(word, size, bold=n == 0) for n, word in enumerate(words)) + 16
        box = Box(x - wide / 2, y - (len(words) * step + 10) / 2, wide, len(words) * step + 10)
        boxes[name] = box
        stopped = ' stroke-dasharray="5 3"' if who is not None and not who.runs else ""
        edge = "s-fault" if stopped else "s-tunnelline" if who is None or who.cluster_id else "s-line"
        svg.rect(box, f"{'f-tunnel' if who is None or who.cluster_id else 'f-card'} {edge}", 6, stopped)
        for n, word in enumerate(words):
            tone = "" if n == 0 else "t-fault" if "is down" in word else "t-soft"
            svg.text(x, box.y + step + 1 + step * n, word, size, anchor="middle", bold=n == 0, cls=tone)
        svg.hit(box, name, speaker=name)
    taken = list(boxes.values())
    for line in found.lines:
        if line.kind == "reflector":
            taken.append(_arrow(svg, line, at, boxes[line.other]))
    every = len(found.lines) <= MOST_LABELS
    for line in found.lines:
        if every or line.key == picked or (not large and (line.silent or not line.up)):
            _label(svg, line, at, taken, picked=line.key == picked)
    up = sum(line.up for line in found.lines)
    title = f"BGP: {len(found.speakers)} speakers, {up} of {len(found.lines)} sessions established"
    height = min(height, max((box.bottom for box in boxes.values()), default=height) + 44)
    svg.text(16, height - 12, title, 12 if large else 13, cls="t-soft")
    return svg.document(height, title, str(found))
