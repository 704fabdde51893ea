"""Addresses and prefixes as canonical text, with cached number forms.

State and packets carry addresses as `str`: they print, hash and compare as they are. Arithmetic (is this address
in that prefix?) needs the number, which is computed once per distinct text and then a dictionary hit.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from msgspec import Struct

_CACHE_LIMIT = 1 << 20


class _IntOf(dict[str, int]):
    """Text of an address -> its number; fills itself."""

    def __missing__(self, text: str) -> int:
        if len(self) > _CACHE_LIMIT:
            self.clear()
        try:
            number = int.from_bytes(inet_pton(AF_INET6 if ":" in text else AF_INET, text), "big")
        except (OSError, ValueError):
            number = int(
                ip_address(text)
            )  # it has the words for what is wrong, and takes a zone ("fe80::1%eth0")
        self[text] = number
        return number


IP_INT: dict[str, int] = _IntOf()
"""`IP_INT["10.0.0.1"]` is 167772161. Raises ValueError for what is not an address."""


def ip_int(text: str) -> int:
    """Return the number of an IPv4 or IPv6 address."""
    return IP_INT[text]


def ip_text(number: int, family: int) -> str:
    """Return the canonical text of an address given as a number; `family` is 4 or 6."""
    if family == 4 and 0 <= number <= 0xFFFFFFFF:
        return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if family == 6 and number >> 48:
        # Below that the C library writes the last four bytes as an IPv4 address, and ipaddress does not.
        return inet_ntop(AF_INET6, number.to_bytes(16, "big"))
    return str(IPv4Address(number) if family == 4 else IPv6Address(number))


def family(text: str) -> int:
    """Return 4 or 6: the family of an address or prefix given as text."""
    return 6 if ":" in text else 4


def canonical(text: str) -> str:
    """Return an address in canonical form (RFC 5952 for IPv6). Raises ValueError."""
    return str(ip_address(text))


class Prefix(Struct, frozen=True):
    """An address block: network number, mask and length, ready for `number & mask == net`."""

    text: str
    net: int
    mask: int
    length: int
    family: int

    def __contains__(self, address: str) -> bool:
        return (":" in address) == (self.family == 6) and IP_INT[address] & self.mask == self.net

    def __str__(self) -> str:
        return self.text


class _PrefixOf(dict[str, Prefix]):
    def __missing__(self, text: str) -> Prefix:
        if len(self) > _CACHE_LIMIT:
            self.clear()
        self[text] = made = _plain_prefix(text) or _any_prefix(text)
        return made


def _plain_prefix(text: str) -> Prefix | None:
    """Read "ADDRESS/LENGTH", the form nearly all prefixes have; None for another one, and for what is wrong."""
    address, slash, length_text = text.partition("/")
    bits = 128 if ":" in address else 32
    if not slash or not length_text.isascii() or not length_text.isdecimal() or len(length_text) > 3:
        return None
    length = int(length_text)
    if length > bits or str(length) != length_text or "%" in address:
        return None
    try:
        number = IP_INT[address]
    except ValueError:
        return None
    mask = (1 << bits) - (1 << bits - length)
    net = number & mask
    fam = 6 if bits == 128 else 4
    return Prefix(f"{ip_text(net, fam)}/{length}", net, mask, length, fam)


def _any_prefix(text: str) -> Prefix:
    network = ip_network(text, strict=False)
    return Prefix(
        str(network),
        int(network.network_address),
        int(network.netmask),
        network.prefixlen,
        network.version,
    )


PREFIX: dict[str, Prefix] = _PrefixOf()


def prefix(text: str) -> Prefix:
    """Return the block that `text` ("10.244.0.0/16", or a bare address) names; host bits are cleared.

    Raises ValueError for what is neither.
    """
    return PREFIX[text]


def interface_network(text: str) -> str:
    """Return "10.244.0.0/24" for "10.244.0.1/24"."""
    return str(ip_interface(text).network)


def mac_from(*names: str, first: int = 0x0A) -> str:
    """Return a locally administered MAC derived from names, so that a world repeats."""
    digest = hashlib.sha256("/".join(names).encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (first, *digest[:5]))


def eui64(mac: str, number: int = 0) -> str:
    """Return the link-local IPv6 address that the kernel derives from a MAC (RFC 4291, appendix A).

    `number` is the device's own where several share a MAC (`dev_id`; `addrconf_ifid_eui48`), 0 where none does.
    """
    octets = [int(part, 16) for part in mac.split(":")]
    if not number:
        octets[0] ^= 2
    middle = (number >> 8, number & 0xFF) if number else (0xFF, 0xFE)
    packed = bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, *octets[:3], *middle, *octets[3:]])
    return inet_ntop(AF_INET6, packed)
