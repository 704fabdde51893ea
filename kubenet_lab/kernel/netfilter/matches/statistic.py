"""`-m statistic`: chance, or every nth packet. kube-proxy spreads connections with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    exclusive,
    needed,
    no,
    number,
    once,
)

SCALE = 0x80000000


class Statistic(Match, frozen=True):
    """`mode` "random" fits with `threshold` / 2**31.

    `mode` "nth" fits packet number `packet` of each `every`.
    """

    NAME: ClassVar[str] = "statistic"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--mode"),
        Option("--probability"),
        Option("--every"),
        Option("--packet"),
    )

    mode: str = "random"
    threshold: int = 0
    """The kernel's 31-bit fixed point, which is why 0.3333333333 prints as 0.33333333349."""
    every: int = 0
    packet: int = 0
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--mode random --probability P` or `--mode nth --every N --packet P`."""
        found = once(given, cls.NAME)
        mode = needed(found, "--mode", cls.NAME).value
        if mode not in ("random", "nth"):
            raise BadOption("--mode", f'Bad mode "{mode}"', "write random or nth")
        exclusive(found, ("--probability", "--every"), cls.NAME)
        if mode == "random":
            option = needed(found, "--probability", cls.NAME)
            try:
                chance = float(option.value)
                if not 0 <= chance <= 1:
                    raise ValueError
            except ValueError:
                raise BadOption(
                    "--probability",
                    'statistic: bad value for option "--probability", or out of range (0.0-1.0).',
                    "write a number from 0 to 1",
                ) from None
            return cls("random", round(chance * SCALE), negated=option.negated)
        every = needed(found, "--every", cls.NAME)
        if "--packet" not in found:
            raise BadOption(
                "--every", 'statistic: option "--every" also requires "--packet".', "add --packet 0"
            )
        count = number(every.value, "--every", cls.NAME, low=1)
        packet = number(found["--packet"].value, "--packet", cls.NAME)
        if packet >= count:
            raise BadOption(
                "--packet", "statistic: the packet number must be 0 <= p <= n-1", f"write 0 to {count - 1}"
            )
        return cls("nth", every=count, packet=packet, negated=every.negated)

    @property
    def probability(self) -> float:
        """The chance that a packet fits, before `!`."""
        return self.threshold / SCALE

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        if self.mode == "random":
            return f" --mode random{no(self.negated)} --probability {self.threshold / SCALE:.11f}"
        return f" --mode nth{no(self.negated)} --every {self.every} --packet {self.packet}"
