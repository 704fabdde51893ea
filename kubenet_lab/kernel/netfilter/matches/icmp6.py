"""`-m icmp6`: type and code of an ICMPv6 message (RFC 4443, 4861)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, needed, no, once
from kubenet_lab.kernel.netfilter.matches.icmp import read_type

TYPES = {
    "destination-unreachable": (1, 0, 255), "no-route": (1, 0, 0), "communication-prohibited": (1, 1, 1),
    "beyond-scope": (1, 2, 2), "address-unreachable": (1, 3, 3), "port-unreachable": (1, 4, 4),
    "failed-policy": (1, 5, 5), "reject-route": (1, 6, 6), "packet-too-big": (2, 0, 255),
    "time-exceeded": (3, 0, 255), "ttl-exceeded": (3, 0, 255),
    "ttl-zero-during-transit": (3, 0, 0), "ttl-zero-during-reassembly": (3, 1, 1),
    "parameter-problem": (4, 0, 255), "bad-header": (4, 0, 0), "unknown-header-type": (4, 1, 1),
    "unknown-option": (4, 2, 2),
    "echo-request": (128, 0, 255), "ping": (128, 0, 255), "echo-reply": (129, 0, 255), "pong": (129, 0, 255),
    "router-solicitation": (133, 0, 255), "router-advertisement": (134, 0, 255),
    "neighbour-solicitation": (135, 0, 255), "neighbor-solicitation": (135, 0, 255),
    "neighbour-advertisement": (136, 0, 255), "neighbor-advertisement": (136, 0, 255), "redirect": (137, 0,
    255),
}  # fmt: skip


class Icmp6(Match, frozen=True):
    """Type and code of an ICMPv6 message."""

    NAME: ClassVar[str] = "icmp6"
    ALIASES: ClassVar[tuple[str, ...]] = ("icmpv6", "ipv6-icmp")
    FAMILIES: ClassVar[tuple[int, ...]] = (6,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--icmpv6-type"),)

    type: int = 0
    code_min: int = 0
    code_max: int = 255
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--icmpv6-type TYPE[/CODE]`."""
        option = needed(once(given, cls.NAME), "--icmpv6-type", cls.NAME)
        return cls(*read_type(option.value, "--icmpv6-type", "ICMPv6", TYPES), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        code = f"/{self.code_min}" if (self.code_min, self.code_max) != (0, 255) else ""
        return f"{no(self.negated)} --icmpv6-type {self.type}{code}"
