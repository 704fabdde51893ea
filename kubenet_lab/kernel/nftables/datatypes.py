"""The data types of nftables: what a constant may be, how it is written, and how `nft` prints it.

A value is a number, except that addresses, MACs and names are text: they compare with a packet's fields as they are.
Sources: nft(8) "DATA TYPES"; `nft describe TYPE`.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from kubenet_lab.kernel.netfilter.ports import PROTOCOL_NAMES, PROTOCOL_NUMBERS, SERVICES
from kubenet_lab.packet.ip import IP_INT, canonical, ip_text

Scalar = int | str
"""A number, or the text of an address, a MAC or a name."""


class DataType(Struct, frozen=True):
    """One data type.

    Attributes:
        name: As `type NAME` in a set's declaration.
        bits: Width; 0 where each expression has its own (integer, string).
        base: integer, bitmask, ipv4, ipv6, lladdr, string, verdict, time, protocol, service, boolean, handle.
        host_order: True where the kernel keeps the number in the machine's byte order.
        symbols: Names of values, in the order `nft describe` lists them.
        form: How a number without a name is printed (`%` format).
        prefix: True where an interval that is a prefix prints as one.
        quoted: True where names print in quotes.
    """

    name: str
    bits: int = 0
    base: str = "integer"
    host_order: bool = False
    symbols: dict[str, int] = {}
    form: str = "%d"
    prefix: bool = False
    quoted: bool = False


_ICMP_TYPES = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
    "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
    "address-mask-request": 17, "address-mask-reply": 18,
}  # fmt: skip
_ICMPV6_TYPES = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
    "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
    "mld-listener-done": 132, "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
    "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
    "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
}  # fmt: skip
_DSCP = {
    "cs0": 0x00, "cs1": 0x08, "cs2": 0x10, "cs3": 0x18, "cs4": 0x20, "cs5": 0x28, "cs6": 0x30, "cs7": 0x38,
    "df": 0x00, "be": 0x00, "lephb": 0x01, "af11": 0x0A, "af12": 0x0C, "af13": 0x0E, "af21": 0x12,
    "af22": 0x14, "af23": 0x16, "af31": 0x1A, "af32": 0x1C, "af33": 0x1E, "af41": 0x22, "af42": 0x24,
    "af43": 0x26, "va": 0x2C, "ef": 0x2E,
}  # fmt: skip
_CT_EVENTS = (
    "new", "related", "destroy", "reply", "assured", "protoinfo", "helper", "mark", "seqadj", "secmark", "label",
)  # fmt: skip
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")

_TYPES = (
    DataType("integer", host_order=True),
    DataType("xinteger", form="0x%x"),
    DataType("string", base="string", host_order=True, quoted=True),
    DataType("verdict", base="verdict"),
    DataType("ipv4_addr", 32, "ipv4", prefix=True),
    DataType("ipv6_addr", 128, "ipv6", prefix=True),
    DataType("ether_addr", 48, "lladdr"),
    DataType("ll_addr", 0, "lladdr"),
    DataType("inet_proto", 8, "protocol"),
    DataType("inet_service", 16, "service"),
    DataType("mark", 32, host_order=True, form="0x%08x", prefix=True),
    DataType("ifname", 128, "string", host_order=True, quoted=True),
    DataType("iface_index", 32, "link", host_order=True, quoted=True),
    DataType(
        "iface_type", 16, host_order=True,
        symbols={"ether": 1, "ppp": 512, "ipip": 768, "ipip6": 769, "loopback": 772, "sit": 776, "ipgre": 778},
    ),
    DataType("nf_proto", 8, symbols={"ipv4": 2, "ipv6": 10}),
    DataType(
        "ether_type", 16, form="0x%04x",
        symbols={"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8, "vlan": 0x8100},
    ),
    DataType(
        "arp_op", 16,
        symbols={"request": 1, "reply": 2, "rrequest": 3, "rreply": 4, "inrequest": 8, "inreply": 9, "nak": 10},
    ),
    DataType("icmp_type", 8, symbols=_ICMP_TYPES),
    DataType(
        "icmp_code", 8,
        symbols={
            "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
            "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13, "frag-needed": 4,
        },
    ),
    DataType("icmpv6_type", 8, symbols=_ICMPV6_TYPES),
    DataType(
        "icmpv6_code", 8,
        symbols={
            "no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4,
            "policy-fail": 5, "reject-route": 6,
        },
    ),
    DataType(
        "icmpx_code", 8,
        symbols={"port-unreachable": 1, "admin-prohibited": 3, "no-route": 0, "host-unreachable": 2},
    ),
    DataType(
        "igmp_type", 8,
        symbols={
            "membership-query": 0x11, "membership-report-v1": 0x12, "membership-report-v2": 0x16,
            "membership-report-v3": 0x22, "leave-group": 0x17,
        },
    ),
    DataType(
        "tcp_flag", 8, "bitmask", form="0x%x",
        symbols={"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128},
    ),
    DataType(
        "dccp_pkttype", 4, form="0x%x",
        symbols={
            "request": 0, "response": 1, "data": 2, "ack": 3, "dataack": 4, "closereq": 5, "close": 6,
            "reset": 7, "sync": 8, "syncack": 9,
        },
    ),
    DataType("dscp", 6, symbols=_DSCP, form="0x%02x"),
    DataType("ecn", 2, symbols={"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3}, form="0x%01x"),
    DataType(
        "ct_state", 32, "bitmask", host_order=True, form="0x%x",
        symbols={"invalid": 1, "new": 8, "established": 2, "related": 4, "untracked": 64},
    ),
    DataType("ct_dir", 8, symbols={"original": 0, "reply": 1}),
    DataType(
        "ct_status", 32, "bitmask", host_order=True, form="0x%x",
        symbols={
            "expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512,
        },
    ),
    DataType(
        "ct_event", 32, "bitmask", host_order=True, form="0x%x",
        symbols={name: 1 << bit for bit, name in enumerate(_CT_EVENTS)},
    ),
    DataType("ct_label", 128, host_order=True),
    DataType("bitmask", 0, "bitmask", form="0x%x"),
    DataType("uid", 32, host_order=True),
    DataType("gid", 32, host_order=True),
    DataType(
        "pkt_type", 8, host_order=True,
        symbols={"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3},
    ),
    DataType("devgroup", 32, host_order=True, symbols={"default": 0}, quoted=True, form="0x%08x"),
    DataType("realm", 32, host_order=True, symbols={"cosmos": 0}, quoted=True),
    DataType("classid", 32, "handle", host_order=True),
    DataType("boolean", 1, "boolean", host_order=True, symbols={"exists": 1, "missing": 0}),
    DataType(
        "fib_addrtype", 32, host_order=True,
        symbols={
            "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6,
            "unreachable": 7, "prohibit": 8,
        },
    ),
    DataType("time", 32, "time", host_order=True),
    DataType("day", 8, host_order=True, symbols={name: i for i, name in enumerate(_DAYS)}, quoted=True),
    DataType("hour", 32, "hour", host_order=True),
    DataType("date", 64, "date", host_order=True),
    DataType("cgroupsv2", 64, host_order=True),
    DataType("mh_type", 8),
)  # fmt: skip

TYPES: dict[str, DataType] = {one.name: one for one in _TYPES}
"""Every data type by name."""

_NAMES = {
    one.name: {value: name for name, value in reversed(one.symbols.items())} for one in _TYPES if one.symbols
}
"""Type -> value -> the first name of that value."""


def datatype(name: str) -> DataType:
    """Return a data type. Raises ValueError for a name nft does not know."""
    found = TYPES.get(name)
    if found is None or name in ("xinteger", "date"):
        raise ValueError(f"unknown datatype {name}")
    return found


# -- time and size ----------------------------------------------------------------------------------------------------

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def time_text(ms: int) -> str:
    """Return a duration in ms as nft prints it: "1d2h3m4s5ms"; "" for 0."""
    out = ""
    for unit, size in _UNITS.items():
        count, ms = divmod(ms, size)
        if count:
            out += f"{count}{unit}"
    return out


def parse_time(text: str) -> int:
    """Return the ms of "1h30m", "90s", "500ms" or a bare number of seconds. Raises ValueError."""
    if text.isdigit():
        return int(text) * 1000
    total, digits, at = 0, "", 0
    while at < len(text):
        char = text[at]
        if char.isdigit():
            digits += char
            at += 1
            continue
        unit = "ms" if text.startswith("ms", at) else char
        if not digits or unit not in _UNITS:
            raise ValueError("wrong time format")
        total += int(digits) * _UNITS[unit]
        digits, at = "", at + len(unit)
    if digits or not text:
        raise ValueError("wrong time format")
    return total


def rate_text(count: int) -> tuple[int, str]:
    """Return bytes in the biggest unit that leaves no rest: (5, "mbytes")."""
    unit = "bytes"
    if not count:
        return 0, unit
    for bigger in ("kbytes", "mbytes"):
        if count % 1024:
            break
        count //= 1024
        unit = bigger
    return count, unit


DATA_UNITS = {"bytes": 1, "kbytes": 1024, "mbytes": 1024 * 1024}
TIME_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
PER = {seconds: name for name, seconds in TIME_UNITS.items()}

# -- text to value ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def parse_value(type_name: str, text: str) -> Scalar:
    """Return the value that a word names in a data type. Raises ValueError in nft's words."""
    kind = TYPES[type_name]
    base = kind.base
    if base in ("ipv4", "ipv6"):
        return _address(text, base)
    if base == "service":
        number = _number(text)
        if number is None:
            if text not in SERVICES:
                raise ValueError("Could not resolve service: Servname not supported for ai_socktype")
            return SERVICES[text]
        if number > 65535:
            raise ValueError("Service out of range")
        return number
    if base == "protocol":
        number = _number(text)
        if number is None:
            if text not in PROTOCOL_NUMBERS or text in ("all", "mh"):
                raise ValueError("Could not resolve protocol name")
            return PROTOCOL_NUMBERS[text]
        if number > 255:
            raise ValueError("Protocol out of range")
        return number
    if base == "lladdr":
        return _mac(text)
    if base == "string":
        if type_name == "ifname" and len(text) > 15:
            raise ValueError("String exceeds maximum length of 16")
        return text
    if base == "link":
        number = _number(text)
        return text if number is None else number
    if base == "time":
        return parse_time(text)
    if base == "hour":
        return _hour(text)
    if base == "date":
        return _date(text)
    if base == "handle":
        return _handle(text)
    named = kind.symbols.get(text)
    if named is not None:
        return named
    number = _number(text)
    if number is None:
        raise ValueError(f"Could not parse {_DESCRIPTIONS.get(type_name, type_name)}")
    if kind.bits and number >> kind.bits:
        raise ValueError(f"Value {number} exceeds valid range 0-{(1 << kind.bits) - 1}")
    return 1 << number if type_name == "ct_label" else number


_DESCRIPTIONS = {
    "integer": "integer", "mark": "packet mark", "ct_state": "conntrack state", "tcp_flag": "TCP flag",
    "icmp_type": "ICMP type", "icmpv6_type": "ICMPv6 type", "ct_status": "conntrack status",
    "fib_addrtype": "fib address type", "ether_type": "Ethernet protocol", "nf_proto": "netfilter protocol",
    "dscp": "Differentiated Services Code Point", "ct_dir": "conntrack direction", "pkt_type": "packet type",
}  # fmt: skip


def _number(text: str) -> int | None:
    try:
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    except ValueError:
        return None


def _address(text: str, base: str) -> str:
    number = _number(text)
    if base == "ipv4" and number is not None:
        return canonical(".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)))
    try:
        found = canonical(text)
    except ValueError:
        raise ValueError("Could not resolve hostname: Name or service not known") from None
    if (":" in found) != (base == "ipv6"):
        raise ValueError("Could not resolve hostname: Address family for hostname not supported")
    return found


def _mac(text: str) -> str:
    parts = text.split(":")
    try:
        return ":".join(f"{int(part, 16):02x}" for part in parts)
    except ValueError:
        raise ValueError("Invalid LL address") from None


def _hour(text: str) -> int:
    if text.isdigit():
        return int(text)
    parts = text.split(":")
    if len(parts) in (2, 3) and all(part.isdigit() for part in parts):
        hours, minutes, *seconds = (int(part) for part in parts)
        return hours * 3600 + minutes * 60 + (seconds[0] if seconds else 0)
    return parse_time(text) // 1000


def _date(text: str) -> int:
    from datetime import UTC, datetime

    if text.isdigit():
        return int(text) * 1_000_000_000
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"):
        try:
            return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()) * 1_000_000_000
        except ValueError:
            continue
    raise ValueError("Cannot parse date")


def _handle(text: str) -> int:
    if text in ("none", "root"):
        return 0 if text == "none" else 0xFFFFFFFF
    major, colon, minor = text.partition(":")
    try:
        return int(major or "0", 16) << 16 | int(minor or "0", 16) if colon else int(major, 0)
    except ValueError:
        raise ValueError("Could not parse traffic control handle") from None


# -- value to text ----------------------------------------------------------------------------------------------------


def value_text(type_name: str, value: Scalar, numeric: bool = False) -> str:
    """Return a value as nft prints it; `numeric` leaves names out, as inside a range."""
    kind = TYPES[type_name]
    base = kind.base
    if isinstance(value, str):
        return f'"{value}"' if kind.quoted else value
    if base == "service":
        return str(value)
    if base == "protocol":
        return str(value) if numeric else PROTOCOL_NAMES.get(value, str(value))
    if base == "bitmask" and not numeric:
        return ",".join(bit_names(type_name, value))
    if base == "time":
        return time_text(value)
    if base == "hour":
        hours, rest = divmod(value, 3600)
        minutes, seconds = divmod(rest, 60)
        return f'"{hours:02d}:{minutes:02d}{f":{seconds:02d}" if seconds else ""}"'
    if base == "date":
        from datetime import UTC, datetime

        return f'"{datetime.fromtimestamp(value // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}"'
    if base == "handle":
        if value in (0, 0xFFFFFFFF):
            return "none" if value == 0 else "root"
        return f"{value >> 16:0x}:{value & 0xFFFF:0x}"
    if type_name == "ct_label":
        return str(value.bit_length() - 1)
    name = None if numeric else _NAMES.get(type_name, {}).get(value)
    if name is not None:
        return f'"{name}"' if kind.quoted else name
    return kind.form % value


def bit_names(type_name: str, value: int) -> list[str]:
    """Return the names of the bits of a bitmask, lowest bit first; a value without bits is its number."""
    names = _NAMES.get(type_name, {})
    bits = [1 << bit for bit in range(value.bit_length()) if value >> bit & 1]
    return [names.get(bit, TYPES[type_name].form % bit) for bit in bits] or [TYPES[type_name].form % 0]


def value_json(type_name: str, value: Scalar, numeric: bool = False) -> object:
    """Return a value as `nft -j` prints it: a number or a string."""
    kind = TYPES[type_name]
    if isinstance(value, str):
        return value
    if kind.base == "boolean":
        return bool(value)
    if kind.base == "bitmask":
        names = _NAMES.get(type_name, {})
        bits: list[object] = [
            names.get(1 << bit, 1 << bit) for bit in range(value.bit_length()) if value >> bit & 1
        ]
        return bits if len(bits) > 1 else bits[0] if bits else 0
    if kind.base == "time":
        return value // 1000
    if type_name == "ct_label":
        return value.bit_length() - 1
    if kind.base in ("hour", "date", "handle", "link") or type_name in ("realm", "cgroupsv2"):
        return value_text(type_name, value).strip('"')
    if kind.base == "protocol":
        return value if numeric or value not in PROTOCOL_NAMES else PROTOCOL_NAMES[value]
    name = _NAMES.get(type_name, {}).get(value)
    return value if name is None else name


# -- value to number --------------------------------------------------------------------------------------------------


def value_int(value: Scalar) -> int:
    """Return the number that orders a value: an address's number, a MAC's; a name's bytes, first letter highest."""
    if isinstance(value, int):
        return value
    if ":" in value and "::" not in value and len(value) == 17:
        return int(value.replace(":", ""), 16)
    try:
        return IP_INT[value]
    except ValueError:
        return int.from_bytes(value.rstrip("*").encode().ljust(16, b"\0"), "big")


def value_of(type_name: str, number: int) -> Scalar:
    """Return a number as a value of a data type: the opposite of `value_int`."""
    base = TYPES[type_name].base
    if base == "ipv4":
        return ip_text(number, 4)
    if base == "ipv6":
        return ip_text(number, 6)
    if base == "lladdr":
        return ":".join(f"{byte:02x}" for byte in number.to_bytes(6, "big"))
    return number


def value_bytes(type_name: str, value: Scalar, bits: int = 0) -> bytes:
    """Return a value as it lies in a register: network order, or the machine's (little endian) where the type says."""
    kind = TYPES[type_name]
    if kind.base in ("string", "link") and isinstance(value, str):
        return value.encode().ljust(16, b"\0")
    size = ((kind.bits or bits or 32) + 7) // 8
    if isinstance(value, str) and kind.base == "lladdr":
        return bytes(int(part, 16) for part in value.split(":"))
    return value_int(value).to_bytes(size, "little" if kind.host_order else "big")
