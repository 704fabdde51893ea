"""`-j CT` and `-j NOTRACK`: settings for connection tracking, given before it sees the packet."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Option, Target, once, plain, strtoul

EVENTS = (
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "natseqinfo",
    "secmark",
)


class Ct(Target, frozen=True):
    """`zone` is a number, "mark", or "" for none; `zone_side` is "", "orig" or "reply"."""

    NAME: ClassVar[str] = "CT"
    TABLES: ClassVar[tuple[str, ...]] = ("raw",)
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--notrack", 0),
        Option("--helper"),
        Option("--timeout"),
        Option("--ctevents"),
        Option("--expevents"),
        Option("--zone"),
        Option("--zone-orig"),
        Option("--zone-reply"),
    )

    notrack: bool = False
    helper: str = ""
    timeout: str = ""
    ctevents: tuple[str, ...] = ()
    expevents: tuple[str, ...] = ()
    zone: str = ""
    zone_side: str = ""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the CT options."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        zone, side = "", ""
        for name in ("--zone", "--zone-orig", "--zone-reply"):
            if name in found:
                zone, side = found[name].value, name[7:]
                value = strtoul(zone)
                if zone != "mark" and (value is None or value > 65535):
                    raise BadOption(name, f"Cannot parse {zone} as a zone ID", "write 0 to 65535, or mark")
                zone = zone if value is None else str(value)
        return cls(
            "--notrack" in found,
            found["--helper"].value if "--helper" in found else "",
            found["--timeout"].value if "--timeout" in found else "",
            _events(found["--ctevents"].value, "--ctevents", EVENTS) if "--ctevents" in found else (),
            _events(found["--expevents"].value, "--expevents", ("new",)) if "--expevents" in found else (),
            zone,
            side,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = " --notrack" * self.notrack
        out += f" --helper {self.helper}" if self.helper else ""
        out += f" --timeout {self.timeout}" if self.timeout else ""
        out += f" --ctevents {','.join(self.ctevents)}" if self.ctevents else ""
        out += f" --expevents {','.join(self.expevents)}" if self.expevents else ""
        if self.zone and self.zone != "0":
            out += f" --zone{'-' + self.zone_side if self.zone_side else ''} {self.zone}"
        return out


class NoTrack(Target, frozen=True):
    """The packet is not tracked: `-j CT --notrack` by its older name."""

    NAME: ClassVar[str] = "NOTRACK"
    TABLES: ClassVar[tuple[str, ...]] = ("raw",)


def _events(text: str, option: str, known: Sequence[str]) -> tuple[str, ...]:
    for word in text.split(","):
        if word not in known:
            near = get_close_matches(word, known, 1)
            raise BadOption(
                option,
                f'Unknown event type "{word}"',
                f"write {near[0]}" if near else f"write one of {', '.join(known)}",
            )
    return tuple(word for word in known if word in text.split(","))
