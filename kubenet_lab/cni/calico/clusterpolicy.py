"""From a ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) to a GlobalNetworkPolicy in Calico's own tiers.

Tier Admin becomes kube-admin, Baseline kube-baseline, with the default tier (NetworkPolicies) between them; both go on
to the next tier where no rule matches. A rule that Calico cannot read, one with a port's name or a peer of nodes or
domain names, is left out where it accepts, but where it denies or passes it becomes a rule that denies everything.
Source: `libcalico-go/lib/backend/k8s/conversion/clusternetworkpolicy.go`, `clientv3` (EnsureInitialized).
"""

from __future__ import annotations

from kubenet_lab.cni.calico.convert import Json, Unconvertible, gathered_ports, label_selector
from kubenet_lab.packet.ip import interface_network

TIERS = {"Admin": "kube-admin", "Baseline": "kube-baseline"}
BUILT_IN: dict[str, tuple[float, str]] = {
    "kube-admin": (1_000.0, "Pass"),
    "default": (1_000_000.0, "Deny"),
    "kube-baseline": (10_000_000.0, "Pass"),
}
"""Tiers that Calico makes itself: order and default action."""
ACTIONS = {"Accept": "Allow", "Deny": "Deny", "Pass": "Pass"}


def cluster_network_policy(policy: Json) -> Json:
    """Return a ClusterNetworkPolicy as a GlobalNetworkPolicy of Calico's v3 API (manifests, both)."""
    spec = policy.get("spec") or {}
    rules = {
        "ingress": _converted(spec.get("ingress") or [], "from"),
        "egress": _converted(spec.get("egress") or [], "to"),
    }
    subject = spec.get("subject") or {}
    if subject.get("namespaces") is not None:
        spaces, pods = subject["namespaces"], None
    else:
        chosen = subject.get("pods") or {}
        spaces, pods = chosen.get("namespaceSelector") or {}, chosen.get("podSelector")
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": policy["metadata"]["name"]},
        "spec": {
            "tier": TIERS[spec["tier"]],
            "order": spec.get("priority") or 0,
            "namespaceSelector": label_selector(spaces, pods=False),
            "selector": label_selector(pods, pods=True),
            **{key: made for key, made in rules.items() if made},
            "types": [key.capitalize() for key, made in rules.items() if made],
        },
    }


def _converted(rules: list[Json], peers: str) -> list[Json]:
    out: list[Json] = []
    for rule in rules:
        try:
            out += _rule(rule, peers)
        except Unconvertible:
            if rule["action"] != "Accept":
                out.append({"action": "Deny"})
    return out


def _rule(rule: Json, peers: str) -> list[Json]:
    """Return a rule a protocol and peer. Raises Unconvertible."""
    out: list[Json] = []
    protocols = _protocols(rule.get("protocols") or [])
    sides = [_side(peer, networks=peers == "to") for peer in rule.get(peers) or []]
    for protocol in sorted(protocols):
        ports = gathered_ports(protocols[protocol])
        for side in sides:
            made: Json = {"action": ACTIONS[rule["action"]]}
            if protocol:
                made["protocol"] = protocol
            other = {"ports": ports} if ports else {}
            source, destination = (side, other) if peers == "from" else ({}, {**other, **side})
            made |= {"source": source} if source else {}
            made |= {"destination": destination} if destination else {}
            out.append(made)
    return out


def _protocols(protocols: list[Json]) -> dict[str, list[int | str] | None]:
    """Return protocol -> its ports, None for all; "" is every protocol."""
    out: dict[str, list[int | str] | None] = {}
    for one in protocols:
        name = next((key for key in ("tcp", "udp", "sctp") if one.get(key) is not None), "")
        if not name:
            if one.get("destinationNamedPort"):
                raise Unconvertible("named ports are not supported yet.")
            return {"": None}
        port = one[name].get("destinationPort") or {}
        number, known = port.get("number"), out.setdefault(name.upper(), [])
        if number:
            value: int | str = number
        elif port.get("range"):
            value = f"{port['range']['start']}:{port['range']['end']}"
        else:
            out[name.upper()] = None
            continue
        if known is not None:
            known.append(value)
    return out or {"": None}


def _side(peer: Json, *, networks: bool) -> Json:
    if peer.get("namespaces") is not None:
        return {"namespaceSelector": label_selector(peer["namespaces"], pods=False)}
    if peer.get("pods") is not None:
        pods = peer["pods"]
        return {
            "selector": label_selector(pods.get("podSelector"), pods=True),
            "namespaceSelector": label_selector(pods.get("namespaceSelector") or {}, pods=False),
        }
    if networks and peer.get("networks"):
        return {"nets": [interface_network(net) for net in peer["networks"]]}
    raise Unconvertible(f"none of supported fields in {'To' if networks else 'From'!r} is set.")
