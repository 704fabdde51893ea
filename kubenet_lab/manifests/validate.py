"""What the API server refuses although every field is known and of the right type.

Here are the rules without which no world can be built: names, containers, ports, selectors. Messages and
cause reasons are those of `pkg/apis/*/validation` of Kubernetes 1.37, checked against recorded answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from kubenet_lab.manifests.schema import Path
from kubenet_lab.objects import matches_map

Json = dict[str, Any]


class Cause(Struct, frozen=True):
    """A refusal: `reason` is FieldValueRequired, FieldValueInvalid or FieldValueNotSupported."""

    path: Path
    reason: str
    message: str
    help: str = ""


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must "
    "start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for "
    "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
    "validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", re.ASCII)
_QUALIFIED_TEXT = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
    "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_PORT_TEXT = "must be between 1 and 65535, inclusive"
_LABEL_KINDS = ("v1/Namespace", "v1/Service")


def causes(document: Json, typed: bool) -> Iterator[Cause]:
    """All refusals of one object; `typed` says it is one of Kubernetes' own kinds."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    metadata = document.get("metadata") or {}
    yield from _name(metadata, kind in _LABEL_KINDS, typed)
    if typed:
        yield from _labels(metadata.get("labels") or {}, ("metadata", "labels"))
    check = _CHECKS.get(kind)
    if check is not None:
        yield from check(document)


def _name(metadata: Json, label: bool, typed: bool) -> Iterator[Cause]:
    name = metadata.get("name")
    if not name:
        if not metadata.get("generateName"):
            yield Cause(
                ("metadata", "name"),
                "FieldValueRequired",
                "Required value: name or generateName is required",
                "add name: to metadata",
            )
        return
    if not typed or not isinstance(name, str):
        return
    if label:
        yield from _rfc1123_label(("metadata", "name"), name)
    elif not _SUBDOMAIN.fullmatch(name):
        yield _invalid(("metadata", "name"), name, _SUBDOMAIN_TEXT, _better_name(name))
    elif len(name) > 253:
        yield _invalid(("metadata", "name"), name, "must be no more than 253 characters")


def _labels(labels: Json, path: Path) -> Iterator[Cause]:
    """Label keys and values; the API server names the map, not the key, as the place."""
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if "/" in prefix:
            optional = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            yield _invalid(path, key, "a valid label key " + _QUALIFIED_TEXT + optional)
            continue
        if not name or not _QUALIFIED.fullmatch(name):
            yield _invalid(path, key, "name part " + _QUALIFIED_TEXT)
        elif len(name) > 63:
            yield _invalid(path, key, "name part must be no more than 63 bytes")
        if slash and not _SUBDOMAIN.fullmatch(prefix):
            yield _invalid(path, key, "prefix part " + _SUBDOMAIN_TEXT)
        if isinstance(value, str) and value and not _QUALIFIED.fullmatch(value):
            yield _invalid(path, value, _VALUE_TEXT, f"the value of label {key}")
        elif isinstance(value, str) and len(value) > 63:
            yield _invalid(path, value, "must be no more than 63 bytes", f"the value of label {key}")


def _rfc1123_label(path: Path, name: str) -> Iterator[Cause]:
    if "." in name:
        yield _invalid(path, name, "must not contain dots", _better_name(name.replace(".", "-")))
    elif not _LABEL.fullmatch(name):
        yield _invalid(path, name, _LABEL_TEXT, _better_name(name))
    if len(name) > 63:
        yield _invalid(path, name, "must be no more than 63 characters")


def _better_name(name: str) -> str:
    better = re.sub(r"[^-a-z0-9.]+", "-", name.lower()).strip("-.")
    return f"for example {better}" if better else ""


def _invalid(path: Path, value: Any, detail: str, help: str = "") -> Cause:
    shown = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Cause(path, "FieldValueInvalid", f"Invalid value: {shown}: {detail}", help)


def _required(path: Path, help: str = "") -> Cause:
    return Cause(path, "FieldValueRequired", "Required value", help)


def _unsupported(path: Path, value: str, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{item}"' for item in allowed)
    message = f'Unsupported value: "{value}": supported values: {listed}'
    near = next((item for item in allowed if item.lower() == value.lower()), "")
    return Cause(
        path, "FieldValueNotSupported", message, f"write {near}" if near else f"one of {', '.join(allowed)}"
    )


_SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def _service(document: Json) -> Iterator[Cause]:
    spec = document.get("spec") or {}
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or []
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield _required(("spec", "ports"), "a Service needs a port unless it is headless (clusterIP: None)")
    names: set[str] = set()
    for index, port in enumerate(ports):
        path: Path = ("spec", "ports", index)
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            yield _required((*path, "name"), "each of several ports needs a name")
        if name and name in names:
            yield Cause(
                (*path, "name"),
                "FieldValueDuplicate",
                f'Duplicate value: "{name}"',
                "give each port its own name",
            )
        names.add(name)
        number, target = port.get("port") or 0, port.get("targetPort")
        if not 1 <= number <= 65535:
            yield _invalid((*path, "port"), number, _PORT_TEXT)
        protocol = port.get("protocol") or "TCP"
        if protocol not in _PROTOCOLS:
            yield _unsupported((*path, "protocol"), protocol, _PROTOCOLS)
        # Defaults are filled in first: without a target the port is the target, and both are refused.
        target = number if target in (None, "", 0) else target
        if isinstance(target, int) and not 1 <= target <= 65535:
            yield _invalid((*path, "targetPort"), target, _PORT_TEXT)
    yield from _labels(spec.get("selector") or {}, ("spec", "selector"))
    affinity = spec.get("sessionAffinity") or "None"
    if affinity not in ("ClientIP", "None"):
        yield _unsupported(("spec", "sessionAffinity"), affinity, ("ClientIP", "None"))
    if kind not in _SERVICE_TYPES:
        yield _unsupported(("spec", "type"), kind, _SERVICE_TYPES)


def _pod(document: Json) -> Iterator[Cause]:
    yield from _pod_spec(document.get("spec") or {}, ("spec",))


def _pod_spec(spec: Json, path: Path) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield _required((*path, "containers"), "a pod has at least one container")
    names: set[str] = set()
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            here: Path = (*path, group, index)
            name = container.get("name") or ""
            if not name:
                yield _required((*here, "name"))
            elif name in names:
                yield Cause((*here, "name"), "FieldValueDuplicate", f'Duplicate value: "{name}"')
            else:
                yield from _rfc1123_label((*here, "name"), name)
            names.add(name)
            if not container.get("image"):
                yield _required((*here, "image"))
            for port_index, port in enumerate(container.get("ports") or []):
                yield from _container_port(port, (*here, "ports", port_index))


def _container_port(port: Json, path: Path) -> Iterator[Cause]:
    number = port.get("containerPort") or 0
    if not number:
        yield _required((*path, "containerPort"))
    elif not 1 <= number <= 65535:
        yield _invalid((*path, "containerPort"), number, _PORT_TEXT)
    host = port.get("hostPort") or 0
    if host and not 1 <= host <= 65535:
        yield _invalid((*path, "hostPort"), host, _PORT_TEXT)
    protocol = port.get("protocol") or "TCP"
    if protocol not in _PROTOCOLS:
        yield _unsupported((*path, "protocol"), protocol, _PROTOCOLS)


def _workload(document: Json) -> Iterator[Cause]:
    spec = document.get("spec") or {}
    replicas = spec.get("replicas")
    if isinstance(replicas, int) and replicas < 0:
        yield _invalid(("spec", "replicas"), replicas, "must be greater than or equal to 0")
    selector, template = spec.get("selector"), spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    empty = not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))
    if selector is None:
        yield _required(("spec", "selector"), "selector.matchLabels repeats the labels of the template")
    elif empty:
        yield _invalid(("spec", "selector"), selector, "empty selector is invalid for deployment")
    if selector is None or not empty:
        wanted = (selector or {}).get("matchLabels") or {}
        if selector is None or not matches_map(wanted, labels):
            path: Path = ("spec", "template", "metadata", "labels")
            pairs = ", ".join(f"{key}: {value}" for key, value in wanted.items())
            hint = f"add {pairs} to them" if pairs else ""
            yield _invalid(path, labels, "`selector` does not match template `labels`", hint)
    yield from _pod_spec(template.get("spec") or {}, ("spec", "template", "spec"))


def _endpoint_slice(document: Json) -> Iterator[Cause]:
    family = document.get("addressType") or ""
    if not family:
        yield _required(("addressType",), "IPv4 or IPv6")
    elif family not in ("FQDN", "IPv4", "IPv6"):
        yield _unsupported(("addressType",), family, ("FQDN", "IPv4", "IPv6"))
    for index, endpoint in enumerate(document.get("endpoints") or []):
        if not endpoint.get("addresses"):
            yield _required(("endpoints", index, "addresses"), "an endpoint has exactly one address")


_CHECKS: dict[str, Callable[[Json], Iterator[Cause]]] = {
    "v1/Service": _service,
    "v1/Pod": _pod,
    "apps/v1/Deployment": _workload,
    "apps/v1/ReplicaSet": _workload,
    "discovery.k8s.io/v1/EndpointSlice": _endpoint_slice,
}
