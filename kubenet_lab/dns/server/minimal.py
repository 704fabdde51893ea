"""The `minimal` plugin (https://coredns.io/plugins/minimal/): answers without what nobody needs."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.records import Response
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.response import classify


class Minimal(Plugin):
    """Takes authority and additional records from positive answers."""

    name = "minimal"

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; strip the answer unless the sections say something of their own (a delegation, an SOA)."""
        answer = self.pass_on(request)
        if isinstance(answer, Failure) or classify(answer) != "success":
            return answer
        return replace(answer, authority=(), additional=())

    @classmethod
    def setup(cls, controller: Controller) -> Minimal:
        """Read the stanza. Raises CorefileError."""
        controller.next()
        if controller.next_arg():
            raise controller.arg_error()
        return cls()
