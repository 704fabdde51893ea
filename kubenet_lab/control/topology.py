"""Hints for `service.kubernetes.io/topology-mode: Auto`: endpoints are shared out by the zones' CPUs.

Each zone is meant to get as many endpoints as its share of all CPUs; a zone with too many lends some to those with too
few. Where no share-out comes within 20 % of fair, there are no hints at all.
https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/ and
`staging/src/k8s.io/endpointslice/topologycache`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

from msgspec import Struct

from kubenet_lab.control.slice_plan import SlicePlan, rehinted, surely_ready
from kubenet_lab.objects import Endpoint, EndpointHints, EndpointSlice, Node
from kubenet_lab.objects.endpointslice import ForZone
from kubenet_lab.objects.node import ZONE_LABEL

ANNOTATIONS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
"""The older name, which wins, and the name since 1.27."""
OVERLOAD = 0.2
"""How much more than its fair share an endpoint may get."""
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

ENABLED = "Topology Aware Hints has been enabled"
DISABLED = "Topology Aware Hints has been disabled"
_NO_NODE_INFO = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
_TOO_FEW = "Insufficient number of endpoints"
_UNFAIR = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
_NO_ZONE = "One or more endpoints do not have a zone specified"
_NONE_ALLOCATED = "No hints allocated for zones"


class ServiceEvent(Struct, frozen=True):
    """What the controller records on the Service: `type` is Normal or Warning."""

    type: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.type} {self.reason} {self.message}"


class _Share(Struct, frozen=True):
    """How many endpoints a zone must, may and should have."""

    minimum: int
    maximum: int
    desired: float


def wanted(annotations: Mapping[str, str]) -> bool:
    """Whether a Service asks for these hints."""
    value = next((annotations[name] for name in ANNOTATIONS if name in annotations), "")
    return value in ("Auto", "auto")


def cpu_ratios(nodes: Iterable[Node]) -> dict[str, float] | None:
    """Each zone's share of all CPUs, or None where that cannot be told.

    Nodes that are not ready (or do not say so) and nodes of the control plane do not count. One that counts without
    a zone or CPU spoils all; so does a single zone.
    """
    millis: Counter[str] = Counter()
    for node in nodes:
        if any(label in node.metadata.labels for label in _CONTROL_PLANE) or not _says_ready(node):
            continue
        zone, cpu = node.metadata.labels.get(ZONE_LABEL, ""), quantity(node.status.allocatable.get("cpu"))
        if not zone or not cpu:
            return None
        millis[zone] += math.ceil(cpu * 1000)
    total = sum(millis.values())
    if len(millis) < 2 or not total:
        return None
    return {zone: millis[zone] / total for zone in sorted(millis)}


def _says_ready(node: Node) -> bool:
    return next((item.status == "True" for item in node.status.conditions if item.type == "Ready"), False)


def quantity(text: object) -> Fraction:
    """A resource quantity such as "500m", "2", "1.5" or "4Gi" as a number; 0 where there is none or it is none.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    value = str(text or "0")
    for suffix, factor in _SUFFIXES:
        if value.endswith(suffix):
            value, scale = value[: -len(suffix)], factor
            break
    else:
        scale = Fraction(1)
    try:
        return Fraction(value) * scale
    except ValueError:
        return Fraction(0)


_SUFFIXES = tuple(
    [(f"{letter}i", Fraction(1024) ** power) for power, letter in enumerate("KMGTPE", 1)]
    + [(letter, Fraction(1000) ** power) for power, letter in enumerate("kMGTPE", 1)]
    + [(letter, Fraction(1, 1000) ** power) for power, letter in enumerate("mun", 1)]
)


def overloaded(hinted: Mapping[str, int], ratios: Mapping[str, float] | None) -> bool:
    """Whether hints that were fair are no longer so, since the zones' CPUs have changed."""
    if not hinted:
        return False
    if not ratios:
        return True
    total = sum(hinted.values())
    return any(
        hinted.get(zone, -1) < math.ceil(total * ratio * (1 / (1 + OVERLOAD)))
        for zone, ratio in ratios.items()
    )


def hints_by_zone(slices: Iterable[EndpointSlice]) -> Counter[str]:
    """How many ready endpoints are meant for each zone."""
    return Counter(
        zone.name
        for item in slices
        for endpoint in item.endpoints
        if surely_ready(endpoint) and endpoint.hints is not None
        for zone in endpoint.hints.for_zones
    )


def add_hints(
    plan: SlicePlan, ratios: Mapping[str, float] | None, address_type: str, populated: bool
) -> tuple[ServiceEvent, ...]:
    """Set the hints of a plan's slices, all of one Service and address type; returns what is recorded on the Service.

    Args:
        ratios: As `cpu_ratios` gives them.
        populated: Whether the Service had such hints already; that they begin is told once.
    """

    def off(message: str) -> tuple[ServiceEvent, ...]:
        plan.without_hints()
        return (
            ServiceEvent("Warning", "TopologyAwareHintsDisabled", f"{message}, addressType: {address_type}"),
        )

    slices = [*plan.create, *plan.update, *plan.unchanged]
    ready = sum(surely_ready(endpoint) for item in slices for endpoint in item.endpoints)
    shares = _shares(ratios, ready)
    if isinstance(shares, str):
        return off(shares)
    allocated: Counter[str] = Counter()
    kept = []
    for item in plan.unchanged:
        counted = _fair_as_it_is(item, allocated, shares)
        if counted is None:
            plan.update.append(item)
        else:
            kept.append(item)
            allocated += counted
    plan.unchanged = kept
    written = [*plan.create, *plan.update]
    if any(surely_ready(endpoint) and not endpoint.zone for item in written for endpoint in item.endpoints):
        return off(_NO_ZONE)
    allocated.update(str(e.zone) for item in written for e in item.endpoints if surely_ready(e))
    giving, receiving = _who_gives(shares, allocated)
    lend = _Lender(giving, receiving)
    plan.create = [rehinted(item, lend.hint) for item in plan.create]
    plan.update = [rehinted(item, lend.hint) for item in plan.update]
    if not allocated:
        return off(_NONE_ALLOCATED)
    if populated:
        return ()
    return (ServiceEvent("Normal", "TopologyAwareHintsEnabled", f"{ENABLED}, addressType: {address_type}"),)


class _Lender:
    """Gives every ready endpoint to its own zone, except the first of a giving zone, which go to the receiving ones.

    The controller takes the receiving zones in the random order of a Go map; here it is by name.
    """

    def __init__(self, giving: Counter[str], receiving: Counter[str]) -> None:
        self.giving, self.receiving = giving, receiving

    def hint(self, endpoint: Endpoint) -> EndpointHints | None:
        if not surely_ready(endpoint):
            return endpoint.hints
        own = endpoint.zone or ""
        to = own
        if self.giving[own] > 0:
            to = next((zone for zone in sorted(self.receiving) if self.receiving[zone] > 0), own)
            if to != own:
                self.giving[own] -= 1
                self.receiving[to] -= 1
        return EndpointHints(for_zones=(ForZone(name=to),))


def _shares(ratios: Mapping[str, float] | None, endpoints: int) -> dict[str, _Share] | str:
    """What each zone gets, or why there is nothing to share out."""
    if not ratios:
        return _NO_NODE_INFO
    counts = f"({endpoints} endpoints, {len(ratios)} zones)"
    if len(ratios) > endpoints:
        return f"{_TOO_FEW} {counts}"
    fair = {zone: ratio * endpoints for zone, ratio in ratios.items()}
    least = {zone: math.ceil(desired * (1 / (1 + OVERLOAD))) for zone, desired in fair.items()}
    spare = endpoints - sum(least.values())
    if spare < 0:
        return f"{_UNFAIR} {counts}"
    return {zone: _Share(least[zone], least[zone] + spare, max(fair[zone], least[zone])) for zone in ratios}


def _fair_as_it_is(
    item: EndpointSlice, allocated: Counter[str], shares: Mapping[str, _Share]
) -> Counter[str] | None:
    """The hints of a slice by zone, or None where it has to be written anew."""
    if any(surely_ready(e) and (e.hints is None or not e.hints.for_zones) for e in item.endpoints):
        return None
    counted = hints_by_zone([item])
    for zone, count in counted.items():
        if zone not in shares or count + allocated[zone] > shares[zone].maximum:
            return None
    return counted


def _who_gives(shares: Mapping[str, _Share], allocated: Counter[str]) -> tuple[Counter[str], Counter[str]]:
    """How many endpoints which zones lend and get, the zone that has most to give or to get first."""
    over = {zone: allocated[zone] - share.desired for zone, share in shares.items()}
    surplus = {zone: number for zone, number in over.items() if number > 0}
    lack = {zone: -number for zone, number in over.items() if number < 0}
    giving: Counter[str] = Counter()
    receiving: Counter[str] = Counter()
    while True:
        give, get = _most(surplus), _most(lack)
        if not give or not get:
            break
        much, little = surplus[give], lack[get]
        if (much < 1 and little < 1) or much < 0.5 or little < 0.5:
            break
        giving[give] += 1
        receiving[get] += 1
        surplus[give] -= 1
        lack[get] -= 1
    return giving, receiving


def _most(zones: Mapping[str, float]) -> str:
    best = ""
    for zone, number in zones.items():
        if number > (zones[best] if best else 0.0):
            best = zone
    return best
