"""`-j TCPMSS`: lower the segment size that a TCP SYN announces, so that segments fit a tunnel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Option, Target, number, once, plain


class TcpMssTarget(Target, frozen=True):
    """`mss` in bytes; 0 clamps to the path MTU less the headers."""

    NAME: ClassVar[str] = "TCPMSS"
    PROTOCOLS: ClassVar[tuple[int, ...]] = (6,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--set-mss"), Option("--clamp-mss-to-pmtu", 0))

    mss: int = 0

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--set-mss N` or `--clamp-mss-to-pmtu`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        if len(found) != 1:
            raise BadOption(
                "-j TCPMSS",
                "TCPMSS target: At least one parameter is required",
                "give --set-mss N or --clamp-mss-to-pmtu",
            )
        if "--set-mss" in found:
            return cls(
                number(
                    found["--set-mss"].value, "--set-mss", cls.NAME, 65535 - (40 if family == 4 else 60), 1
                )
            )
        return cls()

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f" --set-mss {self.mss}" if self.mss else " --clamp-mss-to-pmtu"
