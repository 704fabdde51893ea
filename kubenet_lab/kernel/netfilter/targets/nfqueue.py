"""`-j NFQUEUE`: hand the packet to a program in user space, which decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Option,
    Target,
    exclusive,
    number,
    once,
    plain,
)
from kubenet_lab.kernel.netfilter.ports import Range


class NfQueue(Target, frozen=True):
    """`queues` is (first, last)."""

    NAME: ClassVar[str] = "NFQUEUE"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--queue-num"),
        Option("--queue-balance"),
        Option("--queue-bypass", 0),
        Option("--queue-cpu-fanout", 0),
    )

    queues: Range = (0, 0)
    bypass: bool = False
    cpu_fanout: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--queue-num N` or `--queue-balance A:B`, and the flags."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        exclusive(found, ("--queue-num", "--queue-balance"), cls.NAME)
        queues = (0, 0)
        if "--queue-num" in found:
            value = number(found["--queue-num"].value, "--queue-num", cls.NAME, 65535)
            queues = (value, value)
        elif "--queue-balance" in found:
            low, colon, high = found["--queue-balance"].value.partition(":")
            first = number(low, "--queue-balance", cls.NAME, 65535) if low else 0
            last = number(high, "--queue-balance", cls.NAME, 65535) if high else 65535
            if not colon or first >= last:
                raise BadOption(
                    "--queue-balance", f'Bad range "{found["--queue-balance"].value}"', "write FIRST:LAST"
                )
            queues = (first, last)
        return cls(queues, "--queue-bypass" in found, "--queue-cpu-fanout" in found)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        first, last = self.queues
        out = f" --queue-num {first}" if first == last else f" --queue-balance {first}:{last}"
        return out + " --queue-bypass" * self.bypass + " --queue-cpu-fanout" * self.cpu_fanout
