"""What every API object has: names, labels, owners; and the base class of all of them.

Attributes are the API's field names in snake case (`pod.spec.node_name` is `spec.nodeName`). Each class lists
every field the published schema has; a part the model never looks into is kept as it was written (`Json`), so
nothing is lost. https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

Json = dict[str, Any]
"""A part of an object that is carried as written."""

_INITIALISMS = dict(
    ip="IP", ips="IPs", cidr="CIDR", cidrs="CIDRs", id="ID", pid="PID", ipc="IPC", uuid="UUID", fqdn="FQDN"
)


@functools.cache
def camel(name: str) -> str:
    """A name in the API's spelling: `hostNetwork` of `host_network`, `podCIDRs` of `pod_cidrs`."""
    first, *rest = name.split("_")
    return first + "".join(_INITIALISMS.get(word, word.capitalize()) for word in rest)


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=camel):
    """A piece of an object. Fields that are not set are left out when written, as the API server does."""


class OwnerReference(Part, frozen=True, kw_only=True):
    """Who made this object; with `controller` set, who keeps managing it."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Part, frozen=True, kw_only=True):
    """Name, labels and the API server's bookkeeping."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    managed_fields: tuple[Json, ...] = ()
    self_link: str = ""

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object, if there is one."""
        return next((owner for owner in self.owner_references if owner.controller), None)


class ApiObject(Part, frozen=True, kw_only=True):
    """An object of the API. A subclass names its kind; `metadata` is always there.

    A `status` has one shared default: an object nobody reported on is written without any, one whose status is
    known to be empty with `status: {}`.
    """

    metadata: ObjectMeta = field(default_factory=ObjectMeta)

    api_version: ClassVar[str]
    kind: ClassVar[str]
    resource: ClassVar[str]
    namespaced: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Short for `metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """Short for `metadata.namespace`; empty for objects of the whole cluster."""
        return self.metadata.namespace

    def to_manifest(self) -> Json:
        """This object as plain dicts and lists, as `kubectl get -o json` shows it."""
        # By way of JSON, because tuples shall become lists; it is also the faster way.
        body: Json = msgspec.json.decode(msgspec.json.encode(self))
        if body.get("spec") == {}:
            del body["spec"]
        return {"apiVersion": self.api_version, "kind": self.kind, **body}

    def with_metadata(self, **changes: Any) -> Any:
        """A copy with these `metadata` fields changed."""
        return replace(self, metadata=replace(self.metadata, **changes))


def owned_by(owner: ApiObject) -> tuple[OwnerReference, ...]:
    """The `ownerReferences` of what the controller of `owner` makes."""
    return (
        OwnerReference(
            api_version=owner.api_version,
            kind=owner.kind,
            name=owner.metadata.name,
            uid=owner.metadata.uid,
            controller=True,
            block_owner_deletion=True,
        ),
    )
