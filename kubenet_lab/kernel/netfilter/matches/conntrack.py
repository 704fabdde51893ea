"""`-m conntrack`: what connection tracking knows about the packet's connection."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import block
from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, number, once, plain
from kubenet_lab.kernel.netfilter.ports import Range, port_range, protocol_number, range_text

STATES = ("INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED", "SNAT", "DNAT")
STATUSES = ("EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED")
_ADDRESSES = ("--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst")
_PORTS = ("--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport")


def words(text: str, option: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """Return a comma-separated list of known words, in the kernel's order. Raises BadOption."""
    given = text.upper().split(",")
    for word in given:
        if word not in known:
            near = get_close_matches(word, known, 1)
            raise BadOption(
                option,
                f'Bad {what} "{word}"',
                f"write {near[0]}" if near else f"write one of {', '.join(known)}",
            )
    return tuple(w for w in known if w in given)


class Conntrack(Match, frozen=True):
    """Conditions on a connection. None or an empty tuple is no condition; `status` may be ("NONE",).

    Addresses are blocks, with the mask left out where it is a single host.
    """

    NAME: ClassVar[str] = "conntrack"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--ctstate"),
        Option("--ctproto"),
        *(Option(name) for name in _ADDRESSES + _PORTS),
        Option("--ctstatus"),
        Option("--ctexpire"),
        Option("--ctdir"),
    )

    state: tuple[str, ...] = ()
    proto: int | None = None
    origsrc: str = ""
    origdst: str = ""
    replsrc: str = ""
    repldst: str = ""
    origsrcport: Range | None = None
    origdstport: Range | None = None
    replsrcport: Range | None = None
    repldstport: Range | None = None
    status: tuple[str, ...] = ()
    expire: Range | None = None
    direction: str = ""
    negated: frozenset[str] = frozenset()
    """Names of the fields that are negated."""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the `--ct...` options."""
        found = once(given, cls.NAME)
        plain(found, ("--ctdir",), cls.NAME)
        if not found:
            raise BadOption(
                "-m conntrack", "conntrack: At least one option is required", "add --ctstate NEW or another"
            )
        fields: dict[str, object] = {}
        negated = set()
        for name, option in found.items():
            text, field = option.value, name[4:]
            value: object
            if name == "--ctstate":
                value = words(text, name, STATES, "ctstate")
            elif name == "--ctstatus":
                value = ("NONE",) if text.upper() == "NONE" else words(text, name, STATUSES, "ctstatus")
            elif name == "--ctproto":
                value = protocol_number(text)
                field = "proto"
            elif name in _ADDRESSES:
                value = block(text, family, name)
                if not value:
                    continue
            elif name in _PORTS:
                value = port_range(text, name)
            elif name == "--ctexpire":
                low, colon, high = text.partition(":")
                first = number(low, name, cls.NAME) if low else 0
                value = (first, (number(high, name, cls.NAME) if high else 0xFFFFFFFF) if colon else first)
            else:
                field, value = "direction", text.upper()
                if value not in ("ORIGINAL", "REPLY"):
                    raise BadOption(name, f'conntrack: bad direction "{text}"', "write ORIGINAL or REPLY")
            fields[field] = value
            if option.negated:
                negated.add(field)
        return cls(**fields, negated=frozenset(negated))  # type: ignore[arg-type]

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = ""
        if self.state:
            out += f"{self._no('state')} --ctstate {','.join(self.state)}"
        if self.proto is not None:
            out += f"{self._no('proto')} --ctproto {self.proto}"
        for name in ("origsrc", "origdst", "replsrc", "repldst"):
            if text := getattr(self, name):
                host, _, length = text.partition("/")
                single = (
                    length in ("32", "128") or not length.isdigit()
                )  # 1.8.9 prints no mask that has holes
                out += f"{self._no(name)} --ct{name} {host if single else text}"
        for name in ("origsrcport", "origdstport", "replsrcport", "repldstport"):
            if (ports := getattr(self, name)) is not None:
                out += f"{self._no(name)} --ct{name} {range_text(ports)}"
        if self.status:
            out += f"{self._no('status')} --ctstatus {','.join(self.status)}"
        if self.expire is not None:
            out += f"{self._no('expire')} --ctexpire {range_text(self.expire)}"
        if self.direction:
            out += f" --ctdir {self.direction}"
        return out

    def _no(self, field: str) -> str:
        return no(field in self.negated)
