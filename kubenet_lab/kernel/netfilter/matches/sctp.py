"""`-m sctp`: ports and chunk types of an SCTP packet (RFC 9260)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once
from kubenet_lab.kernel.netfilter.ports import Range, port_range, range_text

ANY: Range = (0, 65535)


class Sctp(Match, frozen=True):
    """Conditions on an SCTP header. `chunks` is (all|any|only, list as printed) or None."""

    NAME: ClassVar[str] = "sctp"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--sport", aliases=("--source-port",)),
        Option("--dport", aliases=("--destination-port",)),
        Option("--chunk-types", 2),
    )

    sport: Range = ANY
    dport: Range = ANY
    chunks: tuple[str, str] | None = None
    not_sport: bool = False
    not_dport: bool = False
    not_chunks: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--sport`, `--dport` and `--chunk-types`."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            if name == "--chunk-types":
                if option.value not in ("all", "any", "only"):
                    raise BadOption(name, f"sctp: bad match type `{option.value}'", "write all, any or only")
                fields["chunks"], fields["not_chunks"] = option.values, option.negated
            else:
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
        if self.chunks is not None:
            out += f"{no(self.not_chunks)} --chunk-types {self.chunks[0]} {self.chunks[1]}"
        return out
