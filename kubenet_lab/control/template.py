"""Pods from a workload's template, and the revisions of that template."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
from msgspec.structs import replace

from kubenet_lab.objects import (
    ApiObject,
    Generic,
    Json,
    ObjectMeta,
    Pod,
    PodTemplate,
    owned_by,
    without_nulls,
)
from kubenet_lab.store import ALPHABET

REVISION_LABEL = "controller-revision-hash"


def pod_template_hash(template: PodTemplate) -> str:
    """The label that tells one template's pods from another's, and the middle of their names.

    Looks as the real one does (FNV-1a over the template, written with the alphabet of generated names), but
    Kubernetes hashes Go's own print of the structure, so a real cluster gives the same template another hash.
    """
    number = 2166136261
    for byte in hashlib.blake2b(msgspec.json.encode(template, order="deterministic")).digest():
        number = ((number ^ byte) * 16777619) & 0xFFFFFFFF
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(number))


def pod_of(
    owner: ApiObject, template: PodTemplate, name: str, labels: Mapping[str, str] | None = None
) -> Pod:
    """A pod of a workload, with the template's labels and these."""
    metadata = template.metadata
    return Pod(
        metadata=ObjectMeta(
            name=name,
            generate_name=f"{owner.name}-",
            namespace=owner.namespace,
            labels={**metadata.labels, **(labels or {})},
            annotations=metadata.annotations,
            finalizers=metadata.finalizers,
            owner_references=owned_by(owner),
        ),
        spec=template.spec,
    )


def active(pods: Iterable[Pod]) -> list[Pod]:
    """The pods that neither ended nor are being deleted."""
    return [pod for pod in pods if not pod.finished and not pod.terminating]


class Revisions(msgspec.Struct):
    """A workload's ControllerRevisions: the templates it had, oldest first, and what has to be done to them."""

    all: list[Generic]
    create: Generic | None
    update: Generic | None

    @property
    def newest(self) -> Generic:
        """The revision of the present template."""
        return self.create or self.update or self.all[-1]


def revisions(
    owner: ApiObject, template: PodTemplate, existing: Iterable[Generic], known_as: str = ""
) -> Revisions:
    """The revisions with the one of this template last: made, or, when it was there before, brought to the front.

    `known_as` is what the pods that are there call it, where no revision is: `kubectl get all` dumps none.
    """
    known = sorted(existing, key=revision_number)
    name = f"{owner.name}-{pod_template_hash(template)}"
    if not known and known_as:
        name = known_as
    number = revision_number(known[-1]) + 1 if known else 1
    same = next((item for item in known if item.name == name or template_of(item) == template), None)
    if same is None:
        body = msgspec.json.decode(msgspec.json.encode(template))
        data = {"spec": {"template": {**body, "$patch": "replace"}}}
        labels = {**template.metadata.labels, REVISION_LABEL: name}
        made = Generic(
            api_version="apps/v1",
            kind="ControllerRevision",
            metadata=ObjectMeta(
                name=name, namespace=owner.namespace, labels=labels, owner_references=owned_by(owner)
            ),
            content={"data": data, "revision": number},
            resource="controllerrevisions",
        )
        return Revisions(known, made, None)
    if same is known[-1]:
        return Revisions(known, None, None)
    known.remove(same)
    return Revisions(known, None, replace(same, content={**same.content, "revision": number}))


def revision_number(revision: Generic) -> int:
    """Its place in the history."""
    return int(revision.content.get("revision", 0))


def template_of(revision: Generic) -> PodTemplate:
    """The template a revision keeps."""
    body: Json = without_nulls(revision.content["data"]["spec"]["template"])
    body.pop("$patch", None)
    return msgspec.convert(body, PodTemplate)
