"""The resolver inside every Go program (package net without cgo): `LookupHost` as a state machine.

It reads the same files as glibc and walks the same search list, but asks for A and AAAA concurrently on two sockets,
always with EDNS0 (1232 octets), and goes on to the next name after any error.
Source: Go's net/dnsclient_unix.go, net/conf.go, net/dnsconfig_unix.go (1.26).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from msgspec import Struct

from kubenet_lab.dns.lookup import (
    DEFAULT_HOSTS,
    Resolution,
    Send,
    Sent,
    Unreachable,
    Via,
    ipv4_only,
    sort_addresses,
)
from kubenet_lab.dns.names import parse_ip
from kubenet_lab.dns.records import Edns, Query, Response

MAX_NAMESERVERS = 3
_MAX_NDOTS = 15
_PAYLOAD = 1232
_LONGEST = 254


class Config(Struct, frozen=True):
    """/etc/resolv.conf as Go reads it; times in s."""

    nameservers: tuple[str, ...] = ("127.0.0.1", "::1")
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    rotate: bool = False
    single_request: bool = False
    use_tcp: bool = False
    trust_ad: bool = False


class Problem(Struct, frozen=True):
    """A `net.DNSError`: its words, and what `IsNotFound`, `IsTimeout` and `IsTemporary` say."""

    text: str
    server: str = ""
    not_found: bool = False
    timeout: bool = False
    temporary: bool = False


NO_SUCH_HOST, MISBEHAVING = "no such host", "server misbehaving"


def read_resolv_conf(text: str) -> Config:
    """Read /etc/resolv.conf; what makes no sense is passed over."""
    servers: list[str] = []
    search: list[str] = []
    numbers = {"ndots": 1, "timeout": 5, "attempts": 2}
    words: set[str] = set()
    for line in text.split("\n"):
        if line[:1] in (";", "#"):
            continue
        fields = line.split()
        if not fields:
            continue
        keyword, rest = fields[0], fields[1:]
        if keyword == "nameserver" and rest and len(servers) < MAX_NAMESERVERS:
            address, percent, zone = rest[0].partition("%")
            if parse_ip(address):
                servers.append(parse_ip(address) + percent + zone)
        elif keyword == "domain" and rest:
            search = [_rooted(rest[0])]
        elif keyword == "search":
            search = [_rooted(word) for word in rest if _rooted(word) != "."]
        elif keyword == "options":
            for word in rest:
                name, colon, value = word.partition(":")
                if colon and name in numbers:
                    numbers[name] = _limited(name, value)
                else:
                    words.add(word)
    return Config(
        nameservers=tuple(servers) or ("127.0.0.1", "::1"),
        search=tuple(search),
        rotate="rotate" in words,
        single_request=bool(words & {"single-request", "single-request-reopen"}),
        use_tcp=bool(words & {"use-vc", "usevc", "tcp"}),
        trust_ad="trust-ad" in words,
        **numbers,
    )


def _limited(name: str, value: str) -> int:
    digits = ""
    for char in value.removeprefix("-"):
        if not char.isdigit():
            break
        digits += char
    number = int(digits or "0") * (-1 if value.startswith("-") else 1)
    return min(max(number, 0), _MAX_NDOTS) if name == "ndots" else max(number, 1)


def _rooted(name: str) -> str:
    return name if name.endswith(".") else name + "."


def is_domain_name(name: str) -> bool:
    """Would Go ask for such a name at all? (letters, digits, hyphen, underscore; not only digits)"""
    if name == ".":
        return True
    if not 0 < len(name.encode()) <= _LONGEST or (len(name) == _LONGEST and not name.endswith(".")):
        return False
    if any(not (char.isascii() and (char.isalnum() or char in "-_.")) for char in name):
        return False
    parts = name.removesuffix(".").split(".")
    if any(not 0 < len(part) <= 63 or part.startswith("-") or part.endswith("-") for part in parts):
        return False
    return any(not char.isdigit() for char in name.replace(".", ""))


def getaddrinfo(
    name: str,
    resolv_conf: str | Config,
    send: Send,
    *,
    hosts: str = DEFAULT_HOSTS,
    nsswitch: str = "hosts: files dns\n",
    family: str = "unspec",
    now: float = 0.0,
    seed: int = 0,
    local: str = "127.0.0.1",
    usable: Callable[[str], bool] = ipv4_only,
) -> Resolution:
    """Look `name` up as a Go program does: `net.LookupHost`. Arguments as in `resolver.getaddrinfo`.

    `local` is the program's own address, which stands in Go's texts of network errors; `Resolution.text` holds them.
    """
    conf = read_resolv_conf(resolv_conf) if isinstance(resolv_conf, str) else resolv_conf
    asking = _Asking(conf, send, now, random.Random(seed), local)
    addresses, source = _look_up(name, asking, hosts, nsswitch, family)
    problem = asking.problem
    error = text = ""
    if not addresses:
        problem = problem or Problem(NO_SUCH_HOST, not_found=True)
        error = "EAI_NONAME" if problem.not_found else "EAI_AGAIN"
        on = f" on {problem.server}" if problem.server else ""
        verb = "address" if problem.text == "no suitable address found" else "lookup"
        text = f"{verb} {name}{on}: {problem.text}"
    return Resolution(
        name=name,
        addresses=sort_addresses(addresses, usable),
        error=error,
        canonname=name if addresses else "",
        queries=tuple(asking.sent),
        seconds=asking.now - now,
        source=source if addresses else "",
        text=text,
    )


def _look_up(name: str, asking: _Asking, hosts: str, nsswitch: str, family: str) -> tuple[list[str], str]:
    literal = parse_ip(name.partition("%")[0])
    if literal:
        if family != "unspec" and (family == "inet6") != (":" in literal):
            asking.problem = Problem("no suitable address found", not_found=True)
            return [], ""
        return [literal], "literal"
    order = _order(nsswitch)
    if order[0] == "files":
        found = _from_hosts(name, hosts, family)
        if found or order == ("files",):
            return found, "files"
    if not is_domain_name(name):
        return [], ""
    found = asking.search(name, family)
    if not found and order == ("dns", "files"):
        return _from_hosts(name, hosts, family), "files"
    return found, "dns"


def _order(nsswitch: str) -> tuple[str, ...]:
    """Whom Go asks, and in which order; a source it does not know makes it files, then dns."""
    for line in nsswitch.splitlines():
        database, colon, rest = line.partition("#")[0].partition(":")
        if not colon or database.strip() != "hosts":
            continue
        words = [
            word for word in rest.replace("[", " [").split() if not word.startswith("[") and "]" not in word
        ]
        known = [word for word in words if word in ("files", "dns")]
        if len(known) == len(words) and known:
            return tuple(dict.fromkeys(known))
        break
    return ("files", "dns")


def _from_hosts(name: str, hosts: str, family: str) -> list[str]:
    wanted = name.lower()
    found: list[str] = []
    for line in hosts.splitlines():
        words = line.partition("#")[0].split()
        address = parse_ip(words[0].partition("%")[0]) if len(words) > 1 else ""
        if address and wanted in {word.lower() for word in words[1:]}:
            if family == "unspec" or (family == "inet6") == (":" in address):
                found.append(address)
    return list(dict.fromkeys(found))


class _Asking:
    """State of one call: the time, everything sent, the problem that would be reported."""

    def __init__(self, conf: Config, send: Send, now: float, rng: random.Random, local: str) -> None:
        self.conf = conf
        self.send = send
        self.start = now
        self.now = now
        self.rng = rng
        self.local = local
        self.sent: list[Sent] = []
        self.problem: Problem | None = None
        self.sockets = 0
        self._offset = 0

    def search(self, name: str, family: str) -> list[str]:
        """Ask for each name of the list until one has an address."""
        types = {"inet": ("A",), "inet6": ("AAAA",)}.get(family, ("A", "AAAA"))
        for each in self._names(name):
            found = self._both(each, types, each == _rooted(name))
            if found:
                return found
        return []

    def _names(self, name: str) -> list[str]:
        if name.endswith("."):
            return [] if _avoided(name) else [name]
        rooted = name + "."
        enough = name.count(".") >= self.conf.ndots
        listed = [rooted + domain for domain in self.conf.search]
        names = [rooted, *listed] if enough else [*listed, rooted]
        return [each for each in names if not _avoided(each) and len(each.encode()) <= _LONGEST]

    def _both(self, name: str, types: tuple[str, ...], original: bool) -> list[str]:
        """Ask one name for both types at once (or one after the other), and gather what came."""
        begun = self.now
        found: list[str] = []
        histories: list[list[Sent]] = []
        ends = [begun]
        problems: list[tuple[float, int, Problem]] = []
        # Of two goroutines the one started last runs first, and takes the first turn of `rotate`.
        turns = {kind: self._turn() for kind in reversed(types)}
        for kind in types:
            at = ends[-1] if self.conf.single_request else begun
            history: list[Sent] = []
            answer, problem, end = self._one(name, kind, turns[kind], at, history)
            histories.append(history)
            ends.append(end)
            if problem is not None:
                problems.append((end, len(history), problem))
            if answer is not None:
                found += [r.data for r in answer.answer if r.type in ("A", "AAAA")]
        self.now = max(ends)
        # Answers are taken as they arrive. The problem told is the last one of the name as it was given.
        if not self.conf.single_request:
            problems.sort(key=lambda each: each[:2])
        for _end, _count, problem in problems:
            if self.problem is None or original:
                self.problem = problem
        if self.conf.single_request:
            self.sent += [each for history in histories for each in history]
        else:
            order = [(each.at, place, each) for history in histories for place, each in enumerate(history)]
            self.sent += [each for _, _, each in sorted(order, key=lambda item: item[:2])]
        return found

    def _turn(self) -> int:
        """The first server to ask."""
        turn = self._offset
        self._offset += self.conf.rotate
        return turn

    def _one(
        self, name: str, kind: str, offset: int, at: float, history: list[Sent]
    ) -> tuple[Response | None, Problem | None, float]:
        """(answer with records, what went wrong, when it was over) of one question to all servers."""
        conf = self.conf
        problem: Problem | None = None
        for _attempt in range(conf.attempts):
            for index in range(len(conf.nameservers)):
                server = conf.nameservers[(index + offset) % len(conf.nameservers)]
                answer, problem, at = self._exchange(name, kind, server, at, history)
                if answer is None:
                    continue
                problem = _header_problem(answer, _endpoint(server))
                if problem is None and not any(record.type == kind for record in answer.answer):
                    problem = Problem(NO_SUCH_HOST, _endpoint(server), not_found=True)
                if problem is None or problem.not_found:
                    return (answer if problem is None else None), problem, at
        return None, problem, at

    def _exchange(
        self, name: str, kind: str, server: str, at: float, history: list[Sent]
    ) -> tuple[Response | None, Problem | None, float]:
        """One question to one server: over UDP, and over TCP if that was cut."""
        conf = self.conf
        query = Query(name, kind, self.rng.getrandbits(16), edns=Edns(_PAYLOAD), ad=conf.trust_ad)
        for protocol in ("tcp",) if conf.use_tcp else ("udp", "tcp"):
            self.sockets += 1
            result = self.send(query, server, Via(protocol, self.sockets, at))
            record = Sent(name, kind, server, protocol, self.sockets, at - self.start)
            from_to = f"{protocol} {self.local}:{32768 + self.sockets}->{_endpoint(server)}"
            if isinstance(result, Unreachable):
                history.append(_told(record, result.delay, result.reason))
                why = "connection reset by peer" if result.reason == "reset" else "connection refused"
                verb = "read" if protocol == "udp" or result.reason == "reset" else "dial"
                text = f"{verb} {from_to if verb == 'read' else f'tcp {_endpoint(server)}'}: "
                text += f"{'read' if verb == 'read' else 'connect'}: {why}"
                return None, Problem(text, _endpoint(server), temporary=True), at + result.delay
            if result is not None and result.id != query.id and protocol == "tcp":
                history.append(_told(record, result.delay, result.rcode))
                return None, Problem("invalid DNS response", _endpoint(server)), at + result.delay
            if result is None or result.id != query.id:
                history.append(record)
                problem = Problem(f"read {from_to}: i/o timeout", _endpoint(server), False, True, True)
                return None, problem, at + conf.timeout
            history.append(_told(record, result.delay, result.rcode, result.addresses))
            at += result.delay
            if not result.tc:
                return result, None, at
        return None, Problem("no answer from DNS server", _endpoint(server)), at


def _told(record: Sent, seconds: float, rcode: str, addresses: tuple[str, ...] = ()) -> Sent:
    from msgspec.structs import replace

    return replace(record, seconds=seconds, rcode=rcode, addresses=addresses)


def _header_problem(answer: Response, server: str) -> Problem | None:
    if answer.rcode == "NXDOMAIN":
        return Problem(NO_SUCH_HOST, server, not_found=True)
    if answer.rcode == "SERVFAIL":
        return Problem(MISBEHAVING, server, temporary=True)
    if answer.rcode != "NOERROR":
        return Problem(MISBEHAVING, server)
    empty = not answer.answer and not answer.additional and answer.edns is None
    if empty and not answer.aa and not answer.ra:
        return Problem("lame referral", server)
    return None


def _avoided(name: str) -> bool:
    return name.removesuffix(".").lower().endswith(".onion")


def _endpoint(server: str) -> str:
    return f"[{server}]:53" if ":" in server else f"{server}:53"
