"""Constants on the right of a match and in sets: intervals in their one form, and the order nft lists elements in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from kubenet_lab.kernel.nftables.datatypes import TYPES, Scalar, value_bytes, value_int, value_of
from kubenet_lab.kernel.nftables.expressions import Atom, CatchAll, Element, Interval, Key
from kubenet_lab.kernel.nftables.ruleset import span

Fields = Sequence[tuple[str, int]]
"""(data type, bits) of each field of a key."""


def prefix(type_name: str, value: Scalar, length: int) -> Atom:
    """Return `value/length` with the host bits cleared; a single value where the prefix covers it all."""
    bits = TYPES[type_name].bits
    if length >= bits:
        return value
    host = (1 << bits - length) - 1
    low = value_int(value) & ~host
    return Interval(value_of(type_name, low), value_of(type_name, low | host), length)


def prefix_length(low: int, high: int, bits: int) -> int:
    """Return the length of the prefix that is exactly this interval, or -1."""
    size = high - low + 1
    if size & (size - 1) or low & (size - 1):
        return -1
    return bits - (size.bit_length() - 1)


def in_set(type_name: str, atom: Atom, bits: int = 0) -> Atom:
    """Return an interval as a set with intervals keeps it: a point, a prefix where the type prints one, a range."""
    if not isinstance(atom, Interval):
        return atom
    low, high = value_int(atom.low), value_int(atom.high)
    if low == high:
        return atom.low
    kind = TYPES[type_name]
    length = prefix_length(low, high, kind.bits or bits) if kind.prefix else -1
    return atom if atom.length == length else Interval(atom.low, atom.high, length)


def key_in_set(types: Fields, key: Key) -> Key:
    """Return a key as a set with intervals keeps it."""
    if isinstance(key, tuple):
        return tuple(in_set(kind, atom, bits) for (kind, bits), atom in zip(types, key, strict=True))
    return in_set(types[0][0], key, types[0][1])


def _plain_order(types: Fields, key: Key) -> tuple[int, int]:
    if isinstance(key, CatchAll):
        return 1, 0
    if not isinstance(key, tuple):
        if isinstance(key, str):
            kind = TYPES[types[0][0]]
            if kind.host_order:
                return 0, int.from_bytes(value_bytes(kind.name, key), "little")
        return 0, value_int(key.low if isinstance(key, Interval) else key)
    data = b"".join(
        value_bytes(kind, atom.low if isinstance(atom, Interval) else atom, bits)  # type: ignore[arg-type]
        for (kind, bits), atom in zip(types, key, strict=True)
    )
    # nft reads the bytes of a concatenation as one number of the machine's byte order, so the last field counts most.
    return 0, int.from_bytes(data, "little")


def _interval_order(key: Key) -> tuple[int, int]:
    if isinstance(key, CatchAll):
        return 1, 0
    return 0, span(key)[0]


def in_order(types: Fields, elements: Iterable[Element], interval: bool) -> list[Element]:
    """Return a set's elements in the order nft lists them.

    Sorted by the number a key is to nft; concatenations with intervals stay as they were added, as the kernel
    keeps them.
    """
    if interval and len(types) > 1:
        return list(elements)
    if interval:
        return sorted(elements, key=lambda one: _interval_order(one.key))
    return sorted(elements, key=lambda one: _plain_order(types, one.key))


def merged(type_name: str, bits: int, elements: Iterable[Element], adjacent: bool = True) -> list[Element]:
    """Return elements of one field with what overlaps, and what touches if `adjacent`, made one (`auto-merge`)."""
    out: list[Element] = []
    last: tuple[int, int] | None = None
    rest = [one for one in elements if not isinstance(one.key, CatchAll)]
    for one in sorted(rest, key=lambda e: span(e.key)):
        low, high = span(one.key)
        if last is not None and low <= last[1] + (1 if adjacent else 0):
            if high > last[1]:
                last = (last[0], high)
                key = in_set(
                    type_name, Interval(value_of(type_name, last[0]), value_of(type_name, high)), bits
                )
                out[-1] = replace(out[-1], key=key)
            continue
        last = (low, high)
        out.append(
            replace(one, key=in_set(type_name, one.key, bits)) if isinstance(one.key, Interval) else one
        )
    return out + [one for one in elements if isinstance(one.key, CatchAll)]
