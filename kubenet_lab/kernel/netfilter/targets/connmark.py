"""`-j CONNMARK`: change the connection's mark, or copy it to or from the packet's."""

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
from kubenet_lab.kernel.netfilter.targets.mark import FULL, read_xmark

_SETS = ("--set-xmark", "--set-mark", "--and-mark", "--or-mark", "--xor-mark")
_ACTIONS = (*_SETS, "--save-mark", "--restore-mark")


class ConnMarkTarget(Target, frozen=True):
    """`action` is set, save or restore.

    set: connection mark = old & ~ctmask ^ value. save: connection = old & ~ctmask ^ (packet & nfmask).
    restore: packet = old & ~nfmask ^ (connection & ctmask). `shift` shifts left, or right when negative.
    """

    NAME: ClassVar[str] = "CONNMARK"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        *(Option(name) for name in _SETS),
        Option("--save-mark", 0),
        Option("--restore-mark", 0),
        Option("--nfmask"),
        Option("--ctmask"),
        Option("--mask"),
        Option("--left-shift-mark"),
        Option("--right-shift-mark"),
    )

    action: str = "set"
    value: int = 0
    ctmask: int = FULL
    nfmask: int = FULL
    shift: int = 0

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one action with its masks."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        here = [name for name in _ACTIONS if name in found]
        if len(here) != 1:
            raise BadOption(
                "-j CONNMARK",
                "CONNMARK target: No operation specified",
                "give exactly one of --set-xmark, --save-mark, --restore-mark",
            )
        exclusive(found, ("--left-shift-mark", "--right-shift-mark"), cls.NAME)
        shift = 0
        for name, sign in (("--left-shift-mark", 1), ("--right-shift-mark", -1)):
            if name in found:
                shift = sign * number(found[name].value, name, cls.NAME, 32)
        action = here[0]
        if action in _SETS:
            value, mask = read_xmark(action, found[action].value, cls.NAME)
            return cls("set", value, mask, shift=shift)
        both = number(found["--mask"].value, "--mask", cls.NAME) if "--mask" in found else FULL
        return cls(
            action[2:].removesuffix("-mark"),
            0,
            number(found["--ctmask"].value, "--ctmask", cls.NAME) if "--ctmask" in found else both,
            number(found["--nfmask"].value, "--nfmask", cls.NAME) if "--nfmask" in found else both,
            shift,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        if self.action == "set":
            out = f" --set-xmark 0x{self.value:x}/0x{self.ctmask:x}"
        else:
            out = f" --{self.action}-mark --nfmask 0x{self.nfmask:x} --ctmask 0x{self.ctmask:x}"
        if self.shift:
            out += f" --{'left' if self.shift > 0 else 'right'}-shift-mark {abs(self.shift)}"
        return out
