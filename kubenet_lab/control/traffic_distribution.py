"""Hints for `spec.trafficDistribution`: each endpoint is meant for its own zone, or its own node.

KEP-3015 (PreferSameZone, PreferSameNode; PreferClose is the older name of PreferSameZone) and
`staging/src/k8s.io/endpointslice/trafficdist`.
"""

from __future__ import annotations

from kubenet_lab.control.slice_plan import SlicePlan, surely_ready
from kubenet_lab.objects import Endpoint, EndpointHints, EndpointSlice
from kubenet_lab.objects.endpointslice import ForNode, ForZone

VALUES = ("PreferClose", "PreferSameZone", "PreferSameNode")


def add_hints(plan: SlicePlan, distribution: str | None) -> None:
    """Set the hints of a plan's slices.

    Only ready endpoints are given hints; others keep what they had, and an old hint of theirs is no reason to write a
    slice. Without a distribution, or with one that nobody knows, all hints go.
    """
    if distribution not in VALUES:
        plan.without_hints()
        return
    nodes = distribution == "PreferSameNode"

    def wished(endpoint: Endpoint) -> EndpointHints | None:
        return _hint(endpoint, nodes) if surely_ready(endpoint) else endpoint.hints

    def wrong(item: EndpointSlice) -> bool:
        return any(_differs(endpoint.hints, wished(endpoint)) for endpoint in item.endpoints)

    plan.touch(wrong)
    plan.rehint(wished)


def _hint(endpoint: Endpoint, nodes: bool) -> EndpointHints | None:
    zones = () if endpoint.zone is None else (ForZone(name=endpoint.zone),)
    names = (ForNode(name=endpoint.node_name),) if nodes and endpoint.node_name is not None else ()
    return EndpointHints(for_zones=zones, for_nodes=names) if zones or names else None


def _differs(have: EndpointHints | None, wished: EndpointHints | None) -> bool:
    """Whether hints say something else; having none and having empty ones is the same."""
    return (have or EndpointHints()) != (wished or EndpointHints())
