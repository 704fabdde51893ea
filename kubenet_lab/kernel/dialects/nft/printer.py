"""Typed values to the text that `nft list` prints (nft 1.0.6, `src/rule.c`, `src/expression.c`, `src/statement.c`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft import constants
from kubenet_lab.kernel.dialects.nft.tables import BRIDGE_PRIORITIES, PRIORITIES, key_types
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import objects as ob
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import (
    PER,
    TYPES,
    bit_names,
    rate_text,
    time_text,
    value_text,
)
from kubenet_lab.kernel.nftables.objects import Chain, NamedObject, Rule, Set, Table
from kubenet_lab.kernel.nftables.ruleset import Ruleset

_FIVE_A_LINE = frozenset(
    (
        "nf_proto", "integer", "xinteger", "arp_op", "inet_proto", "inet_service", "tcp_flag", "dccp_pkttype", "mark",
        "iface_index", "realm", "classid", "uid", "gid", "ct_dir",
    )
)  # fmt: skip
_TWO_A_LINE = frozenset(("ipv4_addr", "ct_state", "ct_status", "pkt_type"))
_NEXT = ",\n\t\t\t     "

# -- expressions ------------------------------------------------------------------------------------------------------


def atom_text(kind: str, atom: ex.Atom) -> str:
    """Return a value, an interval or `*` as nft prints it."""
    if isinstance(atom, ex.Interval):
        if atom.length >= 0:
            return f"{value_text(kind, atom.low)}/{atom.length}"
        if TYPES[kind].base == "time":
            return f"{int(atom.low) // 1000}s-{int(atom.high) // 1000}s"
        return f"{value_text(kind, atom.low, True)}-{value_text(kind, atom.high, True)}"
    if isinstance(atom, ex.CatchAll):
        return "*"
    return value_text(kind, atom)


def expr_text(expr: ex.Expression) -> str:
    """Return an expression as nft prints it."""
    return _EXPRESSIONS[type(expr)](expr)


def _meta(expr: ex.Meta) -> str:
    return expr.key if expr.key in ex.META_UNQUALIFIED else f"meta {expr.key}"


def _ct(expr: ex.Ct) -> str:
    return f"ct {f'{expr.direction} ' if expr.direction else ''}{expr.key}"


def _numgen(expr: ex.Numgen) -> str:
    return f"numgen {expr.mode} mod {expr.mod}{f' offset {expr.offset}' if expr.offset else ''}"


def _hash(expr: ex.Hash) -> str:
    head = "symhash" if expr.expr is None else f"jhash {expr_text(expr.expr)}"
    seed = "" if expr.seed is None else f" seed 0x{expr.seed:x}"
    return f"{head} mod {expr.mod}{seed}{f' offset {expr.offset}' if expr.offset else ''}"


def _socket(expr: ex.SocketKey) -> str:
    return f"socket {expr.key}{f' level {expr.level}' if expr.key == 'cgroupv2' else ''}"


def _binary(expr: ex.Binary) -> str:
    right = expr.right
    kind = ex.type_of(expr.left)[0]
    if expr.op not in ("<<", ">>") and isinstance(right, ex.Constant) and TYPES[kind].base == "bitmask":
        assert isinstance(right.value, int)
        bits = bit_names(kind, right.value)
        shown = f"({' | '.join(bits)})" if len(bits) > 1 else bits[0]
    else:
        shown = expr_text(right)
    return f"{expr_text(expr.left)} {expr.op} {shown}"


def literal_text(one: ex.SetLiteral) -> str:
    """Return `{ ... }`."""
    return f"{{ {', '.join(element_text(one.key, one.data, element) for element in one.elements)} }}"


def _tcp_option(expr: ex.TcpOption) -> str:
    name = {"sack": "sack"}.get(expr.name, expr.name)
    return f"tcp option {name}{f' {expr.field}' if expr.field else ''}"


_EXPRESSIONS: dict[type, Callable[[Any], str]] = {
    ex.Payload: lambda e: f"{e.proto} {e.field}",
    ex.RawPayload: lambda e: f"@{e.base},{e.offset},{e.length}",
    ex.Meta: _meta,
    ex.Ct: _ct,
    ex.Fib: lambda e: f"fib {' . '.join(e.flags)} {e.result}",
    ex.Rt: lambda e: f"rt {f'{e.family} ' if e.family else ''}{e.key}",
    ex.SocketKey: _socket,
    ex.Numgen: _numgen,
    ex.Hash: _hash,
    ex.TcpOption: _tcp_option,
    ex.Other: lambda e: e.text,
    ex.Constant: lambda e: atom_text(e.type, e.value),
    ex.Verdict: lambda e: f"{e.kind} {e.chain}" if e.chain else e.kind,
    ex.Concat: lambda e: " . ".join(expr_text(part) for part in e.parts),
    ex.Binary: _binary,
    ex.SetRef: lambda e: f"@{e.name}",
    ex.SetLiteral: literal_text,
    ex.Lookup: lambda e: f"{expr_text(e.key)} map {expr_text(e.data)}",
}


def key_text(types: Iterable[str], key: ex.Key) -> str:
    """Return a set element's key."""
    if isinstance(key, tuple):
        return " . ".join(atom_text(kind, atom) for kind, atom in zip(types, key, strict=True))
    return atom_text(next(iter(types)), key)


def data_text(types: tuple[str, ...], data: ex.Data) -> str:
    """Return what a map's element leads to."""
    if isinstance(data, ex.Verdict):
        return expr_text(data)
    assert data is not None
    return key_text(types, data)


def element_text(key: tuple[str, ...], data: tuple[str, ...], element: ex.Element, now: float = 0.0) -> str:
    """Return one element of a set or map."""
    out = key_text(key, element.key)
    for one in element.statements:
        out += " " + statement_text(one)
    if element.timeout:
        out += f" timeout {time_text(element.timeout)}"
    if element.until:
        left = time_text(round((element.until - now) * 1000))
        out += f" expires {left}" if left else ""
    if element.comment:
        out += f' comment "{element.comment}"'
    if data and element.data is not None:
        out += f" : {data_text(data, element.data)}"
    return out


# -- statements -------------------------------------------------------------------------------------------------------


def statement_text(one: st.Statement, *, stateless: bool = False, state: list[float] | None = None) -> str:
    """Return a statement as nft prints it; `stateless` leaves out what packets changed."""
    if isinstance(one, st.Counter):
        if stateless:
            return "counter"
        packets, size = (int(n) for n in state) if state else (one.packets, one.bytes)
        return f"counter packets {packets} bytes {size}"
    if isinstance(one, st.Quota):
        used = int(state[0]) if state else one.used
        return _quota(one, 0 if stateless else used)
    return _STATEMENTS[type(one)](one)


def _match(one: st.Match) -> str:
    left, right = one.left, one.right
    if (
        isinstance(right, ex.Constant)
        and TYPES[right.type].base == "bitmask"
        and isinstance(right.value, int)
    ):
        bits = bit_names(right.type, right.value)
        if one.op == "in":
            return f"{expr_text(left)} {','.join(bits)}"
        if one.op == "!":
            return f"{expr_text(left)} ! {','.join(bits)}"
        shown = " | ".join(bits)
        if one.op == "==" and len(bits) > 1:
            return f"{expr_text(left)} {shown}"
        return f"{expr_text(left)} {one.op} {shown}"
    shown = expr_text(right)
    if one.op in ("==", "in") and not isinstance(left, ex.Binary):
        return f"{expr_text(left)} {shown}"
    return f"{expr_text(left)} {one.op} {shown}"


def _flag_match(one: st.FlagMatch) -> str:
    kind = ex.type_of(one.left)[0]
    value, mask = ",".join(bit_names(kind, one.value)), ",".join(bit_names(kind, one.mask))
    return f"{expr_text(one.left)} {'!= ' if one.op == '!=' else ''}{value} / {mask}"


def _limit(one: st.Limit) -> str:
    over = "over " if one.over else ""
    per = PER[one.unit]
    if not one.of_bytes:
        burst = f" burst {one.burst} packets" if one.burst and one.burst != 5 else ""
        return f"limit rate {over}{one.rate}/{per}{burst}"
    rate, unit = rate_text(one.rate)
    text = f"limit rate {over}{rate} {unit}/{per}"
    if one.burst:
        text += " burst {} {}".format(*rate_text(one.burst))
    return text


def _quota(one: st.Quota, used: int) -> str:
    used = min(used, one.bytes)  # `nft_quota_do_dump`: what is used up is not counted on
    text = "quota {}{} {}".format("over " if one.over else "", *rate_text(one.bytes))
    return text + (" used {} {}".format(*rate_text(used)) if used else "")


_OBJECT_WORDS = {
    "ct helper": "ct helper set", "ct timeout": "ct timeout set", "ct expectation": "ct expectation set",
    "secmark": "meta secmark set",
}  # fmt: skip


def _object_ref(one: st.ObjectRef) -> str:
    return f"{_OBJECT_WORDS.get(one.kind, f'{one.kind} name')} {expr_text(one.name)}"


def _log(one: st.Log) -> str:
    text = "log"
    if one.prefix is not None:
        text += f' prefix "{one.prefix}"'
    for name, value in (("group", one.group), ("snaplen", one.snaplen), ("queue-threshold", one.threshold)):
        if value >= 0:
            text += f" {name} {value}"
    if one.level:
        text += f" level {one.level}"
    tcp = [flag.partition(" ")[2] for flag in one.flags if flag.startswith("tcp ")]
    if tcp:
        text += f" flags tcp {','.join(tcp)}"
    for flag in one.flags:
        if not flag.startswith("tcp "):
            text += f" flags {flag}"
    return text


def _reject(one: st.Reject) -> str:
    if one.kind == "tcp reset":
        return "reject with tcp reset"
    default = {"icmpx": 1, "icmp": 3, "icmpv6": 4}[one.kind]
    if one.code == default and not one.verbose:
        return "reject"
    return f"reject with {one.kind} {value_text(f'{one.kind}_code', one.code)}"


def _nat(one: st.Nat) -> str:
    text = one.kind
    if one.address is not None or one.port is not None:
        text += f" {one.family}" if one.family else ""
        text += " prefix" if one.prefix else ""
        text += " to"
    address = one.address
    if address is not None:
        shown = expr_text(address)
        if one.port is not None and isinstance(address, ex.Constant) and address.type == "ipv6_addr":
            value = address.value
            if isinstance(value, ex.Interval) and value.length < 0:
                shown = f"[{value.low}]-[{value.high}]"
            elif not isinstance(value, ex.Interval):
                shown = f"[{shown}]"
        text += f" {shown}"
    if one.port is not None:
        text += f"{'' if address is not None else ' '}:{expr_text(one.port)}"
    return text + (f" {','.join(one.flags)}" if one.flags else "")


def _set_update(one: st.SetUpdate) -> str:
    text = f"{one.op} @{one.set} {{ {expr_text(one.key)}"
    if one.timeout:
        text += f" timeout {time_text(one.timeout)}"
    if one.comment:
        text += f' comment "{one.comment}"'
    for inner in one.statements:
        text += f" {statement_text(inner, stateless=True)}"
    if one.data is not None:
        text += f" : {expr_text(one.data)}"
    return text + " }"


def _meter(one: st.Meter) -> str:
    timeout = f" timeout {time_text(one.timeout)}" if one.timeout else ""
    inner = statement_text(one.statement, stateless=True)
    return f"meter {one.name} size {one.size} {{ {expr_text(one.key)}{timeout} {inner} }}"


def _queue(one: st.Queue) -> str:
    flags = f" flags {','.join(one.flags)}" if one.flags else ""
    return f"queue{flags} to {expr_text(one.number)}"


def _dup(one: st.Dup) -> str:
    return f"dup to {expr_text(one.address)}{f' device {expr_text(one.device)}' if one.device else ''}"


def _fwd(one: st.Fwd) -> str:
    if one.address is None:
        return f"fwd to {expr_text(one.device)}"
    return f"fwd {one.family} to {expr_text(one.address)} device {expr_text(one.device)}"


def _tproxy(one: st.Tproxy) -> str:
    text = f"tproxy{f' {one.family}' if one.family else ''} to"
    if one.address is not None:
        shown = expr_text(one.address)
        six = isinstance(one.address, ex.Constant) and one.address.type == "ipv6_addr"
        text += f" [{shown}]" if six else f" {shown}"
    if one.port is not None:
        text += f"{'' if one.address is not None else ' '}:{expr_text(one.port)}"
    return text


def _synproxy(one: st.Synproxy) -> str:
    mss = f" mss {one.mss}" if one.mss >= 0 else ""
    wscale = f" wscale {one.wscale}" if one.wscale >= 0 else ""
    return f"synproxy{mss}{wscale}{''.join(f' {flag}' for flag in one.flags)}"


def _inline(one: st.Inline) -> str:
    lines = []
    for statements, comment in one.rules:
        text = " ".join(statement_text(inner) for inner in statements)
        lines.append(f'\t\t\t{text} comment "{comment}"\n' if comment else f"\t\t\t{text}\n")
    return f"{one.kind} {{\n{''.join(lines)}\t\t}}"


_STATEMENTS: dict[type, Callable[[Any], str]] = {
    st.Match: _match,
    st.FlagMatch: _flag_match,
    st.VerdictStatement: lambda s: expr_text(s.verdict),
    st.Vmap: lambda s: f"{expr_text(s.key)} vmap {expr_text(s.data)}",
    st.Limit: _limit,
    st.ConnLimit: lambda s: f"ct count {'over ' if s.over else ''}{s.count}",
    st.ObjectRef: _object_ref,
    st.Log: _log,
    st.Reject: _reject,
    st.Nat: _nat,
    st.Mangle: lambda s: f"{expr_text(s.key)} set {expr_text(s.value)}",
    st.NoTrack: lambda s: "notrack",
    st.SetUpdate: _set_update,
    st.Meter: _meter,
    st.Queue: _queue,
    st.Dup: _dup,
    st.Fwd: _fwd,
    st.Tproxy: _tproxy,
    st.Synproxy: _synproxy,
    st.FlowOffload: lambda s: f"flow add @{s.flowtable}",
    st.StripOption: lambda s: f"reset {expr_text(s.option)}",
    st.Xt: lambda s: f'xt {s.kind} "{s.name}"',
    st.Inline: _inline,
}


def rule_text(
    rule: Rule, state: Callable[[int], list[float] | None] | None = None, stateless: bool = False
) -> str:
    """Return a rule with its comment. `state` gives what packets made of a statement, by its number."""
    text = " ".join(
        statement_text(one, stateless=stateless, state=state(number) if state is not None else None)
        for number, one in enumerate(rule.statements)
    )
    return f'{text} comment "{rule.comment}"' if rule.comment else text


# -- objects ----------------------------------------------------------------------------------------------------------


def priority_text(family: str, hook: str, priority: int) -> str:
    """Return a priority as nft names it: "dstnat - 10", "filter", "-110"."""
    table = BRIDGE_PRIORITIES if family == "bridge" else PRIORITIES
    for name, value in table.items():
        offset = priority - value
        if abs(offset) > 10:
            continue
        if not _named_here(name, family, hook):
            break
        return name if not offset else f"{name} {'+' if offset > 0 else '-'} {abs(offset)}"
    return str(priority)


def _named_here(name: str, family: str, hook: str) -> bool:
    if name == "filter":
        return True
    if family in ("arp", "netdev"):
        return False
    needed = {"dstnat": "prerouting", "srcnat": "postrouting", "out": "output"}.get(name)
    return needed is None or needed == hook


def _handle(handle: int, show: bool) -> str:
    return f" # handle {handle}" if show else ""


class Printer:
    """Lists a ruleset.

    Args:
        ruleset: What to list.
        now: Simulated time in s, for what is left of time-outs.
        handles: `nft -a`.
        stateless: `nft -s`: no counters, no remaining times.
        terse: `nft -t`: no set elements.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        *,
        now: float = 0.0,
        handles: bool = False,
        stateless: bool = False,
        terse: bool = False,
    ) -> None:
        self.ruleset = ruleset
        self.now, self.handles, self.stateless, self.terse = now, handles, stateless, terse

    def all(self, family: str = "") -> str:
        """`nft list ruleset [FAMILY]`."""
        return "".join(self.table(t) for t in self.ruleset.tables.values() if family in ("", t.family))

    def table(self, table: Table) -> str:
        """`nft list table FAMILY NAME`."""
        blocks: list[str] = [self._object(one) for one in table.objects.values()]
        blocks += [self.set(table, one) for one in table.sets.values()]
        blocks += [self._flowtable(one) for one in table.flowtables.values()]
        blocks += [self.chain(table, one) for one in table.chains.values()]
        head = f"table {table.family} {table.name} {{{_handle(table.handle, self.handles)}\n"
        if table.dormant:
            head += "\tflags dormant\n"
        if table.comment:
            head += f'\tcomment "{table.comment}"\n'
        if table.dormant and blocks:
            head += "\n"
        return head + "\n".join(blocks) + "}\n"

    def only(self, table: Table, block: str) -> str:
        """Return one object inside its table, as `nft list chain|set|map|...` does."""
        return f"table {table.family} {table.name} {{\n{block}}}\n"

    def chain(self, table: Table, chain: Chain) -> str:
        """A chain with its rules."""
        lines = [f"\tchain {chain.name} {{{_handle(chain.handle, self.handles)}"]
        if chain.comment:
            lines.append(f'\t\tcomment "{chain.comment}"')
        if chain.hook:
            devices = ""
            if len(chain.devices) == 1:
                devices = f' device "{chain.devices[0]}"'
            elif chain.devices:
                devices = f" devices = {{ {', '.join(chain.devices)} }}"
            priority = priority_text(table.family, chain.hook, chain.priority)
            lines.append(
                f"\t\ttype {chain.type} hook {chain.hook}{devices} priority {priority}; policy {chain.policy};"
            )
        if chain.offload:
            lines.append("\t\tflags offload")
        state = self.ruleset.state
        for rule in chain.rules:
            key = (table.handle, rule.handle)
            text = rule_text(rule, lambda number, key=key: state.get((*key, number)), self.stateless)  # type: ignore[misc]
            lines.append(f"\t\t{text}{_handle(rule.handle, self.handles)}")
        lines.append("\t}\n")
        return "\n".join(lines)

    def set(self, table: Table, one: Set) -> str:
        """A set or map with its elements."""
        lines = [f"\t{'map' if one.is_map else 'set'} {one.name} {{{_handle(one.handle, self.handles)}"]
        key = (
            f"typeof {' . '.join(map(expr_text, one.typeof_key))}"
            if one.typeof_key
            else f"type {' . '.join(one.key)}"
        )
        if one.object:
            key += f" : {one.object}"
        elif one.data:
            interval = "interval " if one.data_interval else ""
            if one.typeof_data == (ex.Verdict("accept"),):
                key += " : verdict"
            elif one.typeof_data:
                key += f" : {interval}{' . '.join(map(expr_text, one.typeof_data))}"
            else:
                key += f" : {interval}{' . '.join(one.data)}"
        lines.append(f"\t\t{key}")
        if "constant" not in one.flags:
            if one.policy:
                lines.append(f"\t\tpolicy {one.policy}")
            if one.size:
                lines.append(f"\t\tsize {one.size}")
        flags = one.flags
        if [flag for flag in flags if flag != "timeout" or not one.timeout]:
            lines.append(f"\t\tflags {','.join(flags)}")
        if one.statements:
            lines.append(f"\t\t{' '.join(statement_text(s, stateless=True) for s in one.statements)}")
        if one.auto_merge:
            lines.append("\t\tauto-merge")
        if one.timeout:
            lines.append(f"\t\ttimeout {time_text(one.timeout)}")
        if one.gc_interval:
            lines.append(f"\t\tgc-interval {time_text(one.gc_interval)}")
        if one.comment:
            lines.append(f'\t\tcomment "{one.comment}"')
        elements = self.elements(table, one)
        if elements and not self.terse:
            lines.append(f"\t\telements = {{ {self._element_lines(one, elements)} }}")
        lines.append("\t}\n")
        return "\n".join(lines)

    def elements(self, table: Table, one: Set) -> list[ex.Element]:
        """Return a set's elements in the order nft lists them."""
        found: Iterable[ex.Element] = self.ruleset.elements(table, one, self.now).values()
        if one.statements or any(element.statements for element in found):
            found = [self._counted(table, one, element) for element in found]
        return constants.in_order(key_types(one), found, "interval" in one.flags)

    def _counted(self, table: Table, one: Set, element: ex.Element) -> ex.Element:
        """An element with what packets made of its own counter or quota."""
        statements = []
        for number, inner in enumerate(element.statements):
            state = self.ruleset.state.get(("element", table.handle, one.handle, element.key, number))
            if state and isinstance(inner, st.Counter):
                inner = replace(inner, packets=int(state[0]), bytes=int(state[1]))
            elif state and isinstance(inner, st.Quota):
                inner = replace(inner, used=int(state[0]))
            statements.append(inner)
        return replace(element, statements=tuple(statements))

    def _element_lines(self, one: Set, elements: list[ex.Element]) -> str:
        data = ("string",) if one.object else one.data
        single = one.key[0] if len(one.key) == 1 else ""
        most = 5 if single in _FIVE_A_LINE else 2 if single in _TWO_A_LINE else 1
        texts = [element_text(one.key, data, element, self.now) for element in elements]
        out, count = [], 0
        for number, text in enumerate(texts):
            out.append(text)
            count += 1
            if number + 1 < len(texts):
                if count < most:
                    out.append(", ")
                else:
                    out.append(_NEXT)
                    count = 0
        return "".join(out)

    def _flowtable(self, one: ob.Flowtable) -> str:
        priority = priority_text("netdev", one.hook, one.priority)
        lines = [f"\tflowtable {one.name} {{{_handle(one.handle, self.handles)}"]
        lines.append(f"\t\thook {one.hook} priority {priority}")
        if one.devices:
            lines.append(f"\t\tdevices = {{ {', '.join(one.devices)} }}")
        if one.offload:
            lines.append("\t\tflags offload")
        if one.counter:
            lines.append("\t\tcounter")
        lines.append("\t}\n")
        return "\n".join(lines)

    def object(self, table: Table, one: NamedObject) -> str:
        """A named counter, quota, limit, ..."""
        return self._object(one)

    def _object(self, one: NamedObject) -> str:
        head = f"\t{one.kind} {one.name} {{{_handle(one.handle, self.handles)}\n"
        if one.comment:
            head += f'\t\tcomment "{one.comment}"\n'
        return f"{head}{self._object_body(one)}\t}}\n"

    def _object_body(self, one: NamedObject) -> str:
        value = one.value
        state = self.ruleset.state.get(("object", one.handle, one.kind, one.name))
        if isinstance(value, st.Counter):
            if self.stateless:
                return ""
            packets, size = (int(n) for n in state) if state else (value.packets, value.bytes)
            return f"\t\tpackets {packets} bytes {size}\n"
        if isinstance(value, st.Quota):
            used = 0 if self.stateless else min(int(state[0]), value.bytes) if state else value.used
            return f"\t\t{_quota(value, used).removeprefix('quota ')}\n"
        if isinstance(value, st.Limit):
            return f"\t\t{_limit(value).removeprefix('limit ')}\n"
        if isinstance(value, ob.Secmark):
            return f'\t\t"{value.context}"\n'
        if isinstance(value, ob.CtHelper):
            return f'\t\ttype "{value.type}" protocol {value.protocol}\n\t\tl3proto {value.family}\n'
        if isinstance(value, ob.CtTimeout):
            policy = ", ".join(f"{state} : {seconds}" for state, seconds in value.policy)
            return f"\t\tprotocol {value.protocol}\n\t\tl3proto {value.family}\n\t\tpolicy = {{ {policy} }}\n"
        if isinstance(value, ob.CtExpectation):
            return (
                f"\t\tprotocol {value.protocol}\n\t\tdport {value.dport}\n\t\ttimeout {time_text(value.timeout)}\n"
                f"\t\tsize {value.size}\n\t\tl3proto {value.family}\n"
            )
        flags = f"\t\t{' '.join(value.flags)}\n" if value.flags else ""
        return f"\t\tmss {value.mss}\n\t\twscale {value.wscale}\n{flags}"
