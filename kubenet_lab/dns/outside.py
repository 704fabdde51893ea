"""The name server of the world outside: a recursor that knows a handful of names and says NXDOMAIN to the rest."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.packet.packet import Packet

ROOT_SOA = Record(
    ".", "SOA", 86400, "a.root-servers.net. nstld.verisign-grs.com. 2026010100 1800 900 604800 86400"
)
"""What the root says to names that do not exist (RFC 2308)."""


class OutsideNames:
    """Answers for `names` (lower case, with final dot) -> addresses; RFC 1034 for what is and is not there."""

    def __init__(self, names: dict[str, tuple[str, ...]], ttl: int = 300) -> None:
        self.names = names
        self.ttl = ttl

    def answer(self, query: Query) -> Response:
        """Return the answer to one question."""
        known = self.names.get(query.name.lower())
        if known is None:
            return reply(query, "NXDOMAIN", authority=(ROOT_SOA,), ra=True)
        wanted = [a for a in known if query.type == ("AAAA" if ":" in a else "A")]
        found = tuple(Record(query.name, query.type, self.ttl, a) for a in wanted)
        return reply(query, answer=found, authority=() if found else (ROOT_SOA,), ra=True)

    def handle(self, packet: Packet, now: float) -> Packet | None:
        """The handler of its UDP socket; a question comes as a typed message or as octets."""
        if isinstance(packet.message, Query):
            answer = self.answer(packet.message)
            return replace(packet, message=answer, payload=b"", payload_size=answer.wire_length)
        from kubenet_lab.dns.message import receive, to_wire

        message = receive(packet.payload)
        if not isinstance(message, Query):
            return None
        wire = to_wire(self.answer(message))
        return replace(packet, payload=wire, payload_size=len(wire))
