"""`-m rpfilter`: would the answer leave by the interface the packet came in on?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, once, plain


class RpFilter(Match, frozen=True):
    """A reverse path test; `invert` fits the packets that fail it."""

    NAME: ClassVar[str] = "rpfilter"
    OPTIONS: ClassVar[tuple[Option, ...]] = tuple(
        Option(f"--{name}", 0) for name in ("loose", "validmark", "accept-local", "invert")
    )

    loose: bool = False
    validmark: bool = False
    accept_local: bool = False
    invert: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the flags."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        return cls(*(option.name in found for option in cls.OPTIONS))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        flags = (self.loose, self.validmark, self.accept_local, self.invert)
        return "".join(f" {option.name}" for option, on in zip(self.OPTIONS, flags, strict=True) if on)
