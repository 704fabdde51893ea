"""The objects CoreDNS watches, indexed as it indexes them: an answer is one dict look-up.

CoreDNS lists and watches Namespaces, Services, EndpointSlices and (with `pods verified`) Pods, and keeps of
each only what an answer needs (plugin/kubernetes/object). An update touches the entries of its object only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_GONE_PHASES = frozenset({"Succeeded", "Failed", "Unknown"})


class Port(Struct, frozen=True):
    """A port a name can be asked for; `port` is -1 when the object lists none."""

    name: str = ""
    port: int = -1
    protocol: str = ""


class ServiceEntry(Struct, frozen=True):
    """What is kept of a Service. `cluster_ips` is ("None",) for a headless one.

    `external` are its externalIPs, then the addresses and names its load balancers gave.
    """

    name: str
    namespace: str
    type: str
    cluster_ips: tuple[str, ...]
    external_name: str
    ports: tuple[Port, ...]
    labels: tuple[tuple[str, str], ...] = ()
    external: tuple[str, ...] = ()

    @property
    def headless(self) -> bool:
        """Has it no address of its own?"""
        return self.cluster_ips[0] == "None"

    @property
    def key(self) -> str:
        """The name as it stands in the cluster's domain: "name.namespace"."""
        return f"{self.name}.{self.namespace}"


class Address(Struct, frozen=True):
    """A ready endpoint of a slice, the address as the slice spells it."""

    ip: str
    hostname: str = ""
    pod: str = ""
    zone: str = ""


class SliceEntry(Struct, frozen=True):
    """What is kept of an EndpointSlice: its ready addresses and its ports, under its Service's key."""

    name: str
    namespace: str
    key: str
    addresses: tuple[Address, ...]
    ports: tuple[Port, ...]
    labels: tuple[tuple[str, str], ...] = ()


class PodEntry(Struct, frozen=True):
    """What is kept of a Pod that runs."""

    name: str
    namespace: str
    ip: str
    labels: tuple[tuple[str, str], ...] = ()


class NamespaceEntry(Struct, frozen=True):
    """What is kept of a Namespace."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


class ServiceView:
    """CoreDNS's informer caches.

    Attributes:
        synced: False until the first list arrived; cluster names are then SERVFAIL.
        modified: Unix time of the last change, the serial number of every SOA.
        modified_external: The same of what `k8s_external` serves; 0 until a Service that was there changes.
        services, slices: By "name.namespace".
        services_by_ip, services_by_external, slices_by_ip, pods_by_ip: By address, as spelled in the object.
        namespaces: By name.
    """

    def __init__(self, synced: bool = True) -> None:
        self.synced = synced
        self.modified = 0
        self.modified_external = 0
        self.namespaces: dict[str, NamespaceEntry] = {}
        self.services: dict[str, ServiceEntry] = {}
        self.services_by_ip: dict[str, tuple[ServiceEntry, ...]] = {}
        self.services_by_external: dict[str, tuple[ServiceEntry, ...]] = {}
        self.slices: dict[str, tuple[SliceEntry, ...]] = {}
        self.slices_by_ip: dict[str, tuple[SliceEntry, ...]] = {}
        self.pods_by_ip: dict[str, tuple[PodEntry, ...]] = {}
        self._slice_of: dict[str, SliceEntry] = {}
        self._pod_of: dict[str, PodEntry] = {}

    @classmethod
    def from_objects(cls, objects: Iterable[object], now: float = 0.0) -> ServiceView:
        """A view of these objects: manifests as plain dicts, or typed API objects."""
        view = cls()
        for each in objects:
            view.apply(each, now)
        return view

    def apply(self, obj: object, now: float = 0.0) -> None:
        """Take in a new or changed object; kinds CoreDNS does not watch are ignored.

        `obj` is a manifest (dict with `kind`) or a typed object of `kubenet_lab.objects`.
        """
        manifest = _manifest(obj)
        kind = manifest.get("kind", "")
        if kind == "Service":
            self._service(_service(manifest), now)
        elif kind == "EndpointSlice":
            self._slice(_slice(manifest))
        elif kind == "Namespace":
            entry = NamespaceEntry(*_identity(manifest)[:1], labels=_labels(manifest))
            self.namespaces[entry.name] = entry
            return
        elif kind == "Pod":
            self._pod(*_pod(manifest))
        else:
            return
        self.modified = int(now)

    def delete(self, kind: str, namespace: str, name: str, now: float = 0.0) -> None:
        """Forget an object; one never seen is ignored."""
        key = f"{namespace}/{name}"
        if kind == "Service":
            old = self.services.pop(f"{name}.{namespace}", None)
            if old is not None:
                self._forget_addresses(old)
        elif kind == "EndpointSlice":
            self._forget_slice(key)
        elif kind == "Namespace":
            self.namespaces.pop(name, None)
            return
        elif kind == "Pod":
            self._pod(key, None)
        else:
            return
        self.modified = int(now)

    def copy(self) -> ServiceView:
        """A view that stays as this one is now."""
        other = ServiceView(self.synced)
        for name, value in vars(self).items():
            setattr(other, name, dict(value) if isinstance(value, dict) else value)
        return other

    def _service(self, entry: ServiceEntry, now: float) -> None:
        old = self.services.get(entry.key)
        if old is not None:
            if (old.external, old.ports) != (entry.external, entry.ports):
                self.modified_external = int(now)
            self._forget_addresses(old)
        self.services[entry.key] = entry
        for ip in entry.cluster_ips:
            self.services_by_ip[ip] = (*self.services_by_ip.get(ip, ()), entry)
        for ip in dict.fromkeys(entry.external):
            self.services_by_external[ip] = (*self.services_by_external.get(ip, ()), entry)

    def _forget_addresses(self, entry: ServiceEntry) -> None:
        for ip in entry.cluster_ips:
            _drop(self.services_by_ip, ip, entry)
        for ip in entry.external:
            _drop(self.services_by_external, ip, entry)

    def _slice(self, entry: SliceEntry) -> None:
        key = f"{entry.namespace}/{entry.name}"
        self._forget_slice(key)
        self._slice_of[key] = entry
        self.slices[entry.key] = (*self.slices.get(entry.key, ()), entry)
        for ip in dict.fromkeys(address.ip for address in entry.addresses):
            self.slices_by_ip[ip] = (*self.slices_by_ip.get(ip, ()), entry)

    def _forget_slice(self, key: str) -> None:
        old = self._slice_of.pop(key, None)
        if old is not None:
            _drop(self.slices, old.key, old)
            for address in old.addresses:
                _drop(self.slices_by_ip, address.ip, old)

    def _pod(self, key: str, entry: PodEntry | None) -> None:
        old = self._pod_of.pop(key, None)
        if old is not None:
            _drop(self.pods_by_ip, old.ip, old)
        if entry is not None:
            self._pod_of[key] = entry
            self.pods_by_ip[entry.ip] = (*self.pods_by_ip.get(entry.ip, ()), entry)


def _drop(index: dict[str, Any], key: str, entry: Struct) -> None:
    left = tuple(each for each in index.get(key, ()) if each is not entry)
    if left:
        index[key] = left
    else:
        index.pop(key, None)


def _manifest(obj: object) -> Mapping[str, Any]:
    if isinstance(obj, Mapping):
        return obj
    # A typed object names its kind on its class, and writes itself with the API's own field names.
    return {"kind": getattr(obj, "kind", ""), **msgspec.to_builtins(obj)}


def _identity(manifest: Mapping[str, Any]) -> tuple[str, str]:
    meta = manifest.get("metadata") or {}
    return str(meta.get("name", "")), str(meta.get("namespace") or "default")


def _labels(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = (manifest.get("metadata") or {}).get("labels") or {}
    return tuple((str(key), str(value)) for key, value in found.items())


def _ports(ports: Iterable[Mapping[str, Any]] | None, protocol: str) -> tuple[Port, ...]:
    found = tuple(
        Port(
            each.get("name") or "",
            -1 if each.get("port") is None else int(each["port"]),
            each.get("protocol") or protocol,
        )
        for each in ports or ()
    )
    return found or (Port(),)


def _service(manifest: Mapping[str, Any]) -> ServiceEntry:
    name, namespace = _identity(manifest)
    spec = manifest.get("spec") or {}
    balancer = (manifest.get("status") or {}).get("loadBalancer") or {}
    given = (each.get("ip") or each.get("hostname") for each in balancer.get("ingress") or ())
    return ServiceEntry(
        name=name,
        namespace=namespace,
        type=spec.get("type") or "ClusterIP",
        cluster_ips=tuple(spec.get("clusterIPs") or ()) or (spec.get("clusterIP") or "",),
        external_name=spec.get("externalName") or "",
        ports=_ports(spec.get("ports"), "TCP"),
        labels=_labels(manifest),
        external=(*(spec.get("externalIPs") or ()), *filter(None, given)),
    )


def _slice(manifest: Mapping[str, Any]) -> SliceEntry:
    name, namespace = _identity(manifest)
    labels = _labels(manifest)
    addresses: list[Address] = []
    for endpoint in manifest.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is False:
            # An unset condition counts as ready, as the API says it must.
            continue
        pod = (endpoint.get("targetRef") or {}).get("name") or ""
        addresses += [
            Address(
                ip=ip,
                hostname=endpoint.get("hostname") or "",
                pod=pod if len(pod) < 64 else "",
                zone=(endpoint.get("zone") or "").lower(),
            )
            for ip in endpoint.get("addresses") or ()
        ]
    return SliceEntry(
        name=name,
        namespace=namespace,
        key=f"{dict(labels).get(SERVICE_NAME_LABEL, '')}.{namespace}",
        addresses=tuple(addresses),
        ports=_ports(manifest.get("ports"), ""),
        labels=labels,
    )


def _pod(manifest: Mapping[str, Any]) -> tuple[str, PodEntry | None]:
    name, namespace = _identity(manifest)
    status = manifest.get("status") or {}
    ip = status.get("podIP") or ""
    gone = status.get("phase") in _GONE_PHASES or (manifest.get("metadata") or {}).get("deletionTimestamp")
    entry = None if gone or not ip else PodEntry(name, namespace, ip, _labels(manifest))
    return f"{namespace}/{name}", entry
