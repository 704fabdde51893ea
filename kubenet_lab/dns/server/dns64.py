"""The `dns64` plugin (https://coredns.io/plugins/dns64/): AAAA made of A for clients that only have IPv6 (RFC 6147)."""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from kubenet_lab.dns.records import Record, Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.response import classify

WELL_KNOWN = ipaddress.IPv6Network("64:ff9b::/96")
_LENGTHS = (32, 40, 48, 56, 64, 96)
_NEGATIVE_TTL = 600


class Dns64(Plugin):
    """Answers AAAA questions that have no AAAA records with the A records, put behind `prefix`.

    Only who asks over IPv6 gets them, unless `allow_ipv4`; with `translate_all` even names that have AAAA records.
    """

    name = "dns64"

    def __init__(self, prefix: ipaddress.IPv6Network, translate_all: bool, allow_ipv4: bool) -> None:
        self.prefix = prefix
        self.translate_all = translate_all
        self.allow_ipv4 = allow_ipv4

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; where no IPv6 address came, ask for IPv4 ones and translate."""
        query = request.query
        wanted = query.type == "AAAA" and query.cls == "IN" and (self.allow_ipv4 or ":" in request.client)
        if not wanted:
            return self.pass_on(request)
        answer = self.pass_on(request)
        if isinstance(answer, Failure) or not self._lacks(answer):
            return answer
        found = self._lookup_a(request)
        if found is None:
            return answer
        least = next(
            (min(r.ttl, int(r.data.split()[-1])) for r in answer.authority if r.type == "SOA"), _NEGATIVE_TTL
        )
        translated = tuple(self._translate(record, least) for record in found.answer)
        return replace(
            answer,
            rcode=found.rcode,
            answer=translated,
            authority=found.authority,
            additional=found.additional,
        )

    def _lacks(self, answer: Response) -> bool:
        if answer.rcode == "NXDOMAIN" or classify(answer) == "servererror":
            return answer.rcode != "NXDOMAIN"
        return self.translate_all or all(record.type != "AAAA" for record in answer.answer)

    def _lookup_a(self, request: Request) -> Response | None:
        return request.lookup(request, request.query.name, "A")

    def _translate(self, record: Record, least: int) -> Record:
        if record.type != "A":
            return record
        return Record(record.name, "AAAA", min(record.ttl, least), embed(self.prefix, record.data))

    @classmethod
    def setup(cls, controller: Controller) -> Dns64:
        """Read the stanza. Raises CorefileError."""
        c = controller
        prefix, translate_all, allow_ipv4 = WELL_KNOWN, False, False
        while c.next():
            args = c.args()
            if len(args) > 1:
                raise c.arg_error()
            if args:
                prefix = _prefix(c, args[0])
            while c.next_block():
                word = c.value
                if word == "prefix":
                    if not c.next_arg():
                        raise c.arg_error()
                    prefix = _prefix(c, c.value)
                elif word == "translate_all":
                    translate_all = True
                elif word == "allow_ipv4":
                    allow_ipv4 = True
                else:
                    raise c.error(f"unknown property {_quoted(word)}")
        return cls(prefix, translate_all, allow_ipv4)


def embed(prefix: ipaddress.IPv6Network, address: str) -> str:
    """Return the IPv6 address that stands for an IPv4 one (RFC 6052 section 2.2): octet 8 stays zero."""
    octets = bytearray(prefix.network_address.packed)
    at = prefix.prefixlen // 8
    for octet in ipaddress.IPv4Address(address).packed:
        if at == 8:
            at += 1
        octets[at] = octet
        at += 1
    return str(ipaddress.IPv6Address(bytes(octets)))


def _prefix(c: Controller, text: str) -> ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise CorefileError(f"invalid CIDR address: {text}") from None
    if not isinstance(network, ipaddress.IPv6Network):
        raise c.error(f"invalid IPv6 address {_quoted(text)}")
    if network.prefixlen not in _LENGTHS:
        raise c.error(f"invalid prefix length {_quoted(text)}")
    return network


def _quoted(text: str) -> str:
    return f'"{text}"'
