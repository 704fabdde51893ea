"""Who speaks BGP with whom, and who knows a way to what: a picture, a table and text, read off the speakers.

A line is a pair of sessions: whole and green while routes are exchanged, broken and orange with its state in words
otherwise. An arrow points from a reflector to those it reflects for. Speakers of other AS numbers stand on the right.
"""

from __future__ import annotations

from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.views.theme import Box, Svg, image, text_width

if TYPE_CHECKING:
    from kubenet_lab.bgp.fabric import Fabric

WIDTH = 1000.0
SESSION_COLUMNS = ("one", "other", "kind", "state", "why")
ROUTE_COLUMNS = ("speaker", "prefix", "via", "dev", "learned_from", "as_path", "best")
MOST_LABELS = 12
"""Speakers up to which every broken line is labelled."""


class Speaker(Struct, frozen=True):
    """A daemon: its name, router id, AS number, the blocks it announces, and how many prefixes it knows."""

    name: str
    address: str
    asn: int
    blocks: tuple[str, ...]
    prefixes: int
    cluster_id: str = ""


class Line(Struct, frozen=True):
    """The session of two speakers, or of one with somebody unknown (`other` is then an address).

    `kind` is iBGP, eBGP, or "reflector" where `one` reflects for `other`. `state` is that of an end that is not
    established, of the one that calls rather than of the one that waits.
    """

    one: str
    other: str
    kind: str
    state: str
    why: str = ""

    @property
    def up(self) -> bool:
        """True while routes are exchanged."""
        return self.state == "Established"


class BgpMap(Struct, frozen=True):
    """Speakers and lines between them; `routes` are all paths of all tables."""

    speakers: tuple[Speaker, ...]
    lines: tuple[Line, ...]
    routes: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        out = []
        for who in self.speakers:
            role = f", reflector of cluster {who.cluster_id}" if who.cluster_id else ""
            own = f", announces {', '.join(who.blocks)}" if who.blocks else ""
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
    return BgpMap(tuple(speakers), tuple(_line(found) for found in ends.values()), tuple(routes))


def _line(ends: list[Any]) -> Line:
    one, other, session = next((end for end in ends if end[2].peer.rr_client), ends[0])
    kind = "reflector" if session.peer.rr_client else "eBGP" if session.external else "iBGP"
    down = [end[2] for end in ends if not end[2].up]
    if not down:
        return Line(one, other, kind, "Established")
    why = next((s.last_error for s in down if s.last_error), "")
    state = next((s.state for s in down if s.state != "Passive"), "Passive")
    return Line(one, other, kind, state, why)


def _many(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}es"


# -- the picture -----------------------------------------------------------------------------------------------------


def _places(found: BgpMap, height: float) -> dict[str, tuple[float, float]]:
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
    middle = (WIDTH - 230) / 2 if away else WIDTH / 2
    wide = middle - 110
    out = {}
    for names, scale in ((around, 1.0), (inside, 0.3 if len(inside) > 1 else 0.0)):
        for number, name in enumerate(names):
            angle = 2 * pi * number / max(len(names), 1) - pi / 2
            out[name] = (
                middle + scale * wide * cos(angle),
                height / 2 + scale * (height / 2 - 60) * sin(angle),
            )
    for number, name in enumerate(away):
        out[name] = (WIDTH - 110, height * (number + 1) / (len(away) + 1))
    return out


def bgp_map_svg(found: BgpMap) -> str:
    """Draw the map."""
    large = len(found.speakers) > MOST_LABELS
    height = 620.0 if large else 420.0
    svg = Svg(WIDTH)
    at = _places(found, height)
    for line in found.lines:
        (x, y), (u, v) = at[line.one], at[line.other]
        if line.up:
            svg.line([(x, y), (u, v)], "s-good", 1.0 if large else 2.0)
        else:
            svg.line([(x, y), (u, v)], "s-fault", 2.0, ' stroke-dasharray="6 4"')
            if not large:
                svg.text(
                    x + 0.7 * (u - x),
                    y + 0.7 * (v - y) - 4,
                    line.state,
                    11.5,
                    cls="t-fault h-bg",
                    anchor="middle",
                )
        if line.kind == "reflector":
            long = hypot(u - x, v - y) or 1.0
            way = ((u - x) / long, (v - y) / long)
            svg.arrow((x + 0.6 * (u - x), y + 0.6 * (v - y)), way, "t-good" if line.up else "t-fault")
    known = {who.name: who for who in found.speakers}
    for name, (x, y) in at.items():
        who = known.get(name)
        words = [name]
        if who is not None:
            note = f"AS {who.asn}" + (", reflector" if who.cluster_id else "")
            words += [note] if large else [who.address, note, _many(who.prefixes, "prefix")]
        size = 11.0 if large else 12.0
        wide = max(text_width(word, size, bold=n == 0) for n, word in enumerate(words)) + 16
        box = Box(x - wide / 2, y - (len(words) * 15 + 10) / 2, wide, len(words) * 15 + 10)
        svg.rect(box, "f-tunnel s-tunnelline" if who is None or who.cluster_id else "f-card s-line")
        for n, word in enumerate(words):
            svg.text(
                x,
                box.y + 17 + 15 * n,
                word,
                size,
                anchor="middle",
                bold=n == 0,
                cls="" if n == 0 else "t-soft",
            )
        svg.hit(box, name, speaker=name)
    up = sum(line.up for line in found.lines)
    title = f"BGP: {len(found.speakers)} speakers, {up} of {len(found.lines)} sessions established"
    svg.text(16, height - 14, title, 12, cls="t-soft")
    return svg.document(height, title, str(found))
