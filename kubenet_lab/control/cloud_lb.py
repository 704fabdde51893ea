"""A small cloud's service controller: addresses for Services of type LoadBalancer (cloud-controller-manager's part).

What it takes on, when it adds and removes its finalizer, and which nodes it hands to the cloud are those of the
service controller in k8s.io/cloud-provider (`controllers/service/controller.go`, KEP-3458). What a cloud does with
them - its load balancer machine, its health checks - is `cloud_lb_machine`.
https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.control.loop import Change
from kubenet_lab.objects import Node, Service
from kubenet_lab.objects.meta import Json
from kubenet_lab.store import Key, Store

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
HOSTNAME_ANNOTATIONS = (
    "loadbalancer.openstack.org/hostname",
    "service.beta.kubernetes.io/do-loadbalancer-hostname",
)
"""What users of two clouds write so that the status names a host and no address (the way before `ipMode` was there)."""
VIP, PROXY = "VIP", "Proxy"


class CloudSettings(Struct, frozen=True):
    """What this cloud is like.

    The health check's numbers are those that Google's cloud provider sets (`gceHcCheckIntervalSeconds` and its
    siblings): every 8 s, out after three failures, back after one success.

    Attributes:
        pool: Where addresses come from, prefixes of either family.
        ip_mode: "VIP": packets arrive at nodes as they were sent. "Proxy": the load balancer ends the client's
            connection and opens one of its own to a node port (KEP-1860).
        domain: Where set, a Service is told a host name in it and no address, as AWS does.
        interval: Seconds between two health checks of a node.
        unhealthy: Failures in a row after which a node is taken out.
        healthy: Successes in a row after which it is back.
    """

    pool: tuple[str, ...] = ("198.51.100.0/24", "2001:db8:51::/112")
    ip_mode: str = VIP
    domain: str = ""
    interval: float = 8.0
    unhealthy: int = 3
    healthy: int = 1


def handles(service: Service) -> bool:
    """Whether the cloud's controller serves a Service: type LoadBalancer, and no class that somebody else serves."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class is None


def target_nodes(nodes: Iterable[Node]) -> list[Node]:
    """The nodes a load balancer is given: none that is going, or labelled or tainted out of it.

    Whether a node is Ready is not asked (since 1.30, KEP-3458): the health check says whether it serves.
    """
    return [
        node
        for node in nodes
        if not node.metadata.deletion_timestamp
        and EXCLUDED not in node.metadata.labels
        and all(taint.key != TO_BE_DELETED for taint in node.spec.taints)
    ]


def why_not(service: Service, settings: CloudSettings) -> str:
    """Why this cloud cannot serve a Service, in a sentence; "" when it can. The Service then stays pending."""
    protocols = {port.protocol or "TCP" for port in service.spec.ports}
    known = {"TCP"} if settings.ip_mode == PROXY else {"TCP", "UDP"}
    if not protocols <= known:
        return f"only {' and '.join(sorted(known))} ports are supported by this load balancer"
    if settings.ip_mode == PROXY and not all(port.node_port for port in service.spec.ports):
        return "a proxying load balancer needs node ports, and allocateLoadBalancerNodePorts is false"
    wished = service.spec.load_balancer_ip
    if wished and not _is_address(wished):
        return f"spec.loadBalancerIP {wished!r} is no IP address"
    if wished and not any(_in(wished, cidr) for cidr in settings.pool):
        return f"spec.loadBalancerIP {wished} is not in the pool {', '.join(settings.pool)}"
    return ""


Records = dict[Key, tuple[str, ...]]
"""The cloud's own books: Service -> the addresses it has for it, also where the status names a host instead."""


def wish(store: Store, settings: CloudSettings, records: Records) -> list[Change]:
    """The changes that bring every Service to what the cloud has for it: finalizer, address, or neither.

    An address that a Service has stays its own. New ones are the lowest that is free, in the order the Services came.
    `records` is brought up to date.
    """
    services = store.list(Service)
    wanted = {_key(s): s for s in services if handles(s) and not s.metadata.deletion_timestamp}
    for key in [key for key in records if key not in wanted]:
        del records[key]
    for key, service in wanted.items():
        if FINALIZER in service.metadata.finalizers and addresses(service):
            records.setdefault(key, addresses(service))
    changes: list[Change] = []
    for service in services:
        owned = FINALIZER in service.metadata.finalizers
        if owned and _key(service) not in wanted:
            changes.append(_released(service))
        elif _key(service) in wanted and not owned:
            marked = service.with_metadata(finalizers=(*service.metadata.finalizers, FINALIZER))
            changes.append(Change("update", marked, "the cloud is to clean up when it goes"))
        elif _key(service) in wanted:
            ingress = _ingress(service, settings, records)
            if ingress != _listed(service):
                status = replace(service.status, load_balancer={"ingress": ingress} if ingress else {})
                why = "the cloud has made its load balancer"
                changes.append(Change("update", replace(service, status=status), why))
    return changes


def addresses(service: Service) -> tuple[str, ...]:
    """The addresses in `status.loadBalancer.ingress`."""
    return tuple(item["ip"] for item in _listed(service) if item.get("ip"))


def hostnames(service: Service) -> tuple[str, ...]:
    """The host names in `status.loadBalancer.ingress`."""
    return tuple(item["hostname"] for item in _listed(service) if item.get("hostname"))


def _key(service: Service) -> Key:
    return (service.namespace, service.name)


def _listed(service: Service) -> list[Json]:
    return [*((service.status.load_balancer or {}).get("ingress") or ())]


def _released(service: Service) -> Change:
    """The cloud's load balancer is gone: the finalizer too, and a Service that waited for that goes."""
    left = tuple(item for item in service.metadata.finalizers if item != FINALIZER)
    if service.metadata.deletion_timestamp and not left:
        return Change("delete", service, "its load balancer is cleaned up")
    bare = replace(service, status=replace(service.status, load_balancer={}))
    return Change("update", bare.with_metadata(finalizers=left), "its load balancer is cleaned up")


def _ingress(service: Service, settings: CloudSettings, records: Records) -> list[Json]:
    if why_not(service, settings):
        records.pop(_key(service), None)
        return []
    taken = {ip for ips in records.values() for ip in ips}
    ips = records.get(_key(service), ())
    for family in service.spec.ip_families or ("IPv4",):
        six = family == "IPv6"
        if not any((":" in ip) == six for ip in ips):
            ip = _free(service, settings, six, taken)
            ips = (*ips, ip) if ip else ips
    if not ips:
        return []
    records[_key(service)] = ips
    notes = service.metadata.annotations
    name = next((notes[a] for a in HOSTNAME_ANNOTATIONS if notes.get(a)), "")
    if not name and settings.domain:
        name = f"{service.name}-{service.namespace}.{settings.domain}"
    if name:
        return [{"hostname": name}]
    return [{"ip": ip, "ipMode": settings.ip_mode} for ip in ips]


def _free(service: Service, settings: CloudSettings, six: bool, taken: set[str]) -> str:
    wished = service.spec.load_balancer_ip
    if wished and (":" in wished) == six:
        return "" if wished in taken else wished
    return next((ip for ip in _pool(settings.pool, six) if ip not in taken), "")


def _pool(pool: Iterable[str], six: bool) -> Iterator[str]:
    for cidr in pool:
        if (":" in cidr) == six:
            yield from map(str, ipaddress.ip_network(cidr).hosts())


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _in(address: str, cidr: str) -> bool:
    return (":" in address) == (":" in cidr) and ipaddress.ip_address(address) in ipaddress.ip_network(cidr)
