"""EndpointSlices: which addresses stand behind a Service.

https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.objects.meta import ApiObject, Json, Part

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
CONTROLLER_NAME = "endpointslice-controller.k8s.io"
HEADLESS_LABEL = "service.kubernetes.io/headless"


class EndpointConditions(Part, frozen=True, kw_only=True):
    """State of an endpoint. Unset `ready` and `serving` mean true, unset `terminating` means false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Part, frozen=True, kw_only=True):
    """A zone that should use the endpoint."""

    name: str


class ForNode(Part, frozen=True, kw_only=True):
    """A node that should use the endpoint."""

    name: str


class EndpointHints(Part, frozen=True, kw_only=True):
    """For whom the endpoint is meant."""

    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForNode, ...] = ()


class ObjectReference(Part, frozen=True, kw_only=True):
    """Points at an object, here the pod behind an endpoint."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class Endpoint(Part, frozen=True, kw_only=True):
    """One backend; the controller always gives it exactly one address."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    deprecated_topology: Json | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None

    @property
    def ready(self) -> bool:
        """Whether new connections may go there."""
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Whether it answers, terminating or not; where unset it is what `ready` says."""
        return self.ready if self.conditions.serving is None else self.conditions.serving

    @property
    def terminating(self) -> bool:
        """Whether its pod is being deleted."""
        return bool(self.conditions.terminating)


class EndpointPort(Part, frozen=True, kw_only=True):
    """A port of all endpoints in the slice; `name` is the Service port's, `port` None means all ports."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(ApiObject, frozen=True, kw_only=True):
    """Up to 1000 (the controller stops at 100) endpoints of one address family that share their ports."""

    address_type: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    api_version: ClassVar[str] = "discovery.k8s.io/v1"
    kind: ClassVar[str] = "EndpointSlice"
    resource: ClassVar[str] = "endpointslices"

    def to_manifest(self) -> Json:
        """As `ApiObject.to_manifest`; lists that are empty are written as null, as the API server does."""
        body = super().to_manifest()
        body.setdefault("endpoints", None)
        body.setdefault("ports", None)
        return body

    @property
    def service_name(self) -> str:
        """The Service (of the same namespace) this slice belongs to; empty where the label is missing."""
        return self.metadata.labels.get(SERVICE_NAME_LABEL, "")
