"""`-m tos`: the type-of-service byte of the IP header (RFC 791; traffic class in IPv6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, once, strtoul

NAMES = {
    "minimize-delay": 0x10, "maximize-throughput": 0x08, "maximize-reliability": 0x04, "minimize-cost": 0x02,
    "normal-service": 0x00,
}  # fmt: skip


def read_tos(text: str, option: str) -> tuple[int, int]:
    """Return (value, mask) of "0x10", "4/7" or a name. Raises BadOption."""
    if not text[:1].isdigit():
        if text.lower() not in NAMES:
            raise BadOption(
                option, f'Symbolic name "{text}" is unknown', f"write one of {', '.join(NAMES)} or a number"
            )
        return NAMES[text.lower()], 0x3F
    first, slash, second = text.partition("/")
    value, mask = strtoul(first), strtoul(second) if slash else 0xFF
    if value is None or value > 255 or mask is None or mask > 255:
        raise BadOption(
            option,
            f'Illegal value: "{text}"',
            "write a number up to 0xff, with a mask after a slash if need be",
        )
    return value, mask


class Tos(Match, frozen=True):
    """Fits when `tos & mask == value`."""

    NAME: ClassVar[str] = "tos"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--tos"),)

    value: int = 0
    mask: int = 0xFF
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--tos VALUE[/MASK]`."""
        option = needed(once(given, cls.NAME), "--tos", cls.NAME)
        return cls(*read_tos(option.value, "--tos"), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --tos 0x{self.value:02x}/0x{self.mask:02x}"
