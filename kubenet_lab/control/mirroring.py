"""EndpointSlices for Endpoints that people wrote (kube-controller-manager's endpoint slice mirroring controller).

An Endpoints object is mirrored when a Service of its name has no selector.
Source: `pkg/controller/endpointslicemirroring`;
https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.port_order import slice_port_order
from kubenet_lab.control.view import Context, Keyed, View, own_key
from kubenet_lab.objects import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    ObjectMeta,
    owned_by,
)
from kubenet_lab.objects.endpoints import EndpointAddress, Endpoints
from kubenet_lab.objects.endpointslice import MANAGED_BY_LABEL, SERVICE_NAME_LABEL
from kubenet_lab.store import Key, Store

CONTROLLER_NAME = "endpointslicemirroring-controller.k8s.io"
MAX_ENDPOINTS = 1000
"""Addresses mirrored of one subset (`--mirroring-max-endpoints-per-subset`)."""
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"

_NOT_COPIED = (
    "endpoints.kubernetes.io/last-change-trigger-time",
    "kubectl.kubernetes.io/last-applied-configuration",
)
_Group = tuple[str, tuple[EndpointPort, ...]]


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Mirrored slices to create, change and delete, for the Endpoints that something has changed for."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    view = context.view
    existing = [item for item in view.slices_by_service.of(key) if _managed(item)]
    endpoints: Endpoints | None = view.all("Endpoints").get(key)
    service = view.all("Service").get(key)
    if endpoints is None or service is None or service.spec.selector or not mirrored(endpoints):
        return [Change("delete", item, "there is nothing to mirror") for item in existing]
    changes: list[Change] = []
    taken: list[str] = []
    free = [*existing]
    unmatched: list[EndpointSlice] = []
    for (family, ports), wanted in _groups(endpoints).items():
        new = _slice(endpoints, family, ports, wanted)
        old = next(
            (item for item in free if (item.address_type, _in_order(item.ports)) == (family, ports)), None
        )
        if old is None:
            unmatched.append(new)
            continue
        free.remove(old)
        changes += _rewrite(old, new)
    for new in unmatched:
        old = next((item for item in free if item.address_type == new.address_type), None)
        if old is not None:
            free.remove(old)
            changes += _rewrite(old, new)
        elif not endpoints.metadata.deletion_timestamp:
            name = context.store.generated_name(
                "EndpointSlice", f"{endpoints.name}-", endpoints.namespace, skip=taken
            )
            taken.append(name)
            changes.append(
                Change("create", new.with_metadata(name=name), f"mirrors Endpoints {endpoints.name}")
            )
    return changes + [Change("delete", item, "its addresses are gone") for item in free]


def mirrored(endpoints: Endpoints) -> bool:
    """Whether an Endpoints object is one to mirror, as far as it says itself."""
    metadata = endpoints.metadata
    return metadata.labels.get(SKIP_LABEL) != "true" and LEADER_ANNOTATION not in metadata.annotations


def _groups(endpoints: Endpoints) -> dict[_Group, tuple[Endpoint, ...]]:
    """The endpoints of each family and set of ports; what is no IP address is left out."""
    groups: dict[_Group, dict[object, Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = _in_order(
            tuple(
                EndpointPort(
                    name=port.name,
                    protocol=port.protocol or "TCP",
                    port=port.port,
                    app_protocol=port.app_protocol,
                )
                for port in subset.ports
            )
        )
        room = MAX_ENDPOINTS
        for addresses, ready in ((subset.addresses, True), (subset.not_ready_addresses, False)):
            for address in addresses:
                endpoint = _endpoint(address, ready)
                if endpoint is None or not room:
                    continue
                room -= 1
                family = "IPv6" if ":" in endpoint.addresses[0] else "IPv4"
                target = endpoint.target_ref
                pod = (target.namespace, target.name) if target is not None else None
                groups.setdefault((family, ports), {})[endpoint.addresses, endpoint.hostname, pod] = endpoint
    return {group: tuple(found.values())[:MAX_ENDPOINTS] for group, found in groups.items()}


def _in_order(ports: tuple[EndpointPort, ...]) -> tuple[EndpointPort, ...]:
    return tuple(sorted(ports, key=slice_port_order))


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint | None:
    try:
        ip = ipaddress.ip_address(address.ip)
    except ValueError:
        return None
    mapped = getattr(ip, "ipv4_mapped", None)
    return Endpoint(
        addresses=(str(mapped or ip),),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def _slice(
    endpoints: Endpoints, family: str, ports: tuple[EndpointPort, ...], wanted: tuple[Endpoint, ...]
) -> EndpointSlice:
    metadata = ObjectMeta(
        generate_name=f"{endpoints.name}-",
        namespace=endpoints.namespace,
        labels={
            **endpoints.metadata.labels,
            SERVICE_NAME_LABEL: endpoints.name,
            MANAGED_BY_LABEL: CONTROLLER_NAME,
        },
        annotations={
            key: text for key, text in endpoints.metadata.annotations.items() if key not in _NOT_COPIED
        },
        owner_references=owned_by(endpoints),
    )
    return EndpointSlice(metadata=metadata, address_type=family, endpoints=wanted, ports=ports)


def _rewrite(old: EndpointSlice, new: EndpointSlice) -> list[Change]:
    metadata = replace(old.metadata, labels=new.metadata.labels, annotations=new.metadata.annotations)
    wished = replace(new, metadata=metadata, ports=new.ports)
    return [] if wished == old else [Change("update", wished, "its Endpoints changed")]


def _managed(item: EndpointSlice) -> bool:
    return item.metadata.labels.get(MANAGED_BY_LABEL) == CONTROLLER_NAME


def _of_slice(view: View, old: EndpointSlice | None, new: EndpointSlice | None) -> Iterator[Key]:
    for item in (old, new):
        if item is not None and item.service_name and _managed(item):
            yield (item.namespace, item.service_name)


_LOOP = Keyed(
    ("Endpoints", "EndpointSlice"),
    {"Endpoints": own_key, "Service": own_key, "EndpointSlice": _of_slice},
    _sync,
)
