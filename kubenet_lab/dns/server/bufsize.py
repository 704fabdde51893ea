"""The `bufsize` plugin (https://coredns.io/plugins/bufsize/): no UDP answer larger than this."""

from __future__ import annotations

import re

from msgspec.structs import replace

from kubenet_lab.dns.records import Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

DEFAULT = 1232
"""Octets; what passes every path that carries IPv6 (DNS flag day 2020)."""


class Bufsize(Plugin):
    """Lowers the size a client says it can take."""

    name = "bufsize"

    def __init__(self, size: int) -> None:
        self.size = size

    def serve(self, request: Request) -> Response | Failure:
        """Cap the size in the query's OPT record, and pass on."""
        edns = request.query.edns
        if edns is not None and edns.payload > self.size:
            request.query = replace(request.query, edns=replace(edns, payload=self.size))
        return self.pass_on(request)

    @classmethod
    def setup(cls, controller: Controller) -> Bufsize:
        """Read the stanza. Raises CorefileError."""
        c = controller
        size = DEFAULT
        while c.next():
            args = c.args()
            if len(args) > 1:
                raise CorefileError(f"plugin/bufsize: {c.arg_error()}")
            if args:
                size = int(args[0]) if re.fullmatch(r"\d+", args[0]) else 0
                if not 512 <= size <= 4096:
                    raise CorefileError(f"plugin/bufsize: {c.arg_error()}")
        return cls(size)
