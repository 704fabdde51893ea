"""Endpoints objects from Services and pods (kube-controller-manager's endpoints controller).

The older form of EndpointSlices: one object a Service, one family, at most 1,000 addresses. kube-proxy and CoreDNS no
longer read it. Source: `pkg/controller/endpoint/endpoints_controller.go`, `pkg/api/v1/endpoints/util.go`; checked
against recorded objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from kubenet_lab.control.endpointslice import canonical, families_of, names, target_port
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.port_order import endpoints_port_order
from kubenet_lab.control.view import Context, Keyed, View, own_key, pods_of, services_of
from kubenet_lab.objects import ObjectMeta, ObjectReference, Pod, Service
from kubenet_lab.objects.endpoints import EndpointAddress, Endpoints, EndpointsPort, EndpointSubset
from kubenet_lab.objects.endpointslice import HEADLESS_LABEL
from kubenet_lab.store import Key, Store

MAX_ADDRESSES = 1000
"""Addresses in an Endpoints object; with more it is cut, and says so."""
MANAGED_BY_LABEL = "endpoints.kubernetes.io/managed-by"
CONTROLLER_NAME = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"

_Marked = dict[EndpointAddress, bool]
"""Addresses, and whether each is ready."""


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """The Endpoints objects to create, change and delete, for the Services that something has changed for."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    view = context.view
    service: Service | None = view.all("Service").get(key)
    current: Endpoints | None = view.all("Endpoints").get(key)
    if service is None:
        if current is None or current.metadata.labels.get(MANAGED_BY_LABEL) != CONTROLLER_NAME:
            return []
        return [Change("delete", current, "its Service is gone")]
    if service.external or not service.spec.selector or not families_of(service):
        return []
    subsets, cut = _cut(subsets_of(service, pods_of(view, service)))
    labels = {name: value for name, value in service.metadata.labels.items() if name != HEADLESS_LABEL}
    labels[MANAGED_BY_LABEL] = CONTROLLER_NAME
    if service.spec.cluster_ip in ("", "None"):
        labels[HEADLESS_LABEL] = ""
    annotations = {} if current is None else dict(current.metadata.annotations)
    annotations.pop(OVER_CAPACITY, None)
    if cut:
        annotations[OVER_CAPACITY] = "truncated"
    if current is None:
        if service.metadata.deletion_timestamp:
            return []
        metadata = ObjectMeta(
            name=service.name, namespace=service.namespace, labels=labels, annotations=annotations
        )
        return [Change("create", Endpoints(metadata=metadata, subsets=subsets), "the Service has none")]
    new = replace(current.with_metadata(labels=labels, annotations=annotations), subsets=subsets)
    return [] if new == current else [Change("update", new, "the pods of the Service changed")]


def subsets_of(service: Service, pods: Iterable[Pod]) -> tuple[EndpointSubset, ...]:
    """The addresses of a Service's pods, packed: those that share their ports stand together.

    Only addresses of the Service's first family. A pod that is being deleted is left out unless
    `publishNotReadyAddresses`.
    """
    family = (families_of(service) or ("IPv4",))[0]
    publish = service.spec.publish_not_ready_addresses
    by_port: dict[EndpointsPort | None, _Marked] = {}
    for pod in pods:
        if pod.finished or (pod.terminating and not publish):
            continue
        ip = next((ip for ip in pod.ips if (":" in ip) == (family == "IPv6")), None)
        if ip is None:
            continue
        address = _address(service, pod, ip)
        ready = publish or pod.ready
        if not service.spec.ports and service.headless:
            by_port.setdefault(None, {})[address] = ready
        for port in service.spec.ports:
            number = target_port(port, pod)
            if number is not None:
                found = EndpointsPort(
                    name=port.name,
                    port=number,
                    protocol=port.protocol or "TCP",
                    app_protocol=port.app_protocol,
                )
                marked = by_port.setdefault(found, {})
                marked[address] = marked.get(address, True) and ready
    together: dict[frozenset[tuple[EndpointAddress, bool]], list[EndpointsPort]] = {}
    for port_found, marked in by_port.items():
        ports = together.setdefault(frozenset(marked.items()), [])
        if port_found is not None:
            ports.append(port_found)
    subsets = [
        EndpointSubset(
            addresses=_sorted(address for address, ready in marked_set if ready),
            not_ready_addresses=_sorted(address for address, ready in marked_set if not ready),
            ports=tuple(sorted(ports, key=endpoints_port_order)),
        )
        for marked_set, ports in together.items()
    ]
    # Kubernetes sorts by a hash in which the pods' random uids take part; any fixed order is as good.
    return tuple(sorted(subsets, key=lambda subset: [endpoints_port_order(port) for port in subset.ports]))


def _address(service: Service, pod: Pod, ip: str) -> EndpointAddress:
    metadata = pod.metadata
    return EndpointAddress(
        ip=canonical(ip) if ":" in ip else ip,
        hostname=pod.spec.hostname if names(service, pod) else "",
        node_name=pod.spec.node_name or None,
        target_ref=ObjectReference(
            kind="Pod", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
        ),
    )


def _sorted(addresses: Iterable[EndpointAddress]) -> tuple[EndpointAddress, ...]:
    def order(address: EndpointAddress) -> tuple[str, str]:
        return (address.ip, address.target_ref.uid if address.target_ref is not None else "")

    return tuple(sorted(addresses, key=order))


def _cut(subsets: tuple[EndpointSubset, ...]) -> tuple[tuple[EndpointSubset, ...], bool]:
    """At most 1,000 addresses: not ready ones go first, and each subset gives up the same share."""
    ready = sum(len(subset.addresses) for subset in subsets)
    unready = sum(len(subset.not_ready_addresses) for subset in subsets)
    if ready + unready <= MAX_ADDRESSES:
        return subsets, False
    only_ready = ready > MAX_ADDRESSES
    total, room = (ready, MAX_ADDRESSES) if only_ready else (unready, MAX_ADDRESSES - ready)
    left = room
    cut = []
    for subset in subsets:
        count = len(subset.addresses if only_ready else subset.not_ready_addresses)
        # Rounded up, so that the shares never leave room that nobody uses.
        share = min(left, -(-count * room // total))
        left -= share
        if only_ready:
            cut.append(replace(subset, addresses=subset.addresses[:share], not_ready_addresses=()))
        else:
            cut.append(replace(subset, not_ready_addresses=subset.not_ready_addresses[:share]))
    return tuple(cut), True


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    for pod in (old, new):
        if pod is not None:
            yield from ((service.namespace, service.name) for service in services_of(view, pod))


_LOOP = Keyed(("Service", "Endpoints"), {"Pod": _of_pod, "Service": own_key, "Endpoints": own_key}, _sync)
