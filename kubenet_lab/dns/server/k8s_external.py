"""The `k8s_external` plugin (https://coredns.io/plugins/k8s_external/): Services by the addresses outside clients use.

It asks the `kubernetes` plugin of its server block. Below a zone of its own there are `service.namespace`,
`_port._protocol.service.namespace` and, with `headless`, `endpoint.service.namespace`; a namespace alone exists and
has no records. An outside address, asked in a reverse zone that is listed too, is named below the first zone.
Not modelled: transfers of the zone (AXFR).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubenet_lab.dns.names import absolute, below, closest_zone, is_subdomain, relative, reversed_address
from kubenet_lab.dns.records import Record, Response, address_type, reply
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.kubernetes import Found, Kubernetes, srv_weight
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class K8sExternal(Plugin):
    """Answers with externalIPs and with the addresses and names of load balancers."""

    name = "k8s_external"

    def __init__(
        self,
        zones: tuple[str, ...],
        apex: str = "dns",
        ttl: int = 5,
        headless: bool = False,
        fallthrough: tuple[str, ...] = (),
    ) -> None:
        self.zones, self.apex, self.ttl = zones, apex, ttl
        self.headless, self.fallthrough = headless, fallthrough

    def serve(self, request: Request) -> Response | Failure:
        """Answer names below the zones; pass on the others, and what falls through."""
        name = request.name
        zone = closest_zone(self.zones, name)
        backend = self._backend()
        if not zone or backend is None:
            return self.pass_on(request)
        if name == zone:
            return self._at_apex(request, zone, backend)
        # CoreDNS never finds its own name in the root zone.
        if zone != "." and is_subdomain(below(self.apex, zone), name):
            return self._below_apex(request, zone, backend)
        ip = reversed_address(name) if request.query.type == "PTR" else ""
        if ip:
            found = backend.external_names(ip)
        else:
            found = backend.external(relative(name, zone), self.headless)
        if found is None and any(is_subdomain(each, name) for each in self.fallthrough):
            return self.pass_on(request)
        if not found:
            return self._negative(request, zone, backend, "NXDOMAIN" if found is None else "NOERROR")
        answer: list[Record] = []
        extra: list[Record] = []
        if request.query.type in ("A", "AAAA"):
            answer = self._addresses(request, found, backend.options.ttl)
        elif request.query.type == "SRV":
            answer, extra = self._services(request, found, zone, backend.options.ttl)
        elif ip:
            answer = [
                Record(request.query.name, "PTR", self.ttl, below(each.host, self.zones[0])) for each in found
            ]
        if not answer:
            return self._negative(request, zone, backend)
        return reply(
            request.query, "NOERROR", answer=tuple(answer), additional=tuple(extra), aa=True, tc=request.cut
        )

    def _backend(self) -> Kubernetes | None:
        plugin: Plugin | None = self.next
        while plugin is not None and not isinstance(plugin, Kubernetes):
            plugin = plugin.next
        return plugin

    def _soa(self, zone: str, backend: Kubernetes) -> Record:
        host = below(self.apex, zone)
        serial = backend.view.modified_external
        return Record(
            zone, "SOA", self.ttl, f"ns1.{host} hostmaster.{host} {serial} 7200 1800 86400 {self.ttl}"
        )

    def _negative(self, request: Request, zone: str, backend: Kubernetes, rcode: str = "NOERROR") -> Response:
        return reply(request.query, rcode, authority=(self._soa(zone, backend),), aa=True)

    def _own(self, name: str, backend: Kubernetes, *kinds: str) -> list[Record]:
        """The name server's own addresses: those by which its Service is reached from outside."""
        records = []
        for ip in backend.external_addresses():
            kind, host = address_type(ip)
            if kind in kinds:
                records.append(Record(name, kind, self.ttl, host))
        return records

    def _at_apex(self, request: Request, zone: str, backend: Kubernetes) -> Response:
        kind = request.query.type
        if kind == "SOA":
            return reply(request.query, "NOERROR", answer=(self._soa(zone, backend),), aa=True)
        if kind == "NS":
            server = below(f"ns1.{self.apex}", zone)
            extra = tuple(self._own(server, backend, "A", "AAAA"))
            answer = (Record(zone, "NS", self.ttl, server),)
            return reply(request.query, "NOERROR", answer=answer, additional=extra, aa=True)
        return self._negative(request, zone, backend)

    def _below_apex(self, request: Request, zone: str, backend: Kubernetes) -> Response:
        base = relative(request.name, zone)
        if base == self.apex:
            return self._negative(request, zone, backend)
        if base != f"ns1.{self.apex}":
            return self._negative(request, zone, backend, "NXDOMAIN")
        answer = self._own(request.query.name, backend, request.query.type)
        if not answer:
            return self._negative(request, zone, backend)
        return reply(request.query, "NOERROR", answer=tuple(answer), aa=True)

    def _addresses(self, request: Request, found: Sequence[Found], ttl: int) -> list[Record]:
        name, kind = request.query.name, request.query.type
        records: list[Record] = []
        seen: set[str] = set()
        for each in found:
            host_kind, host = address_type(each.host)
            if host_kind == "CNAME":
                # One for each port: CoreDNS does not look for doubles here.
                records.append(Record(name, "CNAME", ttl, absolute(host)))
                records += self._there(request, host, kind)
            elif host_kind == kind and each.host not in seen:
                seen.add(each.host)
                records.append(Record(name, kind, self.ttl, host))
        return records

    def _services(
        self, request: Request, found: Sequence[Found], zone: str, ttl: int
    ) -> tuple[list[Record], list[Record]]:
        weight = srv_weight(len(found))
        records: dict[tuple[str, int], Record] = {}
        extra: dict[tuple[str, str], list[Record]] = {}
        for each in found:
            if each.port == -1:
                continue
            kind, host = address_type(each.host)
            target = absolute(host) if kind == "CNAME" else below(each.path, zone)
            data = f"0 {weight} {each.port} {target}"
            records.setdefault((target, each.port), Record(request.query.name, "SRV", ttl, data))
            if (target, each.host) in extra:
                continue
            if kind == "CNAME":
                there = [*self._there(request, host, "A"), *self._there(request, host, "AAAA")]
                extra[target, each.host] = there
            else:
                extra[target, each.host] = [Record(target, kind, self.ttl, host)]
        return list(records.values()), [record for some in extra.values() for record in some]

    def _there(self, request: Request, host: str, kind: str) -> Sequence[Record]:
        """What this very server knows of a load balancer's name."""
        answer = request.lookup(request, absolute(host), kind)
        if answer is None:
            return ()
        request.cut |= answer.tc
        return answer.answer

    @classmethod
    def setup(cls, controller: Controller) -> K8sExternal:
        """Read the stanza. Raises CorefileError."""
        c = controller
        made = cls(())
        # Of two stanzas the later names the zones, and the earlier's other options stay.
        while c.next():
            made.zones = c.zones_or(c.args())
            while c.next_block():
                made._option(c)
        return made

    def _option(self, c: Controller) -> None:
        word = c.value
        if word == "ttl":
            self.ttl = c.ttl(c.args())
        elif word == "apex":
            args = c.args()
            if not args:
                raise c.arg_error()
            self.apex = args[0]
        elif word == "headless":
            # It takes no words: one that follows is read as the next option.
            self.headless = True
        elif word == "fallthrough":
            self.fallthrough = c.fallthrough(c.args())
        else:
            raise c.error(f"unknown property '{word}'")
