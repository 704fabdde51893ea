"""The same flows through the model and through the kernel, side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow as Entry
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import canonical
from kubenet_lab.packet.packet import (
    ICMP,
    ICMPV6,
    PROTO_NAMES,
    PROTO_NUMBERS,
    SCTP,
    SCTP_INIT,
    SYN,
    TCP,
    UDP,
    Packet,
    endpoint,
    sctp_chunk,
)
from kubenet_lab.twin.flow import Comparison, Flow, IcmpError, Outcome, Tracked

if TYPE_CHECKING:
    from kubenet_lab.twin.twin import Twin

MAX_BRANCHES = 256
"""Outcomes of random rules that are followed for one flow."""

TIMED_OUT = "timed out"
PATIENCE = 5
"""How many times as long one waits again for an answer that is expected and did not come."""
_PROBE = b"PROBE 00000000\n"


def compare(twin: Twin, flows: list[Flow], timeout: float) -> list[Comparison]:
    """Try each flow in both. See `Twin.compare`."""
    flows = [replace(flow, ns=twin.find(flow.ns), dst=canonical(flow.dst)) for flow in flows]
    expected = [model_outcomes(twin.network, flow) for flow in flows]
    measured = kernel_outcomes(twin, flows, timeout)
    # On a busy machine an answer may take longer than anybody waits. Who expected one waits for it once more.
    late = [
        number
        for number, (outcomes, _trace) in enumerate(expected)
        if any(one.end == TIMED_OUT for one in measured[number])
        and all(one.end != TIMED_OUT for one in outcomes)
    ]
    if late:
        again = kernel_outcomes(twin, [flows[number] for number in late], timeout * PATIENCE)
        for number, seen in zip(late, again, strict=True):
            measured[number] = seen
    return [
        Comparison(flow, tuple(outcomes), tuple(seen), trace)
        for flow, (outcomes, trace), seen in zip(flows, expected, measured, strict=True)
    ]


# -- the model ------------------------------------------------------------------------------------------


def packet_of(flow: Flow) -> tuple[Packet, dict[str, Any]]:
    """Return a flow's first packet, and what its socket asks of `Walk.send`."""
    ttl = flow.ttl or 64
    asked: dict[str, Any] = {"mark": flow.mark}
    if flow.proto == TCP:
        return Packet(flow.src, flow.dst, TCP, 0, flow.port, ttl, flags=SYN, mss=1460), asked
    if flow.proto == SCTP:
        return Packet(flow.src, flow.dst, SCTP, 0, flow.port, ttl, payload=sctp_chunk(SCTP_INIT)), asked
    asked["pmtudisc"] = "do" if flow.df else "dont"
    if flow.proto == UDP:
        payload = flow.payload or _PROBE
        payload += bytes(max(0, flow.size - len(payload)))
        return Packet(flow.src, flow.dst, UDP, 0, flow.port, ttl, payload=payload), asked
    kind = 128 if flow.proto == ICMPV6 else 8
    return Packet(
        flow.src,
        flow.dst,
        flow.proto,
        ttl=ttl,
        icmp_type=kind,
        icmp_id=0x4001,
        icmp_seq=1,
        payload_size=flow.size,
    ), asked


def model_outcomes(network: Network, flow: Flow) -> tuple[list[Outcome], str]:
    """Follow a flow through the model along every branch of its random rules, and leave the model as it was.

    Returns the distinct outcomes, and the first branch's traces as text.
    """
    from kubenet_lab.walk.engine import Walk
    from kubenet_lab.walk.exchange import exchange

    found: dict[tuple[object, ...], Outcome] = {}
    text = ""
    branches: list[tuple[bool, ...]] = [()]
    tunnels = _tunnel_ports(network)
    packet, asked = packet_of(flow)
    for _ in range(MAX_BRANCHES):
        if not branches:
            break
        prefix = branches.pop()
        taken: list[bool] = []

        def choose(
            _rule: Any, probability: float, taken: list[bool] = taken, prefix: tuple[bool, ...] = prefix
        ) -> bool:
            if probability >= 1 or probability <= 0:
                return probability >= 1
            number = len(taken)
            if number >= len(prefix):
                branches.append((*taken, True))
            taken.append(number < len(prefix) and prefix[number])
            return taken[-1]

        before = network.snapshot()
        try:
            for ns in network.netns.values():
                ns.conntrack.flush()
            walk = Walk(network, choose=choose)
            met = exchange(walk, flow.ns, packet, **asked)
            entries = [
                _normal(Seen(ns.name, e.orig[0], e.orig[1:5], e.reply[1:5], e.seen_reply))
                for ns in network.netns.values()
                for e in ns.conntrack
                if not _outer(e, tunnels)
            ]
        finally:
            network.restore(before)
        error = met.answer if met.answer is not None and met.answer.quoted is not None else None
        icmp = IcmpError(error.icmp_type, error.icmp_code, error.src, error.icmp_mtu) if error else None
        ends = tuple(sorted(entries))
        outcome = Outcome(met.verdict, met.server_ns, met.source_seen, icmp, ends, met.errno)
        found.setdefault(outcome.key, outcome)
        text = text or "\n".join(trace.text() for trace in met.traces)
    return list(found.values()), text


def _tunnel_ports(network: Network) -> set[int]:
    """The UDP ports of VXLAN and WireGuard devices."""
    links = [link for ns in network.netns.values() for link in ns.links.values()]
    return {link.vxlan.port for link in links if link.vxlan} | {
        link.wireguard.port for link in links if link.wireguard
    }


def _outer(entry: Entry, tunnels: set[int]) -> bool:
    """True for the tunnel's own packets, which a node tracks too, by a source port made from a hash."""
    return entry.orig[0] == UDP and entry.orig[4] in tunnels


# -- the kernel -----------------------------------------------------------------------------------------


def kernel_outcomes(twin: Twin, flows: list[Flow], timeout: float) -> list[list[Outcome]]:
    """Send each flow's packets in the twin and say what every attempt met."""
    nodes = [name for name, ns in twin.network.netns.items() if _tracks(ns)]
    twin.exec([(name, ["conntrack", "-F"], "") for name in nodes])
    results = twin.call("probe", flows=[_request(flow, timeout) for flow in flows])
    tunnels = _tunnel_ports(twin.network)
    seen = [e for e in read_conntrack(twin, nodes) if not (e.proto == UDP and e.orig[3] in tunnels)]
    return [
        [_outcome(twin, flow, result, seen) for result in group]
        for flow, group in zip(flows, results, strict=True)
    ]


def _tracks(ns: Netns) -> bool:
    return ns.has_nftables or any(ruleset.tables for ruleset in ns.iptables.values())


_SENT = ("ns", "dst", "port", "proto", "size", "df", "ttl", "mark", "src", "count")


def _request(flow: Flow, timeout: float) -> dict[str, Any]:
    return {
        **{name: getattr(flow, name) for name in _SENT},
        "sport": 0,
        "payload": flow.payload.hex(),
        "timeout": timeout,
    }


def _outcome(twin: Twin, flow: Flow, result: dict[str, Any], seen: list[Seen]) -> Outcome:
    end = result["end"]
    error = IcmpError(*result["icmp"]) if result["icmp"] else None
    if error is not None and error.type == (3 if ":" in flow.dst else 11):
        end = "ttl exceeded"
    server, source = result["server"], result["source_seen"]
    own = {a.local for a in twin.network.ns(flow.ns).addrs()}
    chain = _related(result["local"], flow, seen, own)
    if flow.proto in (ICMP, ICMPV6) and end == "answered":
        # The kernel answers a ping itself, so no server can say who asked; the last node's conntrack can.
        pinged, source = chain[-1].reply[:2] if chain else (flow.dst, str(result["local"][0]))
        owner = (
            flow.ns if pinged.startswith("127.") else getattr(twin.network.find_address(pinged), "name", "")
        )
        server = owner
    entries = tuple(sorted(_normal(entry) for entry in chain))
    return Outcome(end, server, source, error, entries, result["errno"])


class Seen(NamedTuple):
    """A conntrack entry; a tuple is (source, destination, its port or ICMP id, port or type << 8 | code)."""

    ns: str
    proto: int
    orig: tuple[str, str, int, int]
    reply: tuple[str, str, int, int]
    replied: bool


def read_conntrack(twin: Twin, names: Iterable[str]) -> list[Seen]:
    """`conntrack -L` of both families in some namespaces."""
    commands = [
        (name, ["conntrack", "-L", "-f", family], "") for name in names for family in ("ipv4", "ipv6")
    ]
    return [
        entry
        for (name, *_), done in zip(commands, twin.exec(commands), strict=True)
        for entry in parse(name, done.stdout)
    ]


_WORD = re.compile(r"(src|dst|sport|dport|type|code|id)=(\S+)")


def parse(ns: str, text: str) -> list[Seen]:
    """Return the entries in the text of `conntrack -L`."""
    out = []
    for line in text.splitlines():
        sides: list[dict[str, str]] = [{}, {}]
        side = -1
        for key, value in _WORD.findall(line):
            side += key == "src"
            sides[side][key] = value
        first, second = (
            (s["src"], s["dst"], int(s.get("sport") or s.get("id") or 0), _second(s)) for s in sides
        )
        out.append(Seen(ns, PROTO_NUMBERS.get(line.split()[0], 0), first, second, "[UNREPLIED]" not in line))
    return out


def _second(side: dict[str, str]) -> int:
    return int(side["dport"]) if "dport" in side else int(side.get("type", 0)) << 8 | int(side.get("code", 0))


def _related(local: list[Any], flow: Flow, seen: list[Seen], own: set[str]) -> list[Seen]:
    """Return the entries of one conversation: from its socket on, through every translation on the way.

    A socket that could not connect does not say its address; it is one of its namespace's `own`.
    """
    address, port = local
    ping = flow.proto in (ICMP, ICMPV6)
    wanted: set[tuple[str, str, int, int]] = {(address, flow.dst, port, 0 if ping else flow.port)}
    out: list[Seen] = []
    left = [e for e in seen if e.proto == flow.proto]

    def key(e: Seen) -> tuple[str, str, int, int]:
        unbound = address in ("0.0.0.0", "::") and e.orig[0] in own
        source = address if unbound and e.orig[1:3] == (flow.dst, port) else e.orig[0]
        return (source, e.orig[1], e.orig[2], 0 if ping else e.orig[3])

    while True:
        step = [e for e in left if key(e) in wanted]
        if not step:
            return out
        out += step
        left = [e for e in left if e not in step]
        for e in step:
            wanted.add((e.reply[1], e.reply[0], e.reply[2], 0) if ping else _turned(e.reply))


def _turned(t: tuple[str, str, int, int]) -> tuple[str, str, int, int]:
    return (t[1], t[0], t[3], t[2])


def _normal(entry: Seen) -> Tracked:
    name = PROTO_NAMES.get(entry.proto, str(entry.proto))

    def side(t: tuple[str, str, int, int], reply: bool) -> str:
        if entry.proto in (ICMP, ICMPV6):
            return f"{t[0]} > {t[1]} type {t[3] >> 8}"
        ends = (
            endpoint(t[0], t[2]) if reply else f"{t[0]}:*",
            f"{t[1]}:*" if reply else endpoint(t[1], t[3]),
        )
        return f"{ends[0]} > {ends[1]}"

    return Tracked(entry.ns, f"{name} {side(entry.orig, False)}", side(entry.reply, True), entry.replied)
