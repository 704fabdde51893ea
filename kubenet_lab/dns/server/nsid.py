"""The `nsid` plugin (https://coredns.io/plugins/nsid/): which replica answered (RFC 5001)."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.records import Edns, Response
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

OPTION = 3


class Nsid(Plugin):
    """Adds the server's name to the answer of who asks for it (`dig +nsid`)."""

    name = "nsid"

    def __init__(self, data: str) -> None:
        self.data = data

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; add the option."""
        edns = request.query.edns
        answer = self.pass_on(request)
        if isinstance(answer, Failure) or edns is None or all(code != OPTION for code, _ in edns.options):
            return answer
        return replace(answer, edns=Edns(edns.payload, True, 0, ((OPTION, self.data.encode()),)))

    @classmethod
    def setup(cls, controller: Controller) -> Nsid:
        """Read the stanza: [DATA], by default the host's name."""
        from kubenet_lab.dns.server.coredns import environment_of

        controller.next()
        args = controller.args()
        return cls(" ".join(args) or environment_of(controller).hostname)
