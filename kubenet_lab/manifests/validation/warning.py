"""What the API server accepts and warns of (`GetWarningsFor*`, and API versions that are on their way out)."""

from __future__ import annotations

import ipaddress
from typing import Any

from kubenet_lab.manifests.validation.cause import Json
from kubenet_lab.manifests.validation.service import TOPOLOGY_HINTS, TOPOLOGY_MODE
from kubenet_lab.manifests.validation.values import parse_cidr, parse_ip

DEPRECATED = {
    "v1/Endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    "v1/ComponentStatus": "v1 ComponentStatus is deprecated in v1.19+",
}
"""Said with every answer about such an object, whether it is accepted or not."""


def warnings(document: Json) -> list[str]:
    """What the server adds to its answer when it accepts the object."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    if kind == "v1/Service":
        return _service(document)
    if kind == "discovery.k8s.io/v1/EndpointSlice":
        return _endpoint_slice(document)
    if kind == "networking.k8s.io/v1/Ingress":
        annotations = (document.get("metadata") or {}).get("annotations") or {}
        if "kubernetes.io/ingress.class" in annotations:
            text = "is deprecated, please use 'spec.ingressClassName' instead"
            return [f'annotation "kubernetes.io/ingress.class" {text}']
    return []


def _service(document: Json) -> list[str]:
    spec: Json = document.get("spec") or {}
    annotations: Json = (document.get("metadata") or {}).get("annotations") or {}
    found = []
    if TOPOLOGY_HINTS in annotations:
        found.append(f"annotations[{TOPOLOGY_HINTS}]: please use {TOPOLOGY_MODE} instead")
    if (spec.get("clusterIP") or "") == "None":
        if spec.get("loadBalancerIP"):
            found.append("spec.loadBalancerIP is ignored for headless services")
        if spec.get("externalIPs"):
            found.append("spec.externalIPs is ignored for headless services")
        if (spec.get("sessionAffinity") or "None") != "None":
            found.append("spec.SessionAffinity is ignored for headless services")
    else:
        single = spec.get("clusterIP")
        for index, address in enumerate(spec.get("clusterIPs") or ([single] if single else [])):
            found += _address(f"spec.clusterIPs[{index}]", address)
    for index, address in enumerate(spec.get("externalIPs") or []):
        found += _address(f"spec.externalIPs[{index}]", address)
    for index, prefix in enumerate(spec.get("loadBalancerSourceRanges") or []):
        found += _prefix(f"spec.loadBalancerSourceRanges[{index}]", prefix.strip())
    return found


def _endpoint_slice(document: Json) -> list[str]:
    if document.get("addressType") == "FQDN":
        return ["spec.addressType: FQDN endpoints are deprecated"]
    found = []
    for number, endpoint in enumerate(document.get("endpoints") or []):
        for index, address in enumerate(endpoint.get("addresses") or []):
            found += _address(f"endpoints[{number}].addresses[{index}]", address)
    return found


def _address(field: str, value: str) -> list[str]:
    parsed = parse_ip(value)
    if not isinstance(parsed, ipaddress.IPv6Address) or str(parsed) == value:
        return []
    return [f'{field}: IPv6 address "{value}" should be in RFC 5952 canonical format ("{parsed}")']


def _prefix(field: str, value: str) -> list[str]:
    network: Any = parse_cidr(value)
    if network is None or network.version == 4 or str(network) == value:
        return []
    return [f'{field}: IPv6 CIDR value "{value}" should be in RFC 5952 canonical format ("{network}")']
