"""`-m physdev`: the bridge ports a bridged packet came in and goes out by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once

_FLAGS = ("--physdev-is-in", "--physdev-is-out", "--physdev-is-bridged")


class PhysDev(Match, frozen=True):
    """Bridge ports wanted; `is_in`, `is_out` and `is_bridged` are None where they are no condition."""

    NAME: ClassVar[str] = "physdev"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--physdev-in"),
        Option("--physdev-out"),
        *(Option(flag, 0) for flag in _FLAGS),
    )

    indev: str = ""
    outdev: str = ""
    not_indev: bool = False
    not_outdev: bool = False
    is_in: bool | None = None
    is_out: bool | None = None
    is_bridged: bool | None = None

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the `--physdev-...` options."""
        found = once(given, cls.NAME)
        if not found:
            raise BadOption("-m physdev", "PHYSDEV: no physdev option specified", "add --physdev-in NAME")
        port_in, port_out = found.get("--physdev-in"), found.get("--physdev-out")
        flags = [not found[flag].negated if flag in found else None for flag in _FLAGS]
        return cls(
            port_in.value if port_in else "",
            port_out.value if port_out else "",
            bool(port_in and port_in.negated),
            bool(port_out and port_out.negated),
            *flags,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = _flag("is-in", self.is_in)
        if self.indev:
            out += f"{no(self.not_indev)} --physdev-in {self.indev}"
        out += _flag("is-out", self.is_out)
        if self.outdev:
            out += f"{no(self.not_outdev)} --physdev-out {self.outdev}"
        return out + _flag("is-bridged", self.is_bridged)


def _flag(name: str, wanted: bool | None) -> str:
    return "" if wanted is None else f"{no(not wanted)} --physdev-{name}"
