"""`-m multiport`: up to 15 ports and port ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once
from kubenet_lab.kernel.netfilter.ports import Range, port_range, range_text


class Multiport(Match, frozen=True):
    """`side` is "sports", "dports" or "ports" (either)."""

    NAME: ClassVar[str] = "multiport"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--sports", aliases=("--source-ports",)),
        Option("--dports", aliases=("--destination-ports",)),
        Option("--ports"),
    )

    side: str = "dports"
    ports: tuple[Range, ...] = ()
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one of `--sports`, `--dports`, `--ports`."""
        found = once(given, cls.NAME)
        if len(found) != 1:
            raise BadOption(
                "-m multiport", "multiport: one option is needed", "add one of --dports, --sports or --ports"
            )
        ((name, option),) = found.items()
        ports = tuple(port_range(text, name) for text in option.value.split(","))
        if sum(1 if low == high else 2 for low, high in ports) > 15:
            raise BadOption(
                name, "too many ports specified", "give at most 15 ports a rule; a range counts as two"
            )
        return cls(name[2:], ports, option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --{self.side} {','.join(range_text(p) for p in self.ports)}"
