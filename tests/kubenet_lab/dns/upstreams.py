"""Upstream servers that a test switches off, on, slow and wrong."""

from __future__ import annotations

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.view import ServiceView

SOA = Record("example.com.", "SOA", 60, "ns.example.com. admin.example.com. 1 7200 1800 86400 30")


class World:
    """Two upstreams. `rcode` and `ttl` are of what they answer, `delay` is how long they take, s."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.protocols: list[str] = []
        self.rcode = "NOERROR"
        self.ttl = 60
        self.delay = 0.0

    def upstream(self, query: Query, address: str, protocol: str) -> Response | None:
        host = address.rsplit(":", 1)[0]
        if query.type != "NS":  # those are health checks
            self.asked.append(host)
            self.protocols.append(protocol)
        if host in self.dead:
            raise ConnectionRefusedError
        if host in self.silent:
            return None
        if self.rcode != "NOERROR":
            authority = (SOA,) if self.rcode == "NXDOMAIN" else ()
            return reply(query, self.rcode, authority=authority, ra=True, delay=self.delay)
        record = Record(query.name, "A", self.ttl, host)
        return reply(query, answer=(record,), ra=True, delay=self.delay)

    def server(self, options: str = "policy sequential", *plugins: str) -> CoreDNS:
        """One zone that forwards with these options, behind these plugins."""
        more = "".join(f"    {line}\n" for plugin in plugins for line in plugin.splitlines())
        forward = f"    forward . 10.0.0.1 10.0.0.2 {{\n        {options}\n    }}\n"
        corefile = f".:53 {{\n    errors\n{more}{forward}}}\n"
        return CoreDNS(corefile, ServiceView(), self.upstream, local_ips=("10.244.0.2",))


def ask(running: CoreDNS, now: float, **query: bool) -> Response:
    """One question for example.com, A."""
    answer = running.answer(Query("example.com.", **query), now=now)
    assert answer is not None
    return answer
