"""Connection tracking: one flow, its two tuples, and the table that finds it from either side.

Semantics: net/netfilter/nf_conntrack_core.c and nf_conntrack_proto_*.c; text in `conntrack(8)`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from kubenet_lab.packet.packet import ICMP, ICMPV6, TCP, UDP, Packet

FlowTuple = tuple[int, str, str, int, int, int]
"""(protocol, source, destination, source port, destination port, zone).

For ICMP the ports are (id, type << 8 | code) of the request, as the kernel keys an echo.
"""

_ECHO = {8: 0, 0: 8, 128: 129, 129: 128, 13: 14, 14: 13}


class FlowRecord(Struct, frozen=True, gc=False):
    """What a flow was at one moment, as `conntrack -L` would have printed it."""

    orig: FlowTuple
    reply: FlowTuple
    state: str
    seen_reply: bool
    assured: bool

    def __str__(self) -> str:
        unreplied = "" if self.seen_reply else " [UNREPLIED]"
        state = f"{self.state} " if self.state else ""
        assured = " [ASSURED]" if self.assured else ""
        return f"{state}{tuple_text(self.orig)}{unreplied} {tuple_text(self.reply)}{assured}"


def tuple_text(t: FlowTuple) -> str:
    """Return "src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2"."""
    if t[0] in (ICMP, ICMPV6):
        return f"src={t[1]} dst={t[2]} type={t[4] >> 8} code={t[4] & 255} id={t[3]}"
    return f"src={t[1]} dst={t[2]} sport={t[3]} dport={t[4]}"


class Flow(Struct, kw_only=True):
    """One tracked connection. Mutable: it lives in one table and its state advances with each packet."""

    orig: FlowTuple
    reply: FlowTuple
    state: str = ""
    """TCP state as `conntrack -L` prints it; "" for the others."""
    seen_reply: bool = False
    assured: bool = False
    confirmed: bool = False
    src_nat: bool = False
    dst_nat: bool = False
    src_nat_done: bool = False
    dst_nat_done: bool = False
    mark: int = 0
    expires: float = 0.0
    """Simulated time in s at which the entry dies."""
    born: float = 0.0
    """Simulated time in s of its first packet: a UDP flow is a stream when it is still busy 2 s later."""
    packets: list[int] = field(default_factory=lambda: [0, 0])
    id: int = 0
    master: FlowTuple | None = None

    @property
    def zone(self) -> int:
        """The conntrack zone."""
        return self.orig[5]

    def record(self) -> FlowRecord:
        """Return the flow as it is now, for a trace to keep."""
        return FlowRecord(self.orig, self.reply, self.state, self.seen_reply, self.assured)

    def __str__(self) -> str:
        return str(self.record())


def tuple_of(packet: Packet, zone: int = 0) -> FlowTuple:
    """Return the tuple of a packet in the direction it travels."""
    proto = packet.proto
    if proto in (ICMP, ICMPV6):
        return (proto, packet.src, packet.dst, packet.icmp_id, packet.icmp_type << 8 | packet.icmp_code, zone)
    return (proto, packet.src, packet.dst, packet.sport, packet.dport, zone)


def inverted(t: FlowTuple) -> FlowTuple:
    """Return the tuple of the answer to a packet with tuple `t`."""
    proto = t[0]
    if proto in (ICMP, ICMPV6):
        kind = t[4] >> 8
        return (proto, t[2], t[1], t[3], _ECHO.get(kind, kind) << 8 | (t[4] & 255), t[5])
    return (proto, t[2], t[1], t[4], t[3], t[5])


TIMEOUTS = {
    (TCP, "SYN_SENT"): "net.netfilter.nf_conntrack_tcp_timeout_syn_sent",
    (TCP, "SYN_RECV"): "net.netfilter.nf_conntrack_tcp_timeout_syn_recv",
    (TCP, "ESTABLISHED"): "net.netfilter.nf_conntrack_tcp_timeout_established",
    (TCP, "FIN_WAIT"): "net.netfilter.nf_conntrack_tcp_timeout_fin_wait",
    (TCP, "CLOSE_WAIT"): "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
    (TCP, "LAST_ACK"): "net.netfilter.nf_conntrack_tcp_timeout_last_ack",
    (TCP, "TIME_WAIT"): "net.netfilter.nf_conntrack_tcp_timeout_time_wait",
    (TCP, "CLOSE"): "net.netfilter.nf_conntrack_tcp_timeout_close",
}
UDP_TIMEOUT = "net.netfilter.nf_conntrack_udp_timeout"
UDP_STREAM = "net.netfilter.nf_conntrack_udp_timeout_stream"
ICMP_TIMEOUT = "net.netfilter.nf_conntrack_icmp_timeout"
ICMPV6_TIMEOUT = "net.netfilter.nf_conntrack_icmpv6_timeout"
GENERIC_TIMEOUT = "net.netfilter.nf_conntrack_generic_timeout"


def timeout_key(flow: Flow) -> str:
    """Return the sysctl that gives a flow's time to live in its present state."""
    proto = flow.orig[0]
    if proto == TCP:
        return TIMEOUTS[TCP, flow.state]
    if proto == UDP:
        return UDP_STREAM if flow.assured else UDP_TIMEOUT
    if proto == ICMP:
        return ICMP_TIMEOUT
    return ICMPV6_TIMEOUT if proto == ICMPV6 else GENERIC_TIMEOUT


class ConntrackTable:
    """Flows of one namespace, found by either tuple (`conntrack -L`)."""

    __slots__ = ("_next_id", "by_tuple", "drops", "flows")

    def __init__(self) -> None:
        self.by_tuple: dict[FlowTuple, Flow] = {}
        self.flows: dict[int, Flow] = {}
        self.drops = 0
        self._next_id = 1

    def __len__(self) -> int:
        return len(self.flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(tuple(self.flows.values()))

    def find(self, key: FlowTuple, now: float) -> Flow | None:
        """Return the live flow a tuple belongs to; an expired one is removed on the way."""
        flow = self.by_tuple.get(key)
        if flow is not None and flow.expires <= now:
            self.delete(flow)
            return None
        return flow

    def confirm(self, flow: Flow) -> bool:
        """Insert a flow; False when another flow took one of its tuples (the packet is then dropped)."""
        if flow.orig in self.by_tuple or flow.reply in self.by_tuple:
            self.drops += 1
            return False
        flow.id = self._next_id
        self._next_id += 1
        flow.confirmed = True
        self.by_tuple[flow.orig] = flow
        self.by_tuple[flow.reply] = flow
        self.flows[flow.id] = flow
        return True

    def delete(self, flow: Flow) -> None:
        """Remove a flow (`conntrack -D`)."""
        if self.flows.pop(flow.id, None) is not None:
            self.by_tuple.pop(flow.orig, None)
            self.by_tuple.pop(flow.reply, None)

    def expire(self, now: float) -> int:
        """Remove every flow whose time has come and return how many."""
        dead = [flow for flow in self.flows.values() if flow.expires <= now]
        for flow in dead:
            self.delete(flow)
        return len(dead)

    def flush(self) -> None:
        """Forget everything (`conntrack -F`)."""
        self.by_tuple.clear()
        self.flows.clear()

    def copy(self) -> ConntrackTable:
        """Return an independent copy, flows included."""
        twin = ConntrackTable()
        twin._next_id, twin.drops = self._next_id, self.drops
        for flow in self.flows.values():
            other = Flow(**{name: getattr(flow, name) for name in flow.__struct_fields__})
            other.packets = list(flow.packets)
            twin.flows[other.id] = twin.by_tuple[other.orig] = twin.by_tuple[other.reply] = other
        return twin
