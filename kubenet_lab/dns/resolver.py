"""glibc's `getaddrinfo` as a state machine: what `getent ahosts NAME` asks, in order, and what it says.

Modelled on the behaviour of glibc 2.36 as recorded, after resolv.conf(5), nsswitch.conf(5) and RFC 1035 and
6724. The caller gives `send`, which carries a query to a server and says what came back and after how long;
time is a number that grows, no clock is read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.lookup import (
    DEFAULT_HOSTS,
    Resolution,
    ResolvConf,
    Send,
    Sent,
    Unreachable,
    Via,
    aton,
    ipv4_only,
    parse_hosts,
    sort_addresses,
)
from kubenet_lab.dns.names import labels, parse_ip, wire_name_length
from kubenet_lab.dns.records import Edns, Query, Response

EDNS_SIZE = 1200
_FAILING = frozenset({"SERVFAIL", "NOTIMP", "REFUSED"})
_BOTH = ("A", "AAAA")
_MAX_NAME = 1025


class Hangs(Exception):
    """A TCP server accepted and keeps silent: glibc waits for ever."""


def getaddrinfo(
    name: str,
    resolv_conf: str | ResolvConf,
    send: Send,
    *,
    hosts: str = DEFAULT_HOSTS,
    nsswitch: str = "hosts: files dns\n",
    host_conf: str = "multi on\n",
    family: str = "unspec",
    flags: frozenset[str] = frozenset(),
    environment: Mapping[str, str] | None = None,
    now: float = 0.0,
    seed: int = 0,
    usable: Callable[[str], bool] = ipv4_only,
) -> Resolution:
    """Look `name` up as a program in a pod does: `getent ahosts NAME`, without the pod.

    Args:
        resolv_conf: /etc/resolv.conf.
        send: Carries a query; see `lookup.Send`.
        hosts, nsswitch, host_conf: /etc/hosts, /etc/nsswitch.conf and /etc/host.conf.
        family: "unspec", "inet" or "inet6".
        flags: Of "canonname", "numerichost", "v4mapped", "all", "addrconfig" (the last has no effect here:
            the host is taken to have the addresses `usable` speaks of).
        environment: LOCALDOMAIN and RES_OPTIONS count.
        now: Seconds, when the call begins.
        seed: Of query ids and of the first server with `rotate`.
        usable: Has the host a source address for this destination?
    """
    conf = ResolvConf.from_text(resolv_conf, environment) if isinstance(resolv_conf, str) else resolv_conf
    resolver = _Resolver(conf, send, now, random.Random(seed))
    try:
        found = _getaddrinfo(name, resolver, hosts, nsswitch, _is_multi(host_conf), family, flags)
    except Hangs:
        return Resolution(name, error="HANGS", queries=resolver.sent_queries(), seconds=float("inf"))
    return Resolution(
        name=name,
        addresses=sort_addresses(found.addresses, usable),
        error=found.error,
        canonname=found.canonname if found.addresses else "",
        queries=resolver.sent_queries(),
        seconds=resolver.now - now,
        source=found.source,
    )


class _Found(Struct):
    addresses: list[str]
    error: str = ""
    canonname: str = ""
    source: str = ""


def _getaddrinfo(
    name: str,
    resolver: _Resolver,
    hosts: str,
    nsswitch: str,
    multi: bool,
    family: str,
    flags: frozenset[str],
) -> _Found:
    literal = _literal(name)
    if literal:
        return _literal_result(literal, name, family, flags)
    if "numerichost" in flags:
        return _Found([], "EAI_NONAME")
    if not _is_host_name(name):
        return _Found([], "EAI_NONAME")
    error = "EAI_NONAME"
    for service, actions in services(nsswitch):
        if service == "files":
            addresses, canonical = _from_hosts(name, hosts, family, multi)
            status = "SUCCESS" if addresses else "NOTFOUND"
            found = _Found(addresses, "" if addresses else "EAI_NONAME", canonical, "files")
        elif service == "dns":
            found, status = _from_dns(name, resolver, family, flags)
        else:
            # No such module on this machine, as in most container images.
            found, status = _Found([], error), "UNAVAIL"
        if status == "SUCCESS":
            return found
        error = found.error or error
        if actions.get(status, "continue") == "return":
            break
    return _Found([], error)


@lru_cache(maxsize=256)
def services(nsswitch: str) -> list[tuple[str, dict[str, str]]]:
    """The `hosts` line of nsswitch.conf: services in order, each with the statuses that end the search.

    Without such a line: files, then dns, as glibc has it built in.
    """
    text = next((line[6:] for line in nsswitch.splitlines() if line.startswith("hosts:")), "files dns")
    found: list[tuple[str, dict[str, str]]] = []
    for word in re.findall(r"\[[^\]]*\]|\S+", text.partition("#")[0]):
        if not word.startswith("["):
            found.append((word, {}))
            continue
        for action in word[1:-1].split():
            status, _, what = action.partition("=")
            if found and status.startswith("!"):
                others = {"SUCCESS", "NOTFOUND", "UNAVAIL", "TRYAGAIN"} - {status[1:].upper()}
                found[-1][1].update(dict.fromkeys(others, what.lower()))
            elif found:
                found[-1][1][status.upper()] = what.lower()
    return found


def _literal(name: str) -> str:
    return aton(name) or (parse_ip_literal(name) if ":" in name else "")


def parse_ip_literal(name: str) -> str:
    """An IPv6 address, perhaps with an interface (`fe80::1%eth0`), without it; "" if it is none."""
    address, _, _ = name.partition("%")
    found = parse_ip(address)
    return f"::ffff:{found}" if found and "." in found and ":" not in found else found


def _literal_result(address: str, name: str, family: str, flags: frozenset[str]) -> _Found:
    six = ":" in address
    if family == "inet" and six:
        return _Found([], "EAI_ADDRFAMILY")
    if family == "inet6" and not six:
        if "v4mapped" not in flags:
            return _Found([], "EAI_ADDRFAMILY")
        address = f"::ffff:{address}"
    return _Found([address], "", name, "literal")


def _is_host_name(name: str) -> bool:
    """Letters, digits, `-`, `_` and dots, not beginning with `-`: any other name is refused unasked."""
    if name == ".":
        return True
    return bool(re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-])*", name))


def _is_multi(host_conf: str) -> bool:
    """Does host.conf(5) say that several lines of /etc/hosts count? It does not unless "multi" is "on"."""
    words = [line.split() for line in host_conf.splitlines()]
    return any(line[:2] == ["multi", "on"] for line in words)


def _from_hosts(name: str, hosts: str, family: str, multi: bool) -> tuple[list[str], str]:
    wanted = name.lower()
    addresses: list[str] = []
    canonical = ""
    for line in parse_hosts(hosts):
        if not any(each.lower() == wanted for each in line.names):
            continue
        address = line.address
        if family == "inet" and ":" in address:
            if address != "::1":
                continue
            # glibc gives the IPv6 loopback of the file to who asks for IPv4.
            address = "127.0.0.1"
        if family == "inet6" and ":" not in address:
            continue
        canonical = canonical or line.names[0]
        addresses.append(address)
        if not multi:
            break
    return addresses, canonical


def _from_dns(name: str, resolver: _Resolver, family: str, flags: frozenset[str]) -> tuple[_Found, str]:
    no_aaaa = "no-aaaa" in resolver.conf.options
    if family == "unspec":
        types: tuple[str, ...] = ("A",) if no_aaaa else _BOTH
    else:
        types = ("AAAA",) if family == "inet6" else ("A",)
        if types == ("AAAA",) and no_aaaa:
            return _Found([], "EAI_NODATA", source="dns"), "NOTFOUND"
    found, status = _search_result(name, resolver, types)
    if family == "inet6" and "v4mapped" in flags and not found.addresses:
        mapped, status = _search_result(name, resolver, ("A",))
        mapped.addresses = [f"::ffff:{address}" for address in mapped.addresses]
        return mapped, status
    return found, status


def _search_result(name: str, resolver: _Resolver, types: tuple[str, ...]) -> tuple[_Found, str]:
    answers = resolver.search(name, types)
    if answers is None:
        error = {"TRY_AGAIN": "EAI_AGAIN", "NO_DATA": "EAI_NODATA"}.get(resolver.herrno, "EAI_NONAME")
        status = "UNAVAIL" if resolver.errno in ("ECONNREFUSED", "ETIMEDOUT") else "NOTFOUND"
        return _Found([], error, source="dns"), status
    addresses: list[str] = []
    canonical = ""
    for answer in answers:
        here, alias = _addresses_of(answer)
        canonical = canonical or (alias if here else "")
        addresses += here
    if addresses:
        return _Found(addresses, "", canonical, "dns"), "SUCCESS"
    return _Found([], "EAI_NONAME", source="dns"), "NOTFOUND"


def _addresses_of(answer: Response) -> tuple[list[str], str]:
    """Addresses at the end of the CNAMEs of an answer, and the name they belong to."""
    assert answer.question is not None
    owner = answer.question.name.lower()
    shown = answer.question.name
    found: list[str] = []
    for record in answer.answer:
        if record.type == "CNAME" and record.name.lower() == owner:
            owner, shown = record.data.lower(), record.data
        elif record.type == answer.question.type and record.name.lower() == owner:
            found.append(record.data)
    return found, shown[:-1] if shown != "." else shown


class _Waiting(Struct):
    """An answer under way to a socket."""

    arrival: float
    result: Response | Unreachable
    query: Query


class _Resolver:
    """State of one call: the time, open sockets, what has been sent; `errno` and `herrno` as in C."""

    def __init__(self, conf: ResolvConf, send: Send, now: float, rng: random.Random) -> None:
        self.conf = conf
        self.send = send
        self.start = now
        self.now = now
        self.rng = rng
        self.errno = ""
        self.herrno = ""
        self.single = bool(conf.options & {"single-request", "single-request-reopen"})
        self.reopen = "single-request-reopen" in conf.options
        self.sent: list[Sent] = []
        self._first_rcode = "NOERROR"
        self._sockets: dict[int, int] = {}
        self._opened = 0
        self._waiting: dict[int, list[_Waiting]] = {}
        self._order = list(range(len(conf.nameservers)))
        if "rotate" in conf.options:
            turn = rng.randrange(len(self._order))
            self._order = self._order[turn:] + self._order[:turn]
        self._rotate = "rotate" in conf.options
        self._begun = False

    def sent_queries(self) -> tuple[Sent, ...]:
        return tuple(self.sent)

    # res_search: names

    def search(self, name: str, types: tuple[str, ...]) -> list[Response] | None:
        """Ask for `name`, with the search list as ndots has it; the answers, or None (see `herrno`)."""
        conf = self.conf
        self.errno, self.herrno = "", "HOST_NOT_FOUND"
        dots = name.count(".")
        trailing = name.endswith(".")
        saved = ""
        nodata = servfail = root = searched = as_is = False
        if dots >= conf.ndots or trailing:
            answers = self._query(name, types)
            if answers is not None or trailing:
                return answers
            saved = self.herrno
            as_is = True
        if not trailing:
            for domain in conf.search:
                searched = True
                root = root or not domain
                answers = self._query(f"{name}.{domain}" if domain else name, types)
                if answers is not None:
                    return answers
                if self.errno == "ECONNREFUSED":
                    self.herrno = "TRY_AGAIN"
                    return None
                if self.herrno == "NO_DATA":
                    nodata = True
                elif self.herrno == "TRY_AGAIN" and self._first_rcode == "SERVFAIL":
                    servfail = True
                elif self.herrno != "HOST_NOT_FOUND":
                    break
        if (dots or not searched or "no-tld-query" not in conf.options) and not (as_is or root):
            answers = self._query(name, types)
            if answers is not None:
                return answers
        if saved:
            self.herrno = saved
        elif nodata:
            self.herrno = "NO_DATA"
        elif servfail:
            self.herrno = "TRY_AGAIN"
        return None

    # res_query: one name

    def _query(self, name: str, types: tuple[str, ...]) -> list[Response] | None:
        absolute = name if name.endswith(".") else name + "."
        self._first_rcode = "NOERROR"
        self.errno = ""
        if not _sendable(absolute):
            self.herrno = "NO_RECOVERY"
            return None
        edns = Edns(EDNS_SIZE) if "edns0" in self.conf.options else None
        ad = "trust-ad" in self.conf.options
        queries = [Query(absolute, kind, self.rng.getrandbits(16), edns=edns, ad=ad) for kind in types]
        if len(queries) == 2 and queries[0].id == queries[1].id:
            queries[1] = Query(absolute, types[1], queries[0].id ^ 1, edns=edns, ad=ad)
        answers = self._exchange(queries)
        if answers is None:
            self.herrno = "TRY_AGAIN"
            return None
        first, second = answers[0], answers[-1]
        if all(each.rcode != "NOERROR" or not each.answer for each in (first, second)):
            rcode = second.rcode if first.rcode == "NOERROR" else first.rcode
            self.herrno = {"NXDOMAIN": "HOST_NOT_FOUND", "SERVFAIL": "TRY_AGAIN", "NOERROR": "NO_DATA"}.get(
                rcode, "NO_RECOVERY"
            )
            return None
        return answers

    # res_send: servers and attempts

    def _exchange(self, queries: list[Query]) -> list[Response] | None:
        conf = self.conf
        if self._rotate and self._begun:
            self._order = self._order[1:] + self._order[:1]
        self._begun = True
        circuit = "use-vc" in conf.options
        somewhere = False
        error = ""
        attempt = 0
        while attempt < conf.attempts:
            attempt += 1
            for place, server in enumerate(self._order):
                if not circuit:
                    outcome, answers, heard = self._datagrams(place, server, queries)
                    somewhere = somewhere or heard
                    circuit = outcome == "tcp"
                if circuit:
                    # At most one attempt per server over TCP.
                    attempt = conf.attempts
                    answers, error = self._circuit(server, queries)
                if answers:
                    self._close()
                    return answers
        self._close()
        self.errno = error if circuit else "ETIMEDOUT" if somewhere else "ECONNREFUSED"
        return None

    def _datagrams(self, place: int, server: int, queries: list[Query]) -> tuple[str, list[Response], bool]:
        """One attempt at one server: ("ok" | "tcp" | "next", answers, was anything heard or timed out)."""
        seconds = max(1, (self.conf.timeout << place) // (len(self._order) if place else 1))
        both = len(queries) == 2
        heard = False
        first: Response | None = None
        while True:
            socket = self._socket(server)
            finish = self.now + seconds
            pending = list(queries)
            done: list[Query] = []
            second: Response | None = None
            timed_out = False
            self._put(pending.pop(0), server, socket)
            if pending and not self.single:
                self._put(pending.pop(0), server, socket, parallel=True)
            while len(done) < len(queries):
                event = self._next(socket, finish)
                if event is None:
                    timed_out = True
                    break
                if isinstance(event.result, Unreachable):
                    self._close(server)
                    return "next", [], heard
                answer, heard = event.result, True
                if not done:
                    self._first_rcode = answer.rcode
                match = next((each for each in queries if each.id == answer.id and each not in done), None)
                if match is None or not _matches(match, answer):
                    continue
                if answer.rcode == "FORMERR" and match.edns is not None:
                    self._close(server)
                    return "next", [], heard
                if answer.rcode in _FAILING or _is_lame(answer):
                    if done:
                        return ("ok", [first], heard) if first is not None else ("next", [], heard)
                    if both and not self.single:
                        first = None
                        done.append(match)
                        continue
                    self._close(server)
                    return "next", [], heard
                if answer.tc:
                    self._close(server)
                    return "tcp", [], heard
                if done or not both:
                    second = answer
                else:
                    first = answer
                done.append(match)
                if pending:
                    if self.reopen:
                        self._close(server)
                        socket = self._socket(server)
                    self._put(pending.pop(0), server, socket)
            if not timed_out:
                return "ok", [each for each in (first, second) if each is not None], heard
            self.now = finish
            if first is None or not (both and done):
                return "next", [], True
            # One of two answers came: some servers and firewalls cannot take both at once, so try one
            # after the other, then on two sockets.
            if not self.single:
                self.single = True
            elif not self.reopen:
                self.reopen = True
                self._close(server)
            else:
                return "ok", [first], True

    def _circuit(self, server: int, queries: list[Query]) -> tuple[list[Response], str]:
        """Both queries over one TCP connection; there is no time limit."""
        for _ in range(2):
            self._opened += 1
            socket = self._opened
            self._waiting[socket] = []
            for query in queries:
                self._put(query, server, socket, "tcp")
            answers: list[Response] = []
            while len(answers) < len(queries):
                event = self._next(socket, float("inf"))
                if event is None:
                    raise Hangs
                if isinstance(event.result, Unreachable):
                    break
                if not answers:
                    self._first_rcode = event.result.rcode
                if any(event.result.id == query.id for query in queries):
                    answers.append(event.result)
            else:
                return answers, ""
            if (
                event is not None
                and isinstance(event.result, Unreachable)
                and event.result.reason == "refused"
            ):
                return [], "ECONNREFUSED"
        return [], "ECONNRESET"

    # Sockets and time

    def _socket(self, server: int) -> int:
        if server not in self._sockets:
            self._opened += 1
            self._sockets[server] = self._opened
            self._waiting[self._opened] = []
        return self._sockets[server]

    def _close(self, server: int | None = None) -> None:
        closed = list(self._sockets) if server is None else [server]
        for each in closed:
            number = self._sockets.pop(each, None)
            if number is not None:
                self._waiting.pop(number, None)

    def _put(
        self, query: Query, server: int, socket: int, protocol: str = "udp", *, parallel: bool = False
    ) -> None:
        address = self.conf.nameservers[server]
        result = self.send(query, address, Via(protocol, socket, self.now, parallel))
        record = Sent(query.name, query.type, address, protocol, socket, self.now - self.start)
        if result is not None:
            self._waiting[socket].append(_Waiting(self.now + result.delay, result, query))
            record = replace(
                record,
                seconds=result.delay,
                rcode=result.rcode if isinstance(result, Response) else result.reason,
                addresses=result.addresses if isinstance(result, Response) else (),
            )
        self.sent.append(record)

    def _next(self, socket: int, finish: float) -> _Waiting | None:
        """The next thing to arrive at a socket before `finish`, with the time moved on to it."""
        waiting = self._waiting[socket]
        if not waiting:
            return None
        event = min(waiting, key=lambda each: each.arrival)
        if event.arrival > finish:
            return None
        waiting.remove(event)
        self.now = max(self.now, event.arrival)
        return event


def _matches(query: Query, answer: Response) -> bool:
    asked = answer.question
    return asked is not None and asked.type == query.type and asked.name.lower() == query.name.lower()


def _is_lame(answer: Response) -> bool:
    """An empty answer of a server that neither knows nor would find out: a referral."""
    return (
        answer.rcode == "NOERROR"
        and not answer.answer
        and not answer.aa
        and not answer.ra
        and not answer.additional
        and answer.edns is None
    )


def _sendable(name: str) -> bool:
    if len(name) > _MAX_NAME or wire_name_length(name) > 255:
        return False
    return name == "." or all(0 < len(label) < 64 for label in labels(name))
