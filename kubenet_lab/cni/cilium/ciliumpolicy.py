"""CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: the subset that is modelled, as policy entries.

Read are: endpointSelector; ingress, egress, ingressDeny, egressDeny with fromEndpoints/toEndpoints, fromEntities/
toEntities, fromCIDR/toCIDR, fromCIDRSet/toCIDRSet, toPorts (ports, rules.http); enableDefaultDeny; several `specs`.
What a policy says beyond that is named by `not_modelled`, and its rule then lets nobody through.
https://docs.cilium.io/en/stable/security/policy/language/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from kubenet_lab.cni.cilium.rules import (
    ANYBODY,
    CLUSTER_LABEL,
    NAMESPACE_LABEL,
    CidrRule,
    HttpRule,
    Peer,
    PolicyEntry,
    PortRule,
    Requirement,
    Selector,
)
from kubenet_lab.objects.generic import Generic
from kubenet_lab.packet.http import Request, Response

KINDS = ("CiliumNetworkPolicy.cilium.io", "CiliumClusterwideNetworkPolicy.cilium.io")
Json = Mapping[str, Any]

_SOURCES = ("k8s:", "reserved:", "cidr:")
_PEERS = ("Endpoints", "Entities", "CIDR", "CIDRSet")
_READ = frozenset({"toPorts", *(f"{way}{kind}" for way in ("from", "to") for kind in _PEERS)})
_IN_CLUSTER = ("host", "remote-node", "init", "ingress", "unmanaged", "health", "kube-apiserver")
DENIED = Response(403, (("content-type", "text/plain"), ("server", "envoy")), "Access denied\r\n")
"""What Cilium's Envoy answers to a request that no rule allows."""


def entries_of(policy: Generic, cluster: str = "default") -> list[PolicyEntry]:
    """Return the entries of a policy of either kind."""
    source = f"{policy.kind} {policy.namespace + '/' if policy.namespace else ''}{policy.name}"
    namespace = policy.namespace if policy.kind == "CiliumNetworkPolicy" else ""
    out: list[PolicyEntry] = []
    for spec in _specs(policy):
        subject = _selector(spec.get("endpointSelector") or {}, namespace)
        wanted = spec.get("enableDefaultDeny") or {}
        for ingress, allow, deny in ((True, "ingress", "ingressDeny"), (False, "egress", "egressDeny")):
            closed = wanted.get("ingress" if ingress else "egress")
            for key, denies in ((allow, False), (deny, True)):
                for rule in spec.get(key) or ():
                    for entry in _rule(subject, ingress, denies, rule, namespace, cluster, source):
                        out.append(entry if closed is not False else _open(entry))
    return out


def _open(entry: PolicyEntry) -> PolicyEntry:
    return PolicyEntry(
        entry.subject, entry.ingress, entry.peers, entry.ports, entry.deny, entry.source, default_deny=False
    )


def not_modelled(policy: Generic) -> list[str]:
    """Return the fields of a policy's rules that are not read: "toFQDNs", "rules.dns", ..."""
    found: dict[str, None] = {}
    for spec in _specs(policy):
        for key in ("ingress", "egress", "ingressDeny", "egressDeny"):
            for rule in spec.get(key) or ():
                found |= dict.fromkeys(name for name in rule if name not in _READ)
                for ports in rule.get("toPorts") or ():
                    found |= dict.fromkeys(name for name in ports if name not in ("ports", "rules"))
                    rules = ports.get("rules") or {}
                    found |= dict.fromkeys(f"rules.{name}" for name in rules if name != "http")
        if "nodeSelector" in spec:
            found["nodeSelector"] = None
    return list(found)


def _specs(policy: Generic) -> list[Json]:
    one = policy.content.get("spec")
    return [*([one] if one else []), *(policy.content.get("specs") or ())]


def _rule(
    subject: Selector, ingress: bool, deny: bool, rule: Json, namespace: str, cluster: str, source: str
) -> Iterable[PolicyEntry]:
    ports = _ports(rule["toPorts"]) if rule.get("toPorts") else None
    unknown = any(name not in _READ for name in rule) or any(
        name not in ("ports", "rules") or (name == "rules" and set(one["rules"]) - {"http"})
        for one in rule.get("toPorts") or ()
        for name in one
    )
    way = "from" if ingress else "to"
    named = [kind for kind in _PEERS if rule.get(f"{way}{kind}") is not None]
    if unknown or (not named and ports is None):
        yield PolicyEntry(subject, ingress, None, ports, deny, source)
    elif not named:
        yield PolicyEntry(subject, ingress, (ANYBODY,), ports, deny, source)
    else:
        peers = tuple(
            peer for kind in named for peer in _peers(kind, rule[f"{way}{kind}"], namespace, cluster)
        )
        yield PolicyEntry(subject, ingress, peers or None, ports, deny, source)


def _peers(kind: str, given: list[Any], namespace: str, cluster: str) -> Iterable[Peer]:
    for one in given:
        if kind == "Endpoints":
            yield _selector(one, namespace)
        elif kind == "Entities":
            yield from _entity(one, cluster)
        elif kind == "CIDR":
            yield CidrRule(one)
        else:
            yield CidrRule(one["cidr"], tuple(one.get("except") or ()))


def _entity(name: str, cluster: str) -> Iterable[Peer]:
    if name == "all":
        yield ANYBODY
    elif name == "cluster":
        yield from (Selector.of({f"reserved:{one}": ""}) for one in _IN_CLUSTER)
        yield Selector.of({f"k8s:{CLUSTER_LABEL}": cluster})
    else:
        yield Selector.of({f"reserved:{name}": ""})


def _key(text: str) -> str:
    return text if text.startswith(_SOURCES) else f"k8s:{text.removeprefix('any:')}"


def _selector(given: Json, namespace: str) -> Selector:
    """A selector of the policy's own namespace, unless it names another one or means what is no pod."""
    labels = {_key(key): str(value) for key, value in (given.get("matchLabels") or {}).items()}
    needs = [
        Requirement(_key(one["key"]), one["operator"], tuple(one.get("values") or ()))
        for one in given.get("matchExpressions") or ()
    ]
    own = f"k8s:{NAMESPACE_LABEL}"
    keys = {*labels, *(need.key for need in needs)}
    reserved = any(key.startswith("reserved:") for key in keys)
    if (
        namespace
        and not reserved
        and not any(key.startswith((own, "k8s:io.cilium.k8s.namespace")) for key in keys)
    ):
        labels[own] = namespace
    return Selector.of(labels, needs)


def _ports(given: list[Any]) -> tuple[PortRule, ...]:
    out = []
    for one in given:
        http = tuple(
            HttpRule(
                rule.get("method", ""),
                rule.get("path", ""),
                rule.get("host", ""),
                tuple(rule.get("headers") or ()),
            )
            for rule in (one.get("rules") or {}).get("http") or ()
        )
        for port in one.get("ports") or ({"port": "0"},):
            out.append(
                PortRule(str(port["port"]), port.get("protocol", "ANY"), int(port.get("endPort") or 0), http)
            )
    return tuple(out)


def allows(rule: HttpRule, request: Request) -> bool:
    """Whether a rule lets a request through: whole matches of its regular expressions, and every header it names."""
    if rule.method and not re.fullmatch(rule.method, request.method):
        return False
    if rule.path and not re.fullmatch(rule.path, request.path):
        return False
    if rule.host and not re.fullmatch(rule.host, request.fields.get("host", "").partition(":")[0]):
        return False
    for header in rule.headers:
        name, colon, value = header.partition(":")
        sent = request.fields.get(name.strip().lower())
        if sent is None or (colon and value.strip() and sent != value.strip()):
            return False
    return True


def refusal(rules: Iterable[HttpRule], data: bytes) -> bytes | None:
    """Judge a request's bytes as the proxy does: None lets it through, else the bytes of its answer.

    What is no HTTP request is refused, too.
    """
    request = Request.from_bytes(data)
    if request is not None and any(allows(rule, request) for rule in rules):
        return None
    return DENIED.to_bytes()
