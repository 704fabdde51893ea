"""Services and EndpointSlices as kube-proxy sees them: service ports, and the endpoints behind each.

What every proxy mode shares. A Service with two ports in two families becomes four service ports; slices are merged
per service port, one endpoint for each address and port. `categorize` then picks the endpoints that a node uses.
Kubernetes documentation: "Virtual IPs and Service Proxies"; KEP-2433 (hints), KEP-1669 (terminating endpoints).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from kubenet_lab.packet.ip import canonical, family, prefix
from kubenet_lab.proxy.names import endpoint_text, service_port_name

SERVICE_NAME = "kubernetes.io/service-name"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
ZONE = "topology.kubernetes.io/zone"

Manifest = Mapping[str, Any]


class PortKey(NamedTuple):
    """What identifies a service port: rules are made and kept per key."""

    namespace: str
    name: str
    port_name: str
    protocol: str


class ServicePort(Struct, frozen=True):
    """One port of a Service in one IP family, reduced to what decides rules.

    `protocol` is "TCP", "UDP" or "SCTP"; `affinity_seconds` 0 means no session affinity; `load_balancer_ips` are the
    ingress addresses with ipMode VIP; `health_check_node_port` 0 means none.
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
        return self.internal_local or (self.external_local and self.externally_accessible)


class Endpoint(Struct, frozen=True):
    """One address and port behind a service port. `zone_hints` and `node_hints` are sorted names."""

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
    """All service ports of one IP family (4 or 6) and their endpoints, sorted as kube-proxy sorts: by text."""

    family: int
    ports: dict[PortKey, ServicePort]
    endpoints: dict[PortKey, tuple[Endpoint, ...]]


class Choice(Struct, frozen=True):
    """Which endpoints a node uses for a service port.

    `cluster` and `local` serve the two traffic policies, None where that policy is not in use or finds nothing to
    choose from; `reachable` is their union, sorted. `any` tells whether any node has a usable endpoint: without one
    traffic is refused, with one that is only elsewhere local traffic is dropped.
    """

    cluster: tuple[Endpoint, ...] | None = None
    local: tuple[Endpoint, ...] | None = None
    reachable: tuple[Endpoint, ...] | None = None
    any: bool = False


def _hint(endpoints: Iterable[Endpoint], node: str, zone: str) -> str:
    """Return "node", "zone" or "": the kind of hint that counts.

    A kind counts if every ready endpoint has one and one of them names us: a half-written slice must not leave a
    node without endpoints.
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

    Terminating endpoints that still serve count only where no ready one is: for the Cluster policy anywhere, for
    Local on this node. Hints narrow the Cluster choice only.
    """
    cluster: tuple[Endpoint, ...] | None = None
    local: tuple[Endpoint, ...] | None = None
    hint = ""
    ready = tuple(e for e in endpoints if e.ready)
    leaving = () if ready else tuple(e for e in endpoints if e.serving and e.terminating)
    if port.uses_cluster_endpoints:
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
    anywhere = bool(ready or leaving)
    if not port.uses_cluster_endpoints:
        return Choice(None, local, local, anywhere)
    extra = set(local) - set(cluster or ())
    reachable = tuple(sorted({*(cluster or ()), *extra}, key=lambda e: e.text)) if extra else cluster
    return Choice(cluster, local, reachable, anywhere)


# Reading the objects


def _addresses(texts: Iterable[str], wanted: int) -> tuple[str, ...]:
    return tuple(canonical(text) for text in texts if family(text) == wanted)


def _source_ranges(texts: Iterable[str], wanted: int) -> tuple[str, ...]:
    ranges = tuple(str(prefix(text.strip())) for text in texts if family(text) == wanted)
    # A range of everything allows everybody: kube-proxy then writes no firewall at all.
    return () if any(r.endswith("/0") for r in ranges) else ranges


def _cluster_ip(spec: Manifest, wanted: int) -> str:
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return next((canonical(a) for a in addresses if a and a != "None" and family(a) == wanted), "")


def _skipped(spec: Manifest, labels: Mapping[str, str]) -> bool:
    return (
        spec.get("type") == "ExternalName"
        or spec.get("clusterIP") in ("None", "", None)
        or PROXY_NAME in labels
        or HEADLESS in labels
    )


def service_ports(service: Manifest, wanted: int) -> list[ServicePort]:
    """Return the service ports of one Service (a manifest) in IP family `wanted` (4 or 6).

    Headless and ExternalName Services, and those labelled for another proxy, have none.
    """
    metadata, spec = service["metadata"], service.get("spec") or {}
    if _skipped(spec, metadata.get("labels") or {}):
        return []
    cluster_ip = _cluster_ip(spec, wanted)
    if not cluster_ip:
        return []
    kind = spec.get("type") or "ClusterIP"
    external_ips = spec.get("externalIPs") or ()
    outside = kind in ("NodePort", "LoadBalancer") or bool(external_ips)
    external_local = outside and spec.get("externalTrafficPolicy") == "Local"
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = config.get("timeoutSeconds") or 10800
    load_balancer_ips = _addresses(
        (i["ip"] for i in ingress if i.get("ip") and i.get("ipMode") in (None, "VIP")), wanted
    )
    health = spec.get("healthCheckNodePort") or 0
    return [
        ServicePort(
            key=PortKey(
                metadata.get("namespace") or "default",
                metadata["name"],
                port.get("name") or "",
                port.get("protocol") or "TCP",
            ),
            cluster_ip=cluster_ip,
            port=port["port"],
            node_port=port.get("nodePort") or 0,
            affinity_seconds=affinity,
            external_ips=_addresses(external_ips, wanted),
            load_balancer_ips=load_balancer_ips,
            source_ranges=_source_ranges(spec.get("loadBalancerSourceRanges") or (), wanted),
            health_check_node_port=health if kind == "LoadBalancer" and external_local else 0,
            internal_local=spec.get("internalTrafficPolicy") == "Local",
            external_local=external_local,
        )
        for port in spec.get("ports") or ()
    ]


def _unset(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def slice_endpoints(endpoint_slice: Manifest) -> dict[PortKey, list[Endpoint]]:
    """Return the endpoints of one EndpointSlice (a manifest) for each service port it feeds.

    Only the first address of an endpoint counts. Unset conditions mean ready, serving and not terminating. Ports
    without a number are passed over.
    """
    metadata = endpoint_slice["metadata"]
    labels = metadata.get("labels") or {}
    service = labels.get(SERVICE_NAME)
    if not service or HEADLESS in labels or PROXY_NAME in labels:
        return {}
    namespace = metadata.get("namespace") or "default"
    hosts: list[tuple[str, bool, bool, bool, str, tuple[str, ...], tuple[str, ...]]] = []
    for endpoint in endpoint_slice.get("endpoints") or ():
        if not endpoint.get("addresses"):
            continue
        conditions = endpoint.get("conditions") or {}
        hints = endpoint.get("hints") or {}
        ready = _unset(conditions.get("ready"), True)
        hosts.append(
            (
                canonical(endpoint["addresses"][0]),
                ready,
                _unset(conditions.get("serving"), ready),
                _unset(conditions.get("terminating"), False),
                endpoint.get("nodeName") or "",
                tuple(sorted(zone["name"] for zone in hints.get("forZones") or ())),
                tuple(sorted(node["name"] for node in hints.get("forNodes") or ())),
            )
        )
    found: dict[PortKey, list[Endpoint]] = {}
    for port in endpoint_slice.get("ports") or ():
        number = port.get("port")
        if number:
            key = PortKey(namespace, service, port.get("name") or "", port.get("protocol") or "TCP")
            found.setdefault(key, []).extend(Endpoint(host[0], number, *host[1:]) for host in hosts)
    return found


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


def from_objects(services: Collection[Manifest], slices: Collection[Manifest]) -> dict[int, ServiceMap]:
    """Return the service ports and endpoints of each IP family: {4: ServiceMap, 6: ServiceMap}."""
    by_family: dict[int, dict[PortKey, list[list[Endpoint]]]] = {4: {}, 6: {}}
    for endpoint_slice in sorted(slices, key=lambda s: str(s["metadata"]["name"])):
        wanted = {"IPv4": 4, "IPv6": 6}.get(endpoint_slice.get("addressType") or "")
        if wanted:
            for key, endpoints in slice_endpoints(endpoint_slice).items():
                by_family[wanted].setdefault(key, []).append(endpoints)
    return {
        wanted: ServiceMap(
            wanted,
            {port.key: port for service in services for port in service_ports(service, wanted)},
            {key: merge_endpoints(parts) for key, parts in parts_of.items()},
        )
        for wanted, parts_of in by_family.items()
    }
