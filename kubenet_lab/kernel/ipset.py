"""IP sets: named collections that `-m set` looks a packet up in (ipset(8)).

A set is never changed in place: `add` and `delete` return a new one. Elements are kept as `ipset save`
prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.packet.ip import PREFIX, ip_int, ip_text

TYPES = (
    "bitmap:ip", "bitmap:ip,mac", "bitmap:port", "hash:ip", "hash:ip,mark", "hash:ip,port", "hash:ip,port,ip",
    "hash:ip,port,net", "hash:mac", "hash:net", "hash:net,net", "hash:net,iface", "hash:net,port",
    "hash:net,port,net", "list:set",
)  # fmt: skip

_HASH = ("hashsize", "1024", "maxelem", "65536")
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132, "udplite": 136}
_ICMP = {"echo-request": "8/0", "ping": "8/0", "echo-reply": "0/0", "pong": "0/0"}
_ICMP6 = {"echo-request": "128/0", "ping": "128/0", "echo-reply": "129/0", "pong": "129/0"}
_MOST = 1 << 16


class IpSetError(KubenetLabError):
    """A set cannot be made or changed; the text is what `ipset` prints after its version."""


class IpSet:
    """One set.

    Attributes:
        name, type: As `ipset create` takes them.
        family: "inet" or "inet6"; "" for sets without one (bitmap, hash:mac, list:set).
        settings: The further words of the `create` line, as `ipset save` prints them.
        entries: Element -> its further words ("nomatch", "timeout", "30", ...).
    """

    __slots__ = ("_lengths", "entries", "family", "name", "settings", "type")

    def __init__(
        self,
        name: str,
        type: str,
        family: str = "inet",
        settings: tuple[str, ...] | None = None,
        entries: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        if type not in TYPES:
            raise IpSetError(f"Syntax error: typename '{type}' is unknown")
        if not 0 < len(name) <= 31:
            raise IpSetError(f"Syntax error: setname '{name}' is longer than 31 characters")
        self.name = name
        self.type = type
        self.family = family if type.startswith("hash:") and type != "hash:mac" else ""
        if settings is None:
            settings = (
                _HASH if type.startswith("hash:") else ("range", "0-65535") if type == "bitmap:port" else ()
            )
        self.settings = settings
        self.entries: dict[str, tuple[str, ...]] = dict(entries or {})
        self._lengths: tuple[tuple[int, ...], ...] | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IpSet):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.name, self.type, len(self.entries)))

    def __repr__(self) -> str:
        return f"<IpSet {self.name} {self.type} {len(self.entries)} entries>"

    def _key(self) -> tuple[object, ...]:
        return (self.name, self.type, self.family, self.settings, self.entries)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What an element is made of: ("ip", "port", "net")."""
        return tuple(self.type.partition(":")[2].split(","))

    def add(self, element: str, *options: str, exist: bool = False) -> IpSet:
        """`ipset add NAME ELEMENT [OPTIONS]`. Raises IpSetError."""
        return self.update([(element, options)], exist=exist)

    def update(self, elements: Iterable[tuple[str, tuple[str, ...]]], *, exist: bool = False) -> IpSet:
        """Add many elements at once. Raises IpSetError for one that is there already, unless `exist`."""
        entries = dict(self.entries)
        limit = int(self._setting("maxelem", "65536")) if self.type.startswith("hash:") else 65536
        for element, options in elements:
            for text in self._expand(element):
                if text in entries and not exist:
                    raise IpSetError("Element cannot be added to the set: it's already added")
                if len(entries) >= limit and text not in entries:
                    raise IpSetError("Hash is full, cannot add more elements")
                entries[text] = tuple(options)
        return IpSet(self.name, self.type, self.family, self.settings, entries)

    def delete(self, element: str, *, exist: bool = False) -> IpSet:
        """`ipset del NAME ELEMENT`. Raises IpSetError when it is not there, unless `exist`."""
        entries = dict(self.entries)
        for text in self._expand(element):
            if entries.pop(text, None) is None and not exist:
                raise IpSetError("Element cannot be deleted from the set: it's not added")
        return IpSet(self.name, self.type, self.family, self.settings, entries)

    def canonical(self, element: str) -> str:
        """Return an element as the set holds it ("10.0.0.1,80" is "10.0.0.1,tcp:80"). Raises IpSetError."""
        return self._expand(element)[0]

    def check(self, element: str) -> None:
        """Raise IpSetError when the element could not be in a set of this type."""
        self._expand(element)

    def flush(self) -> IpSet:
        """`ipset flush NAME`."""
        return IpSet(self.name, self.type, self.family, self.settings)

    def __contains__(self, element: str) -> bool:
        """`ipset test NAME ELEMENT`, for an element written out (addresses, not networks)."""
        return self.find(tuple(element.split(","))) is not None

    def find(self, parts: tuple[str, ...], *, nomatch: bool = False) -> str | None:
        """Return the element that holds `parts`, or None.

        Args:
            parts: One text a dimension: an address for ip and net, "tcp:80" for port, a name for iface, a
            MAC, a mark.
            nomatch: Find elements with the `nomatch` flag instead, as `--return-nomatch` does.
        """
        entries = self.entries
        dimensions = self.dimensions
        if "net" not in dimensions:
            if self.type == "bitmap:port":
                parts = (parts[0].rpartition(":")[2],)
            elif dimensions == ("ip",) and "netmask" in self.settings:
                netmask = self._setting("netmask", "32")
                parts = (PREFIX[f"{parts[0]}/{netmask}"].text.partition("/")[0],)
            text = ",".join(parts)
            return text if text in entries else None
        for lengths in product(*self._prefix_lengths()):
            words = []
            for part, dimension, length in zip(parts, dimensions, lengths, strict=True):
                words.append(_net_text(part, length) if dimension == "net" else part)
            text = ",".join(words)
            options = entries.get(text)
            if options is not None:
                return text if ("nomatch" in options) == nomatch else None
        return None

    def _prefix_lengths(self) -> tuple[tuple[int, ...], ...]:
        """Return the prefix lengths in use for each dimension, longest first; (0,) where it is no network."""
        found = self._lengths
        if found is None:
            used: list[set[int]] = [set() for _ in self.dimensions]
            for element in self.entries:
                for place, (part, dimension) in enumerate(
                    zip(element.split(","), self.dimensions, strict=True)
                ):
                    used[place].add(_length(part) if dimension == "net" else 0)
            found = self._lengths = tuple(tuple(sorted(lengths, reverse=True)) for lengths in used)
        return found

    def _setting(self, name: str, default: str) -> str:
        words = self.settings
        return words[words.index(name) + 1] if name in words else default

    def _expand(self, element: str) -> list[str]:
        """Return the elements a written one stands for, in canonical form. Raises IpSetError."""
        parts = element.split(",")
        dimensions = self.dimensions
        if dimensions[0] == "set":
            return [element]
        if len(parts) != len(dimensions):
            raise IpSetError(f"Syntax error: {element} needs {len(dimensions)} parts: {self.type}")
        each = [self._part(part, dimension) for part, dimension in zip(parts, dimensions, strict=True)]
        return [",".join(words) for words in product(*each)]

    def _part(self, text: str, dimension: str) -> list[str]:
        if dimension == "ip":
            return self._addresses(text)
        if dimension == "net":
            return [self._net(text)]
        if dimension == "port":
            return _ports(text, self.type, self.family)
        if dimension == "mark":
            return [f"0x{int(text, 0):08x}"]
        if dimension == "mac":
            return [text.upper()]
        return [text]

    def _words(self) -> str:
        return "IPv6" if self.family == "inet6" else "IPv4"

    def _check_family(self, text: str) -> None:
        if (":" in text) != (self.family == "inet6") or not text:
            raise IpSetError(
                f"Syntax error: cannot parse {text}: resolving to {self._words()} address failed"
            )

    def _net(self, text: str) -> str:
        host, _, _ = text.partition("/")
        self._check_family(host)
        try:
            net = PREFIX[text]
        except ValueError:
            raise IpSetError(
                f"Syntax error: cannot parse {text}: resolving to {self._words()} address failed"
            ) from None
        return _net_text(host, net.length)

    def _addresses(self, text: str) -> list[str]:
        first, dash, last = text.partition("-")
        self._check_family(first)
        family = 6 if self.family == "inet6" else 4
        try:
            if dash:
                low, high = ip_int(first), ip_int(last)
            else:
                net = PREFIX[text]
                low, high = net.net, net.net | (~net.mask & ((1 << (32 if family == 4 else 128)) - 1))
        except ValueError:
            raise IpSetError(
                f"Syntax error: cannot parse {text}: resolving to IPv{family} address failed"
            ) from None
        netmask = self._setting("netmask", "")
        if netmask:
            return [PREFIX[f"{ip_text(low, family)}/{netmask}"].text.partition("/")[0]]
        if high - low >= _MOST:
            raise IpSetError(f"{text} is more than {_MOST} addresses: use a hash:net set")
        return [ip_text(number, family) for number in range(low, high + 1)]


def port_part(proto: int, port: int, icmp_type: int = 0, icmp_code: int = 0) -> str:
    """Return the port dimension of a packet as an element holds it: "tcp:80", "icmp:echo-request", "47:0"."""
    if proto in (1, 58):
        text = f"{icmp_type}/{icmp_code}"
        known = _ICMP if proto == 1 else _ICMP6
        word = next((name for name, value in known.items() if value == text), text)
        return f"{'icmp' if proto == 1 else 'icmpv6'}:{word}"
    name = next((name for name, number in _PROTOCOLS.items() if number == proto), str(proto))
    return f"{name}:{port}"


def _ports(text: str, type: str, family: str) -> list[str]:
    proto, _, ports = text.rpartition(":")
    proto = (proto or "tcp").lower()
    if proto.isdigit():
        proto = next((name for name, number in _PROTOCOLS.items() if number == int(proto)), proto)
    if proto in ("icmp", "icmpv6"):
        known = _ICMP if proto == "icmp" else _ICMP6
        value = known.get(ports, ports)
        return [f"{proto}:{next((name for name, number in known.items() if number == value), value)}"]
    low, dash, high = ports.partition("-")
    if not low.isdigit() or (dash and not high.isdigit()) or int(high or low) > 65535:
        raise IpSetError(f"Syntax error: '{text}' is invalid as a port or protocol:port")
    every = [str(port) for port in range(int(low), int(high or low) + 1)]
    return every if type == "bitmap:port" else [f"{proto}:{port}" for port in every]


def _length(part: str) -> int:
    _, slash, length = part.partition("/")
    return int(length) if slash else 128 if ":" in part else 32


def _net_text(address: str, length: int) -> str:
    """Return the network of an address as a set holds it: without the length where it is a single host."""
    text = PREFIX[f"{address}/{length}"].text
    return text.partition("/")[0] if length == (128 if ":" in address else 32) else text
