"""Connection tracking as a packet meets it: find or make its flow, advance the flow's state, confirm it at the end.

net/netfilter/nf_conntrack_core.c, nf_conntrack_proto_tcp.c, nf_conntrack_proto_icmp.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow, FlowTuple, inverted, timeout_key, tuple_of
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

_STATES = (
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
_CODE = {
    "NO": "NONE",
    "SS": "SYN_SENT",
    "SR": "SYN_RECV",
    "ES": "ESTABLISHED",
    "FW": "FIN_WAIT",
    "CW": "CLOSE_WAIT",
    "LA": "LAST_ACK",
    "TW": "TIME_WAIT",
    "CL": "CLOSE",
    "S2": "SYN_SENT2",
    "IV": "INVALID",
    "IG": "IGNORE",
}


def _rows(text: str) -> dict[str, str]:
    return dict(zip(_STATES, (_CODE[word] for word in text.split()), strict=True))


# The transition tables of nf_conntrack_proto_tcp.c: (reply direction?, kind of segment) -> state -> next state.
_TCP = {
    (False, "syn"): _rows("SS SS IG IG IG IG IG SS SS S2"),
    (False, "synack"): _rows("IV IV SR IV IV IV IV IV IV SR"),
    (False, "fin"): _rows("IV IV FW FW LA LA LA TW CL IV"),
    (False, "ack"): _rows("ES IV ES ES CW CW TW TW CL IV"),
    (False, "rst"): _rows("IV CL CL CL CL CL CL CL CL CL"),
    (False, "none"): _rows("IV IV IV IV IV IV IV IV IV IV"),
    (True, "syn"): _rows("IV S2 IV IV IV IV IV SS IV S2"),
    (True, "synack"): _rows("IV SR IG IG IG IG IG IG IG SR"),
    (True, "fin"): _rows("IV IV FW FW LA LA LA TW CL IV"),
    (True, "ack"): _rows("IV IG SR ES CW CW TW TW CL IG"),
    (True, "rst"): _rows("IV CL CL CL CL CL CL CL CL CL"),
    (True, "none"): _rows("IV IV IV IV IV IV IV IV IV IV"),
}

UDP_STREAM_AFTER = 2.0
"""Seconds after which a UDP flow with answers counts as a stream (`nf_conntrack_udp_packet`)."""

_NEW_ICMP = {ICMP: frozenset({8, 13, 15, 17}), ICMPV6: frozenset({128, 139})}
_UNTRACKED_ICMPV6 = frozenset({130, 131, 132, 133, 134, 135, 136, 137, 143})


def _segment(flags: int) -> str:
    if flags & RST:
        return "rst"
    if flags & SYN:
        return "synack" if flags & ACK else "syn"
    if flags & FIN:
        return "fin"
    return "ack" if flags & ACK else "none"


def track(w: Walk, skb: Skb) -> bool:
    """The conntrack hook (priority -200). False when the packet ended here."""
    if skb.ct is not None or skb.ctinfo == "UNTRACKED":
        return True  # seen before, and come back over the loopback link; what was invalid is looked at again
    pkt = skb.pkt
    if pkt.fragment:
        w.step("conntrack", "defragment", note="the fragments are put together before tracking")
        skb.pkt = pkt = replace(pkt, fragment=0)
    if skb.notrack:
        skb.ctinfo = "UNTRACKED"
        return True
    if pkt.quoted is not None:
        _relate(w, skb, pkt.quoted)
        return True
    proto = pkt.proto
    if proto == ICMPV6 and pkt.icmp_type in _UNTRACKED_ICMPV6:
        skb.ctinfo = "UNTRACKED"
        return True
    table = skb.ns.conntrack
    key = tuple_of(pkt, skb.zone)
    flow = table.find(key, w.now)
    if (
        flow is not None
        and proto == TCP
        and flow.state in ("TIME_WAIT", "CLOSE")
        and pkt.flags & (SYN | ACK) == SYN
        and key == flow.orig
    ):
        table.delete(flow)
        flow = None
    if flow is None or (w.racing and flow.born == w.now and key == flow.orig and proto == UDP):
        return _new(w, skb, key)
    skb.ct = flow
    skb.reply = key != flow.orig
    return _advance(w, skb, flow)


def _new(w: Walk, skb: Skb, key: FlowTuple) -> bool:
    pkt, ns = skb.pkt, skb.ns
    proto = pkt.proto
    state = ""
    if proto == TCP:
        kind = _segment(pkt.flags)
        state = _TCP[False, kind]["NONE"]
        loose = ns.sysctl("net.netfilter.nf_conntrack_tcp_loose") != "0"
        if state == "INVALID" or (state != "SYN_SENT" and not loose):
            return _invalid(w, skb)
    elif proto in _NEW_ICMP and pkt.icmp_type not in _NEW_ICMP[proto]:
        return _invalid(w, skb)
    most = int(ns.sysctl("net.netfilter.nf_conntrack_max"))
    if len(ns.conntrack.flows) >= most:
        ns.conntrack.expire(w.now)
        if len(ns.conntrack.flows) >= most:
            ns.conntrack.drops += 1
            w.end(
                "dropped", "conntrack-full", ns, "conntrack", note="nf_conntrack: table full, dropping packet"
            )
            return False
    flow = Flow(orig=key, reply=inverted(key), state=state, packets=[1, 0], born=w.now)
    flow.expires = w.now + _timeout(ns, flow)
    skb.ct, skb.ctinfo, skb.reply = flow, "NEW", False
    w.step("conntrack", "new", note="a new connection")
    return True


def _timeout(ns: Netns, flow: Flow) -> float:
    key = timeout_key(flow)
    found = ns.timeouts.get(key)
    if found is None:
        found = ns.timeouts[key] = float(ns.sysctl(key))
    return found


def _invalid(w: Walk, skb: Skb) -> bool:
    skb.ct, skb.ctinfo, skb.zone = None, "INVALID", 0
    w.step("conntrack", "invalid", note="it belongs to no connection and cannot start one")
    return True


def _advance(w: Walk, skb: Skb, flow: Flow) -> bool:
    pkt, reply = skb.pkt, skb.reply
    if pkt.proto == TCP:
        old = flow.state
        new = _TCP[reply, _segment(pkt.flags)][old]
        if new == "INVALID":
            return _invalid(w, skb)
        if new != "IGNORE":
            flow.state = new
            if new == "ESTABLISHED" and old in ("SYN_RECV", "ESTABLISHED") and flow.seen_reply:
                flow.assured = True
        if pkt.flags & RST and not flow.seen_reply:
            # Refused at once: the entry is not worth keeping (`nf_ct_kill_acct`); this packet still has it.
            skb.ns.conntrack.delete(flow)
    elif pkt.proto == UDP and flow.seen_reply and w.now > flow.born + UDP_STREAM_AFTER:
        flow.assured = True
    flow.packets[1 if reply else 0] += 1
    if reply:
        flow.seen_reply = True
    flow.expires = w.now + _timeout(skb.ns, flow)
    skb.ctinfo = "ESTABLISHED" if flow.seen_reply else "NEW"
    w.step("conntrack", "reply" if reply else "original", flow.record())
    return True


def _relate(w: Walk, skb: Skb, quoted: Packet) -> None:
    """Tie an ICMP error to the connection of the packet it quotes (`nf_conntrack_inet_error`)."""
    inner = tuple_of(quoted, skb.zone)
    flow = skb.ns.conntrack.find(inverted(inner), w.now)
    if flow is None:
        skb.ctinfo, skb.zone = "INVALID", 0
        w.step("conntrack", "invalid", note="the packet it quotes belongs to no known connection")
        return
    skb.ct, skb.ctinfo = flow, "RELATED"
    skb.reply = inverted(inner) == flow.reply
    w.step("conntrack", "related", flow.record())


def confirm(w: Walk, skb: Skb) -> bool:
    """The last hook of INPUT and POSTROUTING: a new flow enters the table. False when another took its tuple."""
    flow = skb.ct
    if flow is None or flow.confirmed or skb.ctinfo != "NEW":
        return True
    if skb.ns.conntrack.confirm(flow):
        w.step("conntrack", "confirmed", flow.record())
        return True
    if w.racing and _resolved(w, skb, flow):
        return True
    w.end("dropped", "conntrack-clash", skb.ns, "conntrack", flow.record())
    return False


def _resolved(w: Walk, skb: Skb, flow: Flow) -> bool:
    """Whether a packet may go on whose twin was confirmed first (`nf_ct_resolve_clash`)."""
    table = skb.ns.conntrack
    first = table.by_tuple.get(flow.orig)
    if first is None or flow.orig[0] != UDP or w.racing == "drop":
        return False
    if first.reply == flow.reply:
        # The same translation: it becomes one more packet of the entry that is there.
        table.drops -= 1
        skb.ct = first
        first.packets[0] += 1
        w.step("conntrack", "original", first.record(), note="its twin was confirmed before: the same entry")
        return True
    if w.racing == "insert" and flow.reply not in table.by_tuple:
        table.drops -= 1
        flow.expires = w.now + CLASH_TIMEOUT
        table.by_tuple[flow.reply] = flow
        w.step("conntrack", "confirmed", flow.record(), note="found by its reply only, for a second")
        return True
    return False


CLASH_TIMEOUT = 1.0
"""Seconds an entry lives that shares its original tuple with another (`nf_ct_resolve_clash_harder`)."""
