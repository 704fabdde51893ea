"""Network address translation: set up once per connection, then applied to every packet of it.

net/netfilter/nf_nat_core.c. A NAT rule chooses an address and port when the connection's first packet meets the nat
table; the choice is stored as the flow's two tuples, and all later packets, replies and quoted packets in ICMP errors
are rewritten from them.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow, FlowTuple, inverted
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import IP_INT, ip_text
from kubenet_lab.packet.packet import ICMP, ICMPV6, SCTP, TCP, UDP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

SRC, DST = "src", "dst"
_PORTS = (TCP, UDP, SCTP)


class NatRange:
    """What a NAT target allows: an address range, a port range (0 = any), and how to pick."""

    __slots__ = ("base", "high", "low", "persistent", "port_high", "port_low", "random")

    def __init__(
        self,
        low: str,
        high: str,
        port_low: int,
        port_high: int,
        random: bool,
        persistent: bool = False,
        base: int = 0,
    ) -> None:
        self.low, self.high = low, high
        self.base = base
        """First original port of a shifted range (`--to-destination A:80-90/8080`); 0 for none."""
        self.port_low, self.port_high = port_low, port_high
        self.random = random
        self.persistent = persistent


def setup(w: Walk, skb: Skb, side: str, wanted: NatRange | None) -> bool:
    """Choose the translation of a new flow. `wanted` None is the null binding, which only keeps tuples unique."""
    flow = skb.ct
    assert flow is not None
    if wanted is None:
        other = skb.ns.conntrack.by_tuple.get(flow.reply)
        if other is None or other is flow or _same_origin(w, flow, other):
            if side == SRC:
                flow.src_nat_done = True
            else:
                flow.dst_nat_done = True
            return True
    current = inverted(flow.reply)
    picked = _unique(w, skb.ns, flow, current, side, wanted)
    if picked is None:
        w.end("dropped", "conntrack-clash", skb.ns, "nat", note="no free port left for this translation")
        return False
    if picked != current:
        flow.reply = inverted(picked)
        if side == SRC:
            flow.src_nat = True
        else:
            flow.dst_nat = True
    if side == SRC:
        flow.src_nat_done = True
    else:
        flow.dst_nat_done = True
    return True


def _unique(
    w: Walk, ns: Netns, flow: Flow, current: FlowTuple, side: str, wanted: NatRange | None
) -> FlowTuple | None:
    proto, src, dst, sport, dport, zone = current
    if wanted is None:
        if not _taken(w, ns, flow, current):
            return current
        wanted = NatRange(src if side == SRC else dst, src if side == SRC else dst, 0, 0, False)
    address = _address(src, dst, side, wanted)
    if side == SRC:
        src = address
    else:
        dst = address
    ported = proto in _PORTS
    port = sport if side == SRC or not ported else dport
    low, high = wanted.port_low, wanted.port_high

    def with_port(number: int) -> FlowTuple:
        if side == SRC or not ported:
            return (proto, src, dst, number, dport, zone)
        return (proto, src, dst, sport, number, zone)

    if wanted.base and low:
        return with_port(low + (port - wanted.base) % (high - low + 1))
    kept = with_port(port)
    if not wanted.random:
        fits = not low or low <= port <= high
        if fits and not _taken(w, ns, flow, kept):
            return kept
        if low and low == high:
            # A single port in the rule is taken as it is, as the kernel does: only the tuple decides.
            only = with_port(low)
            return only if not _taken(w, ns, flow, only) or side == DST else None
    elif not (ported or proto in (ICMP, ICMPV6)):
        return kept
    if not low:
        if side == DST:
            return kept
        if proto in (ICMP, ICMPV6):
            low, high = 0, 65535
        elif port < 512:
            low, high = 1, 511
        elif port < 1024:
            low, high = 600, 1023
        else:
            low, high = 1024, 65535
    size = high - low + 1
    # Without `--random` the kernel starts at a hash of the tuple; which port comes out is its private affair.
    start = w.rng.randrange(size)
    for step in range(min(size, 4096)):
        candidate = with_port(low + (start + step) % size)
        if not _taken(w, ns, flow, candidate):
            return candidate
    return None


def _address(src: str, dst: str, side: str, wanted: NatRange) -> str:
    """Pick from a range of addresses by a hash of the client, so that one client keeps one (`find_best_ips_proto`)."""
    if wanted.low == wanted.high:
        return wanted.low
    present = src if side == SRC else dst
    low, high = IP_INT[wanted.low], IP_INT[wanted.high]
    number = IP_INT[src] if wanted.persistent else IP_INT[src] ^ IP_INT[dst]
    spread = (number * 0x9E3779B1 & 0xFFFFFFFF) * (high - low + 1) >> 32
    return ip_text(low + spread, 6 if ":" in present else 4)


def _taken(w: Walk, ns: Netns, flow: Flow, candidate: FlowTuple) -> bool:
    other = ns.conntrack.by_tuple.get(inverted(candidate))
    return other is not None and other is not flow and not _same_origin(w, flow, other)


def _same_origin(w: Walk, flow: Flow, other: Flow) -> bool:
    """Two packets of one socket that race: since Linux 5.0 neither is in the other's way here (4e35c1cb9460)."""
    return w.racing in ("merge", "insert") and other.orig == flow.orig


def apply(w: Walk, skb: Skb, side: str) -> None:
    """Rewrite a packet of a translated flow at a hook that handles `side` (`nf_nat_packet`)."""
    flow = skb.ct
    assert flow is not None
    does = (
        (flow.src_nat if side == SRC else flow.dst_nat)
        if not skb.reply
        else (flow.dst_nat if side == SRC else flow.src_nat)
    )
    if not does:
        return
    target = inverted(flow.orig if skb.reply else flow.reply)
    before = skb.pkt
    if before.quoted is not None:
        skb.pkt = _rewrite_error(before, target, side)
    else:
        skb.pkt = _rewrite(before, target, side)
    if skb.pkt != before:
        w.step("nat", "source" if side == SRC else "destination", flow.record(), "", before, skb.pkt)


def _rewrite(pkt: Packet, target: FlowTuple, side: str) -> Packet:
    ported = pkt.proto in _PORTS
    if side == SRC:
        if ported:
            return replace(pkt, src=target[1], sport=target[3])
        return (
            replace(pkt, src=target[1], icmp_id=target[3])
            if pkt.proto in (ICMP, ICMPV6)
            else replace(pkt, src=target[1])
        )
    if ported:
        return replace(pkt, dst=target[2], dport=target[4])
    return (
        replace(pkt, dst=target[2], icmp_id=target[3])
        if pkt.proto in (ICMP, ICMPV6)
        else replace(pkt, dst=target[2])
    )


def _rewrite_error(pkt: Packet, target: FlowTuple, side: str) -> Packet:
    """Rewrite an ICMP error: the packet it quotes travels the other way, so its other end changes too.

    The outer source becomes the translated end even when a router on the way sent the error
    (`nf_nat_icmp_reply_translation`): the caller of a Service sees the Service as the sender.
    """
    quoted = pkt.quoted
    assert quoted is not None
    back = inverted(target)
    inner_side = DST if side == SRC else SRC
    inner = _rewrite(quoted, back, inner_side)
    if side == SRC:
        return replace(pkt, src=target[1], quoted=inner)
    return replace(pkt, dst=target[2], quoted=inner)
