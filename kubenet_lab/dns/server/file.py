"""The `file` plugin (https://coredns.io/plugins/file/): zones from master files."""

from __future__ import annotations

from kubenet_lab.dns.names import closest_zone, is_subdomain
from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.zonefile import ZoneFile


class File(Plugin):
    """Answers from `zones`; None is a zone whose file is not there (yet)."""

    name = "file"

    def __init__(self, zones: dict[str, ZoneFile | None], fallthrough: tuple[str, ...]) -> None:
        self.zones = zones
        self.fallthrough = fallthrough

    def serve(self, request: Request) -> Response | Failure:
        """Answer names of the zones, pass on the rest."""
        query = request.query
        zone = closest_zone(self.zones, request.name)
        if not zone:
            return self.pass_on(request)
        content = self.zones[zone]
        if content is None:
            return Failure("SERVFAIL", f"plugin/file: zone {zone} has no data")
        if query.type in ("AXFR", "IXFR"):
            return Failure("REFUSED")

        def elsewhere(name: str, kind: str) -> tuple[Record, ...]:
            found = request.lookup(request, name, kind)
            return () if found is None else found.answer

        done = content.answer(query, elsewhere)
        if done.rcode == "NXDOMAIN" and any(is_subdomain(z, request.name) for z in self.fallthrough):
            return self.pass_on(request)
        return reply(
            query,
            done.rcode,
            answer=done.answer,
            authority=done.authority,
            additional=done.additional,
            aa=True,
        )

    @classmethod
    def setup(cls, controller: Controller) -> File:
        """Read the stanza: FILE [ZONES...] { reload TIME fallthrough [ZONES...] }. Raises CorefileError."""
        c = controller
        found: dict[str, ZoneFile | None] = {}
        fallthrough: tuple[str, ...] = ()
        while c.next():
            if not c.next_arg():
                raise c.arg_error()
            path = c.value
            text = c.files.get(path)
            for zone in c.zones_or(c.args()):
                try:
                    found[zone] = None if text is None else ZoneFile(zone, text)
                except ValueError as error:
                    raise CorefileError(f"file {path}: {error}") from None
            while c.next_block():
                word, words = c.value, c.args()
                if word == "reload":
                    if len(words) != 1:
                        raise c.arg_error()
                    duration(words[0])
                elif word == "fallthrough":
                    fallthrough = c.fallthrough(words)
                elif word != "upstream":
                    raise c.error(f"unknown property '{word}'")
        return cls(found, fallthrough)
