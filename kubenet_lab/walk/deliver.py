"""The end of the way: INPUT, sockets and what they answer; ICMP errors and resets as packets of their own.

net/ipv4/{ip_input,icmp,tcp_ipv4,udp}.c, RFC 792, RFC 1122 3.2.2, RFC 4443, RFC 9293 3.5.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import (
    ACK,
    ICMP,
    ICMP6_ECHO,
    ICMP6_ECHO_REPLY,
    ICMP6_TOO_BIG,
    ICMP_ECHO,
    ICMP_ECHO_REPLY,
    ICMP_UNREACHABLE,
    ICMPV6,
    IPIP,
    RST,
    SCTP,
    SCTP_ABORT,
    SCTP_INIT,
    SCTP_INIT_ACK,
    SYN,
    TCP,
    UDP,
    Packet,
    WireguardMessage,
    sctp_chunk,
)
from kubenet_lab.walk import bpf_sock, hooks, ipip, routing, tunnel, wireguard
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

KERNEL = -1
"""Owner of what the kernel's own sockets send: `-m owner` sees a socket, but no user."""

PMTU_EXPIRES = 600.0
"""Seconds a learned path MTU lives (net.ipv4.route.mtu_expires)."""
_MULTICAST = prefix("224.0.0.0/4")
_MULTICAST6 = prefix("ff00::/8")


def local_input(w: Walk, skb: Skb) -> None:
    """`ip_local_deliver`: put fragments together, INPUT hooks, then the protocol's receiver."""
    if skb.pkt.fragment:
        w.step("mtu", "reassemble", note="the fragments are put together")
        skb.pkt = replace(skb.pkt, fragment=0)
    if not hooks.input(w, skb):
        return
    receiver(w, skb)


def receiver(w: Walk, skb: Skb) -> None:
    """`ip_protocol_deliver_rcu`: hand the packet to its protocol."""
    proto = skb.pkt.proto
    if proto == TCP:
        _tcp(w, skb)
    elif proto == UDP:
        _udp(w, skb)
    elif proto in (ICMP, ICMPV6):
        _icmp(w, skb)
    elif proto == SCTP and _speaks_sctp(w, skb.ns):
        _sctp(w, skb)
    elif proto == IPIP and ipip.decapsulate(w, skb):
        return
    else:
        w.end("rejected", "no-protocol", skb.ns, "socket", note=f"protocol {proto}")
        icmp_error(w, skb, *((ICMP_UNREACHABLE, 2) if skb.pkt.family == 4 else (4, 1)), attach=False)


def _tcp(w: Walk, skb: Skb) -> None:
    ns, pkt = skb.ns, skb.pkt
    if w.peers.get((ns.name, TCP, pkt.dport)) == (pkt.src, pkt.sport) and pkt.flags & (SYN | ACK) != SYN:
        w.delivered(skb, "socket", f"client socket {pkt.dst}:{pkt.dport}", "socket")
        if pkt.flags & (SYN | ACK) == SYN | ACK:
            done = Packet(
                pkt.dst, pkt.src, TCP, pkt.dport, pkt.sport, flags=ACK, seq=1, ack=1, ident=w.ident()
            )
            w.reply(ns, done, "data")
        return
    socket = ns.socket_for(TCP, pkt.dst, pkt.dport)
    if socket is None:
        w.end(
            "rejected", "no-listener", ns, "socket", note=f"nothing listens on {pkt.dst} TCP port {pkt.dport}"
        )
        if not pkt.flags & RST:
            w.reply(ns, replace(reset_for(w, pkt), tos=pkt.tos), "error", uid=_resetter(pkt))
        return
    connection = (ns.name, pkt.dst, pkt.dport, pkt.src, pkt.sport)
    if pkt.flags & (SYN | ACK | RST) == SYN:
        if socket.backlog_full:
            w.end("dropped", "backlog-full", ns, "socket", socket)
            return
        w.delivered(skb, "socket", socket, "socket")
        w.connections.add(connection)
        mss = own_mss(ns, pkt.src, pkt.dst)
        answer = Packet(
            pkt.dst, pkt.src, TCP, pkt.dport, pkt.sport, flags=SYN | ACK, seq=0, ack=1, mss=mss, ident=0
        )
        w.reply(ns, answer, "reply", uid=socket.uid, gid=0)
        if socket.upstream is not None:
            onward = socket.upstream(pkt, w.now)
            if onward is not None:
                w.reply(ns, onward, "onward", uid=socket.uid, gid=0)
        return
    if connection not in w.connections:
        w.end(
            "rejected",
            "no-connection",
            ns,
            "socket",
            socket,
            note="it belongs to no connection of this listener",
        )
        if pkt.flags & ACK and not pkt.flags & RST:
            w.reply(ns, replace(reset_for(w, pkt), tos=pkt.tos), "error", uid=_resetter(pkt))
        return
    w.delivered(skb, "socket", socket, "socket")


def _resetter(pkt: Packet) -> int | None:
    """IPv4 sends a reset from a socket of the kernel's own, IPv6 from none (`tcp_v6_send_response`)."""
    return KERNEL if pkt.family == 4 else None


def own_mss(ns: Netns, dst: str, src: str) -> int:
    """Return the MSS a host announces: what fits the first link towards the other end (RFC 9293, 3.7.1)."""
    way = ns.lookup(dst, src=src)
    link = ns.links.get("lo" if way is None or way.route.type == "local" else way.dev)
    mtu = (way.route.mtu if way is not None else 0) or (link.mtu if link is not None else 1500)
    return mtu - (60 if ":" in dst else 40)


def reset_for(w: Walk, pkt: Packet) -> Packet:
    """Return the RST that answers a segment nobody wants (RFC 9293, 3.10.7.1)."""
    seq = pkt.ack if pkt.flags & ACK else 0
    flags = RST if pkt.flags & ACK else RST | ACK
    ack = 0 if pkt.flags & ACK else pkt.seq + 1
    return Packet(pkt.dst, pkt.src, TCP, pkt.dport, pkt.sport, flags=flags, seq=seq, ack=ack, ident=w.ident())


def _speaks_sctp(w: Walk, ns: Netns) -> bool:
    """True when a program here has opened an SCTP socket, which loads the kernel's module."""
    return any(s.proto == SCTP for group in ns.sockets.values() for s in group) or any(
        name == ns.name and proto == SCTP for name, proto, _port in w.clients
    )


def _sctp(w: Walk, skb: Skb) -> None:
    """INIT is answered by INIT ACK where somebody listens, by ABORT where nobody does (RFC 9260, 5.1 and 8.4)."""
    ns, pkt = skb.ns, skb.pkt
    kind = pkt.payload[0] if pkt.payload else 0
    if w.peers.get((ns.name, SCTP, pkt.dport)) == (pkt.src, pkt.sport) and kind != SCTP_INIT:
        w.delivered(skb, "socket", f"client socket {pkt.dst}:{pkt.dport}", "socket")
        return
    socket = ns.socket_for(SCTP, pkt.dst, pkt.dport)
    answer = Packet(pkt.dst, pkt.src, SCTP, pkt.dport, pkt.sport, ident=w.ident())
    if socket is None:
        note = f"nothing listens on {pkt.dst} SCTP port {pkt.dport}"
        w.end("rejected", "no-listener", ns, "socket", note=note)
        if kind != SCTP_ABORT:
            w.reply(ns, replace(answer, payload=sctp_chunk(SCTP_ABORT)), "error")
        return
    w.delivered(skb, "socket", socket, "socket")
    if kind == SCTP_INIT:
        w.reply(ns, replace(answer, payload=sctp_chunk(SCTP_INIT_ACK)), "reply", uid=socket.uid, gid=0)


def _udp(w: Walk, skb: Skb) -> None:
    ns, pkt = skb.ns, skb.pkt
    if pkt.message.__class__ is WireguardMessage:
        if wireguard.arrived(w, skb, pkt.message):
            return
        # Bytes, to anybody who listens here but WireGuard.
        pkt = skb.pkt = replace(pkt, message=None, inner=None, payload=pkt.message.to_wire())
    elif pkt.inner is not None and tunnel.decapsulate(w, skb):
        return
    socket = ns.socket_for(UDP, pkt.dst, pkt.dport)
    if socket is not None:
        w.delivered(skb, "socket", socket, "socket")
        answer = socket.handler(pkt, w.now) if socket.handler is not None else None
        if answer is not None:
            back = replace(
                answer, src=pkt.dst, dst=pkt.src, proto=UDP, sport=pkt.dport, dport=pkt.sport, ident=w.ident()
            )
            w.reply(ns, back, "reply", uid=socket.uid, gid=0)
        return
    if (ns.name, UDP, pkt.dport) in w.clients:
        bpf_sock.received(w, skb)
        w.delivered(skb, "socket", f"client socket {pkt.dst}:{pkt.dport}", "socket")
        return
    w.end("rejected", "no-listener", ns, "socket", note=f"nothing listens on {pkt.dst} UDP port {pkt.dport}")
    icmp_error(w, skb, *((ICMP_UNREACHABLE, 3) if pkt.family == 4 else (1, 4)), attach=False)


def _icmp(w: Walk, skb: Skb) -> None:
    ns, pkt = skb.ns, skb.pkt
    if pkt.quoted is not None:
        _error_arrived(w, skb, pkt.quoted)
        return
    echo, echo_reply = (ICMP_ECHO, ICMP_ECHO_REPLY) if pkt.proto == ICMP else (ICMP6_ECHO, ICMP6_ECHO_REPLY)
    if pkt.icmp_type == echo:
        if pkt.proto == ICMP and ns.sysctl("net.ipv4.icmp_echo_ignore_all") == "1":
            w.end("dropped", "icmp-ignored", ns, "icmp", note="net.ipv4.icmp_echo_ignore_all = 1")
            return
        if not ns.is_local(pkt.dst):
            w.end("dropped", "broadcast", ns, "icmp", note="net.ipv4.icmp_echo_ignore_broadcasts = 1")
            return
        w.delivered(skb, "raw-socket", "the kernel answers the ping", "icmp")
        w.reply(
            ns,
            replace(
                pkt,
                src=pkt.dst,
                dst=pkt.src,
                icmp_type=echo_reply,
                ttl=64,
                df=False,
                ident=w.ident(),
                fragment=0,
            ),
            "reply",
            uid=KERNEL,
            pmtudisc="dont",
        )
        return
    if pkt.icmp_type == echo_reply:
        if (ns.name, pkt.proto, pkt.icmp_id) in w.clients:
            w.delivered(skb, "socket", f"ping socket id {pkt.icmp_id}", "socket")
        else:
            w.end("lost", "not-for-anyone", ns, "icmp", note=f"no ping with id {pkt.icmp_id} is open")
        return
    w.delivered(skb, "raw-socket", f"the kernel takes ICMP type {pkt.icmp_type}", "icmp")


def _error_arrived(w: Walk, skb: Skb, quoted: Packet) -> None:
    ns, pkt = skb.ns, skb.pkt
    too_big = (
        pkt.icmp_type == ICMP6_TOO_BIG if pkt.proto == ICMPV6 else (pkt.icmp_type, pkt.icmp_code) == (3, 4)
    )
    if too_big and ns.is_local(quoted.src):
        ns.pmtu[quoted.dst] = (pkt.icmp_mtu, w.now + PMTU_EXPIRES)
        w.step("mtu", "learned", note=f"path MTU to {quoted.dst} is {pkt.icmp_mtu}")
    port = quoted.icmp_id if quoted.proto in (ICMP, ICMPV6) else quoted.sport
    key = (ns.name, quoted.proto, port)
    # A connection's socket hears of its own packets only, not of a reset the kernel sent to somebody else.
    other = quoted.proto in (TCP, SCTP) and w.peers.get(key, ("", 0)) != (quoted.dst, quoted.dport)
    if key in w.clients and not other:
        w.delivered(skb, "socket", f"the socket that sent {quoted}", "socket")
    else:
        w.end("lost", "not-for-anyone", ns, "icmp", note=f"no open socket sent {quoted}")


def icmp_error(w: Walk, skb: Skb, kind: int, code: int, mtu: int = 0, attach: bool = True) -> None:
    """Send an ICMP error about a packet to its sender, where RFC 1122 allows one.

    `attach` makes it part of the packet's connection, confirmed or not, as the kernel does for errors about packets
    on their way; so it is translated, and a caller sees the address it called as the sender.
    """
    pkt, ns = skb.pkt, skb.ns
    if pkt.quoted is not None or _is_group(pkt.dst) or not pkt.src or pkt.src in ("0.0.0.0", "::"):
        return
    if pkt.proto in (ICMP, ICMPV6) and pkt.icmp_type in (5, 137):
        return
    if skb.dst_mac and int(skb.dst_mac[1], 16) & 1:
        return
    if pkt.family == 4:
        source = pkt.dst if ns.is_local(pkt.dst) else ""
    else:  # a local route alone (AnyIP) does not make an address; else one of the incoming link (`icmp6_send`)
        source = pkt.dst if any(a.local == pkt.dst for a in ns.addrs(None, 6)) else ""
        if not source and skb.indev:
            source = routing.primary_address(ns, skb.indev, pkt.src, 6)
    error = Packet(
        source,
        pkt.src,
        ICMP if pkt.family == 4 else ICMPV6,
        icmp_type=kind,
        icmp_code=code,
        icmp_mtu=mtu,
        quoted=replace(pkt, fragment=0),
        df=False,
        tos=pkt.tos & 0x1E | 0xC0 if pkt.family == 4 else 0,
        ident=w.ident(),
    )
    flow = skb.ct if attach else None
    w.reply(ns, error, "error", uid=KERNEL, flow=flow, flow_reply=not skb.reply, pmtudisc="dont")


def _is_group(address: str) -> bool:
    return address == "255.255.255.255" or (
        address in _MULTICAST6 if ":" in address else address in _MULTICAST
    )
