"""Worlds of policies as a network reads them where it differs from the specification, written as policies again.

Judged by the specification, `as_read(case, network)` says what the network lets through of `case`. A difference is thus
a sentence and a rewriting, and a network that differs in any further way shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

Json = dict[str, Any]

CLUSTER_WIDE = {
    "cnps": "ClusterNetworkPolicy",
    "anps": "AdminNetworkPolicy",
    "banp": "BaselineAdminNetworkPolicy",
}
DIRECTIONS = (("ingress", "Ingress", "from"), ("egress", "Egress", "to"))


def unread(*fields: str) -> Callable[[Json], None]:
    """Leave out policies of whole clusters that a network does not watch."""

    def rewrite(case: Json) -> None:
        for field in fields:
            case.pop(field, None)

    return rewrite


def rules_count_unnamed(case: Json) -> None:
    """Name in policyTypes each direction that has rules."""
    for policy in case["policies"]:
        spec = policy["spec"]
        named = spec.get("policyTypes") or ["Ingress"]
        spec["policyTypes"] = [kind for field, kind, _peers in DIRECTIONS if kind in named or spec.get(field)]


def blocks_mean_no_pod(case: Json) -> None:
    """Leave out blocks; a rule that had no other peer is none."""
    for policy in case["policies"]:
        spec = policy["spec"]
        for field, _kind, peers in DIRECTIONS:
            kept = []
            for rule in spec.get(field) or ():
                others = [peer for peer in rule.get(peers) or () if "ipBlock" not in peer]
                if others or not rule.get(peers):
                    kept.append({**rule, peers: others})
            spec[field] = kept


def egress_names_are_one_table(case: Json) -> None:
    """Put for a name in an egress rule the number that all pods together give it; with several, it means none."""
    table: dict[tuple[str, str], set[int]] = {}
    for pod in case["pods"]:
        for port in pod["ports"]:
            table.setdefault((port["name"], port["protocol"]), set()).add(port["port"])
    for policy in case["policies"]:
        kept = []
        for rule in policy["spec"].get("egress") or ():
            ports = []
            for port in rule.get("ports") or ():
                numbers = (
                    table.get((port["port"], port.get("protocol") or "TCP"), set())
                    if isinstance(port.get("port"), str)
                    else {port.get("port")}
                )
                if len(numbers) == 1:
                    (number,) = numbers
                    ports.append({**port, "port": number} if number is not None else port)
            if ports or not rule.get("ports"):
                kept.append({**rule, "ports": ports})
        policy["spec"]["egress"] = kept


def rules_not_understood(case: Json) -> None:
    """A rule of a ClusterNetworkPolicy with a port's name, nodes or domains: no rule, or one that denies everything."""
    for policy in case.get("cnps") or ():
        for field, _kind, peers in DIRECTIONS:
            made = []
            for rule in policy["spec"].get(field) or ():
                named = any("destinationNamedPort" in one for one in rule.get("protocols") or ())
                if not named and not any({"nodes", "domainNames"} & peer.keys() for peer in rule[peers]):
                    made.append(rule)
                elif rule["action"] != "Accept":
                    made.append({"action": "Deny", peers: [{"namespaces": {}}]})
            policy["spec"][field] = made


Reading = tuple[str, str, Callable[[Json], None]]

READINGS: dict[str, Sequence[Reading]] = {
    "iptables": (
        (
            "policies of whole clusters",
            "kube-router's network policy controller watches NetworkPolicies alone (the rest: `IptablesAgents.unread`)",
            unread(*CLUSTER_WIDE),
        ),
    ),
    "nftables": (),
    "calico": (
        (
            "AdminNetworkPolicy, BaselineAdminNetworkPolicy",
            "EnsureInitialized of libcalico-go makes kube-admin and kube-baseline, the tiers of ClusterNetworkPolicy, "
            "and none for v1alpha1",
            unread("anps", "banp"),
        ),
        (
            "ClusterNetworkPolicy: names of ports, nodes, domain names",
            'conversion/clusternetworkpolicy.go: "named ports are not supported yet."; "none of supported fields in '
            "'To' is set.\"; a failed rule that denies or passes is replaced with a deny-all one",
            rules_not_understood,
        ),
    ),
    "cilium": (
        (
            "policies of whole clusters",
            "enable-k8s-cluster-network-policy is false unless set; v1alpha1 is not watched",
            unread(*CLUSTER_WIDE),
        ),
        (
            "rules of a direction that policyTypes does not name count",
            "recorded conversion egress-rules-type-ingress-only; pkg/k8s/network_policy.go asks policyTypes only where "
            "a direction has no rules",
            rules_count_unnamed,
        ),
        (
            "a block never means a pod",
            "policy-cidr-match-mode is empty unless set; a pod's identity has no cidr label",
            blocks_mean_no_pod,
        ),
        (
            "a port's name in an egress rule",
            "pkg/policy resolves it in one table of all pods' names, and not at all where they give it several numbers",
            egress_names_are_one_table,
        ),
    ),
}


def as_read(case: Json, network: str, but: str = "") -> Json:
    """Return a recorded world as `network` (a key of READINGS) reads it; `but` leaves one difference out."""
    made: Json = deepcopy(case)
    for what, _source, rewrite in READINGS[network]:
        if what != but:
            rewrite(made)
    return made
