"""`-m udp`: ports of a UDP datagram (RFC 768)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, no, once
from kubenet_lab.kernel.netfilter.ports import Range, port_range, range_text

ANY: Range = (0, 65535)


class Udp(Match, frozen=True):
    """Conditions on a UDP header."""

    NAME: ClassVar[str] = "udp"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--sport", aliases=("--source-port",)),
        Option("--dport", aliases=("--destination-port",)),
    )

    sport: Range = ANY
    dport: Range = ANY
    not_sport: bool = False
    not_dport: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--sport` and `--dport`."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            fields[name[2:]] = port_range(option.value, name)
            fields["not_" + name[2:]] = option.negated
        return cls(**fields)  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = ""
        if self.sport != ANY or self.not_sport:
            out += f"{no(self.not_sport)} --sport {range_text(self.sport)}"
        if self.dport != ANY or self.not_dport:
            out += f"{no(self.not_dport)} --dport {range_text(self.dport)}"
        return out
