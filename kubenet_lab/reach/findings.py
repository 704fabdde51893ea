"""What is odd about a set of policies: rules without effect, policies about nobody, DNS forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.objects import AnyObject, DaemonSet, Generic
from kubenet_lab.policy import words
from kubenet_lab.policy.world import (
    DIRECTIONS,
    EGRESS,
    EVERYTHING,
    INGRESS,
    NETWORK,
    Policy,
    Rule,
    World,
    policy_of,
)
from kubenet_lab.reach.exposure import with_newcomers
from kubenet_lab.reach.masks import bits, mask_of
from kubenet_lab.reach.matrix import Reach

DNS_LABEL = ("k8s-app", "kube-dns")
MOST_RULES = 400
"""Above this many rules none is taken out to see whether it is missed."""


class Finding(Struct, frozen=True):
    """One odd thing.

    Attributes:
        kind: "selects-nothing", "means-nobody", "no-such-port", "ignored-rules", "shadowed", "redundant", "no-dns",
            "two-peers", "host-network", "not-checked".
        text: A sentence.
        policy, field: Where: "NetworkPolicy shop/db" and `spec.ingress[0]`.
        help: What to do about it; empty where it may well be meant.
    """

    kind: str
    text: str
    policy: str = ""
    field: str = ""
    help: str = ""


def findings(reach: Reach) -> list[Finding]:
    """Everything odd about the policies of a world, policy by policy in the order they are asked."""
    found: list[Finding] = []
    for policy in reach.world.policies:
        found += _about_nobody(reach, policy)
        for direction in DIRECTIONS:
            for rule in policy.ingress if direction == INGRESS else policy.egress:
                found += _rule(reach, policy, rule, direction)
    found += _ignored(reach.world)
    found += _shadowed(reach)
    found += _redundant(reach)
    found += _without_dns(reach)
    return found


def _about_nobody(reach: Reach, policy: Policy) -> Iterator[Finding]:
    if reach.index.peer(policy.subject):
        return
    title = words.title(policy)
    whom = words.peer(policy.subject)
    text = f"{title} is about {whom}, and there is none: it changes nothing."
    yield Finding(
        "selects-nothing",
        text,
        title,
        "spec.podSelector" if policy.tier == NETWORK else "spec.subject",
        "look at the pods' labels: kubectl get pods --show-labels",
    )
    for endpoint in reach.world.endpoints:
        if endpoint.host_network and endpoint.namespace == policy.namespace:
            note = f"{endpoint.name} is in its node's network; no NetworkPolicy is about such pods."
            yield Finding("host-network", note, title)


def _rule(reach: Reach, policy: Policy, rule: Rule, direction: str) -> Iterator[Finding]:
    title, base = words.title(policy), f"spec.{direction.lower()}[{rule.index}]"
    name = words.rule_name(policy, rule, direction)
    for peer, part in zip(rule.peers or (), rule.parts, strict=False):
        # A block means addresses, and there are always some outside.
        if peer.block or peer.domains or peer.nodes is not None or reach.index.peer(peer):
            continue
        text = f"{title}, {name} means {words.peer(peer)}, and there is none."
        yield Finding(
            "means-nobody", text, title, f"{base}.{part}", "look at the labels of pods and namespaces"
        )
    for index, ports in enumerate(rule.ports or ()):
        if not ports.name:
            continue
        whom = reach.index.peer(policy.subject) if direction == INGRESS else -1
        if not any(mask & whom for _port, mask in reach.index.named_ports(ports)):
            who = "a pod it is about" if direction == INGRESS else "any pod"
            text = (
                f"{title}, {name}: {words.port(ports)} is declared by no container of {who}, "
                "so the entry lets nothing through."
            )
            yield Finding(
                "no-such-port",
                text,
                title,
                f"{base}.ports[{index}]",
                "name it in containers[].ports[].name, or write its number",
            )
    peers = rule.peers or ()
    for at in range(len(peers) - 1):
        space, pods = peers[at], peers[at + 1]
        split = (
            policy.tier == NETWORK
            and space.namespaces is not None
            and not words.selector(space.pods or EVERYTHING)
        )
        if split and pods.namespace and pods.pods is not None:
            meant = f"{words.peer(space)}, OR {words.peer(pods)}"
            text = f"{title}, {name} has two peers where one may have been meant: {meant}."
            yield Finding(
                "two-peers",
                text,
                title,
                f"{base}.{rule.parts[at + 1]}",
                'to mean pods of those namespaces, write podSelector without the leading "- "',
            )


def _ignored(world: World) -> Iterator[Finding]:
    for policy in world.policies:
        if policy.tier != NETWORK:
            continue
        for direction, rules in ((INGRESS, policy.ingress), (EGRESS, policy.egress)):
            if rules and direction not in policy.isolates:
                title = words.title(policy)
                text = (
                    f"{title} has {direction.lower()} rules, but its policyTypes do not name {direction}: "
                    "they are ignored."
                )
                yield Finding(
                    "ignored-rules",
                    text,
                    title,
                    f"spec.{direction.lower()}",
                    f"add {direction} to policyTypes",
                )


def _shadowed(reach: Reach) -> Iterator[Finding]:
    """Administrators' rules that earlier ones leave nothing for."""
    world, index = reach.world, reach.index
    for tier in ("Admin", "Baseline"):
        for direction in DIRECTIONS:
            ordered = [
                (policy, rule)
                for policy in world.policies
                if policy.tier == tier
                for rule in policy.rules(direction)
            ]
            taken: dict[tuple[int, int], int] = {}
            for policy, rule in ordered:
                subject = index.peer(policy.subject)
                peers = index.everybody if rule.peers is None else 0
                for peer in rule.peers or ():
                    peers |= index.peer(peer)
                new = False
                for kind in reach.kinds():
                    meant = reach.meant(kind, rule.ports)
                    # The destination's side of the rule is where named ports count.
                    sources, targets = (
                        (peers, subject & meant) if direction == INGRESS else (subject, peers & meant)
                    )
                    if not targets:
                        continue
                    for at in bits(sources):
                        before = taken.get((kind, at), 0)
                        if targets & ~before:
                            new = True
                        taken[kind, at] = before | targets
                if not new and subject and peers:
                    title = words.title(policy)
                    text = (
                        f"{title}, {words.rule_name(policy, rule, direction)} is never reached: "
                        f"earlier rules of the {tier} tier decide all it fits."
                    )
                    yield Finding("shadowed", text, title, f"spec.{direction.lower()}[{rule.index}]")


def _redundant(reach: Reach) -> Iterator[Finding]:
    """NetworkPolicies and rules without which the same is allowed."""
    policies = [policy for policy in reach.world.policies if policy.tier == NETWORK]
    count = sum(len(policy.rules(direction)) for policy in policies for direction in DIRECTIONS)
    if count > MOST_RULES:
        text = f"With {count} rules, whether any of them is redundant was not checked."
        yield Finding("not-checked", text)
        return
    reach = Reach(with_newcomers(reach.world))
    for policy in policies:
        if not reach.index.peer(policy.subject):
            continue
        title = words.title(policy)
        others = [item for item in reach.world.policies if item is not policy]
        if reach.same_as(reach.with_policies(others)):
            text = f"Without {title} the same would be allowed and denied."
            yield Finding("redundant", text, title, "metadata.name")
            continue
        for direction in DIRECTIONS:
            for rule in policy.rules(direction):
                rest = tuple(item for item in policy.rules(direction) if item is not rule)
                changed = replace(policy, **{direction.lower(): rest})
                after = [changed if item is policy else item for item in reach.world.policies]
                if reach.same_as(reach.with_policies(after)) and _means_somebody(reach, rule):
                    text = (
                        f"{title}, {words.rule_name(policy, rule, direction)} adds nothing: "
                        "other rules let the same through."
                    )
                    yield Finding("redundant", text, title, f"spec.{direction.lower()}[{rule.index}]")


def _means_somebody(reach: Reach, rule: Rule) -> bool:
    """Whether the reason a rule adds nothing is another one than that nobody is meant, which is told apart."""
    return rule.peers is None or any(reach.index.peer(peer) for peer in rule.peers)


def _without_dns(reach: Reach) -> Iterator[Finding]:
    """Pods whose egress is isolated and that cannot ask the cluster's DNS."""
    world, index = reach.world, reach.index
    servers = mask_of(
        at
        for at, endpoint in enumerate(index.classes)
        if endpoint.namespace == "kube-system" and endpoint.labels.get(DNS_LABEL[0]) == DNS_LABEL[1]
    )
    kind = reach.kind(53, "UDP")
    for policy in world.policies:
        if policy.tier != NETWORK or EGRESS not in policy.isolates:
            continue
        subject = index.peer(policy.subject)
        cut = [at for at in bits(subject) if not _asks(reach, kind, at, servers)]
        if not cut:
            continue
        title = words.title(policy)
        names = words.listed([world.endpoints[index.members[at][0]].name for at in cut], 3)
        whom = "the cluster's DNS" if servers else "any DNS server"
        text = (
            f"{title} isolates {names} for egress, and no policy lets them ask {whom} (53/UDP): "
            "names will not resolve."
        )
        yield Finding(
            "no-dns",
            text,
            title,
            "spec.egress",
            "add an egress rule to port 53, UDP and TCP, of the pods of kube-system with k8s-app=kube-dns",
        )


def _asks(reach: Reach, kind: int, at: int, servers: int) -> bool:
    egress, _ingress = reach.rows(kind, at)
    return bool(egress & servers) if servers else bool(egress & ~(1 << at))


def inert(objects: Iterable[AnyObject], cni: str = "") -> list[str]:
    """Why policies may be without any effect: sentences for what a file or a cluster says of its pod network.

    Flannel and the bare bridge plugin enforce no NetworkPolicy; the API server takes it all the same, and says
    nothing. Policies of kinds that only another data plane knows are told too.

    Args:
        objects: All objects; a DaemonSet of Flannel among them tells that it is the pod network.
        cni: The cluster's pod network, where it is known.
    """
    found: list[str] = []
    given = list(objects)
    flannel = any(isinstance(obj, DaemonSet) and obj.name.startswith("kube-flannel") for obj in given)
    if any(policy_of(obj) is not None for obj in given) and (flannel or cni in UNENFORCED):
        name = "Flannel" if flannel or cni.startswith("flannel") else f'the pod network "{cni}"'
        found.append(
            f"{name} enforces no policy: the API server keeps these policies and every packet passes. Who enforces "
            "them is another agent beside it, or another pod network (Calico, Cilium)."
        )
    network = cni.partition("-")[0]
    for obj in given:
        if obj.kind in UNREAD.get(network, {}):
            found.append(f"{obj.kind} {obj.name} has no effect: {UNREAD[network][obj.kind]}.")
        if isinstance(obj, Generic) and obj.kind.endswith("NetworkPolicy") and policy_of(obj) is None:
            owner = (
                "Calico" if "calico" in obj.api_version else "Cilium" if "cilium" in obj.api_version else ""
            )
            who = f"{owner}'s own" if owner else "of a kind that nobody here knows"
            found.append(f"{obj.kind} {obj.name} is {who}: it has no part in these answers.")
    return found


UNENFORCED = ("flannel", "flannel-host-gw", "flannel-wireguard", "bridge", "sample", "none")
"""Pod networks without anybody who reads NetworkPolicies."""
_CALICO = "Calico 3.32 reads its successor, ClusterNetworkPolicy"
_CILIUM = "Cilium 1.20 watches it only with enable-k8s-cluster-network-policy, which is off unless set"
UNREAD = {
    "calico": {"AdminNetworkPolicy": _CALICO, "BaselineAdminNetworkPolicy": _CALICO},
    "cilium": {
        "AdminNetworkPolicy": "Cilium does not watch this kind",
        "BaselineAdminNetworkPolicy": "Cilium does not watch this kind",
        "ClusterNetworkPolicy": _CILIUM,
    },
}
"""Pod networks that enforce policies -> kinds that they leave unread, and why."""
