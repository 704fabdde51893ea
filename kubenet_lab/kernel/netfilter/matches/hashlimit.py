"""`-m hashlimit`: a token bucket for each source, destination or port."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import BITS
from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    exclusive,
    needed,
    number,
    once,
)
from kubenet_lab.kernel.netfilter.matches.limit import rate_text, read_rate

SCALE = 1000000
_MODES = ("srcip", "srcport", "dstip", "dstport")
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}
_GC_INTERVAL = 1000
_TABLE = ("size", "max", "gcinterval", "expire")


def _cost(rate: int) -> int:
    return 0xFFFFFFFF // ((rate >> 4) + 1)


def _bytes(cost: int) -> int:
    """Return the bytes a second that a cost stands for, as iptables computes it back."""
    return (0xFFFFFFFF // cost - 1) << 4 if cost else 0


def _bytes_text(value: int) -> str:
    for unit, factor in (("m", 1024 * 1024), ("k", 1024)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}b"
    return f"{value}b"


class HashLimit(Match, frozen=True):
    """A rate for each hash key.

    Attributes:
        above: True fits packets over the rate, False those within it.
        period: Time between two tokens in 1/1000000 s; with `by_bytes` the rate in bytes a second.
        burst: Tokens the bucket starts with; with `by_bytes` bytes, 0 for one second's worth.
        mode: What makes the key: srcip, srcport, dstip, dstport.
        table: Hash table settings (name, value) as printed.
    """

    NAME: ClassVar[str] = "hashlimit"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--hashlimit-upto", aliases=("--hashlimit",)),
        Option("--hashlimit-above"),
        Option("--hashlimit-burst"),
        Option("--hashlimit-mode"),
        Option("--hashlimit-name"),
        *(Option(f"--hashlimit-htable-{name}") for name in _TABLE),
        Option("--hashlimit-srcmask"),
        Option("--hashlimit-dstmask"),
        Option("--hashlimit-rate-match", 0),
        Option("--hashlimit-rate-interval"),
    )

    table_name: str = ""
    above: bool = False
    period: int = SCALE
    by_bytes: bool = False
    burst: int = 5
    mode: tuple[str, ...] = ()
    srcmask: int | None = None
    dstmask: int | None = None
    rate_match: bool = False
    rate_interval: int = 1
    table: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the `--hashlimit-...` options."""
        found = once(given, cls.NAME)
        exclusive(found, ("--hashlimit-upto", "--hashlimit-above"), cls.NAME)
        option = found.get("--hashlimit-upto") or found.get("--hashlimit-above")
        if option is None:
            raise BadOption("-m hashlimit", "You have to specify --hashlimit", "add --hashlimit-upto RATE")
        name = needed(found, "--hashlimit-name", cls.NAME).value
        mode = tuple(found["--hashlimit-mode"].value.split(",")) if "--hashlimit-mode" in found else ()
        for word in mode:
            if word not in _MODES:
                raise BadOption(
                    "--hashlimit-mode",
                    f"hashlimit: bad mode {word!r}",
                    f"write a list of {', '.join(_MODES)}",
                )
        rate = re.fullmatch(r"(\d+)([km]?)b/s", option.value)
        by_bytes = rate is not None
        period = int(rate[1]) * _FACTORS[rate[2]] if rate else read_rate(option.value, option.name, SCALE)
        burst = 0 if by_bytes else 5
        if "--hashlimit-burst" in found:
            text = found["--hashlimit-burst"].value
            size = re.fullmatch(r"(\d+)([km]?)b?", text)
            if not size or int(size[1]) == 0:
                raise BadOption(
                    "--hashlimit-burst",
                    'bad value for option "--hashlimit-burst"',
                    "write a number of packets, or bytes like 1mb",
                )
            burst = int(size[1]) * _FACTORS[size[2]]
            if by_bytes and burst < period:
                raise BadOption(
                    "--hashlimit-burst",
                    f"burst cannot be smaller than {_bytes(_cost(period))}b",
                    f"write {_bytes_text(period)} or more",
                )
        # an expiry equal to the rate's own unit is the default and not printed
        own = 15000 if by_bytes else _unit(option.value) * 1000
        defaults = {"gcinterval": _GC_INTERVAL, "expire": own, "size": 0, "max": 0}
        table = []
        for key in _TABLE:
            if (setting := found.get(f"--hashlimit-htable-{key}")) is not None:
                value = number(setting.value, setting.name, cls.NAME)
                if value != defaults[key]:
                    table.append((key, value))
        srcmask, dstmask = (
            number(found[key].value, key, cls.NAME, BITS[family]) if key in found else None
            for key in ("--hashlimit-srcmask", "--hashlimit-dstmask")
        )
        interval = found.get("--hashlimit-rate-interval")
        return cls(
            name,
            option.name == "--hashlimit-above",
            period,
            by_bytes,
            burst,
            tuple(m for m in _MODES if m in mode),
            None if srcmask == BITS[family] else srcmask,
            None if dstmask == BITS[family] else dstmask,
            "--hashlimit-rate-match" in found,
            number(interval.value, interval.name, cls.NAME, low=1) if interval else 1,
            tuple(table),
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        word = "above" if self.above else "upto"
        if self.by_bytes:
            cost = _cost(self.period)
            shown = _bytes(cost)
            for factor in (1024 * 1024, 1024):
                if shown >= factor and _cost(shown & ~(factor - 1)) == cost:
                    shown &= ~(factor - 1)
                    break
            out = f" --hashlimit-{word} {_bytes_text(shown)}/s"
            if self.burst:
                # the kernel keeps the burst in multiples of the rate
                out += f" --hashlimit-burst {_burst_text(-(-self.burst // _bytes(cost)) * _bytes(cost))}"
        else:
            out = f" --hashlimit-{word} {rate_text(self.period, SCALE)} --hashlimit-burst {self.burst}"
        if self.mode:
            out += f" --hashlimit-mode {','.join(self.mode)}"
        out += f" --hashlimit-name {self.table_name}"
        out += "".join(f" --hashlimit-htable-{key} {value}" for key, value in self.table)
        out += "" if self.srcmask is None else f" --hashlimit-srcmask {self.srcmask}"
        out += "" if self.dstmask is None else f" --hashlimit-dstmask {self.dstmask}"
        if self.rate_match:
            out += " --hashlimit-rate-match"
            if self.rate_interval != 1:
                out += f" --hashlimit-rate-interval {self.rate_interval}"
        return out


def _unit(rate: str) -> int:
    unit = rate.partition("/")[2].lower() or "second"
    return next(
        s
        for word, s in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400))
        if word.startswith(unit)
    )


def _burst_text(value: int) -> str:
    for unit, factor in (("m", 1024 * 1024), ("k", 1024)):
        if value >= factor:
            return f"{value // factor}{unit}b"
    return f"{value}b"
