"""Addresses and masks as rules hold them: canonical text, host bits cleared."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from kubenet_lab.kernel.netfilter.extension import BadOption

BITS = {4: 32, 6: 128}
ALL_ONES = {4: 0xFFFFFFFF, 6: (1 << 128) - 1}


def address(text: str, family: int, option: str) -> str:
    """Return an address of the family in canonical form; "10.1" is 10.1.0.0 as iptables reads it.

    Raises BadOption.
    """
    try:
        if family == 6:
            return str(IPv6Address(text))
        parts = text.split(".")
        if not 1 <= len(parts) <= 4 or not all(p.isdigit() and int(p) < 256 for p in parts):
            raise ValueError
        return ".".join(str(int(p)) for p in (*parts, *["0"] * (4 - len(parts))))
    except ValueError:
        raise BadOption(option, f"host/network `{text}' not found", _advice(text, family)) from None


def _advice(text: str, family: int) -> str:
    try:
        other = ip_address(text).version
    except ValueError:
        return (
            "write an IPv4 address like 10.244.1.5" if family == 4 else "write an IPv6 address like fd00::5"
        )
    return f"this is an IPv{other} address: put the rule into ip{'6' if other == 6 else ''}tables"


def mask(text: str, family: int, option: str) -> int:
    """Return the mask "/24" or "/255.255.255.0" as a number. Raises BadOption."""
    bits = BITS[family]
    if text.isdigit() and int(text) <= bits:
        return ALL_ONES[family] ^ ((1 << bits - int(text)) - 1)
    try:
        return int(IPv4Address(text)) if family == 4 else int(IPv6Address(text))
    except ValueError:
        raise BadOption(
            option, f"invalid mask `{text}' specified", f"write a prefix length from 0 to {bits}"
        ) from None


def block(text: str, family: int, option: str) -> str:
    """Return "10.244.0.0/16" with host bits cleared; "" for every address. Raises BadOption."""
    host, slash, rest = text.partition("/")
    ones = mask(rest, family, option) if slash else ALL_ONES[family]
    if ones == 0:
        address(host, family, option)
        return ""
    return block_text(int(ip_address(address(host, family, option))) & ones, ones, family)


def block_text(net: int, ones: int, family: int) -> str:
    """Return a network number and mask as text; a mask with holes is written out."""
    bits = BITS[family]
    inverted = ones ^ ALL_ONES[family]
    make = IPv4Address if family == 4 else IPv6Address
    length = str(bits - inverted.bit_length()) if inverted & (inverted + 1) == 0 else str(make(ones))
    return f"{make(net)}/{length}"


def block_numbers(text: str) -> tuple[int, int]:
    """Return (network number, mask number) of a block made by `block`."""
    host, _, rest = text.partition("/")
    fam = 6 if ":" in host else 4
    return int(ip_address(host)), mask(rest, fam, "")
