"""nft's statements and rules: verdicts, NAT, counters, sets that packets change, and tests of an expression."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft.cursor import SyntaxFault
from kubenet_lab.kernel.dialects.nft.expressions import OPS, PRIMARIES, VERDICTS, Expressions
from kubenet_lab.kernel.dialects.nft.normal import NotAllowed, normal
from kubenet_lab.kernel.dialects.nft.scanner import END
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import DATA_UNITS, TIME_UNITS, TYPES
from kubenet_lab.kernel.nftables.objects import Rule, Set

_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_NAT_FLAGS = ("random", "fully-random", "persistent")


class Statements(Expressions):
    """Reads statements and whole rules."""

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
        if self.peek() not in (".", "map") and self.word not in PRIMARIES:
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
        if self.word in PRIMARIES and self.word not in TYPES[kind].symbols:
            expr = self._concat(kind)
            if self.try_take("map"):
                return ex.Lookup(expr, self._map_data(expr, (kind,)))
            return expr
        return ex.Constant(kind, self._value(kind, bits))

    def _match(self, left: ex.Expression) -> st.Statement:
        op = OPS.get(self.word, "")
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


_STATEMENTS: dict[str, Callable[[Statements], st.Statement | None]] = {
    **dict.fromkeys((*VERDICTS, "jump", "goto"), Statements._verdict_statement),
    "counter": Statements._counter,
    "limit": Statements._limit_statement,
    "quota": Statements._quota_statement,
    "log": Statements._log,
    "reject": Statements._reject,
    "snat": Statements._nat,
    "dnat": Statements._nat,
    "masquerade": Statements._port_nat,
    "redirect": Statements._port_nat,
    "queue": Statements._queue,
    "notrack": Statements._notrack,
    "add": Statements._set_update,
    "update": Statements._set_update,
    "delete": Statements._set_update,
    "set": Statements._set_update,
    "meter": Statements._meter,
    "dup": Statements._dup,
    "fwd": Statements._fwd,
    "tproxy": Statements._tproxy,
    "synproxy": Statements._synproxy,
    "flow": Statements._flow,
    "xt": Statements._xt,
    "reset": Statements._reset,
    "ct": Statements._ct_statement,
    "meta": Statements._meta_statement,
}
