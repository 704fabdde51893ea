"""Refusals, worded as the API server words them (`k8s.io/apimachinery/pkg/util/validation/field`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from kubenet_lab.manifests.schema import Path

Json = dict[str, Any]
Causes = list["Cause"]


class Cause(Struct, frozen=True):
    """A refusal.

    Attributes:
        path: Where; a key of a map is a `Key`.
        reason: The API's cause reason: FieldValueRequired, FieldValueInvalid, FieldValueNotSupported,
            FieldValueDuplicate, FieldValueForbidden, FieldValueTooMany or FieldValueTooLong.
        message: What the API server says.
        help: One line on what to write.
        early: Whether the server finds it while it allocates addresses, before it looks at the rest of the
            object: it then tells no other.
    """

    path: Path
    reason: str
    message: str
    help: str = ""
    early: bool = False


def shown(value: Any) -> str:
    """A value as messages show it: JSON without spaces, map keys in order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def invalid(path: Path, value: Any, detail: str, help: str = "", early: bool = False) -> Cause:
    """The value is of the right type, and wrong."""
    message = f"Invalid value: {shown(value)}: {detail}" if detail else f"Invalid value: {shown(value)}"
    return Cause(path, "FieldValueInvalid", message, help or _help(value, detail), early)


def invalids(path: Path, value: Any, details: Iterable[str], help: str = "") -> Causes:
    """One refusal for each thing wrong with a value."""
    return [invalid(path, value, detail, help) for detail in details]


def required(path: Path, detail: str = "", help: str = "") -> Cause:
    """The field is missing or empty."""
    message = f"Required value: {detail}" if detail else "Required value"
    return Cause(path, "FieldValueRequired", message, help)


def forbidden(path: Path, detail: str, help: str = "") -> Cause:
    """The field must not be set together with what else is set."""
    return Cause(path, "FieldValueForbidden", f"Forbidden: {detail}", help or "leave it out")


def duplicate(path: Path, value: Any, help: str = "", early: bool = False) -> Cause:
    """The value must be the only one of its kind."""
    return Cause(path, "FieldValueDuplicate", f"Duplicate value: {shown(value)}", help, early)


def too_many(path: Path, count: int, limit: int) -> Cause:
    """A list is too long."""
    message = f"Too many: {count}: must have at most {limit} items"
    return Cause(path, "FieldValueTooMany", message, f"at most {limit}")


def unsupported(path: Path, value: Any, allowed: Sequence[str], early: bool = False) -> Cause:
    """The value is none of those allowed, which are listed in the server's order."""
    listed = ", ".join(f'"{item}"' for item in allowed)
    message = f"Unsupported value: {shown(value)}: supported values: {listed}"
    lower = value.lower() if isinstance(value, str) else None
    near = next((item for item in allowed if item.lower() == lower), "")
    help = f"write {near}" if near else f"one of {', '.join(allowed)}"
    return Cause(path, "FieldValueNotSupported", message, help, early)


def better_name(name: str) -> str:
    """Help for a name that is none: the same in allowed characters."""
    better = re.sub(r"[^-a-z0-9.]+", "-", name.lower()).strip("-.")
    return f"for example {better}" if better else ""


def _help(value: Any, detail: str) -> str:
    """What follows from the refusal alone."""
    if isinstance(value, str):
        if detail == "must not contain dots":
            return better_name(value.replace(".", "-"))
        if detail.startswith("a lowercase RFC 1123"):
            return better_name(value)
        if detail.startswith("must be a valid CIDR value"):
            return (
                f"write {value}/32" if value.count(".") == 3 and "/" not in value else "address/prefix length"
            )
        if detail == "must not have bits set beyond the prefix length":
            return _masked(value)
    return ""


def _masked(cidr: str) -> str:
    import ipaddress

    try:
        return f"write {ipaddress.ip_network(cidr.strip(), strict=False)}"
    except ValueError:
        return ""
