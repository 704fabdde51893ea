"""`-m socket`: is there an open socket on this host the packet belongs to?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, once, plain


class SocketMatch(Match, frozen=True):
    """Conditions on the socket."""

    NAME: ClassVar[str] = "socket"
    OPTIONS: ClassVar[tuple[Option, ...]] = tuple(
        Option(f"--{name}", 0) for name in ("transparent", "nowildcard", "restore-skmark")
    )

    transparent: bool = False
    nowildcard: bool = False
    restore_skmark: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the flags."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        return cls(*(option.name in found for option in cls.OPTIONS))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        flags = (self.transparent, self.nowildcard, self.restore_skmark)
        return "".join(f" {option.name}" for option, on in zip(self.OPTIONS, flags, strict=True) if on)
