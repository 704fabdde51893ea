"""Namespaces. https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json, Part


class NamespaceSpec(Part, frozen=True, kw_only=True):
    """What still has to happen before the namespace may go."""

    finalizers: tuple[str, ...] = ()


class NamespaceStatus(Part, frozen=True, kw_only=True):
    """`Active`, or `Terminating` while its objects are being deleted."""

    phase: str = ""
    conditions: tuple[Json, ...] = ()


class Namespace(ApiObject, frozen=True, kw_only=True):
    """A scope for names."""

    spec: NamespaceSpec = field(default_factory=NamespaceSpec)
    status: NamespaceStatus = NamespaceStatus()

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Namespace"
    resource: ClassVar[str] = "namespaces"
    namespaced: ClassVar[bool] = False
