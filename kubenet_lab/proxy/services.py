"""Services and EndpointSlices as kube-proxy sees them: service ports, and the endpoints behind each.

What every proxy mode shares. A Service with two ports in two families becomes four service ports; slices are
merged per service port, one endpoint for each address and port. `categorize` then picks the endpoints that a
node uses. Kubernetes documentation: "Virtual IPs and Service Proxies"; KEP-2433 (hints), KEP-1669
(terminating endpoints).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab import objects
from kubenet_lab.objects import EndpointSlice, Json, Service
from kubenet_lab.packet.ip import canonical, family, prefix
from kubenet_lab.proxy.names import endpoint_text, service_port_name

PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"

DEFAULT_AFFINITY = 10800
"""Seconds a client keeps its endpoint where the Service does not say (three hours)."""


class PortKey(NamedTuple):
    """What identifies a service port: rules are made and kept per key."""

    namespace: str
    name: str
    port_name: str
    protocol: str


class ServicePort(Struct, frozen=True, gc=False):
    """One port of a Service in one IP family, reduced to what decides rules.

    `protocol` is "TCP", "UDP" or "SCTP"; `affinity_seconds` 0 means no session affinity; `load_balancer_ips`
    are the ingress addresses with ipMode VIP; `health_check_node_port` 0 means none.
    """

    key: PortKey
    cluster_ip: str
    port: int
    node_port: int = 0
    affinity_seconds: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_check_node_port: int = 0
    internal_local: bool = False
    external_local: bool = False

    @property
    def label(self) -> str:
        """The name in comments: "default/web:http"."""
        return service_port_name(self.key.namespace, self.key.name, self.key.port_name)

    @property
    def externally_accessible(self) -> bool:
        """Whether traffic for an address other than the cluster IP can reach it."""
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Whether endpoints of all nodes are needed.

        With external addresses always: traffic of the node's own pods to them ignores the external policy.
        """
        return not self.internal_local or self.externally_accessible

    @property
    def uses_local_endpoints(self) -> bool:
        """Whether the endpoints of the node itself are needed apart, for a Local policy."""
        return self.internal_local or (self.external_local and self.externally_accessible)


class Endpoint(Struct, frozen=True, gc=False):
    """One address and port behind a service port. The hints are sorted names, each once."""

    address: str
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """ "10.244.0.5:8080"."""
        return endpoint_text(self.address, self.port)


class ServiceMap(Struct, frozen=True):
    """All service ports of one IP family (4 or 6), and their endpoints sorted as kube-proxy does: by text."""

    family: int
    ports: dict[PortKey, ServicePort]
    endpoints: dict[PortKey, tuple[Endpoint, ...]]


class Choice(Struct, frozen=True):
    """Which endpoints a node uses for a service port.

    `cluster` and `local` serve the two traffic policies, None where that policy is not in use or finds
    nothing to choose from; `reachable` is their union, sorted. `any` tells whether any node has a usable
    endpoint: without one traffic is refused, with one that is only elsewhere local traffic is dropped.
    """

    cluster: tuple[Endpoint, ...] | None = None
    local: tuple[Endpoint, ...] | None = None
    reachable: tuple[Endpoint, ...] | None = None
    any: bool = False

    def answers(self, local: bool) -> bool:
        """Whether this node sends traffic on, under a policy that may be Local."""
        return self.any and (bool(self.local) or not local)


def _hint(endpoints: Iterable[Endpoint], node: str, zone: str) -> str:
    """Return "node", "zone" or "": the kind of hint that counts.

    A kind counts if every ready endpoint has one and one of them names us: a half-written slice must not
    leave a node without endpoints.
    """
    node_all = zone_all = True
    node_ours = zone_ours = False
    for endpoint in endpoints:
        if not endpoint.ready:
            continue
        node_all = node_all and bool(endpoint.node_hints)
        zone_all = zone_all and bool(endpoint.zone_hints)
        node_ours = node_ours or node in endpoint.node_hints
        zone_ours = zone_ours or zone in endpoint.zone_hints
    if node_all and node_ours:
        return "node"
    return "zone" if zone and zone_all and zone_ours else ""


def categorize(port: ServicePort, endpoints: tuple[Endpoint, ...], node: str, zone: str = "") -> Choice:
    """Choose the endpoints that `node` (in `zone`, "" if unknown) uses for a service port.

    Terminating endpoints that still serve count only where no ready one is: for the Cluster policy anywhere,
    for Local on this node. Hints narrow the Cluster choice only.
    """
    cluster: tuple[Endpoint, ...] | None = None
    local: tuple[Endpoint, ...] | None = None
    hint = ""
    ready = tuple(e for e in endpoints if e.ready)
    leaving = () if ready else tuple(e for e in endpoints if e.serving and e.terminating)
    if port.uses_cluster_endpoints and endpoints:
        hint = _hint(ready, node, zone)
        if hint == "node":
            cluster = tuple(e for e in ready if node in e.node_hints)
        elif hint == "zone":
            cluster = tuple(e for e in ready if zone in e.zone_hints)
        else:
            cluster = ready or leaving
    if not port.uses_local_endpoints:
        return Choice(cluster, None, cluster, bool(cluster))
    local_ready = tuple(e for e in ready if e.node == node)
    local = local_ready or tuple(
        e for e in endpoints if e.node == node and not e.ready and e.serving and e.terminating
    )
    local = local or None
    anywhere = bool(ready or leaving)
    if not port.uses_cluster_endpoints:
        return Choice(None, local, local, anywhere)
    extra = set(local or ()) - set(cluster or ())
    reachable = tuple(sorted({*(cluster or ()), *extra}, key=lambda e: e.text)) if extra else cluster
    return Choice(cluster, local, reachable, anywhere)


# Reading the objects


def _addresses(texts: Iterable[str], wanted: int) -> tuple[str, ...]:
    return tuple(canonical(text) for text in texts if family(text) == wanted)


def _source_ranges(texts: Iterable[str], wanted: int) -> tuple[str, ...]:
    ranges = tuple(str(prefix(text.strip())) for text in texts if family(text) == wanted)
    # A range of everything allows everybody: kube-proxy then writes no firewall at all.
    return () if any(r.endswith("/0") for r in ranges) else ranges


def _cluster_ip(service: Service, wanted: int) -> str:
    labels = service.metadata.labels
    if PROXY_NAME in labels or HEADLESS in labels:
        return ""
    return next((canonical(a) for a in service.addresses if family(a) == wanted), "")


def service_ports(service: Service, wanted: int) -> list[ServicePort]:
    """Return the service ports of one Service in IP family `wanted` (4 or 6).

    Headless and ExternalName Services, and those labelled for another proxy, have none.
    """
    cluster_ip = _cluster_ip(service, wanted)
    if not cluster_ip:
        return []
    spec = service.spec
    outside = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    external_local = outside and spec.external_traffic_policy == "Local"
    affinity = 0
    if spec.session_affinity == "ClientIP":
        client_ip = (spec.session_affinity_config or {}).get("clientIP") or {}
        affinity = client_ip.get("timeoutSeconds") or DEFAULT_AFFINITY
    ingress = (service.status.load_balancer or {}).get("ingress") or ()
    vips = (i["ip"] for i in ingress if i.get("ip") and i.get("ipMode") in (None, "VIP"))
    made = ServicePort(
        key=PortKey(service.namespace or "default", service.name, "", ""),
        cluster_ip=cluster_ip,
        port=0,
        affinity_seconds=affinity,
        external_ips=_addresses(spec.external_ips, wanted),
        load_balancer_ips=_addresses(vips, wanted),
        source_ranges=_source_ranges(spec.load_balancer_source_ranges, wanted),
        health_check_node_port=spec.health_check_node_port
        if spec.type == "LoadBalancer" and external_local
        else 0,
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=external_local,
    )
    return [
        replace(
            made,
            key=PortKey(made.key.namespace, made.key.name, port.name, port.protocol or "TCP"),
            port=port.port,
            node_port=port.node_port,
        )
        for port in spec.ports
    ]


def slice_endpoints(endpoint_slice: EndpointSlice) -> dict[PortKey, list[Endpoint]]:
    """Return the endpoints of one EndpointSlice for each service port it feeds.

    Only the first address of an endpoint counts. Unset conditions mean ready, serving and not terminating.
    Ports without a number are passed over, and so are whole slices of headless Services or of no Service.
    """
    labels = endpoint_slice.metadata.labels
    service = endpoint_slice.service_name
    if not service or HEADLESS in labels or PROXY_NAME in labels:
        return {}
    namespace = endpoint_slice.namespace or "default"
    found: dict[PortKey, list[Endpoint]] = {}
    for port in endpoint_slice.ports:
        if port.port:
            key = PortKey(namespace, service, port.name or "", port.protocol or "TCP")
            found.setdefault(key, []).extend(
                _endpoint(e, port.port) for e in endpoint_slice.endpoints if e.addresses
            )
    return found


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_PLAIN_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII).fullmatch
"""Whether text is an IPv4 address in its only form; parsing each endpoint's would take most of the time."""


def _endpoint(endpoint: objects.Endpoint, port: int) -> Endpoint:
    conditions, hints, address = endpoint.conditions, endpoint.hints, endpoint.addresses[0]
    return Endpoint(
        address if _PLAIN_IPV4(address) else canonical(address),
        port,
        conditions.ready is not False,
        conditions.serving is not False,
        conditions.terminating is True,
        endpoint.node_name or "",
        tuple(sorted({zone.name for zone in hints.for_zones})) if hints else (),
        tuple(sorted({node.name for node in hints.for_nodes})) if hints else (),
    )


def merge_endpoints(parts: Iterable[Iterable[Endpoint]]) -> tuple[Endpoint, ...]:
    """Merge the endpoints that several slices give a service port: one per address and port, sorted by text.

    An address can be in two slices while its controller moves it; the entry that does not terminate wins.
    """
    seen: dict[str, Endpoint] = {}
    for part in parts:
        for endpoint in part:
            text = endpoint.text
            known = seen.get(text)
            if known is None or (known.terminating and not endpoint.terminating):
                seen[text] = endpoint
    return tuple(seen[text] for text in sorted(seen))


_FAMILIES = {"IPv4": 4, "IPv6": 6}

Named = tuple[str, str]
"""(namespace, name) of a Service: what changed is told a Service at a time, as kube-proxy does."""


class ServiceTracker:
    """Turns objects into service maps, and looks again only at objects that are not the ones it saw last.

    Objects are frozen, so the same object means the same content; that makes one change in ten thousand
    Services cheap. Plain manifests (dicts) are taken too, and read anew each time.
    """

    def __init__(self) -> None:
        self._services: dict[int, Service] = {}
        self._slices: dict[int, EndpointSlice] = {}
        self._made: dict[int, dict[int, list[ServicePort]]] = {}
        self._found: dict[int, dict[PortKey, list[Endpoint]]] = {}
        self._parts: dict[int, dict[PortKey, dict[int, str]]] = {4: {}, 6: {}}
        self.maps: dict[int, ServiceMap] = {f: ServiceMap(f, {}, {}) for f in (4, 6)}

    def update(
        self, services: Iterable[Service | Json], slices: Iterable[EndpointSlice | Json]
    ) -> dict[int, set[Named]]:
        """Bring `maps` (by IP family: 4, 6) to these objects; return the Services that are not as they were.

        Raises msgspec.ValidationError for a manifest with a wrong type, ValueError for a malformed address.
        """
        changed: dict[int, set[Named]] = {4: set(), 6: set()}
        ports = self._update_ports(_all_typed(services, Service), changed)
        endpoints = self._update_endpoints(_all_typed(slices, EndpointSlice), changed)
        self.maps = {f: ServiceMap(f, ports[f], endpoints[f]) for f in (4, 6)}
        return changed

    def _update_ports(
        self, services: list[Service], changed: dict[int, set[Named]]
    ) -> dict[int, dict[PortKey, ServicePort]]:
        before, now = (
            self._services,
            dict(zip(map(id, services), services, strict=True)),
        )
        ports = {f: self.maps[f].ports for f in (4, 6)}
        if before.keys() == now.keys():
            return ports
        gone, new = before.keys() - now.keys(), [i for i in now if i not in before]
        removed: dict[int, dict[PortKey, ServicePort]] = {4: {}, 6: {}}
        for i in gone:
            for f, made in self._made.pop(i).items():
                removed[f].update((port.key, port) for port in made)
        ports = {f: dict(known) for f, known in ports.items()}
        for i in new:
            self._made[i] = {f: service_ports(now[i], f) for f in (4, 6)}
            for f, made in self._made[i].items():
                for port in made:
                    if removed[f].pop(port.key, None) != port:
                        changed[f].add(port.key[:2])
                    ports[f][port.key] = port
        for f, left in removed.items():
            for key in left:
                del ports[f][key]
                changed[f].add(key[:2])
        self._services = now
        return ports

    def _update_endpoints(
        self, slices: list[EndpointSlice], changed: dict[int, set[Named]]
    ) -> dict[int, dict[PortKey, tuple[Endpoint, ...]]]:
        before, now = self._slices, dict(zip(map(id, slices), slices, strict=True))
        endpoints = {f: self.maps[f].endpoints for f in (4, 6)}
        touched: dict[int, set[PortKey]] = {4: set(), 6: set()}
        for i in before.keys() - now.keys():
            f = _FAMILIES.get(before[i].address_type, 4)
            for key in self._found.pop(i):
                del self._parts[f][key][i]
                touched[f].add(key)
        for i in [i for i in now if i not in before]:
            endpoint_slice = now[i]
            known = _FAMILIES.get(endpoint_slice.address_type)
            self._found[i] = slice_endpoints(endpoint_slice) if known else {}
            for key in self._found[i]:
                self._parts[known or 4].setdefault(key, {})[i] = endpoint_slice.metadata.name
                touched[known or 4].add(key)
        for f, keys in touched.items():
            if not keys:
                continue
            endpoints[f] = dict(endpoints[f])
            for key in keys:
                parts = self._parts[f][key]
                merged = merge_endpoints(self._found[i][key] for i in sorted(parts, key=parts.__getitem__))
                if not parts:
                    del self._parts[f][key]
                if endpoints[f].pop(key, ()) != merged:
                    changed[f].add(key[:2])
                if merged:
                    endpoints[f][key] = merged
        self._slices = now
        return endpoints


_Object = TypeVar("_Object", Service, EndpointSlice)


def _all_typed(given: Iterable[_Object | Json], wanted: type[_Object]) -> list[_Object]:
    everything: list[Any] = list(given)
    if {*map(type, everything)} <= {wanted}:
        return everything
    return [_typed(one, wanted) for one in everything]


def _typed(given: _Object | Json, wanted: type[_Object]) -> _Object:
    if not isinstance(given, dict):
        return given
    made = objects.from_manifest({"apiVersion": wanted.api_version, "kind": wanted.kind, **given})
    if not isinstance(made, wanted):
        raise TypeError(f"{made.kind} {made.metadata.name!r} given where a {wanted.kind} belongs")
    return made


def from_objects(
    services: Iterable[Service | Json], slices: Iterable[EndpointSlice | Json]
) -> dict[int, ServiceMap]:
    """Return the service ports and endpoints of each IP family, read once: {4: ServiceMap, 6: ServiceMap}."""
    tracker = ServiceTracker()
    tracker.update(services, slices)
    return tracker.maps
