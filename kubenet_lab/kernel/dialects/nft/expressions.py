"""nft's expressions: what stands left of a value, and the values, elements and literal sets that stand right of it.

A constant is read in the data type of what stands left of it, a set's elements in the set's types.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from difflib import get_close_matches

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft import constants
from kubenet_lab.kernel.dialects.nft.cursor import Cursor, SyntaxFault
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import TYPES, Scalar, parse_time, parse_value, value_int, value_of

VERDICTS = ("accept", "drop", "continue", "return")
"""Verdicts that name no chain."""
OPS = {
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


class Expressions(Cursor, ABC):
    """Reads expressions, values and literal sets."""

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

    def _verdict(self) -> ex.Verdict:
        word = self.take()
        if word in VERDICTS:
            return ex.Verdict(word)
        if word in ("jump", "goto"):
            return ex.Verdict(word, self.identifier())
        self.at -= 1
        raise self.unexpected()

    @abstractmethod
    def _stateful(self) -> st.Statement:
        """Read a counter, limit or quota that an element has of its own."""

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
        if self.word in PRIMARIES and self.word not in TYPES[ex.type_of(left)[0]].symbols:
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
        reader = PRIMARIES.get(word)
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
            known = self.word not in ("exists", "missing", *OPS)
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

    def _map_or_value(self, types: tuple[str, ...]) -> ex.Expression:
        """What a statement writes: a constant, an interval, a field of the packet, or a map."""
        kind = types[0]
        if self.word in PRIMARIES:
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


PRIMARIES: dict[str, Callable[[Expressions, str], ex.Expression]] = {
    **dict.fromkeys(ex.HEADERS, Expressions._payload),
    "icmp6": lambda p, _w: p._payload("icmpv6"),
    "@": Expressions._raw,
    "meta": Expressions._meta,
    **dict.fromkeys(_META_BARE, Expressions._meta),
    "ct": Expressions._ct,
    "fib": Expressions._fib,
    "rt": Expressions._rt,
    "socket": Expressions._socket,
    "numgen": Expressions._numgen,
    "jhash": Expressions._jhash,
    "symhash": Expressions._jhash,
    "exthdr": Expressions._exthdr,
    "hbh": Expressions._exthdr,
    "frag": Expressions._exthdr,
    "dst": Expressions._exthdr,
    "mh": Expressions._exthdr,
    "osf": Expressions._osf,
    "ipsec": Expressions._ipsec,
}
