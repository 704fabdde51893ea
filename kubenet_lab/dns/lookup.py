"""What every stub resolver shares: its configuration, what it sends, what it learned.

A resolver is a function handed a `send`; it opens no socket and reads no clock.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from functools import lru_cache

from msgspec import Struct

from kubenet_lab.dns.names import label_text, parse_ip
from kubenet_lab.dns.records import Query, Response

MAX_NAMESERVERS = 3
_MAX_NDOTS, _MAX_TIMEOUT, _MAX_ATTEMPTS = 15, 30, 5


class Via(Struct, frozen=True):
    """How a query travels.

    Attributes:
        protocol: "udp" or "tcp".
        socket: Number of the client's socket, from 1; the same number is the same source port.
        now: Seconds, when it is sent.
        parallel: It follows the query before it on the same socket without waiting for that one's answer.
    """

    protocol: str
    socket: int
    now: float
    parallel: bool = False


class Unreachable(Struct, frozen=True):
    """The network said no: an ICMP error or a TCP reset came `delay` seconds after sending."""

    delay: float = 0.0
    reason: str = "refused"


Send = Callable[[Query, str, Via], "Response | Unreachable | None"]
"""(query, server address, how) -> the answer with its `delay`, an error, or None for silence."""


class Sent(Struct, frozen=True):
    """One query a resolver sent, and what came back.

    Attributes:
        name, type, server: What was asked of whom.
        protocol, socket: How; the same socket number is the same source port.
        at: Seconds after the start of the call.
        seconds: Until the answer came; None if none did.
        rcode: Of the answer; "" if none came, the reason ("refused", "reset") if the network said no.
        addresses: In the answer.
    """

    name: str
    type: str
    server: str
    protocol: str = "udp"
    socket: int = 1
    at: float = 0.0
    seconds: float | None = None
    rcode: str = ""
    addresses: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """In a word: the addresses, "NODATA", the rcode, or "no answer"."""
        if self.seconds is None:
            return "no answer"
        if self.rcode == "NOERROR":
            return ", ".join(self.addresses) or "NODATA"
        return self.rcode


class Resolution(Struct, frozen=True):
    """What a lookup came to.

    Attributes:
        name: As the application gave it.
        addresses: In the order the application gets them; empty on failure.
        error: "EAI_NONAME" and so on; "" on success; "HANGS" if the call never returns.
        canonname: The name the addresses belong to.
        queries: Everything sent, in order.
        seconds: How long the call took.
        source: Where the answer came from: "literal", "files", "dns" or "".
        text: The program's own words for the error, where it does not print getaddrinfo's.
    """

    name: str
    addresses: tuple[str, ...] = ()
    error: str = ""
    canonname: str = ""
    queries: tuple[Sent, ...] = ()
    seconds: float = 0.0
    source: str = ""
    text: str = ""

    @property
    def message(self) -> str:
        """What `gai_strerror` says of the error, as programs print it."""
        return self.text or ERRORS.get(self.error, ("", ""))[1]


ERRORS: dict[str, tuple[str, str]] = {
    "EAI_NONAME": ("-2", "Name or service not known"),
    "EAI_AGAIN": ("-3", "Temporary failure in name resolution"),
    "EAI_FAIL": ("-4", "Non-recoverable failure in name resolution"),
    "EAI_NODATA": ("-5", "No address associated with hostname"),
    "EAI_ADDRFAMILY": ("-9", "Address family for hostname not supported"),
    "EAI_SYSTEM": ("-11", "System error"),
}
"""getaddrinfo's errors: number and text (glibc)."""


class ResolvConf(Struct, frozen=True):
    """/etc/resolv.conf as glibc reads it (resolv.conf(5)).

    Attributes:
        nameservers: The first three.
        search: Domains, as query names without final dot (odd bytes escaped).
        ndots, timeout, attempts: Limited to 15, 30 s and 5.
        options: Every other option that is set, by its word.
    """

    nameservers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: int = 5
    attempts: int = 2
    options: frozenset[str] = frozenset()

    @classmethod
    def from_text(cls, text: str, environment: Mapping[str, str] | None = None) -> ResolvConf:
        """Read the file as `res_init` does: never an error, nonsense is ignored.

        LOCALDOMAIN and RES_OPTIONS in the environment overrule it. Without a usable nameserver 127.0.0.1 is
        asked.
        """
        environment = environment or {}
        return _read(text, environment.get("LOCALDOMAIN"), environment.get("RES_OPTIONS", ""))


@lru_cache(maxsize=1024)
def _read(text: str, fixed: str | None, more: str) -> ResolvConf:
    servers: list[str] = []
    search: list[str] = []
    numbers = {"ndots": 1, "timeout": 5, "attempts": 2}
    words: set[str] = set()
    for line in text.split("\n"):
        if line[:1] in (";", "#"):
            continue
        keyword, rest = _split(line)
        if keyword == "nameserver" and len(servers) < MAX_NAMESERVERS:
            server = _address(rest.split()[0] if rest.split() else "")
            if server:
                servers.append(server)
        elif keyword == "search" and fixed is None and rest.strip():
            search = _blanks(rest)
        elif keyword == "domain" and fixed is None and rest.strip():
            search = _blanks(rest)[:1]
        elif keyword == "options":
            _options(rest, numbers, words)
    if fixed is not None:
        # Set and empty, it is one empty domain: the name is asked again as it is.
        search = _blanks(fixed) or [""]
    _options(more, numbers, words)
    return ResolvConf(
        nameservers=tuple(servers) or ("127.0.0.1",),
        search=tuple(_escape(domain) for domain in search),
        ndots=numbers["ndots"],
        timeout=numbers["timeout"],
        attempts=numbers["attempts"],
        options=frozenset(words),
    )


def _split(line: str) -> tuple[str, str]:
    found = re.match(r"([^ \t]+)[ \t]+(.*)", line, re.DOTALL)
    return (found[1], found[2]) if found else (line, "")


def _blanks(text: str) -> list[str]:
    """Words between blanks and tabs only: a carriage return stays part of the last one."""
    return [word for word in re.split(r"[ \t\n]+", text) if word]


def _escape(domain: str) -> str:
    text = domain[:-1] if domain.endswith(".") else domain
    return ".".join(label_text(part.encode("utf-8", "surrogateescape")) for part in text.split("."))


def _address(text: str) -> str:
    zone = text.partition("%")[2]
    if ":" in text:
        found = parse_ip(text.partition("%")[0])
        return f"{found}%{zone}" if found and zone else found
    return aton(text)


def _options(text: str, numbers: dict[str, int], words: set[str]) -> None:
    limits = {"ndots": _MAX_NDOTS, "timeout": _MAX_TIMEOUT, "attempts": _MAX_ATTEMPTS}
    for word in re.split(r"[ \t\r\n]+", text):
        key, colon, value = word.partition(":")
        if colon and key in limits:
            digits = re.match(r"-?\d+", value)
            numbers[key] = min(int(digits[0]) if digits else 0, limits[key])
        elif word:
            words.add(word)


def aton(text: str) -> str:
    """An IPv4 address in any form `inet_aton` takes ("10.1", "0x7f.1"), as dotted quad; "" if it is none."""
    if not re.fullmatch(r"[0-9a-fA-FxX]+(\.[0-9a-fA-FxX]+){0,3}", text):
        return ""
    try:
        return socket.inet_ntop(socket.AF_INET, socket.inet_aton(text))
    except OSError:
        return ""


class HostsLine(Struct, frozen=True):
    """A line of /etc/hosts (hosts(5)): the first name is the canonical one."""

    address: str
    names: tuple[str, ...]


@lru_cache(maxsize=1024)
def parse_hosts(text: str) -> tuple[HostsLine, ...]:
    """Read /etc/hosts; a line without a valid address and a name is ignored, `#` begins a comment."""
    lines: list[HostsLine] = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1:
            address = parse_ip(words[0]) if ":" in words[0] else aton(words[0])
            if address:
                lines.append(HostsLine(address, tuple(words[1:])))
    return tuple(lines)


DEFAULT_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def sort_addresses(addresses: list[str], usable: Callable[[str], bool]) -> tuple[str, ...]:
    """Addresses as an application gets them: reachable ones first, then by precedence (RFC 6724, 1 and 6).

    `usable` says whether the host has a source address for a destination. Within a class the order stays.
    """
    return tuple(sorted(addresses, key=lambda address: (not usable(address), -_precedence(address))))


def _precedence(address: str) -> int:
    if ":" not in address:
        return 35
    return 50 if address == "::1" else 40


def ipv4_only(address: str) -> bool:
    """`usable` of a host with an IPv4 address and, of IPv6, loopback alone."""
    return ":" not in address or address == "::1"
