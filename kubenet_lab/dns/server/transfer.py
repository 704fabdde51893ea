"""The `transfer` plugin (https://coredns.io/plugins/transfer/): whole zones to whom they are promised (RFC 5936)."""

from __future__ import annotations

import ipaddress
from typing import Protocol, runtime_checkable

from msgspec import Struct

from kubenet_lab.dns.names import absolute, is_subdomain, label_bytes, labels, parse_ip
from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


@runtime_checkable
class Source(Protocol):
    """A plugin whose zones can be sent."""

    def transfer(self, zone: str) -> tuple[Record, ...] | None:
        """Return every record of a zone, its SOA first and last; None when the plugin is not in charge of it."""


class Rule(Struct, frozen=True):
    """Zones, and the addresses they go to; "*" is anybody."""

    zones: tuple[str, ...]
    to: tuple[str, ...]


class Transfer(Plugin):
    """Answers AXFR and IXFR over TCP from the first plugin below that has the zone."""

    name = "transfer"

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules

    def serve(self, request: Request) -> Response | Failure:
        """Send the zone, refuse it, or pass on what is no transfer."""
        query = request.query
        if query.type not in ("AXFR", "IXFR"):
            return self.pass_on(request)
        if request.protocol == "udp":
            return Failure("REFUSED")
        rule = max(
            (r for r in self.rules if any(is_subdomain(z, request.name) for z in r.zones)),
            key=lambda r: max(len(z) for z in r.zones if is_subdomain(z, request.name)),
            default=None,
        )
        if rule is None:
            return self.pass_on(request)
        if "*" not in rule.to and request.client not in rule.to:
            return Failure("REFUSED")
        plugin = self.next
        while plugin is not None:
            records = plugin.transfer(query.name) if isinstance(plugin, Source) else None
            if records is not None:
                if not all(_sendable(record) for record in records):
                    return Failure("SERVFAIL", "dns: bad rdata")
                return reply(query, answer=records, aa=True)
            plugin = plugin.next
        return self.pass_on(request)

    @classmethod
    def setup(cls, controller: Controller) -> Transfer:
        """Read the stanza: [ZONES...] { to ADDRESS... }. Raises CorefileError."""
        c = controller
        rules: list[Rule] = []
        while c.next():
            zones = c.zones_or(c.args())
            to: list[str] = []
            while c.next_block():
                if c.value != "to":
                    raise CorefileError(f"plugin/transfer: {c.error(f'unknown property {_quoted(c.value)}')}")
                words = c.args()
                if not words:
                    raise CorefileError(f"plugin/transfer: {c.arg_error()}")
                to += [_address(c, word) for word in words]
            if not to:
                raise CorefileError(f"plugin/transfer: {c.error(chr(39) + 'to' + chr(39) + ' is required')}")
            rules.append(Rule(zones, tuple(to)))
        return cls(tuple(rules))


def _address(c: Controller, word: str) -> str:
    if word == "*":
        return word
    host = word.rpartition(":")[0] if word.count(":") == 1 else word
    if not parse_ip(host):
        raise CorefileError(f"plugin/transfer: {c.error(f'not an IP address or file: {_quoted(word)}')}")
    return str(ipaddress.ip_address(host))


def _sendable(record: Record) -> bool:
    names = [absolute(record.name), *([record.target] if record.target else [])]
    return all(0 < len(label_bytes(label)) < 64 for name in names for label in labels(name))


def _quoted(text: str) -> str:
    return f'"{text}"'
