"""What each nftables statement does to a packet: one function a statement, from typed fields to an act.

An act returns None to go on, BREAK when the rule does not fit, or what ends the rule: a `Verdict` of nftables
(jump, return, ...) or one of the walk (DROP, REJECT, NAT). Sources: the kernel's net/netfilter/nft_*.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow, tuple_of
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import value_int, value_of
from kubenet_lab.kernel.nftables.objects import NamedObject, Rule, Set
from kubenet_lab.kernel.nftables.ruleset import span
from kubenet_lab.packet.packet import TCP
from kubenet_lab.walk.nft_expressions import Place, Run, finder, reader
from kubenet_lab.walk.xtables import NAT, REJECT, NatRange, NotModelled, Verdict

BREAK = object()
"""The rule does not fit: try the next one."""
Act = Callable[[Run], Any]


class Inside:
    """`jump { ... }`: rules without a chain of their own."""

    __slots__ = ("kind", "rules")

    def __init__(self, kind: str, rules: tuple[Rule, ...]) -> None:
        self.kind, self.rules = kind, rules


def act_of(one: st.Statement, place: Place, table_family: str) -> Act:
    """Return what a statement does."""
    return _ACTS[type(one)](one, place, table_family)


def _stop(what: str) -> Act:
    def act(run: Run) -> Any:
        raise NotModelled(run.ref, what)

    return act


def _goes_on(one: Any, place: Place, family: str) -> Act:
    return lambda run: None


# -- matches -----------------------------------------------------------------------------------------------------------


def _match(one: st.Match, place: Place, family: str) -> Act:
    left, right, op = reader(one.left, place), one.right, one.op
    if isinstance(right, (ex.SetRef, ex.SetLiteral)):
        find, wanted = finder(right), op != "!="

        def in_set(run: Run) -> Any:
            value = left(run)
            if value is None:
                return BREAK
            found = find(run, value)
            if (found is not None) != wanted:
                return BREAK
            if found is not None:
                run.found = (right, found)
            return None

        return in_set
    assert isinstance(right, ex.Constant)
    value = right.value
    if isinstance(one.left, ex.Meta) and one.left.key in ("iif", "oif") and isinstance(value, int):
        side = "indev" if one.left.key == "iif" else "outdev"

        def index(run: Run) -> Any:
            link = run.skb.ns.links.get(getattr(run.skb, side))
            return BREAK if link is None or (link.index == value) != (op == "==") else None

        return index
    if isinstance(value, ex.Interval) or (isinstance(value, str) and value.endswith("*")):
        low, high = span(value)
        inside = op != "!="

        def between(run: Run) -> Any:
            got = left(run)
            return None if got is not None and (low <= value_int(got) <= high) == inside else BREAK

        return between
    if op == "==":
        return lambda run: None if left(run) == value else BREAK
    if op == "!=":

        def differs(run: Run) -> Any:
            got = left(run)
            return None if got is not None and got != value else BREAK

        return differs
    assert isinstance(value, (int, str))
    return _compare(left, op, value_int(value))


def _compare(left: Callable[[Run], Any], op: str, number: int) -> Act:
    tests: dict[str, Callable[[int], bool]] = {
        "in": lambda got: got & number != 0,
        "!": lambda got: got & number == 0,
        "<": lambda got: got < number,
        ">": lambda got: got > number,
        "<=": lambda got: got <= number,
        ">=": lambda got: got >= number,
    }
    test = tests[op]

    def act(run: Run) -> Any:
        got = left(run)
        return None if got is not None and test(value_int(got)) else BREAK

    return act


def _flag_match(one: st.FlagMatch, place: Place, family: str) -> Act:
    left, value, mask, equal = reader(one.left, place), one.value, one.mask, one.op == "=="

    def act(run: Run) -> Any:
        got = left(run)
        return None if got is not None and (got & mask == value) == equal else BREAK

    return act


# -- verdicts ----------------------------------------------------------------------------------------------------------


def _verdict(one: st.VerdictStatement, place: Place, family: str) -> Act:
    verdict = one.verdict
    if verdict.kind == "continue":
        return lambda run: None
    return lambda run: verdict


def _vmap(one: st.Vmap, place: Place, family: str) -> Act:
    key, data, find = reader(one.key, place), one.data, finder(one.data)

    def act(run: Run) -> Any:
        value = key(run)
        if value is None:
            return BREAK
        found = find(run, value)
        if found is None:
            return BREAK
        run.found = (data, found)
        verdict = found.data
        assert isinstance(verdict, ex.Verdict)
        return None if verdict.kind == "continue" else verdict

    return act


def _inline(one: st.Inline, place: Place, family: str) -> Act:
    rules = tuple(
        Rule(statements, comment, -number, family)
        for number, (statements, comment) in enumerate(one.rules, 1)
    )
    inside = Inside(one.kind, rules)
    return lambda run: inside


_ICMPX = {
    4: {0: (3, 0), 1: (3, 3), 2: (3, 1), 3: (3, 13)},
    6: {0: (1, 0), 1: (1, 4), 2: (1, 3), 3: (1, 1)},
}
"""icmpx code -> (type, code) in each family (`nft_reject.c`)."""


def _reject(one: st.Reject, place: Place, family: str) -> Act:
    kind, code = one.kind, one.code

    def act(run: Run) -> Any:
        pkt = run.skb.pkt
        if kind == "tcp reset":
            return Verdict(REJECT, run.ref) if pkt.proto == TCP else BREAK
        if kind == "icmpx":
            return Verdict(REJECT, run.ref, None, _ICMPX[pkt.family][code])
        if (kind == "icmp") != (pkt.family == 4):
            return BREAK
        return Verdict(REJECT, run.ref, None, (3 if kind == "icmp" else 1, code))

    return act


def _nat(one: st.Nat, place: Place, family: str) -> Act:
    kind = one.kind.upper()
    side = "dst" if one.kind in ("dnat", "redirect") else "src"
    address = reader(one.address, place) if one.address is not None else None
    port = reader(one.port, place) if one.port is not None else None
    flags = {
        "random": "random" in one.flags,
        "random_fully": "fully-random" in one.flags,
        "persistent": "persistent" in one.flags,
    }
    wanted = {"ip": 4, "ip6": 6}.get(one.family) if family == "inet" else None

    def act(run: Run) -> Any:
        pkt = run.skb.pkt
        if wanted is not None and pkt.family != wanted:
            return None
        low: Any = ""
        high: Any = ""
        ports: tuple[int, int] | None = None
        if address is not None:
            got = address(run)
            if got is None:
                return BREAK
            if isinstance(got, tuple):
                got, number = got
                ports = _ports(number)
            if one.prefix:
                got = _mapped(pkt.dst if side == "dst" else pkt.src, got, pkt.family)
            low, high = (got.low, got.high) if isinstance(got, ex.Interval) else (got, got)
        if port is not None:
            got = port(run)
            if got is None:
                return BREAK
            ports = _ports(got)
        return Verdict(NAT, run.ref, None, None, NatRange(kind, side, low, high, ports, **flags))

    return act


def _ports(value: Any) -> tuple[int, int]:
    return (int(value.low), int(value.high)) if isinstance(value, ex.Interval) else (value, value)


def _mapped(address: str, target: Any, family: int) -> str:
    """`prefix to`: keep the host's bits, change the network's."""
    bits = 32 if family == 4 else 128
    length = target.length if isinstance(target, ex.Interval) else bits
    host = (1 << bits - length) - 1
    low = value_int(target.low if isinstance(target, ex.Interval) else target)
    return str(value_of("ipv4_addr" if family == 4 else "ipv6_addr", low | value_int(address) & host))


# -- what counts and remembers -----------------------------------------------------------------------------------------


def _counter(one: st.Counter, place: Place, family: str) -> Act:
    cell = place.ruleset.state.setdefault(place.key, [one.packets, one.bytes])

    def act(run: Run) -> Any:
        cell[0] += 1
        cell[1] += run.skb.length

    return act


def _limit(one: st.Limit, place: Place, family: str) -> Act:
    return _bucket(one, place.cell("limit", -1.0, 0.0))


def _bucket(one: st.Limit, cell: list[float]) -> Act:
    """A token bucket of nanoseconds (`nft_limit_eval`); `cell` is [tokens, last time in s]."""
    span_ns = one.unit * 1e9
    full = span_ns * ((one.rate + one.burst) if one.of_bytes else one.burst) / one.rate
    each = span_ns / one.rate

    def act(run: Run) -> Any:
        now = run.ctx.now
        if cell[0] < 0:
            cell[0] = full
        else:
            cell[0] = min(full, cell[0] + (now - cell[1]) * 1e9)
        cell[1] = now
        cost = each * run.skb.length if one.of_bytes else each
        within = cell[0] >= cost
        if within:
            cell[0] -= cost
        return None if within != one.over else BREAK

    return act


def _quota(one: st.Quota, place: Place, family: str) -> Act:
    return _spend(one, place.ruleset.state.setdefault(place.key, [one.used]))


def _spend(one: st.Quota, cell: list[float]) -> Act:
    def act(run: Run) -> Any:
        cell[0] += run.skb.length
        return BREAK if (cell[0] >= one.bytes) != one.over else None

    return act


def _connections(one: st.ConnLimit, place: Place, family: str) -> Act:
    """`nft_connlimit_eval`: how many connections that came by here still stand, this packet's among them."""
    seen: list[Any] = place.ruleset.state.setdefault((*place.key, "connections"), [])
    limit, over = one.count, one.over

    def act(run: Run) -> Any:
        skb = run.skb
        this = skb.ct.orig if skb.ct is not None else tuple_of(skb.pkt, skb.zone)
        table, now = skb.ns.conntrack, run.ctx.now
        seen[:] = [one for one in seen if one == this or _stands(table.find(one, now))]
        if this not in seen:
            seen.append(this)
        return None if (len(seen) > limit) == over else BREAK

    return act


def _stands(flow: Flow | None) -> bool:
    """False for what `already_closed` leaves out of the count."""
    return flow is not None and not (flow.orig[0] == TCP and flow.state in ("TIME_WAIT", "CLOSE"))


def _object_act(one: NamedObject, place: Place) -> Act:
    value = one.value
    key = ("object", one.handle, one.kind, one.name)
    state = place.ruleset.state
    if isinstance(value, st.Counter):
        cell = state.setdefault(key, [value.packets, value.bytes])

        def count(run: Run) -> Any:
            cell[0] += 1
            cell[1] += run.skb.length

        return count
    if isinstance(value, st.Quota):
        return _spend(value, state.setdefault(key, [value.used]))
    if isinstance(value, st.Limit):
        return _bucket(value, state.setdefault(key, [-1.0, 0.0]))
    return _stop(f"{one.kind} {one.name}")


def _object(one: st.ObjectRef, place: Place, family: str) -> Act:
    name = reader(one.name, place)
    kind = one.kind
    made: dict[int, Act] = {}

    def act(run: Run) -> Any:
        value = name(run)
        if value is None:
            return BREAK
        found = run.table.objects[kind, value]
        ready = made.get(found.handle)
        if ready is None:
            ready = made[found.handle] = _object_act(found, place)
        return ready(run)

    return act


def _update(one: st.SetUpdate, place: Place, family: str) -> Act:
    key = reader(one.key, place)
    data = reader(one.data, place) if one.data is not None else None

    def act(run: Run) -> Any:
        value = key(run)
        if value is None:
            return BREAK
        target = run.table.sets[one.set]
        live = run.ruleset.live.setdefault((run.table.handle, target.handle), {})
        now = run.ctx.now
        present = live.get(value) or target.elements.get(value)
        if present is not None and present.until and present.until <= now:
            live.pop(value, None)
            present = None
        if one.op == "delete":
            if live.pop(value, None) is None and present is not None:
                raise NotModelled(run.ref, "deleting an element that the ruleset itself gave")
            return None if present is not None else BREAK
        timeout = one.timeout or target.timeout
        if present is None:
            size = len(live) + sum(element not in live for element in target.elements)
            if target.size and size >= target.size:
                return BREAK
            found = data(run) if data is not None else None
            until = now + timeout / 1000 if timeout else 0.0
            live[value] = ex.Element(
                value, found, one.timeout, until, "", target.statements or one.statements
            )
        elif one.op == "update" and timeout:
            live[value] = replace(present, until=now + timeout / 1000)
        return _run_inner(target.statements or one.statements, place, (target.handle, value), run)

    return act


def _run_inner(statements: tuple[st.Statement, ...], place: Place, key: tuple[Any, ...], run: Run) -> Any:
    """The statements of one element: each has a memory of its own."""
    for number, inner in enumerate(statements):
        at = Place(place.ruleset, ("element", run.table.handle, *key, number))
        if act_of(inner, at, run.table.family)(run) is BREAK:
            return BREAK
    return None


def run_element(run: Run, one: Set, found: ex.Element) -> bool:
    """Run an element's counter, limit or quota because a look-up found it; False where that ends the rule."""
    place = Place(run.ruleset, ())
    return _run_inner(found.statements, place, (one.handle, found.key), run) is not BREAK


def _meter(one: st.Meter, place: Place, family: str) -> Act:
    key = reader(one.key, place)

    def act(run: Run) -> Any:
        value = key(run)
        if value is None:
            return BREAK
        return _run_inner((one.statement,), place, ("meter", one.name, value), run)

    return act


# -- what changes the packet -------------------------------------------------------------------------------------------


def _mangle(one: st.Mangle, place: Place, family: str) -> Act:
    value = reader(one.value, place)
    key = one.key
    write: Callable[[Run, Any], Any] | None = None
    if isinstance(key, ex.Meta):
        write = _META.get(key.key)
    elif isinstance(key, ex.Ct):
        write = _CT.get(key.key)
    elif isinstance(key, ex.Payload):
        write = _payload(key)
    elif isinstance(key, ex.TcpOption) and (key.name, key.field) == ("maxseg", "size"):
        write = _set_mss
    if write is None:
        from kubenet_lab.walk.nft import statement_words

        return _stop(statement_words(one))
    put = write

    def act(run: Run) -> Any:
        got = value(run)
        return BREAK if got is None else put(run, got)

    return act


def _set_mark(run: Run, value: Any) -> Any:
    run.skb.mark = value & 0xFFFFFFFF


def _nothing(run: Run, value: Any) -> Any:
    return None


def _set_ct_mark(run: Run, value: Any) -> Any:
    if run.skb.ct is not None:
        run.skb.ct.mark = value & 0xFFFFFFFF


def _undecided(run: Run) -> bool:
    skb = run.skb
    return skb.ct is None and skb.ctinfo in ("", "INVALID") and not skb.notrack and not skb.zone


def _set_zone(run: Run, value: Any) -> Any:
    if _undecided(run):
        run.skb.zone = value


_META: dict[str, Callable[[Run, Any], Any]] = {"mark": _set_mark, "nftrace": _nothing, "priority": _nothing}
_CT: dict[str, Callable[[Run, Any], Any]] = {
    "mark": _set_ct_mark,
    "zone": _set_zone,
    "event": _nothing,
}


def _payload(key: ex.Payload) -> Callable[[Run, Any], Any] | None:
    proto, field = key.proto, key.field
    six = proto == "ip6"
    name = {
        "saddr": "src",
        "daddr": "dst",
        "ttl": "ttl",
        "hoplimit": "ttl",
        "sport": "sport",
        "dport": "dport",
    }.get(field)

    def put(run: Run, value: Any) -> Any:
        pkt = run.skb.pkt
        if proto in ("ip", "ip6"):
            if (pkt.family == 6) != six:
                return BREAK
        elif proto != "th" and pkt.proto != ex.TRANSPORT_NUMBERS[proto]:
            return BREAK
        if field == "dscp":
            run.skb.pkt = replace(pkt, tos=value << 2 | pkt.tos & 3)
        elif field == "ecn":
            run.skb.pkt = replace(pkt, tos=pkt.tos & 0xFC | value)
        else:
            assert name is not None
            run.skb.pkt = replace(pkt, **{name: value})
        return None

    known = name is not None or field in ("dscp", "ecn")
    return put if known and proto in ("ip", "ip6", "tcp", "udp", "sctp", "th") else None


def _set_mss(run: Run, value: Any) -> Any:
    """`nft_exthdr_tcp_set_eval`: a packet without the option is left alone, and an MSS never grows."""
    pkt = run.skb.pkt
    if pkt.proto != TCP:
        return BREAK
    if pkt.mss and value < pkt.mss:
        run.skb.pkt = replace(pkt, mss=value)
    return None


def _notrack(one: st.NoTrack, place: Place, family: str) -> Act:
    def act(run: Run) -> Any:
        if _undecided(run):
            run.skb.notrack = True

    return act


def _strip(one: st.StripOption, place: Place, family: str) -> Act:
    option = one.option
    assert isinstance(option, ex.TcpOption)

    def act(run: Run) -> Any:
        if option.name == "maxseg" and run.skb.pkt.mss:
            run.skb.pkt = replace(run.skb.pkt, mss=0)

    return act


def _not_modelled(one: Any, place: Place, family: str) -> Act:
    from kubenet_lab.walk.nft import statement_words

    return _stop(statement_words(one))


_ACTS: dict[type, Callable[[Any, Place, str], Act]] = {
    st.Match: _match,
    st.FlagMatch: _flag_match,
    st.VerdictStatement: _verdict,
    st.Vmap: _vmap,
    st.Counter: _counter,
    st.Limit: _limit,
    st.Quota: _quota,
    st.ConnLimit: _connections,
    st.ObjectRef: _object,
    st.Log: _goes_on,
    st.Reject: _reject,
    st.Nat: _nat,
    st.Mangle: _mangle,
    st.NoTrack: _notrack,
    st.SetUpdate: _update,
    st.Meter: _meter,
    st.Queue: _not_modelled,
    st.Dup: _not_modelled,
    st.Fwd: _not_modelled,
    st.Tproxy: _not_modelled,
    st.Synproxy: _not_modelled,
    st.FlowOffload: _not_modelled,
    st.StripOption: _strip,
    st.Xt: _not_modelled,
    st.Inline: _inline,
}
