"""Ingresses: HTTP routes into the cluster. https://kubernetes.io/docs/concepts/services-networking/ingress/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json, Part


class ServiceBackendPort(Part, frozen=True, kw_only=True):
    """A Service's port, by name or by number."""

    name: str = ""
    number: int = 0


class IngressServiceBackend(Part, frozen=True, kw_only=True):
    """A Service of the same namespace."""

    name: str
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Part, frozen=True, kw_only=True):
    """Where requests go: a Service, or another `resource` the controller knows."""

    service: IngressServiceBackend | None = None
    resource: Json | None = None


class HTTPIngressPath(Part, frozen=True, kw_only=True):
    """A path; `path_type` is Exact, Prefix or ImplementationSpecific."""

    backend: IngressBackend
    path: str = ""
    path_type: str | None = None


class HTTPIngressRule(Part, frozen=True, kw_only=True):
    """The paths of a host."""

    paths: tuple[HTTPIngressPath, ...] = ()


class IngressRule(Part, frozen=True, kw_only=True):
    """A host, `*.` before it for all below; empty for every host."""

    host: str = ""
    http: HTTPIngressRule | None = None


class IngressTLS(Part, frozen=True, kw_only=True):
    """The Secret with the certificate for these hosts."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Part, frozen=True, kw_only=True):
    """Rules, and where requests go that none of them matches."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()


class IngressStatus(Part, frozen=True, kw_only=True):
    """The addresses the controller gave it."""

    load_balancer: Json | None = None


class Ingress(ApiObject, frozen=True, kw_only=True):
    """Sends HTTP requests for hosts and paths to Services."""

    spec: IngressSpec = field(default_factory=IngressSpec)
    status: IngressStatus = IngressStatus()

    api_version: ClassVar[str] = "networking.k8s.io/v1"
    kind: ClassVar[str] = "Ingress"
    resource: ClassVar[str] = "ingresses"


class IngressClassSpec(Part, frozen=True, kw_only=True):
    """Which controller serves Ingresses of this class."""

    controller: str = ""
    parameters: Json | None = None


class IngressClass(ApiObject, frozen=True, kw_only=True):
    """A name for an ingress controller."""

    spec: IngressClassSpec = field(default_factory=IngressClassSpec)

    api_version: ClassVar[str] = "networking.k8s.io/v1"
    kind: ClassVar[str] = "IngressClass"
    resource: ClassVar[str] = "ingressclasses"
    namespaced: ClassVar[bool] = False
