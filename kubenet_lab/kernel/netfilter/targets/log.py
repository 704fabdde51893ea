"""`-j LOG`: write the packet into the kernel log; the next rule goes on."""

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
    quoted,
    strtoul,
)

LEVELS = {"emerg": 0, "panic": 0, "alert": 1, "crit": 2, "error": 3, "err": 3, "warning": 4, "warn": 4,
          "notice": 5,
          "info": 6, "debug": 7}  # fmt: skip
FLAGS = ("tcp-sequence", "tcp-options", "ip-options", "uid", "macdecode")


class Log(Target, frozen=True):
    """`flags` are the further facts logged."""

    NAME: ClassVar[str] = "LOG"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--log-level"),
        Option("--log-prefix"),
        *(Option(f"--log-{flag}", 0) for flag in FLAGS),
    )

    prefix: str = ""
    level: int = 4
    flags: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the `--log-...` options."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        prefix = found["--log-prefix"].value if "--log-prefix" in found else ""
        if len(prefix.encode()) > 29:
            raise BadOption("--log-prefix", "LOG: Maximum prefix length 29 for --log-prefix", "shorten it")
        level = 4
        if "--log-level" in found:
            text = found["--log-level"].value
            value = strtoul(text)
            value = LEVELS.get(text.lower()) if value is None else value
            if value is None or value > 7:
                raise BadOption(
                    "--log-level", f'log-level "{text}" unknown', "write 0 to 7, or a name like warning"
                )
            level = value
        return cls(prefix, level, tuple(flag for flag in FLAGS if f"--log-{flag}" in found))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f" --log-prefix {quoted(self.prefix)}" if self.prefix else ""
        out += f" --log-level {self.level}" if self.level != 4 else ""
        return out + "".join(f" --log-{flag}" for flag in self.flags)
