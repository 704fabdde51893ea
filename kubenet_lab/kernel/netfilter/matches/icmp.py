"""`-m icmp`: type and code of an ICMP message (RFC 792)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, number, once

TYPES = {
    "any": (255, 0, 255),
    "echo-reply": (0, 0, 255), "pong": (0, 0, 255),
    "destination-unreachable": (3, 0, 255),
    "network-unreachable": (3, 0, 0), "host-unreachable": (3, 1, 1), "protocol-unreachable": (3, 2, 2),
    "port-unreachable": (3, 3, 3), "fragmentation-needed": (3, 4, 4), "source-route-failed": (3, 5, 5),
    "network-unknown": (3, 6, 6), "host-unknown": (3, 7, 7), "network-prohibited": (3, 9, 9),
    "host-prohibited": (3, 10, 10), "TOS-network-unreachable": (3, 11, 11), "TOS-host-unreachable": (3, 12,
    12),
    "communication-prohibited": (3, 13, 13), "host-precedence-violation": (3, 14, 14),
    "precedence-cutoff": (3, 15, 15),
    "source-quench": (4, 0, 255),
    "redirect": (5, 0, 255), "network-redirect": (5, 0, 0), "host-redirect": (5, 1, 1),
    "TOS-network-redirect": (5, 2, 2), "TOS-host-redirect": (5, 3, 3),
    "echo-request": (8, 0, 255), "ping": (8, 0, 255),
    "router-advertisement": (9, 0, 255), "router-solicitation": (10, 0, 255),
    "time-exceeded": (11, 0, 255), "ttl-exceeded": (11, 0, 255),
    "ttl-zero-during-transit": (11, 0, 0), "ttl-zero-during-reassembly": (11, 1, 1),
    "parameter-problem": (12, 0, 255), "ip-header-bad": (12, 0, 0), "required-option-missing": (12, 1, 1),
    "timestamp-request": (13, 0, 255), "timestamp-reply": (14, 0, 255),
    "address-mask-request": (17, 0, 255), "address-mask-reply": (18, 0, 255),
}  # fmt: skip


def read_type(
    text: str, option: str, extension: str, names: dict[str, tuple[int, int, int]]
) -> tuple[int, int, int]:
    """Return (type, lowest code, highest code) of "8", "3/4" or a name. Raises BadOption."""
    lower = text.lower()
    if lower[:1].isdigit():
        kind, slash, code = lower.partition("/")
        low, colon, high = code.partition(":")
        first = number(low, option, extension, 255) if slash else 0
        # iptables 1.8.9 prints the lower code only when a range of codes is given
        last = number(high, option, extension, 255) if colon else first if slash else 255
        return (number(kind, option, extension, 255), first, last)
    fits = [name for name in names if name.lower().startswith(lower)]
    exact = [name for name in fits if name.lower() == lower]
    if len(fits) == 1 or exact:
        return names[(exact or fits)[0]]
    near = get_close_matches(text, names, 1)
    raise BadOption(
        option,
        f"Unknown {extension} type `{text}'",
        f"write {near[0]}" if near else "write a type number like 8 or 3/4",
    )


class Icmp(Match, frozen=True):
    """Type and code; type 255 is every message."""

    NAME: ClassVar[str] = "icmp"
    FAMILIES: ClassVar[tuple[int, ...]] = (4,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--icmp-type"),)

    type: int = 255
    code_min: int = 0
    code_max: int = 255
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--icmp-type TYPE[/CODE]`."""
        option = needed(once(given, cls.NAME), "--icmp-type", cls.NAME)
        return cls(*read_type(option.value, "--icmp-type", "ICMP", TYPES), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        if self.type == 255:
            return f"{no(self.negated)} --icmp-type any"
        code = f"/{self.code_min}" if (self.code_min, self.code_max) != (0, 255) else ""
        return f"{no(self.negated)} --icmp-type {self.type}{code}"
