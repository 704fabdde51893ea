"""How each match is tested: one function a match, from typed fields to a test on a packet.

The sources are the kernel's net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c, each by the match's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.ipset import IpSet, port_part
from kubenet_lab.kernel.netfilter import matches as m
from kubenet_lab.kernel.netfilter.addresses import block_numbers
from kubenet_lab.kernel.netfilter.extension import Match
from kubenet_lab.kernel.netfilter.ports import PORT_PROTOCOLS, Range
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_LOCAL
from kubenet_lab.packet.ip import IP_INT, PREFIX, ip_text
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import HookContext, NotModelled, Site, Test

PURE, STATEFUL, UNKNOWN, KEYED = range(4)
"""A test that only looks; one that also counts or remembers; one that is not modelled; one that looks at nothing
but source, destination, protocol and destination port, so that its answer can be kept for packets alike."""


def tests_of(site: Site) -> tuple[tuple[Test, ...], tuple[Test, ...]]:
    """Return a rule's tests in the kernel's order: those that are keyed and come first, and the others.

    Only what is not modelled moves: behind the tests that merely look, so that a packet which cannot fit
    the rule anyway is not stopped by it.
    """
    out = _header(site)
    for number, match in enumerate(site.rule.matches):
        site.place = number
        kind, test = _READY.get(type(match), _unknown)(match, site)
        if test is None:
            continue
        place = len(out)
        if kind in (PURE, KEYED):
            place = next((i for i, (other, _) in enumerate(out) if other == UNKNOWN), place)
        out.insert(place, (kind, test))
    first = next((i for i, (kind, _) in enumerate(out) if kind in (STATEFUL, UNKNOWN)), len(out))
    keyed = tuple(test for kind, test in out[:first] if kind == KEYED)
    return keyed, tuple(test for i, (kind, test) in enumerate(out) if kind != KEYED or i >= first)


Made = tuple[int, Test | None]


# -- the header ----------------------------------------------------------------------------------------------


def _header(site: Site) -> list[tuple[int, Test]]:
    rule = site.rule
    out: list[tuple[int, Test]] = []
    if rule.proto:
        out.append((KEYED, _proto(rule.proto, rule.not_proto)))
    if rule.dst:
        out.append((KEYED, _address(rule.dst, rule.not_dst, "dst")))
    if rule.src:
        out.append((KEYED, _address(rule.src, rule.not_src, "src")))
    if rule.indev:
        out.append((PURE, _device(rule.indev, rule.not_indev, "indev")))
    if rule.outdev:
        out.append((PURE, _device(rule.outdev, rule.not_outdev, "outdev")))
    if rule.fragment or rule.not_fragment:
        out.append((PURE, _fragment(site)))
    return out


def _proto(proto: int, negated: bool) -> Test:
    if negated:
        return lambda skb, ctx: skb.pkt.proto != proto
    return lambda skb, ctx: skb.pkt.proto == proto


def _address(block: str, negated: bool, side: str) -> Test:
    net, mask = block_numbers(block)
    host, _, length = block.partition("/")
    if length == ("128" if ":" in host else "32"):
        if side == "dst":
            return (
                (lambda skb, ctx: skb.pkt.dst != host) if negated else (lambda skb, ctx: skb.pkt.dst == host)
            )
        return (lambda skb, ctx: skb.pkt.src != host) if negated else (lambda skb, ctx: skb.pkt.src == host)
    numbers = IP_INT
    if side == "dst":
        if negated:
            return lambda skb, ctx: numbers[skb.pkt.dst] & mask != net
        return lambda skb, ctx: numbers[skb.pkt.dst] & mask == net
    if negated:
        return lambda skb, ctx: numbers[skb.pkt.src] & mask != net
    return lambda skb, ctx: numbers[skb.pkt.src] & mask == net


def _device(name: str, negated: bool, side: str) -> Test:
    if name.endswith("+"):
        start = name[:-1]
        if side == "indev":
            return lambda skb, ctx: skb.indev.startswith(start) != negated
        return lambda skb, ctx: skb.outdev.startswith(start) != negated
    if side == "indev":
        return lambda skb, ctx: (skb.indev == name) != negated
    return lambda skb, ctx: (skb.outdev == name) != negated


def _fragment(site: Site) -> Test:
    whole, ref = site.rule.not_fragment, site.ref

    def test(skb: Skb, ctx: HookContext) -> bool:
        if skb.pkt.fragment:
            raise NotModelled(ref, "-f on a packet that travels in fragments")
        return whole

    return test


# -- ports ---------------------------------------------------------------------------------------------------


def _ports(sport: Range, dport: Range, not_sport: bool, not_dport: bool) -> list[Test]:
    out: list[Test] = []
    low, high = dport
    if low == high and not not_dport:
        out.append(lambda skb, ctx: skb.pkt.dport == low)
    elif dport != (0, 65535) or not_dport:
        out.append(lambda skb, ctx: (low <= skb.pkt.dport <= high) != not_dport)
    if sport != (0, 65535) or not_sport:
        first, last = sport
        out.append(lambda skb, ctx: (first <= skb.pkt.sport <= last) != not_sport)
    return out


def _all(tests: list[Test]) -> Test | None:
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda skb, ctx: all(test(skb, ctx) for test in tests)


def _only_dport(match: m.Tcp | m.Udp) -> int:
    return PURE if match.sport != (0, 65535) or match.not_sport else KEYED


def _tcp(match: m.Tcp, site: Site) -> Made:
    kind = PURE if match.flags is not None or match.option else _only_dport(match)
    tests = _ports(match.sport, match.dport, match.not_sport, match.not_dport)
    if match.flags is not None:
        mask, wanted = match.flags
        negated = match.not_flags
        tests.append(lambda skb, ctx: (skb.pkt.flags & mask == wanted) != negated)
    if match.option == 2:
        without = match.not_option
        tests.append(lambda skb, ctx: (skb.pkt.mss != 0) != without)
    elif match.option:
        return UNKNOWN, _all([*tests, _stop(site, f"--tcp-option {match.option}")])
    return kind, _all(tests)


def _udp(match: m.Udp, site: Site) -> Made:
    return _only_dport(match), _all(_ports(match.sport, match.dport, match.not_sport, match.not_dport))


def _sctp(match: m.Sctp, site: Site) -> Made:
    tests = _ports(match.sport, match.dport, match.not_sport, match.not_dport)
    if match.chunks is not None:
        return UNKNOWN, _all([*tests, _stop(site, "--chunk-types")])
    return PURE, _all(tests)


def _multiport(match: m.Multiport, site: Site) -> Made:
    ranges, negated, side = match.ports, match.negated, match.side

    def inside(port: int) -> bool:
        return any(low <= port <= high for low, high in ranges)

    if side == "dports":
        return PURE, lambda skb, ctx: inside(skb.pkt.dport) != negated
    if side == "sports":
        return PURE, lambda skb, ctx: inside(skb.pkt.sport) != negated
    return PURE, lambda skb, ctx: (inside(skb.pkt.sport) or inside(skb.pkt.dport)) != negated


def _icmp(match: m.Icmp, site: Site) -> Made:
    kind, low, high, negated = match.type, match.code_min, match.code_max, match.negated
    if kind == 255:
        return PURE, (lambda skb, ctx: not negated)
    return PURE, lambda skb, ctx: (skb.pkt.icmp_type == kind and low <= skb.pkt.icmp_code <= high) != negated


def _icmp6(match: m.Icmp6, site: Site) -> Made:
    kind, low, high, negated = match.type, match.code_min, match.code_max, match.negated
    return PURE, lambda skb, ctx: (skb.pkt.icmp_type == kind and low <= skb.pkt.icmp_code <= high) != negated


# -- addresses and the header's smaller fields ---------------------------------------------------------------


def address_type(ns: Netns, address: str, dev: str = "") -> str:
    """Return what the namespace's routing makes of an address: LOCAL, BROADCAST, MULTICAST, UNICAST,
    UNREACHABLE.

    With `dev` an address of another interface does not count as local. IPv4 asks the local table only
    (`inet_addr_type_dev_table`), IPv6 looks up a whole route (`match_lookup_rt6`).
    """
    if ":" in address:
        if address.startswith("ff"):
            return "MULTICAST"
        way = ns.lookup(address, oif=dev)
        if way is None or way.route.type in ("unreachable", "prohibit", "blackhole"):
            return "UNREACHABLE"
        kind = way.route.type.upper()
        return kind if kind in ("LOCAL", "ANYCAST") else "UNICAST"
    number = IP_INT[address]
    if number == 0xFFFFFFFF or number >> 24 == 0:
        return "BROADCAST"
    if number >> 28 == 14:
        return "MULTICAST"
    for route in ns.fib(4, TABLE_LOCAL).candidates(address):
        if not dev or route.dev == dev:
            return route.type.upper()
        break
    return "UNICAST"


def _type6(ns: Netns, address: str, dev: str, wanted: frozenset[str]) -> bool:
    """`match_type6`: in IPv6 the kinds of an address narrow each other, and only routing's kinds are a choice."""
    if "MULTICAST" in wanted and not address.startswith("ff"):
        return False
    if "UNICAST" in wanted and (address.startswith("ff") or address == "::"):
        return False
    if "UNSPEC" in wanted and address != "::":
        return False
    routed = wanted & {"LOCAL", "ANYCAST", "UNREACHABLE"}
    return not routed or address_type(ns, address, dev) in routed


def _addrtype(match: m.AddrType, site: Site) -> Made:
    src, dst = frozenset(match.src), frozenset(match.dst)
    not_src, not_dst, limit_in, limit_out = match.not_src, match.not_dst, match.limit_in, match.limit_out

    if site.family == 6:

        def test6(skb: Skb, ctx: HookContext) -> bool:
            dev = skb.indev if limit_in else skb.outdev if limit_out else ""
            if src and _type6(skb.ns, skb.pkt.src, dev, src) == not_src:
                return False
            return not dst or _type6(skb.ns, skb.pkt.dst, dev, dst) != not_dst

        return PURE, test6

    def test(skb: Skb, ctx: HookContext) -> bool:
        dev = skb.indev if limit_in else skb.outdev if limit_out else ""
        if src and (address_type(skb.ns, skb.pkt.src, dev) in src) == not_src:
            return False
        return not dst or (address_type(skb.ns, skb.pkt.dst, dev) in dst) != not_dst

    return PURE, test


def _iprange(match: m.IpRange, site: Site) -> Made:
    tests: list[Test] = []
    if match.src is not None:
        low, high, negated = IP_INT[match.src[0]], IP_INT[match.src[1]], match.not_src
        tests.append(lambda skb, ctx: (low <= IP_INT[skb.pkt.src] <= high) != negated)
    if match.dst is not None:
        first, last, without = IP_INT[match.dst[0]], IP_INT[match.dst[1]], match.not_dst
        tests.append(lambda skb, ctx: (first <= IP_INT[skb.pkt.dst] <= last) != without)
    return PURE, _all(tests)


def _rpfilter(match: m.RpFilter, site: Site) -> Made:
    """`rpfilter_mt`: a route back to the source must exist, over the interface the packet came by."""

    def passes(skb: Skb) -> bool:
        ns, pkt = skb.ns, skb.pkt
        if skb.indev == "lo":
            return True
        if (
            site.family == 4
            and IP_INT[pkt.src] >> 24 == 0
            and (pkt.dst == "255.255.255.255" or IP_INT[pkt.dst] >> 8 == 0xE00000)
        ):
            return True  # a host without an address asks for one
        way = ns.lookup(
            pkt.src,
            src=pkt.dst,
            mark=skb.mark if match.validmark else 0,
        )
        if way is None:
            return False
        if way.route.type == "local":
            return match.accept_local
        return way.route.type == "unicast" and (match.loose or way.dev == skb.indev)

    return PURE, lambda skb, ctx: passes(skb) != match.invert


def _length(match: m.Length, site: Site) -> Made:
    (low, high), negated = match.length, match.negated
    return PURE, lambda skb, ctx: (low <= skb.pkt.length <= high) != negated


def _tcpmss(match: m.TcpMss, site: Site) -> Made:
    (low, high), negated = match.mss, match.negated
    return PURE, lambda skb, ctx: (skb.pkt.mss != 0 and low <= skb.pkt.mss <= high) != negated


def _ttl(match: m.Ttl, site: Site) -> Made:
    value, negated = match.value, match.negated
    if match.op == "eq":
        return PURE, lambda skb, ctx: (skb.pkt.ttl == value) != negated
    if match.op == "lt":
        return PURE, lambda skb, ctx: skb.pkt.ttl < value
    return PURE, lambda skb, ctx: skb.pkt.ttl > value


def _dscp(match: m.Dscp, site: Site) -> Made:
    value, negated = match.dscp, match.negated
    return PURE, lambda skb, ctx: (skb.pkt.tos >> 2 == value) != negated


def _tos(match: m.Tos, site: Site) -> Made:
    value, mask, negated = match.value, match.mask, match.negated
    return PURE, lambda skb, ctx: (skb.pkt.tos & mask == value) != negated


def _mac(match: m.Mac, site: Site) -> Made:
    source, negated = match.source, match.negated
    return PURE, lambda skb, ctx: skb.src_mac != "" and (skb.src_mac == source) != negated


def _ipvs(match: m.Ipvs, site: Site) -> Made:
    """Whether IPVS has translated the packet, and for which virtual server (net/netfilter/xt_ipvs.c)."""
    block = PREFIX[match.address] if match.address else None
    methods = {"masq": "MASQ", "route": "GATE", "tunnel": "IPIP"}

    def test(skb: Skb, ctx: HookContext) -> bool:
        conn = skb.ipvs
        if match.present is not None and (conn is not None) != match.present:
            return False
        conditions: list[tuple[str, bool]] = []
        if match.proto:
            conditions.append(("--vproto", skb.pkt.proto == match.proto))
        if conn is None:
            return match.present is not None and not (
                match.proto or block or match.port or match.direction or match.method or match.control_port
            )
        if block is not None:
            conditions.append(("--vaddr", conn.virtual[0] in block))
        if match.port:
            conditions.append(("--vport", conn.virtual[1] == match.port))
        if match.control_port:
            control = conn.control
            conditions.append(
                ("--vportctl", control is not None and control.virtual[1] == match.control_port)
            )
        if match.direction:
            if skb.ct is None:
                return False
            conditions.append(("--vdir", (match.direction == "REPLY") == skb.reply))
        if match.method:
            conditions.append(("--vmethod", methods[conn.forward] == match.method))
        return all(holds != (name in match.negated) for name, holds in conditions)

    return PURE, test


def _pkttype(match: m.PktType, site: Site) -> Made:
    kind, negated = match.kind, match.negated

    def of(skb: Skb) -> str:
        mac = skb.dst_mac
        if mac == "ff:ff:ff:ff:ff:ff":
            return "broadcast"
        if mac and int(mac[:2], 16) & 1:
            return "multicast"
        return "unicast"

    return PURE, lambda skb, ctx: (of(skb) == kind) != negated


def _physdev(match: m.PhysDev, site: Site) -> Made:
    def test(skb: Skb, ctx: HookContext) -> bool:
        came, goes = skb.physin, skb.physout
        if not came and not goes:
            return not (match.is_bridged or match.is_in or match.is_out) and not (
                (match.indev and not match.not_indev) or (match.outdev and not match.not_outdev)
            )
        if match.is_bridged is not None and (goes != "") != match.is_bridged:
            return False
        if match.is_in is not None and (came != "") != match.is_in:
            return False
        if match.is_out is not None and (goes != "") != match.is_out:
            return False
        if match.indev and _named(came, match.indev) == match.not_indev:
            return False
        return not match.outdev or _named(goes, match.outdev) != match.not_outdev

    return PURE, test


def _named(dev: str, wanted: str) -> bool:
    return dev.startswith(wanted[:-1]) if wanted.endswith("+") else dev == wanted


def _owner(match: m.Owner, site: Site) -> Made:
    def test(skb: Skb, ctx: HookContext) -> bool:
        if skb.uid is None or skb.uid < 0:
            # No socket at all, or one of the kernel's own, which no user's program opened.
            absent = skb.uid is None
            if match.socket_exists is not None and match.socket_exists == absent:
                return False
            wanted = match.uid is not None and not match.not_uid
            return not (wanted or (match.gid is not None and not match.not_gid))
        if match.socket_exists is False:
            return False
        if match.uid is not None and (match.uid[0] <= skb.uid <= match.uid[1]) == match.not_uid:
            return False
        gid = skb.gid if skb.gid is not None else 0
        return match.gid is None or (match.gid[0] <= gid <= match.gid[1]) != match.not_gid

    return PURE, test


# -- marks and connections -----------------------------------------------------------------------------------


def _mark(match: m.Mark, site: Site) -> Made:
    value, mask = match.value, match.mask
    if match.negated:
        return PURE, lambda skb, ctx: skb.mark & mask != value
    return PURE, lambda skb, ctx: skb.mark & mask == value


def _connmark(match: m.ConnMark, site: Site) -> Made:
    value, mask, negated = match.value, match.mask, match.negated
    return PURE, lambda skb, ctx: skb.ct is not None and (skb.ct.mark & mask == value) != negated


def _in_states(skb: Skb, states: frozenset[str]) -> bool:
    flow = skb.ct
    if flow is None:
        return ("UNTRACKED" if skb.ctinfo == "UNTRACKED" else "INVALID") in states
    if skb.ctinfo in states:
        return True
    return (flow.src_nat and "SNAT" in states) or (flow.dst_nat and "DNAT" in states)


def _state(match: m.State, site: Site) -> Made:
    states, negated = frozenset(match.state), match.negated
    return PURE, lambda skb, ctx: _in_states(skb, states) != negated


def _conntrack(match: m.Conntrack, site: Site) -> Made:
    states, negated = frozenset(match.state), match.negated
    not_state = "state" in negated
    tests: list[Callable[[Flow, Skb, HookContext], bool]] = []

    def side(field: str, tuple_name: str, place: int) -> None:
        text = getattr(match, field)
        if not text:
            return
        net, mask = block_numbers(text)
        without = field in negated
        tests.append(
            lambda flow, skb, ctx: (IP_INT[getattr(flow, tuple_name)[place]] & mask == net) != without
        )

    def port(field: str, tuple_name: str, place: int) -> None:
        ports = getattr(match, field)
        if ports is None:
            return
        low, high = ports
        without = field in negated
        tests.append(lambda flow, skb, ctx: (low <= getattr(flow, tuple_name)[place] <= high) != without)

    if match.direction:
        wanted = match.direction == "REPLY"
        tests.append(lambda flow, skb, ctx: skb.reply == wanted)
    for name, tuple_name in (("orig", "orig"), ("repl", "reply")):
        side(f"{name}src", tuple_name, 1)
        side(f"{name}dst", tuple_name, 2)
        port(f"{name}srcport", tuple_name, 3)
        port(f"{name}dstport", tuple_name, 4)
    if match.proto is not None:
        proto, other = match.proto, "proto" in negated
        tests.append(lambda flow, skb, ctx: (flow.orig[0] == proto) != other)
    if match.status:
        bits, absent = frozenset(match.status), "status" in negated
        tests.append(lambda flow, skb, ctx: bool(_status(flow) & bits) != absent)
    if match.expire is not None:
        (first, last), outside = match.expire, "expire" in negated
        tests.append(lambda flow, skb, ctx: (first <= int(flow.expires - ctx.now) <= last) != outside)
    if not tests:
        if not_state:
            return PURE, lambda skb, ctx: not _in_states(skb, states)
        if len(states) == 1 and not states & {"SNAT", "DNAT", "INVALID", "UNTRACKED"}:
            (only,) = states
            return PURE, lambda skb, ctx: skb.ct is not None and skb.ctinfo == only
        return PURE, lambda skb, ctx: _in_states(skb, states)

    def test(skb: Skb, ctx: HookContext) -> bool:
        if states and _in_states(skb, states) == not_state:
            return False
        flow = skb.ct
        if flow is None:
            return bool(states)
        return all(one(flow, skb, ctx) for one in tests)

    return PURE, test


def _status(flow: Flow) -> set[str]:
    out = set()
    if flow.master is not None:
        out.add("EXPECTED")
    if flow.seen_reply:
        out.add("SEEN_REPLY")
    if flow.assured:
        out.add("ASSURED")
    if flow.confirmed:
        out.add("CONFIRMED")
    return out


# -- sets ----------------------------------------------------------------------------------------------------


def _set(match: m.SetMatch, site: Site) -> Made:
    if match.counters:
        return UNKNOWN, _stop(site, "counters of a set's entry")

    def test(skb: Skb, ctx: HookContext) -> bool:
        found = skb.ns.ipsets.get(match.set_name)
        if found is None:
            raise NotModelled(site.ref, f"the set {match.set_name} does not exist")
        return in_set(skb, found, match.directions, match.return_nomatch) != match.negated

    # looked up last: a packet that cannot fit anyway must not end at a set that is gone
    return UNKNOWN, test


def in_set(skb: Skb, found: IpSet, directions: tuple[str, ...], nomatch: bool = False) -> bool:
    """Return True when the packet, taken in `directions`, is an entry of the set."""
    if found.type == "list:set":
        members = (skb.ns.ipsets.get(name) for name in found.entries)
        return any(in_set(skb, member, directions, nomatch) for member in members if member is not None)
    dimensions = found.dimensions
    if len(directions) < len(dimensions):
        return False
    pkt = skb.pkt
    if found.family and (found.family == "inet6") != (":" in pkt.src):
        return False
    parts = []
    for dimension, direction in zip(dimensions, directions, strict=False):
        from_source = direction == "src"
        if dimension in ("ip", "net"):
            parts.append(pkt.src if from_source else pkt.dst)
        elif dimension == "port":
            if pkt.proto not in PORT_PROTOCOLS and pkt.proto not in (1, 58):
                return False
            parts.append(
                port_part(pkt.proto, pkt.sport if from_source else pkt.dport, pkt.icmp_type, pkt.icmp_code)
            )
        elif dimension == "iface":
            parts.append(skb.indev if from_source else skb.outdev)
        elif dimension == "mac":
            parts.append((skb.src_mac if from_source else skb.dst_mac).upper())
        elif dimension == "mark":
            parts.append(f"0x{skb.mark:08x}")
    return found.find(tuple(parts), nomatch=nomatch) is not None


# -- what counts and remembers -------------------------------------------------------------------------------


def _statistic(match: m.Statistic, site: Site) -> Made:
    negated, rule = match.negated, site.rule
    if match.mode == "random":
        probability = match.probability
        if probability >= 1.0:
            return PURE, None if not negated else (lambda skb, ctx: False)
        chance = 1.0 - probability if negated else probability
        return STATEFUL, lambda skb, ctx: ctx.choose(rule, chance)
    last, start, key = match.every - 1, match.every - 1 - match.packet, ("statistic", *site.key, site.place)

    def test(skb: Skb, ctx: HookContext) -> bool:
        state = skb.ns.xt_state
        seen = state.get(key, start)
        state[key] = upcoming = 0 if seen == last else seen + 1
        return (upcoming == 0) != negated

    return STATEFUL, test


def _limit(match: m.Limit, site: Site) -> Made:
    burst, key = match.burst, ("limit", *site.key, site.place)

    def test(skb: Skb, ctx: HookContext) -> bool:
        state = skb.ns.xt_state
        used = state.get(key, 0)
        if used >= burst:
            raise NotModelled(site.ref, f"limit's clock: its burst of {burst} packets is used up")
        state[key] = used + 1
        return True

    return STATEFUL, test


def _hashlimit(match: m.HashLimit, site: Site) -> Made:
    if match.by_bytes or match.rate_match:
        return UNKNOWN, _stop(site, "hashlimit by bytes or by rate")
    burst, modes = match.burst, match.mode

    def key_of(skb: Skb) -> tuple[Any, ...]:
        pkt = skb.pkt
        fields = {"srcip": _masked(pkt.src, match.srcmask), "dstip": _masked(pkt.dst, match.dstmask),
                  "srcport": pkt.sport, "dstport": pkt.dport}  # fmt: skip
        return tuple(fields[mode] for mode in modes)

    def test(skb: Skb, ctx: HookContext) -> bool:
        state = skb.ns.xt_state
        key = ("hashlimit", match.table_name, *key_of(skb))
        used = state.get(key, 0)
        if used >= burst:
            raise NotModelled(site.ref, f"hashlimit's clock: the burst of {burst} packets is used up")
        state[key] = used + 1
        return not match.above

    return STATEFUL, test


def _masked(address: str, length: int | None) -> str:
    if length is None:
        return address
    family, bits = (6, 128) if ":" in address else (4, 32)
    return ip_text(IP_INT[address] >> bits - length << bits - length, family)


def _recent(match: m.Recent, site: Site) -> Made:
    """`recent_mt`: lists of (address -> stamps), the least recently updated first."""
    family = site.family
    mask = IP_INT[match.mask] if match.mask else None
    key = ("recent", family, match.list_name)
    invert = match.negated

    def test(skb: Skb, ctx: HookContext) -> bool:
        pkt = skb.pkt
        address = pkt.src if match.side == "src" else pkt.dst
        if mask is not None:
            address = ip_text(IP_INT[address] & mask, family)
        # the TTL as it was before this host forwarded the packet
        ttl = pkt.ttl + 1 if skb.outdev and skb.uid is None else pkt.ttl
        entries: dict[str, tuple[int, tuple[float, ...]]] = dict(skb.ns.xt_state.get(key, {}))
        entry = entries.get(address)
        if entry is not None and match.rttl and entry[0] != ttl:
            entry = None
        result = invert
        if entry is None:
            if match.action != "set":
                return result
            result = not result
            entries[address] = (ttl, (ctx.now,))
        elif match.action == "set":
            result = not result
            _stamp(entries, address, ttl, ctx.now)
        elif match.action == "remove":
            result = not result
            del entries[address]
        else:
            since = ctx.now - match.seconds
            hits = sum(1 for stamp in entry[1] if not match.seconds or stamp >= since)
            if hits and hits >= match.hitcount:
                result = not result
            if match.reap:
                oldest = next(iter(entries))
                if entries[oldest][1][-1] < since:
                    del entries[oldest]
            if match.action == "update" and result:
                _stamp(entries, address, ttl, ctx.now)
        skb.ns.xt_state[key] = entries
        return result

    return STATEFUL, test


def _stamp(entries: dict[str, tuple[int, tuple[float, ...]]], address: str, ttl: int, now: float) -> None:
    stamps = entries.pop(address, (0, ()))[1]
    entries[address] = (ttl, (*stamps[-19:], now))


def _nfacct(match: m.NfAcct, site: Site) -> Made:
    key = ("nfacct", match.object_name)

    def test(skb: Skb, ctx: HookContext) -> bool:
        state = skb.ns.xt_state
        packets, size = state.get(key, (0, 0))
        state[key] = (packets + 1, size + skb.pkt.length)
        return True

    return STATEFUL, test


# -- what is not modelled ------------------------------------------------------------------------------------


def _stop(site: Site, what: str) -> Test:
    def test(skb: Skb, ctx: HookContext) -> bool:
        raise NotModelled(site.ref, what)

    return test


def _unknown(match: Match, site: Site) -> Made:
    return UNKNOWN, _stop(site, f"-m {match.name}")


def _comment(match: m.Comment, site: Site) -> Made:
    return PURE, None


_READY: dict[type[Match], Callable[[Any, Site], Made]] = {
    m.AddrType: _addrtype,
    m.Comment: _comment,
    m.ConnMark: _connmark,
    m.Conntrack: _conntrack,
    m.Dscp: _dscp,
    m.HashLimit: _hashlimit,
    m.HopLimit: _ttl,
    m.Icmp: _icmp,
    m.Icmp6: _icmp6,
    m.IpRange: _iprange,
    m.Ipvs: _ipvs,
    m.Length: _length,
    m.Limit: _limit,
    m.Mac: _mac,
    m.Mark: _mark,
    m.Multiport: _multiport,
    m.NfAcct: _nfacct,
    m.Owner: _owner,
    m.PhysDev: _physdev,
    m.PktType: _pkttype,
    m.Recent: _recent,
    m.RpFilter: _rpfilter,
    m.Sctp: _sctp,
    m.SetMatch: _set,
    m.SocketMatch: _unknown,
    m.State: _state,
    m.Statistic: _statistic,
    m.String: _unknown,
    m.Tcp: _tcp,
    m.TcpMss: _tcpmss,
    m.Time: _unknown,
    m.Tos: _tos,
    m.Ttl: _ttl,
    m.U32: _unknown,
    m.Udp: _udp,
    m.UnknownMatch: _unknown,
}
