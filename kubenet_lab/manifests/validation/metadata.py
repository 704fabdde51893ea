"""Names, labels and annotations (`k8s.io/apimachinery/pkg/api/validation`), and label selectors."""

from __future__ import annotations

from typing import Any

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Cause,
    Causes,
    Json,
    better_name,
    forbidden,
    invalid,
    invalids,
    required,
)
from kubenet_lab.manifests.validation.values import (
    NOT_NEGATIVE,
    dns_label,
    dns_subdomain,
    label_value,
    qualified_name,
)

MAX_ANNOTATIONS = 256 * 1024

_LABEL_KINDS = frozenset({"v1/Namespace", "v1/Service", "apps/v1/StatefulSet"})
_FREE_KINDS = frozenset(
    {
        "rbac.authorization.k8s.io/v1/Role",
        "rbac.authorization.k8s.io/v1/ClusterRole",
        "rbac.authorization.k8s.io/v1/RoleBinding",
        "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
    }
)
"""Kinds whose names are path segments: `system:node` is one."""


def metadata(document: Json, kind: str, typed: bool) -> Causes:
    """What is wrong with an object's name, labels and annotations."""
    meta = document.get("metadata") or {}
    found: Causes = []
    name, prefix = meta.get("name"), meta.get("generateName")
    if not name and not prefix:
        path: Path = ("metadata", "name")
        found.append(
            required(path, "name or generateName is required", "add name: to metadata"),
        )
    if not typed:
        return found
    if isinstance(name, str) and name:
        for text in _name(kind, name):
            found.append(invalid(("metadata", "name"), name, text, better_name(name)))
    elif isinstance(prefix, str) and prefix:
        for text in _name(kind, prefix[:-2] + "a" if prefix.endswith("-") else prefix):
            found.append(invalid(("metadata", "generateName"), prefix, text))
    if meta.get("labels"):
        found += labels(meta["labels"], ("metadata", "labels"))
    if meta.get("annotations"):
        found += annotation_keys(meta["annotations"], ("metadata", "annotations"))
    if (meta.get("generation") or 0) < 0:
        found.append(invalid(("metadata", "generation"), meta["generation"], NOT_NEGATIVE))
    return found


def _name(kind: str, name: str) -> list[str]:
    if kind in _LABEL_KINDS:
        return dns_label(name)
    if kind in _FREE_KINDS:
        if name in (".", ".."):
            return [f"may not be '{name}'"]
        return [f"may not contain '{letter}'" for letter in "/%" if letter in name]
    return dns_subdomain(name)


def labels(given: Json, path: Path) -> Causes:
    """Label keys and values; the API server names the map, not the key, as the place."""
    found: Causes = []
    for key, value in given.items():
        for text in qualified_name(key):
            found.append(invalid(path, key, text))
        if isinstance(value, str):
            for text in label_value(value):
                found.append(invalid(path, value, text, f"the value of label {key}"))
    return found


def annotation_keys(given: Json, path: Path) -> Causes:
    """Annotation keys, and the size of them all."""
    found: Causes = []
    size = 0
    for key, value in given.items():
        for text in qualified_name(key.lower()):
            found.append(invalid(path, key, text))
        size += len(key) + len(value or "")
    if size > MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        found.append(Cause(path, "FieldValueTooLong", message))
    return found


def selector(given: Json | None, path: Path) -> Causes:
    """A label selector."""
    if not given:
        return []
    found: Causes = []
    if given.get("matchLabels"):
        found += labels(given["matchLabels"], (*path, "matchLabels"))
    for index, expression in enumerate(given.get("matchExpressions") or []):
        found += _requirement(expression, (*path, "matchExpressions", index))
    return found


def _requirement(given: Json, path: Path) -> Causes:
    found: Causes = []
    operator, values = given.get("operator") or "", given.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            found.append(required((*path, "values"), "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            found.append(forbidden((*path, "values"), text))
    else:
        found.append(
            invalid(
                (*path, "operator"),
                operator,
                "not a valid selector operator",
                "one of In, NotIn, Exists, DoesNotExist",
            )
        )
    key = given.get("key") or ""
    found += invalids((*path, "key"), key, qualified_name(key))
    for index, value in enumerate(values):
        found += invalids((*path, "values", index), value, label_value(value))
    return found


def selects(given: Json | None, labels: Json) -> bool | None:
    """Whether a selector means an object with these labels; None for one that cannot be read.

    A selector that is missing means nothing.
    """
    if given is None:
        return False
    if any(labels.get(key) != value for key, value in (given.get("matchLabels") or {}).items()):
        return False
    for expression in given.get("matchExpressions") or []:
        met = _meets(expression, labels)
        if not met:
            return met
    return True


def _meets(expression: Json, labels: Json) -> bool | None:
    key: Any = expression.get("key")
    operator, values = expression.get("operator"), expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values if values else None
    if operator == "NotIn":
        return labels.get(key) not in values if values else None
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    return None
