"""`-j TTL`: change the time to live of an IPv4 packet."""

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


class TtlTarget(Target, frozen=True):
    """`op` is set, dec or inc."""

    NAME: ClassVar[str] = "TTL"
    FAMILIES: ClassVar[tuple[int, ...]] = (4,)
    TABLES: ClassVar[tuple[str, ...]] = ("mangle",)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--ttl-set"), Option("--ttl-dec"), Option("--ttl-inc"))

    op: str = "set"
    value: int = 64

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one of `--ttl-set`, `--ttl-dec`, `--ttl-inc`."""
        found = once(given, cls.NAME)
        names = [option.name for option in cls.OPTIONS]
        exclusive(found, names, cls.NAME)
        plain(found, found, cls.NAME)
        if not found:
            raise BadOption(
                f"-j {cls.NAME}", f"{cls.NAME}: You must specify an action", f"add one of {', '.join(names)}"
            )
        ((name, option),) = found.items()
        op = name[-3:]
        return cls(op, number(option.value, name, cls.NAME, 255, 0 if op == "set" else 1))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f" --{self.NAME.lower()}-{self.op} {self.value}"
