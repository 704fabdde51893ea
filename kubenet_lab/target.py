"""What a caller types for where it wants to go: a URL, host:port, or an address."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.errors import Fault, InputError

PORTS = {"http": 80, "https": 443, "tcp": 0, "udp": 0, "dns": 53, "postgres": 5432, "ping": 0, "icmp": 0}
"""Schemes understood, with their default port (0: the port must be written)."""


class Target(Struct, frozen=True):
    """`protocol` is "tcp", "udp" or "icmp"; `text` is what was typed."""

    text: str
    host: str
    port: int
    protocol: str


def parse_target(text: str) -> Target:
    """Read a target. A bare host or address is pinged; host:port is a TCP call. Raises InputError."""
    scheme, sep, rest = text.partition("://")
    if not sep:
        scheme, rest = "", text
    elif scheme not in PORTS:
        raise _bad(text, f"unknown scheme {scheme!r}", f"write one of: {', '.join(PORTS)}")
    authority = rest.split("/", 1)[0].split("?", 1)[0].rpartition("@")[2]
    host, port_text = _split(text, authority)
    if not host:
        raise _bad(text, "no host", "write http://NAME[:PORT], NAME:PORT or an address")
    protocol = "udp" if scheme in ("udp", "dns") else "icmp" if scheme in ("ping", "icmp") else "tcp"
    if not scheme and not port_text:
        protocol = "icmp"
    port = PORTS.get(scheme, 0)
    if port_text:
        if not port_text.isdigit() or not 0 < int(port_text) < 65536:
            raise _bad(text, f"port {port_text!r} is not a number from 1 to 65535", f"write {host}:80")
        port = int(port_text)
    if protocol != "icmp" and not port:
        raise _bad(text, "no port", f"write {scheme}://{host}:PORT")
    return Target(text, host, port, protocol)


def _split(text: str, authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket:
            raise _bad(text, "a [ without its ]", "write [fd00::1]:80")
        return host, rest.removeprefix(":")
    if authority.count(":") > 1:
        return authority, ""
    host, _, port = authority.partition(":")
    return host, port


def _bad(text: str, message: str, help: str) -> InputError:
    return InputError([Fault(f"{message} in target {text!r}", "<target>", help=help)])
