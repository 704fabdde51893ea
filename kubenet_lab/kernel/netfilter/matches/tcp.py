"""`-m tcp`: ports, flags and options of a TCP segment (RFC 9293)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, number, once
from kubenet_lab.kernel.netfilter.ports import Range, port_range, range_text

ANY: Range = (0, 65535)
FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32}
_SYN_MASK = 1 | 2 | 4 | 16


def flags_text(bits: int) -> str:
    """Return "SYN,RST", or "NONE"."""
    return ",".join(name for name, bit in FLAGS.items() if bits & bit) or "NONE"


def _flags(text: str, option: str) -> int:
    bits = 0
    for word in text.upper().split(","):
        if word == "ALL":
            bits |= 63
        elif word in FLAGS:
            bits |= FLAGS[word]
        elif word != "NONE":
            raise BadOption(
                option, f"Unknown TCP flag `{word}'", f"write a list of {', '.join(FLAGS)}, ALL or NONE"
            )
    return bits


class Tcp(Match, frozen=True):
    """Conditions on a TCP header. `flags` is (mask, wanted) or None; `option` 0 is no condition."""

    NAME: ClassVar[str] = "tcp"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--sport", aliases=("--source-port",)),
        Option("--dport", aliases=("--destination-port",)),
        Option("--syn", 0),
        Option("--tcp-flags", 2),
        Option("--tcp-option"),
    )

    sport: Range = ANY
    dport: Range = ANY
    option: int = 0
    flags: tuple[int, int] | None = None
    not_sport: bool = False
    not_dport: bool = False
    not_option: bool = False
    not_flags: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--sport`, `--dport`, `--tcp-flags MASK COMP`, `--syn`, `--tcp-option`."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            if name in ("--sport", "--dport"):
                fields[name[2:]] = port_range(option.value, name, ordered=True)
                fields["not_" + name[2:]] = option.negated
            elif name == "--tcp-option":
                fields["option"] = number(option.value, name, cls.NAME, 255, 1)
                fields["not_option"] = option.negated
            else:
                if "flags" in fields:
                    raise BadOption(name, "Only one of `--syn' or `--tcp-flags' allowed", "keep one of them")
                values = (_SYN_MASK, 2) if name == "--syn" else tuple(_flags(v, name) for v in option.values)
                fields["flags"], fields["not_flags"] = values, option.negated
        return cls(**fields)  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = ""
        if self.sport != ANY or self.not_sport:
            out += f"{no(self.not_sport)} --sport {range_text(self.sport)}"
        if self.dport != ANY or self.not_dport:
            out += f"{no(self.not_dport)} --dport {range_text(self.dport)}"
        if self.option:
            out += f"{no(self.not_option)} --tcp-option {self.option}"
        if self.flags is not None:
            out += f"{no(self.not_flags)} --tcp-flags {flags_text(self.flags[0])} {flags_text(self.flags[1])}"
        return out
