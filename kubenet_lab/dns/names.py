"""Domain names as text: absolute, with a final dot, the case kept as it was written.

A name is a `str` in master-file form (RFC 1035 section 5.1): labels joined by dots, a dot inside a label
written `\\.`, any other odd byte `\\DDD`. Everything here is a pure function of such text.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

IN_ADDR_ARPA = ".in-addr.arpa."
IP6_ARPA = ".ip6.arpa."


def absolute(name: str) -> str:
    """`name` with its final dot; the empty name is the root."""
    if name.endswith(".") and not name.endswith("\\."):
        return name
    return name + "."


def labels(name: str) -> list[str]:
    """The labels of `name`, still escaped, the root label left out: `a.b.` is `["a", "b"]`."""
    text = name[:-1] if name.endswith(".") and not name.endswith("\\.") else name
    if not text:
        return []
    if "\\" not in text:
        return text.split(".")
    parts: list[str] = []
    current: list[str] = []
    escaped = False
    for char in text:
        if char == "." and not escaped:
            parts.append("".join(current))
            current = []
            continue
        escaped = char == "\\" and not escaped
        current.append(char)
    parts.append("".join(current))
    return parts


def is_subdomain(zone: str, name: str) -> bool:
    """Is `name` the zone itself or below it, whatever the case? (RFC 4343)"""
    if zone == ".":
        return True
    zone, name = zone.lower(), name.lower()
    return name == zone or (name.endswith(zone) and name[-len(zone) - 1] == ".")


def closest_zone(zones: Iterable[str], name: str) -> str:
    """The longest of the zones that `name` is in, or "" if it is in none."""
    return max((zone for zone in zones if is_subdomain(zone, name)), key=len, default="")


def below(prefix: str, zone: str) -> str:
    """The name `prefix` (without a final dot) in a zone, the root among them."""
    return f"{prefix}." if zone == "." else f"{prefix}.{zone}"


def relative(name: str, zone: str) -> str:
    """What `name` has in front of the zone it is in, without a final dot; "" for the zone itself."""
    return name[:-1] if zone == "." else name[: -len(zone) - 1]


def reverse_name(address: str) -> str:
    """The PTR name of an address (RFC 1035 section 3.5, RFC 3596 section 2.5): what `dig -x ADDRESS` asks."""
    return ipaddress.ip_address(address).reverse_pointer + "."


def reversed_address(name: str) -> str:
    """The address a PTR name stands for, or "" if it stands for none (too short, not numbers, ...).

    `name` must be lower case. Labels beyond the 32 nibbles that make a whole group of four are ignored, as
    CoreDNS does.
    """
    if name.endswith(IN_ADDR_ARPA):
        parts = name[: -len(IN_ADDR_ARPA)].split(".")
        return parse_ip(".".join(reversed(parts))) if len(parts) == 4 else ""
    if name.endswith(IP6_ARPA):
        parts = name[: -len(IP6_ARPA)].split(".")[::-1]
        groups = ["".join(parts[i : i + 4]) for i in range(0, len(parts) // 4 * 4, 4)]
        return parse_ip(":".join(groups))
    return ""


@lru_cache(maxsize=65536)
def parse_ip(text: str) -> str:
    """The canonical text of an address, or "" if `text` is none.

    As Go's `net.ParseIP`: no leading zeros and no missing parts; an IPv4-mapped IPv6 address is the IPv4 one.
    """
    if "\x00" in text or not text.isascii():
        return ""
    try:
        if ":" not in text:
            socket.inet_pton(socket.AF_INET, text)
            return text
        packed = socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        return ""
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return str(ipaddress.IPv6Address(packed))


def wire_name_length(name: str) -> int:
    """Octets of `name` on the wire without compression (RFC 1035 section 3.1)."""
    if name == "." or not name:
        return 1
    if "\\" not in name:
        return len(name) + 1
    return sum(1 + len(label_bytes(label)) for label in labels(name)) + 1


def label_bytes(label: str) -> bytes:
    """The octets of one escaped label."""
    if "\\" not in label:
        return label.encode("utf-8", "surrogateescape")
    out = bytearray()
    i = 0
    while i < len(label):
        if label[i] == "\\" and label[i + 1 : i + 4].isdigit() and len(label[i + 1 : i + 4]) == 3:
            out.append(int(label[i + 1 : i + 4]) & 0xFF)
            i += 4
        elif label[i] == "\\" and i + 1 < len(label):
            out += label[i + 1].encode("utf-8", "surrogateescape")
            i += 2
        else:
            out += label[i].encode("utf-8", "surrogateescape")
            i += 1
    return bytes(out)


def label_text(octets: bytes) -> str:
    """One label as text: what would be misread is escaped (as CoreDNS's DNS library escapes it)."""
    out: list[str] = []
    for octet in octets:
        char = chr(octet)
        if char in ".'@;()\"\\ ":
            out.append("\\032" if char == " " else "\\" + char)
        elif 0x20 < octet < 0x7F:
            out.append(char)
        else:
            out.append(f"\\{octet:03d}")
    return "".join(out)
