"""The `any` plugin (https://coredns.io/plugins/any/): ANY is answered with a refusal in a record (RFC 8482)."""

from __future__ import annotations

from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Any(Plugin):
    """Answers every question of type ANY, whatever the name."""

    name = "any"

    def serve(self, request: Request) -> Response | Failure:
        """Answer ANY, pass on the rest."""
        query = request.query
        if query.type != "ANY":
            return self.pass_on(request)
        return reply(query, answer=(Record(query.name, "HINFO", 8482, '"ANY obsoleted" "See RFC 8482"'),))

    @classmethod
    def setup(cls, controller: Controller) -> Any:
        """Read the stanza. Raises CorefileError."""
        controller.next()
        if controller.next_arg():
            raise controller.arg_error()
        return cls()
