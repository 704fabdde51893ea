"""The `whoami` plugin (https://coredns.io/plugins/whoami/): the asker's own address, port and transport.

An empty Corefile is a server with this plugin and `log`.
"""

from __future__ import annotations

from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Whoami(Plugin):
    """Answers every query, with the asker in the additional section."""

    name = "whoami"

    def serve(self, request: Request) -> Response | Failure:
        """Say who asks."""
        query = request.query
        kind = "AAAA" if ":" in request.client else "A"
        service = f"_{request.protocol}.{query.name if query.name != '.' else ''}"
        extra = (
            Record(query.name, kind, 0, request.client),
            Record(service, "SRV", 0, f"0 0 {request.port} ."),
        )
        return reply(query, additional=extra, aa=True)

    @classmethod
    def setup(cls, controller: Controller) -> Whoami:
        """Read the stanza. Raises CorefileError."""
        controller.next()
        if controller.next_arg():
            raise controller.arg_error()
        return cls()
