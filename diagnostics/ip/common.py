"""What the objects of `ip` share: the options, refusals in iproute2's words, and abbreviated commands."""

from __future__ import annotations

from typing import Any

from diagnostics.tool import Call, NotModelled, Result
from kubenet_lab.kernel.dialects.iproute2 import Wrong
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import canonical, prefix


class Refused(Exception):
    """A command the real tool or kernel refuses: the text it prints, and the exit status."""

    def __init__(self, text: str, exit_code: int = 2) -> None:
        self.text, self.exit_code = text, exit_code
        super().__init__(text)


class Ask:
    """One call of `ip` with its global options. `family` is 0 where none was asked for."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.family = 0
        self.json = False
        self.pretty = False
        self.details = False
        self.brief = False
        self.oneline = False

    @property
    def ns(self) -> Netns:
        """The namespace asked about."""
        return self.call.ns

    def device(self, name: str, *, show: bool = False) -> Link:
        """Return a link, or refuse as `ip` does: in one way when showing, in another when editing."""
        link = self.ns.links.get(name)
        if link is None:
            raise Refused(
                f'Device "{name}" does not exist.\n' if show else f'Cannot find device "{name}"\n', 1
            )
        return link


class Args:
    """Arguments read from the left."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __bool__(self) -> bool:
        return bool(self.words)

    def peek(self) -> str:
        """Return the next argument without taking it, or ""."""
        return self.words[0] if self.words else ""

    def take(self, what: str = "") -> str:
        """Take the next argument. Raises Refused as iproute2 does on a command line that is cut short."""
        if not self.words:
            raise Refused('Command line is not complete. Try option "help"\n', 255)
        return self.words.pop(0)

    def number(self, what: str) -> int:
        """Take a whole number. Raises Refused."""
        word = self.take(what)
        try:
            return int(word, 0)
        except ValueError:
            raise Refused(f'Error: argument "{word}" is wrong: Invalid "{what}" value\n\n', 255) from None

    def address(self) -> str:
        """Take an address. Raises Refused."""
        word = self.take("ADDRESS")
        try:
            return canonical(word)
        except ValueError:
            family = "inet6" if ":" in word else "inet"
            raise Refused(f'Error: {family} address is expected rather than "{word}".\n', 1) from None


def as_prefix(word: str) -> str:
    """Return an "address/length" as given, checked. Raises Refused."""
    try:
        prefix(word)
    except ValueError:
        raise Refused(f'Error: any valid prefix is expected rather than "{word}".\n', 1) from None
    return word


def command(word: str, known: tuple[str, ...], what: str) -> str:
    """Return the first command that `word` abbreviates. Raises Refused for none."""
    for name in known:
        if name.startswith(word):
            return name
    raise Refused(f'Command "{word}" is unknown, try "ip {what} help".\n', 255)


def garbage(word: str, what: str) -> Refused:
    """Return the refusal of a word that cannot stand where it does."""
    return Refused(f'Error: either "{what}" is duplicate, or "{word}" is a garbage.\n', 255)


def unmodelled(wrong: Wrong) -> Exception:
    """Return what to raise for a line the dialect cannot take."""
    if wrong.message.startswith("not modelled: "):
        return NotModelled(wrong.message.removeprefix("not modelled: "))
    return Refused(f'Error: argument "{wrong.path}" is wrong: {wrong.message}\n\n', 255)


def rows_of(items: Any) -> list[dict[str, Any]]:
    """Return values as rows for a table: their fields, one dict each."""
    return [{name: getattr(item, name) for name in item.__struct_fields__} for item in items]


def done() -> Result:
    """Return the silence of a command that worked."""
    return Result()
