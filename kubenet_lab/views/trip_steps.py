"""A trip as rows a reader can follow: one row a step, grouped by hop, the packet's headers before and after each.

Everything that shows a trip (the static picture, the stepper, tables, text) reads these rows, so they all tell the
same story.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import (
    ICMP,
    ICMPV6,
    IPIP,
    SCTP,
    TCP,
    UDP,
    Arp,
    Frame,
    Packet,
    WireguardMessage,
    icmp_name,
    proto_name,
    tcp_flags,
    tunnel_name,
)
from kubenet_lab.trace import Query, RuleRef, Trace
from kubenet_lab.views import nft_words, words
from kubenet_lab.views.needs import needed
from kubenet_lab.walk.nft import NftRef

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip

SAME, CHANGED, ADDED, REMOVED = "", "changed", "added", "removed"


class Field(NamedTuple):
    """One header field. `was` is its value before the step, where the step changed it."""

    name: str
    value: str
    mark: str = SAME
    was: str = ""


class Header(NamedTuple):
    """One header of a packet, outermost first. `depth` 1 and more are letters inside a letter."""

    name: str
    fields: tuple[Field, ...]
    depth: int = 0
    mark: str = SAME


class StepRow(Struct, frozen=True):
    """One step, ready to show.

    Attributes:
        index: Place in the whole trip, from 0.
        leg: Number of the packet it belongs to, from 0.
        hop: Number of the hop in its packet, from 0.
        netns, spot, kind: As in the trace.
        place: "pod frontend", "node-1".
        layer: ends, routes, rules, tunnel or links.
        main: True for the steps that tell the story.
        title, sentence: What happened, in few words and in one or two sentences.
        entry: The rule, route or entry that decided, as its tool prints it.
        command: The command that shows that entry.
        conntrack: The connection's row where the step used it, as `conntrack -L` prints it.
        headers: The packet after the step, with what changed.
        outer: True where the packet is the outer one of a tunnel.
    """

    index: int
    leg: int
    hop: int
    netns: str
    spot: str
    kind: str
    place: str
    layer: str
    main: bool
    title: str
    sentence: str
    entry: str = ""
    command: str = ""
    conntrack: str = ""
    headers: tuple[Header, ...] = ()
    outer: bool = False


class Leg(Struct, frozen=True):
    """One packet of a trip with a title: "The call", "The answer", "Name lookup 1: question"."""

    title: str
    role: str
    trace: Trace
    lookup: str = ""
    """What was asked and answered, where the packet belongs to a name lookup."""


class Story(Struct, frozen=True):
    """A whole trip: what the caller saw, why, and every packet and step."""

    headline: str
    verdict: str
    delivered: bool
    why: str
    decided_by: str
    place: str
    lookups: tuple[str, ...]
    legs: tuple[Leg, ...]
    rows: tuple[StepRow, ...]
    needed: str = ""
    """What a failed call would have needed, where its steps tell."""

    @property
    def main_rows(self) -> tuple[StepRow, ...]:
        """The steps that tell the story, without those of name lookups and follow-up packets that went well."""
        return tuple(row for row in self.rows if row.main)


def _ip_fields(packet: Packet) -> list[tuple[str, str]]:
    fields = [
        ("from", packet.src),
        ("to", packet.dst),
        ("TTL", str(packet.ttl)),
        ("length", f"{packet.length} bytes"),
    ]
    return fields if not packet.df or packet.family == 6 else [*fields, ("flag", "don't fragment")]


def _transport(packet: Packet) -> tuple[str, list[tuple[str, str]]]:
    if packet.proto in (TCP, UDP, SCTP):
        fields = [("from port", str(packet.sport)), ("to port", str(packet.dport))]
        if packet.proto == TCP:
            flags = (
                tcp_flags(packet.flags)
                .replace("S.", "SYN, ACK")
                .replace("R.", "RST, ACK")
                .replace("P.", "PSH, ACK")
            )
            flags = {"S": "SYN", "R": "RST", ".": "ACK"}.get(flags, flags)
            fields.append(("flags", flags))
        return proto_name(packet.proto).upper(), fields
    if packet.proto in (ICMP, ICMPV6):
        fields = [("says", icmp_name(packet))]
        if packet.icmp_id:
            fields.append(("id", str(packet.icmp_id)))
        if packet.quoted is not None:
            fields.append(("about", str(packet.quoted)))
        return "ICMP", fields
    return f"protocol {packet.proto}", []


def _raw_headers(thing: Frame | Packet | Arp, depth: int = 0) -> list[tuple[str, int, list[tuple[str, str]]]]:
    if isinstance(thing, Frame):
        tag = [("802.1Q", depth, [("VLAN", str(thing.vlan))])] if thing.vlan else []
        return [
            ("Ethernet", depth, [("from MAC", thing.src), ("to MAC", thing.dst)]),
            *tag,
            *_raw_headers(thing.body, depth),
        ]
    if isinstance(thing, Arp):
        return [("ARP", depth, [("says", str(thing))])]
    out = [("IPv6" if thing.family == 6 else "IPv4", depth, _ip_fields(thing))]
    name, fields = _transport(thing)
    out.append((name, depth, fields))
    if isinstance(thing.message, WireguardMessage):
        out.append(("WireGuard", depth, _sealed(thing.message)))
        if thing.inner is not None:
            out += _raw_headers(thing.inner.body, depth + 1)
    elif thing.inner is not None:
        if thing.proto != IPIP:
            option = [("option", str(thing.dsr))] if thing.dsr is not None else []
            out.append((tunnel_name(thing), depth, [("VNI", str(thing.vni)), *option]))
        out += _raw_headers(thing.inner, depth + 1)
    elif thing.payload_size or thing.payload:
        size = len(thing.payload) or thing.payload_size
        out.append(("Data", depth, [("size", f"{size} bytes")]))
    return out


def _sealed(message: WireguardMessage) -> list[tuple[str, str]]:
    """What of a WireGuard message everybody on the way can read; what is inside the packet only its peer can."""
    if message.type != 4:
        return [("says", str(message).removeprefix("WireGuard "))]
    return [
        ("type", "4, data"),
        ("receiver", f"{message.receiver:#010x}"),
        ("counter", str(message.counter)),
        ("inside", f"sealed, {message.length - 32} bytes"),
    ]


def headers(now: Frame | Packet | None, before: Frame | Packet | None = None) -> tuple[Header, ...]:
    """Return a packet's headers, outermost first, with what differs from `before` marked.

    Headers put around it are marked "added"; those taken off come first and are marked "removed".
    """
    if now is None:
        return ()
    new = _raw_headers(now)
    old = _raw_headers(before) if before is not None else new
    depth_new, depth_old = max(d for _, d, _ in new), max(d for _, d, _ in old)
    grown = depth_new - depth_old
    out: list[Header] = []
    if grown < 0:
        out += [
            Header(name, tuple(Field(*pair, REMOVED) for pair in fields), depth, REMOVED)
            for name, depth, fields in old
            if depth < -grown
        ]
    kept = {(name, depth + grown): dict(fields) for name, depth, fields in old if depth + grown >= 0}
    for name, depth, fields in new:
        shown = depth - grown if grown < 0 else depth
        earlier = kept.get((name, depth))
        if grown > 0 and depth < grown:
            out.append(Header(name, tuple(Field(*pair, ADDED) for pair in fields), shown, ADDED))
            continue
        marked = []
        for field, value in fields:
            was = earlier.get(field) if earlier is not None else value
            if was is None or was == value or (field == "length" and was == value):
                marked.append(Field(field, value))
            else:
                marked.append(Field(field, value, CHANGED, was))
        out.append(Header(name, tuple(marked), shown))
    return tuple(out)


def _entry_text(entry: Any) -> str:
    if entry is None or isinstance(entry, (Frame, Packet, Trace)):
        return ""
    if isinstance(entry, NftRef):
        return nft_words.entry_text(entry)
    if isinstance(entry, RuleRef):
        return f"-A {entry.chain} {entry.rule}" if entry.number else f"-P {entry.chain} {entry.rule}"
    if isinstance(entry, Socket):
        return words.socket_words(entry)
    if hasattr(entry, "kind") and hasattr(entry, "mtu"):
        return f"{entry.name} ({entry.kind}, MTU {entry.mtu})"
    return str(entry)


def _decided_text(entry: Any) -> str:
    """Return an entry with its chain, which a rule of nftables does not name."""
    return (
        f"{entry.table} {entry.chain}: {_entry_text(entry)}"
        if isinstance(entry, NftRef)
        else _entry_text(entry)
    )


def _rewrites(ref: RuleRef) -> bool:
    """True for a rule that has addresses rewritten."""
    if isinstance(ref, NftRef):
        return nft_words.rewrites(ref)
    return words.target_of(ref)[0] in ("DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP")


def _conntrack(kind: str, *texts: str) -> str:
    """Return the connection's row that a step names, whichever of its texts holds it."""
    return next((text for text in texts if "src=" in text), "") if kind in ("nat", "conntrack") else ""


def rows_of(
    trace: Trace, names: Mapping[str, str], leg: int = 0, first: int = 0, folded: bool = False
) -> list[StepRow]:
    """Return the rows of one packet; `folded` keeps its ordinary steps out of the story."""
    out: list[StepRow] = []
    current: Frame | Packet = trace.packet
    for number, hop in enumerate(trace.hops):
        rewrite = ("", "")
        for step in hop.steps:
            entry, shown = _entry_text(step.entry), current
            conntrack = _conntrack(step.kind, entry, step.note)
            entry = "" if entry == conntrack else entry
            if step.kind == "rule" and isinstance(step.entry, RuleRef):
                if _rewrites(step.entry):
                    rewrite = (entry, words.command(step, hop, trace.packet))
            if isinstance(step.entry, Frame):
                current = step.entry
            elif step.after is not None:
                current = _inside(current, step.before, step.after)
            inner = current.body if isinstance(current, Frame) else current
            command = words.command(step, hop, inner if isinstance(inner, Packet) else hop.packet)
            if step.kind == "nat" and rewrite[0] and not entry:
                (entry, command), rewrite = rewrite, ("", "")
            sentence = words.sentence(step, hop, names)
            if step.kind == "transmit" and (used := _ttl_used(shown, current)):
                sentence += f" Its TTL went from {used[0]} to {used[1]}: it was passed on once more."
            comparable = (
                shown if isinstance(shown, Frame) == isinstance(current, Frame) else _bare(shown, current)
            )
            out.append(
                StepRow(
                    first + len(out),
                    leg,
                    number,
                    hop.netns,
                    step.spot,
                    step.kind,
                    words.place_name(hop.netns),
                    words.LAYERS.get(step.kind, "links"),
                    not folded and words.is_main(step, hop),
                    words.title(step, trace),
                    sentence,
                    entry,
                    command,
                    conntrack,
                    headers(current, comparable),
                    hop.encapsulated,
                )
            )
    return out


def _inside(current: Frame | Packet, before: Packet | None, after: Packet) -> Frame | Packet:
    """Return what is on its way after a step: the frame of an opened letter, or this frame with its new packet."""
    if before is not None and before.inner is not None and before.inner.body == after:
        return before.inner
    if (
        isinstance(current, Frame)
        and isinstance(current.body, Packet)
        and before == current.body
        and after.inner is None
    ):
        return Frame(current.src, current.dst, after, current.vlan)
    return after


def _ttl_used(shown: Frame | Packet, current: Frame | Packet) -> tuple[int, int] | None:
    """Return (before, after) where the TTL of one and the same packet went down."""
    old = shown.body if isinstance(shown, Frame) else shown
    new = current.body if isinstance(current, Frame) else current
    if (
        not isinstance(old, Packet)
        or not isinstance(new, Packet)
        or (old.inner is None) != (new.inner is None)
    ):
        return None
    return (old.ttl, new.ttl) if old.ttl > new.ttl else None


def _bare(shown: Frame | Packet, current: Frame | Packet) -> Frame | Packet:
    """Return the earlier state in the form of the present one, so that only real changes are marked."""
    if isinstance(current, Frame):
        return Frame(current.src, current.dst, shown) if isinstance(shown, Packet) else shown
    return shown.body if isinstance(shown, Frame) and isinstance(shown.body, Packet) else shown


def _call_title(trace: Trace, number: int) -> str:
    if trace.role == "request":
        return "The call" if number == 0 else "The next call"
    titles = {
        "reply": "The answer",
        "error": "An error comes back",
        "data": "The connection goes on",
        "onward": "The proxy opens a connection of its own",
    }
    return titles.get(trace.role, trace.role)


def legs_of(trip: Trip) -> list[Leg]:
    """Return every packet of a trip with its title: the name lookup's first."""
    out: list[Leg] = []
    lookup = set()
    for number, query in enumerate(trip.queries, 1):
        for trace in query.traces:
            lookup.add(id(trace))
            what = {"request": "question", "reply": "answer"}.get(trace.role, trace.role)
            out.append(Leg(f"Name lookup {number}: {what}", trace.role, trace, str(query)))
    calls = [trace for trace in trip.traces if id(trace) not in lookup]
    return out + [Leg(_call_title(trace, number), trace.role, trace) for number, trace in enumerate(calls)]


def story(trip: Trip, names: Mapping[str, str] | None = None) -> Story:
    """Return a trip as rows and sentences. `names` (address -> label) adds pods, Services and nodes."""
    names = trip.names if names is None else names
    legs = legs_of(trip)
    rows: list[StepRow] = []
    for number, leg in enumerate(legs):
        decisive = trip.exchange is None and any(leg.trace is trace for trace in trip.queries[-1].traces)
        folded = leg.trace.delivered if leg.role == "data" else bool(leg.lookup) and not decisive
        rows += rows_of(leg.trace, names, number, len(rows), folded)
    decided = trip.decided_by
    return Story(
        _headline(trip),
        trip.verdict,
        trip.delivered,
        _why(trip, names),
        "" if decided is None else _decided_text(decided),
        words.spot_words(trip.place),
        _lookups(trip, names),
        tuple(legs),
        tuple(rows),
        needed(trip, names),
    )


def _headline(trip: Trip) -> str:
    caller = words.place_name(trip.source) if "/" in trip.source else trip.source
    verb = "pinged" if trip.protocol == "icmp" else "called"
    if trip.delivered:
        answered = words.place_name(trip.server) if trip.server else "somebody"
        return f"{caller} {verb} {trip.target}: {trip.verdict}, {answered} answered"
    return f"{caller} {verb} {trip.target}: {trip.verdict}"


def _lookups(trip: Trip, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return each question with its answer, and how often it was asked where that is more than once."""
    asked = Counter(_lookup(query, names) for query in trip.queries)
    return tuple(words if count == 1 else f"{words} (asked {count} times)" for words, count in asked.items())


def _lookup(query: Query, names: Mapping[str, str]) -> str:
    answer = ", ".join(query.answers) or ("no such record" if query.rcode == "NOERROR" else query.rcode)
    return f"{query.name} {query.type}, asked of {words.who(query.server, names)}: {answer}"


def _why(trip: Trip, names: Mapping[str, str]) -> str:
    if trip.delivered and trip.source_seen:
        server = words.place_name(trip.server) if trip.server else "the server"
        return f"{server} saw the call come from {words.who(trip.source_seen, names)}"
    return trip.why
