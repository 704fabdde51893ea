"""The EndpointSlices that the controllers would write for a set of objects, without a world around them."""

from __future__ import annotations

from collections.abc import Iterable

from kubenet_lab.control import endpointslice, mirroring, service_ip
from kubenet_lab.control.loop import Settings, apply
from kubenet_lab.objects import AnyObject, EndpointSlice, Node, ObjectMeta, Pod, Service, with_defaults
from kubenet_lab.objects.endpoints import Endpoints
from kubenet_lab.store import Key, Store

ZONE = "topology.kubernetes.io/zone"
_Pair = tuple[str, str, str]


def slices_of(
    objects: Iterable[AnyObject], settings: Settings | None = None, seed: int = 0
) -> list[EndpointSlice]:
    """The slices there are once the controllers have seen these objects: `kubectl get endpointslices -A`.

    Pods are taken as they stand: one without an address is in no slice. Slices among the objects are kept, corrected
    or deleted as the controllers would. Where there is no Node at all, each pod's node is taken to be there, in the
    zone that the pod's own labels say (the API server copies them from the node when the pod is bound).

    Args:
        objects: A dump or manifests; kinds that play no part are ignored.
        settings: For the families and addresses of Services that have none yet.
        seed: Decides the names of new slices.

    Raises:
        Invalid: A Service asks for what it cannot have.
    """
    settings = settings or Settings()
    store = Store(seed)
    pods: list[Pod] = []
    for obj in objects:
        if isinstance(obj, Pod):
            pods.append(obj)
        elif isinstance(obj, Node | Service | Endpoints | EndpointSlice):
            store.create(obj)
    apply(store, service_ip.reconcile(store, settings))
    services = [item for item in store.list(Service) if item.spec.selector and not item.external]
    nodes: dict[Key, Node] = {("", node.name): node for node in store.list(Node)} or _nodes_of(pods)
    existing: dict[Key, list[EndpointSlice]] = {}
    for item in filter(endpointslice.managed, store.list(EndpointSlice)):
        existing.setdefault((item.namespace, item.service_name), []).append(item)
    meant = _pods_of(services, pods)
    for service in services:
        key = (service.namespace, service.name)
        apply(store, endpointslice.wished(store, service, meant[key], nodes, existing.get(key, ())))
    apply(store, mirroring.reconcile(store, settings))
    return store.list(EndpointSlice)


def _nodes_of(pods: Iterable[Pod]) -> dict[Key, Node]:
    """The nodes that pods run on, as far as the pods tell (KEP-4742); none where no pod has a zone."""
    found: dict[Key, Node] = {}
    zoned = False
    for pod in pods:
        key = ("", pod.spec.node_name)
        zone = pod.metadata.labels.get(ZONE, "")
        if key not in found or (zone and not found[key].metadata.labels):
            labels = {ZONE: zone} if zone else {}
            found[key] = Node(metadata=ObjectMeta(name=pod.spec.node_name, labels=labels))
            zoned = zoned or bool(zone)
    return found if zoned else {}


def _pods_of(services: Iterable[Service], pods: Iterable[Pod]) -> dict[Key, list[Pod]]:
    """The pods that each Service's selector means; each pod is only held against Services it shares a label with."""
    by_pair: dict[_Pair, list[Service]] = {}
    found: dict[Key, list[Pod]] = {}
    for service in services:
        found[service.namespace, service.name] = []
        by_pair.setdefault((service.namespace, *min(service.spec.selector.items())), []).append(service)
    for pod in pods:
        labels, namespace = pod.metadata.labels, pod.metadata.namespace or "default"
        filled: Pod | None = None
        for pair in labels.items():
            for service in by_pair.get((namespace, *pair), ()):
                if service.spec.selector.items() <= labels.items():
                    filled = filled or _filled(pod, namespace)
                    found[namespace, service.name].append(filled)
    return found


def _filled(pod: Pod, namespace: str) -> Pod:
    """The pod with what the API server fills in, as far as slices show it."""
    if not pod.metadata.namespace:
        pod = pod.with_metadata(namespace=namespace)
    whole = all(port.protocol for container in pod.serving_containers for port in container.ports)
    return pod if whole else with_defaults(pod)
