"""Policies of a whole cluster: what their definitions refuse beside types and limits (network-policy-api CRDs)."""

from __future__ import annotations

from kubenet_lab.manifests.schema import Path, show
from kubenet_lab.manifests.validation.cause import Causes, Json, invalid, too_many

ONE_FAMILY = (
    "CIDR must be either an IPv4 or IPv6 address. IPv4 address embedded in IPv6 addresses are not supported"
)


def admin_policy(document: Json) -> Causes:
    """What is wrong with an AdminNetworkPolicy, a BaselineAdminNetworkPolicy or a ClusterNetworkPolicy."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return []
    found = _one(spec.get("subject"), ("spec", "subject"), ("namespaces", "pods"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in _items(spec.get(direction)):
            path: Path = ("spec", direction, number)
            for index, peer in _items(rule.get(peers)):
                place: Path = (*path, peers, index)
                found += _one(peer, place)
                networks = peer.get("networks")
                for at, network in enumerate(networks if isinstance(networks, list) else ()):
                    if isinstance(network, str) and (":" in network) == ("." in network):
                        found.append(invalid((*place, "networks", at), network, ONE_FAMILY))
            for field in ("ports", "protocols"):
                for index, port in _items(rule.get(field)):
                    found += _one(port, (*path, field, index))
    return found


def _items(given: object) -> list[tuple[int, Json]]:
    """The maps of a list with their numbers; what is of another type is refused elsewhere."""
    return [
        (index, item)
        for index, item in enumerate(given if isinstance(given, list) else ())
        if isinstance(item, dict)
    ]


def _one(given: object, path: Path, hint: tuple[str, ...] = ()) -> Causes:
    """Exactly one field is to be set."""
    if not isinstance(given, dict) or len(given) == 1:
        return []
    if given:
        return [too_many(path, len(given), 1)]
    help = f"set one of {', '.join(hint)}" if hint else "set one field"
    return [invalid(path, 0, f"{show(path)} in body should have at least 1 properties", help)]
