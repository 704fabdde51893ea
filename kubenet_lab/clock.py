"""Simulated time: a number of seconds that somebody hands on, never the wall clock.

A world starts at 0.0, which prints as 2026-01-01T00:00:00Z.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from msgspec import Struct

START = datetime(2026, 1, 1, tzinfo=UTC)
"""What second 0.0 is called where a date has to be printed."""


def timestamp(seconds: float) -> str:
    """Simulated seconds as an RFC 3339 time of whole seconds, the form of `metadata.creationTimestamp`."""
    return (START + timedelta(seconds=int(seconds))).strftime("%Y-%m-%dT%H:%M:%SZ")


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)", re.ASCII)


def duration(text: str) -> float:
    """Read a duration as Go does ("30s", "1m30s", "500ms", "0"), in s. Raises ValueError."""
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is not a duration such as 30s, 1m30s or 500ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Clock(Struct, frozen=True):
    """A moment of simulated time.

    Attributes:
        now: Seconds since the world began.
    """

    now: float = 0.0

    def after(self, seconds: float) -> Clock:
        """The moment `seconds` later.

        Raises:
            ValueError: `seconds` is negative; simulated time does not run backwards.
        """
        if seconds < 0:
            raise ValueError(f"simulated time cannot go back: {seconds} s")
        return Clock(self.now + seconds)

    def __str__(self) -> str:
        return timestamp(self.now)
