"""What an nftables rule can look at: typed, frozen values, as the kernel keeps them.

Sources: nft(8) "EXPRESSIONS", libnftables-json(5). Text and JSON are renderings (`kernel.dialects.nft`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.kernel.nftables.datatypes import TYPES, Scalar

if TYPE_CHECKING:
    from kubenet_lab.kernel.nftables.statements import Statement


class Interval(Struct, frozen=True):
    """From `low` to `high`, both included. `length` is the prefix length where it is written as a prefix, else -1."""

    low: Scalar
    high: Scalar
    length: int = -1


class CatchAll(Struct, frozen=True):
    """The element `*`: what no other element of the set holds."""


Atom = Scalar | Interval | CatchAll
"""One field of a set element's key."""
Key = Atom | tuple[Atom, ...]
"""A set element's key: a tuple for a concatenation."""


class Verdict(Struct, frozen=True):
    """accept, drop, continue, return, queue, jump CHAIN or goto CHAIN."""

    kind: str
    chain: str = ""


Data = Scalar | Interval | Verdict | tuple[Scalar | Interval, ...] | None
"""What a map's element maps to; an object's name in an object map."""


class Element(Struct, frozen=True):
    """One element of a set or map.

    Attributes:
        key: What is looked up.
        data: What it maps to; None in a set.
        timeout: ms it lives from each refresh; 0 leaves it to the set.
        until: Simulated time in s at which it goes; 0 for never.
        comment: Its comment.
        statements: Counter, limit or ct count of its own.
    """

    key: Key
    data: Data = None
    timeout: int = 0
    until: float = 0.0
    comment: str = ""
    statements: tuple[Statement, ...] = ()


# -- what is read off the packet --------------------------------------------------------------------------------------


class Field(Struct, frozen=True):
    """A field of a header: its data type, place in bits from the header's start, width in bits."""

    type: str
    offset: int
    bits: int


class Header(Struct, frozen=True):
    """A protocol's header: which base it starts at ("ll", "nh", "th"), its fields, its number in the layer below."""

    base: str
    fields: dict[str, Field]


def _ports(*more: tuple[str, str, int, int]) -> dict[str, Field]:
    return {
        "sport": Field("inet_service", 0, 16),
        "dport": Field("inet_service", 16, 16),
        **{name: Field(kind, offset, bits) for name, kind, offset, bits in more},
    }


def _fields(*rows: tuple[str, str, int, int]) -> dict[str, Field]:
    return {name: Field(kind, offset, bits) for name, kind, offset, bits in rows}


HEADERS: dict[str, Header] = {
    "ether": Header(
        "ll",
        _fields(("daddr", "ether_addr", 0, 48), ("saddr", "ether_addr", 48, 48), ("type", "ether_type", 96, 16)),
    ),
    "vlan": Header(
        "ll",
        _fields(
            ("pcp", "integer", 0, 3), ("dei", "integer", 3, 1), ("cfi", "integer", 3, 1),
            ("id", "integer", 4, 12), ("type", "ether_type", 16, 16),
        ),
    ),
    "arp": Header(
        "nh",
        _fields(
            ("htype", "integer", 0, 16), ("ptype", "ether_type", 16, 16), ("hlen", "integer", 32, 8),
            ("plen", "integer", 40, 8), ("operation", "arp_op", 48, 16), ("saddr ether", "ether_addr", 64, 48),
            ("saddr ip", "ipv4_addr", 112, 32), ("daddr ether", "ether_addr", 144, 48),
            ("daddr ip", "ipv4_addr", 192, 32),
        ),
    ),
    "ip": Header(
        "nh",
        _fields(
            ("version", "integer", 0, 4), ("hdrlength", "integer", 4, 4), ("dscp", "dscp", 8, 6),
            ("ecn", "ecn", 14, 2), ("length", "integer", 16, 16), ("id", "integer", 32, 16),
            ("frag-off", "integer", 48, 16), ("ttl", "integer", 64, 8), ("protocol", "inet_proto", 72, 8),
            ("checksum", "integer", 80, 16), ("saddr", "ipv4_addr", 96, 32), ("daddr", "ipv4_addr", 128, 32),
        ),
    ),
    "ip6": Header(
        "nh",
        _fields(
            ("version", "integer", 0, 4), ("dscp", "dscp", 4, 6), ("ecn", "ecn", 10, 2),
            ("flowlabel", "integer", 12, 20), ("length", "integer", 32, 16), ("nexthdr", "inet_proto", 48, 8),
            ("hoplimit", "integer", 56, 8), ("saddr", "ipv6_addr", 64, 128), ("daddr", "ipv6_addr", 192, 128),
        ),
    ),
    "tcp": Header(
        "th",
        _ports(
            ("sequence", "integer", 32, 32), ("ackseq", "integer", 64, 32), ("doff", "integer", 96, 4),
            ("reserved", "integer", 100, 4), ("flags", "tcp_flag", 104, 8), ("window", "integer", 112, 16),
            ("checksum", "integer", 128, 16), ("urgptr", "integer", 144, 16),
        ),
    ),
    "udp": Header("th", _ports(("length", "integer", 32, 16), ("checksum", "integer", 48, 16))),
    "udplite": Header("th", _ports(("csumcov", "integer", 32, 16), ("checksum", "integer", 48, 16))),
    "sctp": Header("th", _ports(("vtag", "integer", 32, 32), ("checksum", "integer", 64, 32))),
    "dccp": Header("th", _ports(("type", "dccp_pkttype", 67, 4))),
    "th": Header("th", _ports()),
    "icmp": Header(
        "th",
        _fields(
            ("type", "icmp_type", 0, 8), ("code", "icmp_code", 8, 8), ("checksum", "integer", 16, 16),
            ("id", "integer", 32, 16), ("sequence", "integer", 48, 16), ("gateway", "integer", 32, 32),
            ("mtu", "integer", 48, 16),
        ),
    ),
    "icmpv6": Header(
        "th",
        _fields(
            ("type", "icmpv6_type", 0, 8), ("code", "icmpv6_code", 8, 8), ("checksum", "integer", 16, 16),
            ("parameter-problem", "integer", 32, 32), ("packet-too-big", "integer", 32, 32),
            ("mtu", "integer", 32, 32), ("id", "integer", 32, 16), ("sequence", "integer", 48, 16),
            ("max-delay", "integer", 32, 16),
        ),
    ),
    "igmp": Header(
        "th",
        _fields(
            ("type", "igmp_type", 0, 8), ("mrt", "integer", 8, 8), ("checksum", "integer", 16, 16),
            ("group", "integer", 32, 32),
        ),
    ),
    "ah": Header(
        "th",
        _fields(
            ("nexthdr", "inet_proto", 0, 8), ("hdrlength", "integer", 8, 8), ("reserved", "integer", 16, 16),
            ("spi", "integer", 32, 32), ("sequence", "integer", 64, 32),
        ),
    ),
    "esp": Header("th", _fields(("spi", "integer", 0, 32), ("sequence", "integer", 32, 32))),
    "comp": Header(
        "th",
        _fields(("nexthdr", "inet_proto", 0, 8), ("flags", "bitmask", 8, 8), ("cpi", "integer", 16, 16)),
    ),
}  # fmt: skip
"""Every header by its name in a rule."""

TRANSPORT_NUMBERS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "esp": 50, "ah": 51, "icmpv6": 58, "comp": 108,
    "sctp": 132, "udplite": 136,
}  # fmt: skip
"""Transport header -> IP protocol number."""
TRANSPORT_NAMES = {number: name for name, number in TRANSPORT_NUMBERS.items()}


class Payload(Struct, frozen=True):
    """A header field: `ip saddr`, `tcp dport`, `th sport`."""

    proto: str
    field: str

    @property
    def place(self) -> Field:
        """Type, offset and width of the field."""
        return HEADERS[self.proto].fields[self.field]

    @property
    def base(self) -> str:
        """Where its header starts: "ll", "nh" or "th"."""
        return HEADERS[self.proto].base


class RawPayload(Struct, frozen=True):
    """`@BASE,OFFSET,LENGTH`: bits counted from the start of a header."""

    base: str
    offset: int
    length: int


META: dict[str, tuple[str, int]] = {
    "length": ("integer", 32), "protocol": ("ether_type", 16), "nfproto": ("nf_proto", 8),
    "l4proto": ("inet_proto", 8), "priority": ("classid", 32), "mark": ("mark", 32),
    "iif": ("iface_index", 32), "iifname": ("ifname", 128), "iiftype": ("iface_type", 16),
    "oif": ("iface_index", 32), "oifname": ("ifname", 128), "oiftype": ("iface_type", 16),
    "skuid": ("uid", 32), "skgid": ("gid", 32), "nftrace": ("integer", 1), "rtclassid": ("realm", 32),
    "ibrname": ("ifname", 128), "obrname": ("ifname", 128), "pkttype": ("pkt_type", 8), "cpu": ("integer", 32),
    "iifgroup": ("devgroup", 32), "oifgroup": ("devgroup", 32), "cgroup": ("integer", 32),
    "random": ("integer", 32), "ipsec": ("boolean", 8), "iifkind": ("ifname", 128), "oifkind": ("ifname", 128),
    "ibrpvid": ("integer", 16), "ibrvproto": ("ether_type", 16), "time": ("date", 64), "day": ("day", 8),
    "hour": ("hour", 32), "secmark": ("integer", 32), "sdif": ("iface_index", 32), "sdifname": ("ifname", 128),
}  # fmt: skip
"""Meta key -> (data type, bits)."""
META_UNQUALIFIED = ("iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup")
"""Keys that print without `meta`."""


class Meta(Struct, frozen=True):
    """Something about the packet that is in no header: `meta mark`, `iifname`, `meta l4proto`."""

    key: str


CT: dict[str, tuple[str, int]] = {
    "state": ("ct_state", 32), "direction": ("ct_dir", 8), "status": ("ct_status", 32), "mark": ("mark", 32),
    "expiration": ("time", 32), "helper": ("string", 128), "l3proto": ("nf_proto", 8),
    "protocol": ("inet_proto", 8), "proto-src": ("inet_service", 16), "proto-dst": ("inet_service", 16),
    "label": ("ct_label", 128), "bytes": ("integer", 64), "packets": ("integer", 64), "avgpkt": ("integer", 64),
    "zone": ("integer", 16), "event": ("ct_event", 32), "ip saddr": ("ipv4_addr", 32),
    "ip daddr": ("ipv4_addr", 32), "ip6 saddr": ("ipv6_addr", 128), "ip6 daddr": ("ipv6_addr", 128),
    "secmark": ("integer", 32), "id": ("integer", 32), "saddr": ("ipv4_addr", 32), "daddr": ("ipv4_addr", 32),
}  # fmt: skip
"""Conntrack key -> (data type, bits)."""


class Ct(Struct, frozen=True):
    """Something about the packet's connection: `ct state`, `ct original proto-dst`.

    `plain` is True where `ct original saddr` was written without its family, which only JSON still shows.
    """

    key: str
    direction: str = ""
    plain: bool = False


class Fib(Struct, frozen=True):
    """`fib daddr . iif type`: what the routing table says. `present` asks only whether there is a route."""

    flags: tuple[str, ...]
    result: str
    present: bool = False


class Rt(Struct, frozen=True):
    """`rt mtu`, `rt ip nexthop`, `rt classid`, `rt ipsec`: about the route the packet takes."""

    key: str
    family: str = ""


class SocketKey(Struct, frozen=True):
    """`socket transparent|mark|wildcard`, `socket cgroupv2 level N`: about the local socket it belongs to."""

    key: str
    level: int = 0


class Numgen(Struct, frozen=True):
    """`numgen random|inc mod N [offset M]`."""

    mode: str
    mod: int
    offset: int = 0


class Hash(Struct, frozen=True):
    """`jhash EXPR mod N [seed S] [offset M]`, or `symhash mod N` where there is no expression."""

    expr: Expression | None
    mod: int
    seed: int | None = None
    offset: int = 0


class TcpOption(Struct, frozen=True):
    """`tcp option NAME FIELD`; no field asks whether the option is there."""

    name: str
    field: str = ""


class Other(Struct, frozen=True):
    """An expression that is carried and not modelled: exthdr, IP options, osf, ipsec, SCTP chunks.

    Attributes:
        text: As nft prints it.
        json: As `nft -j` prints it.
        type: Data type of what it yields.
        bits: Width of what it yields.
    """

    text: str
    json: str
    type: str = "integer"
    bits: int = 32


# -- constants and what is made of others -----------------------------------------------------------------------------


class Constant(Struct, frozen=True):
    """A value of a data type, an interval of them, or the bits of a mask."""

    type: str
    value: Atom


class Concat(Struct, frozen=True):
    """`a . b . c`."""

    parts: tuple[Expression, ...]


class Binary(Struct, frozen=True):
    """`left & right`, and `|`, `^`, `<<`, `>>`."""

    op: str
    left: Expression
    right: Expression


class SetRef(Struct, frozen=True):
    """`@name`: a named set or map."""

    name: str


class SetLiteral(Struct, frozen=True):
    """`{ ... }`: a set or map without a name. Its elements are in the order nft prints them.

    Attributes:
        key: Data types of the key's fields.
        elements: What is in it.
        data: Data types of what it maps to; ("verdict",) in a verdict map, () in a set.
        interval: True when an element is more than a point.
    """

    key: tuple[str, ...]
    elements: tuple[Element, ...]
    data: tuple[str, ...] = ()
    interval: bool = False


class Lookup(Struct, frozen=True):
    """`key map { ... }` or `key map @name`: what a map has for a key."""

    key: Expression
    data: SetRef | SetLiteral


Expression = (
    Payload | RawPayload | Meta | Ct | Fib | Rt | SocketKey | Numgen | Hash | TcpOption | Other | Constant | Concat
    | Binary | SetRef | SetLiteral | Lookup | Verdict
)  # fmt: skip

_RT = {"nexthop": "ipv4_addr", "mtu": "integer", "classid": "realm", "ipsec": "boolean"}
_TCP_OPTION_BITS = {
    "size": 16, "count": 8, "left": 32, "right": 32, "tsval": 32, "tsecr": 32, "length": 8, "kind": 8, "subtype": 4,
}  # fmt: skip


def type_of(expr: Expression) -> tuple[str, int]:
    """Return data type and width in bits of what an expression yields."""
    if isinstance(expr, Payload):
        place = expr.place
        return place.type, place.bits
    if isinstance(expr, Meta):
        return META[expr.key]
    if isinstance(expr, Ct):
        return CT[expr.key]
    if isinstance(expr, RawPayload):
        return "xinteger", expr.length
    if isinstance(expr, Fib):
        if expr.present:
            return "boolean", 8
        return {"type": ("fib_addrtype", 32), "oif": ("iface_index", 32), "oifname": ("ifname", 128)}[
            expr.result
        ]
    if isinstance(expr, Rt):
        kind = "ipv6_addr" if expr.family == "ip6" else _RT[expr.key]
        return kind, {"mtu": 16, "ipsec": 8}.get(expr.key, TYPES[kind].bits)
    if isinstance(expr, SocketKey):
        return {
            "mark": ("mark", 32),
            "cgroupv2": ("cgroupsv2", 64),
        }.get(expr.key, ("integer", 8))
    if isinstance(expr, (Numgen, Hash)):
        return "integer", 32
    if isinstance(expr, TcpOption):
        return ("integer", _TCP_OPTION_BITS.get(expr.field, 8)) if expr.field else ("boolean", 8)
    if isinstance(expr, Other):
        return expr.type, expr.bits
    if isinstance(expr, Constant):
        return expr.type, TYPES[expr.type].bits
    if isinstance(expr, Binary):
        return type_of(expr.left)
    if isinstance(expr, Verdict):
        return "verdict", 0
    raise TypeError(f"{type(expr).__name__} has no single data type")


def types_of(expr: Expression) -> tuple[tuple[str, int], ...]:
    """Return (data type, bits) of each field of an expression; one but for a concatenation."""
    if isinstance(expr, Concat):
        return tuple(type_of(part) for part in expr.parts)
    if isinstance(expr, Lookup) and isinstance(expr.data, SetLiteral):
        return tuple((name, TYPES[name].bits) for name in expr.data.data)
    return (type_of(expr),)
