"""The `hosts` plugin (https://coredns.io/plugins/hosts/): answers from a hosts file or from lines in the Corefile."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.dns.names import absolute, is_subdomain, parse_ip, reversed_address
from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration, integer
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

PATH = "/etc/hosts"
DEFAULT_TTL = 3600


class Table(Struct, frozen=True):
    """Names to addresses, and back. Names are absolute and lower case."""

    by_name: dict[str, tuple[str, ...]]
    by_address: dict[str, tuple[str, ...]]

    @classmethod
    def read(cls, text: str, reverse: bool = True) -> Table:
        """Read a hosts file; lines that are wrong are left out, as CoreDNS does."""
        names: dict[str, list[str]] = {}
        addresses: dict[str, list[str]] = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            address = parse_ip(words[0]) if len(words) > 1 else ""
            if not address:
                continue
            for word in words[1:]:
                name = absolute(word).lower()
                names.setdefault(name, []).append(address)
                if reverse:
                    addresses.setdefault(address, []).append(name)
        return cls(
            {name: tuple(dict.fromkeys(found)) for name, found in names.items()},
            {address: tuple(found) for address, found in addresses.items()},
        )


class Hosts(Plugin):
    """Answers A, AAAA and PTR of what its tables hold; `fallthrough` None lets nothing else on."""

    name = "hosts"

    def __init__(
        self, zones: tuple[str, ...], tables: tuple[Table, ...], ttl: int, fallthrough: tuple[str, ...] | None
    ) -> None:
        self.zones = zones
        self.tables = tables
        self.ttl = ttl
        self.fallthrough = fallthrough

    def serve(self, request: Request) -> Response | Failure:
        """Answer, pass on what falls through, fail for the rest."""
        query, name = request.query, request.name
        if not any(is_subdomain(zone, name) for zone in self.zones):
            return self.pass_on(request)
        if query.type == "PTR":
            names = self._names(reversed_address(name))
            if not names:
                return self.pass_on(request)
            return self._reply(request, tuple(Record(query.name, "PTR", self.ttl, each) for each in names))
        found = self._addresses(name, query.type) if query.type in ("A", "AAAA") else ()
        if found:
            return self._reply(
                request, tuple(Record(query.name, query.type, self.ttl, each) for each in found)
            )
        if any(name in table.by_name for table in self.tables):
            return self._reply(request, ())
        if self.fallthrough is not None and any(is_subdomain(zone, name) for zone in self.fallthrough):
            return self.pass_on(request)
        return Failure("SERVFAIL")

    def _reply(self, request: Request, records: tuple[Record, ...]) -> Response:
        return reply(request.query, answer=records, aa=True)

    def _addresses(self, name: str, kind: str) -> tuple[str, ...]:
        found = (a for table in self.tables for a in table.by_name.get(name, ()))
        return tuple(a for a in found if (":" in a) == (kind == "AAAA"))

    def _names(self, address: str) -> tuple[str, ...]:
        return tuple(name for table in self.tables for name in table.by_address.get(address, ()))

    @classmethod
    def setup(cls, controller: Controller) -> Hosts:
        """Read the stanza: [FILE [ZONES...]] { [INLINE] ttl SECONDS no_reverse reload TIME fallthrough [ZONES] }."""
        c = controller
        made: Hosts | None = None
        while c.next():
            if made is not None:
                raise CorefileError("this plugin can only be used once per Server Block")
            args = c.args()
            path = PATH
            if args:
                path = args[0] if args[0].startswith("/") or args[0] in c.files else f"/{args[0]}"
                args = args[1:]
            zones = c.zones_or(args)
            ttl, reverse, lines = DEFAULT_TTL, True, []
            fallthrough: tuple[str, ...] | None = None
            while c.next_block():
                word = c.value
                if word == "fallthrough":
                    fallthrough = c.fallthrough(c.args())
                elif word == "no_reverse":
                    reverse = False
                elif word == "ttl":
                    ttl = _ttl(c)
                elif word == "reload":
                    words = c.args()
                    if len(words) != 1:
                        raise c.error("reload needs a duration (zero seconds to disable)")
                    try:
                        seconds = duration(words[0])
                    except CorefileError:
                        raise c.error(f"invalid duration for reload '{words[0]}'") from None
                    if seconds < 0:
                        raise c.error(f"invalid negative duration for reload '{words[0]}'")
                else:
                    lines.append(" ".join([word, *c.args()]))
            tables = (Table.read(c.files.get(path, ""), reverse), Table.read("\n".join(lines), reverse))
            made = cls(zones, tables, ttl, fallthrough)
        assert made is not None
        return made


def _ttl(c: Controller) -> int:
    words = c.args()
    if len(words) < 1:
        raise c.error("ttl needs a time in second")
    try:
        ttl = integer(words[0])
    except CorefileError:
        raise c.error("ttl needs a number of second") from None
    if not 0 < ttl <= 65535:
        raise c.error("ttl provided is invalid")
    return ttl
