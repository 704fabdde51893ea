"""Ingresses and IngressClasses (`pkg/apis/networking/validation`)."""

from __future__ import annotations

import re

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Cause,
    Causes,
    Json,
    forbidden,
    invalid,
    invalids,
    required,
    unsupported,
)
from kubenet_lab.manifests.validation.values import (
    PORT,
    dns_label,
    dns_subdomain,
    parse_ip,
    port_name,
    wildcard_subdomain,
)

SPEC: Path = ("spec",)
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_FORBIDDEN_PARTS = ("//", "/./", "/../", "%2f", "%2F")
_FORBIDDEN_ENDS = ("/..", "/.")


def ingress(document: Json) -> Causes:
    """What is wrong with an Ingress."""
    spec = document.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    found: Causes = []
    if not rules and backend is None:
        text = "either `defaultBackend` or `rules` must be specified"
        found.append(invalid(SPEC, None, text, "add rules:"))
    if backend is not None:
        found += _backend(backend, (*SPEC, "defaultBackend"))
    for index, rule in enumerate(rules):
        found += _rule(rule, (*SPEC, "rules", index))
    for number, tls in enumerate(spec.get("tls") or []):
        path: Path = (*SPEC, "tls", number)
        for index, host in enumerate(tls.get("hosts") or []):
            check = wildcard_subdomain if "*" in host else dns_subdomain
            found += invalids((*path, "hosts", index), host, check(host))
        secret = tls.get("secretName") or ""
        if secret:
            found += invalids((*path, "secretName"), secret, dns_subdomain(secret))
    name = spec.get("ingressClassName")
    if name is not None:
        found += invalids((*SPEC, "ingressClassName"), name, dns_subdomain(name))
    annotation = ((document.get("metadata") or {}).get("annotations") or {}).get(CLASS_ANNOTATION)
    if annotation is not None and name is not None and annotation != name:
        text = "must match `ingressClassName` when both are specified"
        found.append(invalid(("annotations", CLASS_ANNOTATION), annotation, text))
    return found


def _rule(rule: Json, path: Path) -> Causes:
    found: Causes = []
    host = rule.get("host") or ""
    if host:
        if parse_ip(host) is not None:
            found.append(invalid((*path, "host"), host, "must be a DNS name, not an IP address"))
        check = wildcard_subdomain if "*" in host else dns_subdomain
        found += invalids((*path, "host"), host, check(host))
    http = rule.get("http")
    if http is None:
        return found
    paths = http.get("paths") or []
    if not paths:
        found.append(required((*path, "http", "paths")))
    for index, item in enumerate(paths):
        found += _path(item, (*path, "http", "paths", index))
    return found


def _path(item: Json, path: Path) -> Causes:
    kind, place = item.get("pathType"), (*path, "path")
    if kind is None:
        hint = f"one of {', '.join(PATH_TYPES)}"
        return [required((*path, "pathType"), "pathType must be specified", hint)]
    found: Causes = []
    text = item.get("path") or ""
    absolute = text.startswith("/")
    if kind in ("Exact", "Prefix"):
        if not absolute:
            found.append(invalid(place, text, "must be an absolute path", f"write /{text}"))
        found += [
            invalid(place, text, f"must not contain '{part}'") for part in _FORBIDDEN_PARTS if part in text
        ]
        found += [
            invalid(place, text, f"cannot end with '{end}'") for end in _FORBIDDEN_ENDS if text.endswith(end)
        ]
    elif kind == "ImplementationSpecific":
        if text and not absolute:
            found.append(invalid(place, text, "must be an absolute path", f"write /{text}"))
    else:
        found.append(unsupported((*path, "pathType"), kind, PATH_TYPES))
    return found + _backend(item.get("backend") or {}, (*path, "backend"))


def _backend(backend: Json, path: Path) -> Causes:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(path, "", "cannot set both resource and service backends", "keep one of them")]
    if resource is not None:
        return _reference(resource, (*path, "resource"))
    if service is None:
        return [invalid(path, "", "resource or service backend is required", "add service:")]
    found: Causes = []
    name, port = service.get("name") or "", service.get("port") or {}
    if not name:
        found.append(required((*path, "service", "name")))
    else:
        found += invalids((*path, "service", "name"), name, dns_label(name))
    number = port.get("number") or 0
    if port.get("name") and number:
        text = "cannot set both port name & port number"
        found.append(invalid(path, "", text, "keep one of them"))
    elif port.get("name"):
        found += invalids((*path, "service", "port", "name"), port["name"], port_name(port["name"]))
    elif number:
        if not 1 <= number <= 65535:
            found.append(invalid((*path, "service", "port", "number"), number, PORT))
    else:
        found.append(required(path, "port name or number is required", "add port: {number: 80}"))
    return found


def _segment(value: str) -> list[str]:
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{letter}'" for letter in "/%" if letter in value]


def _reference(given: Json, path: Path) -> Causes:
    found: Causes = []
    if given.get("apiGroup") is not None:
        found += invalids((*path, "apiGroup"), given["apiGroup"], dns_subdomain(given["apiGroup"]))
    for field in ("kind", "name"):
        value = given.get(field) or ""
        if not value:
            found.append(required((*path, field)))
        else:
            found += invalids((*path, field), value, _segment(value))
    return found


def ingress_class(document: Json) -> Causes:
    """What is wrong with an IngressClass."""
    spec = document.get("spec") or {}
    found: Causes = []
    controller = spec.get("controller") or ""
    place: Path = (*SPEC, "controller")
    if not controller:
        found.append(required(place, help="for example example.com/ingress-controller"))
    else:
        if len(controller) > 250:
            message = "Too long: may not be more than 250 bytes"
            found.append(Cause(place, "FieldValueTooLong", message))
        found += _domain_path(controller, place)
    parameters = spec.get("parameters")
    if parameters is None:
        return found
    path: Path = (*SPEC, "parameters")
    found += _reference(parameters, path)
    scope, namespace = parameters.get("scope") or "Cluster", parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        found.append(unsupported((*path, "scope"), scope, ("Cluster", "Namespace")))
    elif scope == "Namespace":
        if namespace is None:
            found.append(required((*path, "namespace"), "`parameters.scope` is set to 'Namespace'"))
        else:
            found += invalids((*path, "namespace"), namespace, dns_label(namespace))
    elif namespace is not None:
        found.append(forbidden((*path, "namespace"), "`parameters.scope` is set to 'Cluster'"))
    return found


def _domain_path(value: str, path: Path) -> Causes:
    host, slash, rest = value.partition("/")
    if not slash or not host or not rest:
        text = 'must be a domain-prefixed path (such as "acme.io/foo")'
        return [invalid(path, value, text)]
    found = invalids(path, host, dns_subdomain(host))
    if not re.fullmatch(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", rest):
        text = (
            "Invalid path (e.g. 'foo', or 'foo/bar', regex used for validation is "
            "'[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
        )
        found.append(invalid(path, rest, text))
    return found
