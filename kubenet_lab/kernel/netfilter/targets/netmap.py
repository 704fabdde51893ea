"""`-j NETMAP`: move a whole network onto another, host part unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import BITS, address, block
from kubenet_lab.kernel.netfilter.extension import Given, Option, Target, needed, once, plain


class Netmap(Target, frozen=True):
    """The network mapped onto."""

    NAME: ClassVar[str] = "NETMAP"
    TABLES: ClassVar[tuple[str, ...]] = ("nat",)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--to"),)

    to: str = ""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--to NETWORK`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        text = needed(found, "--to", cls.NAME).value
        made = block(text, family, "--to")
        return cls(made or f"{address(text.partition('/')[0], family, '--to')}/{BITS[family]}")

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        host, _, length = self.to.partition("/")
        return f" --to {host}/{length if length.isdigit() else BITS[family]}"
