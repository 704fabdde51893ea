"""What the API server answers to a request to create or replace an object.

A request passes decoding, admission plugins, allocation, and validation, in this order; the first of these
that finds fault ends it, and tells all it found. Answers are those of kube-apiserver 1.37, checked against
recorded ones. (`kubenet_lab.manifests` is for people: it tells the faults of all stages at once, with their
places in the text.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.control import service_ip
from kubenet_lab.control.loop import Settings, apply
from kubenet_lab.errors import AlreadyExists, BadRequest, Conflict, Invalid, NotFound
from kubenet_lab.errors import Cause as Refusal
from kubenet_lab.manifests import Refusal as Denial
from kubenet_lab.manifests import schema
from kubenet_lab.manifests.validation import causes
from kubenet_lab.manifests.validation.cause import Causes
from kubenet_lab.manifests.validation.warning import DEPRECATED, warnings
from kubenet_lab.objects import AnyObject, Json, Node, Service, from_manifest, with_defaults
from kubenet_lab.objects.node import Taint
from kubenet_lab.objects.update import kept, refusals
from kubenet_lab.store import Store, kind_key, qualified

NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")
RETIRED = ("extensions/v1beta1", "apps/v1beta1", "apps/v1beta2", "policy/v1beta1")
"""Versions the server still knows the names of and serves no more."""


class Answer(Struct, frozen=True):
    """An answer.

    Attributes:
        code: The HTTP status: 201 created, 200 replaced, 400, 404, 409, 422.
        object: The object as stored; None when the request was refused.
        warnings: Texts of the `Warning` headers.
        status: The `Status` object of a refusal, as the server sends it.
    """

    code: int
    object: AnyObject | None = None
    warnings: tuple[str, ...] = ()
    status: Json | None = None


class _Refused(Exception):
    """Carries a Status up to the answer."""

    def __init__(self, status: Json) -> None:
        self.status = status


class _DryRun(Exception):
    """Leaves a transaction with what would have been stored."""

    def __init__(self, stored: AnyObject) -> None:
        self.stored = stored


def create(
    store: Store,
    manifest: Json,
    settings: Settings | None = None,
    *,
    strict: bool = True,
    dry_run: bool = False,
    endpoint: tuple[str, str] | None = None,
) -> Answer:
    """The answer to `kubectl create --validate=strict -f FILE`.

    Args:
        store: Where the object goes; its Namespace must be there.
        manifest: The object as sent.
        settings: Service ranges of the cluster.
        strict: Refuse unknown fields; otherwise warn of them (`--validate=warn`).
        dry_run: Leave the store as it is (`--dry-run=server`). What is already taken is refused all the
            same, which the server finds out only in earnest.
        endpoint: `apiVersion` and `kind` the request was sent to, by default the object's own.
    """
    found: list[str] = []
    try:
        obj, manifest = _decoded(manifest, endpoint, strict, found)
        _namespace_exists(store, obj)
        stored = _create(store, obj, manifest, settings or Settings(), dry_run)
    except _Refused as refused:
        return Answer(refused.status["code"], None, tuple(found), refused.status)
    found += warnings(manifest)
    return Answer(201, stored, tuple(found))


def update(
    store: Store,
    manifest: Json,
    settings: Settings | None = None,
    *,
    name: str | None = None,
    strict: bool = True,
    dry_run: bool = False,
    endpoint: tuple[str, str] | None = None,
) -> Answer:
    """The answer to `kubectl replace -f FILE`; `name` is the one the request was sent to.

    Other arguments as for `create`.
    """
    found: list[str] = []
    try:
        obj, manifest = _decoded(manifest, endpoint, strict, found)
        stored = _update(store, obj, settings or Settings(), name, dry_run)
    except _Refused as refused:
        return Answer(refused.status["code"], None, tuple(found), refused.status)
    return Answer(200, stored, tuple(found))


class Admitted(Struct, frozen=True):
    """What the API server makes of a set of objects: those stored, and what it refuses and why."""

    objects: tuple[AnyObject, ...]
    refusals: tuple[Denial, ...]


def admit(
    objects: Sequence[AnyObject],
    settings: Settings | None = None,
    seed: int = 0,
    *,
    refused: Collection[int] = (),
    stored: bool = True,
    before: Sequence[AnyObject] = (),
) -> Admitted:
    """What the API server stores of a set of objects, and which of them it refuses because of the others.

    Their namespaces are taken to be there. All that is asked for is given before anything is drawn, so the order of
    the objects decides only which of two that ask for the same is refused. A Service with a `uid` is of a dump: what
    it has, it was given. The cluster's own Service has the first address, unless it is among the objects.

    Args:
        objects: As `kubenet_lab.manifests.check` read them.
        settings: Service ranges of the cluster.
        seed: Decides what is drawn.
        refused: Indices of objects that are refused for other reasons: they are checked, and not stored.
        stored: Whether the stored objects are asked for; it is faster without.
        before: Objects the cluster has already; one of the same kind and name is a change of it.
    """
    settings = settings or Settings()
    store = Store(seed)
    for obj in before:
        store.create(obj)
    apply(store, service_ip.reconcile(store, settings))
    fresh, changed, denials = _told_apart(objects, store)
    made: dict[int, Any] = {}
    for index in changed:
        if index not in refused:
            answer = update(store, objects[index].to_manifest(), settings)
            denials += [Denial(index, cause) for cause in _causes_of(answer)]
            made[index] = answer.object
    services = {index: obj for index in fresh if isinstance(obj := objects[index], Service)}
    allocator = service_ip.Allocator(settings, seed)
    for service in store.list(Service):
        allocator.keep(service)
    if store.find("Service", "kubernetes", "default") is None:
        _keep_own(allocator, settings, services.values())
    given = _given_together(services, allocator, denials)
    for index in fresh if stored else ():
        if index not in refused and (index in given or index not in services):
            obj = given.get(index, objects[index])
            kept = objects[index].metadata
            # Who makes an object when is not what is asked for here.
            made[index] = store.create(_admitted(obj)).with_metadata(
                uid=kept.uid,
                creation_timestamp=kept.creation_timestamp,
                resource_version=kept.resource_version,
            )
    denials.sort(key=lambda denial: denial.index)
    return Admitted(tuple(made[index] for index in sorted(made) if made[index] is not None), tuple(denials))


def _told_apart(objects: Sequence[AnyObject], store: Store) -> tuple[list[int], list[int], list[Denial]]:
    """Which objects are new, which change one that is stored, and which have the name of an earlier one."""
    names: dict[tuple[str, str, str], int] = {}
    fresh: list[int] = []
    changed: list[int] = []
    denials: list[Denial] = []
    for index, obj in enumerate(objects):
        key = _key(obj)
        first = names.setdefault(key, index) if key[2] else index
        if first != index:
            text = f'{qualified(obj, obj.resource)} "{obj.metadata.name}" already exists'
            denials.append(Denial(index, Refusal("", text, "AlreadyExists"), "the first one is at", first))
        elif store.version and store.find(key[0], key[2], key[1]) is not None:
            changed.append(index)
        else:
            fresh.append(index)
    return fresh, changed, denials


def _given_together(
    services: dict[int, Service], allocator: service_ip.Allocator, denials: list[Denial]
) -> dict[int, Service]:
    """The Services that get what they ask for, with all they are given; what is refused goes to `denials`."""
    for service in services.values():
        if service.metadata.uid:
            allocator.keep(service)
    given: dict[int, Service] = {}
    for step in ("claim", "fill"):
        for index, service in services.items():
            try:
                if step == "claim":
                    filled = with_defaults(service)
                    asks = allocator.with_families if _was_given(filled) else allocator.claim
                    given[index] = asks(filled)
                elif index in given:
                    given[index] = allocator.fill(given[index])
            except Invalid as error:
                given.pop(index, None)
                denials += [Denial(index, cause, _advice(cause)) for cause in error.causes]
    return given


def _key(obj: AnyObject) -> tuple[str, str, str]:
    return (kind_key(obj), obj.metadata.namespace, obj.metadata.name)


def _keep_own(allocator: service_ip.Allocator, settings: Settings, services: Collection[Service]) -> None:
    """The cluster's own Service has the first address of the first range."""
    if not any(_key(service)[1:] == ("default", "kubernetes") for service in services):
        allocator.taken.add(service_ip.Range.of(settings.service_cluster_ip_range[0]).address(0))


def _was_given(service: Service) -> bool:
    """Whether this is a Service of a dump, complete as it is."""
    return bool(service.metadata.uid and (service.addresses or service.headless))


def _causes_of(answer: Answer) -> list[Refusal]:
    status = answer.status
    if status is None:
        return []
    if status["reason"] != "Invalid":
        return [Refusal("", status["message"], status["reason"])]
    return [Refusal(one["field"], one["message"], one["reason"]) for one in status["details"]["causes"]]


def _advice(cause: Refusal) -> str:
    """One line on what to write, from what the allocator said."""
    if "already allocated" in cause.message:
        return "leave it out, and one that is free is given; or write one that no other Service has"
    if "not in the valid range" in cause.message:
        return "leave it out, and one of the range is given"
    return ""


# Decoding


def _decoded(
    manifest: Json, endpoint: tuple[str, str] | None, strict: bool, found: list[str]
) -> tuple[AnyObject, Json]:
    """The object, and its manifest without what is not known; warnings go to `found`."""
    if endpoint is not None:
        manifest = {"apiVersion": endpoint[0], "kind": endpoint[1], **manifest}
    version, name = (_type_field(manifest, field) for field in ("apiVersion", "kind"))
    wanted_version, wanted = endpoint or (version, name)
    kind = schema.kind_of(version, name)
    if (version, name) != (wanted_version, wanted):
        if name == wanted and (kind is not None or version in RETIRED):
            text = f"the API version in the data ({version}) does not match the expected API version ({wanted_version})"
            raise _Refused(_status(400, "BadRequest", text))
        scheme = (
            f'no kind "{name}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
        )
        raise _Refused(_unhandled(name, version, wanted, scheme))
    if kind is None:
        # A custom resource, whose metadata is like everybody's.
        wrong = schema.problems({"metadata": manifest.get("metadata")}, "core_v1.Namespace")
        if wrong:
            raise _Refused(_unhandled(name, version, name, wrong[0].message))
        return _converted(manifest, None), manifest
    deprecated = DEPRECATED.get(f"{version}/{name}")
    if deprecated:
        found.append(deprecated)
    problems = schema.problems(manifest, kind.type)
    mistyped = next((problem for problem in problems if not problem.unknown), None)
    if mistyped is not None:
        raise _Refused(_unhandled(name, version, name, mistyped.message))
    unknown = [problem.message.removeprefix("strict decoding error: ") for problem in problems]
    if unknown and strict:
        raise _Refused(_unhandled(name, version, name, f"strict decoding error: {', '.join(unknown)}"))
    found += unknown
    manifest = schema.without(manifest, problems)
    return _converted(manifest, kind), manifest


def _type_field(manifest: Json, field: str) -> str:
    value = manifest.get(field)
    if isinstance(value, str) and value:
        return value
    if value in (None, ""):
        shown = msgspec.json.encode(manifest).decode()
        word = "Kind" if field == "kind" else field
        text = f"Object '{word}' is missing in '{shown}'"
    else:
        what = {bool: "bool", int: "number", float: "number", list: "array"}.get(type(value), "object")
        text = (
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{what} into Go struct field .{field} of type string"
        )
    raise _Refused(_status(400, "BadRequest", text))


def _converted(manifest: Json, kind: schema.Kind | None) -> AnyObject:
    namespaced = kind.namespaced if kind else bool((manifest.get("metadata") or {}).get("namespace"))
    try:
        return from_manifest(manifest, namespaced, kind.resource if kind else "")
    except msgspec.ValidationError:
        # A field a type insists on is missing; validation says so in the server's words.
        refused = causes(manifest, kind is not None)
        raise _Refused(_invalid_status(manifest, refused)) from None


def _unhandled(name: str, version: str, wanted: str, text: str) -> Json:
    # The server names the version without its group.
    short = version.rpartition("/")[2]
    message = f'{name} in version "{short}" cannot be handled as a {wanted}: {text}'
    return _status(400, "BadRequest", message)


# Admission, allocation, validation


def _namespace_exists(store: Store, obj: AnyObject) -> None:
    if not obj.namespaced:
        return
    name = obj.metadata.namespace or "default"
    namespace = store.find("Namespace", name)
    if namespace is None:
        text = f'namespaces "{name}" not found'
        raise _Refused(_status(404, "NotFound", text, {"name": name, "kind": "namespaces"}))
    if namespace.status.phase == "Terminating":
        word = qualified(obj, obj.resource)
        text = (
            f'{word} "{obj.metadata.name}" is forbidden: unable to create new content in namespace {name} '
            "because it is being terminated"
        )
        raise _Refused(_status(403, "Forbidden", text, _details(obj, obj.resource)))


def _create(store: Store, obj: AnyObject, manifest: Json, settings: Settings, dry_run: bool) -> Any:
    refused = causes(manifest, schema.kind_of(obj.api_version, obj.kind) is not None)
    early = [cause for cause in refused if cause.early]
    if early:
        raise _Refused(_invalid_status(manifest, early))
    obj = _admitted(obj)
    try:
        with store.transaction():
            stored = _given(store, store.create(obj), settings)
            if refused:
                raise _Refused(_invalid_status(manifest, refused))
            if dry_run:
                raise _DryRun(stored)
            return stored
    except _DryRun as dry:
        return dry.stored
    except AlreadyExists as error:
        if refused:
            raise _Refused(_invalid_status(manifest, refused)) from None
        raise _Refused(_status(409, "AlreadyExists", str(error), _details(obj, obj.resource))) from None
    except Invalid as error:
        raise _Refused(_refusal_status(obj, error.causes)) from None


def _update(store: Store, obj: AnyObject, settings: Settings, name: str | None, dry_run: bool) -> Any:
    metadata = obj.metadata
    try:
        if name is not None and name != metadata.name:
            store.update(obj, name)
        namespace = metadata.namespace or ("default" if obj.namespaced else "")
        old = store.get(kind_key(obj), metadata.name, namespace)
        obj = with_defaults(obj)
        if hasattr(obj, "status"):
            obj = replace(obj, status=old.status)
        obj = kept(old, obj)
        manifest = obj.to_manifest()
        found = causes(manifest, schema.kind_of(obj.api_version, obj.kind) is not None)
        early = [cause for cause in found if cause.early]
        stale = metadata.resource_version not in ("", old.metadata.resource_version)
        if not stale:
            refused = _refusals(early) if early else [*refusals(old, obj), *_refusals(found)]
            if refused:
                raise _Refused(_refusal_status(obj, refused))
        with store.transaction():
            stored = _allocated(store, store.update(obj), settings)
            if dry_run:
                raise _DryRun(stored)
            return stored
    except _DryRun as dry:
        return dry.stored
    except BadRequest as error:
        raise _Refused(_status(400, "BadRequest", str(error))) from None
    except NotFound:
        word = qualified(obj, obj.resource)
        text = f'{word} "{metadata.name}" not found'
        raise _Refused(_status(404, "NotFound", text, _details(obj, obj.resource))) from None
    except Conflict as error:
        raise _Refused(_status(409, "Conflict", str(error), _details(obj, obj.resource))) from None
    except Invalid as error:
        raise _Refused(_refusal_status(obj, error.causes)) from None


def _admitted(obj: Any) -> Any:
    """What admission plugins and the storage strategy make of a new object."""
    if isinstance(obj, Node):
        # TaintNodesByCondition: nothing runs on a node before its kubelet says it is ready.
        if any(taint.key == NOT_READY.key and taint.effect == NOT_READY.effect for taint in obj.spec.taints):
            return obj
        return replace(obj, spec=replace(obj.spec, taints=(*obj.spec.taints, NOT_READY)))
    if hasattr(obj, "status"):
        # A status is reported later, by whoever finds it out.
        return replace(obj, status=type(obj)().status)
    return obj


def _given(store: Store, stored: Any, settings: Settings) -> Any:
    """A new object with what it is allocated. What it says it has is not taken for granted."""
    if stored.kind != "Service" or stored.api_version != "v1":
        return stored
    allocator = service_ip.Allocator(settings, store.seed)
    for service in store.list(Service):
        if _key(service) != _key(stored):
            allocator.keep(service)
    return store.update(allocator.fill(allocator.claim(stored)))


def _allocated(store: Store, stored: Any, settings: Settings) -> Any:
    if stored.kind != "Service" or stored.api_version != "v1":
        return stored
    apply(store, service_ip.reconcile(store, settings))
    return store.get("Service", stored.metadata.name, stored.metadata.namespace)


# Status objects


def _status(code: int, reason: str, message: str, details: Json | None = None) -> Json:
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
    }
    if details is not None:
        status["details"] = details
    status["code"] = code
    return status


def _details(obj: AnyObject, word: str) -> Json:
    group = obj.api_version.rpartition("/")[0]
    details: Json = {"name": obj.metadata.name}
    if group:
        details["group"] = group
    return {**details, "kind": word}


def _refusals(found: Causes) -> list[Refusal]:
    return [Refusal(schema.show(cause.path), cause.message, cause.reason) for cause in found]


def _refusal_status(obj: AnyObject, found: tuple[Refusal, ...] | list[Refusal]) -> Json:
    return _invalid(obj.api_version, obj.kind, obj.metadata.name, list(found))


def _invalid_status(manifest: Json, found: Causes) -> Json:
    name = (manifest.get("metadata") or {}).get("name") or ""
    return _invalid(manifest["apiVersion"], manifest["kind"], name, _refusals(found))


def _invalid(api_version: str, kind: str, name: str, found: list[Refusal]) -> Json:
    group = api_version.rpartition("/")[0]
    error = Invalid(f"{kind}.{group}" if group else kind, name, causes=found)
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in found
    ]
    return _status(422, "Invalid", str(error), details)


def spoken(answer: Answer, source: str = "STDIN") -> str:
    """What `kubectl create -f` prints to standard error about an answer; `source` is the file's name."""
    lines = [f"Warning: {text}\n" for text in answer.warnings]
    status = answer.status
    if status is None:
        return "".join(lines)
    if status["reason"] == "Invalid":
        details = status["details"]
        told = [f"{cause['field']}: {cause['message']}" for cause in details["causes"]]
        text = f" {told[0]}" if len(told) == 1 else " \n" + "\n".join(f"* {one}" for one in told)
        lines.append(f'The {details["kind"]} "{details.get("name", "")}" is invalid:{text}\n')
    else:
        what = f'error when creating "{source}": {status["message"]}'
        lines.append(f"Error from server ({status['reason']}): {what}\n")
    return "".join(lines)
