"""`-m length`: bytes of the IP packet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, number, once
from kubenet_lab.kernel.netfilter.ports import Range, range_text


def uint_range(text: str, option: str, extension: str, *, ordered: bool = False) -> Range:
    """Return the range of "5", "5:9", ":9" or "5:", at most 65535. Raises BadOption."""
    high = 65535
    first, colon, last = text.partition(":")
    if not colon:
        value = number(first, option, extension, high)
        return (value, value)
    low = number(first, option, extension, high) if first else 0
    top = number(last, option, extension, high) if last else high
    if low > top and ordered:
        raise BadOption(option, f"{extension}: range {text} is from high to low", f"write {top}:{low}")
    return (low, top)


class Length(Match, frozen=True):
    """Lengths wanted, in bytes."""

    NAME: ClassVar[str] = "length"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--length"),)

    length: Range = (0, 65535)
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--length MIN:MAX`."""
        option = needed(once(given, cls.NAME), "--length", cls.NAME)
        return cls(uint_range(option.value, "--length", cls.NAME), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --length {range_text(self.length)}"
