"""`-m mac`: the Ethernet source address."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, once


class Mac(Match, frozen=True):
    """The address wanted, in lower case."""

    NAME: ClassVar[str] = "mac"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--mac-source"),)

    source: str = ""
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--mac-source XX:XX:XX:XX:XX:XX`."""
        option = needed(once(given, cls.NAME), "--mac-source", cls.NAME)
        if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", option.value):
            raise BadOption(
                "--mac-source",
                "Invalid MAC address specified.",
                "write six hexadecimal pairs: 0a:58:0a:f4:01:05",
            )
        return cls(option.value.lower(), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --mac-source {self.source}"
