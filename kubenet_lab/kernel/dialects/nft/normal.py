"""A rule as the kernel gives it back: what nft adds when it loads a rule, and leaves out when it lists one.

nft turns a rule into the kernel's expressions and, for a listing, these back into text. On the way it adds protocol
tests a header field needs (`tcp dport` needs `meta l4proto tcp`), joins neighbouring fields, and drops tests that a
later field implies. The listing is what counts here: a `Rule` always holds that form, so that a dump loads and
prints unchanged. The walk adds the implied tests again, because a field of a header the packet does not have never
fits.

Sources: nft 1.0.6, src/evaluate.c, src/payload.c, src/netlink_delinearize.c, src/rule.c (`stmt_reduce`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from kubenet_lab.kernel.dialects.nft import constants
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import TYPES, value_int, value_of
from kubenet_lab.kernel.nftables.objects import Set

_LINK = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100}
_LINK_NAMES = {number: name for name, number in _LINK.items()}
_NFPROTO = {"ip": 2, "ip6": 10}
_NFPROTO_NAMES = {2: "ip", 10: "ip6"}
_ECHO, _ECHO6 = 8, (128, 129)
_ICMP_NEEDS: dict[tuple[str, str], int] = {
    ("icmp", "id"): 8, ("icmp", "sequence"): 8, ("icmp", "gateway"): 5, ("icmp", "mtu"): 3,
    ("icmpv6", "id"): 128, ("icmpv6", "sequence"): 128, ("icmpv6", "mtu"): 2,
    ("icmpv6", "parameter-problem"): 4, ("icmpv6", "max-delay"): 130,
}  # fmt: skip
"""ICMP field -> the message type it is in."""


class NotAllowed(Exception):
    """nft refuses the rule, in these words."""


Protocols = dict[str, str]
"""Base ("ll", "nh", "th") -> the protocol a rule is known to be about there."""


def _begin(family: str) -> Protocols:
    if family in ("ip", "ip6", "arp"):
        return {"nh": family}
    return {"ll": {"inet": "inet", "bridge": "ether", "netdev": "netdev"}[family]}


def normal(
    statements: list[st.Statement], family: str, set_of: Callable[[str], Set]
) -> tuple[st.Statement, ...]:
    """Return a rule's statements as a listing shows them.

    Args:
        statements: As they were written.
        family: The table's.
        set_of: Returns a named set's declaration.

    Raises:
        NotAllowed: The rule tests protocols that exclude each other, or needs a test it does not have.
    """
    shape = _shape(statements, family)
    order = _ORDERS.get(shape) if shape is not None else None
    if order is not None:
        return tuple([statements[index] for index in order])
    with_needs = _with_needs(statements, family)
    joined = _joined(with_needs)
    done = tuple(_listed(joined, family, set_of))
    if shape is not None:
        _remember(shape, statements, done)
    return done


# -- rules of a shape that was seen before ------------------------------------------------------------------------

_ORDERS: dict[tuple[object, ...], tuple[int, ...]] = {}
"""Shape of a rule -> where each listed statement was written, for rules that are only put in another order.

A node has thousands of rules that differ in addresses and ports alone. What nft does to them does not depend on those.
"""
_MOST_SHAPES = 4096
_TESTS_OF_ANY_VALUE = ("iifname", "oifname", "iif", "oif", "skuid", "skgid")


def _shape(statements: list[st.Statement], family: str) -> tuple[object, ...] | None:
    """Return what `normal` looks at in these statements; None where that may be everything."""
    out: list[object] = [family]
    for one in statements:
        kind = type(one)
        if kind is st.Match:
            left, right = one.left, one.right  # type: ignore[union-attr]
            if type(right) is not ex.Constant or type(right.value) not in (int, str):
                return None
            if type(left) is ex.Payload and (left.proto, left.field) not in _PROTOCOL_FIELDS:
                out.append((one.op, left.proto, left.field, right.type))  # type: ignore[union-attr]
            elif type(left) is ex.Meta and left.key in _TESTS_OF_ANY_VALUE:
                out.append((one.op, left.key))  # type: ignore[union-attr]
            elif type(left) is ex.Meta or type(left) is ex.Ct or type(left) is ex.Payload:
                out.append(one)
            else:
                return None
        elif kind is st.VerdictStatement or kind is st.Counter:
            out.append(kind)
        else:
            return None
    return tuple(out)


def _remember(shape: tuple[object, ...], before: list[st.Statement], after: tuple[st.Statement, ...]) -> None:
    order = []
    for one in after:
        if one not in before:
            return
        order.append(before.index(one))
    if len(set(order)) == len(order) and len(_ORDERS) < _MOST_SHAPES:
        _ORDERS[shape] = tuple(order)


# -- loading: add what header fields need --------------------------------------------------------------------------


def _with_needs(statements: list[st.Statement], family: str) -> list[st.Statement]:
    out: list[st.Statement] = []
    known = _begin(family)
    icmp_type = [-1]
    for one in statements:
        for payload in _payloads(one):
            out += _needs(payload, family, known, icmp_type)
        if isinstance(one, st.Reject):
            one = _reject(one, family, known, out)
        elif isinstance(one, st.Nat):
            one = _nat(one, family, known)
        elif isinstance(one, st.Mangle):
            one = replace(one, value=_folded(one.value))
        elif isinstance(one, st.Match):
            one = _match(one)
            _learn(one, known, family)
            _learn_last(one, known, family)
            number = _single(one)
            if _is_type_of_icmp(one):
                if number is not None:
                    icmp_type[0] = number
                elif isinstance(one.right, ex.SetLiteral) and isinstance(one.right.elements[0].key, int):
                    icmp_type[0] = one.right.elements[0].key
        elif isinstance(one, st.Tproxy) and "th" not in known:
            raise NotAllowed("Transparent proxy support requires transport protocol match")
        out.append(one)
    return out


def _payloads(one: st.Statement) -> Iterator[ex.Payload | ex.TcpOption]:
    """Every header field a statement reads, in order."""
    if isinstance(one, st.StripOption):
        return  # taking an option away does nothing where there is none
    for name in one.__struct_fields__:
        if name != "rules" and not (
            isinstance(one, st.Mangle) and isinstance(getattr(one, name), ex.TcpOption)
        ):
            yield from _fields(getattr(one, name))


def _fields(value: object) -> Iterator[ex.Payload | ex.TcpOption]:
    if isinstance(value, (ex.Payload, ex.TcpOption)):
        yield value
    elif isinstance(value, ex.Concat):
        for part in value.parts:
            yield from _fields(part)
    elif isinstance(value, ex.Binary):
        yield from _fields(value.left)
    elif isinstance(value, ex.Lookup):
        yield from _fields(value.key)
    elif isinstance(value, ex.Hash) and value.expr is not None:
        yield from _fields(value.expr)


def _needs(
    field: ex.Payload | ex.TcpOption, family: str, known: Protocols, icmp_type: list[int]
) -> list[st.Statement]:
    """Return the tests that must come before a header field is read."""
    proto = "tcp" if isinstance(field, ex.TcpOption) else field.proto
    base = ex.HEADERS[proto].base
    if base == "ll" or proto == "th":
        return []
    out: list[st.Statement] = []
    present = known.get(base)
    if present is None:
        if base == "nh":
            made = _link_test(proto, family)
            if made is None:
                raise NotAllowed(f"conflicting protocols specified: {family} vs. {proto}")
        else:
            if proto == "igmp" and family in ("inet", "bridge", "netdev") and "nh" not in known:
                network = _link_test("ip", family)
                assert network is not None
                out.append(network)
                known["nh"] = "ip"
            made = st.Match("==", ex.Meta("l4proto"), ex.Constant("inet_proto", ex.TRANSPORT_NUMBERS[proto]))
        out.append(made)
        known[base] = proto
    elif present != proto:
        raise NotAllowed(f"conflicting protocols specified: {present} vs. {proto}")
    if isinstance(field, ex.Payload):
        needed = _ICMP_NEEDS.get((field.proto, field.field))
        if needed is not None and icmp_type[0] < 0:
            kind = f"{field.proto}_type"
            key = ex.Payload(field.proto, "type")
            if needed in (8, 128):
                codes = (0, 8) if needed == 8 else (128, 129)
                elements = tuple(ex.Element(code) for code in codes)
                out.append(st.Match("==", key, ex.SetLiteral((kind,), elements)))
            else:
                out.append(st.Match("==", key, ex.Constant(kind, needed)))
            icmp_type[0] = needed
    return out


def _link_test(proto: str, family: str) -> st.Match | None:
    if family == "inet" and proto in _NFPROTO:
        return st.Match("==", ex.Meta("nfproto"), ex.Constant("nf_proto", _NFPROTO[proto]))
    if family in ("bridge", "netdev"):
        return st.Match("==", ex.Meta("protocol"), ex.Constant("ether_type", _LINK[proto]))
    return None


def _single(one: st.Match) -> int | None:
    """Return the number on the right of an equality with one value."""
    if one.op == "==" and isinstance(one.right, ex.Constant) and isinstance(one.right.value, int):
        return one.right.value
    return None


def _learn(one: st.Match, known: Protocols, family: str) -> None:
    """Note what a test says about the packet's protocols."""
    number = _single(one)
    left = one.left
    if number is None:
        return
    if isinstance(left, ex.Meta):
        if left.key == "l4proto":
            known["th"] = ex.TRANSPORT_NAMES.get(number, "unknown")
        elif left.key == "nfproto":
            known["nh"] = _NFPROTO_NAMES.get(number, "unknown")
        elif left.key == "protocol" and family in ("bridge", "netdev"):
            known["nh"] = _LINK_NAMES.get(number, "unknown")
    elif isinstance(left, ex.Payload):
        if (left.proto, left.field) in (("ip", "protocol"), ("ip6", "nexthdr")):
            known["th"] = ex.TRANSPORT_NAMES.get(number, "unknown")
        elif (left.proto, left.field) in (("ether", "type"), ("vlan", "type")):
            name = _LINK_NAMES.get(number, "unknown")
            if name != "vlan":
                known["nh"] = name


def _learn_last(one: st.Match, known: Protocols, family: str) -> None:
    """nft takes a test against several protocols for one against the last of them."""
    right = one.right
    if one.op == "==" and isinstance(right, ex.SetLiteral) and len(right.key) == 1:
        key = right.elements[-1].key
        if isinstance(key, int):
            _learn(st.Match("==", one.left, ex.Constant(right.key[0], key)), known, family)


def _is_type_of_icmp(one: st.Statement) -> bool:
    return (
        isinstance(one, st.Match)
        and isinstance(one.left, ex.Payload)
        and one.left.proto in ("icmp", "icmpv6")
        and one.left.field == "type"
    )


def _match(one: st.Match) -> st.Match:
    """Fold masks, and write a mask of leading ones as a prefix."""
    left = _folded(one.left)
    right = one.right
    if (
        isinstance(left, ex.Binary)
        and left.op == "&"
        and isinstance(right, ex.Constant)
        and isinstance(right.value, (int, str))
        and isinstance(left.right, ex.Constant)
        and isinstance(left.right.value, (int, str))
    ):
        kind = TYPES[left.right.type]
        mask = value_int(left.right.value)
        ones = (1 << kind.bits) - 1 if kind.bits else 0
        host = ones ^ mask
        if kind.prefix and host & (host + 1) == 0:
            length = kind.bits - host.bit_length()
            value = value_of(kind.name, value_int(right.value) & mask)
            interval = ex.Interval(value, value_of(kind.name, value_int(value) | host), length)
            return st.Match(
                one.op, left.left, ex.Constant(kind.name, value if length == kind.bits else interval)
            )
    return replace(one, left=left)


def _folded(expr: ex.Expression) -> ex.Expression:
    """Return a chain of &, | and ^ with constants as the kernel's one step `(x & mask) ^ xor`, printed as nft does."""
    if isinstance(expr, ex.Lookup):
        return replace(expr, key=_folded(expr.key))
    if not isinstance(expr, ex.Binary) or expr.op in ("<<", ">>"):
        return expr
    steps: list[tuple[str, int]] = []
    inner: ex.Expression = expr
    while isinstance(inner, ex.Binary) and inner.op not in ("<<", ">>"):
        right = inner.right
        if not isinstance(right, ex.Constant) or not isinstance(right.value, (int, str)):
            return expr
        steps.append((inner.op, value_int(right.value)))
        inner = inner.left
    kind, bits = ex.type_of(inner)
    if TYPES[kind].base == "bitmask":
        return expr
    ones = (1 << bits) - 1
    mask, xor = ones, 0
    for op, value in reversed(steps):
        keep, flip = {"&": (value, 0), "|": (ones & ~value, value), "^": (ones, value)}[op]
        xor = flip ^ (xor & keep)
        mask &= keep
    either = xor & ~mask & ones
    xor &= mask
    mask |= either
    out = inner
    for op, value, shown in (("&", mask, mask != ones), ("^", xor, bool(xor)), ("|", either, bool(either))):
        if shown:
            out = ex.Binary(op, out, ex.Constant(kind, value_of(kind, value)))
    return out


def _reject(one: st.Reject, family: str, known: Protocols, out: list[st.Statement]) -> st.Reject:
    network = known.get("nh")
    if one.kind == "":
        if family in ("ip", "ip6"):
            one = st.Reject("icmp" if family == "ip" else "icmpv6", 3 if family == "ip" else 4)
        elif network in ("ip", "ip6"):
            one = st.Reject("icmp" if network == "ip" else "icmpv6", 3 if network == "ip" else 4)
        else:
            one = st.Reject("icmpx", 1)
    if one.kind == "tcp reset":
        present = known.get("th")
        if present is None:
            out.append(st.Match("==", ex.Meta("l4proto"), ex.Constant("inet_proto", 6)))
            known["th"] = "tcp"
        elif present != "tcp":
            raise NotAllowed("you cannot use tcp reset with this protocol")
        return one
    if family == "arp":
        raise NotAllowed("cannot use reject with arp")
    if family in ("ip", "ip6"):
        if one.kind == "icmpx":
            raise NotAllowed("abstracted ICMP unreachable not supported")
        if (one.kind == "icmp") != (family == "ip"):
            raise NotAllowed("conflicting protocols specified: ip vs ip6")
        return one
    if one.kind in ("icmp", "icmpv6"):
        wanted = "ip" if one.kind == "icmp" else "ip6"
        if network is None:
            made = _link_test(wanted, family)
            assert made is not None
            out.append(made)
            known["nh"] = wanted
        elif network != wanted:
            raise NotAllowed("conflicting protocols specified: ip vs ip6")
        return replace(one, verbose=True)
    return one


def _nat(one: st.Nat, family: str, known: Protocols) -> st.Nat:
    if family not in ("ip", "ip6", "inet"):
        raise NotAllowed("NAT is only supported for IPv4/IPv6")
    if one.port is not None and known.get("th") not in ("tcp", "udp", "sctp", "dccp", "udplite"):
        raise NotAllowed("transport protocol mapping is only valid after transport protocol match")
    address = one.address
    if (
        isinstance(address, ex.Constant)
        and isinstance(address.value, ex.Interval)
        and address.value.length < 0
    ):
        address = ex.Constant(address.type, constants.in_set(address.type, address.value))
    shown = one.family
    if family == "inet" and address is not None and not shown:
        network = known.get("nh")
        if network in ("ip", "ip6"):
            shown = network
        elif isinstance(address, ex.Constant):
            shown = "ip6" if address.type == "ipv6_addr" else "ip"
    return replace(
        one, address=address, family=shown if family == "inet" and address is not None else one.family
    )


# -- joining neighbouring fields -----------------------------------------------------------------------------------

_BASES = {"ll": 0, "nh": 1, "th": 2}
_PROTOCOL_FIELDS = frozenset(
    (("ip", "protocol"), ("ip6", "nexthdr"), ("ether", "type"), ("vlan", "type"), ("icmp", "type"), ("icmpv6", "type"),
     ("ah", "nexthdr"), ("comp", "nexthdr"))
)  # fmt: skip


def _joined(statements: list[st.Statement]) -> list[st.Statement]:
    """Bring equalities on fields that lie side by side together, in the order of the header (`stmt_reduce`)."""
    out: list[st.Statement | None] = list(statements)
    run: list[int] = []
    for index, one in enumerate(statements):
        if not isinstance(one, (st.Match, st.FlagMatch, st.Vmap)):
            if len(run) > 1:
                _join_run(statements, out, run)
                run = []
            continue
        if (
            isinstance(one, st.Match)
            and one.op in ("==", "!=")
            and isinstance(one.left, ex.Payload)
            and isinstance(one.right, ex.Constant)
            and not isinstance(one.right.value, (ex.Interval, ex.CatchAll))
        ):
            run.append(index)
    if len(run) > 1:
        _join_run(statements, out, run)
    flat: list[st.Statement] = []
    for kept in out:
        if isinstance(kept, _Joined):
            flat += kept.parts
        elif kept is not None:
            flat.append(kept)
    return flat


class _Joined(st.NoTrack, frozen=True):
    """Several matches in one place."""

    parts: tuple[st.Statement, ...] = ()


def _join_run(statements: list[st.Statement], out: list[st.Statement | None], run: list[int]) -> None:
    def where(index: int) -> tuple[int, int]:
        one = statements[index]
        assert isinstance(one, st.Match)
        assert isinstance(one.left, ex.Payload)
        return _BASES[one.left.base], one.left.place.offset

    order = sorted(run, key=where)
    # (first bit, bits, place in the rule, the matches, is there a protocol field)
    last = order[0]
    group: list[int] = [last]
    place = last
    for index in order[1:]:
        first, this = statements[group[0]], statements[index]
        assert isinstance(first, st.Match)
        assert isinstance(this, st.Match)
        before = statements[group[-1]]
        assert isinstance(before, st.Match)
        assert isinstance(before.left, ex.Payload)
        assert isinstance(this.left, ex.Payload)
        assert isinstance(first.left, ex.Payload)
        size = before.left.place.offset + before.left.place.bits - first.left.place.offset
        if _can_join(first.left, size, this.left) and first.op == this.op == "==":
            keeps = (this.left.proto, this.left.field) in _PROTOCOL_FIELDS
            target = place if keeps else index
            gone = index if keeps else place
            group.append(index)
            out[gone] = None
            out[target] = _Joined(parts=tuple(statements[i] for i in group))
            place = target
        else:
            group, place = [index], index


def _can_join(first: ex.Payload, size: int, this: ex.Payload) -> bool:
    start = first.place.offset
    if first.base != this.base or start + size != this.place.offset:
        return False
    if start % 8 or size % 8 or this.place.bits % 8:
        return False
    total = size + this.place.bits
    if total > 128:
        return False
    return total <= 32 or first.base == "ll" or size > 32 or this.place.bits > 32


# -- listing: leave out what later fields imply --------------------------------------------------------------------


class _Listing:
    def __init__(self, family: str) -> None:
        self.family = family
        self.known = _begin(family)
        self.out: list[st.Statement | None] = []
        self.deps: dict[str, int] = {}
        """Base a test makes known -> its number in `out`; "inner" for a test in the transport header itself."""
        self.icmp_type = -1

    def exists(self, base: str) -> int | None:
        found = self.deps.get(base)
        if found is None and base == "th":
            found = self.deps.get("inner")
        return found

    def release(self, base: str) -> None:
        name = base if base in self.deps else "inner"
        index = self.deps.pop(name, None)
        if index is not None:
            self.out[index] = None

    def read(self, expr: object) -> object:
        """A header field is read: name it by what is known, and drop the test it implies."""
        if isinstance(expr, ex.Payload):
            done = self.complete(expr)
            self.kill(done)
            return done
        if isinstance(expr, ex.RawPayload):
            named = self.named(expr)
            if isinstance(named, ex.Payload):
                self.kill(named)
            return named
        if isinstance(expr, ex.TcpOption):
            if self.exists("th") is not None:
                self.release("th")
            return expr
        if isinstance(expr, ex.Concat):
            return ex.Concat(tuple(self.read(part) for part in expr.parts))  # type: ignore[misc]
        if isinstance(expr, ex.Binary):
            return replace(expr, left=self.read(expr.left))
        if isinstance(expr, ex.Lookup):
            return replace(expr, key=self.read(expr.key))
        if isinstance(expr, ex.Hash) and expr.expr is not None:
            return replace(expr, expr=self.read(expr.expr))
        return expr

    def complete(self, payload: ex.Payload) -> ex.Payload:
        """Return a field as it is called where just this much is known of the packet."""
        if payload.base == "th" and payload.field in ("sport", "dport") and "th" not in self.known:
            return ex.Payload("th", payload.field)
        present = self.known.get("th", "")
        if (
            payload.proto == "th"
            and payload.field in ex.HEADERS.get(present, ex.HEADERS["th"]).fields
            and present in ex.HEADERS
        ):
            if ex.HEADERS[present].fields[payload.field].type == "inet_service":
                return ex.Payload(present, payload.field)
        return payload

    def named(self, raw: ex.RawPayload) -> ex.Payload | ex.RawPayload:
        proto = self.known.get(raw.base, "th" if raw.base == "th" else "")
        header = ex.HEADERS.get(proto)
        if header is not None:
            for name, field in header.fields.items():
                if field.offset == raw.offset and field.bits == raw.length:
                    return ex.Payload(proto, name)
        return raw

    def kill(self, payload: ex.Payload) -> None:
        index = self.exists(payload.base)
        if index is None:
            return
        dep = self.out[index]
        assert isinstance(dep, st.Match)
        if self._may_kill(dep, payload):
            self.release(payload.base)

    def _may_kill(self, dep: st.Match, payload: ex.Payload) -> bool:
        left = dep.left
        if self.family in ("bridge", "netdev", "inet") and isinstance(left, ex.Payload):
            if left.proto in ("ip", "ip6") and payload.base == "th":
                return False
            if dep.op == "==" and payload.base == left.base:
                if (payload.proto, payload.field) in _PROTOCOL_FIELDS:
                    return False
                if payload.base == "ll":
                    return left.proto != "vlan" and (left.proto != "ether" or _single(dep) == 0x8100)
        if payload.base != "th" or not isinstance(left, ex.Payload) or left.base != "th":
            return True
        if left.proto in ("icmp", "icmpv6"):
            needed = _ICMP_NEEDS.get((payload.proto, payload.field))
            return needed is not None and left.proto == payload.proto and self.icmp_type == needed
        return True

    def match(self, one: st.Match) -> None:
        left = one.left
        right = one.right
        plain = (
            one.op in ("==", "!=")
            and isinstance(right, ex.Constant)
            and not isinstance(right.value, (ex.Interval, ex.CatchAll))
        )
        if isinstance(left, (ex.Payload, ex.RawPayload)):
            named = self.complete(left) if isinstance(left, ex.Payload) else self.named(left)
            if named is not left:
                one = replace(one, left=named, right=_retyped(right, named))
            if plain and one.op == "==":
                _learn(one, self.known, self.family)
            if isinstance(named, ex.Payload):
                self.kill(named)
            self.out.append(one)
            if plain and one.op == "==" and isinstance(named, ex.Payload):
                self._store_payload(named, one)
            return
        left = self.read(left)  # type: ignore[assignment]
        one = replace(one, left=left)
        number = _single(one)
        if isinstance(left, ex.Meta) and number is not None:
            self._meta(left, one, number)
        self.out.append(one)

    def _store_payload(self, payload: ex.Payload, one: st.Match) -> None:
        if (payload.proto, payload.field) not in _PROTOCOL_FIELDS:
            return
        if payload.proto in ("icmp", "icmpv6"):
            number = _single(one)
            self.icmp_type = -1 if number is None else number
            if (payload.proto == "icmp" and number == _ECHO) or (
                payload.proto == "icmpv6" and number in _ECHO6
            ):
                return
        self.deps[{"ll": "nh", "nh": "th", "th": "inner"}[payload.base]] = len(self.out) - 1

    def _meta(self, left: ex.Meta, one: st.Match, number: int) -> None:
        """A test of a protocol key: it may make an earlier one superfluous, and may itself become so."""
        base = {"l4proto": "nh", "nfproto": "ll", "protocol": "ll"}.get(left.key)
        _learn(one, self.known, self.family)
        if base is None:
            return
        index = self.exists(base)
        if index is not None:
            dep = self.out[index]
            assert isinstance(dep, st.Match)
            if self._meta_may_kill(dep, left, number):
                self.release(base)
        self.deps["th" if base == "nh" else "nh"] = len(self.out)

    def _meta_may_kill(self, dep: st.Match, left: ex.Meta, l4proto: int) -> bool:
        number = _single(dep)
        network = ""
        if isinstance(dep.left, ex.Meta) and dep.left.key == "nfproto":
            network = _NFPROTO_NAMES.get(number or 0, "")
        elif (isinstance(dep.left, ex.Meta) and dep.left.key == "protocol") or (
            isinstance(dep.left, ex.Payload) and dep.left.field == "type" and dep.left.base == "ll"
        ):
            network = _LINK_NAMES.get(number or 0, "")
        else:
            return True
        if self.family in ("ip", "ip6"):
            return self.family == network
        if self.family not in ("inet", "netdev", "bridge") or left.key != "l4proto":
            return True
        if l4proto not in (1, 58):
            return False
        return not ((network == "ip" and l4proto == 58) or (network == "ip6" and l4proto == 1))


def _retyped(right: ex.Expression, left: ex.Expression) -> ex.Expression:
    """Return a constant in the data type of what it is compared with."""
    kind, _bits = ex.type_of(left)
    if isinstance(right, ex.Constant) and right.type != kind and isinstance(right.value, int):
        return ex.Constant(kind, value_of(kind, right.value))
    if isinstance(right, ex.SetLiteral) and right.key != (kind,):
        elements = tuple(
            replace(one, key=value_of(kind, one.key)) if isinstance(one.key, int) else one
            for one in right.elements
        )
        return replace(right, key=(kind,), elements=elements)
    return right


def _listed(
    statements: list[st.Statement], family: str, set_of: Callable[[str], Set]
) -> Iterator[st.Statement]:
    listing = _Listing(family)
    out = listing.out
    for one in statements:
        if isinstance(one, st.Match):
            listing.match(one)
            if _merges(out):
                low, high = out[-2], out[-1]
                assert isinstance(low, st.Match)
                assert isinstance(high, st.Match)
                out.pop()
                out[-1] = _range(low, high)
            continue
        if isinstance(one, st.FlagMatch):
            out.append(replace(one, left=listing.read(one.left)))
            continue
        if isinstance(one, st.Vmap):
            out.append(replace(one, key=listing.read(one.key)))
            continue
        if isinstance(one, st.Reject):
            if family in ("ip", "ip6"):
                if one.kind == "tcp reset" and listing.exists("th") is not None:
                    listing.release("th")
            elif one.kind != "icmpx" and listing.exists("nh") is not None:
                listing.release("nh")
            out.append(one)
        elif isinstance(one, st.Nat):
            made = replace(one, address=listing.read(one.address))
            if family != "inet" or (isinstance(made.address, ex.Lookup) and not made.family):
                made = replace(made, family=_nat_family(made, family, set_of))
            out.append(made)
        elif isinstance(one, st.SetUpdate):
            statements_of = () if set_of(one.set).statements else one.statements
            out.append(replace(one, key=listing.read(one.key), statements=statements_of))
        elif isinstance(one, st.Meter):
            out.append(replace(one, key=listing.read(one.key)))
        elif isinstance(one, st.Mangle):
            key = listing.read(one.key) if isinstance(one.key, ex.Payload) else one.key
            out.append(st.Mangle(key, listing.read(one.value)))  # type: ignore[arg-type]
        elif isinstance(one, st.ObjectRef):
            out.append(replace(one, name=listing.read(one.name)))
        else:
            out.append(one)
        listing.deps.clear()
    for kept in out:
        if kept is not None:
            yield kept


def _merges(out: list[st.Statement | None]) -> bool:
    """`x >= a x <= b` lists as a range."""
    if len(out) < 2:
        return False
    first, second = out[-2], out[-1]
    return (
        isinstance(first, st.Match)
        and isinstance(second, st.Match)
        and first.left == second.left
        and (first.op, second.op) in ((">=", "<="), ("<", ">"))
        and isinstance(first.right, ex.Constant)
        and isinstance(second.right, ex.Constant)
    )


def _range(low: st.Match, high: st.Match) -> st.Match:
    assert isinstance(low.right, ex.Constant)
    assert isinstance(high.right, ex.Constant)
    first, last = low.right.value, high.right.value
    assert isinstance(first, (int, str))
    assert isinstance(last, (int, str))
    op = "==" if low.op == ">=" else "!="
    return st.Match(op, low.left, ex.Constant(low.right.type, ex.Interval(first, last)))


def _nat_family(one: st.Nat, family: str, set_of: Callable[[str], Set]) -> str:
    """Return what stands between `dnat` and `to` outside an inet table: the family where a map gives a port too."""
    address = one.address
    if not isinstance(address, ex.Lookup):
        return ""
    if isinstance(address.data, ex.SetRef):
        declared = set_of(address.data.name)
        wide = len(declared.data) > 1 or declared.data_interval
    else:
        intervals = any(isinstance(e.data, ex.Interval) for e in address.data.elements)
        wide = len(address.data.data) > 1 or intervals
    if not wide:
        return ""
    return family if family in ("ip", "ip6") else one.family or "ip"
