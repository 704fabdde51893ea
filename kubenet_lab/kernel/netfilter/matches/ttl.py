"""`-m ttl`: the time to live of the IPv4 header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, number, once


class Ttl(Match, frozen=True):
    """`op` is eq, lt or gt."""

    NAME: ClassVar[str] = "ttl"
    FAMILIES: ClassVar[tuple[int, ...]] = (4,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--ttl-eq", aliases=("--ttl",)),
        Option("--ttl-lt"),
        Option("--ttl-gt"),
    )

    op: str = "eq"
    value: int = 0
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one of `--ttl-eq`, `--ttl-lt`, `--ttl-gt`."""
        found = once(given, cls.NAME)
        if len(found) != 1:
            names = ", ".join(option.name for option in cls.OPTIONS)
            raise BadOption(
                f"-m {cls.NAME}", f"{cls.NAME}: You must specify one of {names}", "give exactly one of them"
            )
        ((name, option),) = found.items()
        return cls(name[-2:], number(option.value, name, cls.NAME, 255), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --{self.NAME}-{self.op} {self.value}"
