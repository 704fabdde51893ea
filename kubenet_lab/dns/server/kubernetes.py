"""The `kubernetes` plugin: names of Services, endpoints and pods (https://coredns.io/plugins/kubernetes/).

The schema is https://github.com/kubernetes/dns/blob/master/docs/specification.md. Five shapes of name, all
below a zone:

- `service.namespace.svc`
- `endpoint.service.namespace.svc`
- `_port._protocol.service.namespace.svc`
- `10-244-1-7.namespace.pod`
- with the option `zonal`, `topologyzone.pin|prefer._zone.service.namespace.svc`
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.names import (
    IN_ADDR_ARPA,
    IP6_ARPA,
    absolute,
    below,
    closest_zone,
    is_subdomain,
    labels,
    parse_ip,
    relative,
    reversed_address,
)
from kubenet_lab.dns.records import Record, Response, address_type, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.selector import matcher
from kubenet_lab.dns.server.view import Address, ServiceEntry, ServiceView, SliceEntry

SCHEMA_VERSION = "1.1.0"
_MAX_CNAME_CHAIN = 10


class Options(Struct, frozen=True):
    """A parsed stanza.

    Attributes:
        zones: Zones served, lower case and absolute; the first that is not a reverse zone names Services in
            PTR answers.
        pods: "disabled", "insecure" or "verified".
        fallthrough: Zones whose unknown names go on to the next plugin.
        ttl: Seconds, of every record.
        namespaces: Only these are served, if any are listed.
        labels, namespace_labels: Selectors as written; None for everything.
        endpoint_pod_names: Endpoints without a hostname are called after their pod.
        noendpoints: EndpointSlices are not watched.
        ignore_empty_service: A ClusterIP Service without a ready endpoint does not exist.
        zonal: Names with a topology zone are served.
        startup_timeout: Seconds the server waits for the API before it starts without.
        api: The stanza names an API server (`endpoint` or `kubeconfig`); else the pod's environment does.
    """

    zones: tuple[str, ...]
    pods: str = "disabled"
    fallthrough: tuple[str, ...] = ()
    ttl: int = 5
    namespaces: tuple[str, ...] = ()
    labels: str | None = None
    namespace_labels: str | None = None
    endpoint_pod_names: bool = False
    noendpoints: bool = False
    ignore_empty_service: bool = False
    zonal: bool = False
    startup_timeout: float = 5.0
    api: bool = False


class Parsed(Struct, frozen=True):
    """A name taken apart. All fields are empty for the zone itself and for `svc.` and `pod.` below it."""

    port: str = ""
    protocol: str = ""
    endpoint: str = ""
    zone: str = ""
    prefer: bool = False
    service: str = ""
    namespace: str = ""
    kind: str = ""


_APEX = Parsed()


class Found(Struct, frozen=True):
    """One thing a name stands for: a host (address or name), a port, and the name an SRV record points at."""

    host: str
    port: int = 0
    path: str = ""


def parse_name(name: str, zone: str, zonal: bool = False) -> Parsed | None:
    """`name`, lower case and inside `zone`, taken apart; None if it has none of the five shapes."""
    base = relative(name, zone)
    if base in ("", "svc", "pod"):
        return _APEX
    parts = base.split(".") if "\\" not in base else labels(base)
    kind = parts[-1]
    if kind not in ("svc", "pod"):
        return None
    count = len(parts)
    if count == 3:
        return Parsed(service=parts[0], namespace=parts[1], kind=kind)
    if count == 2:
        return Parsed(namespace=parts[0], kind=kind)
    if count == 4:
        return Parsed(endpoint=parts[0], service=parts[1], namespace=parts[2], kind=kind)
    if count == 5:
        return Parsed(
            port=parts[0].removeprefix("_") if parts[0] else "",
            protocol=parts[1].removeprefix("_"),
            service=parts[2],
            namespace=parts[3],
            kind=kind,
        )
    # A topology zone may hold dots: it is everything left of the directive.
    if zonal and kind == "svc" and parts[-4] == "_zone" and count > 5 and parts[-5] in ("pin", "prefer"):
        return Parsed(
            zone=".".join(parts[:-5]),
            prefer=parts[-5] == "prefer",
            service=parts[-3],
            namespace=parts[-2],
            kind=kind,
        )
    return None


class Kubernetes(Plugin):
    """Answers from a `ServiceView`.

    `local_ips` are the server's own addresses: the Services that have one of them as an endpoint are the
    name servers of the zone.
    """

    name = "kubernetes"

    def __init__(self, options: Options, view: ServiceView, local_ips: tuple[str, ...] = ()) -> None:
        self.options = options
        self.view = view
        self.local_ips = local_ips
        self.primary = next(zone for zone in options.zones if not _reverse(zone))
        self._exposed = frozenset(options.namespaces)
        self._labels = matcher(options.labels)
        self._namespace_labels = matcher(options.namespace_labels)

    def serve(self, request: Request) -> Response | Failure:
        """Answer names of the cluster; pass on the others, and what falls through."""
        query = request.query
        name = request.name
        zone = ""
        for each in self.options.zones:
            if len(each) > len(zone) and (
                name == each or each == "." or (name.endswith(each) and name[-len(each) - 1] == ".")
            ):
                zone = each
        if not zone:
            return self.pass_on(request)
        # CoreDNS answers with the zone as it was asked, upper case and all.
        asked_zone = query.name[-len(zone) :]
        kind = query.type
        records: list[Record] | None
        extra: list[Record] = []
        if kind in ("A", "AAAA"):
            records = self._addresses(request, query.name, kind, asked_zone, ())
        elif kind == "PTR":
            records = self._ptr(request, asked_zone)
        elif kind == "SRV":
            records, extra = self._srv(request, asked_zone)
        elif kind == "TXT":
            records = self._txt(request, asked_zone)
        elif kind == "CNAME":
            found = self._find(name, asked_zone, kind)
            records = None if found is None else []
            if found and not parse_ip(found[0].host):
                records = [Record(query.name, "CNAME", self.options.ttl, absolute(found[0].host))]
        elif kind == "SOA":
            records = [self._soa(asked_zone)] if len(query.name) == len(asked_zone) else []
        elif kind == "NS" and name == asked_zone:
            records, extra = self._ns(request, asked_zone)
        elif kind == "MX":
            # No Service is a mail host, so a name that exists has none.
            records = [] if self._find(name, asked_zone, kind) is not None else None
        elif kind in ("AXFR", "IXFR"):
            return Failure("REFUSED")
        else:
            # Only to tell a name that exists from one that does not.
            records = self._addresses(request, query.name, "A", asked_zone, ())
            records = [] if records is not None else None
        if records is None:
            if any(is_subdomain(each, name) for each in self.options.fallthrough):
                return self.pass_on(request)
            return self._negative(request, "NXDOMAIN" if self.view.synced else "SERVFAIL", asked_zone)
        if not records:
            return self._negative(request, "NOERROR", asked_zone)
        return reply(
            query, "NOERROR", answer=tuple(records), additional=tuple(extra), aa=True, tc=request.cut
        )

    @classmethod
    def setup(cls, controller: Controller) -> Kubernetes:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        environment = controller.environment
        assert isinstance(environment, Environment)
        options = _parse(controller)
        if not options.api and not {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} <= set(
            environment.variables
        ):
            raise CorefileError(
                "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and "
                "KUBERNETES_SERVICE_PORT must be defined"
            )
        return cls(options, environment.view, environment.local_ips)

    def ready(self) -> bool:
        """Has the first list arrived? (the `ready` plugin asks)"""
        return self.view.synced

    def search_of(self, request: Request) -> tuple[str, ...]:
        """The search list of the pod that asks, for `autopath`; () if no pod is known at that address."""
        zone = closest_zone(self.options.zones, request.name)
        pods = self.view.pods_by_ip.get(request.client, ()) if self.options.pods == "verified" else ()
        if not zone or not pods:
            return ()
        return (f"{pods[0].namespace}.svc.{zone}", f"svc.{zone}", zone, "")

    def transfer(self, zone: str) -> tuple[Record, ...] | None:
        """Every record of a zone, its SOA first and last; None for a zone that is not served here."""
        if not any(is_subdomain(each, zone) for each in self.options.zones):
            return None
        soa = self._soa(zone)
        servers = self._name_servers(zone)
        ttl = self.options.ttl
        records = [Record(zone, "NS", ttl, name) for name in dict.fromkeys(name for name, _ in servers)]
        records += [Record(name, address_type(ip)[0], ttl, ip) for name, ip in servers]
        for service in self.view.services.values():
            if self._visible(service) and self._serves(service.namespace):
                records += self._records_of(service, zone)
        return (soa, *records, soa)

    def _records_of(self, service: ServiceEntry, zone: str) -> Iterable[Record]:
        ttl = self.options.ttl
        base = f"{service.key}.svc.{zone}"
        if service.type == "ExternalName":
            if address_type(service.external_name)[0] == "CNAME":
                yield Record(base, "CNAME", ttl, absolute(service.external_name))
            return
        if not service.headless:
            for ip in service.cluster_ips:
                yield Record(base, address_type(ip)[0], ttl, ip)
            for port in service.ports:
                yield Record(base, "SRV", ttl, f"0 100 {port.port} {base}")
                if port.name:
                    owner = f"_{port.name}._{port.protocol}".lower()
                    yield Record(f"{owner}.{base}", "SRV", ttl, f"0 100 {port.port} {base}")
            return
        for each in self._slices(service.key):
            weight = 100 // max(1, len(each.addresses))
            for address in each.addresses:
                kind, ip = address_type(address.ip)
                host = f"{self._endpoint_name(address)}.{base}"
                yield Record(base, kind, ttl, ip)
                yield Record(host, kind, ttl, ip)
                for port in each.ports:
                    if port.name:
                        owner = f"_{port.name}._{port.protocol}".lower()
                        yield Record(f"{owner}.{base}", "SRV", ttl, f"0 {weight} {port.port} {host}")

    # Answers by type

    def _negative(self, request: Request, rcode: str, zone: str) -> Response:
        return reply(request.query, rcode, authority=(self._soa(zone),), aa=True)

    def _soa(self, zone: str) -> Record:
        ttl = self.options.ttl
        dot = "" if zone == "." else "."
        data = f"ns.dns{dot}{zone} hostmaster{dot}{zone} {self.view.modified} 7200 1800 86400 {ttl}"
        return Record(zone, "SOA", min(ttl, 300), data)

    def _addresses(
        self, request: Request, name: str, kind: str, zone: str, before: tuple[Record, ...]
    ) -> list[Record] | None:
        """A or AAAA records of `name`, CNAMEs followed; None if there is no such name."""
        found = self._find(name.lower(), zone, kind)
        if found is None:
            return None
        if len(found) == 1:
            host_kind, host = address_type(found[0].host)
            if host_kind == kind:
                return [Record(name, kind, self.options.ttl, host)]
        records: list[Record] = []
        seen: set[str] = set()
        for each in found:
            host_kind, host = address_type(each.host)
            if host_kind != "CNAME":
                if host_kind == kind and each.host not in seen:
                    seen.add(each.host)
                    records.append(Record(name, kind, self.options.ttl, host))
                continue
            target = absolute(host)
            if is_subdomain(name, target) or len(before) > _MAX_CNAME_CHAIN:
                continue
            alias = Record(name, "CNAME", self.options.ttl, target)
            if any(record.data == target for record in before):
                continue
            if is_subdomain(zone, target):
                # The chain goes on in this zone; a target that does not exist takes the CNAME with it.
                records += self._chain(request, target, kind, zone, (*before, alias))
                continue
            answer = request.lookup(request, target, kind)
            if answer is not None:
                request.cut |= answer.tc
                records += [alias, *answer.answer]
        return records

    def _chain(
        self, request: Request, target: str, kind: str, zone: str, before: tuple[Record, ...]
    ) -> list[Record]:
        rest = self._addresses(request, target, kind, zone, before)
        return [before[-1], *rest] if rest else []

    def _srv(self, request: Request, zone: str) -> tuple[list[Record] | None, list[Record]]:
        found = self._find(request.name, zone, "SRV")
        if found is None:
            return None, []
        # SRV of an ExternalName Service is not served; an endpoint that is a name is no better.
        hosts = [
            (each, kind, host)
            for each in found
            for kind, host in [address_type(each.host)]
            if kind != "CNAME"
        ]
        weight = srv_weight(len(hosts))
        records: dict[tuple[str, int], Record] = {}
        extra: dict[tuple[str, str], Record] = {}
        ttl = self.options.ttl
        for each, kind, host in hosts:
            if each.port == -1:
                continue
            target = below(each.path, zone)
            records.setdefault(
                (target, each.port),
                Record(request.query.name, "SRV", ttl, f"0 {weight} {each.port} {target}"),
            )
            extra.setdefault((target, each.host), Record(target, kind, ttl, host))
        return list(records.values()), list(extra.values())

    def _txt(self, request: Request, zone: str) -> list[Record] | None:
        name = request.name
        if name == f"dns-version.{zone.lower()}":
            return [Record(request.query.name, "TXT", 28800, f'"{SCHEMA_VERSION}"')]
        parsed = parse_name(name, zone, self.options.zonal)
        found = self._records(parsed, name) if parsed is not None else None
        if found:
            return []
        if found is not None and parsed is not None and parsed.zone:
            return []
        return None

    def _ptr(self, request: Request, zone: str) -> list[Record] | None:
        ip = reversed_address(request.name)
        if not ip:
            parsed = parse_name(request.name, zone, self.options.zonal)
            return None if parsed is None or self._records(parsed, request.name) is None else []
        targets = list(dict.fromkeys(self._reverse(ip)))
        return [Record(request.query.name, "PTR", self.options.ttl, target) for target in targets] or None

    def _reverse(self, ip: str) -> Iterable[str]:
        for service in self.view.services_by_ip.get(ip, ()):
            if self._visible(service) and (not self._exposed or self._serves(service.namespace)):
                return [f"{service.key}.svc.{self.primary}"]
        if self.options.noendpoints:
            return []
        return [
            f"{self._endpoint_name(address)}.{each.key}.svc.{self.primary}"
            for each in self.view.slices_by_ip.get(ip, ())
            if self._visible(each) and (not self._exposed or self._serves(each.namespace))
            for address in each.addresses
            if address.ip == ip
        ]

    def _ns(self, request: Request, zone: str) -> tuple[list[Record], list[Record]]:
        ttl = self.options.ttl
        servers = self._name_servers(zone)
        names = list(dict.fromkeys(name for name, _ in servers))
        records = [Record(request.query.name, "NS", ttl, name) for name in names]
        extra = [Record(name, address_type(ip)[0], ttl, ip) for name, ip in servers]
        return records, extra

    def _name_servers(self, zone: str) -> list[tuple[str, str]]:
        """(name, address) of the zone's name servers: the Services in front of this server, else itself."""
        found: list[tuple[str, str]] = []
        known = False
        for local in self.local_ips:
            for each in () if self.options.noendpoints else self.view.slices_by_ip.get(local, ()):
                known = True
                service = self.view.services.get(each.key)
                if service is None or not self._visible(service):
                    continue
                base = f"{service.key}.svc.{zone}"
                if service.headless:
                    found += [
                        (f"{self._endpoint_name(address)}.{base}", address.ip) for address in each.addresses
                    ]
                else:
                    found += [(base, ip) for ip in service.cluster_ips]
        return found if known else [(f"ns.dns.{zone}", ip) for ip in self.local_ips]

    # What a name stands for

    def _find(self, name: str, zone: str, kind: str) -> list[Found] | None:
        """Everything `name` stands for; [] if it exists and is empty, None if it does not exist."""
        if name == f"ns.dns.{zone}":
            return [Found(ip) for _, ip in self._name_servers(zone) if address_type(ip)[0] == kind]
        parsed = parse_name(name, zone, self.options.zonal)
        return None if parsed is None else self._records(parsed, name)

    def _records(self, parsed: Parsed, name: str) -> list[Found] | None:
        if not parsed.kind:
            return []
        if _reverse(name) or not self._serves(parsed.namespace):
            return None
        if not parsed.service:
            # A namespace has no records, but it exists; below `pod.` only if pods are served at all.
            return [] if parsed.kind == "svc" or self.options.pods != "disabled" else None
        return self._pods(parsed) if parsed.kind == "pod" else self._services(parsed)

    def _pods(self, parsed: Parsed) -> list[Found] | None:
        mode = self.options.pods
        if mode == "disabled":
            return None
        text = parsed.service
        ip = text.replace("-", "." if text.count("-") == 3 and "--" not in text else ":")
        found = Found(ip, 0, f"{text}.{parsed.namespace}.pod")
        if mode == "insecure":
            return [found] if parse_ip(ip) else None
        pods = [pod for pod in self.view.pods_by_ip.get(ip, ()) if pod.namespace == parsed.namespace]
        return [found for pod in pods if self._visible(pod)] or None

    def _services(self, parsed: Parsed) -> list[Found] | None:
        service = self.view.services.get(f"{parsed.service}.{parsed.namespace}")
        if service is None or not self._visible(service):
            return None
        headless = service.headless
        if self.options.ignore_empty_service and service.type != "ExternalName" and not headless:
            if not any(each.addresses for each in self._slices(service.key)):
                return None
        if parsed.zone and not headless:
            return None
        path = f"{service.name}.{service.namespace}.svc"
        if service.type == "ExternalName":
            if parsed.endpoint or parsed.port or parsed.protocol or parse_ip(service.external_name):
                return None
            return [Found(service.external_name, 0, path)]
        if headless or parsed.endpoint:
            found = self._endpoints(parsed, service, path, parsed.zone)
            if not found and parsed.prefer:
                found = self._endpoints(parsed, service, path, "")
            return found if found or parsed.zone else None
        ports = [port for port in service.ports if _port_matches(parsed, port.name, port.protocol)]
        if not ports:
            return None
        return [Found(ip, port.port, path) for port in ports for ip in service.cluster_ips]

    def _endpoints(self, parsed: Parsed, service: ServiceEntry, path: str, zone: str) -> list[Found]:
        found: list[Found] = []
        for each in self._slices(service.key):
            for address in each.addresses:
                if zone and address.zone != zone:
                    continue
                hostname = self._endpoint_name(address)
                if parsed.endpoint and parsed.endpoint != hostname.lower():
                    continue
                found += [
                    Found(address.ip, port.port, f"{hostname}.{path}")
                    for port in each.ports
                    if _port_matches(parsed, port.name, port.protocol)
                ]
        return found

    def external(self, base: str, headless: bool) -> list[Found] | None:
        """What `k8s_external` asks: `base` is a name below its zone, lower case; None if there is no such name."""
        parts = base.split(".")
        if not self._serves(parts[-1]):
            return None
        if len(parts) == 1:
            return []
        if len(parts) > 4:
            return None
        asked = Parsed(service=parts[-2], namespace=parts[-1])
        if len(parts) == 3:
            asked = replace(asked, endpoint=parts[0].removeprefix("_"))
        elif len(parts) == 4:
            asked = replace(asked, port=parts[0].removeprefix("_"), protocol=parts[1].removeprefix("_"))
        service = self.view.services.get(f"{asked.service}.{asked.namespace}")
        if service is None or not self._visible(service):
            return None
        path = f"{service.name}.{service.namespace}"
        if headless and not service.external and (service.headless or asked.endpoint):
            return self._endpoints(asked, service, path, "") or None
        ports = [port for port in service.ports if _port_matches(asked, port.name, port.protocol)]
        return [Found(ip, port.port, path) for ip in service.external for port in ports] or None

    def external_names(self, ip: str) -> list[Found] | None:
        """The Services, as "name.namespace", that are reached from outside by an address; None if there is none."""
        return [
            Found(service.key)
            for service in self.view.services_by_external.get(ip, ())
            if self._visible(service) and (not self._exposed or self._serves(service.namespace))
        ] or None

    def external_addresses(self) -> list[str]:
        """Addresses by which this server's own Services are reached from outside the cluster."""
        keys = dict.fromkeys(each.key for ip in self.local_ips for each in self.view.slices_by_ip.get(ip, ()))
        services = (self.view.services.get(key) for key in keys)
        return [ip for service in services if service is not None for ip in service.external]

    def _slices(self, key: str) -> tuple[SliceEntry, ...]:
        if self.options.noendpoints:
            return ()
        found = self.view.slices.get(key, ())
        if self._labels is None:
            return found
        return tuple(each for each in found if self._visible(each))

    def _endpoint_name(self, address: Address) -> str:
        if address.hostname:
            return address.hostname
        if self.options.endpoint_pod_names and address.pod:
            return address.pod
        if "." in address.ip:
            return address.ip.replace(".", "-")
        dashed = address.ip.replace(":", "-")
        return dashed + "0" if dashed.endswith("-") else dashed

    def _visible(self, entry: object) -> bool:
        return self._labels is None or self._labels(dict(getattr(entry, "labels", ())))

    def _serves(self, namespace: str) -> bool:
        if self._exposed and namespace not in self._exposed:
            return False
        entry = self.view.namespaces.get(namespace)
        if entry is None:
            return False
        return self._namespace_labels is None or self._namespace_labels(dict(entry.labels))


def srv_weight(count: int) -> int:
    """The weight of each of so many SRV records; counted before duplicates go, so they need not add up to 100."""
    return max(1, math.floor(100.0 / (100 * count) * 100)) if count else 0


def _reverse(name: str) -> bool:
    return name.endswith((IN_ADDR_ARPA, IP6_ARPA))


def _port_matches(parsed: Parsed, name: str, protocol: str) -> bool:
    return (not parsed.port or parsed.port == name.lower()) and (
        not parsed.protocol or parsed.protocol == protocol.lower()
    )


def _parse(c: Controller) -> Options:
    options: Options | None = None
    while c.next():
        if options is not None:
            raise CorefileError("this plugin can only be used once per Server Block")
        zones = c.zones_or(c.args())
        if all(_reverse(zone) for zone in zones):
            raise CorefileError("non-reverse zone name must be used")
        fields: dict[str, object] = {}
        while c.next_block():
            _option(c, fields)
        if fields.get("namespaces") and "namespace_labels" in fields:
            raise c.error("namespaces and namespace_labels cannot both be set")
        if fields.get("zonal") and fields.get("noendpoints"):
            raise c.error("zonal requires the endpoint cache; remove noendpoints")
        options = Options(zones=zones, **fields)  # type: ignore[arg-type]
    assert options is not None
    return options


def _option(c: Controller, fields: dict[str, object]) -> None:
    word = c.value
    args = c.args()
    if word in ("endpoint_pod_names", "noendpoints", "zonal"):
        if args:
            raise c.arg_error()
        fields[word] = True
    elif word == "pods":
        if len(args) != 1:
            raise c.arg_error()
        if args[0] not in ("disabled", "insecure", "verified"):
            raise CorefileError(
                f"wrong value for pods: {args[0]},  must be one of: disabled, verified, insecure"
            )
        fields[word] = args[0]
    elif word in ("namespaces", "endpoint"):
        if not args:
            raise c.arg_error()
        if word == "endpoint":
            fields["api"] = True
        else:
            fields[word] = (*fields.get(word, ()), *args)  # type: ignore[misc]
    elif word == "tls":
        if len(args) != 3:
            raise c.arg_error()
    elif word in ("labels", "namespace_labels"):
        if not args:
            raise c.arg_error()
        text = " ".join(args)
        try:
            matcher(text)
        except CorefileError as error:
            what = "label" if word == "labels" else "namespace_label"
            raise CorefileError(f"unable to parse {what} selector value: '{text}': {error}") from None
        fields[word] = text
    elif word == "fallthrough":
        fields[word] = c.fallthrough(args)
    elif word == "ttl":
        fields[word] = c.ttl(args)
    elif word == "ignore":
        if args and args[0] != "empty_service":
            raise CorefileError(f"unable to parse ignore value: '{args[0]}'")
        fields["ignore_empty_service"] = bool(args)
    elif word == "kubeconfig":
        if len(args) not in (1, 2):
            raise c.arg_error()
        fields["api"] = True
    elif word == "multicluster":
        raise CorefileError("multicluster: not modelled")
    elif word == "startup_timeout":
        if not args:
            raise c.arg_error()
        try:
            fields[word] = duration(args[0])
        except CorefileError as error:
            raise CorefileError(f"failed to parse startup_timeout: {args[0]}, {error}") from None
    elif word in ("apiserver_qps", "apiserver_burst", "apiserver_max_inflight"):
        if len(args) != 1:
            raise c.arg_error()
    else:
        raise c.error(f"unknown property '{word}'")
