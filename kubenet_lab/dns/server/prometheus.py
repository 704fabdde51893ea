"""The `prometheus` plugin (https://coredns.io/plugins/metrics/): counters over HTTP, by default on localhost:9153.

Modelled are requests, responses, and the cache's entries, hits and misses; not the histograms, nor other plugins' own.
"""

from __future__ import annotations

from kubenet_lab.dns.names import is_subdomain
from kubenet_lab.dns.records import Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError, check_address, port_of
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

PORT = 9153
_TYPES = {
    "A", "AAAA", "AFSDB", "AXFR", "CAA", "CNAME", "DNAME", "DS", "DNSKEY", "HTTPS", "IXFR", "LOC", "MX", "NAPTR", "NS",
    "NSEC", "NSEC3", "PTR", "RRSIG", "SOA", "SRV", "SVCB", "SSHFP", "TLSA", "TXT", "ANY",
}  # fmt: skip
"""Types with a label of their own; the others are "other"."""

Labels = tuple[tuple[str, str], ...]


class Prometheus(Plugin):
    """Counts what passes: `asked` by (zone, protocol, family, type), `said` by (zone, rcode)."""

    name = "prometheus"

    def __init__(self, zones: tuple[str, ...]) -> None:
        self.zones = zones
        self.asked: dict[tuple[str, str, str, str], int] = {}
        self.said: dict[tuple[str, str], int] = {}

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; count the question and what was said."""
        answer = self.pass_on(request)
        kind = request.query.type
        zones = self.zones
        if len(zones) == 1 and zones[0] == ".":
            zone = "."
        else:
            zone = next((zone for zone in zones if is_subdomain(zone, request.name)), "dropped")
        asked = (
            zone,
            request.protocol,
            "2" if ":" in request.client else "1",
            kind if kind in _TYPES else "other",
        )
        self.asked[asked] = self.asked.get(asked, 0) + 1
        said = (zone, answer.rcode)
        self.said[said] = self.said.get(said, 0) + 1
        return answer

    @property
    def requests(self) -> dict[Labels, int]:
        """`coredns_dns_requests_total`."""
        return {
            (("family", f), ("proto", p), ("server", SERVER), ("type", t), ("view", ""), ("zone", z)): count
            for (z, p, f, t), count in self.asked.items()
        }

    @property
    def responses(self) -> dict[Labels, int]:
        """`coredns_dns_responses_total`."""
        return {
            (("plugin", ""), ("rcode", rcode), ("server", SERVER), ("view", ""), ("zone", zone)): count
            for (zone, rcode), count in self.said.items()
        }

    @classmethod
    def setup(cls, controller: Controller) -> Prometheus:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        c = controller
        seen = False
        while c.next():
            if seen:
                raise CorefileError("this plugin can only be used once per Server Block")
            seen = True
            args = c.args()
            if len(args) > 1:
                raise c.arg_error()
            assert isinstance(c.environment, Environment)
            c.environment.http["prometheus"] = port_of(check_address(args[0])) if args else PORT
            if c.next_block():
                raise c.arg_error()
        return cls(tuple(sorted(c.zones, key=len, reverse=True)))


SERVER = "dns://:53"
"""The label `server`: the listener, here always port 53 of all addresses."""


def exposition(name: str, kind: str, help: str, values: dict[Labels, int]) -> str:
    """One metric in the text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in sorted(values.items()):
        words = ",".join(f'{key}="{text}"' for key, text in labels)
        lines.append(f"{name}{{{words}}} {value}" if words else f"{name} {value}")
    return "\n".join(lines) + "\n"
