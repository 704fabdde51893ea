"""Which kinds Kubernetes has, which fields they have, and what is wrong with a document that has others.

The table (`schema.json`, written by `generate_schema`) comes from the OpenAPI document Kubernetes 1.37
publishes. Messages are those of the API server's strict decoding
(`k8s.io/apimachinery/pkg/runtime/serializer/json`), which stops at the first type error; here all are found.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import msgspec
from msgspec import Struct

Path = tuple[str | int, ...]


class Kind(Struct, frozen=True):
    """A kind of Kubernetes' own: the name of its type, its plural, and whether it lives in a namespace."""

    type: str
    resource: str
    namespaced: bool


class Table(Struct, frozen=True):
    """The file's content: kinds by `apiVersion/kind`, and of each type the fields with their types."""

    source: str
    kinds: dict[str, Kind]
    types: dict[str, dict[str, str]]


class Problem(Struct, frozen=True):
    """A field that is unknown or of a wrong type; a lenient reader drops the `unknown`.

    `empty` stands for a list's entry that has to go, so that the others keep their numbers.
    """

    path: Path
    message: str
    help: str
    unknown: bool = False
    empty: Any = None


@functools.cache
def table() -> Table:
    """The table, read on first use (a few milliseconds)."""
    return msgspec.json.decode(FilePath(__file__).with_name("schema.json").read_bytes(), type=Table)


def kind_of(api_version: str, kind: str) -> Kind | None:
    """The kind, or None where Kubernetes has none of that name in that version."""
    return table().kinds.get(f"{api_version}/{kind}")


@functools.cache
def groups() -> frozenset[str]:
    """The API groups that are Kubernetes' own (the core group is "")."""
    return frozenset(key.rpartition("/")[0].rpartition("/")[0] for key in table().kinds)


def nearest_kind(api_version: str, kind: str) -> str:
    """What to write instead of a kind that is not there: `Service (apiVersion: v1)`.

    Empty where nothing is near.
    """
    same = [key for key in table().kinds if key.rpartition("/")[2] == kind]
    if same:
        stable = [key for key in same if "alpha" not in key and "beta" not in key]
        return _spelled((stable or same)[0])
    lower = {key.rpartition("/")[2].lower(): key.rpartition("/")[2] for key in table().kinds}
    near = difflib.get_close_matches(kind.lower(), lower, 1, 0.7)
    if not near:
        return ""
    return nearest_kind(api_version, lower[near[0]])


def _spelled(key: str) -> str:
    version, _, kind = key.rpartition("/")
    return f"kind: {kind} with apiVersion: {version}"


class _Type:
    """A field's type, ready to check values; `go` is how the API server's messages name it."""

    __slots__ = ("fields", "go", "item", "name", "tag")

    def __init__(self, name: str, go: str = "") -> None:
        self.name = name
        self.fields: dict[str, _Type] = {}
        self.item: _Type | None = None
        self.tag = name if name in _SCALARS else "list" if name.startswith("[]") else "struct"
        self.go = go or _SCALARS.get(name, "")
        if self.tag == "list":
            self.item = _type(name[2:], go)
            self.go = "[]" + self.item.go
        elif self.tag == "struct":
            module, _, short = name.partition(".")
            self.go = f"{module.rpartition('_')[2] if '_' in module else module}.{short}"


_SCALARS = {
    "string": "string",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "float64": "float64",
    "map[string]string": "map[string]string",
    "object": "map[string]interface {}",
    "any": "any",
    "int-or-string": "intstr.IntOrString",
    "quantity": "resource.Quantity",
    "time": "v1.Time",
}


_ENUMS = {
    "core_v1": {
        "ServiceSpec": {
            "type": "ServiceType",
            "sessionAffinity": "ServiceAffinity",
            "externalTrafficPolicy": "ServiceExternalTrafficPolicy",
            "internalTrafficPolicy": "ServiceInternalTrafficPolicy",
            "ipFamilies": "IPFamily",
            "ipFamilyPolicy": "IPFamilyPolicy",
        },
        "ServicePort": {"protocol": "Protocol"},
        "ContainerPort": {"protocol": "Protocol"},
        "EndpointPort": {"protocol": "Protocol"},
        "Container": {
            "imagePullPolicy": "PullPolicy",
            "restartPolicy": "ContainerRestartPolicy",
            "terminationMessagePolicy": "TerminationMessagePolicy",
        },
        "PodSpec": {
            "restartPolicy": "RestartPolicy",
            "dnsPolicy": "DNSPolicy",
            "preemptionPolicy": "PreemptionPolicy",
        },
        "HTTPGetAction": {"scheme": "URIScheme"},
        "PodReadinessGate": {"conditionType": "PodConditionType"},
        "Taint": {"effect": "TaintEffect"},
        "Toleration": {"effect": "TaintEffect", "operator": "TolerationOperator"},
        "NamespaceSpec": {"finalizers": "FinalizerName"},
    },
    "discovery_v1": {
        "EndpointSlice": {"addressType": "AddressType"},
        "EndpointPort": {"protocol": "Protocol"},
    },
    "networking_v1": {
        "NetworkPolicySpec": {"policyTypes": "PolicyType"},
        "NetworkPolicyPort": {"protocol": "Protocol"},
        "HTTPIngressPath": {"pathType": "PathType"},
    },
    "apps_v1": {
        "DeploymentStrategy": {"type": "DeploymentStrategyType"},
        "StatefulSetSpec": {"podManagementPolicy": "PodManagementPolicyType"},
        "StatefulSetUpdateStrategy": {"type": "StatefulSetUpdateStrategyType"},
        "DaemonSetUpdateStrategy": {"type": "DaemonSetUpdateStrategyType"},
    },
    "meta_v1": {"LabelSelectorRequirement": {"operator": "LabelSelectorOperator"}},
}
"""Texts whose Go type has a name, which the published schema leaves out and messages tell."""


def _enum(owner: str, field: str) -> str:
    module, _, short = owner.partition(".")
    name = _ENUMS.get(module, {}).get(short, {}).get(field)
    return f"v1.{name}" if name else ""


@functools.cache
def _type(name: str, go: str = "") -> _Type:
    made = _Type(name, go)
    if made.tag == "struct":
        _unfilled.append(made)
    return made


_unfilled: list[_Type] = []


def _resolved(name: str) -> _Type:
    made = _type(name)
    # Types refer to each other in circles, so fields are filled in after the types are made.
    while _unfilled:
        waiting = _unfilled.pop()
        fields = table().types[waiting.name].items()
        waiting.fields = {field: _type(kind, _enum(waiting.name, field)) for field, kind in fields}
    return made


def problems(document: dict[str, Any], type_name: str) -> list[Problem]:
    """All unknown fields and wrong types of an object."""
    root = _resolved(type_name)
    return [] if _fits(document, root) else list(_walk(document, root, (), root.name.partition(".")[2]))


def _fits(value: Any, wanted: _Type) -> bool:
    """Whether there is nothing to complain about; quick, because nearly always there is not."""
    if value is None:
        return True
    tag = wanted.tag
    if tag == "struct":
        if type(value) is not dict:
            return False
        fields = wanted.fields
        for key, item in value.items():
            inner = fields.get(key)
            if inner is None or not (item is None or _fits(item, inner)):
                return False
        return True
    if tag == "list":
        item_type = wanted.item
        assert item_type is not None
        return type(value) is list and all(item is not None and _fits(item, item_type) for item in value)
    return _scalar_fits(value, tag)


def _scalar_fits(value: Any, tag: str) -> bool:
    kind = type(value)
    if tag in ("string", "time"):
        return kind is str
    if tag == "int32":
        return kind is int and -(2**31) <= value < 2**31
    if tag == "int64":
        return kind is int
    if tag == "bool":
        return kind is bool
    if tag == "map[string]string":
        return kind is dict and all(item is None or type(item) is str for item in value.values())
    if tag == "int-or-string":
        return kind is str or (kind is int and -(2**31) <= value < 2**31)
    if tag == "quantity":
        return kind is str or kind is int or kind is float
    if tag == "float64":
        return kind is int or kind is float
    if tag == "object":
        return kind is dict
    return True


def _walk(value: Any, wanted: _Type, path: Path, owner: str) -> Iterator[Problem]:
    if value is None:
        return
    if wanted.tag == "struct" and type(value) is dict:
        for key, item in value.items():
            inner = wanted.fields.get(key)
            if inner is None:
                here = (*path, key)
                yield Problem(
                    here, f'strict decoding error: unknown field "{show(here)}"', _which(key, wanted), True
                )
            else:
                yield from _walk(item, inner, (*path, key), wanted.name.partition(".")[2])
    elif wanted.tag == "list" and type(value) is list:
        assert wanted.item is not None
        for index, item in enumerate(value):
            if item is None:
                message = f"{show((*path, index))}: Required value"
                yield Problem(
                    (*path, index), message, "remove the empty list entry", empty=_empty(wanted.item)
                )
            else:
                yield from _walk(item, wanted.item, (*path, index), owner)
    elif wanted.tag == "map[string]string" and type(value) is dict:
        for key, item in value.items():
            if item is not None and type(item) is not str:
                yield _mismatch(item, _type("string"), (*path, key), owner, path)
    elif wanted.tag in ("struct", "list") or not _scalar_fits(value, wanted.tag):
        yield _mismatch(value, wanted, path, owner, path)


def _empty(wanted: _Type) -> Any:
    """The value Go gives a field of this type that is not set."""
    tag = wanted.tag
    if tag in ("struct", "map[string]string", "object"):
        return {}
    if tag == "list":
        return []
    return (
        0
        if tag in ("int32", "int64", "float64", "int-or-string", "quantity")
        else ""
        if tag != "bool"
        else False
    )


def without(value: dict[str, Any], found: list[Problem]) -> dict[str, Any]:
    """A copy without the fields that have problems; a list keeps its length, so that paths stay right."""
    if not found:
        return value
    import copy

    kept = copy.deepcopy(value)
    for problem in found:
        at: Any = kept
        for step in problem.path[:-1]:
            at = at[step]
        last = problem.path[-1]
        if isinstance(last, int):
            at[last] = problem.empty
        else:
            at.pop(last, None)
    return kept


def _mismatch(value: Any, wanted: _Type, path: Path, owner: str, spoken: Path) -> Problem:
    names = ".".join(step for step in spoken if isinstance(step, str))
    told = _json_name(value, wanted.name)
    message = f"json: cannot unmarshal {told} into Go struct field {owner}.{names} of type {wanted.go}"
    return Problem(path, message, _expected(value, wanted, path), empty=_empty(wanted))


def _json_name(value: Any, go: str) -> str:
    """What the JSON decoder calls a value; it shows a number that is no integer or too big for one."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}" if go in ("int32", "int64") else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def _expected(value: Any, wanted: _Type, path: Path) -> str:
    """One line on what to write."""
    go = _SCALARS.get(wanted.name, wanted.go)
    name = next((step for step in reversed(path) if isinstance(step, str)), "this field")
    if go.startswith("[]"):
        return f'{name} is a list: begin each entry with "- "'
    if go == "string":
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        return (
            f'{name} is text: put it in quotes, "{shown}"'
            if not isinstance(value, dict | list)
            else f"{name} is text"
        )
    if go in ("int32", "int64"):
        if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
            return f"{name} is a whole number: write {value.strip()} without quotes"
        return f"{name} is a whole number" + (", at most 2147483647" if isinstance(value, int) else "")
    if go == "bool":
        return f"{name} is true or false, without quotes"
    if go == "intstr.IntOrString":
        return f"{name} is a whole number or a text"
    if go.startswith("map["):
        return f'{name} is an object: lines of "key: value" indented below it'
    if path and isinstance(path[-1], int):
        return f'each entry of {name} is an object: write its fields after "- "'
    return f"{name} is an object: its fields are indented below it"


def _which(key: str, wanted: _Type) -> str:
    """The valid field nearest to an unknown one, or the fields there are."""
    lower = {field.lower(): field for field in wanted.fields}
    near = difflib.get_close_matches(key.lower(), lower, 1, 0.7)
    if near:
        return f'did you mean "{lower[near[0]]}"?'
    fields = sorted(wanted.fields)
    shown = ", ".join(fields[:12]) + (", ..." if len(fields) > 12 else "")
    return f"the fields here are {shown}"


def show(path: Path) -> str:
    """A path as the API server writes it: `spec.ports[0].port`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
