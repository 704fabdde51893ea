"""`ip route`: routes as text and JSON, both ways, and `ip route get` (iproute2 6.1, `ip/iproute.c`
print_route).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import PROTOCOLS, ROUTE_TYPES, SCOPES, Unmodelled, Words, Wrong
from kubenet_lab.kernel.netns import Netns, RouteLookup
from kubenet_lab.kernel.route import TABLE_LOCAL, TABLE_MAIN, TABLE_NAMES, NextHop, Route, default_rules
from kubenet_lab.packet.ip import family as family_of
from kubenet_lab.packet.ip import prefix

REFUSALS = {
    "blackhole": "Invalid argument",
    "unreachable": "No route to host",
    "prohibit": "Permission denied",
    "throw": "Resource temporarily unavailable",
}
"""What the kernel answers to `ip route get` when a route of that type decides."""


def in_order(routes: Iterable[Route]) -> list[Route]:
    """Return routes of one table and family in the order the kernel lists them.

    IPv4: the trie goes by address, the longer prefix first at the same address, then by metric. IPv6: a
    prefix comes after those inside it, so "default" is last.
    """

    def key(route: Route) -> tuple[int, int, int]:
        block = prefix(route.dst)
        if block.family == 4:
            return (block.net, -block.length, route.metric)
        return (block.net | (~block.mask & (1 << 128) - 1), -block.length, route.metric)

    return sorted(routes, key=key)


def destination(route: Route) -> str:
    """Return the destination as printed: "default", an address without its full length, or the prefix."""
    if route.dst in ("0.0.0.0/0", "::/0"):
        return "default"
    return route.dst.removesuffix("/128" if route.family == 6 else "/32")


def table_name(table: int) -> str:
    """Return a table's name in /etc/iproute2/rt_tables, or its number."""
    return TABLE_NAMES.get(table, str(table))


def _visible_scope(route: Route, details: bool) -> bool:
    return route.family == 4 and (details or route.scope != "global")


def _state(ns: Netns | None, dev: str) -> list[str]:
    """Return what the kernel says of a next hop's link: dead once it is down, linkdown without carrier."""
    from kubenet_lab.kernel.dialects import ip_link

    link = ns.links.get(dev) if ns is not None else None
    if ns is None or link is None or link.kind == "loopback":
        return []
    if not link.up:
        return ["dead", "linkdown"]
    return [] if ip_link.carrier(ns, link) else ["linkdown"]


def _route_state(ns: Netns | None, route: Route) -> list[str]:
    """Return the state of a route: that of its link, or what is true of all its next hops."""
    if not route.nexthops:
        return _state(ns, route.dev)
    states = [_state(ns, hop.dev) for hop in route.nexthops]
    return [word for word in ("dead", "linkdown") if all(word in state for state in states)]


def _text(route: Route, *, details: bool, tables: bool, hide: frozenset[str], ns: Netns | None) -> str:
    out: list[str] = []
    if route.type != "unicast" or details:
        out.append(route.type)
    out.append(destination(route))
    if route.via and "via" not in hide:
        out.append(f"via {_via(route.via, route.family)}")
    if route.dev and "dev" not in hide:
        out.append(f"dev {route.dev}")
    if tables and route.table != TABLE_MAIN:
        out.append(f"table {table_name(route.table)}")
    if (route.proto != "boot" or details) and "proto" not in hide:
        out.append(f"proto {route.proto}")
    if _visible_scope(route, details) and "scope" not in hide:
        out.append(f"scope {route.scope}")
    if route.prefsrc and "src" not in hide:
        out.append(f"src {route.prefsrc}")
    if route.metric or (route.family == 6 and route.table == TABLE_LOCAL):
        out.append(f"metric {route.metric}")
    if route.onlink:
        out.append("onlink")
    out += _route_state(ns, route)
    if route.mtu:
        out.append(f"mtu {route.mtu}")
    line = " ".join(out) + " "
    if route.family == 6:
        line += "pref medium"
    for hop in route.nexthops:
        via = f"via {_via(hop.via, route.family)} " if hop.via else ""
        line += f"\n\tnexthop {via}dev {hop.dev} weight {hop.weight} "
        line += "onlink " if hop.onlink else ""
        line += "".join(f"{word} " for word in _state(ns, hop.dev))
    return line


def _via(via: str, family: int) -> str:
    return via if family_of(via) == family else f"inet{'6' if ':' in via else ''} {via}"


def _row(
    route: Route, *, details: bool, tables: bool, hide: frozenset[str], ns: Netns | None
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if route.type != "unicast" or details:
        row["type"] = route.type
    row["dst"] = destination(route)
    if route.via and "via" not in hide:
        if family_of(route.via) == route.family:
            row["gateway"] = route.via
        else:
            row["via"] = {"family": "inet6" if ":" in route.via else "inet", "host": route.via}
    if route.dev and "dev" not in hide:
        row["dev"] = route.dev
    if tables and route.table != TABLE_MAIN:
        row["table"] = table_name(route.table)
    if (route.proto != "boot" or details) and "proto" not in hide:
        row["protocol"] = route.proto
    if _visible_scope(route, details) and "scope" not in hide:
        row["scope"] = route.scope
    if route.prefsrc and "src" not in hide:
        row["prefsrc"] = route.prefsrc
    if route.metric or (route.family == 6 and route.table == TABLE_LOCAL):
        row["metric"] = route.metric
    row["flags"] = (["onlink"] if route.onlink else []) + _route_state(ns, route)
    if route.mtu:
        row["metrics"] = [{"mtu": route.mtu}]
    if route.family == 6:
        row["pref"] = "medium"
    if route.nexthops:
        row["nexthops"] = [
            ({"gateway": hop.via} if hop.via else {})
            | {
                "dev": hop.dev,
                "weight": hop.weight,
                "flags": (["onlink"] if hop.onlink else []) + _state(ns, hop.dev),
            }
            for hop in route.nexthops
        ]
    return row


def show_routes(
    routes: Iterable[Route],
    *,
    json: bool = False,
    details: bool = False,
    tables: bool = False,
    hide: frozenset[str] = frozenset(),
    pretty: bool = False,
    oneline: bool = False,
    ns: Netns | None = None,
) -> str:
    """Return routes in the order given.

    Args:
        routes: What to print.
        json: The `-j` form; `pretty` is `-p`.
        details: The `-d` form.
        tables: Name tables other than main, as `table all` does.
        hide: Fields that a filter fixed and that are therefore left out ("dev", "proto", "via", "scope",
            "src").
        pretty: Indent JSON as `-p` does.
        oneline: The `-o` form.
        ns: Where links are looked up, for `linkdown`.
    """
    if json:
        rows = [_row(route, details=details, tables=tables, hide=hide, ns=ns) for route in routes]
        return iproute2.dumps(rows, pretty)
    texts = [_text(route, details=details, tables=tables, hide=hide, ns=ns) for route in routes]
    if oneline:
        texts = [text.replace("\n", "\\") for text in texts]
    return "".join(text + "\n" for text in texts)


def select(ns: Netns, family: int = 4, table: int | None = TABLE_MAIN) -> list[Route]:
    """Return a table's routes in the kernel's order; every table's when `table` is None."""
    if table is not None:
        return in_order(ns.routes.get((family, table), {}).values())
    numbers = sorted({t for fam, t in ns.routes if fam == family}, key=lambda t: (t & 255, t))
    return [route for number in numbers for route in select(ns, family, number)]


def show(
    ns: Netns,
    *,
    family: int = 4,
    table: int | None = TABLE_MAIN,
    json: bool = False,
    details: bool = False,
    pretty: bool = False,
) -> str:
    """Return `ip [-4|-6] [-j] [-d] route [show table T]`; `table` None is `table all`."""
    routes = select(ns, family, table)
    return show_routes(routes, json=json, details=details, tables=table is None, pretty=pretty, ns=ns)


# -- ip route get --------------------------------------------------------------------------------------------


def source_for(ns: Netns, lookup: RouteLookup, dst: str) -> str:
    """Return the source address the kernel picks for a route (fib_semantics.c, inet_select_addr), or "".

    The route's own `src` wins; then an address of the outgoing link on the next hop's network; then the first
    address of that link that is not narrower than link scope; then any global one.
    """
    if lookup.route.prefsrc:
        return lookup.route.prefsrc
    if lookup.route.type == "local":
        return dst
    family = family_of(dst)
    target = lookup.via or dst
    mine = [a for a in ns.addrs(lookup.dev, family) if family == 6 or not a.secondary]
    if family == 6 and not target.startswith("fe80:"):
        mine = [a for a in mine if a.scope != "link"] or mine
    for address in mine:
        if family_of(target) == family and target in address.network and address.scope != "host":
            return address.local
    for address in mine:
        if address.scope != "host":
            return address.local
    for address in ns.addrs(None, family):
        if address.scope == "global":
            return address.local
    return ""


def show_lookup(
    ns: Netns,
    lookup: RouteLookup,
    dst: str,
    *,
    src: str = "",
    iif: str = "",
    mark: int = 0,
    uid: int = 0,
    json: bool = False,
    pretty: bool = False,
) -> str:
    """Return `ip route get DST [from SRC] [iif DEV] [mark M]` for a look-up that found a way.

    Raises:
        ValueError: The route refuses (blackhole, unreachable, prohibit, throw): the tool prints `REFUSALS`
        instead.
    """
    route = lookup.route
    if route.type in REFUSALS:
        raise ValueError(f"a {route.type} route has no way to print")
    family = family_of(dst)
    local = route.type == "local"
    dev = "lo" if local else lookup.dev
    if family == 6:
        return _lookup6(ns, lookup, dst, src, dev, json, pretty)
    chosen = "" if src or iif else source_for(ns, lookup, dst)
    cache: list[str] = []
    if local:
        cache.append("local")
    elif route.type == "broadcast":
        cache += ["local", "brd"]
    elif iif and iif == dev:
        cache.append("redirect")
    # Until somebody edits the rules, the kernel keeps local and main in one trie and calls both main.
    merged = ns.rules[4] == default_rules(4) and route.table == TABLE_LOCAL
    table = "" if merged or route.table == TABLE_MAIN else table_name(route.table)
    if json:
        row: dict[str, Any] = {} if route.type == "unicast" else {"type": route.type}
        row["dst"] = dst
        if src:
            row["from"] = src
        if lookup.via and not local:
            row["gateway"] = lookup.via
        row["dev"] = dev
        if table:
            row["table"] = table
        if chosen:
            row["prefsrc"] = chosen
        if mark:
            row["mark"] = mark
        row["flags"] = []
        if not iif:
            row["uid"] = uid
        row["cache"] = cache
        if route.mtu:
            row["metrics"] = [{"mtu": route.mtu}]
        if iif:
            row["iif"] = iif
        return iproute2.dumps([row], pretty)
    words = [] if route.type == "unicast" else [route.type]
    words.append(dst)
    if src:
        words.append(f"from {src}")
    if lookup.via and not local:
        words.append(f"via {lookup.via}")
    words.append(f"dev {dev}")
    if table:
        words.append(f"table {table}")
    if chosen:
        words.append(f"src {chosen}")
    if mark:
        words.append(f"mark {mark:#x}")
    if not iif:
        words.append(f"uid {uid}")
    second = ["    cache"]
    if cache:
        second.append(f"<{','.join(cache)}>")
    if route.mtu:
        second.append(f"mtu {route.mtu}")
    if iif:
        second.append(f"iif {iif}")
    return f"{' '.join(words)} \n{' '.join(second)} \n"


def _lookup6(ns: Netns, lookup: RouteLookup, dst: str, src: str, dev: str, json: bool, pretty: bool) -> str:
    route = lookup.route
    chosen = source_for(ns, lookup, dst)
    if json:
        row: dict[str, Any] = {} if route.type == "unicast" else {"type": route.type}
        row |= {"dst": dst, "from": src or "::"}
        if lookup.via:
            row["gateway"] = lookup.via
        row["dev"] = dev
        if route.table != TABLE_MAIN:
            row["table"] = table_name(route.table)
        if route.proto != "boot":
            row["protocol"] = route.proto
        if chosen:
            row["prefsrc"] = chosen
        row |= {"metric": route.metric, "flags": [], "pref": "medium"}
        return iproute2.dumps([row], pretty)
    words = [] if route.type == "unicast" else [route.type]
    words += [dst, f"from {src or '::'}"]
    if lookup.via:
        words.append(f"via {lookup.via}")
    words.append(f"dev {dev}")
    if route.table != TABLE_MAIN:
        words.append(f"table {table_name(route.table)}")
    if route.proto != "boot":
        words.append(f"proto {route.proto}")
    if chosen:
        words.append(f"src {chosen}")
    words.append(f"metric {route.metric} pref medium")
    return " ".join(words) + "\n"


# -- reading -------------------------------------------------------------------------------------------------


def _prefix(word: str, family: int) -> str:
    if word == "default":
        return "::/0" if family == 6 else "0.0.0.0/0"
    try:
        return prefix(word).text
    except ValueError:
        raise Wrong(
            f"dst must be a prefix or an address, not {word!r}",
            "dst",
            'write it as "10.244.1.0/24" or "default"',
        ) from None


def _table(word: Any) -> int:
    numbers = {name: table for table, name in TABLE_NAMES.items()}
    return numbers[word] if word in numbers else iproute2.number(word, "table")


def _proto(word: str) -> str:
    if word not in PROTOCOLS and not word.isdigit():
        raise Wrong(f"proto must be a name of rt_protos or a number, not {word!r}", "proto")
    return word


def _scope(word: str) -> str:
    if word not in SCOPES and not word.isdigit():
        raise Wrong(f"scope must be one of {', '.join(SCOPES)} or a number, not {word!r}", "scope")
    return word


def from_words(
    items: Words, *, family: int = 0, table: int = TABLE_MAIN, carry: Any = None
) -> dict[str, Any]:
    """Read the words of one route ("10.0.0.0/8 via 10.1.1.1 dev eth0 ...") into the fields of a Route.

    Also the grammar of `ip route add`. `carry(what, path)` takes a field that is not modelled; without it
    such a field raises Wrong, as does every other mistake.
    """
    fields: dict[str, Any] = {"table": table}
    hops: list[NextHop] = []
    if items.peek() in ROUTE_TYPES:
        fields["type"] = items.take("type")
    word = items.take("a destination")
    if word == "to":
        word = items.take("a destination")
    dst = word
    saw_scope = False
    while items:
        word = items.take("a field")
        if word == "via":
            via = items.take("via")
            if via in ("inet", "inet6"):
                via = items.take("via")
            fields["via"] = iproute2.address(via, "via")
        elif word == "dev":
            fields["dev"] = items.take("dev")
        elif word == "table":
            fields["table"] = _table(items.take("table"))
        elif word in ("proto", "protocol"):
            fields["proto"] = _proto(items.take("proto"))
        elif word == "scope":
            fields["scope"] = _scope(items.take("scope"))
            saw_scope = True
        elif word == "src":
            fields["prefsrc"] = items.address("src")
        elif word in ("metric", "priority", "preference"):
            fields["metric"] = items.number("metric")
        elif word == "onlink":
            fields["onlink"] = True
        elif word == "mtu":
            if items.peek() == "lock":
                items.take("lock")
                _carry(carry, "mtu lock", "mtu")
            fields["mtu"] = items.number("mtu")
        elif word == "pref":
            level = items.take("pref")
            if level != "medium":
                _carry(carry, f"pref {level}", "pref")
        elif word in ("linkdown", "dead", "rt_offload_failed", "offload", "trap"):
            continue
        elif word == "nexthop":
            hops.append(_hop(items, carry))
        elif word in (
            "tos",
            "dsfield",
            "realm",
            "realms",
            "advmss",
            "window",
            "rtt",
            "rttvar",
            "cwnd",
            "initcwnd",
            "initrwnd",
            "hoplimit",
            "rto_min",
            "features",
            "quickack",
            "congctl",
            "nhid",
            "expires",
            "error",
            "encap",
            "reordering",
        ):
            _carry(carry, f"{word} {items.take(word)}", word)
        else:
            raise Wrong(f"unknown word {word!r}", word)
    guess = (
        6
        if any(":" in str(fields.get(key, "")) for key in ("via", "prefsrc"))
        or any(":" in hop.via for hop in hops)
        else family
    )
    fields["dst"] = _prefix(dst, guess)
    if hops:
        fields["nexthops"] = tuple(hops)
    fields["_scope"] = saw_scope
    return fields


def _carry(carry: Any, what: str, path: str) -> None:
    if carry is None:
        raise Wrong(f"not modelled: {what}", path)
    carry(what, path)


def _hop(items: Words, carry: Any) -> NextHop:
    got: dict[str, Any] = {}
    while items and items.peek() != "nexthop":
        word = items.take("a field")
        if word == "via":
            via = items.take("via")
            got["via"] = iproute2.address(items.take("via") if via in ("inet", "inet6") else via, "via")
        elif word == "dev":
            got["dev"] = items.take("dev")
        elif word == "weight":
            got["weight"] = items.number("weight")
        elif word == "onlink":
            got["onlink"] = True
        elif word in ("linkdown", "dead", "pref", "medium"):
            continue
        else:
            _carry(carry, f"nexthop {word}", "nexthop")
    return NextHop(**got)


_JSON_KEYS = frozenset(
    [
        "type",
        "dst",
        "gateway",
        "via",
        "dev",
        "table",
        "protocol",
        "scope",
        "prefsrc",
        "metric",
        "flags",
        "metrics",
        "pref",
        "nexthops",
        "from",
        "uid",
        "cache",
    ]
)


def _from_json(item: dict[str, Any], notes: Unmodelled, path: str, family: int, table: int) -> Route:
    via = item.get("gateway") or (item.get("via") or {}).get("host", "")
    flags = item.get("flags", [])
    hops = tuple(
        NextHop(
            iproute2.address(hop["gateway"], "nexthops.gateway") if "gateway" in hop else "",
            str(hop.get("dev", "")),
            iproute2.number(hop.get("weight", 1), "nexthops.weight"),
            "onlink" in hop.get("flags", []),
        )
        for hop in item.get("nexthops", [])
    )
    for key in item:
        if key not in _JSON_KEYS:
            notes.carry(key, 0, f"{path}.{key}")
    for flag in flags:
        if flag not in ("onlink", "linkdown", "dead"):
            notes.carry(f"flag {flag}", 0, f"{path}.flags")
    mtu = 0
    for group in item.get("metrics", []):
        for key, value in group.items():
            if key == "mtu":
                mtu = iproute2.number(value, "metrics.mtu")
            else:
                notes.carry(f"metric {key}", 0, f"{path}.metrics.{key}")
    six = (
        ":" in str(via)
        or ":" in str(item.get("prefsrc", ""))
        or "pref" in item
        or any(":" in hop.via for hop in hops)
    )
    return Route(
        _prefix(str(iproute2.need(item, "dst")), 6 if six else family),
        dev=str(item.get("dev", "")),
        via=iproute2.address(via, "gateway") if via else "",
        type=str(item.get("type", "unicast")),
        table=_table(item.get("table", table)),
        proto=_proto(str(item.get("protocol", "boot"))),
        scope=_scope(str(item.get("scope", "global"))),
        metric=iproute2.number(item.get("metric", 0), "metric"),
        prefsrc=iproute2.address(item["prefsrc"], "prefsrc") if "prefsrc" in item else "",
        onlink="onlink" in flags,
        mtu=mtu,
        nexthops=hops,
    )


def parse(
    text: str,
    *,
    family: int = 4,
    table: int = TABLE_MAIN,
    file: str = "<text>",
    unknown: list[Fault] | None = None,
) -> list[Route]:
    """Read the output of `ip route` or `ip -j route` into routes, in the text's order.

    Args:
        text: Either form.
        family: What "default" without any address beside it means.
        table: The table of routes that name none, as in `ip route show table local`.
        file: Its name in faults.
        unknown: Takes the fields that are not modelled (tos, realm, ...).

    Raises:
        InputError: With every fault of the text.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):
        return iproute2.read_json(
            text, notes, lambda item, path: _from_json(item, notes, path, family, table)
        )
    groups: list[tuple[int, str]] = []
    for at, line in iproute2.lines_of(text):
        if line[0] in " \t" and groups:
            groups[-1] = (groups[-1][0], f"{groups[-1][1]} {line}")
        else:
            groups.append((at, line))
    out: list[Route] = []
    for at, line in groups:
        try:
            six = family == 6 or "pref medium" in line
            fields = from_words(
                Words(line),
                family=6 if six else family,
                table=table,
                carry=lambda what, path, at=at: notes.carry(what, at, path),
            )
            fields.pop("_scope")
            out.append(Route(**fields))
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
