"""Typed values to what `nft -j list` prints: libnftables-json(5), as nft 1.0.6 writes it (`src/json.c`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kubenet_lab.kernel.dialects.nft.printer import Printer, statement_text
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import objects as ob
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import PER, TYPES, rate_text, value_json
from kubenet_lab.kernel.nftables.objects import Chain, NamedObject, Rule, Set, Table
from kubenet_lab.kernel.nftables.ruleset import Ruleset

VERSION = {"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}}
"""First member of every listing."""


def dumps(members: list[Any]) -> str:
    """Return a listing as text, in jansson's spacing."""
    return json.dumps({"nftables": [VERSION, *members]}, ensure_ascii=False) + "\n"


# -- expressions -------------------------------------------------------------------------------------------------------


def atom_json(kind: str, atom: ex.Atom) -> Any:
    """Return a value, a range or a prefix."""
    if isinstance(atom, ex.Interval):
        if atom.length >= 0:
            return {"prefix": {"addr": value_json(kind, atom.low), "len": atom.length}}
        return {"range": [value_json(kind, atom.low, True), value_json(kind, atom.high, True)]}
    if isinstance(atom, ex.CatchAll):
        return "*"
    return value_json(kind, atom)


def key_json(types: tuple[str, ...], key: ex.Key) -> Any:
    """Return a set element's key."""
    if isinstance(key, tuple):
        return {"concat": [atom_json(kind, atom) for kind, atom in zip(types, key, strict=True)]}
    return atom_json(types[0], key)


def verdict_json(verdict: ex.Verdict) -> Any:
    """Return a verdict: {"accept": null}, {"jump": {"target": "c"}}."""
    return {verdict.kind: {"target": verdict.chain} if verdict.chain else None}


def element_json(
    key: tuple[str, ...], data: tuple[str, ...], element: ex.Element, now: float, text: bool = True
) -> Any:
    """Return one element of a set or map."""
    out: Any = key_json(key, element.key)
    if element.timeout or element.until or element.comment or element.statements:
        inner: dict[str, Any] = {"val": out}
        if element.timeout:
            inner["timeout"] = element.timeout // 1000
        if element.until:
            inner["expires"] = round((element.until - now) * 1000) // 1000
        if element.comment:
            inner["comment"] = element.comment
        if element.statements:
            inner |= statement_json(element.statements[0])
        out = {"elem": inner}
    if element.data is None:
        return out
    if isinstance(element.data, ex.Verdict):
        return [out, verdict_json(element.data)]
    return [out, key_json(data, element.data)]


def expr_json(expr: ex.Expression) -> Any:
    """Return an expression."""
    return _EXPRESSIONS[type(expr)](expr)


def _ct(expr: ex.Ct) -> Any:
    key = expr.key.rpartition(" ")[2] if expr.plain else expr.key
    return {"ct": {"key": key, **({"dir": expr.direction} if expr.direction else {})}}


def _hash(expr: ex.Hash) -> Any:
    inner: dict[str, Any] = {"mod": expr.mod}
    if expr.seed is not None:
        inner["seed"] = expr.seed
    if expr.offset:
        inner["offset"] = expr.offset
    if expr.expr is None:
        return {"symhash": inner}
    return {"jhash": {**inner, "expr": expr_json(expr.expr)}}


def _tcp_option(expr: ex.TcpOption) -> Any:
    return {"tcp option": {"name": expr.name, **({"field": expr.field} if expr.field else {})}}


def _literal(expr: ex.SetLiteral) -> Any:
    return {"set": [element_json(expr.key, expr.data, one, 0.0) for one in expr.elements]}


def _rt(expr: ex.Rt) -> Any:
    return {"rt": {"key": expr.key, **({"family": expr.family} if expr.family else {})}}


_EXPRESSIONS: dict[type, Callable[[Any], Any]] = {
    ex.Payload: lambda e: {"payload": {"protocol": e.proto, "field": e.field}},
    ex.RawPayload: lambda e: {"payload": {"base": e.base, "offset": e.offset, "len": e.length}},
    ex.Meta: lambda e: {"meta": {"key": e.key}},
    ex.Ct: _ct,
    ex.Fib: lambda e: {"fib": {"result": e.result, "flags": list(e.flags)}},
    ex.Rt: _rt,
    ex.SocketKey: lambda e: {"socket": {"key": e.key}},
    ex.Numgen: lambda e: {"numgen": {"mode": e.mode, "mod": e.mod, "offset": e.offset}},
    ex.Hash: _hash,
    ex.TcpOption: _tcp_option,
    ex.Other: lambda e: json.loads(e.json),
    ex.Constant: lambda e: atom_json(e.type, e.value),
    ex.Concat: lambda e: {"concat": [expr_json(part) for part in e.parts]},
    ex.Binary: lambda e: {e.op: [expr_json(e.left), expr_json(e.right)]},
    ex.SetRef: lambda e: f"@{e.name}",
    ex.SetLiteral: _literal,
    ex.Lookup: lambda e: {"map": {"key": expr_json(e.key), "data": expr_json(e.data)}},
    ex.Verdict: verdict_json,
}

# -- statements --------------------------------------------------------------------------------------------------------


def statement_json(one: st.Statement, *, stateless: bool = False, state: list[float] | None = None) -> Any:
    """Return a statement."""
    if isinstance(one, st.Counter):
        if stateless:
            return {"counter": None}
        packets, size = (int(n) for n in state) if state else (one.packets, one.bytes)
        return {"counter": {"packets": packets, "bytes": size}}
    if isinstance(one, st.Quota):
        used = 0 if stateless else min(int(state[0]), one.bytes) if state else one.used
        return _quota(one, used)
    return _STATEMENTS[type(one)](one)


def _one_or_list(values: tuple[str, ...]) -> Any:
    return list(values) if len(values) > 1 else values[0]


def _match(one: st.Match) -> Any:
    right: Any
    if (
        isinstance(one.right, ex.Constant)
        and TYPES[one.right.type].base == "bitmask"
        and one.op not in ("in", "!")
    ):
        assert isinstance(one.right.value, int)
        right = _bits(one.right.type, one.right.value)
    else:
        right = expr_json(one.right)
    return {"match": {"op": one.op, "left": expr_json(one.left), "right": right}}


def _bits(kind: str, value: int) -> Any:
    """Several bits where they are one value: `{"|": [{"|": ["fin", "psh"]}, "urg"]}`."""
    names = value_json(kind, value)
    if not isinstance(names, list):
        return names
    out = names[0]
    for name in names[1:]:
        out = {"|": [out, name]}
    return out


def _flag_match(one: st.FlagMatch) -> Any:
    kind = ex.type_of(one.left)[0]
    left = {"&": [expr_json(one.left), value_json(kind, one.mask)]}
    return {"match": {"op": one.op, "left": left, "right": value_json(kind, one.value)}}


def _vmap(one: st.Vmap) -> Any:
    return {"vmap": {"key": expr_json(one.key), "data": expr_json(one.data)}}


def _limit(one: st.Limit) -> Any:
    rate, rate_unit = rate_text(one.rate) if one.of_bytes else (one.rate, "")
    burst, burst_unit = rate_text(one.burst) if one.of_bytes else (one.burst, "")
    out: dict[str, Any] = {"rate": rate, "burst": burst, "per": PER[one.unit]}
    if one.over:
        out["inv"] = True
    if one.of_bytes:
        out |= {"rate_unit": rate_unit, "burst_unit": burst_unit}
    return {"limit": out}


def _quota(one: st.Quota, used: int) -> Any:
    count, unit = rate_text(one.bytes)
    out: dict[str, Any] = {"val": count, "val_unit": unit}
    if one.over:
        out["inv"] = True
    if used:
        count, unit = rate_text(used)
        out |= {"used": count, "used_unit": unit}
    return {"quota": out}


def _log(one: st.Log) -> Any:
    out: dict[str, Any] = {}
    if one.prefix is not None:
        out["prefix"] = one.prefix
    for name, value in (("group", one.group), ("snaplen", one.snaplen), ("queue-threshold", one.threshold)):
        if value >= 0:
            out[name] = value
    if one.level:
        out["level"] = one.level
    if one.flags:
        out["flags"] = _one_or_list(one.flags)
    return {"log": out or None}


def _reject(one: st.Reject) -> Any:
    out: dict[str, Any] = {"type": one.kind}
    if one.kind != "tcp reset":
        out["expr"] = value_json(f"{one.kind}_code", one.code)
    return {"reject": out}


def _nat(one: st.Nat) -> Any:
    out: dict[str, Any] = {}
    if one.family:
        out["family"] = one.family
    if one.address is not None:
        out["addr"] = expr_json(one.address)
    if one.port is not None:
        out["port"] = expr_json(one.port)
    flags = (*one.flags, *(("netmap",) if one.prefix else ()))
    if flags:
        out["flags"] = _one_or_list(flags)
    if one.prefix:
        out["type_flags"] = "prefix"
    return {one.kind: out or None}


def _mangle(one: st.Mangle) -> Any:
    return {"mangle": {"key": expr_json(one.key), "value": expr_json(one.value)}}


def _set_update(one: st.SetUpdate) -> Any:
    key = expr_json(one.key)
    if one.timeout or one.comment:
        inner: dict[str, Any] = {"val": key}
        if one.timeout:
            inner["timeout"] = one.timeout // 1000
        if one.comment:
            inner["comment"] = one.comment
        key = {"elem": inner}
    if one.data is not None:
        return statement_text(one)  # nft 1.0.6 has no JSON for updates of maps and prints their text
    out: dict[str, Any] = {"op": one.op, "elem": key, "set": f"@{one.set}"}
    if one.statements:
        out["stmt"] = [statement_json(inner, stateless=True) for inner in one.statements]
    return {"set": out}


def _meter(one: st.Meter) -> Any:
    key = expr_json(one.key)
    if one.timeout:
        key = {"elem": {"val": key, "timeout": one.timeout // 1000}}
    inner = statement_json(one.statement, stateless=True)
    return {"meter": {"key": key, "stmt": inner, "size": one.size, "name": one.name}}


def _queue(one: st.Queue) -> Any:
    out: dict[str, Any] = {"num": expr_json(one.number)}
    if one.flags:
        out["flags"] = _one_or_list(one.flags)
    return {"queue": out}


def _dup(one: st.Dup) -> Any:
    return {"dup": {"addr": expr_json(one.address), **({"dev": expr_json(one.device)} if one.device else {})}}


def _fwd(one: st.Fwd) -> Any:
    out = {"dev": expr_json(one.device)}
    if one.address is not None:
        out |= {"family": one.family, "addr": expr_json(one.address)}
    return {"fwd": out}


def _tproxy(one: st.Tproxy) -> Any:
    out: dict[str, Any] = {"family": one.family} if one.family else {}
    if one.address is not None:
        out["addr"] = expr_json(one.address)
    if one.port is not None:
        out["port"] = expr_json(one.port)
    return {"tproxy": out}


def _synproxy(one: st.Synproxy) -> Any:
    out: dict[str, Any] = {}
    if one.mss >= 0:
        out["mss"] = one.mss
    if one.wscale >= 0:
        out["wscale"] = one.wscale
    if one.flags:
        out["flags"] = list(one.flags)
    return {"synproxy": out or None}


_STATEMENTS: dict[type, Callable[[Any], Any]] = {
    st.Match: _match,
    st.FlagMatch: _flag_match,
    st.VerdictStatement: lambda s: verdict_json(s.verdict),
    st.Vmap: _vmap,
    st.Limit: _limit,
    st.ConnLimit: lambda s: {"ct count": {"val": s.count, **({"inv": True} if s.over else {})}},
    st.ObjectRef: lambda s: {s.kind: expr_json(s.name)},
    st.Log: _log,
    st.Reject: _reject,
    st.Nat: _nat,
    st.Mangle: _mangle,
    st.NoTrack: lambda s: {"notrack": None},
    st.SetUpdate: _set_update,
    st.Meter: _meter,
    st.Queue: _queue,
    st.Dup: _dup,
    st.Fwd: _fwd,
    st.Tproxy: _tproxy,
    st.Synproxy: _synproxy,
    st.FlowOffload: lambda s: {"flow": {"op": "add", "flowtable": f"@{s.flowtable}"}},
    st.StripOption: lambda s: {"reset": expr_json(s.option)},
    st.Xt: lambda s: {"xt": {"type": s.kind, "name": s.name}},
    st.Inline: statement_text,
}

# -- objects -----------------------------------------------------------------------------------------------------------


class JsonPrinter(Printer):
    """Lists a ruleset as `nft -j` does. Chains come before the rules of all chains."""

    def members(self, family: str = "") -> list[Any]:
        """`nft -j list ruleset [FAMILY]`."""
        return [
            member
            for table in self.ruleset.tables.values()
            if family in ("", table.family)
            for member in self.table_members(table)
        ]

    def table_members(self, table: Table) -> list[Any]:
        """`nft -j list table FAMILY NAME`."""
        head: dict[str, Any] = {"family": table.family, "name": table.name, "handle": table.handle}
        if table.dormant:
            head["flags"] = "dormant"
        out: list[Any] = [{"table": head}]
        out += [self.object_member(table, one) for one in table.objects.values()]
        out += [self.set_member(table, one) for one in table.sets.values()]
        out += [self._flowtable_member(table, one) for one in table.flowtables.values()]
        out += [self.chain_member(table, one) for one in table.chains.values()]
        return out + [m for chain in table.chains.values() for m in self.rule_members(table, chain)]

    def chain_member(self, table: Table, chain: Chain) -> Any:
        """A chain without its rules."""
        out: dict[str, Any] = {
            "family": table.family,
            "table": table.name,
            "name": chain.name,
            "handle": chain.handle,
        }
        if chain.hook:
            out |= {"type": chain.type, "hook": chain.hook, "prio": chain.priority, "policy": chain.policy}
            # nft 1.0.6 leaves out the device of an ingress chain.
        return {"chain": out}

    def rule_members(self, table: Table, chain: Chain) -> list[Any]:
        """The rules of a chain."""
        return [self.rule_member(table, chain, rule) for rule in chain.rules]

    def rule_member(self, table: Table, chain: Chain, rule: Rule) -> Any:
        """One rule."""
        out: dict[str, Any] = {
            "family": table.family,
            "table": table.name,
            "chain": chain.name,
            "handle": rule.handle,
        }
        if rule.comment:
            out["comment"] = rule.comment
        state = self.ruleset.state
        out["expr"] = [
            statement_json(
                one, stateless=self.stateless, state=state.get((table.handle, rule.handle, number))
            )
            for number, one in enumerate(rule.statements)
        ]
        return {"rule": out}

    def set_member(self, table: Table, one: Set) -> Any:
        """A set or map."""
        out: dict[str, Any] = {
            "family": table.family,
            "name": one.name,
            "table": table.name,
            "type": list(one.key) if len(one.key) > 1 else one.key[0],
            "handle": one.handle,
        }
        if one.comment:
            out["comment"] = one.comment
        if one.is_map:
            out["map"] = one.object or " . ".join(one.data)
        if "constant" not in one.flags:
            if one.policy:
                out["policy"] = one.policy
            if one.size:
                out["size"] = one.size
        flags = [flag for flag in ("constant", "interval", "timeout") if flag in one.flags]
        if flags:
            out["flags"] = flags
        if one.timeout:
            out["timeout"] = one.timeout // 1000
        if one.gc_interval:
            out["gc-interval"] = one.gc_interval // 1000
        elements = self.elements(table, one)
        if elements and not self.terse:
            data = ("string",) if one.object else one.data
            out["elem"] = [element_json(one.key, data, element, self.now) for element in elements]
        if one.statements:
            out["stmt"] = [statement_json(inner, stateless=True) for inner in one.statements]
        return {"map" if one.is_map else "set": out}

    def _flowtable_member(self, table: Table, one: ob.Flowtable) -> Any:
        out: dict[str, Any] = {
            "family": table.family,
            "name": one.name,
            "table": table.name,
            "handle": one.handle,
            "hook": one.hook,
            "prio": one.priority,
        }
        if one.devices:
            out["dev"] = _one_or_list(one.devices)
        return {"flowtable": out}

    def object_member(self, table: Table, one: NamedObject) -> Any:
        """A named counter, quota, limit, ..."""
        out: dict[str, Any] = {
            "family": table.family,
            "name": one.name,
            "table": table.name,
            "handle": one.handle,
        }
        if one.comment:
            out["comment"] = one.comment
        value = one.value
        state = self.ruleset.state.get(("object", one.handle, one.kind, one.name))
        if isinstance(value, st.Counter):
            packets, size = (int(n) for n in state) if state else (value.packets, value.bytes)
            out |= {"packets": packets, "bytes": size}
        elif isinstance(value, st.Quota):
            out |= {"bytes": value.bytes, "used": int(state[0]) if state else value.used, "inv": value.over}
        elif isinstance(value, st.Limit):
            out |= _limit_object(value)
        elif isinstance(value, ob.Secmark):
            out["context"] = value.context
        elif isinstance(value, ob.CtHelper):
            out |= {"type": value.type, "protocol": value.protocol, "l3proto": value.family}
        elif isinstance(value, ob.CtTimeout):
            policy = dict(value.policy) or None
            out |= {"protocol": value.protocol, "l3proto": value.family, "policy": policy}
        elif isinstance(value, ob.CtExpectation):
            out |= {"protocol": value.protocol, "dport": value.dport, "timeout": value.timeout}
            out |= {"size": value.size, "l3proto": value.family}
        else:
            out |= {"mss": value.mss, "wscale": value.wscale}
            if value.flags:
                out["flags"] = list(value.flags)
        return {one.kind: out}


def _limit_object(value: st.Limit) -> dict[str, Any]:
    full = _limit(value)["limit"]
    out: dict[str, Any] = {"rate": full["rate"], "per": full["per"]}
    for name in ("inv", "rate_unit"):
        if name in full:
            out[name] = full[name]
    if full["burst"]:
        out["burst"] = full["burst"]
        if "burst_unit" in full:
            out["burst_unit"] = full["burst_unit"]
    return out


def listing(ruleset: Ruleset, family: str = "", now: float = 0.0) -> str:
    """`nft -j list ruleset [FAMILY]`."""
    return dumps(JsonPrinter(ruleset, now=now).members(family))
