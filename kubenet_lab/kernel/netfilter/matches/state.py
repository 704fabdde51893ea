"""`-m state`: the older spelling of `-m conntrack --ctstate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import Given, Match, Option, needed, no, once
from kubenet_lab.kernel.netfilter.matches.conntrack import words

STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED")


class State(Match, frozen=True):
    """Connection states wanted."""

    NAME: ClassVar[str] = "state"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--state"),)

    state: tuple[str, ...] = ()
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--state LIST`."""
        option = needed(once(given, cls.NAME), "--state", cls.NAME)
        return cls(words(option.value, "--state", STATES, "state"), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --state {','.join(self.state)}"
