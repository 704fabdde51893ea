"""`-m iprange`: addresses from one to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import address
from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once


class IpRange(Match, frozen=True):
    """`src` and `dst` are (first, last) or None."""

    NAME: ClassVar[str] = "iprange"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--src-range"), Option("--dst-range"))

    src: tuple[str, str] | None = None
    dst: tuple[str, str] | None = None
    not_src: bool = False
    not_dst: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--src-range A-B` and `--dst-range A-B`."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            first, _, last = option.value.partition("-")
            low = address(first, family, name)
            fields[name[2:5]] = (low, address(last, family, name) if last else low)
            fields["not_" + name[2:5]] = option.negated
        if not fields:
            raise BadOption(
                "-m iprange",
                "iprange match: You must specify `--src-range' or `--dst-range'",
                "add one of them",
            )
        return cls(**fields)  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f"{no(self.not_src)} --src-range {self.src[0]}-{self.src[1]}" if self.src else ""
        return out + (f"{no(self.not_dst)} --dst-range {self.dst[0]}-{self.dst[1]}" if self.dst else "")
