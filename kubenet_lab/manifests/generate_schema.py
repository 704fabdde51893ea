"""Writes `schema.json`, the field table of every Kubernetes kind, from the `lightkube-models` package.

Run by a developer, once a Kubernetes release, in an environment that has that package (the product does not
need it):

    pip install lightkube lightkube-models && python -m kubenet_lab.manifests.generate_schema

`lightkube-models` is generated from the OpenAPI document Kubernetes publishes. It does not keep two things,
which are restored here by name: which maps hold strings only, and which integers have 64 bits.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import Any

STRING_MAPS = {
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "stringData",
    "parameters",
    "volumeAttributes",
    "matchAttributes",
}
STRING_MAP_FIELDS = {
    "core_v1.ServiceSpec.selector",
    "core_v1.ReplicationControllerSpec.selector",
    "core_v1.ConfigMap.data",
    "core_v1.ConfigMap.binaryData",
    "core_v1.Secret.data",
}
INT64 = {
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "deletionGracePeriodSeconds",
    "generation",
    "observedGeneration",
    "tolerationSeconds",
    "expirationSeconds",
    "runAsUser",
    "runAsGroup",
    "fsGroup",
    "supplementalGroups",
}
PLAIN = {"str": "string", "bool": "bool", "float": "float64", "dict": "object", "Any": "any"}


def main() -> None:
    """Write the table beside this file."""
    types: dict[str, dict[str, str]] = {}
    models = importlib.import_module("lightkube.models")
    for info in pkgutil.iter_modules(models.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"lightkube.models.{info.name}")
        for name, cls in inspect.getmembers(module, inspect.isclass):
            if cls.__module__ == module.__name__ and hasattr(cls, "__struct_fields__"):
                types[f"{info.name}.{name}"] = _fields(info.name, name, cls)
    kinds: dict[str, Any] = {}
    resources = importlib.import_module("lightkube.resources")
    base = importlib.import_module("lightkube.core.resource")
    for info in pkgutil.iter_modules(resources.__path__):
        module = importlib.import_module(f"lightkube.resources.{info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            api = getattr(cls, "_api_info", None)
            if api is None or api.plural is None or "post" not in api.verbs or getattr(api, "parent", None):
                continue
            definition = api.resource
            version = f"{definition.group}/{definition.version}" if definition.group else definition.version
            parent = next(item for item in cls.__mro__ if item.__module__.startswith("lightkube.models."))
            kinds[f"{version}/{definition.kind}"] = {
                "type": f"{parent.__module__.rpartition('.')[2]}.{parent.__name__}",
                "resource": api.plural,
                "namespaced": issubclass(cls, base.NamespacedResource),
            }
    used = _reachable({kind["type"] for kind in kinds.values()}, types)
    for name in used:
        # A type without fields of its own (runtime.RawExtension, meta_v1.FieldsV1) may hold anything.
        types[name] = {field: kind if _known(kind, types) else "any" for field, kind in types[name].items()}
    table = {
        "source": f"lightkube-models {importlib.metadata.version('lightkube-models')}",
        "kinds": dict(sorted(kinds.items())),
        "types": {name: types[name] for name in sorted(used)},
    }
    target = Path(__file__).with_name("schema.json")
    target.write_text(json.dumps(table, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{len(kinds)} kinds, {len(used)} types, {target.stat().st_size} bytes")


def _fields(module: str, owner: str, cls: type) -> dict[str, str]:
    annotations: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ == cls.__module__:
            annotations.update(getattr(base, "__annotations__", {}))
    names = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)  # type: ignore[attr-defined]
    return {
        encoded: _kind(module, f"{module}.{owner}.{encoded}", annotations[name]) for name, encoded in names
    }


def _kind(module: str, path: str, annotation: str) -> str:
    text = annotation.strip("'\"")
    if match := re.fullmatch(r"Optional\[(.*)\]", text):
        text = match[1]
    if match := re.fullmatch(r"List\[(.*)\]", text):
        return "[]" + _kind(module, path, match[1])
    name = path.rpartition(".")[2]
    if text == "dict" and (name in STRING_MAPS or path in STRING_MAP_FIELDS):
        return "map[string]string"
    if text == "int":
        return "int64" if name in INT64 else "int32"
    if text in PLAIN:
        return PLAIN[text]
    if text.endswith("IntOrString"):
        return "int-or-string"
    if text.endswith(("Time", "MicroTime")):
        return "time"
    if text.endswith("Quantity"):
        return "quantity"
    if text.rpartition(".")[2] in (
        "JSON",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrStringArray",
    ):
        return "any"
    return text if "." in text else f"{module}.{text}"


def _known(kind: str, types: dict[str, dict[str, str]]) -> bool:
    element = kind.replace("[]", "")
    return "." not in element or element in types


def _reachable(roots: set[str], types: dict[str, dict[str, str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for kind in types[name].values():
            element = kind.replace("[]", "")
            if element in types:
                waiting.append(element)
    return found


if __name__ == "__main__":
    main()
