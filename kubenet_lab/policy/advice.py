"""Policies that allow a given list of flows and nothing else, checked by judging them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.objects import (
    IPBlock,
    LabelSelector,
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
    ObjectMeta,
)
from kubenet_lab.policy.evaluate import judge
from kubenet_lab.policy.world import DIRECTIONS, NAME_LABEL, Endpoint, Policy, World, policy_of

DNS_PORTS = (NetworkPolicyPort(protocol="UDP", port=53), NetworkPolicyPort(protocol="TCP", port=53))
DNS_PODS = NetworkPolicyPeer(
    namespace_selector=LabelSelector(match_labels={NAME_LABEL: "kube-system"}),
    pod_selector=LabelSelector(match_labels={"k8s-app": "kube-dns"}),
)
PASSING = (
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "apps.kubernetes.io/pod-index",
)
"""Labels that change with every roll-out, or from pod to pod."""


class Flow(Struct, frozen=True, order=True):
    """A connection that shall work: names of endpoints, and the destination's port."""

    source: str
    destination: str
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} on {self.port}/{self.protocol}"


class Advice(Struct, frozen=True):
    """Policies, and what they do.

    Attributes:
        policies: To be applied as they are.
        missing: Flows of the list that they do not allow. There are some only where other policies (an administrator's)
            forbid them.
        surplus: Flows they allow that were not on the list: those of pods no label tells apart from one that was.
    """

    policies: tuple[NetworkPolicy, ...]
    missing: tuple[Flow, ...] = ()
    surplus: tuple[Flow, ...] = ()

    def text(self) -> str:
        """The policies as YAML documents."""
        from kubenet_lab import manifests

        return manifests.dump(self.policies, "yaml")


def default_deny(namespace: str, *, dns: bool = True) -> NetworkPolicy:
    """The policy that lets nothing in or out of a namespace's pods, except questions to the cluster's DNS."""
    egress = (NetworkPolicyEgressRule(to=(DNS_PODS,), ports=DNS_PORTS),) if dns else ()
    return NetworkPolicy(
        metadata=ObjectMeta(name="default-deny", namespace=namespace),
        spec=NetworkPolicySpec(pod_selector=LabelSelector(), egress=egress, policy_types=DIRECTIONS),
    )


def allow_only(world: World, flows: Iterable[Flow], *, dns: bool = True) -> Advice:
    """The fewest policies under which these flows work and nothing else does.

    One a namespace denies everything (but DNS); one for each group of pods that the flows name opens what they need,
    both ways. The namespaces closed are those of the pods named. Policies of the world itself stay out of account,
    except those of administrators.

    Args:
        world: The pods.
        flows: What shall work, by endpoint names. An address outside may stand for an endpoint.
        dns: Let every pod ask the cluster's DNS.

    Raises:
        KeyError: A flow names no endpoint.
    """
    wanted = sorted(set(flows))
    ends = {name: world.endpoint(name) for flow in wanted for name in (flow.source, flow.destination)}
    spaces = sorted({end.namespace for end in ends.values() if end.selectable})
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, dict[object, set[tuple[str, int]]]]] = {}
    peers: dict[object, NetworkPolicyPeer] = {}
    for flow in wanted:
        source, destination = ends[flow.source], ends[flow.destination]
        for own, other, direction in ((destination, source, "ingress"), (source, destination, "egress")):
            if not own.selectable:
                continue
            peer = _peer(world, other, own.namespace)
            key = repr(peer)
            peers[key] = peer
            labels = tuple(sorted(_telling(world, own).items()))
            rules = groups.setdefault((own.namespace, labels), {"ingress": {}, "egress": {}})[direction]
            rules.setdefault(key, set()).add((flow.protocol, flow.port))
    policies = [default_deny(space, dns=dns) for space in spaces]
    names: set[str] = set()
    for (space, labels), both in sorted(groups.items()):
        into = [NetworkPolicyIngressRule(from_=p, ports=q) for p, q in _rules(both["ingress"], peers)]
        out = [NetworkPolicyEgressRule(to=p, ports=q) for p, q in _rules(both["egress"], peers)]
        types = tuple(kind for kind, some in zip(DIRECTIONS, (into, out), strict=True) if some)
        name = _name(
            [value for _key, value in labels], {n for n in names if n.startswith(f"{space}/")}, space
        )
        names.add(f"{space}/{name}")
        spec = NetworkPolicySpec(
            pod_selector=LabelSelector(match_labels=dict(labels)),
            ingress=tuple(into),
            egress=tuple(out),
            policy_types=types,
        )
        policies.append(NetworkPolicy(metadata=ObjectMeta(name=name, namespace=space), spec=spec))
    return _checked(world, wanted, policies, ends)


def _rules(
    given: dict[object, set[tuple[str, int]]], peers: dict[object, NetworkPolicyPeer]
) -> list[tuple[tuple[NetworkPolicyPeer, ...], tuple[NetworkPolicyPort, ...]]]:
    """Peers with the same ports share a rule."""
    by_ports: dict[tuple[tuple[str, int], ...], list[NetworkPolicyPeer]] = {}
    for key, ports in given.items():
        by_ports.setdefault(tuple(sorted(ports)), []).append(peers[key])
    return [
        (tuple(found), tuple(NetworkPolicyPort(protocol=protocol, port=port) for protocol, port in ports))
        for ports, found in by_ports.items()
    ]


def _name(values: Sequence[str], taken: set[str], space: str) -> str:
    base = (
        "-".join(value for value in values if value).lower().replace(".", "-").replace("_", "-").strip("-")
        or "pods"
    )
    base = f"allow-{base}"[:60]
    name, number = base, 2
    while f"{space}/{name}" in taken:
        name, number = f"{base}-{number}", number + 1
    return name


def _peer(world: World, other: Endpoint, namespace: str) -> NetworkPolicyPeer:
    if not other.selectable:
        address = other.address() or other.name
        return NetworkPolicyPeer(ip_block=IPBlock(cidr=f"{address}/{128 if ':' in address else 32}"))
    pods = LabelSelector(match_labels=_telling(world, other))
    if other.namespace == namespace:
        return NetworkPolicyPeer(pod_selector=pods)
    return NetworkPolicyPeer(
        namespace_selector=LabelSelector(match_labels={NAME_LABEL: other.namespace}), pod_selector=pods
    )


def _telling(world: World, pod: Endpoint) -> dict[str, str]:
    """The fewest labels that tell a pod and its like from the other pods of its namespace.

    Its like are the pods of its workload, and those whose lasting labels are the same.
    """
    labels = {key: value for key, value in pod.labels.items() if key not in PASSING}
    others = [
        item
        for item in world.endpoints
        if item.namespace == pod.namespace
        and not (item.owner and item.owner == pod.owner)
        and {key: value for key, value in item.labels.items() if key not in PASSING} != labels
    ]

    def mistaken(keys: Iterable[str]) -> int:
        return sum(all(item.labels.get(key) == labels[key] for key in keys) for item in others)

    chosen: list[str] = []
    while mistaken(chosen) and len(chosen) < len(labels):
        rest = sorted(set(labels) - set(chosen), key=lambda key: (mistaken([*chosen, key]), key))
        chosen.append(rest[0])
    # A selector without any label would mean pods to come as well.
    if not chosen and labels:
        chosen = [
            next(
                (key for key in ("app.kubernetes.io/name", "app", "name") if key in labels), sorted(labels)[0]
            )
        ]
    return {key: labels[key] for key in sorted(chosen)}


def _checked(
    world: World, wanted: Sequence[Flow], policies: Sequence[NetworkPolicy], ends: dict[str, Endpoint]
) -> Advice:
    """The policies with what they really do to the pods there are."""
    made: list[Policy] = [found for found in map(policy_of, policies) if found is not None]
    kept = [policy for policy in world.policies if policy.tier != "NetworkPolicy"]
    after = replace(world, endpoints=tuple(world.endpoints)).with_policies([*kept, *made])
    missing = [
        flow
        for flow in wanted
        if not judge(after, ends[flow.source], ends[flow.destination], flow.port, flow.protocol).allowed
    ]
    listed = set(wanted)
    ports = sorted({(flow.port, flow.protocol) for flow in wanted})
    named = {end.namespace for end in ends.values() if end.selectable}
    surplus = [
        Flow(source.name, destination.name, port, protocol)
        for source in after.endpoints
        for destination in after.endpoints
        if source.name != destination.name and (source.namespace in named or destination.namespace in named)
        for port, protocol in ports
        if Flow(source.name, destination.name, port, protocol) not in listed
        and judge(after, source, destination, port, protocol).allowed
        and not (port == 53 and destination.namespace == "kube-system")
    ]
    return Advice(tuple(policies), tuple(missing), tuple(surplus))
