"""Secrets, by name only: which keys they have, never what is in them.

https://kubernetes.io/docs/concepts/configuration/secret/
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json


class Secret(ApiObject, frozen=True, kw_only=True):
    """Named confidential texts; every value is empty, because `from_manifest` drops it."""

    data: dict[str, str] = field(default_factory=dict)
    string_data: dict[str, str] = field(default_factory=dict)
    type: str = ""
    immutable: bool | None = None

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Secret"
    resource: ClassVar[str] = "secrets"


def without_values(manifest: Json) -> Json:
    """A Secret's manifest with every value emptied, and without annotations that repeat them."""
    kept = dict(manifest)
    for part in ("data", "stringData"):
        if isinstance(kept.get(part), dict):
            kept[part] = dict.fromkeys(kept[part], "")
    metadata = kept.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("annotations"), dict):
        last_applied = "kubectl.kubernetes.io/last-applied-configuration"
        annotations = {key: text for key, text in metadata["annotations"].items() if key != last_applied}
        kept["metadata"] = {**metadata, "annotations": annotations}
    return kept
