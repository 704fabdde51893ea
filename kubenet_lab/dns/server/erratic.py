"""The `erratic` plugin (https://coredns.io/plugins/erratic/): a server for tests that drops, delays, truncates."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Erratic(Plugin):
    """Answers A 192.0.2.53, AAAA 2001:DB8::53, and misbehaves every so many queries.

    `drop`, `delay_every` and `truncate` count queries; 0 is never. `delay` is in seconds.
    """

    name = "erratic"

    def __init__(self, drop: int, delay_every: int, delay: float, truncate: int, large: bool) -> None:
        self.drop, self.delay_every, self.delay = drop, delay_every, delay
        self.truncate, self.large = truncate, large
        self.queries = 0

    def serve(self, request: Request) -> Response | Failure:
        """Answer addresses; SERVFAIL to any other type."""
        query = request.query
        count = self.queries
        self.queries += 1
        late = self.delay if self.delay_every and count % self.delay_every == 0 else 0.0
        # The real one joins bits here where it divides above, so two in four answers are cut for `truncate 2`.
        cut = bool(self.truncate) and count & self.truncate == 0
        if self.drop and count % self.drop == 0:
            return Failure("NOERROR", silent=True)
        data = {"A": "192.0.2.53", "AAAA": "2001:db8::53"}.get(query.type)
        if data is None:
            return Failure("SERVFAIL", delay=late)
        many = 29 if self.large and query.type == "A" else 1
        records = (Record(query.name, query.type, 0, data),) * many
        return replace(reply(query, answer=records, aa=True), tc=cut, delay=late)

    @classmethod
    def setup(cls, controller: Controller) -> Erratic:
        """Read the stanza. Raises CorefileError."""
        c = controller
        drop = delay_every = truncate = 0
        delay, large, seen = 0.1, False, False
        while c.next():
            while c.next_block():
                word, args = c.value, c.args()
                if word == "large":
                    large = True
                    continue
                if word not in ("drop", "delay", "truncate"):
                    raise c.error(f"unknown property '{word}'")
                seen = True
                amount = int(args[0]) if args and args[0].isdigit() else 2
                if args and not args[0].removeprefix("-").isdigit():
                    raise CorefileError(f'strconv.ParseInt: parsing "{args[0]}": invalid syntax')
                if args and args[0].startswith("-"):
                    raise CorefileError(f"illegal amount value given {_quoted(args[0])}")
                if word == "drop":
                    drop = amount
                elif word == "truncate":
                    truncate = amount
                else:
                    delay_every = amount
                    delay = duration(args[1]) if len(args) > 1 else delay
        if not seen:
            drop = 2
        return cls(drop, delay_every, delay, truncate, large)


def _quoted(word: str) -> str:
    return f'"{word}"'
