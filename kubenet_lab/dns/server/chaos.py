"""The `chaos` plugin (https://coredns.io/plugins/chaos/): who is this server? TXT in class CH (RFC 4892)."""

from __future__ import annotations

from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Chaos(Plugin):
    """Answers version.bind, version.server, authors.bind, hostname.bind and id.server in class CH."""

    name = "chaos"

    def __init__(self, version: str, authors: tuple[str, ...], hostname: str) -> None:
        self.version = version
        self.authors = authors
        self.hostname = hostname

    def serve(self, request: Request) -> Response | Failure:
        """Answer the five names, pass on the rest."""
        query = request.query
        if query.cls != "CH" or query.type != "TXT":
            return self.pass_on(request)
        texts: tuple[str, ...]
        if request.name in ("version.bind.", "version.server."):
            texts = (self.version,)
        elif request.name == "authors.bind.":
            texts = self.authors
        elif request.name in ("hostname.bind.", "id.server."):
            texts = (self.hostname,)
        else:
            return self.pass_on(request)
        return reply(query, answer=tuple(Record(query.name, "TXT", 0, f'"{text}"', "CH") for text in texts))

    @classmethod
    def setup(cls, controller: Controller) -> Chaos:
        """Read the stanza: [VERSION] [AUTHORS...]."""
        from kubenet_lab.dns.server.coredns import VERSION, environment_of

        controller.next()
        args = controller.args()
        version = args[0] if args else f"CoreDNS-{VERSION}"
        return cls(version, tuple(args[1:]) or ("CoreDNS",), environment_of(controller).hostname)
