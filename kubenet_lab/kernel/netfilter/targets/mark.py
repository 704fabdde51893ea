"""`-j MARK`: change the packet's mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Option,
    Target,
    once,
    plain,
    value_and_mask,
)

FULL = 0xFFFFFFFF


def read_xmark(name: str, text: str, extension: str) -> tuple[int, int]:
    """Return (value, mask) of `--set-xmark` for any of its shorthands: new = old & ~mask ^ value."""
    value, mask = value_and_mask(text, name, extension)
    if name in ("--and-mark", "--or-mark", "--xor-mark"):
        if mask is not None:
            raise BadOption(
                name,
                f'{extension}: bad integer value for option "{name}", or out of range.',
                "leave the mask out",
            )
        return {"--and-mark": (0, FULL ^ value), "--or-mark": (value, value), "--xor-mark": (value, 0)}[name]
    if mask is None:
        mask = FULL
    return (value, mask | value if name == "--set-mark" else mask)


class MarkTarget(Target, frozen=True):
    """New mark = old & ~mask ^ value."""

    NAME: ClassVar[str] = "MARK"
    OPTIONS: ClassVar[tuple[Option, ...]] = tuple(
        Option(f"--{name}") for name in ("set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark")
    )

    value: int = 0
    mask: int = FULL

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one of `--set-mark --set-xmark --and-mark --or-mark --xor-mark`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        if len(found) != 1:
            raise BadOption(
                "-j MARK",
                "MARK: One of the --set-xmark, --{and,or,xor,set}-mark options is required",
                "give exactly one of them",
            )
        ((name, option),) = found.items()
        return cls(*read_xmark(name, option.value, cls.NAME))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f" --set-xmark 0x{self.value:x}/0x{self.mask:x}"
