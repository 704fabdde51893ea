"""nft text to commands on an `Edit`: the grammar of `nft -f`, as nft 1.0.6 reads it (nft(8), parser_bison.y).

One pass: a constant is read in the data type of what stands left of it, a set's elements in the set's types.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, cast

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft import constants
from kubenet_lab.kernel.dialects.nft.normal import NotAllowed, normal
from kubenet_lab.kernel.dialects.nft.scanner import END, tokens
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import objects as ob
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import (
    DATA_UNITS,
    TIME_UNITS,
    TYPES,
    Scalar,
    datatype,
    parse_time,
    parse_value,
    value_int,
    value_of,
)
from kubenet_lab.kernel.nftables.objects import FAMILIES, Chain, Flowtable, NamedObject, Rule, Set
from kubenet_lab.kernel.nftables.ruleset import Edit

HOOKS = ("prerouting", "input", "forward", "postrouting", "output", "ingress", "egress")
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
BRIDGE_PRIORITIES = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}

_OPS = {
    "==": "==", "!=": "!=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!": "!",
    "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=", "not": "!",
}  # fmt: skip
_BINOPS = {
    "&": "&",
    "and": "&",
    "|": "|",
    "or": "|",
    "^": "^",
    "xor": "^",
    "<<": "<<",
    "lshift": "<<",
    ">>": ">>",
    "rshift": ">>",
}
_PRECEDENCE = {"<<": 4, ">>": 4, "&": 3, "^": 2, "|": 1}
_META_ALIASES = {
    "ibriport": "ibrname",
    "ibridgename": "ibrname",
    "obriport": "obrname",
    "obridgename": "obrname",
    "ifname": "iifname",
}
_META_BARE = frozenset(
    (
        "mark", "iif", "iifname", "iiftype", "oif", "oifname", "oiftype", "skuid", "skgid", "nftrace", "rtclassid",
        "ibriport", "obriport", "ibrname", "obrname", "pkttype", "cpu", "iifgroup", "oifgroup", "cgroup",
        "time", "day", "hour",
    )
)  # fmt: skip
_VERDICTS = ("accept", "drop", "continue", "return")
_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_NAT_FLAGS = ("random", "fully-random", "persistent")
_TCP_OPTIONS = {
    "mss": "maxseg", "maxseg": "maxseg", "eol": "eol", "nop": "nop", "noop": "nop", "window": "window",
    "sack-perm": "sack-perm", "sack-permitted": "sack-perm", "sack": "sack", "sack0": "sack", "sack1": "sack1",
    "sack2": "sack2", "sack3": "sack3", "timestamp": "timestamp", "echo": "echo", "fastopen": "fastopen",
    "md5sig": "md5sig", "mptcp": "mptcp",
}  # fmt: skip
_TCP_OPTION_FIELDS = ("size", "count", "left", "right", "tsval", "tsecr", "length", "kind", "subtype")
_EXTHDR = {
    "hbh": ("nexthdr", "hdrlength"),
    "rt": ("nexthdr", "hdrlength", "type", "seg-left"),
    "frag": ("nexthdr", "reserved", "frag-off", "reserved2", "more-fragments", "id"),
    "dst": ("nexthdr", "hdrlength"),
    "mh": ("nexthdr", "hdrlength", "type", "reserved", "checksum"),
}
_SET_FLAGS = ("constant", "dynamic", "interval", "timeout")
_OBJECT_KINDS = ("counter", "quota", "limit", "secmark", "synproxy")
_COMMANDS = ("add", "create", "insert", "replace", "delete", "destroy", "flush", "rename", "list", "reset")


class SyntaxFault(Exception):
    """A text that nft refuses. `index` is the number of the token it is about."""

    def __init__(self, message: str, index: int, help: str = "") -> None:
        super().__init__(message)
        self.message, self.index, self.help = message, index, help


class Parser:
    """Reads a text and applies each command to an edit, in order.

    Args:
        text: What `nft -f` would read.
        edit: What the commands change.
        defines: Values of `$name`, as `nft -D`.
        on_list: Called with the words of each `list` command.
    """

    def __init__(
        self,
        text: str,
        edit: Edit,
        defines: dict[str, str] | None = None,
        on_list: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.words = tokens(text)
        self.at = 0
        self.edit = edit
        self.defines: dict[str, list[str]] = {k: tokens(v)[:-1] for k, v in (defines or {}).items()}
        self.on_list = on_list
        self.family = "ip"
        self.table = ""

    # -- tokens -------------------------------------------------------------------------------------------------------

    @property
    def word(self) -> str:
        """The next token; a `$name` is opened here."""
        word = self.words[self.at]
        if word == "$":
            self._open_variable()
            return self.word
        return word

    def _open_variable(self) -> None:
        name = self.words[self.at + 1]
        value = self.defines.get(name)
        if value is None:
            near = get_close_matches(name, list(self.defines), 1)
            hint = f"; did you mean identifier ‘{near[0]}’?" if near else ""
            raise SyntaxFault(f"unknown identifier '{name}'{hint}", self.at + 1)
        self.words[self.at : self.at + 2] = value

    def peek(self, ahead: int = 1) -> str:
        """Return a later token."""
        index = self.at + ahead
        return self.words[index] if index < len(self.words) else END

    def take(self) -> str:
        """Return the next token and go on."""
        word = self.word
        self.at += 1
        return word

    def try_take(self, *words: str) -> bool:
        """Go on when the next token is one of these."""
        if self.word in words:
            self.at += 1
            return True
        return False

    def expect(self, *words: str) -> str:
        """Take one of these tokens, or refuse the text."""
        if self.word not in words:
            raise self.unexpected(words[0] if len(words) == 1 else "")
        return self.take()

    def unexpected(self, wanted: str = "") -> SyntaxFault:
        """Return the fault for a token that cannot stand here."""
        word = self.word
        shown = {"\n": "newline", END: "end of file", ",": "comma", ":": "colon", ".": "."}.get(word, word)
        names = {":": "colon", ",": "comma", "{": "'{'", "}": "'}'"}
        tail = f", expecting {names.get(wanted, wanted)}" if wanted else ""
        return SyntaxFault(f"syntax error, unexpected {shown}{tail}", self.at)

    def fault(self, message: str, help: str = "", back: int = 1) -> SyntaxFault:
        """Return a fault about the token taken last."""
        return SyntaxFault(message, max(0, self.at - back), help)

    def newlines(self) -> None:
        """Skip newlines."""
        while self.words[self.at] == "\n":
            self.at += 1

    def separators(self) -> None:
        """Skip newlines and semicolons."""
        while self.words[self.at] in ("\n", ";"):
            self.at += 1

    def identifier(self) -> str:
        """Take a name."""
        word = self.word
        if not word or not (word[0].isalpha() or word[0] in "_."):
            raise self.unexpected("string")
        self.at += 1
        return word

    def string(self) -> str:
        """Take a name or a quoted text."""
        word = self.take()
        if word[:1] == '"':
            return word[1:-1]
        if not word or word in "\n;{}":
            self.at -= 1
            raise self.unexpected("string")
        return word

    def number(self) -> int:
        """Take a number, decimal or hexadecimal."""
        word = self.word
        try:
            found = int(word, 16) if word[:2] in ("0x", "0X") else int(word)
        except ValueError:
            raise self.unexpected("number") from None
        self.at += 1
        return found

    # -- commands -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Apply every command of the text."""
        while True:
            self.separators()
            if self.words[self.at] == END:
                return
            self.start = self.at
            self.command()
            if self.words[self.at] not in ("\n", ";", END):
                raise self.unexpected()

    def command(self) -> None:
        """One command."""
        word = self.word
        if word in ("define", "redefine", "undefine"):
            self._define()
            return
        if word == "include":
            raise SyntaxFault("include is not followed here", self.at, "put the file's text in its place")
        verb = self.take() if word in _COMMANDS else "add"
        if verb in ("list", "reset"):
            self._list(verb)
        elif verb in ("add", "create", "insert"):
            self._add(verb)
        elif verb == "replace":
            self.expect("rule")
            chain = self._chain_spec()
            self.expect("handle")
            handle = self.number()
            self.edit.replace_rule(self.family, self.table, chain, handle, self.rule())
        elif verb in ("delete", "destroy"):
            self._delete(destroy=verb == "destroy")
        elif verb == "flush":
            self._flush()
        elif verb == "rename":
            self.expect("chain")
            chain = self._chain_spec()
            self.edit.rename_chain(self.family, self.table, chain, self.identifier())

    def _define(self) -> None:
        verb = self.take()
        name = self.identifier()
        if verb == "undefine":
            if self.defines.pop(name, None) is None:
                raise self.fault(f"undefined symbol '{name}'")
            return
        if verb == "define" and name in self.defines:
            raise self.fault(f"redefinition of symbol '{name}'")
        self.expect("=")
        value: list[str] = []
        depth = 0
        while depth or self.word not in ("\n", ";", END):
            if self.word == END:
                raise self.unexpected("'}'")
            depth += {"{": 1, "}": -1}.get(self.word, 0)
            value.append(self.take())
        self.defines[name] = value

    def _list(self, verb: str) -> None:
        words = [verb]
        while self.word not in ("\n", ";", END):
            words.append(self.take())
        if self.on_list is not None:
            self.on_list(words)

    def _family(self) -> None:
        self.family = self.take() if self.word in FAMILIES else "ip"

    def _table_spec(self) -> None:
        self._family()
        self.table = self.identifier()

    def _chain_spec(self) -> str:
        self._table_spec()
        return self.identifier()

    def _add(self, verb: str) -> None:
        create = verb == "create"
        word = self.word
        if word == "table" and verb != "insert":
            self.at += 1
            self._table(create)
        elif word == "chain" and verb != "insert":
            self.at += 1
            name = self._chain_spec()
            self._chain(name, create)
        elif word in ("set", "map") and verb != "insert":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            self.expect("{")
            elements = self._set_block(name, word == "map", create)
            end = self.at
            for declared, self.at in elements:
                self._add_elements(declared, self._elements(declared), False)
            self.at = end
        elif word == "element":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            declared = self.edit.get_set(self.family, self.table, name)
            self._add_elements(declared, self._elements(declared), create)
        elif word == "flowtable":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            self.expect("{")
            self.edit.add_flowtable(self.family, self.table, self._flowtable(name), create=create)
        elif word in _OBJECT_KINDS:
            self.at += 1
            self._table_spec()
            self._object(word, self.identifier(), create)
        elif word == "ct" and self.peek() in ("helper", "timeout", "expectation") and self.peek(2) != "set":
            kind = f"{self.take()} {self.take()}"
            self._table_spec()
            self._object(kind, self.identifier(), create)
        else:
            self.try_take("rule")
            chain = self._chain_spec()
            position, index = 0, None
            if self.try_take("position", "handle"):
                position = self.number()
            elif self.try_take("index"):
                index = self.number()
            rule = self.rule()
            self.edit.add_rule(
                self.family, self.table, chain, rule, insert=verb == "insert", position=position, index=index
            )

    def _delete(self, destroy: bool) -> None:
        edit = self.edit
        word = self.take()
        if word == "table":
            self._family()
            if self.try_take("handle"):
                self.table = edit.table_name(self.family, self.number())
            else:
                self.table = self.identifier()
            edit.delete_table(self.family, self.table, destroy=destroy)
        elif word == "chain":
            edit.delete_chain(*self._named("chain"), destroy=destroy)
            if self.word == "{":
                self._skip_block()
        elif word == "rule":
            chain = self._chain_spec()
            self.expect("handle")
            edit.delete_rule(self.family, self.table, chain, self.number())
        elif word in ("set", "map"):
            edit.delete_set(*self._named("set"), destroy=destroy)
        elif word == "element":
            self._table_spec()
            name = self.identifier()
            declared = edit.get_set(self.family, self.table, name)
            keys = [element.key for element in self._elements(declared, data=False)]
            edit.delete_elements(self.family, self.table, name, keys, destroy=destroy)
        elif word == "flowtable":
            edit.delete_flowtable(*self._named("flowtable"), destroy=destroy)
        elif word in _OBJECT_KINDS:
            family, table, name = self._named(word)
            edit.delete_object(family, table, word, name, destroy=destroy)
        elif word == "ct":
            kind = f"ct {self.expect('helper', 'timeout', 'expectation')}"
            family, table, name = self._named(kind)
            edit.delete_object(family, table, kind, name, destroy=destroy)
        else:
            self.at -= 1
            raise self.unexpected()

    def _named(self, kind: str) -> tuple[str, str, str]:
        self._table_spec()
        if self.try_take("handle"):
            return self.family, self.table, self.edit.name_of(self.family, self.table, kind, self.number())
        return self.family, self.table, self.identifier()

    def _skip_block(self) -> None:
        depth = 0
        while True:
            word = self.take()
            if word == END:
                self.at -= 1
                raise self.unexpected("'}'")
            depth += {"{": 1, "}": -1}.get(word, 0)
            if not depth:
                return

    def _flush(self) -> None:
        word = self.take()
        if word == "ruleset":
            self.edit.flush_ruleset(self.take() if self.word in FAMILIES else "")
        elif word == "table":
            self._table_spec()
            self.edit.flush_table(self.family, self.table)
        elif word == "chain":
            chain = self._chain_spec()
            self.edit.flush_chain(self.family, self.table, chain)
        elif word in ("set", "map", "meter"):
            self._table_spec()
            self.edit.flush_set(self.family, self.table, self.identifier())
        else:
            self.at -= 1
            raise self.unexpected()

    # -- blocks -------------------------------------------------------------------------------------------------------

    def _comment(self) -> str:
        text = self.string()
        if len(text) > 128:
            raise self.fault("comment too long, 128 characters maximum allowed")
        return text

    def _end(self) -> None:
        """The end of a line in a block."""
        if self.words[self.at] not in ("\n", ";", "}"):
            raise self.unexpected()

    def _table(self, create: bool) -> None:
        self._table_spec()
        family, name = self.family, self.table
        if not self.try_take("{"):
            self.edit.add_table(family, name, create=create)
            return
        comment, dormant = "", None
        found: dict[str, list[tuple[str, int]]] = {
            kind: [] for kind in ("chain", "object", "set", "flowtable")
        }
        # As nft does: first the chains, then objects, sets and flowtables, at last the rules and elements, so that
        # a line may name what comes further down.
        while True:
            self.separators()
            if self.try_take("}"):
                break
            word = self.take()
            if word == "flags":
                flag = self.identifier()
                if flag not in ("dormant", "owner"):
                    raise self.fault(f"unknown table option {flag}")
                dormant = flag == "dormant" or dormant
            elif word == "comment":
                comment = self._comment()
            elif word in ("define", "redefine", "undefine"):
                self.at -= 1
                self._define()
            elif word in ("chain", "flowtable"):
                found[word].append((word, self.at))
                self.identifier()
                self._skip_block()
            elif word in ("set", "map"):
                found["set"].append((word, self.at))
                self.identifier()
                self._skip_block()
            elif word in _OBJECT_KINDS or word == "ct":
                kind = f"ct {self.expect('helper', 'timeout', 'expectation')}" if word == "ct" else word
                found["object"].append((kind, self.at))
                self.identifier()
                self._skip_block()
            else:
                self.at -= 1
                raise self.unexpected()
            self._end()
        end = self.at
        self.edit.add_table(family, name, comment=comment, dormant=dormant, create=create)
        for _kind, self.at in found["chain"]:
            chain = self.identifier()
            self.expect("{")
            self._chain_head(chain)
        for kind, self.at in found["object"]:
            self._object(kind, self.identifier(), False)
        elements: list[tuple[Set, int]] = []
        for kind, self.at in found["set"]:
            set_name = self.identifier()
            self.expect("{")
            elements += self._set_block(set_name, kind == "map", False)
        for _kind, self.at in found["flowtable"]:
            flowtable = self.identifier()
            self.expect("{")
            self.edit.add_flowtable(family, name, self._flowtable(flowtable))
        for declared, self.at in elements:
            self._add_elements(declared, self._elements(declared), False)
        for _kind, self.at in found["chain"]:
            chain = self.identifier()
            self.expect("{")
            self._chain_rules(chain)
        self.at = end

    def _chain(self, name: str, create: bool) -> None:
        if not self.try_take("{"):
            self.edit.add_chain(self.family, self.table, Chain(name), create=create)
            return
        at = self.at
        self._chain_head(name, create)
        self.at = at
        self._chain_rules(name)

    def _chain_head(self, name: str, create: bool = False) -> None:
        """Read a chain's block for what the chain itself is."""
        chain = Chain(name)
        while not self.try_take("}"):
            if self.word in ("\n", ";"):
                self.at += 1
                continue
            if self.word == "type" and self.peek() in ("filter", "nat", "route") and self.peek(2) == "hook":
                chain = self._hook(chain)
            elif self.word == "type" and self.peek(2) == "hook":
                self.at += 1
                raise SyntaxFault("unknown chain type", self.at)
            elif self.word == "policy":
                self.at += 1
                chain = replace(chain, policy=self.expect("accept", "drop"))
            elif self.word == "comment":
                self.at += 1
                chain = replace(chain, comment=self._comment())
            elif self.word == "flags" and self.peek() == "offload":
                self.at += 2
                chain = replace(chain, offload=True)
            else:
                self._skip_rule()
        self.edit.add_chain(self.family, self.table, chain, create=create)

    def _skip_rule(self) -> None:
        depth = 0
        while depth or self.words[self.at] not in ("\n", ";", "}"):
            word = self.words[self.at]
            if word == END:
                raise self.unexpected("'}'")
            depth += {"{": 1, "}": -1}.get(word, 0)
            self.at += 1

    def _chain_rules(self, name: str) -> None:
        while not self.try_take("}"):
            word = self.word
            if word in ("\n", ";"):
                self.at += 1
            elif word == "comment" or (word == "flags" and self.peek() == "offload"):
                self.at += 2
            elif word == "policy" or (word == "type" and self.peek(2) == "hook"):
                self._skip_rule()
            elif word in ("define", "redefine", "undefine"):
                self._define()
            else:
                self.edit.add_rule(self.family, self.table, name, self.rule())
                self._end()

    def _hook(self, chain: Chain) -> Chain:
        self.at += 1
        kind = self.take()
        self.expect("hook")
        hook = self.take()
        if hook not in HOOKS:
            raise self.fault("unknown chain hook")
        devices: tuple[str, ...] = ()
        if self.try_take("device"):
            devices = (self.string(),)
        elif self.try_take("devices"):
            self.expect("=")
            devices = self._names()
        self.expect("priority")
        return replace(chain, type=kind, hook=hook, devices=devices, priority=self._priority(hook))

    def _names(self) -> tuple[str, ...]:
        self.expect("{")
        names = []
        while not self.try_take("}"):
            if not self.try_take(",", "\n"):
                names.append(self.string())
        return tuple(names)

    def _priority(self, hook: str) -> int:
        if self.try_take("-"):
            return -self.number()
        if self.word.isdigit():
            return self.number()
        name = self.take()
        table = BRIDGE_PRIORITIES if self.family == "bridge" else PRIORITIES
        needed = {"dstnat": "prerouting", "srcnat": "postrouting", "out": "output"}.get(name)
        if name not in table or needed not in (None, hook):
            raise self.fault(f"'{name}' is invalid priority.")
        base = table[name]
        if self.try_take("+"):
            return base + self.number()
        if self.try_take("-"):
            return base - self.number()
        return base

    def _flowtable(self, name: str) -> Flowtable:
        made = Flowtable(name)
        while not self.try_take("}"):
            word = self.take()
            if word in ("\n", ";"):
                continue
            if word == "hook":
                hook = self.identifier()
                self.expect("priority")
                made = replace(made, hook=hook, priority=self._priority(hook))
            elif word == "devices":
                self.expect("=")
                made = replace(made, devices=self._names())
            elif word == "counter":
                made = replace(made, counter=True)
            elif word == "flags":
                self.expect("offload")
                made = replace(made, offload=True)
            else:
                self.at -= 1
                raise self.unexpected()
        return made

    # -- named objects ------------------------------------------------------------------------------------------------

    def _object(self, kind: str, name: str, create: bool) -> None:
        comment = ""
        settings: dict[str, object] = {}
        block = self.try_take("{")
        while True:
            word = self.word
            if block and self.try_take("}"):
                break
            if word in ("\n", ";"):
                if not block:
                    break
                self.at += 1
                continue
            if word == END:
                if block:
                    raise self.unexpected("'}'")
                break
            if word == "comment":
                self.at += 1
                comment = self._comment()
                continue
            self._object_line(kind, settings)
        value = self._object_value(kind, settings)
        self.edit.add_object(self.family, self.table, NamedObject(kind, name, value, comment), create=create)

    def _object_line(self, kind: str, settings: dict[str, object]) -> None:
        word = self.take()
        if kind == "counter":
            if word not in ("packets", "bytes"):
                self.at -= 1
                raise self.unexpected()
            settings[word] = self.number()
        elif kind == "quota":
            self.at -= 1
            settings["value"] = self._quota()
        elif kind == "limit":
            self.at -= 1
            settings["value"] = self._limit()
        elif kind == "secmark":
            settings["value"] = word.strip('"')
        elif kind == "synproxy":
            if word in ("mss", "wscale"):
                settings[word] = self.number()
            elif word in ("timestamp", "sack-perm"):
                settings[word] = True
            else:
                self.at -= 1
                raise self.unexpected()
        elif word == "type":
            settings["type"] = self.string()
            self.expect("protocol")
            settings["protocol"] = self.expect("tcp", "udp")
        elif word == "protocol":
            settings["protocol"] = self.expect("tcp", "udp")
        elif word == "l3proto":
            settings["family"] = self.expect(*FAMILIES)
        elif word == "policy" and kind == "ct timeout":
            self.expect("=")
            self.expect("{")
            policy = []
            while not self.try_take("}"):
                if self.try_take(",", "\n"):
                    continue
                state = self.identifier()
                self.expect(":")
                policy.append((state, self.number()))
            settings["policy"] = tuple(policy)
        elif word in ("dport", "size"):
            settings[word] = self.number()
        elif word == "timeout":
            settings["timeout"] = self._time()
        else:
            self.at -= 1
            raise self.unexpected()

    def _object_value(self, kind: str, got: dict[str, object]) -> Any:
        value = cast("dict[str, Any]", got)
        family = value.get("family", self.family)
        if kind == "counter":
            return st.Counter(value.get("packets", 0), value.get("bytes", 0))
        if kind in ("quota", "limit"):
            if "value" not in value:
                raise self.unexpected()
            return value["value"]
        if kind == "secmark":
            return ob.Secmark(value.get("value", ""))
        if kind == "synproxy":
            flags = tuple(flag for flag in ("timestamp", "sack-perm") if flag in value)
            return ob.SynproxyObject(value.get("mss", 0), value.get("wscale", 0), flags)
        if kind == "ct helper":
            return ob.CtHelper(value.get("type", ""), value.get("protocol", ""), family)
        if kind == "ct timeout":
            return ob.CtTimeout(value.get("protocol", ""), family, _timeout_policy(value))
        return ob.CtExpectation(
            value.get("protocol", ""),
            value.get("dport", 0),
            value.get("timeout", 0),
            value.get("size", 0),
            family,
        )

    # -- sets ---------------------------------------------------------------------------------------------------------

    def _set_block(self, name: str, is_map: bool, create: bool) -> list[tuple[Set, int]]:
        """Read a set's block and add the set; return it with the place of its elements, where it has some."""
        made = Set(name, ())
        flags: list[str] = []
        elements_at: int | None = None
        while True:
            self.separators()
            if self.try_take("}"):
                break
            word = self.take()
            if word == "type":
                made = replace(made, key=self._types())
                if is_map:
                    made = self._map_type(made)
            elif word == "typeof":
                exprs = self._typeof()
                made = replace(made, typeof_key=exprs, key=tuple(ex.type_of(one)[0] for one in exprs))
                if is_map:
                    self.expect(":")
                    interval = self.try_take("interval")
                    if self.try_take("verdict"):
                        made = replace(made, data=("verdict",), typeof_data=(ex.Verdict("accept"),))
                    else:
                        data = self._typeof()
                        made = replace(
                            made,
                            typeof_data=data,
                            data=tuple(ex.type_of(one)[0] for one in data),
                            data_interval=interval,
                        )
            elif word == "flags":
                while True:
                    flags.append(self.expect(*_SET_FLAGS))
                    if not self.try_take(","):
                        break
            elif word == "timeout":
                made = replace(made, timeout=self._time())
            elif word == "gc-interval":
                made = replace(made, gc_interval=self._time())
            elif word == "size":
                made = replace(made, size=self.number())
            elif word == "policy":
                policy = self.expect("performance", "memory")
                made = replace(made, policy="" if policy == "performance" else policy)
            elif word == "auto-merge":
                made = replace(made, auto_merge=True)
            elif word == "comment":
                made = replace(made, comment=self._comment())
            elif word == "elements":
                self.expect("=")
                elements_at = self.at
                self._skip_block()
            elif word in ("counter", "limit", "quota", "ct"):
                self.at -= 1
                made = replace(made, statements=(*made.statements, self._stateful()))
            else:
                self.at -= 1
                raise self.unexpected()
        if not made.key:
            raise self.fault(
                "map definition does not specify key" if is_map else "set definition does not specify key"
            )
        if made.timeout and "timeout" not in flags:
            flags.append("timeout")
        if "dynamic" in flags and not made.size:
            made = replace(made, size=65535)
        made = replace(made, flags=tuple(flag for flag in _SET_FLAGS if flag in flags))
        self.edit.add_set(self.family, self.table, made, create=create)
        return [] if elements_at is None else [(made, elements_at)]

    def _map_type(self, made: Set) -> Set:
        self.expect(":")
        if self.word in _OBJECT_KINDS:
            return replace(made, object=self.take())
        interval = self.try_take("interval")
        return replace(made, data=self._types(), data_interval=interval)

    def _types(self) -> tuple[str, ...]:
        names = []
        while True:
            name = self.identifier()
            try:
                names.append(datatype(name).name)
            except ValueError as error:
                raise self.fault(str(error)) from None
            if not self.try_take("."):
                return tuple(names)

    def _typeof(self) -> tuple[ex.Expression, ...]:
        parts = [self.primary()]
        while self.try_take("."):
            parts.append(self.primary())
        return tuple(parts)

    def _add_elements(self, declared: Set, elements: Iterable[ex.Element], create: bool) -> None:
        edit = self.edit
        where = (self.family, self.table, declared.name)
        if declared.auto_merge:
            present = edit.set_elements(*where)
            kind = declared.key[0]
            edit.replace_elements(*where, constants.merged(kind, TYPES[kind].bits, [*present, *elements]))
            return
        edit.add_elements(*where, elements, create=create)

    def _elements(self, declared: Set, data: bool = True) -> list[ex.Element]:
        """`{ ... }` for a named set; what a map's elements lead to may be left out where `data` is False."""
        key = key_types(declared)
        interval = "interval" in declared.flags
        types: tuple[str, ...] = ("string",) if declared.object else declared.data
        elements = self._element_list(key, types, declared.is_map and data)
        if interval:
            return [replace(one, key=constants.key_in_set(key, one.key)) for one in elements]
        for one in elements:
            if isinstance(one.key, ex.Interval) or (
                isinstance(one.key, tuple) and any(isinstance(part, ex.Interval) for part in one.key)
            ):
                raise self.fault(
                    "You must add 'flags interval' to your set declaration if you want to add interval elements"
                )
        return elements

    def _element_list(self, key: constants.Fields, data: tuple[str, ...], is_map: bool) -> list[ex.Element]:
        """`{ key [: data], ... }`."""
        self.expect("{")
        found: list[ex.Element] = []
        self.newlines()
        while not self.try_take("}"):
            found += self._element(key, data, is_map)
            self.newlines()
            if not self.try_take(","):
                self.expect("}")
                break
            self.newlines()
        return found

    def _element(self, key: constants.Fields, data: tuple[str, ...], is_map: bool) -> list[ex.Element]:
        if self.word == "{":
            inner = self._element_list(key, (), False)
            self.expect(":")
            value = self._data(data)
            return [replace(one, data=value) for one in inner]
        if self.try_take("*"):
            made = ex.Element(ex.CatchAll())
        else:
            made = ex.Element(self._key(key))
        word = self.word
        if word not in (",", ":", "}", "\n"):
            made = self._element_options(made)
        if is_map or (data and self.word == ":"):
            self.expect(":")
            made = replace(made, data=self._data(data))
            if self.word == "timeout":
                made = self._element_options(made)
        return [made]

    def _element_options(self, made: ex.Element) -> ex.Element:
        while True:
            word = self.word
            if word == "timeout":
                self.at += 1
                made = replace(made, timeout=self._time())
            elif word == "expires":
                self.at += 1
                made = replace(made, until=self.edit.now + self._time() / 1000)
            elif word == "comment":
                self.at += 1
                made = replace(made, comment=self._comment())
            elif word in ("counter", "limit", "ct", "quota"):
                made = replace(made, statements=(*made.statements, self._stateful()))
            else:
                return made

    def _key(self, types: constants.Fields) -> ex.Key:
        first = self._atom(*types[0])
        if len(types) == 1:
            return first
        parts = [first]
        for kind, bits in types[1:]:
            self.expect(".")
            parts.append(self._atom(kind, bits))
        return tuple(parts)

    def _data(self, types: tuple[str, ...]) -> ex.Data:
        if types == ("verdict",):
            return self._verdict()
        first = self._atom(types[0], TYPES[types[0]].bits)
        if len(types) == 1:
            if self.word != ".":
                return _no_catch_all(first)
            # The map of a nat statement: whether it leads to addresses or to addresses and ports shows here.
            types = (types[0], "inet_service")
        parts: list[Scalar | ex.Interval] = [_no_catch_all(first)]
        for kind in types[1:]:
            self.expect(".")
            parts.append(_no_catch_all(self._atom(kind, TYPES[kind].bits)))
        return tuple(parts)

    def _atom(self, kind: str, bits: int) -> ex.Atom:
        """A value, `low-high` or `address/length`."""
        low = self._value(kind, bits)
        if self.word == "-":
            self.at += 1
            high = self._value(kind, bits)
            if value_int(low) > value_int(high):
                raise self.fault(
                    "Range negative size" if value_int(low) > value_int(high) else "Range has zero size"
                )
            return low if low == high else ex.Interval(low, high)
        if self.word == "/" and TYPES[kind].base != "bitmask":
            self.at += 1
            length = self.number()
            width = TYPES[kind].bits or bits
            if not TYPES[kind].prefix and TYPES[kind].base not in ("integer", "service"):
                raise self.fault(f"Prefix expression is undefined for {kind}")
            if length > width:
                raise self.fault(f"Prefix length {length} is invalid for type of {width} bits width")
            return constants.prefix(kind, low, length)
        return low

    def _value(self, kind: str, bits: int) -> Scalar:
        """A constant: one word, or constants joined by | & ^ << >>."""
        value = self._one_value(kind, bits)
        while self.word in _BINOPS:
            op = _BINOPS[self.take()]
            right = self._one_value(kind, bits)
            if not isinstance(value, int) or not isinstance(right, int):
                raise self.fault("Binary operation is undefined for these values")
            value = _calculate(op, value, right)
        return value

    def _one_value(self, kind: str, bits: int) -> Scalar:
        word = self.word
        if word == "(":
            self.at += 1
            value = self._value(kind, bits)
            self.expect(")")
            return value
        if not word or word in "{}\n;,:.@=<>!&|^/*+-":
            raise self.unexpected()
        base = TYPES[kind].base
        self.at += 1
        if word[0] == '"' or word[0] == "[":
            word = word[1:-1]
        elif base == "handle" and self.word == ":":
            self.at += 1
            word = f"{word}:{self.take()}"
        try:
            value = parse_value(kind, word)
        except ValueError as error:
            near = get_close_matches(word, TYPES[kind].symbols, 1)
            raise self.fault(str(error), f"did you mean {near[0]}?" if near else "") from None
        if isinstance(value, int) and bits and value >> bits:
            raise self.fault(f"Value {value} exceeds valid range 0-{(1 << bits) - 1}")
        return value

    def _time(self) -> int:
        word = self.string()
        try:
            return parse_time(word)
        except ValueError as error:
            raise self.fault(str(error)) from None

    # -- rules --------------------------------------------------------------------------------------------------------

    def rule(self) -> Rule:
        """A rule's statements and comment, in the form the kernel gives them back."""
        at = self.at
        statements, comment = self._statements()
        if not statements:
            raise self.unexpected()
        try:
            done = normal(statements, self.family, self._set_of)
        except NotAllowed as error:
            raise SyntaxFault(str(error), at) from None
        return Rule(done, comment, 0, self.family)

    def _set_of(self, name: str) -> Set:
        return self.edit.get_set(self.family, self.table, name)

    def _statements(self) -> tuple[list[st.Statement], str]:
        statements: list[st.Statement] = []
        comment = ""
        while True:
            word = self.word
            if word in ("\n", ";", "}", END):
                return statements, comment
            if word == "comment":
                self.at += 1
                comment = self._comment()
                if self.word == "#":
                    self._skip_rule()
                continue
            handler = _STATEMENTS.get(word)
            found = handler(self) if handler is not None else None
            statements.append(self._expression_statement() if found is None else found)

    def _verdict_statement(self) -> st.Statement:
        if self.word in ("jump", "goto") and self.peek() == "{":
            return self._inline()
        return st.VerdictStatement(self._verdict())

    def _inline(self) -> st.Statement:
        kind = self.take()
        self.expect("{")
        rules = []
        while not self.try_take("}"):
            if self.word in ("\n", ";"):
                self.at += 1
                continue
            rule = self.rule()
            rules.append((rule.statements, rule.comment))
            self._end()
        return st.Inline(kind, "", tuple(rules))

    def _verdict(self) -> ex.Verdict:
        word = self.take()
        if word in _VERDICTS:
            return ex.Verdict(word)
        if word in ("jump", "goto"):
            return ex.Verdict(word, self.identifier())
        self.at -= 1
        raise self.unexpected()

    def _stateful(self) -> st.Statement:
        word = self.word
        if word == "ct":
            self.at += 1
            self.expect("count")
            over = self.try_take("over")
            return st.ConnLimit(self.number(), over)
        found = _STATEMENTS[word](self)
        assert found is not None
        return found

    def _counter(self) -> st.Statement:
        self.at += 1
        if self.try_take("name"):
            return st.ObjectRef("counter", self._object_name())
        packets = size = 0
        while self.word in ("packets", "bytes"):
            if self.take() == "packets":
                packets = self.number()
            else:
                size = self.number()
        return st.Counter(packets, size)

    def _object_name(self) -> ex.Expression:
        """A name, or a map that leads to names."""
        if self.word[:1] == '"' or self.peek() in ("\n", ";", "}", END, "comment"):
            return ex.Constant("string", self.string())
        if self.peek() not in (".", "map") and self.word not in _PRIMARIES:
            return ex.Constant("string", self.string())
        expr = self._concat()
        self.expect("map")
        return ex.Lookup(expr, self._map_data(expr, ("string",)))

    def _limit_statement(self) -> st.Statement:
        self.at += 1
        if self.try_take("name"):
            return st.ObjectRef("limit", self._object_name())
        return self._limit()

    def _limit(self) -> st.Limit:
        self.expect("rate")
        over = self.try_take("over")
        if not over:
            self.try_take("until")
        rate = self.number()
        of_bytes = False
        if self.word == "/":
            self.at += 1
            unit = self.take()
        else:
            of_bytes = True
            word = self.take()
            size, slash, unit = word.partition("/")
            if not slash:
                self.expect("/")
                unit = self.take()
            if size not in DATA_UNITS:
                raise self.fault("Wrong rate format")
            rate *= DATA_UNITS[size]
        if unit not in TIME_UNITS:
            raise self.fault("Wrong rate format")
        burst = 0 if of_bytes else 5
        if self.try_take("burst"):
            burst = self.number()
            word = self.expect("packets", *DATA_UNITS)
            burst *= DATA_UNITS.get(word, 1)
            if not burst and not of_bytes:
                raise self.fault("packet limit burst must be > 0")
        return st.Limit(rate, TIME_UNITS[unit], burst, over, of_bytes)

    def _quota_statement(self) -> st.Statement:
        self.at += 1
        if self.try_take("name"):
            return st.ObjectRef("quota", self._object_name())
        return self._quota()

    def _quota(self) -> st.Quota:
        over = self.try_take("over")
        if not over:
            self.try_take("until")
        size = self.number() * DATA_UNITS[self.expect(*DATA_UNITS)]
        used = 0
        if self.try_take("used"):
            used = self.number() * DATA_UNITS[self.expect(*DATA_UNITS)]
        return st.Quota(size, over, used)

    def _log(self) -> st.Statement:
        self.at += 1
        made = st.Log()
        while True:
            word = self.word
            if word == "prefix":
                self.at += 1
                made = replace(made, prefix=self.string())
            elif word in ("group", "snaplen", "queue-threshold"):
                self.at += 1
                name = {"queue-threshold": "threshold"}.get(word, word)
                made = replace(made, **{name: self.number()})
            elif word == "level":
                self.at += 1
                level = self.string()
                if level not in _LEVELS:
                    raise self.fault("invalid log level")
                made = replace(made, level=level)
            elif word == "flags":
                self.at += 1
                made = replace(made, flags=(*made.flags, *self._log_flags()))
            else:
                break
        if made.group >= 0 and (made.level or made.flags):
            raise self.fault(
                "level and group are mutually exclusive"
                if made.level
                else "flags and group are mutually exclusive"
            )
        if made.level == "warn":
            made = replace(made, level="")
        flags = tuple(
            flag
            for flag in ("tcp sequence", "tcp options", "ip options", "skuid", "ether")
            if flag in made.flags
        )
        return replace(made, flags=("all",) if "all" in made.flags or len(flags) == 5 else flags)

    def _log_flags(self) -> list[str]:
        word = self.expect("tcp", "ip", "skuid", "ether", "all")
        if word == "tcp":
            found = []
            while True:
                found.append(f"tcp {self.expect('sequence', 'options')}")
                if not self.try_take(","):
                    return found
        if word == "ip":
            self.expect("options")
            return ["ip options"]
        return [word]

    def _reject(self) -> st.Statement:
        self.at += 1
        if not self.try_take("with"):
            return st.Reject("")
        word = self.expect("tcp", "icmp", "icmpv6", "icmpx")
        if word == "tcp":
            self.expect("reset")
            return st.Reject("tcp reset")
        self.try_take("type")
        code = self._value(f"{word}_code", 8)
        assert isinstance(code, int)
        return st.Reject(word, code)

    def _nat(self) -> st.Statement:
        kind = self.take()
        family, prefix, concat = "", False, False
        if self.word in ("ip", "ip6"):
            family = self.take()
        if self.try_take("addr"):
            self.expect(".")
            self.expect("port")
            concat = True
        elif self.try_take("prefix"):
            prefix = True
        else:
            self.try_take("interval")
        self.try_take("to")
        address: ex.Expression | None = None
        port: ex.Expression | None = None
        kind_of = "ipv6_addr" if "ip6" in (family, self.family) else "ipv4_addr"
        if self.word != ":" and self.word not in _NAT_FLAGS:
            if self.word[:1] == "[" or (self.family == "inet" and not family and ":" in self.word):
                kind_of = "ipv6_addr"
            address = self._map_or_value((kind_of, "inet_service") if concat else (kind_of,))
        if self.try_take(":"):
            port = self._map_or_value(("inet_service",))
        return st.Nat(kind, family, address, port, self._nat_flags(), prefix)

    def _nat_flags(self) -> tuple[str, ...]:
        flags = []
        while self.word in _NAT_FLAGS:
            flags.append(self.take())
            self.try_take(",")
        return tuple(flag for flag in _NAT_FLAGS if flag in flags)

    def _port_nat(self) -> st.Statement:
        kind = self.take()
        port: ex.Expression | None = None
        if self.try_take("to"):
            self.try_take(":")
            port = self._map_or_value(("inet_service",))
        return st.Nat(kind, "", None, port, self._nat_flags())

    def _map_or_value(self, types: tuple[str, ...]) -> ex.Expression:
        """What a statement writes: a constant, an interval, a field of the packet, or a map."""
        kind = types[0]
        if self.word in _PRIMARIES:
            expr = self._concat()
            if self.try_take("map"):
                return ex.Lookup(expr, self._map_data(expr, types))
            return expr
        return ex.Constant(kind, self._atom(kind, TYPES[kind].bits))

    def _map_data(self, key: ex.Expression, data: tuple[str, ...]) -> ex.SetRef | ex.SetLiteral:
        if self.try_take("@"):
            return ex.SetRef(self.identifier())
        return self._literal(ex.types_of(key), data)

    def _literal(self, key: constants.Fields, data: tuple[str, ...]) -> ex.SetLiteral:
        elements = self._element_list(key, data, bool(data))
        if not elements:
            raise self.fault("Set is empty")
        if data and data != ("verdict",) and isinstance(elements[0].data, tuple) and len(data) == 1:
            data = (data[0], "inet_service")
        interval = any(
            isinstance(part, ex.Interval) or (isinstance(part, str) and part.endswith("*"))
            for one in elements
            for part in (one.key if isinstance(one.key, tuple) else (one.key,))
        )
        if interval:
            elements = [replace(one, key=constants.key_in_set(key, one.key)) for one in elements]
            if len(key) == 1 and not data:
                elements = constants.merged(key[0][0], key[0][1], elements)
        seen: dict[ex.Key, ex.Element] = {}
        for one in elements:
            seen.setdefault(one.key, one)
        ordered = constants.in_order(key, seen.values(), interval)
        return ex.SetLiteral(tuple(kind for kind, _bits in key), tuple(ordered), data, interval)

    def _queue(self) -> st.Statement:
        self.at += 1
        flags: list[str] = []
        number: ex.Expression = ex.Constant("integer", 0)
        while True:
            word = self.word
            if word == "flags" or word in ("bypass", "fanout"):
                self.try_take("flags")
                while self.word in ("bypass", "fanout"):
                    flags.append(self.take())
                    self.try_take(",")
            elif word in ("num", "to"):
                self.at += 1
                number = self._map_or_value(("integer",))
            else:
                break
        return st.Queue(number, tuple(flag for flag in ("bypass", "fanout") if flag in flags))

    def _notrack(self) -> st.Statement:
        self.at += 1
        return st.NoTrack()

    def _set_update(self) -> st.Statement | None:
        if self.word == "set":
            self.at += 1
            op = self.expect("add", "update", "delete")
            expr = self._concat()
            timeout, comment = self._update_options()
            self.expect("@")
            name = self.identifier()
            return st.SetUpdate(op, name, expr, timeout, (), None, comment)
        op = self.take()
        self.expect("@")
        name = self.identifier()
        declared = self._set_of(name)
        self.expect("{")
        key = self._concat()
        timeout, comment = self._update_options()
        statements = []
        while self.word in ("counter", "limit", "quota", "ct"):
            statements.append(self._stateful())
        data: ex.Expression | None = None
        if self.try_take(":"):
            kind = declared.data[0] if declared.data else "integer"
            data = self._map_or_value((kind,))
        self.expect("}")
        return st.SetUpdate(op, name, key, timeout, tuple(statements), data, comment)

    def _update_options(self) -> tuple[int, str]:
        timeout, comment = 0, ""
        while self.word in ("timeout", "comment"):
            if self.take() == "timeout":
                timeout = self._time()
            else:
                comment = self._comment()
        return timeout, comment

    def _meter(self) -> st.Statement:
        self.at += 1
        name = self.identifier()
        size = self.number() if self.try_take("size") else 65535
        self.expect("{")
        key = self._concat()
        timeout, _comment = self._update_options()
        statement = self._stateful()
        self.expect("}")
        return st.Meter(name, size or 65535, key, statement, timeout)

    def _dup(self) -> st.Statement:
        self.at += 1
        self.expect("to")
        kind = (
            "ipv6_addr" if self.family == "ip6" else "iface_index" if self.family == "netdev" else "ipv4_addr"
        )
        address = self._map_or_value((kind,))
        device = self._map_or_value(("iface_index",)) if self.try_take("device") else None
        return st.Dup(address, device)

    def _fwd(self) -> st.Statement:
        self.at += 1
        if self.word in ("ip", "ip6"):
            family = self.take()
            self.expect("to")
            address = self._map_or_value(("ipv6_addr" if family == "ip6" else "ipv4_addr",))
            self.expect("device")
            return st.Fwd(self._map_or_value(("iface_index",)), family, address)
        self.expect("to")
        return st.Fwd(self._map_or_value(("iface_index",)))

    def _tproxy(self) -> st.Statement:
        self.at += 1
        family = self.take() if self.word in ("ip", "ip6") else ""
        self.expect("to")
        address = port = None
        if self.word != ":":
            six = "ip6" in (family, self.family) or self.word[:1] == "["
            address = self._map_or_value(("ipv6_addr" if six else "ipv4_addr",))
        if self.try_take(":"):
            port = self._map_or_value(("inet_service",))
        return st.Tproxy(family if self.family == "inet" else "", address, port)

    def _synproxy(self) -> st.Statement:
        self.at += 1
        if self.try_take("name"):
            return st.ObjectRef("synproxy", self._object_name())
        mss = wscale = -1
        flags = []
        while self.word in ("mss", "wscale", "timestamp", "sack-perm"):
            word = self.take()
            if word == "mss":
                mss = self.number()
            elif word == "wscale":
                wscale = self.number()
            else:
                flags.append(word)
        return st.Synproxy(mss, wscale, tuple(flag for flag in ("timestamp", "sack-perm") if flag in flags))

    def _flow(self) -> st.Statement:
        self.at += 1
        self.expect("add", "offload")
        self.expect("@")
        return st.FlowOffload(self.identifier())

    def _xt(self) -> st.Statement:
        self.at += 1
        return st.Xt(self.expect("match", "target", "watcher"), self.string())

    def _reset(self) -> st.Statement | None:
        if self.peek() != "tcp":
            return None
        self.at += 2
        self.expect("option")
        return st.StripOption(ex.TcpOption(self._tcp_option_name()))

    def _ct_statement(self) -> st.Statement | None:
        word, after = self.peek(), self.peek(2)
        if word == "count":
            return self._stateful()
        if word in ("helper", "timeout", "expectation") and after == "set":
            self.at += 3
            return st.ObjectRef(f"ct {word}", self._object_name())
        return None

    def _meta_statement(self) -> st.Statement | None:
        if self.peek() == "secmark" and self.peek(2) == "set":
            self.at += 3
            return st.ObjectRef("secmark", self._object_name())
        return None

    def _expression_statement(self) -> st.Statement:
        """A match, a verdict map, or `... set ...`."""
        left = self._concat()
        word = self.word
        if word == "vmap":
            self.at += 1
            if self.try_take("@"):
                return st.Vmap(left, ex.SetRef(self.identifier()))
            return st.Vmap(left, self._literal(ex.types_of(left), ("verdict",)))
        if word == "set":
            self.at += 1
            return st.Mangle(left, self._mangled(left))
        if isinstance(left, ex.Constant):
            raise self.fault("Relational expression has constant value")
        return self._match(left)

    def _mangled(self, key: ex.Expression) -> ex.Expression:
        kind, bits = ex.type_of(key)
        if kind == "ct_event":
            value = 0
            while True:
                bit = self._value(kind, bits)
                assert isinstance(bit, int)
                value |= bit
                if not self.try_take(","):
                    return ex.Constant(kind, value)
        if self.word in _PRIMARIES and self.word not in TYPES[kind].symbols:
            expr = self._concat(kind)
            if self.try_take("map"):
                return ex.Lookup(expr, self._map_data(expr, (kind,)))
            return expr
        return ex.Constant(kind, self._value(kind, bits))

    def _match(self, left: ex.Expression) -> st.Statement:
        op = _OPS.get(self.word, "")
        if op:
            self.at += 1
        types = ex.types_of(left)
        if self.word == "@" and self.peek() not in ("nh", "th", "ll"):
            self.at += 1
            return st.Match(op or "==", left, ex.SetRef(self.identifier()))
        if self.word == "{":
            if len(types) == 1 and isinstance(left, ex.Fib) and left.result != "type":
                types = (ex.type_of(left),)
            literal = self._literal(types, ())
            only = literal.elements[0]
            plain = not only.comment and not only.timeout and not isinstance(only.key, (tuple, ex.CatchAll))
            if len(literal.elements) == 1 and plain and self._single:
                key = only.key
                assert not isinstance(key, tuple)
                return self._relation(op, left, key, False)
            return st.Match(op or "==", left, literal)
        if len(types) > 1:
            raise self.fault("Use concatenations with sets and maps, not singleton values", back=0)
        kind, bits = types[0]
        if isinstance(left, ex.Fib) and self.word in ("exists", "missing"):
            left = replace(left, present=True)
            kind, bits = "boolean", 1
        if isinstance(left, (ex.TcpOption, ex.Other)) and kind == "boolean":
            bits = 1
        bitmask = TYPES[kind].base == "bitmask"
        if not bitmask:
            return self._relation(op, left, self._atom(kind, bits), False)
        value, listed = self._bits(kind, bits)
        if self.try_take("/"):
            mask, _listed = self._bits(kind, bits)
            return st.FlagMatch(op or "==", left, value, mask)
        return self._relation(op, left, value, listed)

    @property
    def _single(self) -> bool:
        """True when the literal that was just read had one member in the text: nft then makes it a plain value."""
        at, depth = self.at - 1, 0
        while at >= 0:
            word = self.words[at]
            if word == "}":
                depth += 1
            elif word == "{":
                depth -= 1
                if not depth:
                    return True
            elif word == "," and depth == 1 and self.words[at + 1] not in ("}", "\n"):
                return False
            at -= 1
        return True

    def _bits(self, kind: str, bits: int) -> tuple[int, bool]:
        value = self._value(kind, bits)
        assert isinstance(value, int)
        listed = False
        while self.try_take(","):
            more = self._value(kind, bits)
            assert isinstance(more, int)
            value |= more
            listed = True
        return value, listed

    def _relation(self, op: str, left: ex.Expression, value: ex.Atom, listed: bool) -> st.Statement:
        kind, _bits = ex.type_of(left)
        if kind == "boolean" and isinstance(left, ex.Fib) is False and isinstance(value, int):
            return st.Match(op or "==", left, ex.Constant(kind, value))
        if isinstance(left, ex.Fib) and left.present:
            kind = "boolean"
        if TYPES[kind].base == "bitmask" and isinstance(value, int):
            return _bitmask_match(op, left, kind, value)
        return st.Match(op or ("in" if kind == "ct_label" else "=="), left, ex.Constant(kind, value))

    # -- expressions on the left --------------------------------------------------------------------------------------

    def _concat(self, kind: str = "") -> ex.Expression:
        first = self._binary(0, kind)
        if self.word != ".":
            return first
        parts = [first]
        while self.try_take("."):
            parts.append(self._binary(0, ""))
        return ex.Concat(tuple(parts))

    def _binary(self, least: int, kind: str) -> ex.Expression:
        left = self.primary()
        while True:
            op = _BINOPS.get(self.word, "")
            if not op or _PRECEDENCE[op] <= least:
                return left
            self.at += 1
            right = self._operand(left, op)
            while (after := _BINOPS.get(self.word, "")) and _PRECEDENCE[after] > _PRECEDENCE[op]:
                self.at += 1
                more = self._operand(left, after)
                assert isinstance(right, ex.Constant)
                assert isinstance(more, ex.Constant)
                assert isinstance(right.value, (int, str))
                assert isinstance(more.value, (int, str))
                result = _calculate(after, value_int(right.value), value_int(more.value))
                right = ex.Constant(right.type, value_of(right.type, result))
            left = ex.Binary(op, left, right)

    def _operand(self, left: ex.Expression, op: str) -> ex.Expression:
        if self.word in _PRIMARIES and self.word not in TYPES[ex.type_of(left)[0]].symbols:
            raise SyntaxFault("Right hand side of binary operation must be constant", self.at)
        kind, bits = ex.type_of(left)
        if op in ("<<", ">>"):
            return ex.Constant("integer", self._one_value("integer", 32))
        return ex.Constant(kind, self._one_value(kind, bits))

    def primary(self) -> ex.Expression:
        """An expression without operators."""
        word = self.word
        if word == "(":
            self.at += 1
            inner = self._binary(0, "")
            self.expect(")")
            return inner
        reader = _PRIMARIES.get(word)
        if reader is None:
            raise self.unexpected()
        self.at += 1
        return reader(self, word)

    def _payload(self, proto: str) -> ex.Expression:
        field = self.take()
        if proto == "ip" and field == "option":
            name = self.take()
            part = self.take() if self.word in ("type", "length", "value", "ptr", "addr") else ""
            return _other("ip option", {"name": name}, part, f"ip option {name}")
        if proto == "tcp" and field == "option":
            return self._tcp_option()
        if proto == "sctp" and field == "chunk":
            name = self.take()
            known = self.word not in ("exists", "missing", *_OPS)
            part = self.take() if known else ""
            return _other("sctp chunk", {"name": name}, part, f"sctp chunk {name}")
        if proto == "arp" and field in ("saddr", "daddr"):
            field = f"{field} {self.expect('ether', 'ip')}"
        field = {"hdrversion": "version"}.get(field, field)
        if field not in ex.HEADERS[proto].fields:
            near = get_close_matches(field, ex.HEADERS[proto].fields, 1)
            fault = self.fault(f"syntax error, unexpected {field}")
            fault.help = f"did you mean {proto} {near[0]}?" if near else ""
            raise fault
        return ex.Payload(proto, field)

    def _tcp_option_name(self) -> str:
        word = self.take()
        if word.isdigit():
            return word
        if word not in _TCP_OPTIONS:
            self.at -= 1
            raise self.unexpected()
        return _TCP_OPTIONS[word]

    def _tcp_option(self) -> ex.Expression:
        name = self._tcp_option_name()
        field = self.take() if self.word in _TCP_OPTION_FIELDS else ""
        return ex.TcpOption(name, field)

    def _raw(self, _word: str) -> ex.Expression:
        base = self.take()
        if base not in ("ll", "nh", "th", "ih"):
            raise self.fault(f"syntax error, unexpected {base}")
        self.expect(",")
        offset = self.number()
        self.expect(",")
        return ex.RawPayload(base, offset, self.number())

    def _meta(self, word: str) -> ex.Expression:
        key = self.take() if word == "meta" else word
        key = _META_ALIASES.get(key, key)
        if key not in ex.META:
            near = get_close_matches(key, ex.META, 1)
            raise self.fault(
                "syntax error, unexpected " + key, f"did you mean meta {near[0]}?" if near else ""
            )
        return ex.Meta(key)

    def _ct(self, _word: str) -> ex.Expression:
        direction = self.take() if self.word in ("original", "reply") else ""
        key = self.take()
        if key in ("ip", "ip6"):
            key = f"{key} {self.expect('saddr', 'daddr')}"
        elif key in ("saddr", "daddr"):
            return ex.Ct(f"{'ip6' if self.family == 'ip6' else 'ip'} {key}", direction, True)
        if key not in ex.CT:
            near = get_close_matches(key, ex.CT, 1)
            raise self.fault("syntax error, unexpected " + key, f"did you mean ct {near[0]}?" if near else "")
        return ex.Ct(key, direction)

    def _fib(self, _word: str) -> ex.Expression:
        flags = []
        while True:
            flags.append(self.expect("saddr", "daddr", "mark", "iif", "oif"))
            if not self.try_take("."):
                break
        result = self.expect("oif", "oifname", "type")
        if "saddr" not in flags and "daddr" not in flags:
            raise self.fault("fib: need either saddr or daddr")
        if "saddr" in flags and "daddr" in flags:
            raise self.fault("fib: saddr and daddr are mutually exclusive")
        if "iif" in flags and "oif" in flags:
            raise self.fault("fib: iif and oif are mutually exclusive")
        ordered = tuple(flag for flag in ("saddr", "daddr", "mark", "iif", "oif") if flag in flags)
        return ex.Fib(ordered, result)

    def _rt(self, _word: str) -> ex.Expression:
        family = self.take() if self.word in ("ip", "ip6") else ""
        key = self.take()
        if key == "nexthop":
            return ex.Rt(key, family or ("ip6" if self.family == "ip6" else "ip"))
        if key in ("mtu", "classid", "ipsec"):
            return ex.Rt(key)
        if key in _EXTHDR["rt"]:
            return _other("exthdr", {"name": "rt"}, key, "rt")
        self.at -= 1
        raise self.unexpected()

    def _socket(self, _word: str) -> ex.Expression:
        key = self.expect("transparent", "mark", "wildcard", "cgroupv2")
        level = 0
        if key == "cgroupv2":
            self.expect("level")
            level = self.number()
        return ex.SocketKey(key, level)

    def _numgen(self, _word: str) -> ex.Expression:
        mode = self.expect("inc", "random")
        self.expect("mod")
        mod = self.number()
        return ex.Numgen(mode, mod, self.number() if self.try_take("offset") else 0)

    def _jhash(self, word: str) -> ex.Expression:
        expr = self._concat() if word == "jhash" else None
        self.expect("mod")
        mod = self.number()
        seed = self.number() if self.try_take("seed") else None
        return ex.Hash(expr, mod, seed, self.number() if self.try_take("offset") else 0)

    def _exthdr(self, word: str) -> ex.Expression:
        name = self.take() if word == "exthdr" else word
        if name not in _EXTHDR:
            self.at -= 1
            raise self.unexpected()
        if word == "exthdr":
            return ex.Other(f"exthdr {name}", json.dumps({"exthdr": {"name": name}}), "boolean", 8)
        field = self.expect(*_EXTHDR[name])
        bits = {"id": 32, "frag-off": 13, "checksum": 16, "more-fragments": 1, "reserved2": 2}.get(field, 8)
        kind = "inet_proto" if field == "nexthdr" else "integer"
        return ex.Other(f"{name} {field}", json.dumps({"exthdr": {"name": name, "field": field}}), kind, bits)

    def _osf(self, _word: str) -> ex.Expression:
        ttl = self.expect("loose", "skip") if self.try_take("ttl") else ""
        key = self.expect("name", "version")
        form: dict[str, str] = {"key": key}
        if ttl:
            form["ttl"] = ttl
        text = f"osf {f'ttl {ttl} ' if ttl else ''}{key}"
        return ex.Other(text, json.dumps({"osf": form}), "string", 128)

    def _ipsec(self, _word: str) -> ex.Expression:
        direction = self.expect("in", "out")
        spnum = self.number() if self.try_take("spnum") else 0
        shown = f"ipsec {direction} {f'spnum {spnum} ' if spnum else ''}"
        family = self.take() if self.word in ("ip", "ip6") else ""
        key = self.expect("reqid", "spi", "saddr", "daddr")
        form: dict[str, object] = {"key": key}
        if family:
            form["family"] = family
        form |= {"dir": direction, "spnum": spnum}
        kind = {"ip": "ipv4_addr", "ip6": "ipv6_addr"}.get(family, "integer")
        text = f"{shown}{f'{family} ' if family else ''}{key}"
        return ex.Other(text, json.dumps({"ipsec": form}), kind, TYPES[kind].bits or 32)


def _other(kind: str, form: dict[str, str], field: str, text: str) -> ex.Other:
    if not field:
        return ex.Other(text, json.dumps({kind: form}), "boolean", 8)
    return ex.Other(f"{text} {field}", json.dumps({kind: {**form, "field": field}}), "integer", 32)


def _calculate(op: str, left: int, right: int) -> int:
    if op == "&":
        return left & right
    if op == "|":
        return left | right
    if op == "^":
        return left ^ right
    return left << right if op == "<<" else left >> right


def _no_catch_all(atom: ex.Atom) -> Scalar | ex.Interval:
    assert not isinstance(atom, ex.CatchAll)
    return atom


def _bitmask_match(op: str, left: ex.Expression, kind: str, value: int) -> st.Statement:
    """A match on flags, in the one form that nft prints for it."""
    if isinstance(left, ex.Binary) and left.op == "&" and isinstance(left.right, ex.Constant):
        mask = left.right.value
        assert isinstance(mask, int)
        if op in ("", "==", "!="):
            if value == 0:
                return st.Match("in" if op == "!=" else "!", left.left, ex.Constant(kind, mask))
            if value == mask and value & (value - 1) == 0:
                return st.Match(op or "==", left, ex.Constant(kind, value))
            return st.FlagMatch(op or "==", left.left, value, mask)
        return st.Match(op, left, ex.Constant(kind, value))
    return st.Match(op or "in", left, ex.Constant(kind, value))


_TIMEOUTS = {
    "tcp": {
        "syn_sent": 120, "syn_recv": 60, "established": 432000, "fin_wait": 120, "close_wait": 60, "last_ack": 30,
        "time_wait": 120, "close": 10, "syn_sent2": 120, "retrans": 300, "unack": 300,
    },
    "udp": {"unreplied": 30, "replied": 180},
}  # fmt: skip


def _timeout_policy(value: dict[str, object]) -> tuple[tuple[str, int], ...]:
    """Return the states whose time-out is not the default, in the kernel's order."""
    given = dict(value.get("policy", ()))  # type: ignore[call-overload]
    defaults = _TIMEOUTS.get(str(value.get("protocol", "")), {})
    return tuple(
        (state, given[state]) for state in defaults if state in given and given[state] != defaults[state]
    )


@lru_cache(maxsize=4096)
def _key_types(key: tuple[str, ...], typeof: tuple[ex.Expression, ...]) -> tuple[tuple[str, int], ...]:
    if typeof:
        return tuple(ex.type_of(one) for one in typeof)
    return tuple((name, TYPES[name].bits) for name in key)


def key_types(one: Set) -> tuple[tuple[str, int], ...]:
    """Return data type and width of each field of a set's key."""
    return _key_types(one.key, one.typeof_key)


_PRIMARIES: dict[str, Callable[[Parser, str], ex.Expression]] = {
    **dict.fromkeys(ex.HEADERS, Parser._payload),
    "icmp6": lambda p, _w: p._payload("icmpv6"),
    "@": Parser._raw,
    "meta": Parser._meta,
    **dict.fromkeys(_META_BARE, Parser._meta),
    "ct": Parser._ct,
    "fib": Parser._fib,
    "rt": Parser._rt,
    "socket": Parser._socket,
    "numgen": Parser._numgen,
    "jhash": Parser._jhash,
    "symhash": Parser._jhash,
    "exthdr": Parser._exthdr,
    "hbh": Parser._exthdr,
    "frag": Parser._exthdr,
    "dst": Parser._exthdr,
    "mh": Parser._exthdr,
    "osf": Parser._osf,
    "ipsec": Parser._ipsec,
}

_STATEMENTS: dict[str, Callable[[Parser], st.Statement | None]] = {
    **dict.fromkeys((*_VERDICTS, "jump", "goto"), Parser._verdict_statement),
    "counter": Parser._counter,
    "limit": Parser._limit_statement,
    "quota": Parser._quota_statement,
    "log": Parser._log,
    "reject": Parser._reject,
    "snat": Parser._nat,
    "dnat": Parser._nat,
    "masquerade": Parser._port_nat,
    "redirect": Parser._port_nat,
    "queue": Parser._queue,
    "notrack": Parser._notrack,
    "add": Parser._set_update,
    "update": Parser._set_update,
    "delete": Parser._set_update,
    "set": Parser._set_update,
    "meter": Parser._meter,
    "dup": Parser._dup,
    "fwd": Parser._fwd,
    "tproxy": Parser._tproxy,
    "synproxy": Parser._synproxy,
    "flow": Parser._flow,
    "xt": Parser._xt,
    "reset": Parser._reset,
    "ct": Parser._ct_statement,
    "meta": Parser._meta_statement,
}
