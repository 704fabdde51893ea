"""musl's `getaddrinfo` (Alpine images) as a state machine, beside glibc's in `resolver.py`.

As recorded from musl 1.2.3. What differs from glibc: every server is asked at once and the first answer wins,
a negative one too; NODATA, SERVFAIL and silence end the search; a name with `ndots` dots or more never tries
the search list; no TCP, so a truncated answer counts as it is; nsswitch.conf and the environment
mean nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.lookup import (
    DEFAULT_HOSTS,
    MAX_NAMESERVERS,
    Resolution,
    ResolvConf,
    Send,
    Sent,
    Via,
    aton,
    ipv4_only,
    sort_addresses,
)
from kubenet_lab.dns.names import label_text, parse_ip
from kubenet_lab.dns.records import Query, Response

ERRORS = {
    "EAI_NONAME": "Name does not resolve",
    "EAI_AGAIN": "Try again",
    "EAI_FAIL": "Non-recoverable error",
    "EAI_SYSTEM": "System error",
}
"""What musl's gai_strerror says."""

_LINE, _HOSTS_LINE, _MAX_SEARCH = 256, 512, 256


def read_resolv_conf(text: str) -> ResolvConf:
    """/etc/resolv.conf as musl reads it: 255 octets a line, `domain` like `search`, the last one counts."""
    servers: list[str] = []
    search = ""
    numbers = {"ndots": 1, "attempts": 2, "timeout": 5}
    limits = {"ndots": 15, "attempts": 10, "timeout": 60}
    for line in text.splitlines(keepends=True):
        if len(line.encode()) >= _LINE:
            continue
        if re.match(r"options\s", line):
            for word, limit in limits.items():
                found = re.search(rf"{word}:(\d+)", line)
                if found and line.find(f"{word}:") == found.start():
                    numbers[word] = min(int(found[1]), limit)
        elif re.match(r"nameserver\s", line):
            words = line.split()
            address = _numeric(words[1]) if len(words) > 1 else ""
            if address and len(servers) < MAX_NAMESERVERS:
                servers.append(address)
        elif re.match(r"(domain|search)\s", line):
            search = line[7:].strip()
    return ResolvConf(
        nameservers=tuple(servers) or ("127.0.0.1",),
        search=tuple(search.split()),
        ndots=numbers["ndots"],
        timeout=numbers["timeout"],
        attempts=numbers["attempts"],
    )


def getaddrinfo(
    name: str,
    resolv_conf: str | ResolvConf,
    send: Send,
    *,
    hosts: str = DEFAULT_HOSTS,
    family: str = "unspec",
    flags: frozenset[str] = frozenset(),
    now: float = 0.0,
    seed: int = 0,
    usable: Callable[[str], bool] = ipv4_only,
) -> Resolution:
    """Look `name` up as a program in an Alpine pod does; arguments as in `resolver.getaddrinfo`."""
    conf = read_resolv_conf(resolv_conf) if isinstance(resolv_conf, str) else resolv_conf
    asking = _Asking(conf, send, now, random.Random(seed))
    wanted = family
    if "v4mapped" in flags and family == "inet6":
        wanted = "unspec"
    addresses, error, canonical, source = _look_up(name, asking, hosts, wanted, flags)
    if wanted != family:
        if any(":" in address for address in addresses) and "all" not in flags:
            addresses = [address for address in addresses if ":" in address]
        addresses = [address if ":" in address else f"::ffff:{address}" for address in addresses]
    return Resolution(
        name=name,
        addresses=sort_addresses(addresses, usable),
        error="" if addresses else error,
        canonname=canonical if addresses else "",
        queries=tuple(asking.sent),
        seconds=asking.now - now,
        source=source if addresses else "",
        text="" if addresses else TEXTS.get(error, ""),
    )


TEXTS = {
    "EAI_NONAME": "Name does not resolve",
    "EAI_AGAIN": "Try again",
    "EAI_FAIL": "Non-recoverable error",
}
"""musl's `gai_strerror`."""


def _look_up(
    name: str, asking: _Asking, hosts: str, family: str, flags: frozenset[str]
) -> tuple[list[str], str, str, str]:
    octets = len(name.encode())
    if not 0 < octets < 255:
        return [], "EAI_NONAME", "", ""
    literal = _numeric(name)
    if literal:
        fits = family == "unspec" or (family == "inet6") == (":" in literal)
        return ([literal] if fits else []), "EAI_NONAME", name, "literal"
    if "numerichost" in flags:
        return [], "EAI_NONAME", "", ""
    addresses, error, canonical = _from_hosts(name, hosts, family)
    if addresses or error:
        return addresses, error, canonical, "files"
    addresses, error, canonical = asking.search(name, family)
    return addresses, error, canonical, "dns"


def _numeric(text: str) -> str:
    if ":" not in text:
        return aton(text)
    found = parse_ip(text.partition("%")[0])
    return f"::ffff:{found}" if "." in found else found


def _from_hosts(name: str, hosts: str, family: str) -> tuple[list[str], str, str]:
    """Addresses of a name in /etc/hosts, case and all; an address of the wrong family alone is an error."""
    addresses: list[str] = []
    error = canonical = ""
    for whole in hosts.splitlines(keepends=True):
        for start in range(0, len(whole), _HOSTS_LINE - 1):
            # A longer line is read in pieces, each taken for a line of its own.
            line = whole[start : start + _HOSTS_LINE - 1]
            comment = line.partition("#")
            line = comment[0] + "\n" if comment[1] else line
            if not re.search(rf"\s{re.escape(name)}\s", line):
                continue
            words = line.split()
            address = _numeric(words[0])
            if not address:
                continue
            if family != "unspec" and (family == "inet6") != (":" in address):
                error = "EAI_NONAME"
                continue
            addresses.append(address)
            canonical = words[1] if len(words) > 1 else name
    return addresses, "" if addresses else error, canonical


class _Waiting(Struct):
    arrival: float
    server: str
    answer: Response


class _Asking:
    """State of one call: the time, the sockets opened, everything sent."""

    def __init__(self, conf: ResolvConf, send: Send, now: float, rng: random.Random) -> None:
        self.conf = conf
        self.send = send
        self.start = now
        self.now = now
        self.rng = rng
        self.sent: list[Sent] = []
        self.sockets = 0

    def search(self, name: str, family: str) -> tuple[list[str], str, str]:
        """(addresses, error, canonical name)."""
        domains = self.conf.search
        if name.count(".") >= self.conf.ndots or name.endswith("."):
            domains = ()
        name = name.removesuffix(".")
        if not name or name.endswith("."):
            return [], "EAI_NONAME", ""
        for domain in domains:
            if len(name) + 1 + len(domain) < _MAX_SEARCH:
                found = self._ask(f"{name}.{domain}", family)
                if found is not None:
                    return found
        return self._ask(name, family) or ([], "EAI_NONAME", "")

    def _ask(self, name: str, family: str) -> tuple[list[str], str, str] | None:
        """What asking for one name gave; None to go on with the next one."""
        parts = name.removesuffix(".").split(".")
        if len(name.encode()) > 253 or any(not 0 < len(part.encode()) < 64 for part in parts):
            return [], "EAI_NONAME", ""
        text = ".".join(label_text(part.encode("utf-8", "surrogateescape")) for part in parts) + "."
        types = {"inet": ("A",), "inet6": ("AAAA",)}.get(family, ("A", "AAAA"))
        first = self.rng.getrandbits(16)
        queries = [Query(text, kind, first ^ number) for number, kind in enumerate(types)]
        answers = self._exchange(queries)
        for answer in answers:
            if answer is None or answer.rcode == "SERVFAIL":
                return [], "EAI_AGAIN", ""
            if answer.rcode == "NXDOMAIN":
                return None
        addresses: list[str] = []
        canonical = name
        for answer in answers:
            assert answer is not None
            for record in answer.answer:
                if record.type == "CNAME":
                    canonical = record.data.removesuffix(".")
                elif record.type in ("A", "AAAA"):
                    addresses.append(record.data)
        return addresses, "" if addresses else "EAI_NONAME", canonical

    def _exchange(self, queries: list[Query]) -> list[Response | None]:
        """All queries to all servers at once, again every timeout / attempts until each has an answer."""
        conf = self.conf
        answers: list[Response | None] = [None] * len(queries)
        self.sockets += 1
        waiting: list[_Waiting] = []
        began = self.now
        interval = conf.timeout / conf.attempts
        retries = 0
        due = began
        while self.now - began < conf.timeout:
            if self.now >= due:
                burst = 0
                for query, answer in zip(queries, answers, strict=True):
                    if answer is None:
                        for server in conf.nameservers:
                            self._put(query, server, waiting, parallel=burst > 0)
                        burst += 1
                due = self.now + interval
                retries = 2 * len(queries)
            event = min(waiting, key=lambda each: each.arrival, default=None)
            if event is None or event.arrival > due:
                self.now = due
                continue
            waiting.remove(event)
            self.now = max(self.now, event.arrival)
            place = next((at for at, query in enumerate(queries) if query.id == event.answer.id), None)
            if place is None or answers[place] is not None:
                continue
            if event.answer.rcode in ("NOERROR", "NXDOMAIN"):
                answers[place] = event.answer
            elif event.answer.rcode == "SERVFAIL" and retries:
                retries -= 1
                self._put(queries[place], event.server, waiting)
            if all(answer is not None for answer in answers):
                break
        return answers

    def _put(self, query: Query, server: str, waiting: list[_Waiting], *, parallel: bool = False) -> None:
        result = self.send(query, server, Via("udp", self.sockets, self.now, parallel))
        record = Sent(query.name, query.type, server, socket=self.sockets, at=self.now - self.start)
        if result is not None:
            record = replace(
                record,
                seconds=result.delay,
                rcode=result.rcode if isinstance(result, Response) else result.reason,
                addresses=result.addresses if isinstance(result, Response) else (),
            )
        self.sent.append(record)
        if isinstance(result, Response):
            # An ICMP error never reaches a socket that is not connected.
            waiting.append(_Waiting(self.now + result.delay, server, result))
