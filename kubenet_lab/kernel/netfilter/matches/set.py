"""`-m set`: membership in an ipset (ipset(8))."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, needed, no, once

_COUNTERS = ("--packets-eq", "--packets-lt", "--packets-gt", "--bytes-eq", "--bytes-lt", "--bytes-gt")


class SetMatch(Match, frozen=True):
    """Fits when the packet's addresses and ports, taken in `directions`, are an entry of `set_name`.

    `counters` are the counter conditions as printed ("--packets-gt", 3, negated).
    """

    NAME: ClassVar[str] = "set"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--match-set", 2),
        Option("--return-nomatch", 0),
        Option("--update-counters", 0),
        Option("--update-subcounters", 0),
        *(Option(name) for name in _COUNTERS),
    )

    set_name: str = ""
    directions: tuple[str, ...] = ()
    negated: bool = False
    return_nomatch: bool = False
    update_counters: bool = True
    update_subcounters: bool = True
    counters: tuple[tuple[str, int, bool], ...] = ()

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--match-set NAME DIRECTIONS` and the counter conditions."""
        found = once(given, cls.NAME)
        option = needed(found, "--match-set", cls.NAME)
        name, text = option.values
        directions = directions_of(text, "--match-set")
        counters = []
        for key in _COUNTERS:
            if key in found:
                try:
                    counters.append((key, int(found[key].value), found[key].negated))
                except ValueError:
                    raise BadOption(
                        key, f"set: cannot parse {found[key].value!r} as a counter", "write a number"
                    ) from None
        update, sub = (
            key not in found or not found[key].negated
            for key in ("--update-counters", "--update-subcounters")
        )
        return cls(
            name, directions, option.negated, "--return-nomatch" in found, update, sub, tuple(counters)
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f"{no(self.negated)} --match-set {self.set_name} {','.join(self.directions)}"
        out += " --return-nomatch" * self.return_nomatch
        out += "" if self.update_counters else " ! --update-counters"
        out += "" if self.update_subcounters else " ! --update-subcounters"
        return out + "".join(f"{no(negated)} {key} {value}" for key, value, negated in self.counters)


def directions_of(text: str, option: str) -> tuple[str, ...]:
    """Return ("src", "dst") for "src,dst". Raises BadOption."""
    parts = tuple(text.split(","))
    if not 1 <= len(parts) <= 6 or not set(parts) <= {"src", "dst"}:
        raise BadOption(
            option,
            f"You must specify (the comma separated list of) 'src' or 'dst', not {text!r}",
            "write src, dst or src,dst",
        )
    return parts
