"""EndpointSlices from Services and pods (kube-controller-manager's endpoint slice controller).

Source: `staging/src/k8s.io/endpointslice/{reconciler,utils}.go` and `pkg/controller/endpointslice`; checked against
recorded slices. The annotation `endpoints.kubernetes.io/last-change-trigger-time` is not modelled.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from kubenet_lab.control import topology, traffic_distribution
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.port_order import slice_port_order
from kubenet_lab.control.slice_plan import SlicePlan
from kubenet_lab.control.view import Context, Keyed, View, pods_of, services_of
from kubenet_lab.objects import (
    Endpoint,
    EndpointConditions,
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
)
from kubenet_lab.store import Key, Store

MAX_ENDPOINTS = 100
"""Endpoints in a slice (`--max-endpoints-per-slice`)."""

Ports = tuple[EndpointPort, ...]
_Identity = tuple[tuple[str, ...], str, str, str]

RESERVED_LABELS = (SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL)
"""Labels of a slice that are the controller's own, never the Service's."""


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Slices to create, change and delete, for the Services that something has changed for.

    A Service without selector, or of type ExternalName, keeps the slices it has: they are somebody else's, or
    left over.
    """
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    service = context.view.all("Service").get(key)
    if service is None or service.external or not service.spec.selector:
        return []  # What a deleted Service owned is the garbage collector's.
    existing = [item for item in context.view.slices_by_service.of(key) if managed(item)]
    return wished(context.store, service, pods_of(context.view, service), context.view.all("Node"), existing)


def wished(
    store: Store,
    service: Service,
    pods: Iterable[Pod],
    nodes: dict[Key, Node],
    existing: Iterable[EndpointSlice],
) -> list[Change]:
    """The changes from the slices a Service has (of this controller) to those it should have.

    Args:
        store: For names nobody has yet.
        nodes: All nodes. A pod whose node is not among them is left out unless `publishNotReadyAddresses`; where
            there are none at all (manifests without nodes) its node is taken to be there.
    """
    existing = [*existing]
    pods = [pod for pod in pods if pod.ips and not pod.finished]
    ready_nodes = None
    if topology.wanted(service.metadata.annotations):
        ready_nodes = topology.cpu_ratios(nodes.values())
    changes: list[Change] = []
    taken: list[str] = []
    families = families_of(service)
    if not families:
        return []  # It has not been given any yet.
    for family in families:
        have = [item for item in existing if item.address_type == family]
        changes += _family(store, service, family, pods, nodes, have, ready_nodes, taken)
    gone = [item for item in existing if item.address_type not in families]
    return changes + [
        Change("delete", item, f"the Service has no {item.address_type} any more") for item in gone
    ]


def _family(
    store: Store,
    service: Service,
    family: str,
    pods: list[Pod],
    nodes: dict[Key, Node],
    have: list[EndpointSlice],
    ratios: dict[str, float] | None,
    taken: list[str],
) -> list[Change]:
    mine = [item for item in have if _owned(item, service)]
    plan = SlicePlan(delete=[item for item in have if not _owned(item, service)])
    by_ports: dict[Ports, list[EndpointSlice]] = {}
    for item in mine:
        by_ports.setdefault(_in_order(item.ports), []).append(item)
    groups: dict[Ports, dict[_Identity, Endpoint]] = {}
    for pod in pods:
        group = groups.setdefault(endpoint_ports(service, pod), {})
        endpoint = _endpoint(service, pod, family, nodes)
        if endpoint is not None:
            group[_identity(endpoint)] = endpoint
    for ports, endpoints in groups.items():
        _pack(plan, service, family, ports, endpoints, by_ports.pop(ports, []))
    for left in by_ports.values():
        plan.delete += left
    if len(have) == len(plan.delete) and not plan.create:
        placeholder = _new(service, family, (), ())
        if len(plan.delete) == 1 and _is_placeholder(plan.delete[0], placeholder):
            plan.unchanged += plan.delete
            plan.delete = []
        else:
            plan.create.append(placeholder)
    if topology.wanted(service.metadata.annotations):
        populated = any(topology.hints_by_zone(mine).values())
        why = "; ".join(map(str, topology.add_hints(plan, ratios, family, populated)))
    else:
        traffic_distribution.add_hints(plan, service.spec.traffic_distribution)
        why = ""
    return [*_changes(store, service, plan, why, taken)]


def _pack(
    plan: SlicePlan,
    service: Service,
    family: str,
    ports: Ports,
    wanted: dict[_Identity, Endpoint],
    existing: list[EndpointSlice],
) -> None:
    """Bring the slices of one set of ports to hold exactly the wanted endpoints, writing as few slices as can be.

    Endpoints stay in their slices; new ones go where something is written anyway, then together into one slice that
    has room for them all, then into new slices.
    """
    changed: list[EndpointSlice] = []
    unchanged: list[EndpointSlice] = []
    for item in existing:
        kept, different = [], False
        for old in item.endpoints:
            new = wanted.pop(_identity(old), None)
            if new is not None:
                kept.append(new)
                different = different or replace(new, hints=old.hints) != old
        labels = slice_labels(service)
        if different or len(kept) != len(item.endpoints):
            if kept:
                changed.append(replace(item.with_metadata(labels=labels), endpoints=tuple(kept)))
            else:
                plan.delete.append(item)
        elif _plain(item.metadata.labels) != _plain(service.metadata.labels):
            changed.append(item.with_metadata(labels=labels))
        else:
            unchanged.append(item)
    left = [*wanted.values()]
    changed.sort(key=lambda item: -len(item.endpoints))
    for index, item in enumerate(changed):
        room = max(0, MAX_ENDPOINTS - len(item.endpoints))
        if left and room:
            changed[index] = replace(item, endpoints=(*item.endpoints, *left[:room]))
            left = left[room:]
    while left:
        filled = _with_room(unchanged, len(left)) if len(left) < MAX_ENDPOINTS else None
        if filled is not None:
            unchanged.remove(filled)
            changed.append(replace(filled, endpoints=(*filled.endpoints, *left)))
            break
        plan.create.append(_new(service, family, ports, tuple(left[:MAX_ENDPOINTS])))
        left = left[MAX_ENDPOINTS:]
    plan.update += changed
    plan.unchanged += unchanged


def _with_room(slices: list[EndpointSlice], count: int) -> EndpointSlice | None:
    """The slice that these endpoints fill best."""
    fitting = [item for item in slices if 0 < len(item.endpoints) + count <= MAX_ENDPOINTS]
    return max(fitting, key=lambda item: len(item.endpoints), default=None)


def _changes(store: Store, service: Service, plan: SlicePlan, why: str, taken: list[str]) -> Iterator[Change]:
    """The plan as changes. Rather than delete one slice and create another, the controller rewrites the first."""
    create, delete = [*plan.create], []
    for item in plan.delete:
        if create and _owned(item, service):
            new = create.pop()
            metadata = replace(item.metadata, labels=new.metadata.labels)
            yield Change("update", replace(new, metadata=metadata), why or _count(new, service))
        else:
            delete.append(item)
    if not service.metadata.deletion_timestamp:
        for item in create:
            prefix = item.metadata.generate_name
            name = store.generated_name("EndpointSlice", prefix, service.namespace, skip=taken)
            taken.append(name)
            yield Change("create", item.with_metadata(name=name), why or _count(item, service))
    for item in plan.update:
        yield Change("update", item, why or _count(item, service))
    for item in delete:
        yield Change("delete", item, "no endpoint is left for it")


def _count(item: EndpointSlice, service: Service) -> str:
    return f"{len(item.endpoints)} endpoints of {service.name}"


def managed(item: EndpointSlice) -> bool:
    """Whether a slice is this controller's."""
    return item.metadata.labels.get(MANAGED_BY_LABEL) == CONTROLLER_NAME


def _owned(item: EndpointSlice, service: Service) -> bool:
    """Whether the Service owns the slice; an owner without uid (a dump cut to pieces) is known by its name."""
    return any(
        owner.kind == "Service"
        and owner.api_version == "v1"
        and (owner.uid == service.metadata.uid or (not owner.uid and owner.name == service.name))
        for owner in item.metadata.owner_references
    )


def _is_placeholder(item: EndpointSlice, placeholder: EndpointSlice) -> bool:
    bare = replace(item, metadata=replace(placeholder.metadata, labels=item.metadata.labels))
    return bare == placeholder and item.metadata.labels == placeholder.metadata.labels


def families_of(service: Service) -> tuple[str, ...]:
    """The address families a Service has slices of; before it was given any, what its addresses say."""
    if service.spec.ip_families:
        return service.spec.ip_families
    if service.addresses:
        return ("IPv6",) if ":" in service.addresses[0] else ("IPv4",)
    return ("IPv4", "IPv6") if service.headless else ()


def _new(service: Service, family: str, ports: Ports, endpoints: tuple[Endpoint, ...]) -> EndpointSlice:
    metadata = ObjectMeta(
        generate_name=f"{service.name}-",
        namespace=service.namespace,
        labels=slice_labels(service),
        owner_references=owned_by(service),
    )
    return EndpointSlice(metadata=metadata, address_type=family, endpoints=endpoints, ports=ports)


def slice_labels(service: Service) -> dict[str, str]:
    """The Service's own labels, and those the controller sets."""
    labels = _plain(service.metadata.labels)
    if service.spec.cluster_ip in ("", "None"):
        labels[HEADLESS_LABEL] = ""
    labels[SERVICE_NAME_LABEL] = service.name
    labels[MANAGED_BY_LABEL] = CONTROLLER_NAME
    return labels


def _plain(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in RESERVED_LABELS}


def _endpoint(service: Service, pod: Pod, family: str, nodes: dict[Key, Node]) -> Endpoint | None:
    """The pod as an endpoint of one family; None when it has no address of it, or its node is not there."""
    address = next((ip for ip in pod.ips if (":" in ip) == (family == "IPv6")), None)
    if address is None:
        return None
    node = nodes.get(("", pod.spec.node_name))
    if node is None and nodes and not service.spec.publish_not_ready_addresses:
        return None
    spec, metadata = pod.spec, pod.metadata
    return Endpoint(
        addresses=(canonical(address) if family == "IPv6" else address,),
        conditions=_CONDITIONS[service.spec.publish_not_ready_addresses, pod.ready, pod.terminating],
        hostname=spec.hostname if names(service, pod) else None,
        target_ref=ObjectReference(
            kind="Pod", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid
        ),
        node_name=spec.node_name or None,
        zone=(node.zone or None) if node is not None else None,
    )


def names(service: Service, pod: Pod) -> bool:
    """Whether the Service gives the pod a name of its own: `hostname`, with the Service's name as `subdomain`."""
    return bool(pod.spec.hostname) and pod.spec.subdomain == service.name


def _identity(endpoint: Endpoint) -> _Identity:
    """What makes two endpoints the same one, whatever their conditions: addresses, hostname and pod."""
    target = endpoint.target_ref
    return (
        tuple(sorted(endpoint.addresses)),
        endpoint.hostname or "",
        target.namespace if target is not None else "",
        target.name if target is not None else "",
    )


@functools.lru_cache(maxsize=1 << 16)
def canonical(address: str) -> str:
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
    return _in_order(tuple(ports))


def _in_order(ports: Ports) -> Ports:
    return tuple(sorted(ports, key=slice_port_order)) if len(ports) > 1 else ports


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """The number of a Service port's target on a pod (Kubernetes' `FindPort`).

    A number is taken as it is. A name must be that of a container port of the same protocol: of a container, or else
    of a sidecar (a restartable init container).
    """
    target = port.target_port
    if isinstance(target, int):
        return target
    if target is None:
        return port.port
    sidecars = [item for item in pod.spec.init_containers if item.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for item in container.ports:
            if item.name == target and item.protocol == port.protocol:
                return item.container_port
    return None


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    if old is not None and new is not None and _looks_same(old, new):
        return
    for pod in (old, new):
        if pod is not None:
            yield from ((service.namespace, service.name) for service in services_of(view, pod))


def _looks_same(old: Pod, new: Pod) -> bool:
    """Whether a pod's endpoint, and the Services that mean it, are as before."""
    return (
        old.status == new.status
        and old.spec == new.spec
        and old.metadata.labels == new.metadata.labels
        and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
    )


def _of_service(view: View, old: Service | None, new: Service | None) -> Iterator[Key]:
    if new is not None:
        yield (new.namespace, new.name)


def _of_slice(view: View, old: EndpointSlice | None, new: EndpointSlice | None) -> Iterator[Key]:
    for item in (old, new):
        if item is not None and item.service_name:
            yield (item.namespace, item.service_name)


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    node = new or old
    assert node is not None
    if old is None or new is None or old.zone != new.zone:
        for pod in view.pods_by_node.of(node.name):
            yield from ((service.namespace, service.name) for service in services_of(view, pod))
    if old is None or new is None or old.status != new.status or old.metadata.labels != new.metadata.labels:
        yield from _unbalanced(view)


def _unbalanced(view: View) -> Iterator[Key]:
    """The Services with topology hints that the nodes' CPUs no longer bear out."""
    asking = [item for item in view.all("Service").values() if topology.wanted(item.metadata.annotations)]
    if not asking:
        return
    ratios = topology.cpu_ratios(view.all("Node").values())
    for service in asking:
        key = (service.namespace, service.name)
        if topology.overloaded(
            topology.hints_by_zone(filter(managed, view.slices_by_service.of(key))), ratios
        ):
            yield key


_LOOP = Keyed(
    ("Service",),
    {"Pod": _of_pod, "Service": _of_service, "EndpointSlice": _of_slice, "Node": _of_node},
    _sync,
)
