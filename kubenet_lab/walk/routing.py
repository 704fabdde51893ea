"""A packet and the routing table: made here, received here, forwarded here.

net/ipv4/{route,ip_input,ip_forward,ip_output}.c and their IPv6 siblings. Order of events:

- made here:   route - OUTPUT hooks - (route again if they changed destination or mark) - POSTROUTING - link
- received:    PREROUTING hooks - route - local: INPUT hooks, socket; else TTL, MTU, FORWARD, POSTROUTING, link
"""

from __future__ import annotations

from zlib import crc32

from msgspec.structs import replace

from kubenet_lab.kernel import sysctl
from kubenet_lab.kernel.netns import Netns, RouteLookup
from kubenet_lab.kernel.route import REFUSING
from kubenet_lab.packet.ip import IP_INT, prefix
from kubenet_lab.packet.packet import ICMP, ICMP6_TIME_EXCEEDED, ICMP6_TOO_BIG, ICMPV6, TCP, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import bpf, bpf_sock, deliver, hooks, links, neighbours
from kubenet_lab.walk.engine import Pending, Walk
from kubenet_lab.walk.skb import Skb

REFUSED = {"blackhole": "route-blackhole", "unreachable": "route-unreachable", "prohibit": "route-prohibit"}
_MULTICAST = prefix("224.0.0.0/4")
_LOOPBACK = prefix("127.0.0.0/8")


def send_local(w: Walk, item: Pending) -> None:
    """A local socket (or the kernel itself) sends a packet."""
    if item.raw is not None:
        bpf.emit(w, item)
        return
    ns, pkt = item.ns, item.packet
    w.begin_hop(ns, "", pkt)
    called = None
    host = bpf_sock.state_of(ns) if item.role in ("request", "onward") else None
    if host is not None:
        translated = bpf_sock.connect(w, ns, host, pkt)
        if translated is None:
            return
        pkt, called = translated
    way = ns.lookup(pkt.dst, src=pkt.src, oif=item.oif, mark=item.mark)
    if not _usable(w, ns, way, pkt.dst):
        return
    assert way is not None
    if way.route.nexthops:
        way = by_flow(ns, way, pkt, item.oif)
    if not pkt.src:
        source = choose_source(ns, way, pkt.dst)
        if not source:
            w.end("dropped", "no-source", ns, "route", way.route)
            return
        pkt = replace(pkt, src=source)
    if item.role in ("request", "onward") and pkt.proto != 0:
        pkt = _bind(w, ns, pkt)
    if host is not None and called is not None:
        bpf_sock.remember(w, ns, host, pkt, called)
    w.trace.packet = w.hop.packet = pkt
    w.steps.append(Step("send", "socket", pkt))
    w.steps.append(Step("route", "output", way.route))
    skb = Skb(pkt, ns)
    skb.mark, skb.uid, skb.gid = item.mark, item.uid, item.gid
    if item.flow is not None:
        skb.ct, skb.ctinfo, skb.reply = item.flow, "RELATED", item.flow_reply
    skb.outdev = _device(way)
    if not _fits_locally(w, skb, way, item.pmtudisc):
        return
    output(w, skb, way)


def _bind(w: Walk, ns: Netns, pkt: Packet) -> Packet:
    """Give a client socket its port (or echo its id) and remember it, so that answers find it."""
    proto = pkt.proto
    if proto in (ICMP, ICMPV6):
        if not pkt.icmp_id:
            pkt = replace(pkt, icmp_id=ns.ephemeral_port(proto) & 0xFFFF)
        w.clients.add((ns.name, proto, pkt.icmp_id))
        return pkt
    if not pkt.sport:
        for _attempt in range(28232):
            port = ns.ephemeral_port(proto)
            if (ns.name, proto, port) not in w.clients and ns.socket_for(proto, pkt.src, port) is None:
                break
        pkt = replace(pkt, sport=port)
    w.clients.add((ns.name, proto, pkt.sport))
    w.peers[ns.name, proto, pkt.sport] = (pkt.dst, pkt.dport)
    return pkt


def output(w: Walk, skb: Skb, way: RouteLookup) -> None:
    """`ip_local_out`: OUTPUT hooks, then out. Shared by sockets and tunnels."""
    ns, before, mark = skb.ns, skb.pkt, skb.mark
    if not hooks.output(w, skb):
        return
    pkt = skb.pkt
    if pkt.dst != before.dst or pkt.src != before.src or skb.mark != mark:
        again = ns.lookup(pkt.dst, src=pkt.src if ns.is_local(pkt.src) else "", mark=skb.mark)
        if not _usable(w, ns, again, pkt.dst):
            return
        assert again is not None
        way = again
        w.steps.append(Step("route", "output", way.route, note="looked up again, a hook changed the packet"))
        skb.outdev = _device(way)
    finish_output(w, skb, way)


def can_go(w: Walk, skb: Skb) -> bool:
    """`ip_route_me_harder` inside OUTPUT: what a hook sent where no way leads ends there, before later hooks see it."""
    pkt = skb.pkt
    way = skb.ns.lookup(pkt.dst, src=pkt.src if skb.ns.is_local(pkt.src) else "", mark=skb.mark)
    return _usable(w, skb.ns, way, pkt.dst)


def _device(way: RouteLookup) -> str:
    return "lo" if way.route.type == "local" else way.dev


def _usable(w: Walk, ns: Netns, way: RouteLookup | None, dst: str) -> bool:
    if way is None:
        w.end("dropped", "no-route", ns, "route", note=f"no route to {dst}")
        return False
    if way.route.type in REFUSING:
        w.end("dropped", REFUSED[way.route.type], ns, "route", way.route)
        return False
    return True


def choose_source(ns: Netns, way: RouteLookup, dst: str) -> str:
    """Return the source address the kernel picks for a route, "" if there is none (`inet_select_addr`, RFC 6724)."""
    route = way.route
    if route.prefsrc:
        return route.prefsrc
    if route.type == "local":
        return dst
    if ":" in dst:
        return _source6(ns, way.dev, dst)
    return primary_address(ns, way.dev, way.via or dst, 4)


def primary_address(ns: Netns, dev: str, towards: str, fam: int) -> str:
    """Return the address of `dev` in the subnet of `towards`, else its first global one, else any of the host."""
    if fam == 6:
        return _source6(ns, dev, towards)
    first = ""
    for address in ns.addresses.get(dev, ()):
        if address.family != 4 or address.secondary or address.scope == "host":
            continue
        if towards in address.network:
            return address.local
        first = first or address.local
    if first:
        return first
    for address in ns.addrs(None, 4):
        if address.scope == "global" and not address.secondary:
            return address.local
    return ""


def _source6(ns: Netns, dev: str, dst: str) -> str:
    if dst == "::1":
        return dst  # RFC 6724, rule 1: prefer the same address
    candidates = list(ns.addrs(dev, 6)) or [a for a in ns.addrs(None, 6) if a.scope == "global"]
    link_local = dst.startswith("fe80:")
    fitting = [a for a in candidates if (a.scope == "link") == link_local and a.scope != "host"]
    fitting = fitting or [a for a in ns.addrs(None, 6) if a.scope == "global"] or candidates
    if not fitting:
        return ""
    number = IP_INT[dst]
    return min(fitting, key=lambda a: (IP_INT[a.local] ^ number).bit_length()).local


def _fits_locally(w: Walk, skb: Skb, way: RouteLookup, pmtudisc: str) -> bool:
    """Fragment, or refuse with EMSGSIZE, what is bigger than the way's MTU."""
    ns, pkt = skb.ns, skb.pkt
    mtu = path_mtu(w, ns, way, pkt.dst)
    if skb.length <= mtu:
        skb.pkt = replace(pkt, df=False) if pmtudisc == "dont" and pkt.df else pkt
        return True
    if pkt.proto == TCP:
        # TCP cuts its stream into segments that fit; a segment made by hand is refused.
        w.end("dropped", "too-big", ns, "mtu", note=f"{skb.length} bytes, MTU {mtu}")
        return False
    if pmtudisc == "do":
        w.end("dropped", "too-big", ns, "mtu", note=f"local error: message too long, mtu={mtu}")
        return False
    fragment(w, skb, mtu)
    return True


def fragment(w: Walk, skb: Skb, mtu: int) -> None:
    """Send the packet in pieces of at most `mtu` bytes (RFC 791)."""
    skb.pkt = replace(skb.pkt, df=False, fragment=mtu)
    pieces = -(-(skb.length - 20) // ((mtu - 20) // 8 * 8))
    w.step("mtu", "fragment", note=f"{skb.length} bytes leave in {pieces} fragments of at most {mtu} bytes")


def path_mtu(w: Walk, ns: Netns, way: RouteLookup, dst: str) -> int:
    """Return the MTU towards `dst`: the learned path MTU, the route's, or the link's."""
    learned = ns.pmtu.get(dst)
    if learned is not None and learned[1] > w.now:
        return learned[0]
    if way.route.mtu:
        return way.route.mtu
    return ns.links[_device(way)].mtu


def receive_ip(w: Walk, skb: Skb, prerouted: bool = False) -> None:
    """`ip_rcv`: a packet came up from a link of this namespace."""
    sent_to = skb.pkt.dst
    if not prerouted and not hooks.prerouting(w, skb):
        return
    ns, pkt, dev = skb.ns, skb.pkt, skb.indev
    fam = pkt.family
    way = ns.lookup(pkt.dst, src=pkt.src, iif=dev, mark=skb.mark)
    if way is not None and way.route.nexthops:
        way = by_flow(ns, way, pkt)
    local = way is not None and way.route.type in ("local", "broadcast")
    # What comes back over lo still has the route it left by, unless a hook gave it another destination.
    if (dev != "lo" or pkt.dst != sent_to) and not source_valid(w, skb, way):
        return
    if local or (fam == 4 and (pkt.dst == "255.255.255.255" or pkt.dst in _MULTICAST)):
        if fam == 4 and dev != "lo" and pkt.dst in _LOOPBACK and not _switch(ns, dev, "route_localnet"):
            w.end("dropped", "martian-destination", ns, "route", way.route if way else None)
            return
        w.steps.append(Step("route", "input", way.route if way else None, note="for this host"))
        deliver.local_input(w, skb)
        return
    if ns.sysctl("net.ipv4.ip_forward" if fam == 4 else "net.ipv6.conf.all.forwarding") != "1":
        w.end("dropped", "not-forwarding", ns, "route", way.route if way else None)
        return
    if way is None:
        w.end("rejected", "no-route", ns, "route", note=f"no route to {pkt.dst}")
        deliver.icmp_error(w, skb, *((3, 0) if fam == 4 else (1, 0)))
        return
    if way.route.type in REFUSING:
        kind = way.route.type
        w.end("dropped" if kind == "blackhole" else "rejected", REFUSED[kind], ns, "route", way.route)
        if kind == "unreachable":
            by_rule = way.rule.action != "lookup"
            deliver.icmp_error(w, skb, *((3, 0 if by_rule else 1) if fam == 4 else (1, 0)))
        elif kind == "prohibit":
            deliver.icmp_error(w, skb, *((3, 13) if fam == 4 else (1, 1)))
        return
    w.steps.append(Step("route", "input", way.route))
    forward(w, skb, way)


def by_flow(ns: Netns, way: RouteLookup, pkt: Packet, oif: str = "") -> RouteLookup:
    """`fib_multipath_hash`: with fib_multipath_hash_policy 1 the leg is chosen by addresses, protocol and ports."""
    if ns.sysctl(f"net.ipv{pkt.family}.fib_multipath_hash_policy") != "1":
        return way
    flow = f"{pkt.src} {pkt.dst} {pkt.proto} {pkt.sport} {pkt.dport}"
    return ns.spread(way, crc32(flow.encode()), oif)


def _switch(ns: Netns, dev: str, name: str) -> bool:
    return ns.sysctl(f"net.ipv4.conf.all.{name}") != "0" or ns.sysctl(sysctl.conf(4, dev, name)) != "0"


def reverse_path_mode(ns: Netns, dev: str) -> int:
    """Return the rp_filter mode in force on a link: the greater of `all` and its own (ip-sysctl.rst)."""
    mode = ns.rp_filter.get(dev)
    if mode is None:
        own, every = ns.sysctl(sysctl.conf(4, dev, "rp_filter")), ns.sysctl("net.ipv4.conf.all.rp_filter")
        mode = ns.rp_filter[dev] = max(int(own), int(every))
    return mode


def source_valid(w: Walk, skb: Skb, way: RouteLookup | None) -> bool:
    """`fib_validate_source`: martians, and the reverse path filter."""
    ns, pkt, dev = skb.ns, skb.pkt, skb.indev
    if ":" in pkt.src or (pkt.src, dev) in ns.trusted_sources:
        return True
    if pkt.src in _MULTICAST or pkt.src == "255.255.255.255":
        w.end("dropped", "martian-source", ns, "route", note=pkt.src)
        return False
    if pkt.src in _LOOPBACK and not _switch(ns, dev, "route_localnet"):
        w.end("dropped", "martian-source", ns, "route", note=pkt.src)
        return False
    if way is None or way.route.type in REFUSING:
        return True  # no way, no check of the way back: the sender is told that there is none
    if ns.is_local(pkt.src) and not _switch(ns, dev, "accept_local"):
        w.end("dropped", "martian-source", ns, "route", note=f"{pkt.src} is this host's own address")
        return False
    mode = reverse_path_mode(ns, dev)
    if not mode:
        ns.trusted_sources.add((pkt.src, dev))
        return True
    # A forwarded packet's answer would come in by the way out: rules that ask for `iif` see that link.
    answer_by = way.dev if way is not None and way.route.type == "unicast" else ""
    mark = skb.mark if _switch(ns, dev, "src_valid_mark") else 0
    if not reverse_path_ok(ns, pkt, dev, loose=mode == 2, mark=mark, iif=answer_by):
        w.end("dropped", "rp-filter", ns, "route", note=f"rp_filter={mode} on {dev}, source {pkt.src}")
        return False
    return True


def reverse_path_ok(ns: Netns, pkt: Packet, dev: str, *, loose: bool, mark: int, iif: str) -> bool:
    """True when the source would be reached through `dev` (or, loosely, at all); `iif` is the answer's way in."""
    back = ns.lookup(pkt.src, src=pkt.dst, iif=iif, mark=mark)
    if back is None or back.route.type != "unicast":
        return False
    return loose or back.dev == dev or any(leg.dev == dev for leg in back.route.nexthops)


def forward(w: Walk, skb: Skb, way: RouteLookup) -> None:
    """`ip_forward`: TTL, MTU, FORWARD hooks, then out."""
    ns, pkt = skb.ns, skb.pkt
    fam = pkt.family
    if pkt.ttl <= 1:
        w.end("rejected", "ttl-exceeded", ns, "ttl", note=f"TTL {pkt.ttl} on arrival")
        deliver.icmp_error(w, skb, *((11, 0) if fam == 4 else (ICMP6_TIME_EXCEEDED, 0)))
        return
    mtu = way.route.mtu or ns.links[way.dev].mtu
    if skb.length > mtu and (pkt.df or fam == 6) and not pkt.fragment:
        w.end("rejected", "too-big", ns, "mtu", ns.links[way.dev], note=f"{skb.length} bytes, MTU {mtu}")
        deliver.icmp_error(w, skb, *((3, 4) if fam == 4 else (ICMP6_TOO_BIG, 0)), mtu=mtu)
        return
    skb.pkt = replace(pkt, ttl=pkt.ttl - 1)
    skb.outdev = way.dev
    if not hooks.forward(w, skb):
        return
    finish_output(w, skb, way)


def finish_output(w: Walk, skb: Skb, way: RouteLookup) -> None:
    """POSTROUTING hooks, fragmentation, next hop's MAC, link."""
    if not hooks.postrouting(w, skb):
        return
    ns, dev = skb.ns, skb.outdev
    pkt = skb.pkt
    link = ns.links[dev]
    if link.kind == "loopback":
        links.transmit(w, ns, dev, Frame(link.mac, link.mac, pkt, 0, skb.length), skb)
        return
    if way.route.type == "broadcast" or pkt.dst == "255.255.255.255":
        links.transmit(w, ns, dev, Frame(link.mac, links.BROADCAST, pkt, 0, skb.length), skb)
        return
    mtu = way.route.mtu or link.mtu
    if skb.length > mtu and not (pkt.fragment and pkt.fragment <= mtu) and pkt.family == 4:
        fragment(w, skb, mtu)
        pkt = skb.pkt
    mac = neighbours.resolve(w, ns, dev, way.via or pkt.dst, pkt.src)
    if not mac:
        w.end("dropped", "neighbour-failed", ns, dev, ns.neighbours.get((dev, way.via or pkt.dst)))
        # The kernel sends the error to itself too (`ipv4_link_failure`): so a local caller learns of it.
        deliver.icmp_error(w, skb, *((3, 1) if pkt.family == 4 else (1, 3)))
        return
    links.transmit(w, ns, dev, Frame(link.mac, mac, pkt, 0, skb.length), skb)
