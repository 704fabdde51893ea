"""Why a flow is allowed or denied, and which single change would flip that, each checked by judging once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.objects import LabelSelector
from kubenet_lab.policy import words
from kubenet_lab.policy.evaluate import DEFAULT, Fit, Judgement, Side, fits_peer, fits_ports, judge
from kubenet_lab.policy.world import (
    ACCEPT,
    ADMIN,
    DENY,
    EGRESS,
    INGRESS,
    NAME_LABEL,
    NETWORK,
    Endpoint,
    Peer,
    Policy,
    Ports,
    Rule,
    World,
)

Place = Callable[[Policy, str], str]
"""Where a policy, or a field of it (`spec.ingress[0]`), was written: "shop.yaml:12"; empty where that is not known."""


class Reason(Struct, frozen=True):
    """One line of an explanation.

    Attributes:
        text: A sentence.
        policy: The policy it speaks of, "NetworkPolicy shop/db"; empty for none.
        field: Where in it (`spec.ingress[0]`).
        place: The file and line of that.
        depth: 0 for a side's verdict, 1 for what led to it, 2 for details.
    """

    text: str
    policy: str = ""
    field: str = ""
    place: str = ""
    depth: int = 0


class Flip(Struct, frozen=True):
    """A change after which the flow ends the other way.

    Attributes:
        text: What to do.
        policy, place: Where, if it is an edit of a policy.
        complete: False for one that turns only one of two sides that both deny.
    """

    text: str
    policy: str = ""
    place: str = ""
    complete: bool = True


class Explanation(Struct, frozen=True):
    """A judgement in words."""

    judgement: Judgement
    summary: str
    egress: tuple[Reason, ...]
    ingress: tuple[Reason, ...]
    flips: tuple[Flip, ...]

    @property
    def allowed(self) -> bool:
        """Whether policies allow the flow."""
        return self.judgement.allowed

    def text(self) -> str:
        """All of it as lines."""
        lines = [self.summary, ""]
        for reason in (*self.egress, *self.ingress):
            place = f"  [{reason.place}]" if reason.place else ""
            lines.append(f"{'  ' * reason.depth}{reason.text}{place}")
        if self.flips:
            lines += ["", f"What would {'cut' if self.allowed else 'open'} it (each alone, and checked):"]
            if not all(flip.complete for flip in self.flips):
                lines[-1] = "Both ends deny: one change is not enough. What would open one end (checked):"
            for flip in self.flips:
                place = f"  [{flip.place}]" if flip.place else ""
                lines.append(f"  - {flip.text}{place}")
        return "\n".join(lines) + "\n"


def _nowhere(_policy: Policy, _field: str) -> str:
    return ""


def explain(
    world: World,
    source: Endpoint,
    destination: Endpoint,
    port: int,
    protocol: str = "TCP",
    place: Place = _nowhere,
) -> Explanation:
    """Judge a flow and say why.

    Args:
        world, source, destination, port, protocol: As for `evaluate.judge`.
        place: Tells where a policy was written.
    """
    found = judge(world, source, destination, port, protocol)
    flow = f"{_who(source)} -> {_who(destination)} on {port}/{protocol}"
    if found.allowed:
        summary = f"{flow}: ALLOWED"
    else:
        ends = [
            name
            for name, side in (
                (f"the egress of {source.name}", found.egress),
                (f"the ingress of {destination.name}", found.ingress),
            )
            if not side.allowed
        ]
        summary = f"{flow}: DENIED by {' and by '.join(ends)}"
    return Explanation(
        found,
        summary,
        tuple(_side(world, found, found.egress, place)),
        tuple(_side(world, found, found.ingress, place)),
        tuple(_flips(world, found, place)),
    )


def _who(endpoint: Endpoint) -> str:
    address = endpoint.address()
    return f"{endpoint.name} ({address})" if endpoint.is_pod and address else endpoint.name


_EXEMPT = {
    "outside": "not in the cluster: no policy has a word on this end",
    "host network": "in its node's network: policies are not about such pods, it counts as the node",
    "itself": "a pod always reaches itself: the packet stays in the pod",
    "own node": "traffic between a pod and its own node is always let through, or the kubelet could not probe it",
}


def _side(world: World, found: Judgement, side: Side, place: Place) -> Iterator[Reason]:
    own = found.source if side.direction == EGRESS else found.destination
    other = found.destination if side.direction == EGRESS else found.source
    head = f"{side.direction} of {own.name}: {'allowed' if side.allowed else 'denied'}"
    if side.why in _EXEMPT:
        yield Reason(f"{head}; {_EXEMPT[side.why]}.")
        return
    selecting = [policy for policy in side.selecting if policy.tier == NETWORK]
    for fit in side.passed:
        yield _fit(fit, side.direction, "passes it on to the next tier", place)
    if side.tier == DEFAULT:
        also = _other_direction(world, own, side.direction)
        yield Reason(
            f"{head}: no policy selects this pod for {side.direction.lower()}, so everything may pass.{also}"
        )
        return
    if side.tier != NETWORK:
        fit = side.fits[0]
        word = "accepts" if fit.rule.action == ACCEPT else "denies"
        before = (
            "before any NetworkPolicy is asked"
            if side.tier == ADMIN
            else "as no NetworkPolicy selects the pod"
        )
        yield Reason(f"{head} by the {side.tier} tier, {before}.")
        yield _fit(fit, side.direction, word + " it", place)
        return
    names = words.listed([words.title(policy) for policy in selecting])
    if side.fits:
        yield Reason(f"{head}: selected by {names}, and a rule accepts it.")
        for fit in side.fits:
            yield _fit(fit, side.direction, "accepts it", place)
        return
    yield Reason(
        f"{head}: selected by {names}, and none of {'its' if len(selecting) == 1 else 'their'} rules fits."
    )
    for policy in selecting:
        rules = policy.rules(side.direction)
        if not rules:
            text = f"{words.title(policy)} has no {side.direction.lower()} rule: it lets nothing through"
            yield Reason(text, words.title(policy), "spec", place(policy, "spec.policyTypes"), 1)
        for rule in rules:
            field = f"spec.{side.direction.lower()}[{rule.index}]"
            text = (
                f"{words.title(policy)}, {words.rule_name(policy, rule, side.direction)} lets through only "
                f"{words.rule(rule, side.direction)}"
            )
            yield Reason(text, words.title(policy), field, place(policy, field), 1)
            for miss in _misses(world, rule, found, other):
                yield Reason(miss, words.title(policy), field, "", 2)


def _other_direction(world: World, own: Endpoint, direction: str) -> str:
    """A hint where a pod is isolated the other way only, which people take for both."""
    opposite = INGRESS if direction == EGRESS else EGRESS
    from kubenet_lab.policy.evaluate import concerns

    held = [
        policy
        for policy in world.policies
        if policy.tier == NETWORK and concerns(world, policy, own, opposite)
    ]
    if not held:
        return ""
    return f" ({words.title(held[0])} is about its {opposite.lower()} only.)"


def _fit(fit: Fit, direction: str, does: str, place: Place) -> Reason:
    field = f"spec.{direction.lower()}[{fit.rule.index}]"
    if fit.peer is not None:
        field += f".{fit.rule.parts[fit.peer]}"
        who = words.peer((fit.rule.peers or ())[fit.peer])
    else:
        who = "everybody"
    where = "from" if direction == INGRESS else "to"
    name = words.rule_name(fit.policy, fit.rule, direction)
    text = f"{words.title(fit.policy)}, {name} {does}: {where} {who}, on {words.ports(fit.rule)}"
    return Reason(text, words.title(fit.policy), field, place(fit.policy, field), 1)


def _misses(world: World, rule: Rule, found: Judgement, other: Endpoint) -> Iterator[str]:
    """Why a rule does not fit."""
    if rule.peers is not None and not any(fits_peer(world, peer, other) for peer in rule.peers):
        what = f"{other.name} has {words.labels(other)}" if other.is_pod else f"{other.name} is no pod"
        if other.is_pod and other.host_network:
            what = f"{other.name} is in its node's network and counts as the address {other.address()}"
        elif other.is_pod and any(
            peer.pods is not None and not _same_space(world, peer, other) for peer in rule.peers
        ):
            what += f", in namespace {other.namespace}"
        yield f"{other.name} is not meant: {what}"
    if rule.ports is not None and not any(
        fits_ports(ports, found.destination, found.port, found.protocol) for ports in rule.ports
    ):
        text = f"port {found.port}/{found.protocol} is not meant"
        names = [ports.name for ports in rule.ports if ports.name]
        for name in names:
            declared = [port for port in found.destination.ports if port.name == name]
            if declared:
                text += (
                    f'; "{name}" is {declared[0].number}/{declared[0].protocol} at {found.destination.name}'
                )
            else:
                text += f'; {found.destination.name} declares no port named "{name}"'
        yield text


def _same_space(world: World, peer: Peer, pod: Endpoint) -> bool:
    return fits_peer(world, replace(peer, pods=LabelSelector()), pod)


# -- single changes ---------------------------------------------------------------------------------------------------


def _flips(world: World, found: Judgement, place: Place) -> Iterator[Flip]:
    """Changes after which the judgement is another; each is tried."""
    if not (found.source.is_pod or found.destination.is_pod):
        return
    sides = [side for side in (found.egress, found.ingress) if side.allowed == found.allowed]
    both = not found.allowed and len(sides) == 2
    for side in sides:
        if side.why in _EXEMPT:
            continue
        for text, policy, field, changed, source, destination in _candidates(world, found, side):
            after = judge(changed, source, destination, found.port, found.protocol)
            end = after.egress if side.direction == EGRESS else after.ingress
            if (end.allowed if both else after.allowed) == found.allowed:
                continue
            name = words.title(policy) if policy is not None else ""
            yield Flip(text, name, place(policy, field) if policy is not None and field else "", not both)


_Candidate = tuple[str, "Policy | None", str, World, Endpoint, Endpoint]


def _candidates(world: World, found: Judgement, side: Side) -> Iterator[_Candidate]:
    direction = side.direction
    own = found.source if direction == EGRESS else found.destination
    other = found.destination if direction == EGRESS else found.source
    ends = (found.source, found.destination)
    lower, preposition = direction.lower(), "from" if direction == INGRESS else "to"
    exact = Ports(found.protocol, found.port, found.port)
    if side.tier != NETWORK and side.fits:
        fit = side.fits[0]
        action = DENY if found.allowed else ACCEPT
        changed = _with_rule(world, fit.policy, direction, replace(fit.rule, action=action))
        field = f"spec.{lower}[{fit.rule.index}].action"
        name = words.rule_name(fit.policy, fit.rule, direction)
        spelled = "Allow" if action == ACCEPT and fit.policy.kind != "ClusterNetworkPolicy" else action
        yield f"make {name} of {words.title(fit.policy)} say {spelled}", fit.policy, field, changed, *ends
        return
    if found.allowed:
        if side.fits:
            if len({(fit.policy.title, fit.rule.index) for fit in side.fits}) == 1:
                fit = side.fits[0]
                changed = _without_rule(world, fit.policy, direction, fit.rule)
                name = words.rule_name(fit.policy, fit.rule, direction)
                yield (
                    f"remove {name} of {words.title(fit.policy)}",
                    fit.policy,
                    f"spec.{lower}[{fit.rule.index}]",
                    changed,
                    *ends,
                )
            return
        wall = Policy(
            "NetworkPolicy", "new", NETWORK, Peer(own.namespace, pods=LabelSelector(match_labels=_own_labels(own))),
            namespace=own.namespace, isolates=(direction,),
        )  # fmt: skip
        changed = world.with_policies([*world.policies, wall])
        text = (
            f"add a NetworkPolicy in {own.namespace} that selects {words.labels(own)} for {direction} "
            f"and has no rule for this flow"
        )
        yield text, None, "", changed, *ends
        return
    isolating = [policy for policy in side.selecting if policy.tier == NETWORK]
    for policy in isolating:
        for rule in policy.rules(direction):
            peer_fits = rule.peers is None or any(fits_peer(world, peer, other) for peer in rule.peers)
            port_fits = rule.ports is None or any(
                fits_ports(ports, found.destination, found.port, found.protocol) for ports in rule.ports
            )
            field, name = f"spec.{lower}[{rule.index}]", words.rule_name(policy, rule, direction)
            if peer_fits and not port_fits:
                changed = _with_rule(
                    world, policy, direction, replace(rule, ports=(*(rule.ports or ()), exact))
                )
                yield (
                    f"add port {found.port}/{found.protocol} to {name} of {words.title(policy)}",
                    policy,
                    f"{field}.ports",
                    changed,
                    *ends,
                )
            if port_fits and not peer_fits:
                yield from _labelled(world, found, direction, policy, rule, f"{field}.{preposition}")
    if isolating:
        policy = isolating[0]
        peer = _peer_for(other, policy)
        rules = policy.rules(direction)
        rule = Rule(len(rules), ACCEPT, (peer,), (exact,), (f"{preposition}[0]",))
        changed = _with_rule(world, policy, direction, rule)
        text = f"add to the {lower} of {words.title(policy)}: {words.rule(rule, direction)}"
        yield text, policy, f"spec.{lower}", changed, *ends
    if len(isolating) == 1:
        policy = isolating[0]
        rest = world.with_policies([item for item in world.policies if item is not policy])
        yield f"delete {words.title(policy)}", policy, "metadata.name", rest, *ends


def _labelled(
    world: World, found: Judgement, direction: str, policy: Policy, rule: Rule, field: str
) -> Iterator[_Candidate]:
    """The other end with the labels a rule asks for."""
    other = found.destination if direction == EGRESS else found.source
    for peer in rule.peers or ():
        if (
            not other.selectable
            or peer.pods is None
            or peer.pods.match_expressions
            or not _same_space(world, peer, other)
        ):
            continue
        changed_end = replace(other, labels={**other.labels, **peer.pods.match_labels})
        ends = [changed_end if item.name == other.name else item for item in world.endpoints]
        ours = (found.source, changed_end) if direction == EGRESS else (changed_end, found.destination)
        new = ", ".join(f"{key}={value}" for key, value in peer.pods.match_labels.items())
        asking = f"{words.rule_name(policy, rule, direction)} of {words.title(policy)}"
        text = f"give {other.name} the labels {new}, which {asking} asks for"
        yield text, policy, field, replace(world, endpoints=tuple(ends)), *ours


def _own_labels(endpoint: Endpoint) -> dict[str, str]:
    return {key: value for key, value in endpoint.labels.items() if not key.endswith("-hash")}


def _peer_for(other: Endpoint, policy: Policy) -> Peer:
    """A peer that means an endpoint."""
    if not other.selectable:
        address = other.address() or other.name
        return Peer(block=f"{address}/{128 if ':' in address else 32}")
    pods = LabelSelector(match_labels=_own_labels(other))
    if other.namespace == policy.namespace:
        return Peer(policy.namespace, pods=pods)
    return Peer(namespaces=LabelSelector(match_labels={NAME_LABEL: other.namespace}), pods=pods)


def _with_rule(world: World, policy: Policy, direction: str, rule: Rule) -> World:
    rules = list(policy.ingress if direction == INGRESS else policy.egress)
    rules[rule.index : rule.index + 1] = [rule]
    return _replaced(world, policy, direction, rules)


def _without_rule(world: World, policy: Policy, direction: str, rule: Rule) -> World:
    rules = [item for item in policy.rules(direction) if item.index != rule.index]
    return _replaced(world, policy, direction, rules)


def _replaced(world: World, policy: Policy, direction: str, rules: list[Rule]) -> World:
    field = "ingress" if direction == INGRESS else "egress"
    changed = replace(policy, **{field: tuple(rules)})
    return world.with_policies([changed if item is policy else item for item in world.policies])
