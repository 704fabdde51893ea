"""`-m mark`: the packet's mark, a 32-bit note that lives as long as the packet stays in one namespace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, needed, no, once, value_and_mask

FULL = 0xFFFFFFFF


class Mark(Match, frozen=True):
    """Fits when `packet mark & mask == value`."""

    NAME: ClassVar[str] = "mark"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--mark"),)

    value: int = 0
    mask: int = FULL
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--mark VALUE[/MASK]`."""
        option = needed(once(given, cls.NAME), "--mark", cls.NAME)
        value, mask = value_and_mask(option.value, "--mark", cls.NAME)
        return cls(value, FULL if mask is None else mask, option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        mask = "" if self.mask == FULL else f"/0x{self.mask:x}"
        return f"{no(self.negated)} --mark 0x{self.value:x}{mask}"
