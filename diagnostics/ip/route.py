"""`ip route`: show, get, add, replace, delete and flush."""

from __future__ import annotations

from typing import Any

from diagnostics.ip.common import Args, Ask, Refused, as_prefix, command, done, rows_of, unmodelled
from diagnostics.tool import NotModelled, Result
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.kernel.dialects.iproute2 import PROTOCOLS, SCOPES, Words, Wrong
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.route import REFUSING, TABLE_LOCAL, TABLE_MAIN, TABLE_NAMES, Route
from kubenet_lab.packet.ip import canonical, family, ip_int, prefix

COMMANDS = (
    "add",
    "change",
    "replace",
    "append",
    "prepend",
    "test",
    "delete",
    "list",
    "show",
    "lst",
    "get",
    "flush",
    "save",
    "restore",
    "showdump",
    "help",
)


def run(ask: Ask, words: list[str]) -> Result:
    """`ip route [COMMAND]`."""
    args = Args(words)
    # iproute2 tries "list" and "show" before the rest for what could be both.
    verb = command(args.take(), COMMANDS, "route") if args else "show"
    if verb in ("list", "show", "lst"):
        return _show(ask, args)
    if verb == "get":
        return _get(ask, args)
    if verb in ("add", "replace", "change"):
        return _add(ask, args, verb)
    if verb == "delete":
        return _delete(ask, args)
    if verb == "flush":
        return _flush(ask, args)
    raise NotModelled(f"ip route {verb}")


def _table(word: str) -> int | None:
    if word == "all":
        return None
    if word == "cache":
        raise NotModelled("table cache")
    numbers = {name: table for table, name in TABLE_NAMES.items()}
    if word in numbers:
        return numbers[word]
    if not word.isdigit():
        raise Refused(f'Error: argument "{word}" is wrong: table id value is invalid\n\n', 255)
    return int(word)


class _Filter:
    """The selectors of `ip route show`."""

    def __init__(self, ask: Ask, args: Args) -> None:
        self.table: int | None = TABLE_MAIN
        self.dev = self.via = self.proto = self.scope = self.type = self.src = ""
        self.exact = self.root = self.match = ""
        while args:
            word = args.take()
            if word == "table":
                self.table = _table(args.take("table"))
            elif word == "dev":
                self.dev = ask.device(args.take("dev")).name
            elif word == "via":
                self.via = args.address()
            elif word == "proto":
                self.proto = args.take("proto")
                if self.proto not in PROTOCOLS and not self.proto.isdigit():
                    raise Refused(f'Error: argument "{self.proto}" is wrong: invalid "protocol"\n\n\n', 255)
            elif word == "scope":
                self.scope = args.take("scope")
                if self.scope not in SCOPES:
                    raise Refused(f'Error: argument "{self.scope}" is wrong: invalid "scope"\n\n\n', 255)
            elif word == "type":
                self.type = args.take("type")
            elif word == "src":
                self.src = args.address()
            elif word in ("root", "match", "exact"):
                setattr(self, word, self._prefix(args.take(word), ask.family))
            elif word in ("cached", "cloned", "tos", "realm", "vrf", "nhid", "from"):
                raise NotModelled(f"selector {word}")
            else:
                self.exact = self._prefix(args.take("to") if word == "to" else word, ask.family)

    @staticmethod
    def _prefix(word: str, fam: int) -> str:
        if word in ("default", "all", "any"):
            return ("::/0" if fam == 6 else "0.0.0.0/0") if word == "default" else ""
        return prefix(as_prefix(word)).text

    @property
    def hide(self) -> frozenset[str]:
        """Return the fields that a filter fixed and the tool leaves out."""
        named = {"dev": self.dev, "via": self.via, "proto": self.proto, "scope": self.scope, "src": self.src}
        return frozenset(name for name, value in named.items() if value)

    def takes(self, route: Route) -> bool:
        """Return True when the route fits."""
        block = prefix(route.dst)
        return (
            (not self.dev or self.dev == route.dev)
            and (not self.via or self.via == route.via)
            and (not self.proto or self.proto == route.proto)
            and (not self.scope or self.scope == route.scope)
            and (not self.type or self.type == route.type)
            and (not self.src or self.src == route.prefsrc)
            and (not self.exact or self.exact == route.dst)
            and (not self.root or _inside(block.text, self.root))
            and (not self.match or _inside(self.match, block.text))
        )

    @property
    def family(self) -> int:
        """Return the family an address among the selectors tells, or 0."""
        given = next((text for text in (self.exact, self.root, self.match, self.via, self.src) if text), "")
        return family(given) if given else 0


def _inside(inner: str, outer: str) -> bool:
    a, b = prefix(inner), prefix(outer)
    return a.family == b.family and a.length >= b.length and a.net & b.mask == b.net


def _find(ask: Ask, chosen: _Filter) -> list[Route]:
    fams = [ask.family or chosen.family or 4]
    if chosen.table is None and not ask.family and not chosen.family:
        fams = [4, 6]
    found: list[Route] = []
    for fam in fams:
        table = chosen.table
        if table not in (None, TABLE_MAIN, TABLE_LOCAL) and (fam, table) not in ask.ns.routes:
            raise Refused(f"Error: ipv{fam}: FIB table does not exist.\nDump terminated\n")
        found += [route for route in ip_route.select(ask.ns, fam, table) if chosen.takes(route)]
    return found


def _show(ask: Ask, args: Args) -> Result:
    chosen = _Filter(ask, args)
    found = _find(ask, chosen)
    text = ip_route.show_routes(
        found,
        json=ask.json,
        details=ask.details,
        tables=chosen.table is None,
        hide=chosen.hide,
        pretty=ask.pretty,
        oneline=ask.oneline,
        ns=ask.ns,
    )
    return Result(text, rows=rows_of(found))


def _flush(ask: Ask, args: Args) -> Result:
    if not args:
        raise Refused('"ip route flush" requires arguments.\n', 255)
    if args.peek() in ("cache", "cached"):
        return done()
    chosen = _Filter(ask, args)
    for route in _find(ask, chosen):
        ask.ns.delete_route(route.dst, table=route.table, metric=route.metric, dev=route.dev, via=route.via)
    return done()


def _get(ask: Ask, args: Args) -> Result:
    ns = ask.ns
    dst, src, iif, oif, mark, uid = "", "", "", "", 0, 0
    while args:
        word = args.take()
        if word == "from":
            src = args.address()
        elif word == "iif":
            iif = ask.device(args.take("iif")).name
        elif word in ("oif", "dev"):
            oif = ask.device(args.take("oif")).name
        elif word == "mark":
            mark = args.number("mark")
        elif word == "uid":
            uid = args.number("uid")
        elif word in (
            "tos",
            "ipproto",
            "sport",
            "dport",
            "vrf",
            "connected",
            "notify",
            "fibmatch",
            "as",
            "dsfield",
        ):
            raise NotModelled(f"ip route get {word}")
        else:
            word = args.take("to") if word == "to" else word
            try:
                dst = canonical(word.removesuffix("/32").removesuffix("/128"))
            except ValueError:
                raise Refused(f'Error: any valid prefix is expected rather than "{word}".\n', 1) from None
    if not dst:
        raise Refused("need at least a destination address\n", 1)
    if (
        ip_int(dst) >> (28 if family(dst) == 4 else 120) == (14 if family(dst) == 4 else 255)
        or dst == "255.255.255.255"
    ):
        raise NotModelled("ip route get to a multicast or broadcast address outside the tables")
    way = ns.lookup(dst, src=src, iif=iif, oif=oif, mark=mark)
    if way is None:
        raise Refused("RTNETLINK answers: Network is unreachable\n")
    if src and not iif and not ns.is_local(src):
        raise Refused(
            "RTNETLINK answers: Network is unreachable\n"
            if family(dst) == 4
            else "RTNETLINK answers: Invalid argument\n"
        )
    if way.route.type in ip_route.REFUSALS:
        raise Refused(f"RTNETLINK answers: {ip_route.REFUSALS[way.route.type]}\n")
    if iif and way.route.type == "unicast":
        forwarding = ns.sysctl("net.ipv4.ip_forward" if family(dst) == 4 else "net.ipv6.conf.all.forwarding")
        if forwarding == "0":
            raise Refused("RTNETLINK answers: No route to host\n")
    text = ip_route.show_lookup(
        ns, way, dst, src=src, iif=iif, mark=mark, uid=uid, json=ask.json, pretty=ask.pretty
    )
    return Result(text, rows=rows_of([way.route]))


def _read(ask: Ask, args: Args) -> dict[str, Any]:
    try:
        fields = ip_route.from_words(Words(" ".join(args.words)), family=ask.family)
    except Wrong as wrong:
        if wrong.path == "dst":
            word = wrong.message.rsplit(", not ", 1)[-1].strip("'\"")
            raise Refused(f'Error: any valid prefix is expected rather than "{word}".\n', 1) from None
        raise unmodelled(wrong) from None
    fields["_given"] = next((w for w in args.words if "/" in w or w[0].isdigit()), "")
    for dev in (fields.get("dev", ""), *(hop.dev for hop in fields.get("nexthops", ()))):
        if dev:
            ask.device(dev)
    return fields


def _add(ask: Ask, args: Args, verb: str) -> Result:
    ns = ask.ns
    fields = _read(ask, args)
    given, saw_scope, dst = fields.pop("_given"), fields.pop("_scope"), fields.pop("dst")
    if "/" in given and prefix(given).net != ip_int(given.partition("/")[0]):
        raise Refused("Error: Invalid prefix for given prefix length.\n")
    kind = fields.get("type", "unicast")
    if not saw_scope:
        if kind == "local":
            fields["scope"] = "host"
        elif kind in ("broadcast", "multicast", "anycast"):
            fields["scope"] = "link"
    if (
        kind in ("unicast", "local")
        and not fields.get("dev")
        and not fields.get("via")
        and not fields.get("nexthops")
    ):
        raise Refused(
            "Error: Device for nexthop is not found.\n"
            if family(dst) == 6
            else "RTNETLINK answers: No such device\n"
        )
    dev = fields.get("dev", "")
    if dev and kind not in REFUSING and not ns.links[dev].up:
        raise Refused(
            "Error: Device for nexthop is not up.\n"
            if family(dst) == 4
            else "Error: Nexthop device is not up.\n"
        )
    if verb == "change":
        present = ns.routes.get((family(dst), fields.get("table", TABLE_MAIN)), {})
        if not any(route.dst == dst for route in present.values()):
            raise Refused("RTNETLINK answers: No such file or directory\n")
    try:
        ns.add_route(dst, replace_existing=verb != "add", **fields)
    except KernelError as error:
        if error.errno == "ENETUNREACH" and family(dst) == 6:
            raise Refused("RTNETLINK answers: No route to host\n") from None
        raise
    return done()


def _delete(ask: Ask, args: Args) -> Result:
    if not args:
        raise Refused('"ip route del" requires arguments.\n', 255)
    fields = _read(ask, args)
    ask.ns.delete_route(
        fields["dst"],
        table=fields.get("table", TABLE_MAIN),
        metric=fields.get("metric"),
        dev=fields.get("dev", ""),
        via=fields.get("via", ""),
    )
    return done()
