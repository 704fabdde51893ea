"""nft's blocks: tables, chains with their hooks, sets and maps, named objects and flowtables."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft import constants
from kubenet_lab.kernel.dialects.nft.cursor import SyntaxFault
from kubenet_lab.kernel.dialects.nft.scanner import END
from kubenet_lab.kernel.dialects.nft.statements import Statements
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import objects as ob
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import TYPES, datatype
from kubenet_lab.kernel.nftables.objects import FAMILIES, Chain, Flowtable, NamedObject, Set

HOOKS = ("prerouting", "input", "forward", "postrouting", "output", "ingress", "egress")
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
BRIDGE_PRIORITIES = {"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
_SET_FLAGS = ("constant", "dynamic", "interval", "timeout")
_OBJECT_KINDS = ("counter", "quota", "limit", "secmark", "synproxy")
_TIMEOUTS = {
    "tcp": {
        "syn_sent": 120, "syn_recv": 60, "established": 432000, "fin_wait": 120, "close_wait": 60, "last_ack": 30,
        "time_wait": 120, "close": 10, "syn_sent2": 120, "retrans": 300, "unack": 300,
    },
    "udp": {"unreplied": 30, "replied": 180},
}  # fmt: skip


class Blocks(Statements):
    """Reads what stands in a table's braces."""

    def _family(self) -> None:
        self.family = self.take() if self.word in FAMILIES else "ip"

    def _table_spec(self) -> None:
        self._family()
        self.table = self.identifier()

    def _chain_spec(self) -> str:
        self._table_spec()
        return self.identifier()

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

    def _table(self, create: bool) -> None:
        self._table_spec()
        family, name = self.family, self.table
        if not self.try_take("{"):
            self.edit.add_table(family, name, create=create)
            return
        comment, dormant = "", False
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
