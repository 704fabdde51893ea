"""ConfigMaps, where CoreDNS keeps its Corefile. https://kubernetes.io/docs/concepts/configuration/configmap/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject


class ConfigMap(ApiObject, frozen=True, kw_only=True):
    """Named texts."""

    data: dict[str, str] = field(default_factory=dict)
    binary_data: dict[str, str] = field(default_factory=dict)
    immutable: bool | None = None

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "ConfigMap"
    resource: ClassVar[str] = "configmaps"
