"""How programs of different kinds look names up: which resolver they use, and what they remember.

    JVM       getaddrinfo of its libc; remembers answers 30 s, failures 10 s (`networkaddress.cache.ttl`)
    Node.js   `dns.lookup` (and so http, fetch): getaddrinfo in one of four threads of libuv, remembers nothing
              `dns.resolve4`: c-ares, which sends the one name as it is, with no search list
    Go        its own resolver, unless it was built to use libc
    others    getaddrinfo of their libc for every connection

Sources: java.net.InetAddress (JDK 21), https://nodejs.org/api/dns.html#implementation-considerations.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.dns.client import Asker, Lookup, lookup
from kubenet_lab.dns.lookup import Resolution, ResolvConf, Sent, Unreachable, Via
from kubenet_lab.dns.records import Query, Response
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.walk.engine import Walk


class Runtime(Struct, frozen=True):
    """A kind of program.

    Attributes:
        libc: Whose resolver: "glibc", "musl", "go", or "c-ares".
        keeps, keeps_failure: Seconds it remembers an answer and a failure; what the records' TTL says is not looked at.
        threads: How many lookups it can have open at once; 0 for as many as it likes.
    """

    name: str
    libc: str
    keeps: float = 0.0
    keeps_failure: float = 0.0
    threads: int = 0


RUNTIMES: tuple[Runtime, ...] = (
    Runtime("glibc", "glibc"),
    Runtime("musl", "musl"),
    Runtime("go", "go"),
    Runtime("jvm", "glibc", 30.0, 10.0),
    Runtime("jvm-alpine", "musl", 30.0, 10.0),
    Runtime("node", "glibc", threads=4),
    Runtime("node-resolve", "c-ares"),
)
"""Named kinds: the C library of Debian and of Alpine, a Go program, a JVM on either, Node.js in its two ways."""

BY_NAME = {runtime.name: runtime for runtime in RUNTIMES}


class Program:
    """A running program of some kind in a namespace, with what it remembers.

    Args:
        kind: A name of `RUNTIMES`. Raises KeyError for another one.
        ns: Where it runs.
    """

    def __init__(self, kind: str, ns: Netns) -> None:
        self.runtime = BY_NAME[kind]
        self.ns = ns
        self.remembered: dict[str, tuple[float, Lookup]] = {}
        """By name: (until when, what came out)."""

    def lookup(self, walk: Walk, name: str) -> Lookup:
        """Look a name up at the walk's moment; an answer that is remembered costs no query."""
        now = walk.now
        until, known = self.remembered.get(name, (0.0, None))
        if known is not None and now < until:
            return Lookup(known.addresses, [], known.failure)
        found = (
            _ask_as_it_is(walk, self.ns, name)
            if self.runtime.libc == "c-ares"
            else lookup(walk, self.ns, name, self.runtime.libc)
        )
        keeps = self.runtime.keeps if found.addresses else self.runtime.keeps_failure
        spent = found.resolution.seconds if found.resolution is not None else 0.0
        if keeps:
            self.remembered[name] = (now + spent + keeps, found)
        return found

    def waits(self, lookups: int, seconds: float) -> float:
        """How long the last of some lookups takes that begin together and need `seconds` each."""
        threads = self.runtime.threads
        return seconds * -(-lookups // threads) if threads else seconds


def _ask_as_it_is(walk: Walk, ns: Netns, name: str) -> Lookup:
    """c-ares' `ares_query`: one question of type A for the name as it is; time-outs and servers as resolv.conf says."""
    conf = ResolvConf.from_text(ns.files.get("/etc/resolv.conf", ""))
    asker = Asker(walk, ns)
    begin = at = walk.now
    sent: list[Sent] = []
    query = Query(name if name.endswith(".") else f"{name}.", "A", 1)
    for attempt in range(conf.attempts):
        for server in conf.nameservers:
            result = asker.send(query, server, Via("udp", 1, at))
            record = Sent(query.name, "A", server, at=at - begin)
            if isinstance(result, Response):
                good = result.rcode == "NOERROR" and result.addresses
                sent.append(
                    Sent(
                        query.name,
                        "A",
                        server,
                        "udp",
                        1,
                        at - begin,
                        result.delay,
                        result.rcode,
                        result.addresses,
                    )
                )
                if result.rcode in ("NOERROR", "NXDOMAIN"):
                    error = "" if good else "EAI_NODATA" if result.rcode == "NOERROR" else "EAI_NONAME"
                    spent = at - begin + result.delay
                    done = Resolution(name, result.addresses, error, name, tuple(sent), spent, "dns")
                    failure = "" if good else "no-address" if result.rcode == "NOERROR" else "no-such-name"
                    return Lookup(result.addresses, asker.queries, failure, done)
                continue
            sent.append(record)
            at += 0.0 if isinstance(result, Unreachable) else conf.timeout * (attempt + 1)
    done = Resolution(name, (), "EAI_AGAIN", "", tuple(sent), at - begin)
    return Lookup((), asker.queries, "dns-timeout" if at > begin else "dns-failure", done)
