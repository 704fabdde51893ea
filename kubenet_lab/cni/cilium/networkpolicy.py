"""From a NetworkPolicy to Cilium's policy entries (pkg/k8s/network_policy.go, ParseNetworkPolicy).

Each peer becomes an entry of its own; a direction that is named without a rule becomes an entry for nobody. Labels of
pods get the source `k8s:`, labels of namespaces the prefix `io.cilium.k8s.namespace.labels.`. A port without a number
is port 0, which means every one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network

from kubenet_lab.cni.cilium.rules import (
    ANYBODY,
    CLUSTER_LABEL,
    NAMESPACE_LABEL,
    NAMESPACE_META,
    CidrRule,
    Peer,
    PolicyEntry,
    PortRule,
    Requirement,
    Selector,
)
from kubenet_lab.objects.networkpolicy import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from kubenet_lab.objects.selector import LabelSelector

ANY_CLUSTER = "any"


def entries_of(policy: NetworkPolicy, cluster: str = ANY_CLUSTER) -> tuple[PolicyEntry, ...]:
    """Return the entries of a policy. With a `cluster` name peers are pods of that cluster alone.

    Raises ValueError for a block that is no CIDR (the agent's parser dies of it), or an unknown operator.
    """
    spec = policy.spec
    namespace = policy.namespace or "default"
    chosen = spec.pod_selector or LabelSelector()
    subject = Selector.of(
        {**_keyed("k8s:", chosen.match_labels), f"k8s:{NAMESPACE_LABEL}": namespace}, _needs("k8s:", chosen)
    )
    source = f"NetworkPolicy {namespace}/{policy.name}"
    out: list[PolicyEntry] = []
    types = spec.policy_types
    if not types or "Ingress" in types or spec.ingress:
        rules = [(rule.from_, rule.ports) for rule in spec.ingress]
        out += _direction(subject, True, rules, namespace, cluster, source)
    if "Egress" in types or spec.egress:
        rules = [(rule.to, rule.ports) for rule in spec.egress]
        out += _direction(subject, False, rules, namespace, cluster, source)
    return tuple(out)


def _direction(
    subject: Selector,
    ingress: bool,
    rules: Sequence[tuple[tuple[NetworkPolicyPeer, ...], tuple[NetworkPolicyPort, ...]]],
    namespace: str,
    cluster: str,
    source: str,
) -> Iterable[PolicyEntry]:
    if not rules:
        yield PolicyEntry(subject, ingress, None, source=source)
    for peers, ports in rules:
        allowed = tuple(_port(port) for port in ports) if ports else None
        if not peers:
            yield PolicyEntry(subject, ingress, (ANYBODY,), allowed, source=source)
        for peer in peers:
            yield PolicyEntry(subject, ingress, (_peer(peer, namespace, cluster),), allowed, source=source)


def _peer(peer: NetworkPolicyPeer, namespace: str, cluster: str) -> Peer:
    if peer.ip_block is not None:
        return _block(peer.ip_block)
    labels: dict[str, str] = {}
    needs: list[Requirement] = []
    if peer.namespace_selector is not None:
        prefix = f"k8s:{NAMESPACE_META}"
        labels |= _keyed(prefix, peer.namespace_selector.match_labels)
        needs += _needs(prefix, peer.namespace_selector)
        if not labels and not needs:
            needs.append(Requirement(f"k8s:{NAMESPACE_LABEL}", "Exists"))
    else:
        labels[f"k8s:{NAMESPACE_LABEL}"] = namespace
    pods = peer.pod_selector or LabelSelector()
    labels |= _keyed("k8s:", pods.match_labels)
    needs += _needs("k8s:", pods)
    if cluster != ANY_CLUSTER:
        labels[f"k8s:{CLUSTER_LABEL}"] = cluster
    return Selector.of(labels, needs)


def _block(block: IPBlock) -> CidrRule:
    for text in (block.cidr, *block.except_):
        ip_network(text, strict=False)
    return CidrRule(block.cidr, block.except_)


def _port(port: NetworkPolicyPort) -> PortRule:
    number = "0" if port.port is None else str(port.port)
    return PortRule(number, port.protocol or "TCP", port.end_port or 0)


def _keyed(prefix: str, labels: dict[str, str]) -> dict[str, str]:
    return {f"{prefix}{key}": value for key, value in labels.items()}


def _needs(prefix: str, selector: LabelSelector) -> list[Requirement]:
    return [
        Requirement(f"{prefix}{one.key}", one.operator, tuple(one.values))
        for one in selector.match_expressions
    ]
