"""`-m tcpmss`: the maximum segment size a TCP SYN announces (RFC 9293, 3.7.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, needed, no, once
from kubenet_lab.kernel.netfilter.matches.length import uint_range
from kubenet_lab.kernel.netfilter.ports import Range, range_text


class TcpMss(Match, frozen=True):
    """Sizes wanted, in bytes."""

    NAME: ClassVar[str] = "tcpmss"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--mss"),)

    mss: Range = (0, 65535)
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--mss MIN:MAX`."""
        option = needed(once(given, cls.NAME), "--mss", cls.NAME)
        return cls(uint_range(option.value, "--mss", cls.NAME, ordered=True), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --mss {range_text(self.mss)}"
