"""What a packet's way costs: time and throughput derived from the steps of its trace.

Every number comes from a run on a real kernel. `run.json` is a recorded one: round trips of pings between the pods and
nodes of the shop, made in network namespaces under several pod networks, beside the steps that the model counts for the
same ping. A price for each kind of step is fitted to them (`fit`); `python -m tests.benchmarks.hops` measures anew on
this machine, and fits again. A kind of step that no run priced has no price, and is said to be not measured.

BPF programs were ours (`tests/benchmarks/bpf.py`): each decision looks up a map of the kinds that Cilium's
look up. Cilium's also count, and write down connections, so that theirs cost at least this. IPVS is `ESTIMATED`.
WireGuard has no price: no kernel that has it was there to measure what its ciphers take.

Prices are of the best case: the kernel's own work, with warm caches, on one processor, and nobody to be woken. What a
program needs to wake up and to think is not in them (`calls` has what programs waited). The namespaces have no network
cards and no distance: what a cable and a card add is `Wire`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.packet.packet import WireguardMessage, endpoint

if TYPE_CHECKING:
    from kubenet_lab.trace import Trace
    from kubenet_lab.trip import Trip

RUN = Path(__file__).with_name("run.json")
KINDS: dict[str, str] = {
    "packet": "a packet made by one side and taken by the other",
    "link": "a link crossed, with the look-ups before it",
    "tracked": "a packet looked up in conntrack",
    "connection": "a connection new to conntrack",
    "rule": "a netfilter rule compared in vain",
    "match": "a netfilter rule that matched",
    "nat": "an address rewritten",
    "tunnel": "an outer packet put on or taken off",
    "program": "a BPF program begun",
    "bpf": "a decision of a BPF program: a map looked up",
    "ipvs": "a packet taken by IPVS",
}
"""Kinds of steps that cost something, and what each is.

A routing decision, a neighbour looked up and a bridge's decision come before a link: no run tells them apart.
"""
UNMEASURED = {"sealed": "a packet sealed or opened by WireGuard"}
"""Kinds that no run can price yet: no kernel that has them was there."""
_OF_STEP = {
    "transmit": "link",
    "rule": "match",
    "nat": "nat",
    "encapsulate": "tunnel",
    "decapsulate": "tunnel",
    "bpf": "bpf",
    "ipvs": "ipvs",
}
ESTIMATED: dict[str, tuple[str, str]] = {
    "ipvs": (
        "nat",
        "no kernel with IPVS was there to measure it; with address translation, LVS and nftables balance about as many "
        "requests a second (P. Neira, L. Garcia, Netdev 1.2, 2016), so it is taken to cost what an address rewritten "
        "by conntrack costs",
    )
}
"""Kinds that no run priced -> whose price they are taken to have, and why."""
_LOOKED_UP = ("new", "original", "reply", "related")
LARGEST_SEGMENT = 65_536
"""Bytes a kernel hands through its stack at once where cards or veths take segments that large (GSO)."""
FIBRE_US_PER_KM = 4.9
"""Light in glass: 300,000 km/s divided by a refractive index of about 1.47."""
HEADERS = {"ethernet": 14, "ip": 20, "tcp": 20}


class Measured(Struct, frozen=True):
    """One round trip: which world and way, the best time in us, and how often each kind of step happened."""

    network: str
    proxy: str
    way: str
    packet: str
    """"first" of its connection, or a "later" one."""
    us: float
    steps: dict[str, int]
    services: int = 0
    """Services the node's rules know, where the row is about their number."""


class Call(Struct, frozen=True):
    """What a program in a pod waited for one in another, medians in us. Both sleep until they are woken."""

    network: str
    way: str
    connect_us: float
    """connect(): the handshake, done by the two kernels."""
    request_us: float
    """A request and its answer on an open connection."""


class Stream(Struct, frozen=True):
    """One TCP stream between programs in two pods: Mbit/s of data that arrived, the median of some tries."""

    network: str
    way: str
    """"same node" or "other node"."""
    mbit_s: float
    large_segments: bool = True
    """Whether the stacks handed on up to 64 KiB at once (GSO), or single packets."""


class Prices(Struct, frozen=True):
    """Microseconds for each kind of step, and how well they explain the run they were fitted to.

    `usual` is the relative error of the middle one of all ways, `worst` the largest. A kind in `estimated` was not
    measured: what its price rests on.
    """

    us: dict[str, float]
    usual: float = 0.0
    worst: float = 0.0
    source: str = ""
    estimated: dict[str, str] = {}

    def shown(self, kind: str) -> str:
        """The price of a step as text: "0.455", "about 0.517" where it is an estimate, or "not measured"."""
        if kind not in self.us:
            return "not measured"
        return f"{'about ' if kind in self.estimated else ''}{self.us[kind]:.3f}"

    def text(self) -> str:
        """A table: what a step costs, in us, and the source; kinds that no run had are not measured."""
        rows = [
            f"{kind:11} {KINDS[kind]:50} {self.shown(kind)}{' us' if kind in self.us else ''}"
            for kind in KINDS
        ]
        found = f"fitted to: {self.source or 'round trips measured here'}"
        return "\n".join(
            [
                *rows,
                f"{found}; half of the ways within {self.usual:.0%}, the worst off by {self.worst:.0%}",
                *(f"about: {KINDS[kind]}: {why}" for kind, why in self.estimated.items()),
            ]
        )

    def __str__(self) -> str:
        return self.text()


class Share(Struct, frozen=True):
    """What one kind of step contributes: how many, at what price; None where nothing priced it."""

    kind: str
    count: int
    us: float | None
    estimated: bool = False
    """Whether the price is an estimate (`Prices.estimated`)."""


class Latency(Struct, frozen=True):
    """Time of a way in us, by kind of step; `wire_us` is what cables and cards add."""

    shares: tuple[Share, ...]
    wire_us: float = 0.0

    @property
    def us(self) -> float:
        """The sum of all that has a price."""
        return self.wire_us + sum(share.us for share in self.shares if share.us is not None)

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Kinds of steps on this way that no measurement priced."""
        return tuple(share.kind for share in self.shares if share.us is None)

    @property
    def estimated(self) -> tuple[str, ...]:
        """Kinds of steps on this way whose price is an estimate."""
        return tuple(share.kind for share in self.shares if share.estimated)

    def text(self) -> str:
        """Lines: count, what, us; then the sum, which says what is not in it."""
        rows = [
            (
                f"{share.count:,} x {(KINDS | UNMEASURED)[share.kind]}",
                _us(share.us) + (", an estimate" if share.estimated else ""),
            )
            for share in self.shares
        ]
        if self.wire_us:
            rows.append(("the wire", _us(self.wire_us)))
        missing = f" and {len(self.unpriced)} not measured" if self.unpriced else ""
        rows.append(("in all", _us(self.us) + missing))
        return "\n".join(f"{what:54} {price}" for what, price in rows)

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """Return the times as a JSON-ready document; `us` of a step nobody measured is null."""
        return {
            "us": round(self.us, 3),
            "wire_us": round(self.wire_us, 3),
            "steps": [{"kind": s.kind, "count": s.count, "us": s.us} for s in self.shares],
            "not_measured": list(self.unpriced),
            "estimated": list(self.estimated),
        }


def _us(us: float | None) -> str:
    return "not measured" if us is None else f"{us:9,.2f} us"


class Budget(Struct, frozen=True):
    """Where the time of one call goes: title -> time, the look-ups of its name first."""

    parts: dict[str, Latency]

    @property
    def us(self) -> float:
        """The sum of all that has a price."""
        return sum(part.us for part in self.parts.values())

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Kinds of steps that no measurement priced."""
        return tuple(
            kind
            for kind in (*KINDS, *UNMEASURED)
            if any(kind in part.unpriced for part in self.parts.values())
        )

    @property
    def estimated(self) -> tuple[str, ...]:
        """Kinds of steps whose price is an estimate."""
        return tuple(kind for kind in KINDS if any(kind in part.estimated for part in self.parts.values()))

    def text(self) -> str:
        """Every part with its steps, then the sum."""
        lines = []
        for title, part in self.parts.items():
            lines += [title, *("  " + line for line in part.text().splitlines())]
        return "\n".join([*lines, f"{'the kernels of the whole call, at best':56} {_us(self.us)}"])

    def __str__(self) -> str:
        return self.text()

    def to_json(self) -> dict[str, Any]:
        """Return the budget as a JSON-ready document."""
        return {
            "us": round(self.us, 3),
            "not_measured": list(self.unpriced),
            "estimated": list(self.estimated),
            "parts": [{"title": title, **part.to_json()} for title, part in self.parts.items()],
        }


class Wire(Struct, frozen=True):
    """What stands between two nodes: distance in km, rate in Mbit/s, us a card and its switch add each way."""

    km: float = 0.0
    mbit_s: float = 25_000.0
    cards_us: float = 0.0

    @property
    def one_way_us(self) -> float:
        """Time one packet spends outside the kernels, us."""
        return self.km * FIBRE_US_PER_KM + self.cards_us


def counts(traces: Iterable[Trace]) -> dict[str, int]:
    """Return how often each kind of step happened to these packets."""
    found: Counter[str] = Counter()
    for trace in traces:
        found["packet"] += 1
        found["rule"] += trace.rules_tried
        for hop in trace.hops:
            running = ""
            for step in hop.steps:
                kind = _OF_STEP.get(step.kind)
                if kind == "tunnel" and any(
                    packet is not None and isinstance(packet.message, WireguardMessage)
                    for packet in (step.before, step.after)
                ):
                    kind = "sealed"
                if kind is not None:
                    found[kind] += 1
                    if kind == "bpf" and step.spot != running:
                        running = step.spot
                        found["program"] += 1
                elif step.kind == "conntrack" and step.spot in _LOOKED_UP:
                    found["tracked"] += 1
                    found["connection"] += step.spot == "new"
    found["rule"] = max(0, found["rule"] - found["match"])
    return {kind: found[kind] for kind in (*KINDS, *UNMEASURED) if found[kind]}


def latency(traces: Iterable[Trace], prices: Prices | None = None, wire: Wire | None = None) -> Latency:
    """Return the time these packets take one after the other: a request and its reply make a round trip.

    `wire` is counted once for each packet that goes from one machine to another.
    """
    packets = list(traces)
    known = prices or recorded()
    shares = tuple(
        Share(
            kind,
            count,
            round(count * known.us[kind], 3) if kind in known.us else None,
            kind in known.estimated,
        )
        for kind, count in counts(packets).items()
    )
    crossings = sum(
        len({hop.host for hop in trace.hops}) - 1
        for trace in packets
        if len({hop.host for hop in trace.hops}) > 1
    )
    return Latency(shares, crossings * wire.one_way_us if wire is not None else 0.0)


def of_trip(trip: Trip, prices: Prices | None = None, wire: Wire | None = None) -> Budget:
    """Return where the time of one call goes in the kernels: each question for its name, then the call itself.

    What programs do (CoreDNS, the server) and what they wait for is not in it. A question asked twice
    has two parts.
    """
    parts: dict[str, Latency] = {}
    for number, query in enumerate(trip.queries, 1):
        parts[f"question {number}: {query.name} {query.type}"] = latency(query.traces, prices, wire)
    if trip.exchange is not None:
        parts[f"the call to {endpoint(trip.address, trip.port)}"] = latency(
            trip.exchange.traces, prices, wire
        )
    return Budget(parts)


class Throughput(Struct, frozen=True):
    """Mbit/s of one TCP stream, and what limits it: "wire" or "processor"."""

    mbit_s: float
    limit: str
    share_of_data: float
    """Of a full packet on the wire, the part that is the programs' own data."""


def throughput(
    trace: Trace,
    *,
    mtu: int,
    wire: Wire | None = None,
    large_segments: bool = True,
    prices: Prices | None = None,
) -> Throughput:
    """Return what one TCP stream along the way of `trace` reaches.

    The processor pays the way once for each segment and copies each byte at both ends; with `large_segments` a segment
    has 64 KiB, else it is one packet of `mtu` bytes (a tunnel that no card helps with). Streams recorded in a kernel
    came to within a quarter of this with large segments; with single packets they were up to 1.6 times as fast, since a
    kernel handles packets in batches.
    """
    data = mtu - HEADERS["ip"] - HEADERS["tcp"]
    segment = LARGEST_SEGMENT if large_segments else data
    us = latency([trace], prices).us + segment * copy_us_per_byte()
    processor = segment * 8 / us
    crossed = len({hop.host for hop in trace.hops}) > 1
    outer = max((hop.packet.length for hop in trace.hops if hop.packet.inner is not None), default=0)
    inner = trace.hops[0].packet.length if trace.hops else 0
    whole = mtu + (outer - inner if outer else 0) + HEADERS["ethernet"]
    share = data / whole
    limit = wire.mbit_s * share if wire is not None and crossed else float("inf")
    if limit < processor:
        return Throughput(round(limit, 1), "wire", share)
    return Throughput(round(processor, 1), "processor", share)


@cache
def run() -> tuple[Measured, ...]:
    """Return the recorded run."""
    return tuple(_measured(row) for row in json.loads(RUN.read_text(encoding="utf-8"))["rows"])


def _measured(row: Mapping[str, object]) -> Measured:
    from msgspec import convert

    return convert(row, Measured)


@cache
def calls() -> tuple[Call, ...]:
    """Return what programs waited in the recorded run."""
    from msgspec import convert

    return tuple(convert(row, Call) for row in json.loads(RUN.read_text(encoding="utf-8"))["calls"])


@cache
def streams() -> tuple[Stream, ...]:
    """Return the TCP streams of the recorded run."""
    from msgspec import convert

    return tuple(convert(row, Stream) for row in json.loads(RUN.read_text(encoding="utf-8"))["streams"])


@cache
def copy_us_per_byte() -> float:
    """Return what it takes to copy and check a byte at both ends, us.

    From the recorded streams between two pods of a node: what is left of their time when each segment's way is paid.
    """
    same = [stream.mbit_s for stream in streams() if stream.way == "same node" and stream.large_segments]
    [way] = [
        row
        for row in run()
        if (row.network, row.proxy, row.way, row.packet)
        == ("flannel", "iptables", "pod to pod, same node", "later")
    ]
    price = recorded().us
    one_way = sum(price[kind] * count for kind, count in way.steps.items()) / 2
    return (LARGEST_SEGMENT * 8 * len(same) / sum(same) - one_way) / LARGEST_SEGMENT


@cache
def recorded() -> Prices:
    """Return the prices of the recorded run, and estimates for what it could not have."""
    from msgspec.structs import replace

    about = json.loads(RUN.read_text(encoding="utf-8"))["about"]
    found = fit(run(), source=about)
    rest = {kind: like for kind, (like, _why) in ESTIMATED.items() if kind not in found.us}
    return replace(
        found,
        us={**found.us, **{kind: found.us[like] for kind, like in rest.items()}},
        estimated={kind: ESTIMATED[kind][1] for kind in rest},
    )


def fit(rows: Sequence[Measured], source: str = "") -> Prices:
    """Return the prices that explain these round trips best, none below zero.

    The least sum of relative errors, so that short ways count as much as long ones; not of their squares, so that a way
    measured in a busy moment counts little. Only kinds that occur in the rows get a price. Raises ValueError without
    rows.
    """
    if not rows:
        raise ValueError("nothing was measured")
    kinds = [kind for kind in KINDS if any(row.steps.get(kind) for row in rows)]
    table = [[row.steps.get(kind, 0) / row.us for kind in kinds] for row in rows]
    weights = [1.0] * len(rows)
    price = [0.0] * len(kinds)
    for _ in range(REWEIGHTED):
        price = _least_squares(table, weights, price)
        errors = [sum(p * x for p, x in zip(price, row, strict=True)) - 1 for row in table]
        weights = [1 / max(abs(error), NEAR) for error in errors]
    found = dict(zip(kinds, price, strict=True))
    off = sorted(abs(error) for error in errors)
    usual = off[len(off) // 2]
    return Prices({k: round(v, 4) for k, v in found.items()}, round(usual, 3), round(off[-1], 3), source)


REWEIGHTED, NEAR = 12, 0.03
"""Rounds of weighted least squares, and the relative error below which all rows count alike."""


def _least_squares(
    table: Sequence[Sequence[float]], weights: Sequence[float], start: Sequence[float]
) -> list[float]:
    """Prices at or above zero that make every row of the table 1, by coordinate descent from `start`."""
    size = range(len(start))
    both = [(row, weight) for row, weight in zip(table, weights, strict=True)]
    square = [[sum(w * row[i] * row[j] for row, w in both) for j in size] for i in size]
    right = [sum(w * row[i] for row, w in both) for i in size]
    price = list(start)
    for _ in range(5000):
        before = list(price)
        for i in size:
            rest = sum(square[i][j] * price[j] for j in size if j != i)
            price[i] = max(0.0, (right[i] - rest) / square[i][i])
        if max(abs(a - b) for a, b in zip(price, before, strict=True)) < 1e-9:
            break
    return price
