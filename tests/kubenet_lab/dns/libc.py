"""The server of the recorded resolver runs, and a resolver's queries in the recording's notation."""

from __future__ import annotations

from collections import Counter
from typing import Any

from msgspec.structs import replace

from kubenet_lab.dns.lookup import Resolution, Unreachable, Via
from kubenet_lab.dns.records import Query, Record, Response, reply

SERVERS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "fd53::53")
ADDRESSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "backend.shop.svc.cluster.local.": (("10.96.10.1",), ("fd00:10:96::1",)),
    "backend.default.svc.cluster.local.": (("10.96.10.2",), ("fd00:10:96::2",)),
    "example.com.": (("93.184.216.34",), ("2606:2800:220:1::34",)),
    "www.example.com.": (("93.184.216.36",), ("2606:2800:220:1::36",)),
    "a.b.c.d.e.": (("192.0.2.5",), ("2001:db8::5",)),
    "svc.corp.example.": (("10.20.0.9",), ("fd20::9",)),
    "single.": (("192.0.2.77",), ("2001:db8::77",)),
    "multi.example.com.": (("192.0.2.3", "192.0.2.1", "192.0.2.2"), ("2001:db8::3", "2001:db8::1")),
    "v6only.example.com.": ((), ("2001:db8::66",)),
}
ALIASES = {
    "alias.example.com.": "www.example.com.",
    "chain.example.com.": "alias.example.com.",
    "dangling.example.com.": "nx.example.com.",
    "ext.shop.svc.cluster.local.": "www.example.com.",
    "onlycname.example.com.": "",
    "loop.example.com.": "loop.example.com.",
}
EMPTY = {
    "default.svc.cluster.local.", "svc.cluster.local.", "cluster.local.", "shop.svc.cluster.local.", "com.",
    "corp.example.",
}  # fmt: skip
SEARCH = (".default.svc.cluster.local.", ".svc.cluster.local.", ".cluster.local.")
RCODES = {
    "nxdomain": "NXDOMAIN",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "formerr": "FORMERR",
    "notimp": "NOTIMP",
    "nodata": "NOERROR",
}
SOA = Record(".", "SOA", 300, "a. b. 1 2 3 4 300")


class Server:
    """Answers as `behaviours.md` of the recording describes; one for each row."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.seen: set[tuple[str, str, str]] = set()
        self.first = True

    def send(self, query: Query, server: str, via: Via) -> Response | Unreachable | None:
        if server not in SERVERS:
            return Unreachable()
        behaviour = self.behaviour
        name = query.name.lower()
        if behaviour.endswith("-ns0"):
            behaviour = behaviour[:-4] if server == "127.0.0.1" else "dual"
        what, _, where = behaviour.partition("-")
        key = (name, query.type, via.protocol)
        fresh = key not in self.seen
        self.seen.add(key)
        applies = (
            not where
            or (where in ("a", "aaaa") and query.type == where.upper())
            or (where == "search" and name.endswith(SEARCH))
            or (where == "first-search" and name.endswith(SEARCH[0]))
            or (where == "once" and fresh)
            or where == "all"
        )
        normal = self._answer(query, what == "normal")
        if what == "tc":
            if via.protocol == "tcp":
                return Unreachable(reason="reset") if where == "notcp" else normal
            return replace(normal, tc=True) if where == "partial" else reply(query, ra=True, tc=True)
        if not applies:
            return normal
        if what == "drop":
            return None
        if what == "slow":
            return replace(normal, delay=0.4)
        if what == "wrongid":
            return replace(normal, id=query.id ^ 0x5555) if fresh else normal
        if what == "norefer":
            return reply(query, authority=(Record(".", "NS", 300, "a.root."),))
        if what == "nodata":
            return reply(query, ra=True, authority=(SOA,) if where == "search" else ())
        if what in RCODES:
            soa = (SOA,) if what == "nxdomain" else ()
            return reply(query, RCODES[what], ra=True, authority=soa)
        return normal

    def _answer(self, query: Query, only_v4: bool) -> Response:
        name, chain = query.name.lower(), []
        while name in ALIASES:
            target = ALIASES[name] or "www.example.com."
            chain.append(Record(name if chain else query.name, "CNAME", 300, target))
            if not ALIASES[name] or target == name:
                return reply(query, answer=tuple(chain), ra=True)
            name = target
        v4, v6 = ADDRESSES.get(name, ((), ()))
        found = v4 if query.type == "A" else v6 if not only_v4 or not v4 else ()
        owner = name if chain else query.name
        records = tuple(Record(owner, query.type, 300, each) for each in found)
        if name not in ADDRESSES and name not in EMPTY:
            return reply(query, "NXDOMAIN", answer=tuple(chain), authority=(SOA,), ra=True)
        return reply(query, answer=(*chain, *records), authority=() if records else (SOA,), ra=True)


def lines(resolution: Resolution, options: frozenset[str]) -> list[str]:
    """Queries as the recording writes them: `NAME TYPE udp|tcp nsI +T pN`, a pair sent at once as A+AAAA."""
    ports: dict[tuple[str, int], int] = {}
    extra = []
    if "edns0" in options:
        extra.append("edns=1200")
    if "trust-ad" in options:
        extra.append("ad=1")
    suffix = " " + ",".join(extra) if extra else ""
    out: list[tuple[str, str, str]] = []
    later: dict[int, float] = {}
    for each in resolution.queries:
        if each.server not in SERVERS or each.rcode == "reset":
            continue
        port = ports.setdefault((each.protocol, each.socket), len(ports) + 1)
        at = each.at
        if each.protocol == "tcp":
            # The server reads one query of a connection after the other.
            at += later.get(each.socket, 0.0)
            later[each.socket] = later.get(each.socket, 0.0) + (each.seconds or 0.0)
        where = f"{each.protocol} ns{SERVERS.index(each.server)} +{at:.1f} p{port}{suffix}"
        if out and each.type == "AAAA" and out[-1] == (each.name, "A", where):
            out[-1] = (each.name, "A+AAAA", where)
        else:
            out.append((each.name, each.type, where))
    return [" ".join(each) for each in out]


def apart(queries: list[str]) -> list[tuple[str, float]]:
    """Every query by itself: (name, type, protocol, server, port and flags as text; seconds)."""
    out: list[tuple[str, float]] = []
    for line in queries:
        name, kinds, rest = line.split(" ", 2)
        protocol, server, at, *more = rest.split(" ")
        out += [(" ".join([name, kind, protocol, server, *more]), float(at[1:])) for kind in kinds.split("+")]
    return out


def same(recorded: list[str], ours: list[str], race: bool) -> bool:
    """The same queries in the same order, each within .25 s: a loaded recorder adds that much.

    In a race (a TCP connection opened while UDP answers are still under way) order and ports are free.
    """
    want, got = apart(recorded), apart(ours)
    if race:
        return Counter(_bare(text) for text, _ in want) == Counter(_bare(text) for text, _ in got)
    return [text for text, _ in want] == [text for text, _ in got] and all(
        abs(one - other) < 0.25 for (_, one), (_, other) in zip(want, got, strict=True)
    )


def _bare(text: str) -> str:
    return " ".join(text.split(" ")[:4])


def conf_text(inputs: dict[str, Any], name: str) -> str:
    """The resolv.conf a row names."""
    base, _, more = name.partition("+")
    text: str = inputs["resolv.conf"][base]
    if not more:
        return text
    if base == "nosearch" and more.startswith("ns"):
        count, _, options = more.partition("+")
        text = "".join(f"nameserver 127.0.0.{i + 1}\n" for i in range(int(count[2:])))
        return text + (f"options {options}\n" if options else "")
    return text + f"options {more}\n"
