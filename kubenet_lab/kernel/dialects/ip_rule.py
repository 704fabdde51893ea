"""`ip rule`: policy routing rules as text and JSON, both ways (iproute2 6.1, `ip/iprule.c` print_rule)."""

from __future__ import annotations

from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.ip_route import table_name
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN, TABLE_NAMES, RouteRule
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import PROTO_NAMES, PROTO_NUMBERS

ACTIONS = ("blackhole", "unreachable", "prohibit")
FULL_MASK = 0xFFFFFFFF


def _bare(text: str) -> str:
    """Return a prefix without the length when it is a single address."""
    return text.removesuffix("/128" if ":" in text else "/32")


def _text(rule: RouteRule) -> str:
    words = ["not"] if rule.invert else []
    words += ["from", _bare(rule.src) if rule.src else "all"]
    if rule.dst:
        words += ["to", _bare(rule.dst)]
    if rule.fwmask:
        mask = "" if rule.fwmask == FULL_MASK else f"/{rule.fwmask:#x}"
        words += ["fwmark", f"{rule.fwmark:#x}{mask}"]
    if rule.iif:
        words += ["iif", rule.iif]
    if rule.oif:
        words += ["oif", rule.oif]
    if rule.ipproto:
        words += ["ipproto", PROTO_NAMES.get(rule.ipproto, str(rule.ipproto))]
    if rule.action == "lookup":
        words += ["lookup", table_name(rule.table)]
        if rule.suppress_prefixlength >= 0:
            words += ["suppress_prefixlength", str(rule.suppress_prefixlength)]
    else:
        words.append(rule.action)
    return f"{rule.priority}:\t{' '.join(words)}"


def _row(rule: RouteRule) -> dict[str, Any]:
    row: dict[str, Any] = {"priority": rule.priority}
    if rule.invert:
        row["not"] = None
    row |= _address("src", rule.src) if rule.src else {"src": "all"}
    if rule.dst:
        row |= _address("dst", rule.dst)
    if rule.fwmask:
        row["fwmark"] = f"{rule.fwmark:#x}"
        if rule.fwmask != FULL_MASK:
            row["fwmask"] = f"{rule.fwmask:#x}"
    if rule.iif:
        row["iif"] = rule.iif
    if rule.oif:
        row["oif"] = rule.oif
    if rule.ipproto:
        row["ipproto"] = PROTO_NAMES.get(rule.ipproto, str(rule.ipproto))
    if rule.action == "lookup":
        row["table"] = table_name(rule.table)
        if rule.suppress_prefixlength >= 0:
            row["suppress_prefixlen"] = rule.suppress_prefixlength
    else:
        row["action"] = rule.action
    return row


def _address(key: str, text: str) -> dict[str, Any]:
    host, _, length = _bare(text).partition("/")
    return {key: host, f"{key}len": int(length)} if length else {key: host}


def show(
    ns: Netns,
    *,
    family: int = 4,
    json: bool = False,
    pretty: bool = False,
    rules: list[RouteRule] | None = None,
) -> str:
    """Return `ip [-6] [-j] rule`; only `rules` when they are given."""
    chosen = ns.rules[family] if rules is None else rules
    if json:
        return iproute2.dumps([_row(rule) for rule in chosen], pretty)
    return "".join(_text(rule) + "\n" for rule in chosen)


def _prefix(word: str, what: str) -> str:
    try:
        return prefix(word).text
    except ValueError:
        raise Wrong(f"{what} must be a prefix or an address, not {word!r}", what) from None


def _mark(word: str) -> tuple[int, int]:
    value, _, mask = word.partition("/")
    return iproute2.number(value, "fwmark"), iproute2.number(mask, "fwmask") if mask else FULL_MASK


def _table(word: str) -> int:
    numbers = {name: table for table, name in TABLE_NAMES.items()}
    return numbers[word] if word in numbers else iproute2.number(word, "table")


def _ipproto(word: str) -> int:
    return PROTO_NUMBERS[word] if word in PROTO_NUMBERS else iproute2.number(word, "ipproto")


def from_words(items: Words, *, family: int = 4, priority: int = -1, carry: Any = None) -> RouteRule:
    """Read the words of a rule, in the output's grammar or that of `ip rule add`. Raises Wrong.

    `carry(what, path)` takes fields that are not modelled. `priority` -1 means that none was given so far.
    """
    fields: dict[str, Any] = {"priority": priority, "family": family}
    while items:
        word = items.take("a field")
        if word == "not":
            fields["invert"] = True
        elif word in ("from", "to"):
            got = items.take(word)
            if got != "all":
                fields["src" if word == "from" else "dst"] = _prefix(got, word)
        elif word == "fwmark":
            fields["fwmark"], fields["fwmask"] = _mark(items.take("fwmark"))
        elif word in ("iif", "dev", "oif"):
            fields["oif" if word == "oif" else "iif"] = items.take(word)
            if items.peek() == "[detached]":
                items.take("[detached]")
        elif word == "ipproto":
            fields["ipproto"] = _ipproto(items.take("ipproto"))
        elif word in ("lookup", "table"):
            fields["table"] = _table(items.take("table"))
        elif word in ("suppress_prefixlength", "sup_pl"):
            fields["suppress_prefixlength"] = items.number("suppress_prefixlength")
        elif word in ("pref", "priority", "preference", "order"):
            fields["priority"] = items.number("priority")
        elif word in ACTIONS:
            fields["action"] = word
        elif word == "proto":
            items.take("proto")
        elif word in (
            "sport",
            "dport",
            "tos",
            "dsfield",
            "uidrange",
            "realms",
            "goto",
            "tun_id",
            "suppress_ifgroup",
        ):
            what = f"{word} {items.take(word)}"
            if carry is None:
                raise Wrong(f"not modelled: {what}", word)
            carry(what, word)
        else:
            raise Wrong(f"unknown word {word!r}", word)
    return RouteRule(**fields)


_JSON_KEYS = frozenset(
    [
        "priority",
        "not",
        "src",
        "srclen",
        "dst",
        "dstlen",
        "fwmark",
        "fwmask",
        "iif",
        "oif",
        "ipproto",
        "table",
        "suppress_prefixlen",
        "action",
        "protocol",
    ]
)


def _from_json(item: dict[str, Any], notes: Unmodelled, path: str, family: int) -> RouteRule:
    def where(key: str) -> str:
        text = str(item.get(key, "all"))
        if text == "all":
            return ""
        return _prefix(f"{text}/{item[key + 'len']}" if f"{key}len" in item else text, key)

    for key in item:
        if key not in _JSON_KEYS:
            notes.carry(key, 0, f"{path}.{key}")
    src, dst = where("src"), where("dst")
    marked = "fwmark" in item
    return RouteRule(
        iproute2.number(iproute2.need(item, "priority"), "priority"),
        _table(str(item.get("table", TABLE_MAIN))),
        src,
        dst,
        str(item.get("iif", "")),
        str(item.get("oif", "")),
        iproute2.number(item.get("fwmark", 0), "fwmark"),
        iproute2.number(item.get("fwmask", FULL_MASK), "fwmask") if marked else 0,
        "not" in item,
        str(item.get("action", "lookup")),
        6 if ":" in src + dst else family,
        iproute2.number(item.get("suppress_prefixlen", -1), "suppress_prefixlen"),
        _ipproto(str(item["ipproto"])) if "ipproto" in item else 0,
    )


def parse(
    text: str, *, family: int = 4, file: str = "<text>", unknown: list[Fault] | None = None
) -> list[RouteRule]:
    """Read the output of `ip rule` or `ip -j rule`.

    Raises:
        InputError: With every fault; see `ip_route.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):
        return iproute2.read_json(text, notes, lambda item, path: _from_json(item, notes, path, family))
    out: list[RouteRule] = []
    for at, line in iproute2.lines_of(text):
        try:
            number, colon, rest = line.partition(":")
            if not colon or not number.strip().isdigit():
                raise Wrong('a rule begins with its priority: "100:\\tfrom all lookup main"', "priority")
            items = Words(rest)
            out.append(
                from_words(
                    items,
                    family=family,
                    priority=int(number),
                    carry=lambda what, path, at=at: notes.carry(what, at, path),
                )
            )
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
