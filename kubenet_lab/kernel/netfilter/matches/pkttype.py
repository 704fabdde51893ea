"""`-m pkttype`: whom the frame was addressed to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, once

_KINDS = {"unicast": "unicast", "host": "unicast", "broadcast": "broadcast", "bcast": "broadcast",
          "multicast": "multicast", "mcast": "multicast"}  # fmt: skip


class PktType(Match, frozen=True):
    """`kind` is unicast, broadcast or multicast."""

    NAME: ClassVar[str] = "pkttype"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--pkt-type"),)

    kind: str = "unicast"
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--pkt-type KIND`."""
        option = needed(once(given, cls.NAME), "--pkt-type", cls.NAME)
        kind = _KINDS.get(option.value.lower())
        if kind is None:
            raise BadOption(
                "--pkt-type", f"Bad packet type '{option.value}'", "write unicast, broadcast or multicast"
            )
        return cls(kind, option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --pkt-type {self.kind}"
