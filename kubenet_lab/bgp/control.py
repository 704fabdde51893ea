"""BIRD's control socket: one command in, what `birdc` prints out.

Grammar: `nest/config.Y` and `doc/reply_codes` of BIRD 1.6 and 2.0; words may be shortened as long as they are unique,
as `birdc` allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from kubenet_lab.bgp import birdc
from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.packet.ip import prefix

OK, REFUSED, NOT_MODELLED = 0, 1, 64
"""How `birdc` ends: well, after a reply that is an error, and after a command that BIRD has and this one has not."""
COMMANDS = (
    "configure", "debug", "disable", "down", "dump", "echo", "enable", "eval", "graceful", "mrtdump", "reload",
    "restart", "restrict", "show",
)  # fmt: skip
SHOW = (
    "babel", "bfd", "interfaces", "memory", "ospf", "protocols", "rip", "roa", "route", "static", "status", "symbols",
)  # fmt: skip
ROUTE = (
    "all", "count", "export", "filter", "filtered", "for", "import", "noexport", "preexport", "primary", "protocol",
    "stats", "table", "where",
)  # fmt: skip


class Answer(Struct, frozen=True):
    """What is printed, and the exit status."""

    text: str
    code: int = OK


class _Refused(Exception):
    """A command that BIRD refuses, with its words."""


class _Unknown(Exception):
    """A command that is not modelled."""


def answer(bird: Bird, words: Sequence[str], family: int = 4) -> Answer:
    """Answer one command. `family` says which of BIRD 1.6's two programs is asked; BIRD 2 has both in one."""
    try:
        return Answer(_command(bird, list(words), family))
    except _Refused as fault:
        return Answer(f"{birdc.banner(bird)}\n{fault}\n", REFUSED)
    except _Unknown as fault:
        return Answer(str(fault), NOT_MODELLED)


def _word(text: str, known: Sequence[str]) -> str:
    """Return the word a text is the beginning of. Raises _Refused for none or several."""
    found = [word for word in known if word.startswith(text)]
    if text in known:
        return text
    if len(found) != 1:
        raise _Refused("No such command. Press `?' for help." if known is not ROUTE else "syntax error")
    return found[0]


def _command(bird: Bird, words: list[str], family: int) -> str:
    verb = _word(words[0], COMMANDS)
    if verb != "show":
        raise _Unknown(f"{verb}; there are: show protocols, show route")
    what = _word(words[1] if len(words) > 1 else "", SHOW)
    if what == "protocols":
        return _protocols(bird, words[2:], family)
    if what == "route":
        return _route(bird, words[2:], family)
    raise _Unknown(f"show {what}; there are: show protocols, show route")


def _protocols(bird: Bird, words: list[str], family: int) -> str:
    every = bool(words) and _is(words[0], "all")
    names = words[1:] if every else words
    if len(names) > 1:
        raise _Refused("syntax error")
    only = names[0].strip('"') if names else ""
    known = birdc.names(bird, family)
    chosen = [name for name in known if fnmatchcase(name, only)] if only else known
    if not chosen:
        if "*" in only or "?" in only:
            raise _Refused("No protocols match")
        raise _Refused(_unknown(bird, only, "protocol", "END or CF_SYM_KNOWN or TEXT or ALL"))
    return birdc.show_protocols(bird, family, every=every, only=chosen if only else None)


def _is(text: str, word: str) -> bool:
    return word.startswith(text)


def _route(bird: Bird, words: list[str], family: int) -> str:
    fields: dict[str, object] = {}
    at = 0
    while at < len(words):
        text = words[at]
        at += 1
        if text[0].isdigit() or ":" in text:
            fields["prefix"] = _prefix(text)
            continue
        word = _word(text, ROUTE)
        if word in ("all", "primary", "count"):
            fields["every" if word == "all" else word] = True
        elif word in ("for", "protocol", "export", "noexport", "table"):
            if at >= len(words):
                raise _Refused("syntax error")
            value = words[at]
            at += 1
            if word == "for":
                fields |= {"prefix": _prefix(value, host=True), "longest": True}
            elif word == "table":
                if value not in (("master",) if bird.config.version == 1 else ("master4", "master6")):
                    raise _Refused(_unknown(bird, value, "table", "CF_SYM_KNOWN or ALL"))
                fields["table"] = value
            else:
                fields[word] = value
        else:
            raise _Unknown(
                f"show route {word}; there are: all, count, primary, for, protocol, export, noexport"
            )
    asked = birdc.Asked(**fields)  # type: ignore[arg-type]
    try:
        return birdc.show_route(bird, family, asked=asked)
    except KeyError as fault:
        raise _Refused(_unknown(bird, str(fault.args[0]), "protocol", "CF_SYM_KNOWN")) from None
    except LookupError:
        old = bird.config.version == 1
        raise _Refused("Network not in table" if old else "Network not found") from None


def _prefix(text: str, *, host: bool = False) -> str:
    try:
        if "/" not in text and not host:
            raise ValueError(text)
        return prefix(text).text
    except ValueError:
        length = text.partition("/")[2]
        raise _Refused(f"Invalid prefix length {length}" if length.isdecimal() else "syntax error") from None


def _unknown(bird: Bird, name: str, what: str, expected: str) -> str:
    """What is said of a name that nothing has: BIRD 2 has a grammar that does not even read it."""
    if bird.config.version == 1:
        return f"{name} is not a {what}"
    return f"syntax error, unexpected CF_SYM_UNDEFINED, expecting {expected}"
