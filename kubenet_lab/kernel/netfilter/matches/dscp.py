"""`-m dscp`: the six DSCP bits of the IP header (RFC 2474)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    exclusive,
    no,
    number,
    once,
)

CLASSES = {
    "CS0": 0, "BE": 0, "CS1": 8, "CS2": 16, "CS3": 24, "CS4": 32, "CS5": 40, "CS6": 48, "CS7": 56,
    "AF11": 10, "AF12": 12, "AF13": 14, "AF21": 18, "AF22": 20, "AF23": 22, "AF31": 26, "AF32": 28,
    "AF33": 30,
    "AF41": 34, "AF42": 36, "AF43": 38, "EF": 46,
}  # fmt: skip


def read_dscp(found: dict[str, Given], plain: str, named: str, extension: str) -> Given:
    """Return the option that gives the value, with the value as a decimal number. Raises BadOption."""
    exclusive(found, (plain, named), extension)
    if plain in found:
        value = number(found[plain].value, plain, extension, 63)
        return Given(plain, (str(value),), found[plain].negated)
    if named in found:
        value_of = CLASSES.get(found[named].value.upper())
        if value_of is None:
            raise BadOption(
                named, f"Invalid DSCP value `{found[named].value}'", f"write one of {', '.join(CLASSES)}"
            )
        return Given(plain, (str(value_of),), found[named].negated)
    raise BadOption(plain, f"{extension}: Parameter {plain} is required", f"add {plain} VALUE")


class Dscp(Match, frozen=True):
    """The value wanted, 0 to 63."""

    NAME: ClassVar[str] = "dscp"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--dscp"), Option("--dscp-class"))

    dscp: int = 0
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--dscp VALUE` or `--dscp-class NAME`."""
        option = read_dscp(once(given, cls.NAME), "--dscp", "--dscp-class", cls.NAME)
        return cls(int(option.value), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f"{no(self.negated)} --dscp 0x{self.dscp:02x}"
