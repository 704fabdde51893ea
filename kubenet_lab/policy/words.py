"""Selectors, peers, ports and rules in the words of a learner."""

from __future__ import annotations

from collections.abc import Sequence

from kubenet_lab.objects import LabelSelector
from kubenet_lab.policy.world import (
    EVERYTHING,
    INGRESS,
    LAST_PORT,
    NETWORK,
    Endpoint,
    Peer,
    Policy,
    Ports,
    Rule,
)


def selector(given: LabelSelector) -> str:
    """`app=web, tier in (a, b)`, as `kubectl -l` takes it; empty for one that selects everything."""
    parts = [f"{key}={value}" for key, value in given.match_labels.items()]
    for item in given.match_expressions:
        values = ", ".join(item.values)
        parts.append(
            {
                "In": f"{item.key} in ({values})",
                "NotIn": f"{item.key} notin ({values})",
                "Exists": item.key,
                "DoesNotExist": f"!{item.key}",
            }.get(item.operator, f"{item.key} {item.operator}")
        )
    return ", ".join(parts)


def peer(given: Peer) -> str:
    """Who is meant."""
    if given.block:
        holes = f" but not {', '.join(given.excepted)}" if given.excepted else ""
        return f"addresses in {given.block}{holes}"
    if given.nodes is not None:
        which = selector(given.nodes)
        return f"nodes with {which}" if which else "every node"
    if given.domains:
        return f"the names {', '.join(given.domains)} (not modelled: no address is known to be meant)"
    pods = selector(given.pods or EVERYTHING)
    who = f"pods with {pods}" if pods else "every pod"
    if given.namespace:
        return f"{who} in namespace {given.namespace}"
    spaces = selector(given.namespaces or EVERYTHING)
    return f"{who} in namespaces with {spaces}" if spaces else f"{who} in every namespace"


def peers(rule: Rule) -> str:
    """All a rule's peers: one of them is enough."""
    if rule.peers is None:
        return "everybody"
    return " or ".join(map(peer, rule.peers)) or "nobody that can be read"


def port(given: Ports) -> str:
    """`80/TCP`, `8000-8999/TCP`, `every TCP port`, `the port named "http"`."""
    if given.name:
        of = f" ({given.protocol})" if given.protocol else ""
        return f'the port named "{given.name}"{of}'
    if (given.first, given.last) == (0, LAST_PORT):
        return f"every {given.protocol} port"
    numbers = str(given.first) if given.first == given.last else f"{given.first}-{given.last}"
    return f"{numbers}/{given.protocol}"


def ports(rule: Rule) -> str:
    """All a rule's ports."""
    return "every port" if rule.ports is None else " or ".join(map(port, rule.ports))


def rule(given: Rule, direction: str) -> str:
    """A rule as a phrase: `from pods with app=web in namespace shop, on 80/TCP`."""
    return f"{'from' if direction == INGRESS else 'to'} {peers(given)}, on {ports(given)}"


def rule_name(policy: Policy, given: Rule, direction: str) -> str:
    """`ingress rule 1`, or `ingress rule 2 ("dns")`."""
    name = f' ("{given.name}")' if given.name else ""
    return f"{direction.lower()} rule {given.index + 1}{name}"


def title(policy: Policy) -> str:
    """`NetworkPolicy shop/db`."""
    return f"{policy.kind} {policy.namespace}/{policy.name}" if policy.tier == NETWORK else policy.title


def labels(endpoint: Endpoint) -> str:
    """An endpoint's labels, without those that only controllers use."""
    shown = [f"{key}={value}" for key, value in endpoint.labels.items() if not key.endswith("-hash")]
    return ", ".join(shown) or "no labels"


def listed(items: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; the rest of a long list is counted."""
    shown = list(items[:most])
    if len(items) > most:
        shown.append(f"{len(items) - most} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
