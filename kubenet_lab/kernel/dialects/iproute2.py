"""What the dialects of iproute2 share: its JSON writer, its name tables, and reading text with every fault
collected.

The text and `-j` forms are those of iproute2 6.1 (`ip(8)`, `bridge(8)`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.packet.ip import canonical

T = TypeVar("T")

FAMILY_NAMES = {4: "inet", 6: "inet6"}

PROTOCOLS = {
    "unspec": 0,
    "redirect": 1,
    "kernel": 2,
    "boot": 3,
    "static": 4,
    "gated": 8,
    "ra": 9,
    "mrt": 10,
    "zebra": 11,
    "bird": 12,
    "dnrouted": 13,
    "xorp": 14,
    "ntk": 15,
    "dhcp": 16,
    "keepalived": 18,
    "babel": 42,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "eigrp": 192,
}
"""Names of /etc/iproute2/rt_protos, with their numbers."""

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
"""Names of /etc/iproute2/rt_scopes, with their numbers."""

ROUTE_TYPES = frozenset(
    {
        "unicast",
        "local",
        "broadcast",
        "anycast",
        "multicast",
        "blackhole",
        "unreachable",
        "prohibit",
        "throw",
        "nat",
        "xresolve",
    }
)


def dumps(rows: Any, pretty: bool = False) -> str:
    """Return JSON as iproute2's writer prints it (lib/json_writer.c), with its final newline."""
    if not pretty:
        return json.dumps(rows, separators=(",", ":")) + "\n"
    return _pretty(rows, 0) + "\n"


def _pretty(value: Any, depth: int) -> str:
    if isinstance(value, dict):
        pad = "\n" + "    " * (depth + 1)
        inner = ",".join(f"{pad}{json.dumps(key)}: {_pretty(item, depth + 1)}" for key, item in value.items())
        return "{" + inner + ("\n" + "    " * depth if value else "") + "}"
    if isinstance(value, list):
        if not value:
            return "[ ]"
        return "[ " + ",".join(_pretty(item, depth + 1) for item in value) + " ]"
    return json.dumps(value)


class Wrong(Exception):
    """One line or document member cannot be read. `path` names the field, `help` what to write instead."""

    def __init__(self, message: str, path: str = "", help: str = "") -> None:
        self.message, self.path, self.help = message, path, help
        super().__init__(message)


class Unmodelled:
    """Collects the fields of a text that have no place in the model, so that none is lost in silence.

    A caller that can live with them passes a list as `unknown`; without one, they are faults.
    """

    def __init__(self, file: str, unknown: list[Fault] | None) -> None:
        self.file = file
        self.unknown = unknown
        self.faults: list[Fault] = []

    def carry(self, what: str, line: int, path: str) -> None:
        """Note a field that is understood by the real tool and not modelled here."""
        fault = Fault(
            f"not modelled: {what}",
            file=self.file,
            line=line,
            path=path,
            help="remove it, or pass a list as `unknown` to read the rest without it",
        )
        (self.faults if self.unknown is None else self.unknown).append(fault)

    def fault(self, wrong: Wrong, line: int, path: str = "") -> None:
        """Note a line that cannot be read."""
        where = ".".join(part for part in (path, wrong.path) if part)
        self.faults.append(Fault(wrong.message, file=self.file, line=line, path=where, help=wrong.help))

    def finish(self) -> None:
        """Raise InputError with every fault noted, if there is one."""
        if self.faults:
            raise InputError(sorted(self.faults, key=lambda fault: fault.line))


class Words:
    """The words of one line, read from the left."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def peek(self) -> str:
        """Return the next word without taking it, or ""."""
        return self.words[self.at] if self else ""

    def take(self, what: str) -> str:
        """Take the next word. Raises Wrong, naming `what` was expected."""
        if not self:
            raise Wrong(f"the line ends where {what} was expected", what)
        word = self.words[self.at]
        self.at += 1
        return word

    def number(self, what: str) -> int:
        """Take the next word as a whole number, decimal or 0x..."""
        return number(self.take(what), what)

    def address(self, what: str) -> str:
        """Take the next word as an address, in canonical form."""
        return address(self.take(what), what)


def number(word: Any, what: str) -> int:
    """Return a whole number written in decimal or as 0x.... Raises Wrong."""
    try:
        return word if isinstance(word, int) else int(str(word), 0)
    except ValueError:
        raise Wrong(f"{what} must be a whole number, not {word!r}", what) from None


def address(word: Any, what: str) -> str:
    """Return an address in canonical form. Raises Wrong."""
    try:
        return canonical(str(word))
    except ValueError:
        raise Wrong(
            f"{what} must be an IPv4 or IPv6 address, not {word!r}", what, 'write it as "10.0.0.1"'
        ) from None


def mac(word: Any, what: str) -> str:
    """Return a MAC in lower case. Raises Wrong."""
    parts = str(word).lower().split(":")
    if len(parts) != 6 or not all(
        len(part) == 2 and all(c in "0123456789abcdef" for c in part) for part in parts
    ):
        raise Wrong(f"{what} must be a MAC address, not {word!r}", what, 'write it as "0a:58:0a:f4:00:05"')
    return ":".join(parts)


def is_json(text: str) -> bool:
    """True when a text is JSON output rather than the plain form."""
    return text.lstrip()[:1] in ("[", "{")


def read_json(text: str, notes: Unmodelled, row: Callable[[dict[str, Any], str], T]) -> list[T]:
    """Read a JSON array of objects, one value an object; faults name the member (`[3].gateway`)."""
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        fault = Fault(f"not JSON: {error.msg}", file=notes.file, line=error.lineno, column=error.colno)
        raise InputError([fault]) from None
    if not isinstance(rows, list):
        raise InputError([Fault("a JSON array of objects was expected", file=notes.file)])
    out: list[T] = []
    for at, item in enumerate(rows):
        if not isinstance(item, dict):
            notes.fault(Wrong("a JSON object was expected"), 0, f"[{at}]")
            continue
        if not item:
            continue
        try:
            out.append(row(item, f"[{at}]"))
        except Wrong as wrong:
            notes.fault(wrong, 0, f"[{at}]")
    notes.finish()
    return out


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) of every line that is not blank."""
    for at, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield at, line


def need(item: dict[str, Any], key: str) -> Any:
    """Return a member that must be there. Raises Wrong."""
    if key not in item:
        raise Wrong(f"{key!r} is missing", key)
    return item[key]
