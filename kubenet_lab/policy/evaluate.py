"""Who may reach whom, read off the policies as their specification says, one flow at a time.

Slow, plain, and able to say why; `kubenet_lab.reach` computes all pairs at once, `policy.rules` what an agent programs,
and tests hold the three together. Sources: the API reference of NetworkPolicySpec,
https://kubernetes.io/docs/concepts/services-networking/network-policies/, and KEP-2091 for the tiers. `kubectl` has no
such command.

Only the first packet of a connection is judged: replies belong to a connection that was let through. A flow needs its
source's egress side and its destination's ingress side; an address of the outside has no side of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from kubenet_lab.packet.ip import prefix
from kubenet_lab.policy.world import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    NETWORK,
    PASS,
    Conventions,
    Endpoint,
    Peer,
    Policy,
    Ports,
    Rule,
    World,
    fits_labels,
)

DEFAULT = "Default"
"""The tier of a verdict that no policy had a word in."""

LETTERS = {(True, True): ".", (True, False): "I", (False, True): "E", (False, False): "B"}
"""A cell of a truth table by what egress and ingress allow."""


class Fit(Struct, frozen=True):
    """A rule that fits a flow, and which of its peers does (None: the rule names none)."""

    policy: Policy
    rule: Rule
    peer: int | None = None


class Side(Struct, frozen=True):
    """One end's word on a flow.

    Attributes:
        direction: "Ingress" for the destination's, "Egress" for the source's.
        allowed: The word.
        tier: Who spoke: "Admin", "NetworkPolicy", "Baseline", or "Default" where nobody did.
        why: "" or one of "outside", "host network", "itself", "own node", "isolated" (selected, and no rule fits).
        fits: The rules that decided: one of an administrator's, all that accept of NetworkPolicies.
        passed: Admin rules that handed the flow on.
        selecting: The NetworkPolicies that select the pod in this direction, and the other tiers' whose subject it is.
    """

    direction: str
    allowed: bool
    tier: str = DEFAULT
    why: str = ""
    fits: tuple[Fit, ...] = ()
    passed: tuple[Fit, ...] = ()
    selecting: tuple[Policy, ...] = ()


class Judgement(Struct, frozen=True):
    """Both ends' words on one flow."""

    source: Endpoint
    destination: Endpoint
    port: int
    protocol: str
    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        """Whether a connection can be made, as far as policies go."""
        return self.egress.allowed and self.ingress.allowed

    @property
    def letter(self) -> str:
        """Its cell in a truth table: "." allowed, "I" and "E" denied by one side, "B" by both, "-" not evaluated."""
        if not (self.source.is_pod or self.destination.is_pod):
            return "-"
        return LETTERS[self.egress.allowed, self.ingress.allowed]


def judge(
    world: World, source: Endpoint, destination: Endpoint, port: int, protocol: str = "TCP"
) -> Judgement:
    """Judge the first packet of a connection to `port` (0 to 65535) of a protocol ("TCP", "UDP", "SCTP")."""
    egress = side(world, EGRESS, source, destination, port, protocol)
    ingress = side(world, INGRESS, source, destination, port, protocol)
    return Judgement(source, destination, port, protocol, egress, ingress)


def side(
    world: World, direction: str, source: Endpoint, destination: Endpoint, port: int, protocol: str
) -> Side:
    """One end's word: the destination's for "Ingress", the source's for "Egress"."""
    own, other = (destination, source) if direction == INGRESS else (source, destination)
    exempt = exemption(world.conventions, own, other, world)
    if exempt:
        return Side(direction, True, why=exempt)
    about = [policy for policy in world.policies if concerns(world, policy, own, direction)]
    flow = (destination, port, protocol)
    passed: list[Fit] = []
    for policy in about:
        if policy.tier == ADMIN:
            fit = first_fit(world, policy, direction, other, flow)
            if fit is not None and fit.rule.action == PASS:
                passed.append(fit)
                break
            if fit is not None:
                allowed = fit.rule.action == ACCEPT
                return Side(direction, allowed, ADMIN, "", (fit,), (), tuple(about))
    isolating = [policy for policy in about if policy.tier == NETWORK]
    if isolating:
        fits = tuple(fit for policy in isolating for fit in all_fits(world, policy, direction, other, flow))
        why = "" if fits else "isolated"
        return Side(direction, bool(fits), NETWORK, why, fits, tuple(passed), tuple(about))
    for policy in about:
        if policy.tier == BASELINE:
            fit = first_fit(world, policy, direction, other, flow)
            if fit is not None and fit.rule.action == PASS:
                passed.append(fit)
                break
            if fit is not None:
                allowed = fit.rule.action == ACCEPT
                return Side(direction, allowed, BASELINE, "", (fit,), tuple(passed), tuple(about))
    return Side(direction, True, passed=tuple(passed), selecting=tuple(about))


def exemption(conventions: Conventions, own: Endpoint, other: Endpoint, world: World) -> str:
    """Why no policy of `own`'s is asked; empty where they are."""
    if not own.is_pod:
        return "outside"
    if own.host_network:
        return "host network"
    if conventions.self_allowed and own.name == other.name:
        return "itself"
    if conventions.node_allowed and own.node and on_node(world, other, own.node):
        return "own node"
    return ""


def on_node(world: World, endpoint: Endpoint, node: str) -> bool:
    """Whether traffic of an endpoint is this node's own: a pod in its network, or one of its addresses."""
    if endpoint.is_pod:
        return endpoint.host_network and endpoint.node == node
    return any(item.name == node and endpoint.name in item.ips for item in world.nodes)


def concerns(world: World, policy: Policy, pod: Endpoint, direction: str) -> bool:
    """Whether a policy has a word on a pod's traffic in a direction."""
    if policy.tier == NETWORK and direction not in policy.isolates:
        return False
    if policy.tier != NETWORK and not policy.rules(direction):
        return False
    return selects(world, policy, pod)


def selects(world: World, policy: Policy, pod: Endpoint) -> bool:
    """Whether a pod is among a policy's subjects."""
    return _is_pod_of(world, policy.subject, pod)


def _is_pod_of(world: World, peer: Peer, pod: Endpoint) -> bool:
    if not pod.selectable or peer.pods is None:
        return False
    if peer.namespace:
        in_namespace = pod.namespace == peer.namespace
    else:
        assert peer.namespaces is not None
        in_namespace = fits_labels(peer.namespaces, world.namespaces[pod.namespace])
    return in_namespace and fits_labels(peer.pods, pod.labels)


def fits_peer(world: World, peer: Peer, other: Endpoint) -> bool:
    """Whether an endpoint is one a peer names."""
    if peer.block:
        if other.selectable and not world.conventions.block_matches_pods:
            return False
        address = other.address(world.conventions.family if other.is_pod else 0)
        if not address or address not in prefix(peer.block):
            return False
        return not any(address in prefix(hole) for hole in peer.excepted)
    if peer.nodes is not None:
        return any(
            fits_labels(peer.nodes, node.labels) and any(ip in node.ips for ip in other.ips)
            for node in world.nodes
            if not other.selectable
        )
    return _is_pod_of(world, peer, other)


def fits_ports(ports: Ports, destination: Endpoint, port: int, protocol: str) -> bool:
    """Whether a destination's port is among those meant. A name is looked up in the destination's containers."""
    if ports.name:
        return ports.protocol in ("", protocol) and any(
            item.name == ports.name and item.number == port and item.protocol == protocol
            for item in destination.ports
        )
    return ports.protocol == protocol and ports.first <= port <= ports.last


def all_fits(
    world: World, policy: Policy, direction: str, other: Endpoint, flow: tuple[Endpoint, int, str]
) -> Iterable[Fit]:
    """Every rule of a policy that fits a flow, in order."""
    for rule in policy.rules(direction):
        if rule.ports is not None and not any(fits_ports(ports, *flow) for ports in rule.ports):
            continue
        if rule.peers is None:
            yield Fit(policy, rule)
            continue
        for number, peer in enumerate(rule.peers):
            if fits_peer(world, peer, other):
                yield Fit(policy, rule, number)
                break


def first_fit(
    world: World, policy: Policy, direction: str, other: Endpoint, flow: tuple[Endpoint, int, str]
) -> Fit | None:
    """The rule of an administrator's policy that decides."""
    return next(iter(all_fits(world, policy, direction, other, flow)), None)


def parse_port(text: str) -> tuple[int, str]:
    """`80/TCP` or `80` as number and protocol. Raises ValueError, naming what is wrong."""
    number, _, protocol = text.partition("/")
    protocol = protocol.upper() or "TCP"
    if not number.isascii() or not number.isdigit() or not 0 <= int(number) <= 65535:
        raise ValueError(f"{text!r}: the port is a number from 0 to 65535")
    if protocol not in ("TCP", "UDP", "SCTP"):
        raise ValueError(f"{text!r}: the protocol is TCP, UDP or SCTP")
    return int(number), protocol


def table(world: World, probes: Sequence[str]) -> dict[str, list[str]]:
    """The truth table of a world: for each probe ("80/TCP") a row of letters a source, a letter a destination.

    Flow by flow; `kubenet_lab.reach` gives the same table in less time. Raises ValueError for a malformed probe.
    """
    return {
        probe: [
            "".join(
                judge(world, source, destination, *parse_port(probe)).letter
                for destination in world.endpoints
            )
            for source in world.endpoints
        ]
        for probe in probes
    }


__all__ = ["DIRECTIONS", "Fit", "Judgement", "Side", "judge", "parse_port", "side", "table"]
