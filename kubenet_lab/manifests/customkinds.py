"""Kinds that CustomResourceDefinitions bring: their fields, and what the API server refuses of them.

The schemas of the Gateway API and of the network policy API are in `customkinds.json` (written by
`generate_customkinds` from the CRDs these projects publish); a CustomResourceDefinition that is read teaches
its own kind. Messages are those of `k8s.io/kube-openapi/pkg/validation`, by way of
`k8s.io/apiextensions-apiserver`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.manifests.schema import Path, Problem, show
from kubenet_lab.manifests.validation.cause import (
    Cause,
    Causes,
    Json,
    invalid,
    required,
    too_many,
    unsupported,
)

KEPT = (
    "type",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
)
"""The parts of a schema that are checked; rules in CEL are not."""


class CustomKind(Struct, frozen=True):
    """A custom kind: its plural, whether it lives in a namespace, and its schema."""

    resource: str
    namespaced: bool
    schema: Json


@functools.cache
def published() -> dict[str, CustomKind]:
    """The kinds known without a definition, by `apiVersion/kind`."""
    data = FilePath(__file__).with_name("customkinds.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, CustomKind])


def nearest(api_version: str, kind: str) -> str:
    """The published kind a name surely means, where it is in the same group and spelled a little otherwise."""
    group = api_version.rpartition("/")[0]
    names = {
        key.rpartition("/")[2].lower(): key
        for key in published()
        if key.rpartition("/")[0].startswith(f"{group}/")
    }
    near = difflib.get_close_matches(kind.lower(), names, 1, 0.88)
    if not near:
        return ""
    version, _, name = names[near[0]].rpartition("/")
    return f"kind: {name} with apiVersion: {version}"


def kinds_of(definition: Json) -> dict[str, CustomKind]:
    """The kinds a CustomResourceDefinition (of `apiextensions.k8s.io/v1`) brings, by `apiVersion/kind`."""
    spec = definition.get("spec") or {}
    names, group = spec.get("names") or {}, spec.get("group") or ""
    found = {}
    for version in spec.get("versions") or []:
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if isinstance(schema, dict) and version.get("served") is not False:
            key = f"{group}/{version.get('name')}/{names.get('kind')}"
            namespaced = (spec.get("scope") or "Namespaced") == "Namespaced"
            found[key] = CustomKind(str(names.get("plural") or ""), namespaced, bare(schema))
    return found


def bare(schema: Any) -> Any:
    """A schema without what is not checked, such as descriptions."""
    if not isinstance(schema, dict):
        return schema
    kept: Json = {}
    for key in KEPT:
        if key not in schema:
            continue
        value = schema[key]
        if key == "properties" and isinstance(value, dict):
            value = {name: bare(inner) for name, inner in value.items()}
        elif key in ("items", "additionalProperties"):
            value = bare(value)
        kept[key] = value
    return kept


def check(document: Json, kind: CustomKind) -> tuple[list[Problem], Causes]:
    """Unknown fields, and refusals, of an object of a custom kind."""
    problems: list[Problem] = []
    refused: Causes = []
    properties = kind.schema.get("properties") or {}
    for name in kind.schema.get("required") or []:
        if document.get(name) is None and name not in ("apiVersion", "kind", "metadata"):
            refused.append(required((name,), help=f"add {name}:"))
    for key, value in document.items():
        if key in ("apiVersion", "kind", "metadata"):
            continue
        if key in properties:
            _walk(value, properties[key], (key,), problems, refused)
        elif not kind.schema.get("x-kubernetes-preserve-unknown-fields"):
            problems.append(_unknown((key,), properties))
    return problems, refused


def _unknown(path: Path, properties: Json) -> Problem:
    lower = {name.lower(): name for name in properties}
    near = difflib.get_close_matches(str(path[-1]).lower(), lower, 1, 0.7)
    shown = ", ".join(sorted(properties)[:12]) + (", ..." if len(properties) > 12 else "")
    help = f'did you mean "{lower[near[0]]}"?' if near else f"the fields here are {shown}" if shown else ""
    return Problem(path, f'strict decoding error: unknown field "{show(path)}"', help, True)


_NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def _walk(value: Any, schema: Json, path: Path, problems: list[Problem], refused: Causes) -> None:
    if value is None:
        return  # a null is dropped where the schema does not ask for one
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            refused.append(_mistyped(value, "integer,string", path))
        return
    wanted, name = schema.get("type"), _NAMES.get(type(value), "object")
    if wanted and wanted != name and not (wanted == "number" and name == "integer"):
        refused.append(_mistyped(value, wanted, path))
        return
    if isinstance(value, dict):
        _object(value, schema, path, problems, refused)
    elif isinstance(value, list):
        _count(len(value), schema, path, refused)
        for index, item in enumerate(value):
            _walk(item, schema.get("items") or {}, (*path, index), problems, refused)
    else:
        refused += _scalar(value, schema, path)


def _object(value: Json, schema: Json, path: Path, problems: list[Problem], refused: Causes) -> None:
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    for name in schema.get("required") or []:
        if value.get(name) is None:
            refused.append(required((*path, name), help=f"add {name}:"))
    open_ended = bool(more) or bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    for key, item in value.items():
        if key in properties:
            _walk(item, properties[key], (*path, key), problems, refused)
        elif isinstance(more, dict):
            _walk(item, more, (*path, key), problems, refused)
        elif not open_ended and not schema.get("x-kubernetes-embedded-resource"):
            problems.append(_unknown((*path, key), properties))


def _mistyped(value: Any, wanted: str, path: Path) -> Cause:
    name = _NAMES.get(type(value), "object")
    detail = f'{show(path)} in body must be of type {wanted}: "{name}"'
    message = f'Invalid value: "{name}": {detail}'
    return Cause(path, "FieldValueTypeInvalid", message, f"{path[-1]} is of type {wanted}")


def _count(count: int, schema: Json, path: Path, refused: Causes) -> None:
    least, most = schema.get("minItems"), schema.get("maxItems")
    if least is not None and count < least:
        refused.append(
            invalid(
                path,
                count,
                f"{show(path)} in body should have at least {least} items",
                f"list at least {least}",
            )
        )
    if most is not None and count > most:
        refused.append(too_many(path, count, most))


def _scalar(value: Any, schema: Json, path: Path) -> Iterator[Cause]:
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        yield unsupported(path, value, [str(item) for item in allowed])
    where = f"{show(path)} in body should"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        yield invalid(path, value, f"{where} be greater than or equal to {least}", f"write {least} or more")
    if most is not None and value > most:
        yield invalid(path, value, f"{where} be less than or equal to {most}", f"write {most} or less")
    if not isinstance(value, str):
        return
    least, most = schema.get("minLength"), schema.get("maxLength")
    if least is not None and len(value) < least:
        yield invalid(path, value, f"{where} be at least {least} chars long")
    if most is not None and len(value) > most:
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")
    pattern = schema.get("pattern")
    if pattern is not None and _matcher(pattern) is not None and not _matches(pattern, value):
        yield invalid(path, value, f"{where} match '{pattern}'")


def _matches(pattern: str, value: str) -> bool:
    matcher = _matcher(pattern)
    return matcher is None or matcher.search(value) is not None


@functools.cache
def _matcher(pattern: str) -> re.Pattern[str] | None:
    """A Go pattern as Python's; None for one that means something else here, which is then not checked."""
    try:
        # `$` is the very end in Go; in Python it also stands before a last line break.
        return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern), re.ASCII)
    except re.error:
        return None
