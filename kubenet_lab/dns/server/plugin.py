"""What a plugin is: it is handed a request, and answers, fails, or asks the next plugin.

The order of the chain is CoreDNS's compiled order, whatever the Corefile's (https://coredns.io/manual/plugins/).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.dns.records import Query, Response

if TYPE_CHECKING:
    from kubenet_lab.dns.server.corefile import Controller

Upstream = Callable[[Query, str, str], Response | None]
"""(query, server "10.0.0.53:53", "udp" or "tcp") -> its answer, or None for silence; raises
ConnectionRefusedError if the port is closed."""


class Request(Struct):
    """One query on its way down the chain.

    Attributes:
        query: As it arrived.
        name: The name asked, lower case.
        client: The asker's address.
        protocol: "udp" or "tcp".
        now: Seconds, simulated.
        lookup: Asks this very server again, from the top (how a CNAME's target is found).
        rng: Where shuffles come from.
        port: The asker's port, for the log.
        ad: Ask upstream for authenticated data even if the client did not (the cache wants it).
        elapsed: Seconds spent in `lookup` so far.
        cut: A `lookup` came back truncated, so that the whole answer is.
    """

    query: Query
    name: str
    client: str
    protocol: str
    now: float
    lookup: Callable[[Request, str, str], Response | None]
    rng: random.Random
    port: int = 0
    ad: bool = False
    elapsed: float = 0.0
    cut: bool = False


class Failure(Struct, frozen=True):
    """No answer was written: the server itself answers `rcode`; `error` is for the log.

    `delay` is how long the plugin took to give up, in seconds. With `silent` nobody answers at all.
    """

    rcode: str
    error: str = ""
    delay: float = 0.0
    silent: bool = False


class Plugin:
    """One link of the chain. A subclass sets `name`, parses its stanza in `setup`, answers in `serve`."""

    name: str
    next: Plugin | None = None

    @classmethod
    def setup(cls, controller: Controller) -> Plugin | None:
        """The plugin a stanza configures, or None if it serves no queries. Raises CorefileError."""
        raise NotImplementedError

    def serve(self, request: Request) -> Response | Failure:
        """Answer, fail, or ask the rest of the chain."""
        return self.pass_on(request)

    def pass_on(self, request: Request) -> Response | Failure:
        """What the rest of the chain says; with nothing left, SERVFAIL."""
        if self.next is None:
            return Failure("SERVFAIL", f"plugin/{self.name}: no next plugin found")
        return self.next.serve(request)
