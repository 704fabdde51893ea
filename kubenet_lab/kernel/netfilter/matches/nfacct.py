"""`-m nfacct`: count into a named accounting object (nfacct(8)); every packet fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, needed, once, plain


class NfAcct(Match, frozen=True):
    """The object counted into."""

    NAME: ClassVar[str] = "nfacct"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--nfacct-name"),)

    object_name: str = ""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--nfacct-name NAME`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        return cls(needed(found, "--nfacct-name", cls.NAME).value)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them, with its two blanks before the name."""
        return f" --nfacct-name  {self.object_name}"
