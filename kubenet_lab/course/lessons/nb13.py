"""What notebook 13's cells call: one call there and back in eight stages, and connections that are spoken on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.steer import toward
from kubenet_lab.kernel.conntrack import Flow, FlowRecord
from kubenet_lab.kernel.dialects import conntrack
from kubenet_lab.packet.packet import ACK, PSH, SYN, TCP, Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.trace import Hop, RuleRef, Step, Trace
from kubenet_lab.views.theme import Box, Picture, Svg, wrap
from kubenet_lab.views.timeline import tail
from kubenet_lab.views.words import short
from kubenet_lab.walk.engine import Chooser, Walk
from kubenet_lab.walk.exchange import Exchange, exchange

NODE, CALLER, ADDRESS, PORT = "node-1", "default/frontend", "10.96.0.100", 80


# -- a connection that is spoken on -------------------------------------------------------------------------------


class Talk:
    """An open connection from frontend to the Service, with the backend on a node; each may say more."""

    def __init__(self, world: Cluster, node: str = "node-2") -> None:
        self.world = world
        self.node = node
        self.pod = backend_on(world, node)
        self.walk: Walk = world.walk(toward(world, self.pod.ips[0]))
        self.opened: Exchange = exchange(
            self.walk, CALLER, Packet("", ADDRESS, TCP, 0, PORT, flags=SYN, mss=1410)
        )
        seen = self.opened.request.delivered_as
        assert seen is not None
        self._sent = self.opened.request.hops[0].packet
        self._seen = seen

    @property
    def entry(self) -> Flow | None:
        """Its entry in the connection table of the caller's node."""
        port = self._sent.sport
        flows = self.world.network.ns(NODE).conntrack
        return next((flow for flow in flows if flow.orig[0] == TCP and flow.orig[3] == port), None)

    def ask(self, lead: Chooser | None = None) -> Trace:
        """Let frontend say something more on it; `lead` decides where rules choose anew."""
        self.walk.choose = lead or self.walk.choose
        packet = self._sent.replace(flags=PSH | ACK, seq=1, ack=1, payload=b"more?", mss=0)
        return self.walk.send(CALLER, packet, role="data")

    def answer(self) -> Trace:
        """Let the backend say something more on it."""
        one = self._seen
        packet = Packet(
            one.dst, one.src, TCP, one.dport, one.sport, flags=PSH | ACK, seq=1, ack=6, payload=b"yes."
        )
        return self.walk.send(self.opened.server_ns, packet, role="data")

    def __repr__(self) -> str:
        entry = self.entry
        table = conntrack.show([entry], self.world.now) if entry is not None else "no entry"
        pod = short(f"pod default/{self.pod.name}")
        return f"frontend talks to {ADDRESS}:{PORT}, that is {pod} on {self.node}\n{table}"


def flush_nat(world: Cluster) -> None:
    """`iptables -t nat -F; iptables -t nat -X` on node-1: every nat rule is gone, and every chain but the built-in."""
    commands.apply(world.network, "iptables -t nat -F\niptables -t nat -X", NODE)


def forget(talk: Talk) -> None:
    """`conntrack -D` of this connection on node-1."""
    entry = talk.entry
    if entry is not None:
        talk.world.network.ns(NODE).conntrack.delete(entry)


class Said(Struct, frozen=True):
    """What became of one more word on a connection: who got it, and what stood on it as its sender then."""

    who: str
    verdict: str
    source: str
    why: str

    def __str__(self) -> str:
        got = f"arrives, from {self.source}" if self.verdict == "delivered" else f"{self.verdict}: {self.why}"
        return f"{self.who}: {got}"


def said(who: str, trace: Trace) -> Said:
    """Read a data packet's trace. A packet for a socket that has another partner counts as not taken."""
    seen = trace.delivered_as
    return Said(who, trace.verdict, seen.src if seen is not None else "", trace.why)


class Heard(Struct, frozen=True):
    """What was heard of several words, one line each."""

    lines: tuple[str, ...]

    def __repr__(self) -> str:
        return "\n".join(self.lines)

    __str__ = __repr__


def talk_on(world: Cluster, deed: str = "") -> Heard:
    """Open a connection, perhaps do something to node-1 ("flush nat", "forget"), and let both go on speaking."""
    talk = Talk(world)
    lines = [f"open: {talk.opened.verdict}"]
    if deed == "flush nat":
        flush_nat(world)
        lines.append("node-1: iptables -t nat -F; iptables -t nat -X")
    elif deed == "forget":
        forget(talk)
        lines.append("node-1: conntrack -D, this connection")
    lines.append(str(said("the backend's next word", talk.answer())))
    if deed == "forget":
        forget(talk)
        other = backend_on(world, "node-3")
        lines.append(
            str(
                said(
                    "frontend's next word, and chance picks another pod",
                    talk.ask(toward(world, other.ips[0])),
                )
            )
        )
    else:
        lines.append(str(said("frontend's next word", talk.ask())))
    fresh = world.connect("frontend", f"http://{ADDRESS}")
    lines.append(f"a new call to {ADDRESS}: {fresh.verdict}")
    return Heard(tuple(lines))


# -- eight stages ---------------------------------------------------------------------------------------------------


class Stage(Struct, frozen=True):
    """One stage: where the packet is, what is written on it, what happens, and the table's entry by then."""

    where: str
    packet: str
    what: str
    entry: str = ""
    changed: bool = False


class Stages(Struct, frozen=True):
    """A call there and back."""

    rows: tuple[Stage, ...]

    @property
    def there(self) -> Stages:
        """The first five, until the packet is delivered."""
        return Stages(self.rows[:5])

    def __repr__(self) -> str:
        out = []
        for number, row in enumerate(self.rows, 1):
            out.append(f"{number}. {row.where}: {row.packet}")
            out.append(f"   {row.what}")
            if row.entry:
                out.append(f"   table: {row.entry}")
        return "\n".join(out)

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return Picture(stages_svg(self), repr(self))._repr_html_()


def stages(world: Cluster, node: str = "node-2") -> Stages:
    """Make one call from frontend to the backend on a node, and return its eight stages, as they were walked."""
    pod = backend_on(world, node)
    walk = world.walk(toward(world, pod.ips[0]))
    done = exchange(walk, CALLER, Packet("", ADDRESS, TCP, 0, PORT, flags=SYN, mss=1410))
    request = done.request
    reply = next(trace for trace in done.traces if trace.role == "reply")
    return Stages(tuple(_there(request)) + tuple(_back(reply)))


def _there(request: Trace) -> Iterator[Stage]:
    first, node = request.hops[0], _hop(request, NODE)
    yield Stage(
        "frontend",
        _line(first.packet),
        "It asks its own route table: everything goes to the gateway, its node.",
    )
    jump = _rule(node, "KUBE-SERVICES")
    new = next(step for step in node.steps if step.kind == "conntrack")
    assert jump is not None
    yield Stage(
        NODE, _line(node.packet), "Rules at PREROUTING are asked, because the connection is new: one names the "
        "Service's address and leads to its chain.", new.note or new.spot,
    )  # fmt: skip
    choice = _rule(node, "KUBE-SVC-")
    assert choice is not None
    yield Stage(
        NODE,
        _line(node.packet),
        f"Chance picks rule {choice.number} of the Service's chain: one endpoint.",
        "",
    )
    nat = next(step for step in node.steps if step.kind == "nat" and step.spot == "destination")
    assert nat.after is not None
    yield Stage(
        NODE, _line(nat.after), "The destination is rewritten, and the pair of both directions is written down.",
        _entry(nat), True,
    )  # fmt: skip
    seen = request.delivered_as
    assert seen is not None
    way = next(step for step in node.steps[node.steps.index(nat) :] if step.kind == "route")
    yield Stage(
        _place(request.place.netns), _line(seen),
        f"The node looks for a route only now: {_short(way.entry)}. The pod sees frontend's own address.",
    )  # fmt: skip


def _back(reply: Trace) -> Iterator[Stage]:
    yield Stage(
        _place(reply.hops[0].netns), _line(reply.hops[0].packet),
        "The pod answers to whom it saw: its own address is the sender.",
    )  # fmt: skip
    hop = _hop(reply, NODE)
    nat = next(step for step in hop.steps if step.kind == "nat")
    asked = sum(step.kind == "rule" and step.spot.startswith("nat") for step in hop.steps)
    assert nat.after is not None
    yield Stage(
        NODE, _line(nat.after),
        f"The entry is found by its second half, and the sender rewritten back. Nat rules asked: {asked}.",
        _entry(nat), True,
    )  # fmt: skip
    got = reply.delivered_as
    assert got is not None
    yield Stage("frontend", _line(got), "It has called this address, and from this address the answer comes.")


def _hop(trace: Trace, netns: str) -> Hop:
    return next(hop for hop in trace.hops if hop.netns == netns and any(s.kind == "nat" for s in hop.steps))


def _rule(hop: Hop, chain: str) -> RuleRef | None:
    for step in hop.steps:
        ref: Any = step.entry
        if step.kind == "rule" and isinstance(ref, RuleRef) and ref.table == "nat":
            if chain in ref.chain or (chain == "KUBE-SERVICES" and chain in str(ref.rule)):
                return ref
    return None


def _entry(step: Step) -> str:
    record = step.entry
    assert isinstance(record, FlowRecord)
    there, back = record.orig, record.reply
    return (
        f"{there[1]}:{there[3]} > {there[2]}:{there[4]}  |  back: {back[1]}:{back[3]} > {back[2]}:{back[4]}"
    )


def _line(packet: Packet) -> str:
    return f"{packet.src}:{packet.sport} > {packet.dst}:{packet.dport}"


def _place(netns: str) -> str:
    return f"backend {tail(netns)}" if "/" in netns else netns


def _short(route: Any) -> str:
    return str(route).partition(" onlink")[0]


def stages_svg(found: Stages) -> str:
    """Draw a numbered row for each stage; what was rewritten is marked in words and in colour."""
    svg = Svg(840)
    y = 10.0
    svg.text(14, y + 14, "There", 14, bold=True)
    y += 26
    for number, row in enumerate(found.rows, 1):
        if number == 6:
            svg.text(14, y + 16, "And back", 14, bold=True)
            y += 28
        words = wrap(row.what, 620, 12)
        height = 30 + 15 * len(words) + (18 if row.entry else 0)
        box = Box(14, y, 812, height)
        svg.rect(box, "f-service s-serviceline" if row.changed else "f-card s-line", radius=6)
        svg.text(30, y + 20, str(number), 15, bold=True)
        svg.text(54, y + 20, row.where, 13, bold=True)
        svg.text(190, y + 20, row.packet, 12, mono=True)
        if row.changed:
            svg.text(640, y + 20, "rewritten", 12, bold=True)
        for at, text in enumerate(words):
            svg.text(190, y + 38 + 15 * at, text, 12)
        if row.entry:
            svg.text(190, y + height - 9, f"conntrack: {row.entry}", 11, mono=True, cls="t-soft")
        y += height + 6
    return svg.document(y + 4, "A call there and back in eight stages", repr(found))


# -- the answer takes another way -------------------------------------------------------------------------------------


def apart() -> Cluster:
    """The shop, where node-1 lets bridged packets pass by iptables: net.bridge.bridge-nf-call-iptables=0."""
    world = shop()
    world.network.ns(NODE).set_sysctl("net.bridge.bridge-nf-call-iptables", 0)
    return world
