"""A lookup as its list of queries, in order: what was asked, of whom, what came back, how long it took.

Pure views of lookups that were made (`dns.client.lookup`): one lookup (`DnsSteps`), a grid of many (`NameGrid`), the
chain of plugins in a CoreDNS (`CorefileChain`), and what its cache holds over time (`CacheRows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.dns.lookup import ERRORS, ResolvConf
from kubenet_lab.views.theme import Box, Picture, Svg, text_width, wrap

if TYPE_CHECKING:
    from kubenet_lab.dns.client import Lookup
    from kubenet_lab.dns.server.coredns import CoreDNS

MEANINGS = {
    "NXDOMAIN": "no such name",
    "NODATA": "the name exists, without such an address",
    "SERVFAIL": "the server failed",
    "REFUSED": "the server does not want to",
}
TITLES = {"glibc": "glibc (Debian, Ubuntu)", "musl": "musl (Alpine)", "go": "Go"}
_CELL = 'style="text-align:left;vertical-align:top;padding:3px 10px"'


class DnsQuery(Struct, frozen=True):
    """One query: `at` and `seconds` in s since the lookup began; `seconds` None when nobody answered."""

    name: str
    type: str
    server: str
    outcome: str
    at: float
    seconds: float | None
    protocol: str = "udp"

    @property
    def good(self) -> bool:
        """True when addresses came back."""
        return self.outcome[:1].isdigit() or ":" in self.outcome


class DnsSteps(Struct, frozen=True):
    """A lookup: the name, the file that ruled it, its queries, and what the program got."""

    name: str
    conf: str
    resolver: str
    queries: tuple[DnsQuery, ...]
    addresses: tuple[str, ...]
    error: str
    seconds: float

    @property
    def result(self) -> str:
        """What the program gets: addresses, or the error in words."""
        return ", ".join(self.addresses) or self.error

    @property
    def candidates(self) -> tuple[str, ...]:
        """The names tried, in order."""
        return tuple(dict.fromkeys(query.name for query in self.queries))

    def text(self) -> str:
        """Everything the picture shows."""
        conf = ResolvConf.from_text(self.conf)
        dots = self.name.count(".")
        lines = [
            f"{self.name} ({dots} dot{'s' * (dots != 1)}; ndots {conf.ndots}), resolver {self.resolver}: "
            f"{len(self.queries)} quer{'y' if len(self.queries) == 1 else 'ies'}, {_seconds(self.seconds)}"
        ]
        lines += [
            f"{number:3} {query.type:4} {query.name}  asked {query.server}: {query.outcome}"
            + (f" ({MEANINGS[query.outcome]})" if query.outcome in MEANINGS else "")
            + (f", after {_seconds(query.seconds)}" if query.seconds else "")
            for number, query in enumerate(self.queries, 1)
        ]
        return "\n".join([*lines, f"  = {self.result}"])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return steps_picture(self)._repr_html_()


WIDTH, _LEFT, _ROW, _GAP = 640.0, 14.0, 23.0, 8.0
_ANSWER = 150.0


def steps_picture(found: DnsSteps) -> Picture:
    """The lookup as a picture: a band for each name tried, in it a line for each query, what came back at its end."""
    conf = ResolvConf.from_text(found.conf)
    dots = found.name.count(".")
    svg = Svg(WIDTH)
    resolver = TITLES.get(found.resolver, found.resolver)
    svg.text(_LEFT, 28, _cut(found.name, WIDTH - 2 * _LEFT, 17, bold=True), 17, bold=True)
    servers = ", ".join(dict.fromkeys(query.server for query in found.queries))
    told = f"{dots} dot{'s' * (dots != 1)}, ndots {conf.ndots}, {resolver}" + (
        f"; asked: {servers}" if servers else ""
    )
    svg.text(_LEFT, 50, _cut(told, WIDTH - 2 * _LEFT, 13), 13, cls="t-soft")
    y = 62.0
    if not found.queries:
        svg.text(_LEFT, y + 14, "No query: the answer is in /etc/hosts, or the name is an address.", 13)
        y += 28
    number = 0
    for name, queries in _runs(found.queries):
        height = _ROW * (len(queries) + 1) + 8
        good = any(query.good for query in queries)
        svg.rect(Box(_LEFT - 6, y, WIDTH - 2 * _LEFT + 12, height), f"f-{'pod' if good else 'card'}", 6)
        _named(svg, y + 20, name, found.name)
        for place, query in enumerate(queries, 1):
            base = y + 20 + place * _ROW
            number += 1
            svg.text(_LEFT + 8, base, f"{number}", 13, cls="t-soft")
            svg.text(_LEFT + 36, base, _seconds(query.at), 13, cls="t-soft")
            svg.text(_LEFT + 90, base, query.type, 13, bold=True)
            mark, cls = _mark(query)
            outcome = query.outcome + (f": {MEANINGS[query.outcome]}" if query.outcome in MEANINGS else "")
            if query.seconds:
                outcome += f", after {_seconds(query.seconds)}"
            svg.text(_ANSWER, base, mark, 14, cls=cls, bold=True)
            shown = _cut(outcome, WIDTH - _LEFT - _ANSWER - 22, 13, bold=query.good)
            svg.text(_ANSWER + 20, base, shown, 13, bold=query.good)
        y += height + _GAP
    count = len(found.queries)
    result = f"{count} quer{'y' if count == 1 else 'ies'}, {_seconds(found.seconds)}. The program gets: {found.result}"
    for line in wrap(result, WIDTH - 2 * _LEFT, 15, bold=True):
        svg.text(_LEFT, y + 18, line, 15, bold=True)
        y += 21
    return Picture(svg.document(y + 14, f"Lookup of {found.name}", found.text()), result)


def _runs(queries: Sequence[DnsQuery]) -> list[tuple[str, list[DnsQuery]]]:
    """Queries in order, those for one name that follow each other together."""
    out: list[tuple[str, list[DnsQuery]]] = []
    for query in queries:
        if out and out[-1][0] == query.name:
            out[-1][1].append(query)
        else:
            out.append((query.name, [query]))
    return out


def _named(svg: Svg, base: float, asked: str, name: str) -> None:
    """What the program said in bold, what the resolver hung on to it plain, in letters that fit."""
    said = asked[: len(name.rstrip("."))]
    rest = asked[len(said) :]
    size = 14.0
    room = WIDTH - 2 * _LEFT
    while size > 9 and text_width(asked, size, bold=True, mono=True) > room:
        size -= 0.5
    if text_width(asked, size, bold=True, mono=True) > room:
        svg.text(_LEFT, base, _cut(asked, room, size, mono=True), size, mono=True)
        return
    svg.text(_LEFT, base, said, size, bold=True, mono=True)
    svg.text(_LEFT + text_width(said, size, bold=True, mono=True), base, rest, size, mono=True)


def _cut(text: str, room: float, size: float, *, bold: bool = False, mono: bool = False) -> str:
    """As much of a text as fits; the whole of it is in the picture's description."""
    if text_width(text, size, bold=bold, mono=mono) <= room:
        return text
    while text and text_width(text + "...", size, bold=bold, mono=mono) > room:
        text = text[:-1]
    return text + "..."


def _mark(query: DnsQuery) -> tuple[str, str]:
    if query.good:
        return "+", "t-good"
    if query.outcome == "NODATA":
        return "o", "t-soft"
    return ("?", "t-fault") if query.seconds is None else ("-", "t-fault")


def steps_of(name: str, conf: str, resolver: str, found: Lookup) -> DnsSteps:
    """The view of a lookup that was made."""
    done = found.resolution
    sent = done.queries if done is not None else ()
    queries = tuple(DnsQuery(q.name, q.type, q.server, q.outcome, q.at, q.seconds, q.protocol) for q in sent)
    error = ""
    if not found.addresses:
        error = done.message if done is not None and done.message else ERRORS["EAI_NONAME"][1]
    return DnsSteps(
        name, conf, resolver, queries, found.addresses, error, done.seconds if done is not None else 0.0
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "never"
    return "0 s" if value == 0 else f"{value * 1000:.3g} ms" if value < 0.5 else f"{value:.3g} s"


class NameGrid(Struct, frozen=True):
    """Lookups by (name, namespace of the asker, dnsPolicy)."""

    cells: Mapping[tuple[str, str, str], DnsSteps]

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(dict.fromkeys(name for name, _, _ in self.cells))

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(namespace, policy) pairs, in order."""
        return tuple(dict.fromkeys((namespace, policy) for _, namespace, policy in self.cells))

    def text(self) -> str:
        """Everything the picture shows."""
        lines = []
        for name in self.names:
            lines.append(f"{name}:")
            for namespace, policy in self.columns:
                cell = self.cells[name, namespace, policy]
                lines.append(
                    f"  from {namespace}, dnsPolicy {policy}: {cell.result} ({len(cell.queries)} queries)"
                )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        head = f"<th {_CELL}>name</th>" + "".join(
            f"<th {_CELL}>from {escape(namespace)}<br><small>dnsPolicy {escape(policy)}</small></th>"
            for namespace, policy in self.columns
        )
        body = ""
        for name in self.names:
            # A long name may go over two lines, at its dots.
            words = escape(name).replace(".", "<wbr>.")
            body += f"<tr><th {_CELL}><code>{words}</code></th>"
            for column in self.columns:
                cell = self.cells[(name, *column)]
                mark = "✓" if cell.addresses else "✗"
                told = f"<b>{mark} {escape(cell.result)}</b><br><small>{len(cell.queries)} queries</small>"
                body += f"<td {_CELL}>{told}</td>"
            body += "</tr>"
        return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


class CorefileChain(Struct, frozen=True):
    """The plugins of one server block in the order a query meets them; `answered` is the one that spoke."""

    zone: str
    plugins: tuple[str, ...]
    query: str = ""
    answered: str = ""
    outcome: str = ""

    def text(self) -> str:
        """Everything the picture shows."""
        way = " -> ".join(f"[{name}]" if name == self.answered else name for name in self.plugins)
        told = f"\n{self.query}: {self.answered} answered: {self.outcome}" if self.query else ""
        return f"zone {self.zone}: {way}{told}"

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        boxes = []
        passed = bool(self.answered)
        for name in self.plugins:
            here = name == self.answered
            style = "border:1px solid currentColor;border-radius:4px;padding:2px 8px;margin:2px;display:inline-block;"
            style += (
                "font-weight:700;border-width:3px"
                if here
                else ""
                if passed or not self.answered
                else "opacity:.55"
            )
            boxes.append(f'<span style="{style}">{"✓ " if here else ""}{escape(name)}</span>')
            passed = passed and not here
        told = (
            f"<p><code>{escape(self.query)}</code>: <b>{escape(self.answered)}</b> answered: "
            if self.query
            else ""
        )
        told += f"{escape(self.outcome)}</p>" if told else ""
        return f"<p>zone <code>{escape(self.zone)}</code></p><p>{' → '.join(boxes)}</p>{told}"


def chain_of(
    server: CoreDNS, name: str = "", kind: str = "A", client: str = "10.244.1.2", now: float = 0.0
) -> CorefileChain:
    """Which plugins a query meets in a server, and which of them answered.

    The query is really asked: caches and counters notice it. Without a name the chain of zone "." alone.
    """
    from kubenet_lab.dns.records import Query
    from kubenet_lab.dns.server.plugin import Plugin

    asked = Query(name if name.endswith(".") else f"{name}.", kind) if name else None
    block = server.block_of(asked) if asked is not None else next(iter(server.servers.values()), None)
    if block is None:
        return CorefileChain("none", (), f"{name} {kind}", "nobody", "REFUSED")
    plugins = tuple(plugin.name for plugin in block.chain)
    if asked is None:
        return CorefileChain(block.zone.name, plugins)
    deepest: list[Plugin] = []
    answer = server.watch(asked, deepest, client, now)
    outcome = (
        "no answer"
        if answer is None
        else ", ".join(answer.addresses)
        or (
            answer.rcode
            if answer.rcode != "NOERROR"
            else "NODATA"
            if not answer.answer
            else str(answer.answer[0].data)
        )
    )
    return CorefileChain(
        block.zone.name, plugins, f"{name} {kind}", deepest[-1].name if deepest else "", outcome
    )


class CacheRows(Struct, frozen=True):
    """What a cache held at some moments: (moment, ((name, type, what, seconds left), ...))."""

    moments: tuple[tuple[float, tuple[tuple[str, str, str, int], ...]], ...]

    def text(self) -> str:
        """Everything the picture shows."""
        lines = []
        for at, rows in self.moments:
            lines.append(f"at {_seconds(at)}: {len(rows)} kept")
            lines += [f"  {name} {kind}: {what}, {left} s left" for name, kind, what, left in rows]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys((name, kind) for _, rows in self.moments for name, kind, _, _ in rows))
        head = f"<th {_CELL}>kept</th>" + "".join(
            f"<th {_CELL}>{_seconds(at)}</th>" for at, _ in self.moments
        )
        body = ""
        for name, kind in names:
            body += f"<tr><th {_CELL}><code>{escape(name)} {kind}</code></th>"
            for _, rows in self.moments:
                found = next((row for row in rows if row[:2] == (name, kind)), None)
                shown = f"{escape(found[2])}<br><small>{found[3]} s left</small>" if found else "-"
                body += f"<td {_CELL}>{shown}</td>"
            body += "</tr>"
        return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def cache_at(server: CoreDNS, moments: Sequence[float]) -> CacheRows:
    """What the cache of zone "." holds at some moments; what was kept stays kept, only its time runs."""
    cache = server.plugin("cache")
    found = []
    for at in moments:
        rows = []
        for store in (cache.success, cache.denial):
            for (name, kind, *_), item in store.items():
                left = item.left(at)
                if at >= item.stored and left > 0:
                    answer = item.response
                    what = ", ".join(answer.addresses) or (
                        answer.rcode if answer.rcode != "NOERROR" else "NODATA"
                    )
                    rows.append((name, kind, what, left))
        found.append((at, tuple(rows)))
    return CacheRows(tuple(found))
