"""`-j REJECT`: discard the packet and tell its sender so."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Option, Target, once, plain

IPV4 = {
    "icmp-net-unreachable": 0, "icmp-host-unreachable": 1, "icmp-proto-unreachable": 2,
    "icmp-port-unreachable": 3,
    "icmp-net-prohibited": 9, "icmp-host-prohibited": 10, "icmp-admin-prohibited": 13,
}  # fmt: skip
"""Name -> code of ICMP type 3."""
IPV6 = {
    "icmp6-no-route": 0, "icmp6-adm-prohibited": 1, "icmp6-addr-unreachable": 3, "icmp6-port-unreachable": 4,
    "icmp6-policy-fail": 5, "icmp6-reject-route": 6,
}  # fmt: skip
"""Name -> code of ICMPv6 type 1."""
_ALIASES = {
    4: {"net-unreach": "icmp-net-unreachable", "host-unreach": "icmp-host-unreachable",
        "proto-unreach": "icmp-proto-unreachable", "port-unreach": "icmp-port-unreachable",
        "net-prohib": "icmp-net-prohibited", "host-prohib": "icmp-host-prohibited",
        "admin-prohib": "icmp-admin-prohibited", "tcp-rst": "tcp-reset"},
    6: {"no-route": "icmp6-no-route", "adm-prohibited": "icmp6-adm-prohibited",
        "addr-unreach": "icmp6-addr-unreachable", "port-unreach": "icmp6-port-unreachable",
        "policy-fail": "icmp6-policy-fail", "reject-route": "icmp6-reject-route"},
}  # fmt: skip


class Reject(Target, frozen=True):
    """`kind` is a name as `--reject-with` prints it; "" is port-unreachable of the family."""

    NAME: ClassVar[str] = "REJECT"
    TABLES: ClassVar[tuple[str, ...]] = ("filter",)
    CHAINS: ClassVar[tuple[str, ...]] = ("INPUT", "FORWARD", "OUTPUT")
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--reject-with"),)

    kind: str = ""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--reject-with KIND`; the shortest unambiguous beginning will do."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        if not found:
            return cls()
        text = found["--reject-with"].value
        names = [*(IPV4 if family == 4 else IPV6), "tcp-reset"]
        text = _ALIASES[family].get(text, text)
        fits = [name for name in names if name.startswith(text.lower())]
        if not fits:
            near = get_close_matches(text, names, 1)
            raise BadOption(
                "--reject-with",
                f'unknown reject type "{text}"',
                f"write {near[0]}" if near else f"write one of {', '.join(names)}",
            )
        return cls(fits[0])

    @property
    def tcp_reset(self) -> bool:
        """True when a TCP RST is sent instead of an ICMP error."""
        return self.kind == "tcp-reset"

    def icmp(self, family: int) -> tuple[int, int]:
        """Return (type, code) of the ICMP error sent. Raises KeyError for `tcp-reset`."""
        if family == 4:
            return (3, IPV4[self.kind or "icmp-port-unreachable"])
        return (1, IPV6[self.kind or "icmp6-port-unreachable"])

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        default = "icmp-port-unreachable" if family == 4 else "icmp6-port-unreachable"
        return f" --reject-with {self.kind or default}"
