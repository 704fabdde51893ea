"""`conntrack -L`: flows as text, both ways (conntrack-tools 1.4.7, libnetfilter_conntrack
`snprintf_default.c`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.conntrack import Flow, FlowTuple
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.packet.packet import ICMP, ICMPV6, PROTO_NAMES, PROTO_NUMBERS, TCP, UDP

TCP_STATES = (
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
)


def line(flow: Flow, now: float = 0.0, *, extended: bool = False, ident: bool = False) -> str:
    """Return one flow as `conntrack -L [-o extended,id]` prints it; `now` gives the seconds it has left."""

    def side(t: FlowTuple) -> str:
        head = f"src={t[1]} dst={t[2]}"
        if t[0] in (ICMP, ICMPV6):
            return f"{head} type={t[4] >> 8} code={t[4] & 255} id={t[3]}"
        return f"{head} sport={t[3]} dport={t[4]}" if t[0] in (TCP, UDP) or t[3] or t[4] else head

    proto = flow.orig[0]
    words = []
    if extended:
        words.append("ipv6     10" if ":" in flow.orig[1] else "ipv4     2")
    words.append(f"{PROTO_NAMES.get(proto, 'unknown'):<8} {proto} {max(0, int(flow.expires - now))}")
    if flow.state:
        words.append(flow.state)
    words.append(side(flow.orig))
    if not flow.seen_reply:
        words.append("[UNREPLIED]")
    words.append(side(flow.reply))
    if flow.assured:
        words.append("[ASSURED]")
    words.append(f"mark={flow.mark}")
    if flow.zone:
        words.append(f"zone={flow.zone}")
    words.append("use=1")
    if ident:
        words.append(f"id={flow.id}")
    return " ".join(words)


def show(flows: Iterable[Flow], now: float = 0.0, *, extended: bool = False, ident: bool = False) -> str:
    """Return flows one a line, in the order given (the kernel's own is that of a hash with a random seed)."""
    return "".join(line(flow, now, extended=extended, ident=ident) + "\n" for flow in flows)


_PAIR = re.compile(r"([a-z_-]+)=(\S+)")


def _read(items: Words, now: float, notes: Unmodelled, at: int) -> Flow:
    if items.peek() in ("ipv4", "ipv6"):
        items.take("family")
        items.take("family number")
    name = items.take("protocol")
    proto = items.number("protocol number")
    if PROTO_NUMBERS.get(name, proto) != proto:
        raise Wrong(f"{name} is protocol {PROTO_NUMBERS[name]}, not {proto}", "protocol")
    fields: dict[str, Any] = {"expires": now + items.number("timeout"), "seen_reply": True, "confirmed": True}
    if items and "=" not in items.peek() and not items.peek().startswith("["):
        fields["state"] = items.take("state")
        if proto == TCP and fields["state"] not in TCP_STATES:
            raise Wrong(f"state must be one of {', '.join(TCP_STATES)}, not {fields['state']!r}", "state")
    sides: list[dict[str, str]] = []
    rest: dict[str, str] = {}
    while items:
        word = items.take("a field")
        if word == "[UNREPLIED]":
            fields["seen_reply"] = False
        elif word == "[ASSURED]":
            fields["assured"] = True
        elif word.startswith("["):
            notes.carry(word, at, "status")
        else:
            pair = _PAIR.fullmatch(word)
            if pair is None:
                raise Wrong(f"a field is written KEY=VALUE, not {word!r}", word)
            key, value = pair.groups()
            if key == "src":
                sides.append({})
            if key in ("mark", "zone", "use") or not sides:
                rest[key] = value
            elif key == "id" and ("id" in sides[-1] or proto not in (ICMP, ICMPV6)):
                rest["id"] = value
            elif key in ("src", "dst", "sport", "dport", "type", "code", "id") or key in ("packets", "bytes"):
                sides[-1][key] = value
            else:
                notes.carry(f"{key}={value}", at, key)
    if len(sides) != 2:
        raise Wrong(f"a flow has two directions, each beginning with src=; {len(sides)} found", "src")
    zone = iproute2.number(rest.get("zone", 0), "zone")
    orig, reply = (_tuple(side, proto, zone) for side in sides)
    packets = [iproute2.number(side.get("packets", 0), "packets") for side in sides]
    return Flow(
        orig=orig,
        reply=reply,
        mark=iproute2.number(rest.get("mark", 0), "mark"),
        id=iproute2.number(rest.get("id", 0), "id"),
        packets=packets,
        src_nat=reply[2] != orig[1] or (proto in (TCP, UDP) and reply[4] != orig[3]),
        dst_nat=reply[1] != orig[2] or (proto in (TCP, UDP) and reply[3] != orig[4]),
        src_nat_done=True,
        dst_nat_done=True,
        **fields,
    )


def _tuple(side: dict[str, str], proto: int, zone: int) -> FlowTuple:
    def get(key: str) -> int:
        return iproute2.number(iproute2.need(side, key), key)

    src, dst = (iproute2.address(iproute2.need(side, key), key) for key in ("src", "dst"))
    if proto in (ICMP, ICMPV6):
        return (proto, src, dst, get("id"), get("type") << 8 | get("code"), zone)
    ported = "sport" in side or proto in (TCP, UDP)
    return (proto, src, dst, get("sport") if ported else 0, get("dport") if ported else 0, zone)


def parse(
    text: str, *, now: float = 0.0, file: str = "<text>", unknown: list[Fault] | None = None
) -> list[Flow]:
    """Read the output of `conntrack -L` into flows, which expire so many seconds after `now`.

    Whether source or destination was translated is read off the two tuples, as the text does not say. The
    line with the number of entries, which the tool writes to standard error, may be there.

    Raises:
        InputError: With every fault; see `ip_route.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    out: list[Flow] = []
    for at, row in iproute2.lines_of(text):
        if row.startswith("conntrack v"):
            continue
        try:
            out.append(_read(Words(row), now, notes, at))
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
