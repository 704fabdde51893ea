"""Endpoints and EndpointSlices (`ValidateEndpoints`, `ValidateEndpointSlice`)."""

from __future__ import annotations

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Causes,
    Json,
    duplicate,
    invalid,
    invalids,
    required,
    too_many,
    unsupported,
)
from kubenet_lab.manifests.validation.metadata import labels
from kubenet_lab.manifests.validation.service import PROTOCOLS
from kubenet_lab.manifests.validation.values import (
    PORT,
    dns_label,
    dns_subdomain,
    family,
    ip_address,
    label_value,
    ordinary_ip,
    qualified_name,
)

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS, MAX_HINTS = 1000, 100, 20000, 8


def endpoint_slice(document: Json) -> Causes:
    """What is wrong with an EndpointSlice."""
    found: Causes = []
    kind = document.get("addressType") or ""
    if not kind:
        found.append(required(("addressType",), help="IPv4 or IPv6"))
    elif kind not in ADDRESS_TYPES:
        found.append(unsupported(("addressType",), kind, ADDRESS_TYPES))
    endpoints = document.get("endpoints") or []
    if len(endpoints) > MAX_ENDPOINTS:
        found.append(too_many(("endpoints",), len(endpoints), MAX_ENDPOINTS))
    else:
        for index, endpoint in enumerate(endpoints):
            found += _endpoint(endpoint, kind, ("endpoints", index))
    ports = document.get("ports") or []
    if len(ports) > MAX_PORTS:
        return [*found, too_many(("ports",), len(ports), MAX_PORTS)]
    names: set[str] = set()
    for index, port in enumerate(ports):
        found += _slice_port(port, ("ports", index), names)
    return found


def _endpoint(endpoint: Json, kind: str, path: Path) -> Causes:
    found: Causes = []
    addresses = endpoint.get("addresses") or []
    if not addresses:
        found.append(required((*path, "addresses"), help="an endpoint has exactly one address"))
    elif len(addresses) > MAX_ADDRESSES:
        found.append(too_many((*path, "addresses"), len(addresses), MAX_ADDRESSES))
    for index, address in enumerate(addresses):
        found += _address(address, kind, (*path, "addresses"), index)
    topology = endpoint.get("deprecatedTopology")
    if topology:
        found += labels(topology, (*path, "deprecatedTopology"))
    if endpoint.get("nodeName"):
        found += invalids((*path, "nodeName"), endpoint["nodeName"], dns_subdomain(endpoint["nodeName"]))
    if endpoint.get("hostname") is not None:
        found += invalids((*path, "hostname"), endpoint["hostname"], dns_label(endpoint["hostname"]))
    hints = endpoint.get("hints") or {}
    for field, check in (("forZones", label_value), ("forNodes", dns_subdomain)):
        given = hints.get(field) or []
        place = (*path, "hints", field)
        if len(given) > MAX_HINTS:
            found.append(too_many(place, len(given), MAX_HINTS))
            continue
        seen: set[str] = set()
        for index, item in enumerate(given):
            name = item.get("name") or ""
            if name in seen:
                found.append(duplicate((*place, index, "name"), name))
            seen.add(name)
            found += invalids((*place, index, "name"), name, check(name))
    return found


def _address(address: str, kind: str, path: Path, index: int) -> Causes:
    if kind in ("IPv4", "IPv6"):
        wrong = ip_address(address)
        if wrong:
            return invalids((*path, index), address, wrong)
        found = invalids((*path, index), address, ordinary_ip(address))
        if family(address) != kind:
            hint = f"addressType is {kind}; IPv4 and IPv6 addresses go into slices of their own"
            found.insert(0, invalid(path, address, f"must be an {kind} address", hint))
        return found
    if kind == "FQDN":
        if not address:
            return [required((*path, index))]
        name = address.removesuffix(".")
        wrong = dns_subdomain(name)
        if not wrong and "." not in name:
            wrong = ["should be a domain with at least two segments separated by dots"]
        return invalids((*path, index), address, wrong)
    return []


def _slice_port(port: Json, path: Path, names: set[str]) -> Causes:
    found: Causes = []
    name = port.get("name") or ""
    if name:
        found += invalids((*path, "name"), name, dns_label(name))
    if name in names:
        found.append(duplicate((*path, "name"), name))
    names.add(name)
    found += _protocols(port, path)
    return found


def _protocols(port: Json, path: Path) -> Causes:
    found: Causes = []
    protocol = port.get("protocol") or "TCP"
    if protocol not in PROTOCOLS:
        found.append(unsupported((*path, "protocol"), protocol, PROTOCOLS))
    name = port.get("appProtocol")
    if name is not None:
        found += invalids((*path, "appProtocol"), name, qualified_name(name))
    return found


def endpoints(document: Json) -> Causes:
    """What is wrong with an Endpoints object."""
    found: Causes = []
    for number, subset in enumerate(document.get("subsets") or []):
        path: Path = ("subsets", number)
        ready, waiting = subset.get("addresses") or [], subset.get("notReadyAddresses") or []
        if not ready and not waiting:
            found.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field, addresses in (("addresses", ready), ("notReadyAddresses", waiting)):
            for index, address in enumerate(addresses):
                found += _endpoint_address(address, (*path, field, index))
        ports = subset.get("ports") or []
        for index, port in enumerate(ports):
            found += _endpoint_port(port, (*path, "ports", index), len(ports) > 1)
    return found


def _endpoint_address(address: Json, path: Path) -> Causes:
    ip = address.get("ip") or ""
    found = invalids((*path, "ip"), ip, ip_address(ip))
    bad = bool(found)
    if address.get("hostname"):
        found += invalids((*path, "hostname"), address["hostname"], dns_label(address["hostname"]))
    if address.get("nodeName") is not None:
        found += invalids((*path, "nodeName"), address["nodeName"], dns_subdomain(address["nodeName"]))
    return found if bad else found + invalids((*path, "ip"), ip, ordinary_ip(ip))


def _endpoint_port(port: Json, path: Path, several: bool) -> Causes:
    found: Causes = []
    name = port.get("name") or ""
    if name:
        found += invalids((*path, "name"), name, dns_label(name))
    elif several:
        found.append(required((*path, "name"), help="each of several ports needs a name"))
    number = port.get("port") or 0
    if not 1 <= number <= 65535:
        found.append(invalid((*path, "port"), number, PORT))
    return found + _protocols(port, path)
