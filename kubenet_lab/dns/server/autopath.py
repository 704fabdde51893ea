"""The `autopath` plugin (https://coredns.io/plugins/autopath/): the search list walked by the server.

A client's first query names its first search domain; the server tries the others itself and answers with a CNAME to
the name that was found. One round trip instead of five, for a cache of pods by address.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.names import absolute, is_subdomain
from kubenet_lab.dns.records import Record, Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError, normalize
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class AutoPath(Plugin):
    """Tries `search` (or what `plugin` says the client's list is), and answers the first that is not NXDOMAIN."""

    name = "autopath"

    def __init__(self, zones: tuple[str, ...], search: tuple[str, ...], plugin: str = "") -> None:
        self.zones = zones
        self.search = search
        self.plugin = plugin

    def serve(self, request: Request) -> Response | Failure:
        """Walk the list for a name in the client's first search domain; pass on the rest."""
        search = self._search(request)
        if not search or not any(is_subdomain(zone, request.name) for zone in self.zones):
            return self.pass_on(request)
        first = search[0]
        if not is_subdomain(first, request.name) or request.name == first:
            return self.pass_on(request)
        original = request.query
        base = original.name[: -len(first) - 1]
        fallback: Response | Failure | None = None
        for domain in search:
            asked = f"{base}.{domain}" if domain else absolute(base)
            request.query = replace(original, name=asked)
            request.name = asked.lower()
            answer = self.pass_on(request)
            if fallback is None:
                fallback = answer
            if isinstance(answer, Failure):
                if answer.error:
                    break
                continue
            if answer.rcode != "NXDOMAIN":
                request.query, request.name = original, original.name.lower()
                return _alias(answer, original.name, request)
        request.query, request.name = original, original.name.lower()
        assert fallback is not None
        return fallback if isinstance(fallback, Failure) else replace(fallback, question=original)

    def _search(self, request: Request) -> tuple[str, ...]:
        if not self.plugin:
            return self.search
        plugin: Plugin | None = self.next
        while plugin is not None:
            if plugin.name == self.plugin:
                find = getattr(plugin, "search_of", None)
                return find(request) if find is not None else ()
            plugin = plugin.next
        return ()

    @classmethod
    def setup(cls, controller: Controller) -> AutoPath:
        """Read the stanza: [ZONES...] RESOLV-CONF|@PLUGIN. Raises CorefileError."""
        c = controller
        made: AutoPath | None = None
        while c.next():
            args = c.args()
            if not args:
                raise CorefileError("no resolv-conf specified")
            source = args.pop()
            zones = tuple(zone for arg in args for zone in normalize(arg)) or c.zones
            if source.startswith("@"):
                made = cls(zones, (), source[1:])
                continue
            text = c.files.get(source)
            if text is None:
                raise CorefileError(f'failed to parse "{source}": open {source}: no such file or directory')
            made = cls(zones, (*_domains(text), ""))
        assert made is not None
        return made


def _domains(text: str) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in ("search", "domain"):
            found = tuple(absolute(word).lower() for word in words[1:])
    return found


def _alias(answer: Response, name: str, request: Request) -> Response:
    """Put a CNAME from the name that was asked before what was found."""
    records = answer.answer
    for record in records:
        if record.name.lower() != name.lower():
            records = (Record(name, "CNAME", record.ttl, record.name), *records)
            break
    return replace(answer, question=request.query, answer=records)
