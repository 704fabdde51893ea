"""`-m u32`: tests on any four bytes of the packet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, once, strtoul

_TEST = re.compile(r"(?P<where>\w+(?:(?:&|<<|>>|@)\w+)*)=(?P<values>\w+(?::\w+)?(?:,\w+(?::\w+)?)*)")


def _hex(text: str) -> str:
    value = strtoul(text)
    if value is None or value > 0xFFFFFFFF:
        raise ValueError(text)
    return f"0x{value:x}"


class U32(Match, frozen=True):
    """The tests, in the form iptables-save prints."""

    NAME: ClassVar[str] = "u32"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--u32"),)

    tests: str = ""
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--u32 TESTS`."""
        option = needed(once(given, cls.NAME), "--u32", cls.NAME)
        tests = []
        for part in re.sub(r"\s", "", option.value).split("&&"):
            try:
                if not _TEST.fullmatch(part):
                    raise ValueError(part)
                tests.append(re.sub(r"\w+", lambda word: _hex(word.group()), part))
            except ValueError:
                raise BadOption(
                    "--u32", f"u32: cannot read {part!r}", 'write tests like "6&0xFF=0x6"'
                ) from None
        return cls("&&".join(tests), option.negated)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f'{no(self.negated)} --u32 "{self.tests}"'
