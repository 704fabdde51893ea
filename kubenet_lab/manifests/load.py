"""Manifests to objects: files, folders, standard input or text; all faults at once, nothing half-read.

Equals `kubectl apply --validate=strict -f FILE...` up to the point where the objects are stored.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import msgspec
from msgspec import Struct

from kubenet_lab.errors import Cause, Fault, InputError
from kubenet_lab.manifests import customkinds, schema
from kubenet_lab.manifests.text import Document, documents
from kubenet_lab.manifests.validation import Causes, causes
from kubenet_lab.manifests.validation.warning import DEPRECATED
from kubenet_lab.manifests.validation.warning import warnings as accepted_with
from kubenet_lab.objects import AnyObject, from_manifest

SUFFIXES = (".json", ".yaml", ".yml")
"""The files of a folder that are read."""

MAX_FAULTS = 1000
"""After how many faults reading stops."""

MAX_BYTES = 1 << 30
"""How large an input may be."""


class ManifestWarning(UserWarning):
    """Something in a manifest that a cluster would accept, and that was probably not meant."""


class Manifests(Struct, frozen=True):
    """What was read: the objects in the order of the text, and what was odd about it."""

    objects: tuple[AnyObject, ...]
    warnings: tuple[Fault, ...] = ()


class Refusal(Struct, frozen=True):
    """What is wrong with one object of a set because of the others, or of what the cluster has already.

    Attributes:
        index: Which of the objects.
        cause: Field, message and reason.
        help: One line on what to write.
        other: The object it collides with, if it is one of the set.
    """

    index: int
    cause: Cause
    help: str = ""
    other: int | None = None


class Origin(Struct, frozen=True):
    """Where an object was read: its file, the how-manieth text part of it, and the path in there."""

    file: str
    part: int
    at: schema.Path


class Checked(Struct, frozen=True):
    """What was read although some of it is wrong.

    Attributes:
        objects: Those that could be decoded, refused ones among them, in the order of the text.
        origins: Where each of them stands.
        refused: Which of them have faults of their own already.
        faults, warnings: What is wrong, and what the API server warns of.
    """

    objects: tuple[AnyObject, ...]
    origins: tuple[Origin, ...]
    refused: frozenset[int]
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]


def load(
    *sources: str | Path | list[str] | tuple[str, ...],
    lenient: bool = False,
    namespace: str = "default",
    stdin: TextIO | None = None,
) -> list[AnyObject]:
    """Read manifests into objects; `kubectl create --dry-run=client -f SOURCE...`.

    Args:
        sources: Paths of files and folders (read with all below them), `-` for standard input, or YAML or
            JSON text (a string with a line break, or one that begins with `{`). A list of them is the same as
            them one by one.
        lenient: Drop unknown fields with a warning, as `--validate=warn` does, instead of refusing them.
        namespace: Where objects go that name no namespace.
        stdin: What `-` reads, by default standard input.

    Returns:
        The objects in the order they were written, as written: no defaults are filled in (the store does
        that).

    Raises:
        InputError: With every fault there is.

    Warns:
        ManifestWarning: For what a cluster accepts but is probably a mistake: a key that comes twice; unknown
            fields if lenient.
    """
    found = read(*sources, lenient=lenient, namespace=namespace, stdin=stdin)
    for warning in found.warnings:
        warnings.warn(str(warning), ManifestWarning, stacklevel=2)
    return list(found.objects)


def read(
    *sources: str | Path | list[str] | tuple[str, ...],
    lenient: bool = False,
    namespace: str = "default",
    stdin: TextIO | None = None,
) -> Manifests:
    """As `load`, with the warnings as values."""
    faults: list[Fault] = []
    reader = _Reader(lenient, namespace, faults)
    flat = [item for source in sources for item in (source if isinstance(source, list | tuple) else [source])]
    with without_collector():
        for file, text in _texts(flat, faults, stdin):
            reader.read(text, file)
            if len(faults) > MAX_FAULTS:
                break
    if faults:
        raise InputError(faults)
    if not reader.objects:
        raise InputError(
            [Fault("no objects passed to create", _names(flat), help="the input holds no manifest")]
        )
    return Manifests(tuple(reader.objects), tuple(reader.warnings))


def check(
    *sources: str | Path,
    lenient: bool = False,
    namespace: str = "default",
    stdin: TextIO | None = None,
    changes: Iterable[AnyObject] = (),
) -> Checked:
    """As `read`, but faults are an answer too, and what the API server warns of is told.

    Args:
        sources, lenient, namespace, stdin: As for `load`.
        changes: Objects the cluster has. One of the same kind and name is a change, which the API server validates
            only when it has filled in what is kept (`kubenet_lab.admission.admit`); here it is only decoded.
    """
    faults: list[Fault] = []
    reader = _Reader(lenient, namespace, faults, checking=True)
    reader.changes = {
        (obj.api_version, obj.kind, obj.metadata.namespace, obj.metadata.name) for obj in changes
    }
    with without_collector():
        for file, text in _texts(list(sources), faults, stdin):
            reader.read(text, file)
            if len(faults) > MAX_FAULTS:
                break
    if not faults and not reader.objects:
        name = _names(list(sources))
        faults.append(Fault("no objects passed to create", name, help="the input holds no manifest"))
    return Checked(
        tuple(reader.objects),
        tuple(reader.origins),
        frozenset(reader.refused),
        tuple(faults),
        tuple(reader.warnings),
    )


def decoded(*sources: str | Path, stdin: TextIO | None = None) -> list[dict[str, Any]]:
    """Objects as a cluster might hold them, as plain values: nothing is validated, unknown fields and kinds stay.

    Args:
        sources, stdin: As for `load`. No object at all is an answer too.

    Raises:
        InputError: For a text that is no YAML or JSON, and a value of a type that no client could decode.
    """
    faults: list[Fault] = []
    reader = _Decoder(True, "default", faults)
    with without_collector():
        for file, text in _texts(list(sources), faults, stdin):
            reader.read(text, file)
            if len(faults) > MAX_FAULTS:
                break
    if faults:
        raise InputError(faults)
    return reader.values


def placed(
    checked: Checked, refusals: Iterable[Refusal], *sources: str | Path, stdin: TextIO | None = None
) -> tuple[Fault, ...]:
    """All faults of a set in the order of the text: those of `check`, and these refusals at their places.

    The sources are read once more if there are refusals, because places are not kept while reading.
    """
    found = list(refusals)[: max(0, MAX_FAULTS - len(checked.faults))]
    if not found:
        return checked.faults
    asked = {index for refusal in found for index in (refusal.index, refusal.other) if index is not None}
    wanted: dict[str, dict[int, list[int]]] = {}
    for index in sorted(asked):
        origin = checked.origins[index]
        wanted.setdefault(origin.file, {}).setdefault(origin.part, []).append(index)
    places: dict[int, _Place] = {}
    order: dict[str, int] = {}
    for file, text in _texts(list(sources), [], stdin):
        order.setdefault(file, len(order))
        parts = wanted.pop(file, None)
        for number, document in enumerate(documents(text, file)) if parts else ():
            for index in (parts or {}).get(number, ()):
                if isinstance(document, Document):
                    at = checked.origins[index].at
                    places[index] = _Place(document, file, at, checked.objects[index].to_manifest())
    told = [*checked.faults, *(_told(refusal, checked, places) for refusal in found)]
    return tuple(sorted(told, key=lambda fault: (order.get(fault.file, -1), fault.line, fault.column)))


def _told(refusal: Refusal, checked: Checked, places: dict[int, _Place]) -> Fault:
    """A refusal as a fault at its place; without a line where the file is not what it was."""
    obj, cause, help = checked.objects[refusal.index], refusal.cause, refusal.help
    if refusal.other is not None:
        other = places.get(refusal.other)
        where = checked.origins[refusal.other].file
        if other is not None:
            where += f":{other.document.place(other.at)[0]}"
        help = f"{help}{' ' if help else ''}{where}"
    place = places.get(refusal.index)
    if place is None:
        file = checked.origins[refusal.index].file
        return Fault(
            cause.message, file, path=cause.field, help=help, kind=obj.kind, name=obj.metadata.name,
            reason=cause.reason,
        )  # fmt: skip
    fault = place.fault(
        _steps(cause.field or "metadata.name", place), cause.message, help, reason=cause.reason
    )
    return msgspec.structs.replace(fault, path=cause.field)


_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


def _steps(field: str, place: _Place) -> schema.Path:
    """`spec.ports[0].port` as the steps of a path; `spec.clusterIP` for `spec.clusterIPs` where that was written."""
    steps: list[str | int] = []
    value: Any = place.document.value
    for step in place.at:
        value = value[step]
    for match in _STEP.finditer(field):
        step = int(match[1]) if (match[1] or "").isdigit() else match[1] or match[2]
        if isinstance(value, dict) and isinstance(step, str) and step not in value:
            single = step.removesuffix("s")
            step = single if single in value else step
        steps.append(step)
        inside = isinstance(value, dict) or (isinstance(value, list) and isinstance(step, int))
        try:
            value = value[step] if inside else None
        except (KeyError, IndexError):
            value = None
    return tuple(steps)


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Put the garbage collector off: many values are made and none of them refers to itself, so looking through
    all of them again and again, which takes a third of the time, finds nothing.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _names(sources: list[str | Path]) -> str:
    return ", ".join(_name(source) for source in sources) or "<nothing>"


def _name(source: str | Path) -> str:
    if source == "-":
        return "<stdin>"
    return "<text>" if isinstance(source, str) and _is_text(source) else str(source)


def _is_text(source: str) -> bool:
    return "\n" in source or source.lstrip().startswith("{")


def _texts(
    sources: list[str | Path], faults: list[Fault], stdin: TextIO | None
) -> Iterator[tuple[str, str | bytes]]:
    """Each source's name and text, folders opened up; what cannot be read becomes a fault."""
    for source in sources:
        if source == "-":
            yield from _stdin(stdin or sys.stdin, faults)
        elif isinstance(source, str) and _is_text(source):
            yield "<text>", source
        else:
            yield from _file(Path(source), faults)


def _stdin(stream: TextIO, faults: list[Fault]) -> Iterator[tuple[str, str | bytes]]:
    try:
        text = up_to_limit(getattr(stream, "buffer", stream))
    except (UnicodeDecodeError, OSError) as error:
        faults.append(Fault(f"standard input cannot be read: {error}", "<stdin>", help="give UTF-8 text"))
        return
    if len(text) > MAX_BYTES:
        faults.append(_too_large("<stdin>"))
        return
    yield "<stdin>", text


def up_to_limit(stream: Any) -> Any:
    """All of a stream, or, of one without end, a little more than is allowed."""
    parts, size = [], 0
    while size <= MAX_BYTES:
        part = stream.read(1 << 20)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return (b"" if parts and isinstance(parts[0], bytes) else "").join(parts)


def _too_large(name: str) -> Fault:
    limit = MAX_BYTES // 1_000_000
    return Fault(f"the input is larger than {limit:,} MB", name, help="split it into several files")


def _file(path: Path, faults: list[Fault]) -> Iterator[tuple[str, str | bytes]]:
    try:
        folder = path.is_dir()
    except OSError as error:  # a text that was meant as one, too long for a path
        short = f"{str(path)[:40]}..."
        faults.append(Fault(f"the file cannot be read: {error.strerror}", short, help="name a file"))
        return
    if folder:
        files = sorted(item for item in path.rglob("*") if item.suffix in SUFFIXES and item.is_file())
        if not files:
            message = f"error reading [{path}]: recognized file extensions are [{' '.join(SUFFIXES)}]"
            faults.append(Fault(message, str(path), help="the folder holds no such file"))
        for file in files:
            yield from _file(file, faults)
        return
    try:
        data = _whole(path)
    except FileNotFoundError:
        faults.append(Fault(f'the path "{path}" does not exist', str(path), help=_nearest_file(path)))
    except OSError as error:
        faults.append(Fault(f"the file cannot be read: {error.strerror}", str(path)))
    else:
        if isinstance(data, Fault):
            faults.append(data)
        else:
            yield str(path), data


def _whole(path: Path) -> bytes | Fault:
    """A file's bytes, all of one moment."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > MAX_BYTES:
            return _too_large(str(path))
        data: bytes = file.read() if stat.S_ISREG(before.st_mode) else up_to_limit(file)
        after = os.fstat(file.fileno())
    if len(data) > MAX_BYTES:
        return _too_large(str(path))
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    if stat.S_ISREG(after.st_mode) and (changed or len(data) != after.st_size):
        return Fault("the file changed while it was read", str(path), help="read it again when it is written")
    return data


def _nearest_file(path: Path) -> str:
    import difflib

    try:
        names = [item.name for item in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {path.parent} either"
    near = difflib.get_close_matches(path.name, names, 1, 0.6)
    return f"did you mean {path.parent / near[0]}?" if near else ""


class _Reader:
    """Turns texts into objects, and collects faults instead of stopping at the first."""

    def __init__(self, lenient: bool, namespace: str, faults: list[Fault], checking: bool = False) -> None:
        self.lenient, self.namespace = lenient, namespace
        self.faults = faults
        self.checking = checking
        """Whether refused objects are kept, origins too, and the server's warnings told."""
        self.origins: list[Origin] = []
        self.refused: set[int] = set()
        self.changes: set[tuple[str, str, str, str]] = set()
        self.part = 0
        self.warnings: list[Fault] = []
        self.objects: list[AnyObject] = []
        self.custom: dict[str, customkinds.CustomKind] = {}

    def read(self, text: str | bytes, file: str) -> None:
        """All documents of one text."""
        for self.part, document in enumerate(documents(text, file)):
            if len(self.faults) >= MAX_FAULTS:
                message = f"reading stopped after {MAX_FAULTS:,} faults"
                self.faults.append(Fault(message, file, help="is this the right file?"))
                return
            if isinstance(document, Fault):
                self.faults.append(document)
            elif document.value is not None:
                for path in document.duplicates:
                    line, column = document.place(path, key=True)
                    message = f'key "{path[-1]}" already set in map; the last one counts'
                    where = schema.show(path)
                    self.warnings.append(
                        Fault(message, file, line, column, document.number, where, "remove one of the two")
                    )
                value = _with_type(document.value, document.of) if document.of else document.value
                self._value(value, (), document, file)

    def _value(self, value: Any, at: schema.Path, document: Document, file: str) -> None:
        """One object, or a `List` of them, at a path of the document."""
        if isinstance(value, dict):
            api_version, kind = value.get("apiVersion"), value.get("kind")
            if type(api_version) is str and type(kind) is str and api_version and kind:
                if kind.endswith("List") and isinstance(value.get("items"), list):
                    for index, item in enumerate(value["items"]):
                        self._value(_with_type(item, value), (*at, "items", index), document, file)
                else:
                    self._object(value, _Place(document, file, at, value))
                return
        place = _Place(document, file, at, {})
        if not isinstance(value, dict):
            self.faults.append(
                place.fault(
                    (), "invalid object to validate", "a manifest is an object with apiVersion and kind"
                )
            )
            return
        missing = [key for key in ("apiVersion", "kind") if not value.get(key)]
        for key in missing:
            example = "v1" if key == "apiVersion" else "Service"
            hint = f"add {key}:, for example {key}: {example}"
            if key == "apiVersion" and isinstance(value.get("kind"), str):
                near = schema.nearest_kind("", value["kind"])
                hint = f"write {near}" if near else hint
            self.faults.append(place.fault((), f"{key} not set", hint))
        wrong = [key for key in ("apiVersion", "kind") if value.get(key) and not isinstance(value[key], str)]
        for key in wrong:
            self.faults.append(place.fault((key,), f"{key} must be a string", f"{key} is text"))

    def _object(self, value: dict[str, Any], place: _Place) -> None:
        api_version, kind_name = value["apiVersion"], value["kind"]
        kind = schema.kind_of(api_version, kind_name)
        if kind is None and _custom(api_version):
            self._custom_object(value, place)
            return
        if kind is None:
            near = schema.nearest_kind(api_version, kind_name)
            self.faults.append(
                place.fault(
                    ("kind",),
                    f'no matches for kind "{kind_name}" in version "{api_version}"',
                    f"did you mean {near}?" if near else "ensure CRDs are installed first",
                )
            )
            return
        before = len(self.faults)
        value, wrong = self._without_problems(value, schema.problems(value, kind.type), place)
        refused = [] if self._is_change(value, kind.namespaced) else causes(value, True)
        self._refuse(refused, wrong, place)
        if self.checking:
            self._warn(value, len(self.faults) == before, place)
        if len(self.faults) == before:
            self._keep(value, kind.namespaced, kind.resource, place)
            if kind.type == "apiextensions_v1.CustomResourceDefinition":
                self.custom.update(customkinds.kinds_of(value))
        elif self.checking and not wrong and not any(cause.early for cause in refused):
            self._keep(value, kind.namespaced, kind.resource, place, refused=True)

    def _is_change(self, value: dict[str, Any], namespaced: bool) -> bool:
        metadata = value.get("metadata")
        if not self.changes or not isinstance(metadata, dict):
            return False
        namespace = (metadata.get("namespace") or self.namespace) if namespaced else ""
        return (value["apiVersion"], value["kind"], namespace, metadata.get("name") or "") in self.changes

    def _warn(self, value: dict[str, Any], accepted: bool, place: _Place) -> None:
        """Tell what the API server warns of: of an old version always, of the rest when it accepts."""
        old = DEPRECATED.get(f"{value['apiVersion']}/{value['kind']}")
        told = ([old] if old else []) + (accepted_with(value) if accepted else [])
        self.warnings += [place.fault((), text, "", reason="Warning") for text in told]

    def _custom_object(self, value: dict[str, Any], place: _Place) -> None:
        """An object of a kind that a CustomResourceDefinition brings, one of those read or a published one."""
        key = f"{value['apiVersion']}/{value['kind']}"
        kind = self.custom.get(key) or customkinds.published().get(key)
        before = len(self.faults)
        # Its metadata is everybody's.
        found = schema.problems({"metadata": value.get("metadata")}, "core_v1.Namespace")
        refused: Causes = []
        if kind is not None:
            unknown, refused = customkinds.check(value, kind)
            found = [*found, *unknown]
        elif near := customkinds.nearest(value["apiVersion"], value["kind"]):
            message = f'no matches for kind "{value["kind"]}" in version "{value["apiVersion"]}"'
            self.faults.append(place.fault(("kind",), message, f"did you mean {near}?"))
        value, wrong = self._without_problems(value, found, place)
        self._refuse([*causes(value, False), *refused], wrong, place)
        if len(self.faults) == before:
            named = bool((value.get("metadata") or {}).get("namespace"))
            self._keep(value, kind.namespaced if kind else named, kind.resource if kind else "", place)

    def _refuse(self, found: Causes, wrong: list[schema.Path], place: _Place) -> None:
        """Tell refusals. What could not be decoded is judged no further; the rest of the object still is."""
        for cause in found:
            if not any(path[: len(cause.path)] == cause.path[: len(path)] for path in wrong):
                self.faults.append(place.fault(cause.path, cause.message, cause.help, reason=cause.reason))

    def _keep(
        self, value: dict[str, Any], namespaced: bool, resource: str, place: _Place, refused: bool = False
    ) -> None:
        try:
            obj = from_manifest(value, namespaced, resource, nulls=place.document.has_nulls)
        except msgspec.ValidationError as error:
            # A field a type insists on; what is wrong is in the message, with its path.
            if not refused:
                self.faults.append(place.fault((), str(error), ""))
            return
        if namespaced and not obj.metadata.namespace:
            obj = obj.with_metadata(namespace=self.namespace)
        if self.checking:
            self.origins.append(Origin(place.file, self.part, place.at))
            if refused:
                self.refused.add(len(self.objects))
        self.objects.append(obj)

    def _without_problems(
        self, value: dict[str, Any], found: list[schema.Problem], place: _Place
    ) -> tuple[dict[str, Any], list[schema.Path]]:
        """The object without what strict decoding objects to, and where that was.

        A problem is a fault; an unknown field, to a lenient reader, a warning.
        """
        if not found:
            return value, []
        secret = (value["apiVersion"], value["kind"]) == ("v1", "Secret")
        for problem in found:
            # What is in a Secret is not repeated, not even as advice.
            help = "" if secret and not problem.unknown else problem.help
            fault = place.fault(problem.path, problem.message, help, at_key=problem.unknown)
            if problem.unknown and self.lenient:
                self.warnings.append(fault)
            else:
                self.faults.append(fault)
        # A field that is dropped with a warning excuses nothing.
        wrong = [problem.path for problem in found if not (problem.unknown and self.lenient)]
        return schema.without(value, found), wrong


class _Decoder(_Reader):
    """A reader that asks of an object only whether its values are of the types the API gives them."""

    def __init__(self, lenient: bool, namespace: str, faults: list[Fault]) -> None:
        super().__init__(lenient, namespace, faults)
        self.values: list[dict[str, Any]] = []

    def _object(self, value: dict[str, Any], place: _Place) -> None:
        kind = schema.kind_of(value["apiVersion"], value["kind"])
        if kind is not None:
            self._without_problems(value, schema.problems(value, kind.type), place)
        self.values.append(value)


class _Place(Struct, frozen=True):
    """Where an object stands: its document, file, and path in the document (not empty inside a List)."""

    document: Document
    file: str
    at: schema.Path
    value: dict[str, Any]

    def fault(
        self, path: schema.Path, message: str, help: str, *, reason: str = "BadRequest", at_key: bool = False
    ) -> Fault:
        """A fault at a path of the object."""
        line, column = self.document.place((*self.at, *path), key=at_key)
        where = schema.show(path)
        # Advice to put something in quotes shows it as it was written: 1.10, not 1.1.
        written = self.document.written((*self.at, *path))
        if written and help.endswith('"') and "in quotes" in help:
            help = help[: help.index('"')] + f'"{written}"'
        kind, metadata = self.value.get("kind", ""), self.value.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        name = name if isinstance(name, str) else ""
        number = self.document.number
        return Fault(message, self.file, line, column, number, where, help, kind, name, reason)


def _custom(api_version: str) -> bool:
    """Whether the group can only be a CustomResourceDefinition's: it has a dot and is not one of Kubernetes'
    own.
    """
    group = api_version.rpartition("/")[0]
    return "." in group and group not in schema.groups()


def _with_type(item: Any, listing: dict[str, Any]) -> Any:
    """An entry of a typed list (`PodList`) leaves out what the list's kind says already."""
    if listing["kind"] != "List" and isinstance(item, dict) and "kind" not in item:
        kind = listing["kind"].removesuffix("List")
        return {"apiVersion": item.get("apiVersion", listing["apiVersion"]), "kind": kind, **item}
    return item
