"""`-m sctp`: ports and chunk types of an SCTP packet (RFC 9260)."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once
from kubenet_lab.kernel.netfilter.ports import Range, port_range, range_text

ANY: Range = (0, 65535)
CHUNKS = (
    "DATA", "INIT", "INIT_ACK", "SACK", "HEARTBEAT", "HEARTBEAT_ACK", "ABORT", "SHUTDOWN", "SHUTDOWN_ACK", "ERROR",
    "COOKIE_ECHO", "COOKIE_ACK", "ECN_ECNE", "ECN_CWR", "SHUTDOWN_COMPLETE", "I_DATA", "ASCONF_ACK", "RE_CONFIG",
    "PAD", "FORWARD_TSN", "ASCONF", "I_FORWARD_TSN",
)  # fmt: skip
"""Chunk types in the order of their numbers, in which iptables-save prints them."""


def _chunks(text: str, option: str) -> str:
    """Return a list of chunk types, each with its flags after a colon, as iptables-save prints it."""
    given: dict[str, str] = {}
    for word in text.split(","):
        name, colon, flags = word.partition(":")
        name = name.upper()
        if name in ("ALL", "NONE") and not colon:
            return name
        if name not in CHUNKS:
            near = get_close_matches(name, CHUNKS, 1)
            help = f"write {near[0]}" if near else f"write a list of {', '.join(CHUNKS)}, ALL or NONE"
            raise BadOption(option, f"Unknown sctp chunk `{word}'", help)
        given[name] = name + colon + flags
    return ",".join(given[name] for name in CHUNKS if name in given)


class Sctp(Match, frozen=True):
    """Conditions on an SCTP header. `chunks` is (all|any|only, list as printed) or None."""

    NAME: ClassVar[str] = "sctp"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--sport", aliases=("--source-port",)),
        Option("--dport", aliases=("--destination-port",)),
        Option("--chunk-types", 2),
    )

    sport: Range = ANY
    dport: Range = ANY
    chunks: tuple[str, str] | None = None
    not_sport: bool = False
    not_dport: bool = False
    not_chunks: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--sport`, `--dport` and `--chunk-types`."""
        fields: dict[str, object] = {}
        for name, option in once(given, cls.NAME).items():
            if name == "--chunk-types":
                if option.values[0] not in ("all", "any", "only"):
                    raise BadOption(
                        name, f"sctp: bad match type `{option.values[0]}'", "write all, any or only"
                    )
                chunks = _chunks(option.values[1], name)
                fields["chunks"], fields["not_chunks"] = (option.values[0], chunks), option.negated
            else:
                fields[name[2:]] = port_range(option.value, name)
                fields["not_" + name[2:]] = option.negated
        return cls(**fields)  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = ""
        if self.sport != ANY or self.not_sport:
            out += f"{no(self.not_sport)} --sport {range_text(self.sport)}"
        if self.dport != ANY or self.not_dport:
            out += f"{no(self.not_dport)} --dport {range_text(self.dport)}"
        if self.chunks is not None:
            out += f"{no(self.not_chunks)} --chunk-types {self.chunks[0]} {self.chunks[1]}"
        return out
