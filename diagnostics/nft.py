"""`nft`: list and change nftables rules (nftables 1.0.6)."""

from __future__ import annotations

import re

from diagnostics.tool import Call, NotModelled, Result, Tool
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.nftables.ruleset import NftError, Ruleset

FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_ENOENT = "No such file or directory"


def run(call: Call) -> Result:
    """`nft [-a] [-s] [-n] [-j] list ruleset|tables|table|chain|set|map ...`, `nft -f -`, `nft add|delete|flush ...`."""
    words = [*call.argv]
    flags: set[str] = set()
    while words and words[0].startswith("-") and len(words[0]) > 1:
        word = words.pop(0)
        if word in ("-f", "--file"):
            if words[:1] not in (["-"], ["/dev/stdin"]):
                raise NotModelled("-f with a file; write -f - and give the text on standard input")
            return _change(call, call.stdin)
        if word.startswith("--") or set(word[1:]) - set("asnjy"):
            raise NotModelled(f"option {word}")
        flags |= set(word[1:])
    # A shell passes `nft 'add rule ...'` as one word; nft joins them all.
    line = " ".join(words)
    words = line.replace(";", " ; ").split()
    if not words:
        raise NotModelled("nft without a command")
    if words[0] == "list":
        return _list(
            call.ns.nftables if call.ns.has_nftables else Ruleset(), words[1:], flags, line, call.now
        )
    if words[0] in ("reset", "monitor", "describe", "export", "import"):
        raise NotModelled(words[0])
    return _change(call, line)


def _list(ruleset: Ruleset, words: list[str], flags: set[str], line: str, now: float) -> Result:
    what, rest = (words[0], words[1:]) if words else ("", [])
    if "j" in flags and what != "ruleset":
        raise NotModelled("-j of anything but `list ruleset`")
    if what == "ruleset":
        family = rest[0] if rest else ""
        if family and family not in FAMILIES:
            return _syntax(line, family)
        if "j" in flags:
            return Result(nft.to_json(ruleset, family=family, now=now) + "\n")
        return Result(
            nft.list_ruleset(ruleset, family=family, now=now, handles="a" in flags, stateless="s" in flags)
        )
    if what == "tables":
        wanted = [(fam, name) for fam, name in ruleset.tables if not rest or fam == rest[0]]
        return Result("".join(f"table {fam} {name}\n" for fam, name in wanted))
    if what not in ("table", "chain", "set", "map"):
        raise NotModelled(f"list {what}" if what else "list of nothing")
    family = rest.pop(0) if rest and rest[0] in FAMILIES else "ip"
    try:
        if what == "table":
            text = nft.list_table(
                ruleset, family, rest[0], now=now, handles="a" in flags, stateless="s" in flags
            )
        elif what == "chain":
            text = nft.list_chain(ruleset, family, rest[0], rest[1], handles="a" in flags)
        else:
            text = nft.list_set(ruleset, family, rest[0], rest[1], now=now, handles="a" in flags)
    except NftError:
        missing = rest[0] if what == "table" or (family, rest[0]) not in ruleset.tables else rest[1]
        return Result(err=_marked(_ENOENT, line, missing), exit_code=1)
    except IndexError:
        raise NotModelled(f"list {what} without its name") from None
    return Result(text)


def _change(call: Call, text: str) -> Result:
    try:
        call.ns.set_nftables(nft.apply(call.ns.nftables, text, now=call.now))
    except InputError as error:
        return Result(err="".join(_told(fault, text) for fault in error.faults), exit_code=1)
    return Result()


def _told(fault: Fault, text: str) -> str:
    lines = text.splitlines() or [""]
    line = lines[fault.line - 1] if 0 < fault.line <= len(lines) else lines[0]
    # The kernel's own refusals: our message goes on to say what is missing; nft marks the word instead.
    refused = re.fullmatch(r"(Could not process rule: [^:]+): \S+ (\S+)", fault.message)
    if refused is not None and refused[2] in line:
        return _marked(refused[1], line, refused[2])
    at = max(fault.column - 1, 0)
    length = len(line[at:].split(" ")[0].rstrip(";")) or 1
    return f"Error: {fault.message}\n{line}\n{' ' * at}{'^' * length}\n"


def _marked(message: str, line: str, word: str) -> str:
    at = line.rfind(word)
    return f"Error: {message}\n{line}\n{' ' * at}{'^' * len(word)}\n"


def _syntax(line: str, word: str) -> Result:
    message = "syntax error, unexpected string, expecting end of file or newline or semicolon"
    return Result(err=_marked(message, line, word), exit_code=1)


TOOL = Tool("nft", "list and change nftables rules", run)
