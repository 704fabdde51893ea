"""`-m time`: the time of day and the date at which the packet passes."""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Sequence
from time import gmtime, strftime
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, number, once

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LAST = 0x7FFFFFFF


def _clock(text: str, option: str) -> int:
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(p.isdigit() for p in parts):
        raise BadOption(option, f'time: cannot read "{text}" as a time of day', "write hh:mm or hh:mm:ss")
    hours, minutes, seconds = (int(p) for p in (*parts, "0")[:3])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise BadOption(option, f'time: cannot read "{text}" as a time of day', "write 00:00:00 to 23:59:59")
    return hours * 3600 + minutes * 60 + seconds


def _date(text: str, option: str) -> int:
    found = re.fullmatch(r"(\d{4})(?:-(\d+))?(?:-(\d+))?(?:T(\d+)(?::(\d+))?(?::(\d+))?)?", text)
    if not found:
        raise BadOption(option, f'time: Invalid date "{text}" specified', "write YYYY-MM-DDThh:mm:ss")
    year, month, day, hours, minutes, seconds = (int(g) if g else None for g in found.groups())
    return min(
        LAST, timegm((year or 1970, month or 1, day or 1, hours or 0, minutes or 0, seconds or 0, 0, 0, 0))
    )


def _clock_text(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Time(Match, frozen=True):
    """Times of day are seconds after midnight, dates seconds after 1970; the day sets are what may fit."""

    NAME: ClassVar[str] = "time"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--timestart"), Option("--timestop"), Option("--monthdays"), Option("--weekdays"),
        Option("--datestart"), Option("--datestop"), Option("--kerneltz", 0), Option("--utc", 0),
        Option("--contiguous", 0),
    )  # fmt: skip

    start: int = 0
    stop: int = 86399
    monthdays: tuple[int, ...] = tuple(range(1, 32))
    weekdays: tuple[str, ...] = _DAYS
    date_start: int = 0
    date_stop: int = LAST
    kerneltz: bool = False
    contiguous: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the time options; `!` before a set of days is its complement."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            if name in ("--timestart", "--timestop"):
                fields[name[6:]] = _clock(option.value, name)
            elif name in ("--datestart", "--datestop"):
                fields["date_" + name[6:]] = _date(option.value, name)
            elif name == "--monthdays":
                days = {number(day, name, cls.NAME, 31, 1) for day in option.value.split(",")}
                fields["monthdays"] = tuple(d for d in range(1, 32) if (d in days) != option.negated)
            elif name == "--weekdays":
                names = set()
                for word in option.value.split(","):
                    fits = [
                        d
                        for i, d in enumerate(_DAYS, 1)
                        if word == str(i) or (len(word) > 1 and d.lower().startswith(word[:3].lower()))
                    ]
                    if not fits:
                        raise BadOption(
                            name, f'time: day "{word}" is unknown', f"write one of {', '.join(_DAYS)}"
                        )
                    names.add(fits[0])
                fields["weekdays"] = tuple(d for d in _DAYS if (d in names) != option.negated)
            elif name != "--utc":
                fields[name[2:]] = True
        return cls(**fields)  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = ""
        if (self.start, self.stop) != (0, 86399):
            out += f" --timestart {_clock_text(self.start)} --timestop {_clock_text(self.stop)}"
        if len(self.monthdays) != 31:
            out += f" --monthdays {','.join(map(str, self.monthdays))}"
        if self.weekdays != _DAYS:
            out += f" --weekdays {','.join(self.weekdays)}"
        if self.date_start:
            out += f" --datestart {strftime('%Y-%m-%dT%H:%M:%S', gmtime(self.date_start))}"
        out += f" --datestop {strftime('%Y-%m-%dT%H:%M:%S', gmtime(self.date_stop))}"
        return out + " --kerneltz" * self.kerneltz + " --contiguous" * self.contiguous
