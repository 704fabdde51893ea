"""`-m addrtype`: what the routing tables make of an address (LOCAL, BROADCAST, ...)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, exclusive, no, once, plain

TYPES = (
    "UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE",
    "PROHIBIT", "THROW",
    "NAT", "XRESOLVE",
)  # fmt: skip


def _types(text: str, option: str) -> tuple[str, ...]:
    words = text.upper().split(",")
    for word in words:
        if word not in TYPES:
            near = get_close_matches(word, TYPES, 1)
            raise BadOption(
                option,
                f'addrtype: bad type "{word}"',
                f"write {near[0]}" if near else f"write one of {', '.join(TYPES)}",
            )
    return tuple(t for t in TYPES if t in words)


class AddrType(Match, frozen=True):
    """Address types wanted; an empty tuple is no condition. The limits ask about one interface only."""

    NAME: ClassVar[str] = "addrtype"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--src-type"),
        Option("--dst-type"),
        Option("--limit-iface-in", 0),
        Option("--limit-iface-out", 0),
    )

    src: tuple[str, ...] = ()
    dst: tuple[str, ...] = ()
    not_src: bool = False
    not_dst: bool = False
    limit_in: bool = False
    limit_out: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--src-type`, `--dst-type` and the interface limits."""
        found = once(given, cls.NAME)
        exclusive(found, ("--limit-iface-in", "--limit-iface-out"), cls.NAME)
        plain(found, ("--limit-iface-in", "--limit-iface-out"), cls.NAME)
        src, dst = found.get("--src-type"), found.get("--dst-type")
        if src is None and dst is None:
            raise BadOption(
                "-m addrtype",
                "addrtype: you must specify --src-type or --dst-type",
                "add --dst-type LOCAL or the type you mean",
            )
        return cls(
            _types(src.value, "--src-type") if src else (),
            _types(dst.value, "--dst-type") if dst else (),
            bool(src and src.negated),
            bool(dst and dst.negated),
            "--limit-iface-in" in found,
            "--limit-iface-out" in found,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f"{no(self.not_src)} --src-type {','.join(self.src)}" if self.src else ""
        if self.dst:
            out += f"{no(self.not_dst)} --dst-type {','.join(self.dst)}"
        return out + " --limit-iface-in" * self.limit_in + " --limit-iface-out" * self.limit_out
