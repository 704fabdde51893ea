"""NetworkPolicies (`pkg/apis/networking/validation`)."""

from __future__ import annotations

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Causes,
    Json,
    forbidden,
    invalid,
    invalids,
    required,
    unsupported,
)
from kubenet_lab.manifests.validation.metadata import selector
from kubenet_lab.manifests.validation.values import PORT, cidr, parse_cidr, port_name

SPEC: Path = ("spec",)
TYPES = ("Ingress", "Egress")
PROTOCOLS = ("TCP", "UDP", "SCTP")


def network_policy(document: Json) -> Causes:
    """What is wrong with a NetworkPolicy."""
    spec = document.get("spec") or {}
    found = selector(spec.get("podSelector"), (*SPEC, "podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(direction) or []):
            path: Path = (*SPEC, direction, number)
            for index, port in enumerate(rule.get("ports") or []):
                found += _port(port, (*path, "ports", index))
            for index, peer in enumerate(rule.get(peers) or []):
                found += _peer(peer, (*path, peers, index))
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        text = "may not specify more than two policyTypes"
        return [*found, invalid((*SPEC, "policyTypes"), types, text, "Ingress, Egress or both")]
    for index, kind in enumerate(types):
        if kind not in TYPES:
            found.append(unsupported((*SPEC, "policyTypes", index), kind, TYPES))
    return found


def _port(given: Json, path: Path) -> Causes:
    found: Causes = []
    protocol = given.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        found.append(unsupported((*path, "protocol"), protocol, PROTOCOLS))
    port, end = given.get("port"), given.get("endPort")
    place: Path = (*path, "endPort")
    if port is None:
        if end is not None:
            found.append(
                invalid(place, end, "may not be specified when `port` is not specified", "add port:")
            )
    elif isinstance(port, int):
        if not 1 <= port <= 65535:
            found.append(invalid((*path, "port"), port, PORT))
        if end is not None and end < port:
            found.append(
                invalid(place, end, "must be greater than or equal to `port`", f"write {port} or more")
            )
        if end is not None and not 1 <= end <= 65535:
            found.append(invalid(place, end, PORT))
    else:
        if end is not None:
            found.append(
                invalid(
                    place, end, "may not be specified when `port` is non-numeric", "write port as a number"
                )
            )
        hint = f"write {port} without quotes" if port.isdigit() else ""
        found += invalids((*path, "port"), port, port_name(port), hint)
    return found


def _peer(peer: Json, path: Path) -> Causes:
    found: Causes = []
    count = 0
    for field in ("podSelector", "namespaceSelector"):
        if peer.get(field) is not None:
            count += 1
            found += selector(peer[field], (*path, field))
    block = peer.get("ipBlock")
    if block is not None:
        count += 1
        found += _block(block, (*path, "ipBlock"))
    if not count:
        hint = "podSelector, namespaceSelector or ipBlock; {} stands for no peer"
        found.append(required(path, "must specify a peer", hint))
    elif count > 1 and block is not None:
        text = "may not specify both ipBlock and another peer"
        found.append(forbidden(path, text, 'make two peers of it: begin ipBlock with "- "'))
    return found


def _block(block: Json, path: Path) -> Causes:
    given = block.get("cidr") or ""
    if not given:
        return [required((*path, "cidr"), help="for example 10.0.0.0/8")]
    found = invalids((*path, "cidr"), given, cidr(given))
    network = parse_cidr(given)
    if network is None:
        return found
    for index, item in enumerate(block.get("except") or []):
        place: Path = (*path, "except", index)
        found += invalids(place, item, cidr(item))
        hole = parse_cidr(item)
        if hole is None:
            continue
        # An address of another family is never inside.
        inside = hole.version == network.version and hole.network_address in network
        if not inside or network.prefixlen >= hole.prefixlen:
            found.append(invalid(place, item, "must be a strict subset of `cidr`", f"a part of {given}"))
    return found
