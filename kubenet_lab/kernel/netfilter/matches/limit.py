"""`-m limit`: a token bucket shared by all packets that reach the rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, number, once, plain

SCALE = 10000
_UNITS = (("day", 86400), ("hour", 3600), ("min", 60), ("sec", 1))
_WORDS = (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))


def read_rate(text: str, option: str, scale: int = SCALE) -> int:
    """Return the time between two tokens, in 1/`scale` s, of a rate like "5/min". Raises BadOption."""
    count, slash, unit = text.partition("/")
    digits = count[: len(count) - len(count.lstrip("0123456789"))]
    seconds = [s for word, s in _WORDS if unit and word.startswith(unit.lower())] if slash else [1]
    if not digits or int(digits) == 0 or not seconds:
        raise BadOption(
            option, f'bad rate "{text}"', "write a rate like 5/second, 3/minute, 10/hour or 1/day"
        )
    period = scale * seconds[0] // int(digits)
    if period == 0:
        raise BadOption(option, f'Rate too fast "{text}"', f"write at most {scale}/second")
    return period


def rate_text(period: int, scale: int = SCALE) -> str:
    """Return a period as the rate iptables-save prints: in the largest unit that is exact enough."""
    chosen = _UNITS[0]
    for unit in _UNITS[1:]:
        mult = unit[1] * scale
        if period > mult or mult // period < mult % period:
            break
        chosen = unit
    return f"{chosen[1] * scale // period}/{chosen[0]}"


class Limit(Match, frozen=True):
    """`period` is the time between two tokens in 1/10000 s; the bucket starts with `burst` tokens."""

    NAME: ClassVar[str] = "limit"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--limit"), Option("--limit-burst"))

    period: int = SCALE * 1200
    burst: int = 5

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--limit RATE` and `--limit-burst N`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        return cls(
            read_rate(found["--limit"].value, "--limit") if "--limit" in found else SCALE * 1200,
            number(found["--limit-burst"].value, "--limit-burst", cls.NAME, 10000)
            if "--limit-burst" in found
            else 5,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        burst = "" if self.burst == 5 else f" --limit-burst {self.burst}"
        return f" --limit {rate_text(self.period)}{burst}"
