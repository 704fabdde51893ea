"""What an nftables expression yields for a packet: one function an expression, from typed fields to a reader.

A reader returns the value, or None where the packet has no such thing: the rule then does not fit
(`NFT_BREAK`). Sources: the kernel's net/netfilter/nft_*.c, each by the expression's name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables.datatypes import TYPES, value_bytes, value_int, value_of
from kubenet_lab.kernel.nftables.objects import Set, Table
from kubenet_lab.kernel.nftables.ruleset import Ruleset, span
from kubenet_lab.packet.ip import IP_INT
from kubenet_lab.packet.packet import ETH_ARP, ICMP, ICMPV6, TCP, Arp
from kubenet_lab.trace import RuleRef
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xt_matches import address_type
from kubenet_lab.walk.xtables import HookContext, NotModelled


class Run:
    """One packet in one base chain: what readers and statements may ask."""

    __slots__ = ("ctx", "found", "hook", "ref", "ruleset", "skb", "table")

    def __init__(self, skb: Skb, ctx: HookContext, ruleset: Ruleset, table: Table, hook: str) -> None:
        self.skb, self.ctx, self.ruleset, self.table, self.hook = skb, ctx, ruleset, table, hook
        self.ref: RuleRef
        """The rule that is being tried."""
        self.found: tuple[ex.SetRef | ex.SetLiteral, ex.Element] | None = None
        """The set or map that was looked into last, and what was found there."""


Reader = Callable[[Run], Any]
"""What an expression yields for a packet; None where the packet has no such thing."""


class Place:
    """Where an expression stands, for what it has to remember: table handle, rule handle, number in the rule."""

    __slots__ = ("key", "ruleset")

    def __init__(self, ruleset: Ruleset, key: tuple[Any, ...]) -> None:
        self.ruleset, self.key = ruleset, key

    def cell(self, name: str, *values: float) -> list[float]:
        """Return the numbers kept under a name here, made at first."""
        return self.ruleset.state.setdefault((*self.key, name), list(values))


def reader(expr: ex.Expression, place: Place) -> Reader:
    """Return the reader of an expression."""
    return _READERS[type(expr)](expr, place)


def _stop(what: str) -> Reader:
    def read(run: Run) -> Any:
        raise NotModelled(run.ref, what)

    return read


# -- header fields -----------------------------------------------------------------------------------------------------

_PORTED = (6, 17, 132, 33, 136)


def _payload(expr: ex.Payload, place: Place) -> Reader:
    proto, field = expr.proto, expr.field
    if proto == "th":
        return _th(field)
    if proto in ex.TRANSPORT_NUMBERS:
        read = _TRANSPORT.get((proto, field)) or _PORTS.get(field if proto in _PORT_PROTOCOLS else "")
        if read is None:
            return _stop(f"{proto} {field}")
        return _transport(ex.TRANSPORT_NUMBERS[proto], read)
    found = _NETWORK.get((proto, field))
    return found if found is not None else _stop(f"{proto} {field}")


def _transport(number: int, read: Callable[[Skb], Any]) -> Reader:
    def of(run: Run) -> Any:
        skb = run.skb
        pkt = skb.pkt
        if pkt.proto != number:
            return None
        if pkt.fragment:
            raise NotModelled(run.ref, "ports of a packet that travels in fragments")
        return read(skb)

    return of


def _th(field: str) -> Reader:
    source = field == "sport"

    def of(run: Run) -> Any:
        pkt = run.skb.pkt
        if pkt.fragment:
            raise NotModelled(run.ref, "ports of a packet that travels in fragments")
        if pkt.proto in _PORTED:
            return pkt.sport if source else pkt.dport
        if run.skb.arp is not None:
            return None
        if pkt.proto in (ICMP, ICMPV6) and source:
            return pkt.icmp_type << 8 | pkt.icmp_code
        # What lies there in other headers (a checksum, an SPI) is no port that anybody asks for.
        return -1

    return of


_PORT_PROTOCOLS = ("tcp", "udp", "sctp", "dccp", "udplite")
_PORTS: dict[str, Callable[[Skb], Any]] = {"sport": lambda s: s.pkt.sport, "dport": lambda s: s.pkt.dport}
_TRANSPORT: dict[tuple[str, str], Callable[[Skb], Any]] = {
    ("tcp", "flags"): lambda s: s.pkt.flags,
    ("tcp", "sequence"): lambda s: s.pkt.seq,
    ("tcp", "ackseq"): lambda s: s.pkt.ack,
    ("tcp", "doff"): lambda s: 6 if s.pkt.mss else 5,
    ("udp", "length"): lambda s: s.length - (40 if ":" in s.pkt.src else 20),
    **{
        (proto, name): read
        for proto in ("icmp", "icmpv6")
        for name, read in (
            ("type", lambda s: s.pkt.icmp_type),
            ("code", lambda s: s.pkt.icmp_code),
            ("id", lambda s: s.pkt.icmp_id),
            ("sequence", lambda s: s.pkt.icmp_seq),
            ("mtu", lambda s: s.pkt.icmp_mtu),
        )
    },
}


def _four(read: Callable[[Skb], Any]) -> Reader:
    return lambda run: read(run.skb) if "." in run.skb.pkt.src else None


def _six(read: Callable[[Skb], Any]) -> Reader:
    return lambda run: read(run.skb) if ":" in run.skb.pkt.src else None


def _link(read: Callable[[Skb], Any]) -> Reader:
    return lambda run: read(run.skb) if run.skb.src_mac else None


def _arp(read: Callable[[Arp], Any]) -> Reader:
    return lambda run: read(run.skb.arp) if run.skb.arp is not None else None


def _ether_type(skb: Skb) -> int:
    if skb.arp is not None:
        return ETH_ARP
    return 0x86DD if ":" in skb.pkt.src else 0x0800


_NETWORK: dict[tuple[str, str], Reader] = {
    ("ip", "saddr"): _four(lambda s: s.pkt.src),
    ("ip", "daddr"): _four(lambda s: s.pkt.dst),
    ("ip", "protocol"): _four(lambda s: s.pkt.proto),
    ("ip", "ttl"): _four(lambda s: s.pkt.ttl),
    ("ip", "dscp"): _four(lambda s: s.pkt.tos >> 2),
    ("ip", "ecn"): _four(lambda s: s.pkt.tos & 3),
    ("ip", "length"): _four(lambda s: s.length),
    ("ip", "id"): _four(lambda s: s.pkt.ident),
    ("ip", "version"): _four(lambda s: 4),
    ("ip", "hdrlength"): _four(lambda s: 5),
    ("ip", "frag-off"): _four(lambda s: 0x4000 if s.pkt.df else 0),
    ("ip6", "saddr"): _six(lambda s: s.pkt.src),
    ("ip6", "daddr"): _six(lambda s: s.pkt.dst),
    ("ip6", "nexthdr"): _six(lambda s: s.pkt.proto),
    ("ip6", "hoplimit"): _six(lambda s: s.pkt.ttl),
    ("ip6", "dscp"): _six(lambda s: s.pkt.tos >> 2),
    ("ip6", "ecn"): _six(lambda s: s.pkt.tos & 3),
    ("ip6", "length"): _six(lambda s: s.length - 40),
    ("ip6", "version"): _six(lambda s: 6),
    ("ether", "saddr"): _link(lambda s: s.src_mac),
    ("ether", "daddr"): _link(lambda s: s.dst_mac),
    ("ether", "type"): _link(lambda s: _ether_type(s)),
    ("arp", "htype"): _arp(lambda a: 1),
    ("arp", "ptype"): _arp(lambda a: 0x0800),
    ("arp", "hlen"): _arp(lambda a: 6),
    ("arp", "plen"): _arp(lambda a: 4),
    ("arp", "operation"): _arp(lambda a: 1 if a.op == "request" else 2),
    ("arp", "saddr ether"): _arp(lambda a: a.sender_mac),
    ("arp", "saddr ip"): _arp(lambda a: a.sender_ip),
    ("arp", "daddr ether"): _arp(lambda a: a.target_mac),
    ("arp", "daddr ip"): _arp(lambda a: a.target_ip),
}


def _raw(expr: ex.RawPayload, place: Place) -> Reader:
    return _stop(f"@{expr.base},{expr.offset},{expr.length}")


# -- meta --------------------------------------------------------------------------------------------------------------


def _index(name: str, skb: Skb) -> int | None:
    link = skb.ns.links.get(name)
    return link.index if link is not None else None


def _kind(name: str, skb: Skb) -> str | None:
    link = skb.ns.links.get(name)
    if link is None:
        return None
    return "" if link.kind in ("loopback", "physical") else link.kind


def _hardware(name: str, skb: Skb) -> int | None:
    link = skb.ns.links.get(name)
    return None if link is None else 772 if link.kind == "loopback" else 1


def _packet_type(skb: Skb) -> int:
    mac = skb.dst_mac
    if mac == "ff:ff:ff:ff:ff:ff":
        return 1
    return 2 if mac and int(mac[:2], 16) & 1 else 0


def _bridge_of(port: str, skb: Skb) -> str | None:
    link = skb.ns.links.get(port)
    return (link.master or None) if link is not None else None


_KERNEL = -1
"""Owner of what the kernel's own sockets send (`deliver.KERNEL`): a socket without a file, so without a user."""

_META: dict[str, Callable[[Skb], Any]] = {
    "length": lambda s: s.length,
    "protocol": _ether_type,
    "nfproto": lambda s: 10 if ":" in s.pkt.src else 2,
    "l4proto": lambda s: s.pkt.proto if s.arp is None else None,
    "mark": lambda s: s.mark,
    "iif": lambda s: s.indev or None,
    "iifname": lambda s: s.indev or None,
    "oif": lambda s: s.outdev or None,
    "oifname": lambda s: s.outdev or None,
    "iiftype": lambda s: _hardware(s.indev, s),
    "oiftype": lambda s: _hardware(s.outdev, s),
    "iifkind": lambda s: _kind(s.indev, s),
    "oifkind": lambda s: _kind(s.outdev, s),
    "iifgroup": lambda s: 0 if s.indev else None,
    "oifgroup": lambda s: 0 if s.outdev else None,
    "skuid": lambda s: None if s.uid == _KERNEL else s.uid,
    "skgid": lambda s: None if s.uid == _KERNEL else s.gid,
    "pkttype": _packet_type,
    "cpu": lambda s: 0,
    "priority": lambda s: 0,
    "rtclassid": lambda s: 0,
    "ipsec": lambda s: 0,
    "ibrname": lambda s: _bridge_of(s.physin or s.indev, s),
    "obrname": lambda s: _bridge_of(s.physout or s.outdev, s),
}


def _meta(expr: ex.Meta, place: Place) -> Reader:
    if expr.key == "random":
        return lambda run: _draw(run, 1 << 32)
    found = _META.get(expr.key)
    if found is None:
        return _stop(f"meta {expr.key}")
    return lambda run: found(run.skb)


# -- conntrack ---------------------------------------------------------------------------------------------------------

_STATES = {"NEW": 8, "ESTABLISHED": 2, "RELATED": 4}


def _state(run: Run) -> int:
    skb = run.skb
    if skb.ct is not None:
        return _STATES.get(skb.ctinfo, 1)
    return 64 if skb.ctinfo == "UNTRACKED" else 1


def _status(flow: Flow, run: Run) -> int:
    value = 0
    for bit, on in (
        (2, flow.seen_reply), (4, flow.assured), (8, flow.confirmed), (16, flow.src_nat), (32, flow.dst_nat),
    ):  # fmt: skip
        if on:
            value |= bit
    return value


def _tuple_of(flow: Flow, direction: str) -> tuple[int, str, str, int, int, int]:
    return flow.reply if direction == "reply" else flow.orig


def _ct(expr: ex.Ct, place: Place) -> Reader:
    key, direction = expr.key, expr.direction
    if key == "state":
        return _state
    read: Callable[[Flow, Run], Any]
    if key == "status":
        read = _status
    elif key == "mark":
        read = lambda flow, run: flow.mark  # noqa: E731
    elif key == "direction":
        read = lambda flow, run: int(run.skb.reply)  # noqa: E731
    elif key == "expiration":
        read = lambda flow, run: max(0, round((flow.expires - run.ctx.now) * 1000))  # noqa: E731
    elif key == "zone":
        read = lambda flow, run: flow.zone  # noqa: E731
    elif key == "l3proto":
        read = lambda flow, run: 10 if ":" in flow.orig[1] else 2  # noqa: E731
    elif key == "protocol":
        read = lambda flow, run: flow.orig[0]  # noqa: E731
    elif key in ("proto-src", "proto-dst"):
        at = 3 if key == "proto-src" else 4
        read = lambda flow, run: _tuple_of(flow, direction)[at]  # noqa: E731
    elif key.endswith(("saddr", "daddr")):
        source = key.endswith("saddr")
        six = key.startswith("ip6")

        def address(flow: Flow, run: Run) -> Any:
            ends = _tuple_of(flow, direction)
            found = ends[1] if source else ends[2]
            return found if (":" in found) == six else None

        read = address
    elif key in ("packets", "bytes", "avgpkt"):

        def counted(flow: Flow, run: Run) -> Any:
            if run.skb.ns.sysctls.get("net.netfilter.nf_conntrack_acct", "0") == "0":
                return 0
            raise NotModelled(run.ref, f"ct {key} with nf_conntrack_acct")

        read = counted
    elif key == "helper":
        read = lambda flow, run: None  # noqa: E731
    else:
        return _stop(f"ct {key}")

    def of(run: Run) -> Any:
        flow = run.skb.ct
        return None if flow is None else read(flow, run)

    return of


# -- routing, sockets, chance, hashes ----------------------------------------------------------------------------------


def _fib(expr: ex.Fib, place: Place) -> Reader:
    """`nft_fib_netdev_eval`: a frame without an IP packet fits no rule."""
    read = _fib_of(expr)
    return lambda run: read(run) if run.skb.arp is None else None


def _fib_of(expr: ex.Fib) -> Reader:
    source = "saddr" in expr.flags
    with_mark, iif, oif = ("mark" in expr.flags), ("iif" in expr.flags), ("oif" in expr.flags)
    names = TYPES["fib_addrtype"].symbols

    def kind(run: Run) -> Any:
        skb = run.skb
        dev = skb.indev if iif else skb.outdev if oif else ""
        found = address_type(skb.ns, skb.pkt.src if source else skb.pkt.dst, dev)
        return names.get(found.lower(), 1)

    def route(run: Run) -> str:
        """`nft_fib4_eval`: the device that a route to the address leaves by, "" where there is none."""
        skb = run.skb
        ns, pkt = skb.ns, skb.pkt
        if skb.indev == "lo" and not skb.outdev:
            return "lo"
        address = pkt.src if source else pkt.dst
        dev = skb.indev if iif else skb.outdev if oif else ""
        other = pkt.dst if source else pkt.src
        if other == "255.255.255.255" or other.startswith(("0.", "ff")) or IP_INT[other] >> 28 == 14:
            other = ""
        way = ns.lookup(address, src=other, iif="lo", mark=skb.mark if with_mark else 0)
        if way is None or way.route.type != "unicast":
            return ""
        found = way.dev or way.route.dev
        if dev:
            return dev if found == dev else ""
        return found

    if expr.result == "type":
        return kind
    if expr.present:
        return lambda run: int(bool(route(run)))
    return lambda run: route(run) or (0 if expr.result == "oif" else "")


def _rt(expr: ex.Rt, place: Place) -> Reader:
    if expr.key == "mtu":
        return _path_mss
    if expr.key == "nexthop":

        def hop(run: Run) -> Any:
            way = run.skb.ns.lookup(run.skb.pkt.dst, oif=run.skb.outdev, mark=run.skb.mark)
            return None if way is None else way.via or run.skb.pkt.dst

        return hop
    if expr.key == "ipsec":
        return lambda run: 0
    return _stop(f"rt {expr.key}")


def _path_mss(run: Run) -> Any:
    """`get_tcpmss`: the smaller of the routes' MTUs there and back, less the headers."""
    skb = run.skb
    header = 60 if ":" in skb.pkt.src else 40
    return min(_mtu(skb, skb.pkt.dst, skb.outdev), _mtu(skb, skb.pkt.src, "")) - header


def _mtu(skb: Skb, address: str, dev: str) -> int:
    way = skb.ns.lookup(address, oif=dev)
    if way is None or way.route.type not in ("unicast", "local"):
        return 65535
    by = "lo" if way.route.type == "local" else way.dev or dev or way.route.dev
    return way.route.mtu or skb.ns.links[by].mtu


def _draw(run: Run, mod: int) -> int:
    """Draw one of `mod` numbers with the walk's chooser, as a chain of `-m statistic` rules would."""
    if mod > 1024:
        value = 0
        for _ in range(32):
            value = value << 1 | run.ctx.choose(run.ref, 0.5)
        return value % mod
    for number in range(mod - 1):
        if run.ctx.choose(run.ref, 1.0 / (mod - number)):
            return number
    return mod - 1


def _numgen(expr: ex.Numgen, place: Place) -> Reader:
    mod, offset = expr.mod, expr.offset
    if expr.mode == "random":
        return lambda run: _draw(run, mod) + offset
    counter = place.cell("numgen", mod - 1)

    def following(run: Run) -> int:
        counter[0] = counter[0] + 1 if counter[0] + 1 < mod else 0
        return int(counter[0]) + offset

    return following


def _hash(expr: ex.Hash, place: Place) -> Reader:
    mod, offset = expr.mod, expr.offset
    if expr.expr is None:

        def symmetric(run: Run) -> int:
            """The kernel hashes with a secret of its own: here any hash that is the same both ways."""
            pkt = run.skb.pkt
            ends = sorted(((pkt.src, pkt.sport), (pkt.dst, pkt.dport)))
            data = f"{pkt.proto} {ends}".encode()
            return (jhash(data, 0) * mod >> 32) + offset

        return symmetric
    parts = expr.expr.parts if isinstance(expr.expr, ex.Concat) else (expr.expr,)
    read = [(reader(part, place), *ex.type_of(part)) for part in parts]
    seed = expr.seed or 0

    def of(run: Run) -> Any:
        data = b""
        for part, kind, bits in read:
            value = part(run)
            if value is None:
                return None
            raw = value_bytes(kind, value, bits)
            data += raw if len(read) == 1 else raw.ljust(-(-len(raw) // 4) * 4, b"\0")
        return (jhash(data, seed) * mod >> 32) + offset

    return of


def jhash(data: bytes, seed: int) -> int:
    """Return Bob Jenkins' hash as include/linux/jhash.h computes it on a little-endian machine."""
    mask = 0xFFFFFFFF

    def rol(word: int, shift: int) -> int:
        return (word << shift | word >> 32 - shift) & mask

    length = len(data)
    a = b = c = (0xDEADBEEF + length + seed) & mask
    at = 0
    while length - at > 12:
        a = a + int.from_bytes(data[at : at + 4], "little") & mask
        b = b + int.from_bytes(data[at + 4 : at + 8], "little") & mask
        c = c + int.from_bytes(data[at + 8 : at + 12], "little") & mask
        a = (a - c & mask) ^ rol(c, 4)
        c = c + b & mask
        b = (b - a & mask) ^ rol(a, 6)
        a = a + c & mask
        c = (c - b & mask) ^ rol(b, 8)
        b = b + a & mask
        a = (a - c & mask) ^ rol(c, 16)
        c = c + b & mask
        b = (b - a & mask) ^ rol(a, 19)
        a = a + c & mask
        c = (c - b & mask) ^ rol(b, 4)
        b = b + a & mask
        at += 12
    rest = data[at:]
    if not rest:
        return c
    rest = rest.ljust(12, b"\0")
    a = a + int.from_bytes(rest[:4], "little") & mask
    b = b + int.from_bytes(rest[4:8], "little") & mask
    c = c + int.from_bytes(rest[8:12], "little") & mask
    c = (c ^ b) - rol(b, 14) & mask
    a = (a ^ c) - rol(c, 11) & mask
    b = (b ^ a) - rol(a, 25) & mask
    c = (c ^ b) - rol(b, 16) & mask
    a = (a ^ c) - rol(c, 4) & mask
    b = (b ^ a) - rol(a, 14) & mask
    return (c ^ b) - rol(b, 24) & mask


def _tcp_option(expr: ex.TcpOption, place: Place) -> Reader:
    if expr.name != "maxseg":
        return _stop(f"tcp option {expr.name}")
    if not expr.field:
        return lambda run: int(run.skb.pkt.proto == TCP and bool(run.skb.pkt.mss))
    if expr.field != "size":
        return _stop(f"tcp option maxseg {expr.field}")

    def size(run: Run) -> Any:
        pkt = run.skb.pkt
        return pkt.mss if pkt.proto == TCP and pkt.mss else None

    return size


def _socket(expr: ex.SocketKey, place: Place) -> Reader:
    return _stop(f"socket {expr.key}")


# -- made of others ----------------------------------------------------------------------------------------------------


def _constant(expr: ex.Constant, place: Place) -> Reader:
    value = expr.value
    return lambda run: value


def _concat(expr: ex.Concat, place: Place) -> Reader:
    parts = tuple(reader(part, place) for part in expr.parts)
    if len(parts) == 3:
        first, second, third = parts

        def three(run: Run) -> Any:
            a, b, c = first(run), second(run), third(run)
            return None if a is None or b is None or c is None else (a, b, c)

        return three

    def of(run: Run) -> Any:
        values = tuple(part(run) for part in parts)
        return None if None in values else values

    return of


def _binary(expr: ex.Binary, place: Place) -> Reader:
    left, kind = reader(expr.left, place), ex.type_of(expr.left)
    assert isinstance(expr.right, ex.Constant)
    assert isinstance(expr.right.value, (int, str))
    right, op = value_int(expr.right.value), expr.op
    ones = (1 << (kind[1] or 32)) - 1

    def of(run: Run) -> Any:
        value = left(run)
        if value is None:
            return None
        number = value_int(value)
        if op == "&":
            number &= right
        elif op == "|":
            number |= right
        elif op == "^":
            number ^= right
        elif op == "<<":
            number = number << right & ones
        else:
            number >>= right
        return value_of(kind[0], number)

    return of


Find = Callable[[Run, Any], ex.Element | None]
"""Look a key up in a set; None where it has no such element."""


def finder(data: ex.SetRef | ex.SetLiteral) -> Find:
    """Return how to look up in a set or map."""
    if isinstance(data, ex.SetLiteral):
        return _literal(data)
    name = data.name

    def named(run: Run, key: Any) -> ex.Element | None:
        table, ruleset = run.table, run.ruleset
        one = table.sets[name]
        live = ruleset.live.get((table.handle, one.handle))
        found = live.get(key) if live is not None else None
        if found is None:
            if "interval" in one.flags:
                found = _index_of(ruleset, table, one)(key)
            else:
                found = one.elements.get(key) or one.elements.get(_ALL)
        if found is None or (found.until and found.until <= run.ctx.now):
            return None
        if found.statements and not _counts(run, one, found):
            return None
        return found

    return named


def _counts(run: Run, one: Set, found: ex.Element) -> bool:
    """`nft_set_elem_update_expr`: a look-up runs what the element has of its own; False where a limit says no."""
    from kubenet_lab.walk.nft_statements import run_element

    return run_element(run, one, found)


_ALL = ex.CatchAll()


def _index_of(ruleset: Ruleset, table: Table, one: Set) -> Callable[[Any], ex.Element | None]:
    place = ("set", table.handle, one.handle)
    kept = ruleset.compiled.get(place)
    if kept is None or kept[0] is not one:
        kept = ruleset.compiled[place] = (one, intervals(tuple(one.elements.values())))
    found: Callable[[Any], ex.Element | None] = kept[1]
    return found


def intervals(elements: tuple[ex.Element, ...]) -> Callable[[Any], ex.Element | None]:
    """Return a look-up over intervals: by bisection where the key has one field, else element by element."""
    default = next((one for one in elements if isinstance(one.key, ex.CatchAll)), None)
    plain = [one for one in elements if not isinstance(one.key, ex.CatchAll)]
    if plain and isinstance(plain[0].key, tuple):
        exact: dict[Any, ex.Element] = {}
        wide: list[tuple[tuple[tuple[int, int], ...], ex.Element]] = []
        for one in plain:
            assert isinstance(one.key, tuple)
            if any(isinstance(part, ex.Interval) or _wild(part) for part in one.key):
                wide.append((tuple(span(part) for part in one.key), one))
            else:
                exact[one.key] = one

        def concat(key: Any) -> ex.Element | None:
            found = exact.get(key)
            if found is not None:
                return found
            numbers = tuple(value_int(part) for part in key)
            for spans, one in wide:
                if all(low <= number <= high for (low, high), number in zip(spans, numbers, strict=True)):
                    return one
            return default

        return concat
    rows = sorted(((*span(one.key), one) for one in plain), key=lambda row: row[0])
    lows = [row[0] for row in rows]

    def single(key: Any) -> ex.Element | None:
        number = (
            IP_INT[key]
            if isinstance(key, str) and ("." in key or ":" in key) and key[0] in _HEX
            else value_int(key)
        )
        at = bisect_right(lows, number) - 1
        if at >= 0 and number <= rows[at][1]:
            return rows[at][2]
        return default

    return single


_HEX = frozenset("0123456789abcdef:")


def _wild(part: Any) -> bool:
    return isinstance(part, str) and part.endswith("*")


def _literal(data: ex.SetLiteral) -> Find:
    if data.interval:
        index = intervals(data.elements)
        return lambda run, key: index(key)
    table = {one.key: one for one in data.elements}
    default = table.pop(_ALL, None)
    return lambda run, key: table.get(key, default)


def _lookup(expr: ex.Lookup, place: Place) -> Reader:
    key, data, find = reader(expr.key, place), expr.data, finder(expr.data)

    def of(run: Run) -> Any:
        value = key(run)
        if value is None:
            return None
        found = find(run, value)
        if found is None:
            return None
        run.found = (data, found)
        return found.data

    return of


_READERS: dict[type, Callable[[Any, Place], Reader]] = {
    ex.Payload: _payload,
    ex.RawPayload: _raw,
    ex.Meta: _meta,
    ex.Ct: _ct,
    ex.Fib: _fib,
    ex.Rt: _rt,
    ex.SocketKey: _socket,
    ex.Numgen: _numgen,
    ex.Hash: _hash,
    ex.TcpOption: _tcp_option,
    ex.Other: lambda expr, place: _stop(expr.text),
    ex.Constant: _constant,
    ex.Concat: _concat,
    ex.Binary: _binary,
    ex.Lookup: _lookup,
}
