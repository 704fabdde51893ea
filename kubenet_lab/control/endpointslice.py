"""EndpointSlices from Services and pods (kube-controller-manager's endpoint slice controller).

Source: `staging/src/k8s.io/endpointslice/{reconciler,utils}.go`; checked against recorded slices. Not
modelled here: topology mode Auto, mirroring of hand-written Endpoints.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    Node,
    ObjectMeta,
    ObjectReference,
    Pod,
    Service,
    ServicePort,
    owned_by,
)
from kubenet_lab.objects.endpointslice import (
    CONTROLLER_NAME,
    HEADLESS_LABEL,
    MANAGED_BY_LABEL,
    SERVICE_NAME_LABEL,
    ForNode,
    ForZone,
)
from kubenet_lab.store import Store

MAX_ENDPOINTS = 100
"""Endpoints in a slice (`--max-endpoints-per-slice`)."""

Ports = tuple[EndpointPort, ...]
PodIndex = dict[tuple[str, str, str], list[Pod]]

_NOT_COPIED = ("kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by", HEADLESS_LABEL)


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Slices to create, change and delete, for every Service that has a selector and is not ExternalName."""
    zones = {node.name: node.zone for node in store.list(Node)}
    index = _index(store.list(Pod))
    mine: dict[tuple[str, str], list[EndpointSlice]] = {}
    for item in store.list(EndpointSlice):
        if item.metadata.labels.get(MANAGED_BY_LABEL) == CONTROLLER_NAME:
            mine.setdefault((item.namespace, item.service_name), []).append(item)
    changes: list[Change] = []
    for service in store.list(Service):
        if service.external or not service.spec.selector or not service.spec.ip_families:
            continue
        existing = mine.pop((service.namespace, service.name), [])
        changes += _service(store, service, _selected(service, index), zones, existing)
    for orphans in mine.values():
        changes += [Change("delete", item, "its Service is gone or selects nothing") for item in orphans]
    return changes


def _index(pods: Iterable[Pod]) -> PodIndex:
    """Pods by namespace and each of their labels, so that a Service only looks at pods that share one with
    it.
    """
    index: PodIndex = {}
    for pod in pods:
        for key, value in pod.metadata.labels.items():
            index.setdefault((pod.namespace, key, value), []).append(pod)
    return index


def _selected(service: Service, index: PodIndex) -> list[Pod]:
    """The pods a Service's selector means."""
    candidates = [index.get((service.namespace, *pair), []) for pair in service.spec.selector.items()]
    fewest = min(candidates, key=len)
    wanted = service.spec.selector.items()
    return [pod for pod in fewest if wanted <= pod.metadata.labels.items()] if len(candidates) > 1 else fewest


def _service(
    store: Store, service: Service, pods: list[Pod], zones: Mapping[str, str], existing: list[EndpointSlice]
) -> list[Change]:
    changes: list[Change] = []
    names: list[str] = []
    for family in service.spec.ip_families:
        have = [item for item in existing if item.address_type == family]
        groups: dict[Ports, list[Endpoint]] = {}
        for pod in pods:
            endpoint = _endpoint(service, pod, family, zones)
            if endpoint is not None:
                groups.setdefault(endpoint_ports(service, pod), []).append(endpoint)
        wished = [
            (ports, tuple(endpoints[start : start + MAX_ENDPOINTS]))
            for ports, endpoints in groups.items()
            for start in range(0, len(endpoints), MAX_ENDPOINTS)
        ] or [((), ())]
        changes += _match(store, service, family, wished, have, names)
    changes += [
        Change("delete", item, f"the Service has no {item.address_type} any more")
        for item in existing
        if item.address_type not in service.spec.ip_families
    ]
    return changes


def _match(
    store: Store,
    service: Service,
    family: str,
    wished: list[tuple[Ports, tuple[Endpoint, ...]]],
    have: list[EndpointSlice],
    names: list[str],
) -> list[Change]:
    """The changes from the slices there are to the ones wished.

    A slice keeps its name as long as its ports stay.
    """
    changes: list[Change] = []
    labels = _labels(service)
    free = list(have)
    unmatched = []
    pairs: list[tuple[EndpointSlice, Ports, tuple[Endpoint, ...]]] = []
    for ports, endpoints in wished:
        old = next((item for item in free if item.ports == ports), None)
        if old is None:
            unmatched.append((ports, endpoints))
        else:
            free.remove(old)
            pairs.append((old, ports, endpoints))
    # Rather than delete one slice and create another, the controller rewrites the first.
    while unmatched and free:
        pairs.append((free.pop(0), *unmatched.pop(0)))
    for old, ports, endpoints in pairs:
        if old.endpoints != endpoints or old.ports != ports or old.metadata.labels != labels:
            new = replace(old.with_metadata(labels=labels), endpoints=endpoints, ports=ports)
            changes.append(Change("update", new, f"{len(endpoints)} endpoints of {service.name}"))
    for ports, endpoints in unmatched:
        name = store.generated_name("EndpointSlice", f"{service.name}-", service.namespace, skip=names)
        names.append(name)
        metadata = ObjectMeta(
            name=name,
            generate_name=f"{service.name}-",
            namespace=service.namespace,
            labels=labels,
            owner_references=owned_by(service),
        )
        new = EndpointSlice(metadata=metadata, address_type=family, endpoints=endpoints, ports=ports)
        changes.append(Change("create", new, f"{len(endpoints)} endpoints of {service.name}"))
    changes += [Change("delete", item, "no endpoint is left for it") for item in free]
    return changes


def _labels(service: Service) -> dict[str, str]:
    """The Service's own labels, and those the controller sets."""
    labels = {key: value for key, value in service.metadata.labels.items() if key not in _NOT_COPIED}
    if service.headless:
        labels[HEADLESS_LABEL] = ""
    labels[SERVICE_NAME_LABEL] = service.name
    labels[MANAGED_BY_LABEL] = CONTROLLER_NAME
    return labels


def _endpoint(service: Service, pod: Pod, family: str, zones: Mapping[str, str]) -> Endpoint | None:
    """The pod as an endpoint of one family; None when it has no address of it or ended for good."""
    if pod.finished:
        return None
    address = next((ip for ip in pod.ips if (":" in ip) == (family == "IPv6")), None)
    if address is None:
        return None
    if family == "IPv6":
        address = _canonical(address)
    spec, metadata = pod.spec, pod.metadata
    node = spec.node_name or None
    zone = zones.get(spec.node_name) or None
    named = service.headless and spec.hostname and spec.subdomain == service.name
    return Endpoint(
        addresses=(address,),
        conditions=_CONDITIONS[service.spec.publish_not_ready_addresses, pod.ready, pod.terminating],
        hostname=spec.hostname if named else None,
        target_ref=ObjectReference(
            kind="Pod", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
        ),
        node_name=node,
        zone=zone,
        hints=_hints(service.spec.traffic_distribution, node, zone),
    )


@functools.cache
def _canonical(address: str) -> str:
    """An IPv6 address in its one canonical spelling (RFC 5952); a pod's status need not have it."""
    return str(ipaddress.ip_address(address))


_CONDITIONS = {
    (publish, ready, terminating): EndpointConditions(
        ready=publish or (ready and not terminating), serving=ready, terminating=terminating
    )
    for publish in (False, True)
    for ready in (False, True)
    for terminating in (False, True)
}


def _hints(distribution: str | None, node: str | None, zone: str | None) -> EndpointHints | None:
    """Traffic distribution (KEP-3015): each endpoint is meant for its own zone, or for its own node too."""
    if distribution in ("PreferClose", "PreferSameZone") and zone:
        return EndpointHints(for_zones=(ForZone(name=zone),))
    if distribution == "PreferSameNode" and zone and node:
        return EndpointHints(for_zones=(ForZone(name=zone),), for_nodes=(ForNode(name=node),))
    return None


def endpoint_ports(service: Service, pod: Pod) -> Ports:
    """The ports at which this pod serves the Service, without named target ports the pod does not have."""
    ports = []
    for port in service.spec.ports:
        number = target_port(port, pod)
        if number is not None:
            ports.append(
                EndpointPort(
                    name=port.name,
                    protocol=port.protocol or "TCP",
                    port=number,
                    app_protocol=port.app_protocol,
                )
            )
    return tuple(sorted(ports, key=_port_order)) if len(ports) > 1 else tuple(ports)


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """The number of a Service port's target on a pod (Kubernetes' `FindPort`)."""
    target = port.target_port
    if isinstance(target, int):
        return target
    if not target:
        return port.port
    protocol = port.protocol or "TCP"
    # Containers first, restartable init containers after them.
    sidecars = [item for item in pod.spec.init_containers if item.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for item in container.ports:
            if item.name == target and (item.protocol or "TCP") == protocol:
                return item.container_port
    return None


def _port_order(port: EndpointPort) -> tuple[str, str, int]:
    return (port.protocol or "", port.name or "", port.port or 0)
