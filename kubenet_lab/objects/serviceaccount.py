"""ServiceAccounts, the names pods act under. https://kubernetes.io/docs/concepts/security/service-accounts/"""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.objects.endpointslice import ObjectReference
from kubenet_lab.objects.meta import ApiObject, Json


class ServiceAccount(ApiObject, frozen=True, kw_only=True):
    """An identity for pods."""

    secrets: tuple[ObjectReference, ...] = ()
    image_pull_secrets: tuple[Json, ...] = ()
    automount_service_account_token: bool | None = None

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "ServiceAccount"
    resource: ClassVar[str] = "serviceaccounts"
