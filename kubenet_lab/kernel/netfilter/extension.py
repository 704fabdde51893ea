"""What every match and target shares: how its options are declared, read and printed.

An extension's text is defined by iptables-extensions(8); the printed form is that of `iptables-save` 1.8.9
with the nf_tables backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple, Self

from msgspec import Struct


class Option(NamedTuple):
    """One option an extension takes."""

    name: str
    """With its dashes: "--dport"."""
    values: int = 1
    aliases: tuple[str, ...] = ()
    optional: int = 0
    """How many further values may follow."""


class Given(NamedTuple):
    """One option as it was written."""

    name: str
    """The option's main name, whatever alias or abbreviation was written."""
    values: tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        """The option's only value."""
        return self.values[0]


class BadOption(ValueError):
    """An option's value cannot be used; `help` says what to write instead."""

    def __init__(self, option: str, message: str, help: str = "") -> None:
        self.option, self.message, self.help = option, message, help
        super().__init__(message)


class Extension(Struct, frozen=True):
    """A match or a target: typed fields, read from options, printed as options."""

    NAME: ClassVar[str] = ""
    """As `-m` or `-j` takes it."""
    ALIASES: ClassVar[tuple[str, ...]] = ()
    FAMILIES: ClassVar[tuple[int, ...]] = (4, 6)
    OPTIONS: ClassVar[tuple[Option, ...]] = ()

    @property
    def name(self) -> str:
        """As `-m` or `-j` takes it."""
        return self.NAME

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Make the value from the options written after `-m NAME` or `-j NAME`. Raises BadOption."""
        return cls()

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them, each with a blank before it."""
        return ""


class Match(Extension, frozen=True):
    """A condition on a packet."""

    def text(self, family: int) -> str:
        """Return " -m NAME --option value" as iptables-save prints it."""
        return f" -m {self.name}{self.options(family)}"


class Target(Extension, frozen=True):
    """What happens to a packet that all conditions of a rule fit."""

    PROTOCOLS: ClassVar[tuple[int, ...]] = ()
    TABLES: ClassVar[tuple[str, ...]] = ()
    """The tables the kernel accepts it in; empty for all."""
    CHAINS: ClassVar[tuple[str, ...]] = ()
    """The hooks the kernel accepts it at; empty for all."""

    def text(self, family: int) -> str:
        """Return " -j NAME --option value" as iptables-save prints it."""
        return f" -j {self.name}{self.options(family)}"


def once(given: Iterable[Given], extension: str) -> dict[str, Given]:
    """Return the options by name. Raises BadOption when one is there twice."""
    found: dict[str, Given] = {}
    for option in given:
        if option.name in found:
            raise BadOption(
                option.name,
                f'{extension}: option "{option.name}" can only be used once.',
                "remove one of the two",
            )
        found[option.name] = option
    return found


def needed(found: dict[str, Given], name: str, extension: str) -> Given:
    """Return an option that must be there. Raises BadOption when it is not."""
    if name not in found:
        raise BadOption(name, f'{extension}: option "{name}" must be specified', f"add {name}")
    return found[name]


def exclusive(found: dict[str, Given], names: Iterable[str], extension: str) -> None:
    """Raise BadOption when two options that exclude each other are given."""
    here = [name for name in names if name in found]
    if len(here) > 1:
        raise BadOption(
            here[1],
            f'{extension}: option "{here[0]}" cannot be used together with "{here[1]}".',
            f"keep either {here[0]} or {here[1]}",
        )


def plain(found: dict[str, Given], names: Iterable[str], extension: str) -> None:
    """Raise BadOption when an option that takes no `!` has one."""
    for name in names:
        if name in found and found[name].negated:
            raise BadOption(
                name, f'{extension}: option "{name}" cannot be inverted.', f"remove the ! before {name}"
            )


def number(text: str, option: str, extension: str, high: int = 0xFFFFFFFF, low: int = 0) -> int:
    """Return a number in C notation: decimal, octal (leading 0) or hexadecimal (leading 0x).

    Raises BadOption.
    """
    value = strtoul(text)
    if value is None or not low <= value <= high:
        raise BadOption(
            option,
            f'{extension}: bad value for option "{option}", or out of range ({low}-{high}).',
            f"write a number from {low} to {high}",
        )
    return value


def strtoul(text: str) -> int | None:
    """Return the number `text` is in C notation, or None."""
    try:
        if text[:1] == "0" and text[1:].isdigit():
            return int(text, 8)
        if not text[:1].isdigit():
            return None
        return int(text, 0)
    except ValueError:
        return None


def value_and_mask(text: str, option: str, extension: str) -> tuple[int, int | None]:
    """Return (value, mask) of "0x1/0xff"; the mask is None when it is not written."""
    first, slash, second = text.partition("/")
    value, mask = strtoul(first), strtoul(second) if slash else None
    if value is None or value > 0xFFFFFFFF or (slash and (mask is None or mask > 0xFFFFFFFF)):
        raise BadOption(
            option,
            f'{extension}: bad integer value for option "{option}", or out of range.',
            "write a number up to 0xffffffff, with a mask after a slash if need be: 0x4000/0x4000",
        )
    return value, mask


def no(negated: bool) -> str:
    """Return " !" or nothing."""
    return " !" if negated else ""


_BARE = frozenset("_-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def quoted(text: str) -> str:
    """Return a string as iptables-save prints one.

    Bare when it is a plain word, else in quotes with escapes.
    """
    if text and _BARE.issuperset(text):
        return text
    escaped = "".join("\\" + c if c in "\"\\'" else c for c in text)
    return f'"{escaped}"'
