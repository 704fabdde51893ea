"""A packet in IPVS: scheduled to a real server and translated on its way in, translated back on its way out.

net/netfilter/ipvs/ip_vs_{core,xmit,nfct}.c. IPVS sees what is *for this host* (its hook is INPUT, and OUTPUT for the
host's own packets): that is why kube-proxy binds the Services' addresses to a link.

    INPUT    98 answers (a masqueraded real server's), 99 requests
    FORWARD  99 ICMP errors, 100 answers
    OUTPUT  -99 answers of a real server on this host, -98 requests of this host

A translated request leaves by OUTPUT and POSTROUTING at once; the hook it came by sees no more of it. Each function
returns False when the packet ended or went on from here.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.ipvs import (
    ONE_PACKET,
    Conn,
    ConnKey,
    IpvsTable,
    RealServer,
    VirtualServer,
    client_network,
)
from kubenet_lab.kernel.netns import RouteLookup
from kubenet_lab.kernel.route import REFUSING
from kubenet_lab.packet.packet import (
    ICMP,
    ICMP6_TIME_EXCEEDED,
    ICMP6_TOO_BIG,
    ICMPV6,
    RST,
    SCTP,
    SCTP_INIT,
    SYN,
    TCP,
    UDP,
    Packet,
)
from kubenet_lab.walk import deliver, routing
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

_PROTOCOLS = (TCP, UDP, SCTP)
_FTP, _FTP_DATA = 21, 20
_BY_HASH = ("dh", "sh", "mh")
"""Schedulers that give one client (or address) always the same real server."""


def request(w: Walk, skb: Skb, hook: str) -> bool:
    """`ip_vs_in`: a packet for this host, or of this host, that may be for a virtual server."""
    if skb.ipvs is not None:
        return True
    ns, pkt, now = skb.ns, skb.pkt, w.now
    table = ns.ipvs
    if pkt.quoted is not None:
        return _error_in(w, skb, hook)
    if pkt.proto not in _PROTOCOLS or ns.sysctl("net.ipv4.vs.backup_only") == "1":
        return True
    conn = table.client_conn(_key(pkt), now)
    if conn is not None and _opens(pkt) and _reschedule(skb, table, conn):
        if not _expire(skb, table, conn):
            w.end("dropped", "ipvs-old-connection", ns, _spot(hook), conn.record())
            return False
        conn = None
    if conn is not None and table.available(conn) is None:
        if ns.sysctl("net.ipv4.vs.expire_nodest_conn") != "1":
            w.end("dropped", "ipvs-server-gone", ns, _spot(hook), conn.record())
            return False
        if not _expire(skb, table, conn):
            w.end("dropped", "ipvs-server-gone", ns, _spot(hook), conn.record())
            return False
        conn = None
    if conn is None:
        if pkt.proto == TCP and (not pkt.flags & SYN or pkt.flags & RST) and not _sloppy(skb, pkt):
            return True
        service = table.find(pkt.proto, pkt.dst, pkt.dport, skb.mark)
        if service is None or pkt.sport == _FTP_DATA:
            return True
        if skb.indev in ("", "lo") and table.client_conn(_inverted(pkt), now) is not None:
            return True  # a local real server's answer is no new connection
        real, conn = _schedule(w, skb, table, service)
        if conn is None or real is None:
            if service.port == _FTP and pkt.dport != _FTP:
                return True
            w.end("rejected", "ipvs-no-server", ns, _spot(hook), service)
            deliver.icmp_error(w, skb, *((3, 3) if pkt.family == 4 else (1, 4)), attach=False)
            return False
        w.step("ipvs", service.scheduler, service, note=f"new connection to {real}")
    table.advance(conn, pkt.flags, skb.length, now)
    sent = _transmit(w, skb, table, conn, hook)
    if conn.one_packet:
        table.forget(conn)
    return sent


def reply(w: Walk, skb: Skb, hook: str) -> bool:
    """`ip_vs_out`: a real server's answer gets the virtual server's address as its source."""
    if skb.ipvs is not None:
        return True
    pkt, table = skb.pkt, skb.ns.ipvs
    if pkt.quoted is not None:
        return _error_out(w, skb)
    if pkt.proto not in _PROTOCOLS:
        return True
    conn = table.server_conn(_key(pkt), w.now)
    if conn is None or conn.forward != "masq":
        return True
    skb.pkt = replace(pkt, src=conn.virtual[0], sport=conn.virtual[1])
    table.advance(conn, pkt.flags, skb.length, w.now, answer=True)
    skb.ipvs = conn
    _follow(skb, conn, answer=True)
    w.step("ipvs", "answer", conn.record(), "", pkt, skb.pkt)
    return True


def forward_error(w: Walk, skb: Skb, hook: str) -> bool:
    """`ip_vs_forward_icmp`: an ICMP error on its way through that is about a real server's packet."""
    if skb.ipvs is not None or skb.pkt.quoted is None:
        return True
    return _error_in(w, skb, hook)


# -- requests -------------------------------------------------------------------------------------------------------


def _key(pkt: Packet) -> ConnKey:
    return (pkt.proto, pkt.src, pkt.sport, pkt.dst, pkt.dport)


def _inverted(pkt: Packet) -> ConnKey:
    return (pkt.proto, pkt.dst, pkt.dport, pkt.src, pkt.sport)


def _spot(hook: str) -> str:
    return f"{hook} ipvs"


def _opens(pkt: Packet) -> bool:
    if pkt.proto == TCP:
        return bool(pkt.flags & SYN)
    return pkt.proto == SCTP and bool(pkt.payload) and pkt.payload[0] == SCTP_INIT


def _sloppy(skb: Skb, pkt: Packet) -> bool:
    return skb.ns.sysctl("net.ipv4.vs.sloppy_tcp") == "1" and not pkt.flags & RST


def _reschedule(skb: Skb, table: IpvsTable, conn: Conn) -> bool:
    """Whether a new connection from a port that was used before gets a real server anew."""
    real = table.available(conn)
    if skb.ns.sysctl("net.ipv4.vs.expire_nodest_conn") == "1" and real is not None and real.weight == 0:
        return True
    if skb.ns.sysctl("net.ipv4.vs.conn_reuse_mode") == "0" or conn.control is not None:
        return False
    return conn.protocol == TCP and conn.state in ("TIME_WAIT", "CLOSE")


def _expire(skb: Skb, table: IpvsTable, conn: Conn) -> bool:
    """End a connection, and conntrack's entry with it (`ip_vs_conn_expire_now`).

    False when the packet belongs to that entry: it is dropped then, and the sender's next one starts anew.
    """
    flow = skb.ct
    old = conn.tracked and flow is not None and flow.confirmed
    table.forget(conn)
    if old:
        assert flow is not None
        skb.ns.conntrack.delete(flow)
    return not old


def _turn(w: Walk, skb: Skb, table: IpvsTable, service: VirtualServer) -> RealServer | None:
    """Ask the scheduler. Where the caller of the walk chooses, any usable real server may have its turn."""
    pkt = skb.pkt
    real = table.schedule(service.key, (pkt.src, pkt.sport), pkt.dst, w.now)
    if real is None or not w.scripted or service.scheduler in _BY_HASH:
        return real
    others = [real, *(one for one in table.usable(service.key) if one.server != real.server)]
    for number, one in enumerate(others):
        if w.choose(service, 1 / (len(others) - number)):
            return one
    return real


def _schedule(
    w: Walk, skb: Skb, table: IpvsTable, service: VirtualServer
) -> tuple[RealServer | None, Conn | None]:
    """`ip_vs_schedule`, `ip_vs_sched_persist`: choose a real server, enter the connection and its template."""
    pkt, now = skb.pkt, w.now
    source = (pkt.src, pkt.sport)
    template: Conn | None = None
    real: RealServer | None = None
    if service.persistent:
        # <protocol, client, 0, address, port>; of a virtual server for all ports, or FTP's, the port is 0.
        port = pkt.dport if pkt.dport == service.port and service.port != _FTP else 0
        protocol = 0 if service.fwmark else pkt.proto
        address = f"mark {service.fwmark}" if service.fwmark else pkt.dst
        client = client_network(service, pkt.src)
        template = table.template((protocol, client, 0, address, port), now)
        real = table.available(template) if template is not None else None
        quiescent = skb.ns.sysctl("net.ipv4.vs.expire_quiescent_template") == "1"
        if template is not None and (real is None or (quiescent and real.weight == 0)):
            if not template.controlled:
                table.forget(template)
            else:
                del table.templates[template.incoming]
            template = None
        if template is None:
            real = _turn(w, skb, table, service)
            if real is None:
                return None, None
            template = table.connect(
                Conn(
                    protocol=protocol,
                    client=(client, 0),
                    virtual=(address, port),
                    real=real.server,
                    service=service.key,
                    forward=real.forward,
                    template=True,
                ),
                now,
            )
    else:
        real = _turn(w, skb, table, service)
    if real is None:
        return None, None
    conn = Conn(
        protocol=pkt.proto,
        client=source,
        virtual=(pkt.dst, pkt.dport),
        real=(real.address, real.port or pkt.dport),
        service=service.key,
        forward=real.forward,
        tracked=skb.ns.sysctl("net.ipv4.vs.conntrack") == "1",
        one_packet=bool(service.flags & ONE_PACKET) and pkt.proto == UDP,
        control=template,
    )
    return real, table.connect(conn, now)


def _transmit(w: Walk, skb: Skb, table: IpvsTable, conn: Conn, hook: str) -> bool:
    """`ip_vs_nat_xmit`, `ip_vs_dr_xmit`: the packet goes to its real server. True when that is this very host."""
    ns, pkt = skb.ns, skb.pkt
    if conn.forward == "tunnel":
        w.end("not modelled", "not-modelled", ns, _spot(hook), conn.record(), "forwarding by IP-in-IP")
        return False
    address = conn.real[0]
    way = ns.lookup(address, mark=skb.mark)
    if way is None or way.route.type in REFUSING:
        w.end("dropped", "no-route", ns, "route", way.route if way else None, note=f"no route to {address}")
        return False
    if way.route.type == "local":
        if address.startswith("127.") and skb.indev:
            w.end("dropped", "martian-destination", ns, "route", way.route)
            return False
        if conn.forward == "masq":
            skb.pkt = replace(pkt, dst=address, dport=conn.real[1])
        _done(w, skb, conn, pkt)
        return True
    if not _fits(w, skb, way):
        return False
    skb.pkt = replace(pkt, ttl=pkt.ttl - 1)
    if conn.forward == "masq":
        skb.pkt = replace(skb.pkt, dst=address, dport=conn.real[1])
    _done(w, skb, conn, pkt)
    w.step("route", "output", way.route)
    skb.indev, skb.outdev = "", way.dev
    if conn.forward == "route":
        way = way._replace(via=way.via or address)
    routing.output(w, skb, way)
    return False


def _fits(w: Walk, skb: Skb, way: RouteLookup) -> bool:
    """TTL and MTU, as a router sees to them."""
    ns, pkt = skb.ns, skb.pkt
    if pkt.ttl <= 1:
        w.end("rejected", "ttl-exceeded", ns, "ttl", note=f"TTL {pkt.ttl} on arrival")
        deliver.icmp_error(w, skb, *((11, 0) if pkt.family == 4 else (ICMP6_TIME_EXCEEDED, 0)))
        return False
    mtu = way.route.mtu or ns.links[way.dev].mtu
    if skb.length > mtu and (pkt.df or pkt.family == 6) and not pkt.fragment:
        w.end("rejected", "too-big", ns, "mtu", ns.links[way.dev], note=f"{skb.length} bytes, MTU {mtu}")
        deliver.icmp_error(w, skb, *((3, 4) if pkt.family == 4 else (ICMP6_TOO_BIG, 0)), mtu=mtu)
        return False
    return True


def _done(w: Walk, skb: Skb, conn: Conn, before: Packet) -> None:
    skb.ipvs = conn
    _follow(skb, conn, answer=False)
    w.step("ipvs", "request", conn.record(), "", before, skb.pkt)


def _follow(skb: Skb, conn: Conn, *, answer: bool) -> None:
    """Tell conntrack what answers will look like (`ip_vs_update_conntrack`), or let it go (`ip_vs_notrack`)."""
    if not conn.tracked:
        skb.ct, skb.ctinfo, skb.reply = None, "UNTRACKED", False
        return
    flow = skb.ct
    if flow is None or flow.confirmed or skb.reply or conn.forward != "masq":
        return
    _alter(flow, conn, answer)


def _alter(flow: Flow, conn: Conn, answer: bool) -> None:
    proto, src, dst, sport, dport, zone = flow.reply
    if answer:
        dst, dport = conn.virtual
    else:
        src, sport = conn.real
    flow.reply = (proto, src, dst, sport, dport, zone)


# -- ICMP errors ----------------------------------------------------------------------------------------------------


def _error_in(w: Walk, skb: Skb, hook: str) -> bool:
    """`ip_vs_in_icmp`: an error about what a real server sent goes to that real server."""
    pkt, quoted = skb.pkt, skb.pkt.quoted
    assert quoted is not None
    if pkt.proto not in (ICMP, ICMPV6) or quoted.proto not in _PROTOCOLS:
        return True
    conn = skb.ns.ipvs.client_conn(_inverted(quoted), w.now)
    if conn is None or conn.forward != "masq":
        return True
    way = skb.ns.lookup(conn.real[0], mark=skb.mark)
    if way is None or way.route.type in REFUSING:
        return True
    inner = replace(quoted, src=conn.real[0], sport=conn.real[1])
    skb.pkt = replace(pkt, dst=conn.real[0], quoted=inner)
    skb.ipvs = conn
    if not conn.tracked:
        skb.ct, skb.ctinfo, skb.reply = None, "UNTRACKED", False
    w.step("ipvs", "error", conn.record(), "about an answer", pkt, skb.pkt)
    if way.route.type == "local":
        return True
    w.step("route", "output", way.route)
    skb.indev, skb.outdev = "", way.dev
    routing.output(w, skb, way)
    return False


def _error_out(w: Walk, skb: Skb) -> bool:
    """`ip_vs_out_icmp`: an error about a request, from the real server or on the way to it, goes to the client."""
    pkt, quoted = skb.pkt, skb.pkt.quoted
    assert quoted is not None
    if pkt.proto not in (ICMP, ICMPV6) or quoted.proto not in _PROTOCOLS:
        return True
    conn = skb.ns.ipvs.server_conn(_inverted(quoted), w.now)
    if conn is None or conn.forward != "masq":
        return True
    inner = replace(quoted, dst=conn.virtual[0], dport=conn.virtual[1])
    skb.pkt = replace(pkt, src=conn.virtual[0], quoted=inner)
    skb.ipvs = conn
    if not conn.tracked:
        skb.ct, skb.ctinfo, skb.reply = None, "UNTRACKED", False
    w.step("ipvs", "error", conn.record(), "about a request", pkt, skb.pkt)
    return True
