"""The `loadbalance` plugin (https://coredns.io/plugins/loadbalance/): addresses shuffled, CNAMEs first."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.records import Record, Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class LoadBalance(Plugin):
    """Shuffles every answer that has more than one address."""

    name = "loadbalance"

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; shuffle the answer."""
        answer = self.pass_on(request)
        if isinstance(answer, Failure) or answer.rcode != "NOERROR":
            return answer
        if len(answer.answer) < 2 and len(answer.additional) < 2 and len(answer.authority) < 2:
            return answer
        return replace(
            answer,
            answer=_shuffle(answer.answer, request),
            authority=_shuffle(answer.authority, request),
            additional=_shuffle(answer.additional, request),
        )

    @classmethod
    def setup(cls, controller: Controller) -> LoadBalance:
        """Read the stanza. Raises CorefileError."""
        c = controller
        while c.next():
            args = c.args()
            if args and args[0] == "weighted":
                raise CorefileError("weighted: not modelled")
            if args and args[0] != "round_robin":
                raise CorefileError(f"unknown policy: {args[0]}")
            if len(args) > 1:
                raise c.error(f"unknown property for {args[0]}")
            while c.next_block():
                if c.value == "prefer":
                    raise CorefileError("prefer: not modelled")
                raise c.error(f"unknown property '{c.value}'")
        return cls()


def _shuffle(records: tuple[Record, ...], request: Request) -> tuple[Record, ...]:
    if len(records) < 2:
        return records
    aliases: list[Record] = []
    addresses: list[Record] = []
    mail: list[Record] = []
    rest: list[Record] = []
    for record in records:
        kind = record.type
        place = (
            addresses
            if kind in ("A", "AAAA")
            else aliases
            if kind == "CNAME"
            else mail
            if kind == "MX"
            else rest
        )
        place.append(record)
    request.rng.shuffle(addresses)
    request.rng.shuffle(mail)
    return (*aliases, *rest, *addresses, *mail)
