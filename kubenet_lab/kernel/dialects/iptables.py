"""`iptables-save` and `iptables-restore` text (iptables 1.8.9, nf_tables backend), and `iptables` command
lines.

    load(text, 4)          iptables-restore into an empty namespace, or the reading of a node's dump
    save(ruleset)          iptables-save
    restore(ruleset, text) iptables-restore --noflush
    apply(ruleset, line)   iptables -t nat -A ...

Sources: iptables(8), iptables-extensions(8), iptables-restore(8).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.netfilter.addresses import block
from kubenet_lab.kernel.netfilter.extension import BadOption, Extension, Given, Match, Option, Target, quoted
from kubenet_lab.kernel.netfilter.matches import MATCHES, UnknownMatch
from kubenet_lab.kernel.netfilter.ports import PORT_PROTOCOLS, protocol_name, protocol_number
from kubenet_lab.kernel.netfilter.rule import Rule
from kubenet_lab.kernel.netfilter.ruleset import BUILTIN, PRINT_ORDER, Edit, NetfilterError, Ruleset
from kubenet_lab.kernel.netfilter.targets import TARGETS, Goto, Jump, UnknownTarget

OTHER_MATCHES = frozenset(
    [
        "ah",
        "bpf",
        "cgroup",
        "cluster",
        "connbytes",
        "connlabel",
        "connlimit",
        "cpu",
        "dccp",
        "devgroup",
        "dst",
        "ecn",
        "esp",
        "eui64",
        "frag",
        "hbh",
        "helper",
        "ipcomp",
        "ipv6header",
        "ipvs",
        "l2tp",
        "mh",
        "nfacct",
        "osf",
        "policy",
        "quota",
        "quota2",
        "rateest",
        "realm",
        "rt",
        "srh",
        "udplite",
    ]
)
"""Matches iptables has and this model does not: carried as they are."""
OTHER_TARGETS = frozenset(
    [
        "AUDIT",
        "CHECKSUM",
        "CLASSIFY",
        "CLUSTERIP",
        "CONNSECMARK",
        "DNPT",
        "DSCP",
        "ECN",
        "HMARK",
        "IDLETIMER",
        "LED",
        "MIRROR",
        "RATEEST",
        "SECMARK",
        "SET",
        "SNPT",
        "SYNPROXY",
        "TCPOPTSTRIP",
        "TEE",
        "TOS",
        "TPROXY",
        "ULOG",
    ]
)
"""Targets iptables has and this model does not: carried as they are."""

_MATCH_BY_NAME: dict[tuple[int, str], type[Match]] = {
    (family, name): match
    for match in MATCHES
    for family in match.FAMILIES
    for name in (match.NAME, *match.ALIASES)
}
_TARGET_BY_NAME: dict[tuple[int, str], type[Target]] = {
    (family, target.NAME): target for target in TARGETS for family in target.FAMILIES
}
_IMPLIED = {6: "tcp", 17: "udp", 132: "sctp", 1: "icmp", 58: "icmp6"}
"""Protocol -> the match that `-p` alone loads when one of its options is written."""

_HEADER = {
    "-s": "-s", "--source": "-s", "--src": "-s",
    "-d": "-d", "--destination": "-d", "--dst": "-d",
    "-p": "-p", "--protocol": "-p", "--proto": "-p",
    "-i": "-i", "--in-interface": "-i",
    "-o": "-o", "--out-interface": "-o",
    "-f": "-f", "--fragment": "-f", "--fragments": "-f",
    "-m": "-m", "--match": "-m",
    "-j": "-j", "--jump": "-j",
    "-g": "-g", "--goto": "-g",
    "-c": "-c", "--set-counters": "-c",
    "-4": "-4", "--ipv4": "-4",
    "-6": "-6", "--ipv6": "-6",
}  # fmt: skip
_COMMANDS = {
    "-A": "-A", "--append": "-A", "-I": "-I", "--insert": "-I", "-D": "-D", "--delete": "-D", "-R": "-R",
    "--replace": "-R", "-C": "-C", "--check": "-C", "-F": "-F", "--flush": "-F", "-Z": "-Z", "--zero": "-Z",
    "-N": "-N", "--new-chain": "-N", "--new": "-N", "-X": "-X", "--delete-chain": "-X", "-P": "-P",
    "--policy": "-P",
    "-E": "-E", "--rename-chain": "-E",
}  # fmt: skip


class Word(NamedTuple):
    """One word of a line, its quotes taken off."""

    value: str
    raw: str
    column: int


def load(text: str, family: int, *, strict: bool = False, file: str = "<text>") -> Ruleset:
    """Read an `iptables-save` dump into a new ruleset.

    Args:
        text: The dump; comment lines and counters may be there or not.
        family: 4 for `iptables-save`, 6 for `ip6tables-save`.
        strict: Refuse matches and targets that are not modelled instead of carrying them.
        file: The name faults point at.

    Raises:
        InputError: With every fault of the text.
    """
    return _read(Edit(Ruleset(family), complete=False), family, text, noflush=True, strict=strict, file=file)


def restore(
    ruleset: Ruleset, text: str, noflush: bool = True, *, strict: bool = False, file: str = "<text>"
) -> Ruleset:
    """`iptables-restore [--noflush]`: return the ruleset with the text's edits, or raise and change nothing.

    With `noflush` a chain declared by `:NAME - [0:0]` is emptied and all others stay; without, every table
    named in the text starts empty.

    Raises:
        InputError: With every fault of the text: syntax, and edits the kernel would refuse.
    """
    return _read(ruleset.edit(), ruleset.family, text, noflush=noflush, strict=strict, file=file)


def save(ruleset: Ruleset, *, table: str | None = None, counters: bool = False) -> str:
    """`iptables-save [-t TABLE] [-c]`, without its comment lines."""
    family = ruleset.family
    out: list[str] = []
    for name in PRINT_ORDER:
        here = ruleset.tables.get(name)
        if here is None or table not in (None, name):
            continue
        out.append(f"*{name}")
        chains = here.in_order()
        for chain in chains:
            count = ruleset.counters.get((name, chain.name)) if counters else None
            packets, size = count[0] if count and chain.policy else (0, 0)
            out.append(f":{chain.name} {chain.policy or '-'} [{packets}:{size}]")
        for chain in chains:
            head = f"-A {chain.name}"
            if not counters:
                out.extend([head + rule.text(family) for rule in chain.rules])
                continue
            count = ruleset.counters.get((name, chain.name))
            for number, rule in enumerate(chain.rules, 1):
                packets, size = count[number] if count else (0, 0)
                out.append(f"[{packets}:{size}] {head}{rule.text(family)}")
        out.append("COMMIT")
    return "\n".join(out) + "\n" if out else ""


def chain_text(ruleset: Ruleset, table: str, chain: str) -> list[str]:
    """`iptables -t TABLE -S CHAIN`: a policy or creation line, and the rules."""
    found = ruleset.chain(table, chain)
    head = f"-P {chain} {found.policy}" if found.policy else f"-N {chain}"
    return [head, *(f"-A {chain}{rule.text(ruleset.family)}" for rule in found.rules)]


def apply(ruleset: Ruleset, command: str | Sequence[str], *, strict: bool = False) -> Ruleset:
    """Run one `iptables` command line that edits (`-A -I -D -R -C -N -X -F -P -E -Z`), with or without the
    tool's name.

    Raises:
        InputError: The line cannot be read.
        NetfilterError: The kernel would refuse the edit.
    """
    if isinstance(command, str):
        words = split(command)
    else:
        words = [Word(value, _raw(value), 0) for value in command]
    text = " ".join(word.raw for word in words)
    if words and words[0].value in ("iptables", "ip6tables"):
        words = words[1:]
    table, rest, index = "filter", [], 0
    while index < len(words):
        word = words[index]
        if word.raw in ("-t", "--table") and index + 1 < len(words):
            table = words[index + 1].value
            index += 2
        elif word.raw in ("-w", "--wait"):
            index += 2 if index + 1 < len(words) and words[index + 1].value.isdigit() else 1
        else:
            rest.append(word)
            index += 1
    edit = ruleset.edit()
    edit.table(table)
    line = _Line(edit, ruleset.family, table, strict, rest, None)
    faults = line.run()
    if faults:
        raise InputError(
            [Fault(message, path=text, column=column, help=help) for message, column, help in faults]
        )
    return edit.commit()


def rule(text: str, family: int = 4, table: str = "", *, strict: bool = False) -> Rule:
    """Return the rule that `text` describes: what stands after `-A CHAIN`. A target nobody knows is a jump.

    Raises:
        InputError: The text cannot be read, or describes several rules.
    """
    made, faults = _rules(split(text), family, table, "", lambda name: True, strict)
    if not faults and len(made) != 1:
        faults = [("the text describes several rules", 0, "give one address after -s and -d")]
    if faults:
        raise InputError(
            [Fault(message, path=text, column=column, help=help) for message, column, help in faults]
        )
    return made[0]


def split(line: str) -> list[Word]:
    """Split a line into words as iptables-restore does: blanks separate, double quotes group, a backslash
    escapes.

    Raises InputError when a quote is not closed.
    """
    words: list[Word] = []
    index, size = 0, len(line)
    while index < size:
        char = line[index]
        if char in " \t\r\n":
            index += 1
            continue
        start = index
        if char == '"':
            value = ""
            index += 1
            while index < size and line[index] != '"':
                if line[index] == "\\" and index + 1 < size:
                    index += 1
                value += line[index]
                index += 1
            if index >= size:
                raise InputError(
                    [Fault("a quote is not closed", column=start + 1, path=line, help='close it with "')]
                )
            index += 1
            words.append(Word(value, line[start:index], start + 1))
            continue
        while index < size and line[index] not in ' \t\r\n"':
            index += 1
        words.append(Word(line[start:index], line[start:index], start + 1))
    return words


def _raw(value: str) -> str:
    """Return an argument as it would stand in a text."""
    return value if value and not any(c in ' \t\r\n"' for c in value) else quoted(value)


# -- whole texts ---------------------------------------------------------------------------------------------

_CHAIN = re.compile(r":(\S+)\s+(\S+)(?:\s+\[(\d+):(\d+)\])?\s*")
_COUNTED = re.compile(r"\[(\d+):(\d+)\]\s+")
_Trouble = tuple[str, int, str]
"""(message, column, help)."""


def _read(edit: Edit, family: int, text: str, *, noflush: bool, strict: bool, file: str) -> Ruleset:
    faults: list[Fault] = []
    table = ""
    place = 0

    def fault(message: str, help: str, column: int = 0) -> None:
        faults.append(Fault(message, file, place, column, path=line, help=help))

    for place, line in enumerate(text.splitlines(), 1):  # noqa: B007 - read by `fault`
        if not line or line[0] == "#" or line.isspace():
            continue
        if line[0] == "*":
            if table:
                fault(
                    f"table {table} was not committed before this line", "write COMMIT before the next table"
                )
            table = line[1:].strip()
            if table not in BUILTIN:
                near = get_close_matches(table, BUILTIN, 1)
                fault(
                    f"table '{table}' does not exist",
                    f"write *{near[0]}" if near else f"write one of {', '.join(BUILTIN)}",
                )
                table = ""
            elif noflush:
                edit.table(table)
            else:
                edit.flush_table(table)
            continue
        if not table:
            if not faults:
                fault(
                    "this line stands outside of a table",
                    "write *filter (or another table) before it, COMMIT after it",
                )
            continue
        if line.rstrip() == "COMMIT":
            table = ""
            continue
        if line[0] == ":":
            found = _CHAIN.fullmatch(line)
            if not found:
                fault(
                    "a chain line is not of the form `:NAME POLICY [packets:bytes]'",
                    "write for example :KUBE-SERVICES - [0:0]",
                )
                continue
            name, policy, packets, size = found.groups()
            try:
                edit.restore_chain(table, name, policy, [int(packets or 0), int(size or 0)])
            except NetfilterError as error:
                fault(str(error), error.help)
            continue
        counter = None
        offset = 0
        if line[0] == "[":
            count = _COUNTED.match(line)
            if not count:
                fault(
                    "counters are not of the form `[packets:bytes]'",
                    "write for example [0:0] -A INPUT -j ACCEPT",
                )
                continue
            counter, offset = [int(count[1]), int(count[2])], count.end()
        try:
            words = split(line[offset:])
        except InputError as error:
            fault(error.faults[0].message, error.faults[0].help, error.faults[0].column + offset)
            continue
        try:
            troubles = _Line(edit, family, table, strict, words, counter).run()
        except NetfilterError as error:
            fault(str(error), error.help)
            continue
        for message, column, help in troubles:
            fault(message, help, column + offset if column else 0)
    line = ""
    if table:
        fault(f"COMMIT expected: the text ends inside of table {table}", "write COMMIT as the last line")
    if faults:
        raise InputError(faults)
    try:
        return edit.commit()
    except NetfilterError as error:
        raise InputError([Fault(str(error), file, help=error.help)]) from None


class _Line:
    """One command line: `-A CHAIN rule`, `-N CHAIN`, ..."""

    def __init__(
        self, edit: Edit, family: int, table: str, strict: bool, words: list[Word], counter: list[int] | None
    ) -> None:
        self.edit = edit
        self.family = family
        self.table = table
        self.strict = strict
        self.words = words
        self.counter = counter

    def run(self) -> list[_Trouble]:
        """Do it and return the faults found. Raises NetfilterError for what the kernel would refuse."""
        words, edit, table = self.words, self.edit, self.table
        if not words:
            return []
        command = _COMMANDS.get(words[0].raw)
        if command is None:
            where = next((i for i, word in enumerate(words) if word.raw in _COMMANDS), None)
            if where is None:
                near = get_close_matches(words[0].value, _COMMANDS, 1)
                return [
                    (
                        f"no command specified: `{words[0].raw}'",
                        words[0].column,
                        f"write {near[0] if near else '-A CHAIN'} first",
                    )
                ]
            command = _COMMANDS[words[where].raw]
            takes = 2 if command != "-F" else 1
            words = words[where : where + takes] + words[:where] + words[where + takes :]
        rest = words[1:]
        chain = rest[0].value if rest and not rest[0].raw.startswith("-") else None
        if command in ("-F", "-X", "-Z"):
            if command == "-F":
                edit.flush(table, chain)
            elif command == "-X":
                edit.delete_chain(table, chain)
            else:
                edit.zero(table, chain, int(rest[1].value) if len(rest) > 1 else None)
            return []
        if chain is None:
            return [
                (
                    f'option "{words[0].raw}" requires an argument',
                    words[0].column,
                    "write the chain's name after it",
                )
            ]
        if command == "-N":
            edit.new_chain(table, chain)
            return []
        if command in ("-P", "-E"):
            if len(rest) < 2:
                return [
                    (
                        f"{command} requires a chain and a {'policy' if command == '-P' else 'name'}",
                        words[0].column,
                        "",
                    )
                ]
            (edit.set_policy if command == "-P" else edit.rename_chain)(table, chain, rest[1].value)
            return []
        number = None
        if command in ("-I", "-R", "-D") and len(rest) > 1 and rest[1].value.isdigit():
            number = int(rest[1].value)
            rest = rest[1:]
        if command == "-D" and number is not None:
            edit.delete(table, chain, number)
            return []
        rules, faults = _rules(
            rest[1:], self.family, table, chain, lambda name: edit.has_chain(table, name), self.strict, self
        )
        if faults:
            edit.chain_rules(table, chain)
            return faults
        for at, made in enumerate(rules):
            if command == "-A":
                edit.append(table, chain, made, self.counter)
            elif command == "-I":
                edit.insert(table, chain, made, number or 1, self.counter)
            elif command == "-D":
                edit.delete(table, chain, made)
            elif command == "-C":
                edit.check(table, chain, made)
            elif at == 0:
                edit.replace(table, chain, number or 0, made)
        return []


# -- one rule ------------------------------------------------------------------------------------------------


class _Loaded:
    """An extension whose options are being read."""

    __slots__ = ("column", "given", "kind", "name", "raw")

    def __init__(self, name: str, kind: type[Extension] | None, column: int) -> None:
        self.name = name
        self.kind = kind
        """None when the extension is not modelled."""
        self.column = column
        self.given: list[tuple[Given, int]] = []
        self.raw: list[str] = []


@lru_cache(maxsize=1 << 16)
def _value(kind: type[Extension], given: tuple[Given, ...], family: int) -> Extension:
    return kind.read(given, family)


@lru_cache(maxsize=4096)
def _option(kind: type[Extension], text: str) -> Option | None:
    for option in kind.OPTIONS:
        if option.name == text or text in option.aliases:
            return option
    return None


class _RuleReader:
    """Reads the words of one rule, as getopt_long with the options of all loaded extensions does."""

    def __init__(self, words: list[Word], family: int, strict: bool) -> None:
        self.words = words
        self.family = family
        self.strict = strict
        self.faults: list[_Trouble] = []
        self.seen: dict[str, tuple[Word, bool]] = {}
        self.proto = 0
        self.loaded: list[_Loaded] = []
        self.target: _Loaded | None = None
        self.target_word: Word | None = None
        self.goto = False
        self.counter: list[int] | None = None
        self.other_family = False

    def fault(self, message: str, word: Word | None, help: str) -> None:
        self.faults.append((message, word.column if word else 0, help))

    def read(self) -> None:
        words, index, size = self.words, 0, len(self.words)
        negated = False
        while index < size:
            word = words[index]
            raw = word.raw
            if raw == "!":
                unknown = self._unknown_last()
                following = words[index + 1].raw if index + 1 < size else ""
                if unknown is not None and following not in _HEADER:
                    unknown.raw.append("!")
                elif negated:
                    self.fault("multiple consecutive ! not allowed", word, "write one !")
                else:
                    negated = True
                index += 1
                continue
            text, equals, attached = raw.partition("=") if raw.startswith("--") else (raw, "", "")
            header = _HEADER.get(text)
            if (
                header is None
                and raw[:1] == "-"
                and raw[1:2] not in ("-", "")
                and raw[:2] in _HEADER
                and len(raw) > 2
            ):
                header, equals, attached = _HEADER[raw[:2]], "=", raw[2:]
            if header is not None:
                index = self._header(header, index, negated, attached if equals else None)
            elif raw.startswith("--"):
                index = self._long(text, index, negated, attached if equals else None)
            else:
                unknown = self._unknown_last()
                if unknown is not None:
                    unknown.raw.append(raw)
                elif raw.startswith("-"):
                    self.fault(f"unknown option `{raw}'", word, "see iptables(8) for the options of a rule")
                else:
                    self.fault(
                        f"Bad argument `{word.value}'",
                        word,
                        "remove it, or write the option it belongs to before it",
                    )
                index += 1
            negated = False
        if negated:
            self.fault("! stands at the end of the rule", words[-1], "write it before the option it negates")

    def _unknown_last(self) -> _Loaded | None:
        last = self.loaded[-1] if self.loaded else None
        return last if last is not None and last.kind is None else None

    def _header(self, name: str, index: int, negated: bool, attached: str | None) -> int:
        word = self.words[index]
        if name == "-f":
            self.seen["-f"] = (word, negated)
            return index + 1
        if name in ("-4", "-6"):
            self.other_family = self.other_family or int(name[1]) != self.family
            return index + 1
        if attached is not None:
            argument, after = Word(attached, attached, word.column), index + 1
        elif index + 1 < len(self.words):
            argument, after = self.words[index + 1], index + 2
        else:
            self.fault(f'option "{word.raw}" requires an argument', word, f"write a value after {word.raw}")
            return index + 1
        if negated and name in ("-m", "-j", "-g", "-c"):
            self.fault(f"cannot have ! before {name}", word, "remove the !")
        if name == "-m":
            self._load_match(argument)
        elif name in ("-j", "-g"):
            if self.target_word is not None:
                self.fault(
                    f"multiple {name} flags not allowed", word, "a rule has one target: write a second rule"
                )
                return after
            self.target_word, self.goto = argument, name == "-g"
            if any(char.isspace() for char in argument.value):
                self.fault(
                    f"Invalid target name `{argument.value}'", argument, "a target's name has no blanks"
                )
            elif not argument.value:
                self.fault("Invalid target name (too short)", argument, "write the target's name")
            if name == "-j":
                kind = _TARGET_BY_NAME.get((self.family, argument.value))
                self.target = _Loaded(argument.value, kind, argument.column)
                self.loaded.append(self.target)
        elif name == "-c":
            second = self.words[after] if after < len(self.words) else argument
            try:
                self.counter = [int(argument.value), int(second.value)]
            except ValueError:
                self.fault("-c packet counter not numeric", word, "write -c PACKETS BYTES")
            return after + 1
        else:
            if name in self.seen:
                self.fault(f"multiple {name} flags not allowed", word, f"keep one {name}")
                return after
            self.seen[name] = (argument, negated)
            if name == "-p":
                try:
                    self.proto = protocol_number(argument.value)
                except BadOption as error:
                    self.fault(error.message, argument, error.help)
        return after

    def _load_match(self, argument: Word) -> None:
        name = argument.value
        kind = _MATCH_BY_NAME.get((self.family, name))
        if kind is None:
            names = [known for family, known in _MATCH_BY_NAME if family == self.family]
            near = get_close_matches(name, names, 1, 0.8)
            if self.strict or (name not in OTHER_MATCHES and near):
                close = near or get_close_matches(name, names, 1)
                self.fault(
                    f"Couldn't load match `{name}':No such file or directory",
                    argument,
                    f"write -m {close[0]}" if close else "remove the match, or load the dump without strict",
                )
                # its options are still read as its own, so that one typo gives one fault
        self.loaded.append(_Loaded(name, kind, argument.column))

    def _long(self, text: str, index: int, negated: bool, attached: str | None) -> int:
        word = self.words[index]
        unknown = self._unknown_last()
        if unknown is not None and text not in _HEADER:
            unknown.raw.append(word.raw)
            return index + 1
        found = self._find(text)
        if found is None:
            implied = _IMPLIED.get(self.proto)
            if implied and not any(extension.name == implied for extension in self.loaded):
                kind = _MATCH_BY_NAME.get((self.family, implied))
                if kind is not None and _find_in(kind, text):
                    self.loaded.append(_Loaded(implied, kind, word.column))
                    found = self._find(text)
        if found is None:
            return self._not_found(text, index, negated)
        extension, option = found
        values: list[str] = []
        after = index + 1
        if attached is not None:
            values.append(attached)
        while len(values) < option.values:
            if after >= len(self.words):
                self.fault(f'option "{text}" requires an argument', word, f"write a value after {text}")
                return after
            values.append(self.words[after].value)
            after += 1
        if extension.name == "multiport" and self.proto not in PORT_PROTOCOLS:
            self.fault(
                "multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'",
                word,
                f"write -p tcp before {text}",
            )
        if negated:
            extension.raw.append("!")
        extension.raw.extend(w.raw for w in self.words[index:after])
        extension.given.append((Given(option.name, tuple(values), negated), word.column))
        return after

    def _find(self, text: str) -> tuple[_Loaded, Option] | None:
        for extension in reversed(self.loaded):
            if extension.kind is not None and (option := _option(extension.kind, text)) is not None:
                return extension, option
        found: list[tuple[_Loaded, Option]] = []
        for extension in reversed(self.loaded):
            if extension.kind is not None:
                found += [
                    (extension, o)
                    for o in extension.kind.OPTIONS
                    for n in (o.name, *o.aliases)
                    if n.startswith(text)
                ]
        if len({option.name for _, option in found}) == 1:
            return found[0]
        return None

    def _not_found(self, text: str, index: int, negated: bool) -> int:
        word = self.words[index]
        after = index + 1
        while after < len(self.words) and not self.words[after].raw.startswith(("-", "!")):
            after += 1
        last = self.loaded[-1] if self.loaded else None
        own = [
            option.name for extension in self.loaded if extension.kind for option in extension.kind.OPTIONS
        ]
        owners = [m.NAME for m in MATCHES if self.family in m.FAMILIES and _option(m, text)]
        owners.sort(key=lambda name: name != "tcp")
        near = get_close_matches(text, [*own, *(o for o in _HEADER if o.startswith("--"))], 1, 0.7)
        if owners:
            needs = (
                ""
                if owners[0] not in _IMPLIED.values()
                else f" (and -p {protocol_name(_proto_of(owners[0]))})"
            )
            self.fault(f'unknown option "{text}"', word, f"write -m {owners[0]}{needs} before {text}")
        elif near:
            self.fault(f'unknown option "{text}"', word, f"write {near[0]}")
        elif last is not None and last.kind is not None and last is not self.target and not self.strict:
            last.kind = None
            if negated:
                last.raw.append("!")
            last.raw.extend(w.raw for w in self.words[index:after])
        elif last is not None and last.kind is not None and own:
            self.fault(f'unknown option "{text}"', word, f"write one of {', '.join(own)}")
        else:
            self.fault(f'unknown option "{text}"', word, "write -m MATCH before the options of a match")
        return after

    def extensions(self) -> tuple[list[Match], Target | None]:
        """Make the values. Faults are added to the list."""
        matches: list[Match] = []
        target: Target | None = None
        for extension in self.loaded:
            made: Extension
            if extension.kind is None:
                if extension is self.target:
                    target = UnknownTarget(extension.name, tuple(extension.raw))
                else:
                    matches.append(UnknownMatch(extension.name, tuple(extension.raw)))
                continue
            try:
                made = _value(extension.kind, tuple(given for given, _ in extension.given), self.family)
            except BadOption as error:
                column = next(
                    (c for given, c in extension.given if given.name == error.option), extension.column
                )
                self.faults.append((error.message, column, error.help))
                continue
            if isinstance(made, Match):
                matches.append(made)
            elif isinstance(made, Target):
                target = made
        return matches, target


def _find_in(kind: type[Extension], text: str) -> bool:
    return any(name.startswith(text) for option in kind.OPTIONS for name in (option.name, *option.aliases))


def _proto_of(match: str) -> int:
    return next(proto for proto, name in _IMPLIED.items() if name == match)


def _rules(
    words: list[Word],
    family: int,
    table: str,
    chain: str,
    is_chain: Callable[[str], bool],
    strict: bool,
    line: _Line | None = None,
) -> tuple[list[Rule], list[_Trouble]]:
    """Read the words after `-A CHAIN`. Several addresses after -s or -d make several rules."""
    reader = _RuleReader(words, family, strict)
    reader.read()
    if line is not None and reader.counter is not None:
        line.counter = reader.counter
    matches, target = reader.extensions()
    word = reader.target_word
    if word is not None and not reader.goto and isinstance(target, UnknownTarget):
        if is_chain(word.value) and not target.arguments and word.value not in OTHER_TARGETS:
            target = Jump(word.value)
        elif not target.arguments and word.value not in OTHER_TARGETS:
            known = [name for fam, name in _TARGET_BY_NAME if fam == family]
            if line is not None:
                known += line.edit.chain_names(table)
            near = get_close_matches(word.value, known, 1, 0.75)
            reader.fault(
                f"Chain '{word.value}' does not exist",
                word,
                f"write -j {near[0]}" if near else f"declare the chain first: :{word.value} - [0:0]",
            )
        elif strict:
            reader.fault(
                f"Couldn't load target `{word.value}':No such file or directory",
                word,
                "use a target that is modelled",
            )
    elif word is not None and reader.goto:
        if is_chain(word.value):
            target = Goto(word.value)
        else:
            reader.fault(
                f"Chain '{word.value}' does not exist",
                word,
                f"declare the chain first: :{word.value} - [0:0]",
            )
    fields: dict[str, Any] = {}
    for option, name, limit in (("-i", "indev", 15), ("-o", "outdev", 15)):
        if option in reader.seen:
            argument, negated = reader.seen[option]
            if not 0 < len(argument.value.encode()) <= limit:
                reader.fault(
                    f"interface name `{argument.value}' must be shorter than IFNAMSIZ (15)",
                    argument,
                    "shorten it",
                )
            if argument.value != "+" or negated:
                fields[name], fields["not_" + name] = argument.value, negated
    if "-p" in reader.seen:
        argument, negated = reader.seen["-p"]
        if reader.proto == 0 and negated:
            reader.fault("rule would never match protocol", argument, "remove the !, or name a protocol")
        elif reader.proto:
            fields["proto"], fields["not_proto"] = reader.proto, negated
    if "-f" in reader.seen:
        argument, negated = reader.seen["-f"]
        if family == 6:
            reader.fault('unknown option "-f"', argument, "IPv6 has no -f: use -m frag")
        fields["not_fragment" if negated else "fragment"] = True
    sides: list[list[tuple[str, bool]]] = []
    for option, name in (("-s", "source"), ("-d", "destination")):
        if option not in reader.seen:
            sides.append([("", False)])
            continue
        argument, negated = reader.seen[option]
        parts = argument.value.split(",")
        if negated and len(parts) > 1:
            reader.fault(
                "! not allowed with multiple source or destination IP addresses",
                argument,
                "write one rule for each",
            )
        side = []
        for part in parts:
            try:
                made = block(part, family, option)
            except BadOption as error:
                reader.fault(error.message, argument, error.help)
                continue
            if negated and not made:
                reader.fault(f"rule would never match a {name}", argument, f"remove ! {option} {part}")
            side.append((made, negated and bool(made)))
        sides.append(side)
    if reader.faults:
        return [], reader.faults
    if reader.other_family:
        return [], []
    rules = [
        Rule(
            src=src,
            dst=dst,
            not_src=not_src,
            not_dst=not_dst,
            matches=tuple(matches),
            target=target,
            **fields,
        )
        for (src, not_src), (dst, not_dst) in product(*sides)
    ]
    troubles = [(message, 0, help) for message, help in _refusals(rules[0], table, chain)]
    return ([], troubles) if troubles else (rules, [])


_NEEDS = {"tcp": (6,), "udp": (17,), "sctp": (132,), "icmp": (1,), "icmp6": (58,), "tcpmss": (6,)}


def _refusals(rule: Rule, table: str, chain: str) -> Iterable[tuple[str, str]]:
    """Yield what iptables or the kernel refuses about a rule that reads well."""
    proto = 0 if rule.not_proto else rule.proto
    for match in rule.matches:
        wanted = _NEEDS.get(match.NAME)
        if wanted and proto not in wanted:
            names = " or ".join(f"-p {protocol_name(p)}" for p in wanted)
            yield f"{match.NAME}: the match needs {names}", f"add {names.split(' or ')[0]}"
        if match.NAME == "owner" and chain in ("PREROUTING", "INPUT", "FORWARD"):
            yield "owner: only locally made packets have an owner", "put the rule into OUTPUT or POSTROUTING"
        if (
            match.NAME == "rpfilter"
            and table
            and (table not in ("raw", "mangle") or chain not in ("PREROUTING", ""))
            and chain in BUILTIN[table]
        ):
            yield (
                "rpfilter: only valid in PREROUTING of raw and mangle",
                "put the rule into -t raw PREROUTING",
            )
    target = rule.target
    if target is None:
        return
    if target.TABLES and table and table not in target.TABLES:
        yield (
            f"{target.NAME}: only valid in table {' or '.join(target.TABLES)}, not {table}",
            f"put the rule into *{target.TABLES[0]}",
        )
    elif target.CHAINS and table and chain in BUILTIN[table] and chain not in target.CHAINS:
        yield f"{target.NAME}: not valid in chain {chain}", f"put the rule into {' or '.join(target.CHAINS)}"
    if target.PROTOCOLS and proto not in target.PROTOCOLS:
        yield (
            f"{target.NAME}: the target needs -p {protocol_name(target.PROTOCOLS[0])}",
            f"add -p {protocol_name(target.PROTOCOLS[0])}",
        )
    if getattr(target, "ports", None) is not None and proto not in PORT_PROTOCOLS:
        yield "Need TCP, UDP, SCTP or DCCP with port specification", "add -p tcp or the protocol you mean"
    if getattr(target, "tcp_reset", False) and proto != 6:
        yield "REJECT: tcp-reset needs -p tcp", "add -p tcp"
