"""Services and slices that contradict each other: what kube-proxy makes of them, and what was probably meant.

Nothing here is refused by an API server that sees one object at a time, and kube-proxy does not complain: it makes
rules of what it has. So each warning says what these rules do to callers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from kubenet_lab.objects import AnyObject, EndpointSlice, Node, Pod, Service
from kubenet_lab.objects.endpointslice import SERVICE_NAME_LABEL
from kubenet_lab.objects.service import ServicePort

PROXY_NAME = "service.kubernetes.io/service-proxy-name"
"""The label of Services that another proxy than kube-proxy serves."""

MANY_PORTS = 100
"""Ports of one Service from which on it is said what they cost."""

Named = tuple[str, str]
"""(namespace, name)."""


class Contradiction(Struct, frozen=True):
    """Something in a set of objects that works otherwise than was probably meant.

    Attributes:
        object: Whose field it is, and `other` the object it collides with, if there is one.
        field: In API server syntax: "spec.ports[0].nodePort".
        message: What is the matter, and what kube-proxy makes of it.
        help: What was probably meant, in one line.
    """

    object: AnyObject
    field: str
    message: str
    help: str = ""
    other: AnyObject | None = None

    def __str__(self) -> str:
        one = self.object
        place = f"{one.namespace}/" if one.namespace else ""
        text = f"{one.kind} {place}{one.name}: {self.field}: {self.message}"
        return f"{text}\n    help: {self.help}" if self.help else text


def contradictions(objects: Iterable[AnyObject]) -> list[Contradiction]:
    """Return what contradicts what among some objects, Services in the order given, then slices."""
    world = _World([*objects])
    found: list[Contradiction] = []
    for service in world.services.values():
        found += _selection(world, service)
        found += _ports(world, service)
    found += _taken(world)
    for item in world.slices:
        found += _slice(world, item)
    return found


class _World:
    """The objects, by what is asked of them."""

    def __init__(self, objects: list[AnyObject]) -> None:
        self.services = {_key(o): o for o in objects if isinstance(o, Service)}
        self.slices = [o for o in objects if isinstance(o, EndpointSlice)]
        self.nodes = {o.name for o in objects if isinstance(o, Node)}
        self.of: dict[Named, list[EndpointSlice]] = {}
        for item in self.slices:
            if item.service_name:
                self.of.setdefault((_namespace(item), item.service_name), []).append(item)
        self.endpoints = {_key(o) for o in objects if o.kind == "Endpoints"}
        self.pods: dict[str, list[_Pods]] = {}
        self._with: dict[tuple[str, str, str], set[int]] = {}
        for one in filter(None, map(_pods_of, objects)):
            mine = self.pods.setdefault(one.namespace, [])
            for key, value in one.labels.items():
                self._with.setdefault((one.namespace, key, value), set()).add(len(mine))
            mine.append(one)

    def selected(self, service: Service) -> list[_Pods]:
        """Pods, and workloads that would make pods, that a Service's selector means."""
        place = _namespace(service)
        sets = [self._with.get((place, key, value), set()) for key, value in service.spec.selector.items()]
        numbers = set.intersection(*sets) if sets else set()
        return [self.pods[place][number] for number in sorted(numbers)]


class _Pods(Struct, frozen=True):
    """A pod, or the pods of a workload: their labels and the names of their ports by protocol."""

    namespace: str
    called: str
    labels: Mapping[str, str]
    ports: frozenset[tuple[str, str]]


def _namespace(obj: AnyObject) -> str:
    return obj.namespace or "default"


def _key(obj: AnyObject) -> Named:
    return (_namespace(obj), obj.name)


def _pods_of(obj: AnyObject) -> _Pods | None:
    if isinstance(obj, Pod):
        named = frozenset(
            (p.name, p.protocol or "TCP") for c in obj.spec.containers for p in c.ports if p.name
        )
        return _Pods(_namespace(obj), f"pod {obj.name}", obj.metadata.labels, named)
    if obj.kind not in (
        "Deployment",
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "ReplicationController",
    ):
        return None
    template: Any = (obj.to_manifest().get("spec") or {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    containers = (template.get("spec") or {}).get("containers") or ()
    ports = [port for container in containers for port in container.get("ports") or ()]
    named = frozenset((p["name"], p.get("protocol") or "TCP") for p in ports if p.get("name"))
    return _Pods(_namespace(obj), f"{obj.kind} {obj.name}", labels, named)


def _proxied(service: Service) -> bool:
    """Whether kube-proxy makes rules for it."""
    return not service.headless and not service.external and PROXY_NAME not in service.metadata.labels


def _near(word: str, known: Iterable[str]) -> str:
    words = sorted({one for one in known if one})
    close = get_close_matches(word, words, 1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are: {', '.join(map(repr, words[:6]))}" if words else ""


# -- one Service ----------------------------------------------------------------------------------------------------


def _selection(world: _World, service: Service) -> Iterator[Contradiction]:
    if service.external:
        return
    known = world.of.get(_key(service), [])
    refused = "every call is refused" if not service.headless else "its name has no addresses"
    if not service.spec.selector:
        if not known and _key(service) not in world.endpoints and _key(service) != ("default", "kubernetes"):
            yield Contradiction(
                service, "spec.selector", f"it has no selector, and no EndpointSlice names it: {refused}",
                "add a selector, or an EndpointSlice with the label "
                f"{SERVICE_NAME_LABEL}: {service.name}",
            )  # fmt: skip
        return
    here = world.pods.get(_namespace(service), [])
    chosen = world.selected(service)
    if not chosen:
        if here and not known:
            yield Contradiction(
                service, "spec.selector", f"it selects none of the pods of its namespace: {refused}",
                _near_labels(service.spec.selector, here),
            )  # fmt: skip
        return
    for number, port in enumerate(service.spec.ports):
        if not isinstance(port.target_port, str) or port.target_port.isdecimal():
            continue
        wanted = (port.target_port, port.protocol or "TCP")
        if not any(wanted in one.ports for one in chosen):
            others = {name for one in chosen for name, protocol in one.ports if protocol == wanted[1]}
            yield Contradiction(
                service, f"spec.ports[{number}].targetPort",
                f"{chosen[0].called} and whatever else it selects has no {wanted[1]} port named "
                f"{port.target_port!r}: this port has no endpoints, and calls are refused",
                _near(port.target_port, others) or "give the container's port that name, or write its number",
            )  # fmt: skip


def _near_labels(selector: Mapping[str, str], here: list[_Pods]) -> str:
    """The labels of the pods that agree with most of the selector."""
    best = max(here, key=lambda one: sum(one.labels.get(k) == v for k, v in selector.items()))
    wrong = [key for key, value in selector.items() if best.labels.get(key) != value]
    shown = ", ".join(f"{key}: {best.labels[key]}" for key in wrong if key in best.labels)
    if shown:
        return f"{best.called} has {shown}"
    labels = ", ".join(f"{key}: {value}" for key, value in sorted(best.labels.items())[:4])
    return f"{best.called} has {labels or 'no labels'}"


def _ports(world: _World, service: Service) -> Iterator[Contradiction]:
    count = len(service.spec.ports)
    if count >= MANY_PORTS and _proxied(service):
        yield Contradiction(
            service, "spec.ports",
            f"{count} ports: kube-proxy makes rules for each of them on every node, and again for each endpoint",
            "a Service has no ranges of ports; a headless one needs none, and an address of its own can be had "
            "by other means (a LoadBalancer that passes all ports, hostNetwork)",
        )  # fmt: skip
    slices = [one for one in world.of.get(_key(service), []) if one.endpoints]
    offered = {(port.name or "", port.protocol or "TCP") for one in slices for port in one.ports}
    if not _proxied(service) or not slices:
        return
    for number, port in enumerate(service.spec.ports):
        wanted = (port.name, port.protocol or "TCP")
        if wanted in offered:
            continue
        yield Contradiction(
            service, f"spec.ports[{number}].name",
            f"no EndpointSlice of it has a {wanted[1]} port named {port.name!r}: this port has no endpoints, "
            "and calls are refused",
            _port_meant(port, offered), slices[0],
        )  # fmt: skip


def _port_meant(port: ServicePort, offered: set[tuple[str, str]]) -> str:
    other = sorted(protocol for name, protocol in offered if name == port.name)
    if other:
        return f"the slices have {port.name!r} with protocol {other[0]}"
    if offered == {("", port.protocol or "TCP")}:
        return "the slices' port has no name: names must be equal, and may be left out where there is one port only"
    return (
        _near(port.name, (name for name, _ in offered)) or "names must be equal in the Service and its slices"
    )


# -- two of them ----------------------------------------------------------------------------------------------------


def _taken(world: _World) -> Iterator[Contradiction]:
    """Addresses and node ports that two Services claim."""
    first: dict[tuple[str, int, str], tuple[Service, str]] = {}
    for service in world.services.values():
        if not _proxied(service):
            continue
        for claim, path, what in _claims(service):
            owner, owned = first.setdefault(claim, (service, path))
            if owner is service and owned == path:
                continue
            same = "this Service" if owner is service else f"Service {_namespace(owner)}/{owner.name}"
            yield Contradiction(
                service, path,
                f"{what} is claimed by {same} too ({owned}): in iptables mode the rule that happens to be "
                "written first takes all calls, in nftables mode each sync gives them to the other",
                "give one of them another port or address; node ports are best left out, so that they are drawn",
                owner,
            )  # fmt: skip


def _claims(service: Service) -> Iterator[tuple[tuple[str, int, str], str, str]]:
    """(what is claimed, field, in words): address "" for node ports, which answer on every address of the node."""
    spec = service.spec
    for number, port in enumerate(spec.ports):
        protocol, path = port.protocol or "TCP", f"spec.ports[{number}]"
        if port.node_port:
            yield ("", port.node_port, protocol), f"{path}.nodePort", f"node port {port.node_port}/{protocol}"
        for index, address in enumerate(dict.fromkeys(spec.external_ips)):
            where = f"spec.externalIPs[{index}]"
            yield (address, port.port, protocol), where, f"{address}:{port.port}/{protocol}"
        for index, address in enumerate(service.addresses):
            where = f"spec.clusterIPs[{index}]" if spec.cluster_ips else "spec.clusterIP"
            yield (address, port.port, protocol), where, f"{address}:{port.port}/{protocol}"
    if spec.health_check_node_port:
        port_number = spec.health_check_node_port
        yield ("", port_number, "TCP"), "spec.healthCheckNodePort", f"node port {port_number}/TCP"


# -- one slice ------------------------------------------------------------------------------------------------------


def _slice(world: _World, item: EndpointSlice) -> Iterator[Contradiction]:
    name = item.service_name
    label = f"metadata.labels[{SERVICE_NAME_LABEL}]"
    if not name:
        yield Contradiction(
            item, "metadata.labels", "it belongs to no Service: kube-proxy passes it over",
            f"add the label {SERVICE_NAME_LABEL}: NAME",
        )  # fmt: skip
        return
    service = world.services.get((_namespace(item), name))
    if service is None:
        elsewhere = [place for place, other in world.services if other == name]
        here = [other for place, other in world.services if place == _namespace(item)]
        meant = f"there is one in namespace {elsewhere[0]}" if elsewhere else _near(name, here)
        if world.services:
            yield Contradiction(
                item, label, f"there is no Service {_namespace(item)}/{name}: nothing leads to these endpoints",
                meant,
            )  # fmt: skip
        return
    yield from _families(item, service)
    local = "Local" in (service.spec.external_traffic_policy, service.spec.internal_traffic_policy)
    for number, endpoint in enumerate(item.endpoints):
        path = f"endpoints[{number}].nodeName"
        if endpoint.node_name and world.nodes and endpoint.node_name not in world.nodes:
            yield Contradiction(
                item, path,
                f"there is no Node {endpoint.node_name!r}: every kube-proxy takes the endpoint for another node's",
                _near(endpoint.node_name, world.nodes),
            )  # fmt: skip
        elif not endpoint.node_name and local and not service.headless:
            yield Contradiction(
                item, f"endpoints[{number}]",
                "it has no nodeName, and its Service has a traffic policy Local: no node takes it for its own",
                "write nodeName",
                service,
            )  # fmt: skip


def _families(item: EndpointSlice, service: Service) -> Iterator[Contradiction]:
    if item.address_type not in ("IPv4", "IPv6"):
        yield Contradiction(
            item, "addressType", f"kube-proxy passes over slices of type {item.address_type}",
            "write addresses; a name elsewhere is a Service of type ExternalName",
        )  # fmt: skip
        return
    wanted = 6 if item.address_type == "IPv6" else 4
    given = {6 if ":" in address else 4 for address in service.addresses}
    if given and wanted not in given:
        has = "IPv4" if given == {4} else "IPv6"
        yield Contradiction(
            item, "addressType",
            f"its Service has {has} addresses only, and kube-proxy never translates from one family into the other: "
            "nothing leads to these endpoints",
            "set ipFamilyPolicy: PreferDualStack in the Service, or write a slice of its family", service,
        )  # fmt: skip
