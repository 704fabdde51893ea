"""The `local` plugin (https://coredns.io/plugins/local/): names of this very host stay here (RFC 6303)."""

from __future__ import annotations

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

TTL = 604800
ZONES = ("localhost.", "0.in-addr.arpa.", "127.in-addr.arpa.", "255.in-addr.arpa.")
_DATA = "localhost. root.localhost. 1 0 0 0 604800"
_LOOPBACK = "1.0.0.127.in-addr.arpa."


class Local(Plugin):
    """Answers localhost, names below it, and the reverse names of loopback and broadcast addresses."""

    name = "local"

    def serve(self, request: Request) -> Response | Failure:
        """Answer such a name, pass on the rest."""
        query, name = request.query, request.name
        if name.count(".") > 1 and name.startswith("localhost."):
            # localhost.DOMAIN is what a search list makes of localhost.
            return _answer(query)
        zone = next((z for z in ZONES if name == z or name.endswith(f".{z}")), "")
        if not zone:
            return self.pass_on(request)
        if name == zone and query.type == "NS":
            return reply(query, answer=(Record(query.name, "NS", TTL, "localhost."),))
        if name == zone and query.type == "SOA":
            return reply(query, answer=(Record(query.name, "SOA", TTL, _DATA),))
        if zone == "localhost.":
            return _answer(query)
        if name == _LOOPBACK and query.type == "PTR":
            return reply(query, answer=(Record(query.name, "PTR", TTL, "localhost."),))
        return _nothing(query, zone)

    @classmethod
    def setup(cls, controller: Controller) -> Local:
        """Read the stanza, which has no words."""
        return cls()


def _answer(query: Query) -> Response:
    address = {"A": "127.0.0.1", "AAAA": "::1"}.get(query.type)
    if address is None:
        return _nothing(query)
    return reply(query, answer=(Record(query.name, query.type, TTL, address),))


def _nothing(query: Query, zone: str = "") -> Response:
    return reply(query, authority=(Record(zone or query.name, "SOA", TTL, _DATA),))
