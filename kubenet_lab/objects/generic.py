"""An object of a kind the model has no type for: carried whole, and written back as it was read."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from kubenet_lab.objects.meta import Json, ObjectMeta


class Generic(Struct, frozen=True, kw_only=True):
    """An object with typed `metadata`; everything else is in `content`, keyed as in the manifest.

    Attributes:
        namespaced: False for objects of the whole cluster.
        resource: Lower-case plural, as in a URL; empty where it is not known.
    """

    api_version: str
    kind: str
    metadata: ObjectMeta = field(default_factory=ObjectMeta)
    content: Json = field(default_factory=dict)
    namespaced: bool = True
    resource: str = ""

    @property
    def name(self) -> str:
        """Short for `metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Short for `metadata.namespace`; empty for objects of the whole cluster."""
        return self.metadata.namespace

    def to_manifest(self) -> Json:
        """This object as plain dicts and lists."""
        metadata = msgspec.json.decode(msgspec.json.encode(self.metadata))
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **self.content}

    def with_metadata(self, **changes: Any) -> Generic:
        """A copy with these `metadata` fields changed."""
        return replace(self, metadata=replace(self.metadata, **changes))
