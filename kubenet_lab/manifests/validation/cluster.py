"""Namespaces, Nodes, ConfigMaps and Secrets."""

from __future__ import annotations

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Causes,
    Json,
    duplicate,
    invalid,
    invalids,
    required,
    unsupported,
)
from kubenet_lab.manifests.validation.pod import EFFECTS
from kubenet_lab.manifests.validation.values import (
    cidr,
    config_key,
    label_value,
    parse_cidr,
    qualified_name,
)


def namespace(document: Json) -> Causes:
    """What is wrong with a Namespace."""
    found: Causes = []
    path: Path = ("spec", "finalizers")
    for name in (document.get("spec") or {}).get("finalizers") or []:
        found += invalids(path, name, qualified_name(name))
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            text = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(invalid(path, name, text))
    return found


def node(document: Json) -> Causes:
    """What is wrong with a Node."""
    spec = document.get("spec") or {}
    found: Causes = []
    taints: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or []):
        path: Path = ("spec", "taints", index)
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        found += invalids((*path, "key"), key, qualified_name(key))
        found += invalids((*path, "value"), value, label_value(value))
        if not effect:
            found.append(required((*path, "effect")))
        elif effect not in EFFECTS:
            found.append(unsupported((*path, "effect"), effect, EFFECTS))
        if (key, effect) in taints:
            found.append(duplicate(path, taint))
        taints.add((key, effect))
    found += _pod_cidrs(spec)
    addresses: list[Json] = []
    for index, address in enumerate((document.get("status") or {}).get("addresses") or []):
        if address in addresses:
            found.append(duplicate(("status", "addresses", index), address))
        addresses.append(address)
    return found


def _pod_cidrs(spec: Json) -> Causes:
    first, given = spec.get("podCIDR") or "", spec.get("podCIDRs") or []
    # The single field wins over a list that begins otherwise.
    if first and given[:1] != [first]:
        given = [first]
    if not given:
        return []
    path: Path = ("spec", "podCIDRs")
    found: Causes = []
    for index, value in enumerate(given):
        found += invalids((*path, index), value, cidr(value))
    if len(given) < 2:
        return found
    networks = [parse_cidr(value) for value in given]
    versions = {network.version for network in networks if network is not None}
    if None not in networks and (len(versions) < 2 or len(given) > 2):
        text = "may specify no more than one CIDR for each IP family"
        found.append(invalid(path, given, text, "one IPv4 and one IPv6 prefix"))
    for index, value in enumerate(given):
        if value in given[:index]:
            found.append(duplicate((*path, index), value))
    return found


def config_map(document: Json) -> Causes:
    """What is wrong with a ConfigMap's keys."""
    found: Causes = []
    data, binary = document.get("data") or {}, document.get("binaryData") or {}
    for key in data:
        found += invalids((f"data[{key}]",), key, config_key(key))
        if key in binary:
            found.append(invalid((f"data[{key}]",), "duplicate of key present in binaryData", ""))
    for key in binary:
        found += invalids((f"binaryData[{key}]",), key, config_key(key))
    return found


_NEEDS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def secret(document: Json) -> Causes:
    """What is wrong with a Secret's keys; its values are not looked at."""
    found: Causes = []
    keys = {**(document.get("data") or {}), **(document.get("stringData") or {})}
    for key in keys:
        found += invalids((f"data[{key}]",), key, config_key(key))
    kind = document.get("type") or "Opaque"
    for key in _NEEDS.get(kind, ()):
        if key not in keys:
            found.append(required((f"data[{key}]",)))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & set(keys):
        found += [required((f"data[{key}]",)) for key in ("username", "password")]
    account = "kubernetes.io/service-account.name"
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    if kind == "kubernetes.io/service-account-token" and not annotations.get(account):
        found.append(required(("metadata", f"annotations[{account}]")))
    return found
