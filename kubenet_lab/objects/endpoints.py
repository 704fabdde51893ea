"""Endpoints, the older form of EndpointSlices: all addresses of a Service in one object.

https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoints-v1/
"""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.objects.endpointslice import ObjectReference
from kubenet_lab.objects.meta import ApiObject, Part


class EndpointAddress(Part, frozen=True, kw_only=True):
    """One backend address."""

    ip: str
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class EndpointsPort(Part, frozen=True, kw_only=True):
    """A port of all addresses in the subset; `name` is the Service port's."""

    port: int
    name: str = ""
    protocol: str = ""
    app_protocol: str | None = None


class EndpointSubset(Part, frozen=True, kw_only=True):
    """Addresses that share their ports: each address with each port."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointsPort, ...] = ()


class Endpoints(ApiObject, frozen=True, kw_only=True):
    """The addresses behind the Service of the same name, at most 1,000 of them."""

    subsets: tuple[EndpointSubset, ...] = ()

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Endpoints"
    resource: ClassVar[str] = "endpoints"
