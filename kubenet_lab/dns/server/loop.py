"""The `loop` plugin (https://coredns.io/plugins/loop/): a server that forwards to itself dies at its start.

It sends itself one HINFO query for a random name; one that comes in more than twice has gone round.
"""

from __future__ import annotations

from kubenet_lab.dns.records import Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError, normalize
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Loop(Plugin):
    """`probe` is the name asked at the start, "" once the test is over; `seen` counts its arrivals."""

    name = "loop"

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.probe = ""
        self.seen = 0

    def serve(self, request: Request) -> Response | Failure:
        """Count the own probe; pass on everything."""
        if self.probe and request.query.type == "HINFO" and request.name == self.probe:
            self.seen += 1
            if self.seen > 2:
                raise LoopDetected(self.zone, self.probe, f"{request.client}:{request.port}")
        return self.pass_on(request)

    @classmethod
    def setup(cls, controller: Controller) -> Loop:
        """Read the stanza. Raises CorefileError."""
        c = controller
        seen = False
        while c.next():
            if seen:
                raise CorefileError("this plugin can only be used once per Server Block")
            seen = True
            if c.next_arg():
                raise c.arg_error()
        zones = normalize(c.zones[0]) if c.zones else []
        return cls(zones[0] if zones else ".")


class LoopDetected(CorefileError):
    """What CoreDNS dies of when its own query comes back to it."""

    def __init__(self, zone: str, probe: str, client: str = "127.0.0.1:0") -> None:
        super().__init__(
            f'[FATAL] plugin/loop: Loop ({client} -> :53) detected for zone "{zone}", '
            f'see https://coredns.io/plugins/loop#troubleshooting. Query: "HINFO {probe}"'
        )
