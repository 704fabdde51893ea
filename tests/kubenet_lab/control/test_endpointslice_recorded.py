"""Hints, target ports, slices and Endpoints against those of kube-controller-manager 1.37."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.control import (
    DUAL_STACK,
    apply,
    endpoints,
    endpointslice,
    mirroring,
    topology,
    traffic_distribution,
)
from kubenet_lab.control.loop import Reconcile
from kubenet_lab.control.slice_plan import SlicePlan
from kubenet_lab.objects import (
    Container,
    ContainerPort,
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    Node,
    ObjectMeta,
    Pod,
    ServicePort,
    default_nodes,
    from_manifest,
)
from kubenet_lab.objects.endpoints import Endpoints
from kubenet_lab.objects.endpointslice import ForNode, ForZone
from kubenet_lab.objects.node import NodeCondition, NodeStatus
from kubenet_lab.objects.pod import PodSpec
from kubenet_lab.store import Store
from tests.oracles import open_case

Json = dict[str, Any]


def _by_name(folder: str, file: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for case in open_case(folder, file):
        # Two cases may have one name: a target port is a number in one and the same digits as a name in the other.
        name = case["name"] if case["name"] not in found else f"{case['name']} (again)"
        assert name not in found
        found[name] = case
    return found


PORTS = _by_name("endpointslice-helpers", "find-port")
DISTRIBUTION = _by_name("endpointslice-helpers", "traffic-distribution")
TOPOLOGY = _by_name("endpointslice-helpers", "topology-mode-auto")
SLICES = _by_name("api", "endpointslices")


def differences(model: object, real: object) -> str:
    """The lines in which two objects differ, the model's with a minus."""
    left, right = (json.dumps(side, indent=1, sort_keys=True).splitlines() for side in (model, real))
    return "\n".join(difflib.unified_diff(left, right, "model", "real", lineterm="", n=4))


def test_every_recorded_case_is_here() -> None:
    assert (len(PORTS), len(DISTRIBUTION), len(TOPOLOGY), len(SLICES)) == (70, 114, 100, 20)


@pytest.mark.parametrize("name", PORTS)
def test_target_ports(name: str) -> None:
    case = PORTS[name]
    containers: list[Container] = []
    sidecars: list[Container] = []
    for number, item in enumerate(case["containers"]):
        ports = tuple(
            ContainerPort(
                container_port=port["containerPort"],
                name=port.get("name", ""),
                protocol=port.get("protocol", ""),
            )
            for port in item["ports"]
        )
        made = Container(name=f"c{number}", ports=ports, restart_policy=item.get("restartPolicy") or "")
        (sidecars if item.get("init") else containers).append(made)
    pod = Pod(
        metadata=ObjectMeta(name="p"),
        spec=PodSpec(containers=tuple(containers), init_containers=tuple(sidecars)),
    )
    port = ServicePort(port=80, protocol=case["protocol"], target_port=case["targetPort"])
    found = endpointslice.target_port(port, pod)
    assert found == (None if case.get("error") else case["port"])


def _endpoint(number: int, case: Json) -> Endpoint:
    hints = case.get("hints")
    return Endpoint(
        addresses=(f"10.244.0.{number + 1}",),
        conditions=EndpointConditions(ready=case["ready"]),
        node_name=case.get("nodeName"),
        zone=case.get("zone"),
        hints=None
        if hints is None
        else EndpointHints(
            for_zones=tuple(ForZone(name=zone) for zone in hints.get("forZones") or ()),
            for_nodes=tuple(ForNode(name=node) for node in hints.get("forNodes") or ()),
        ),
    )


def _hints(item: EndpointSlice) -> list[Json | None]:
    found: list[Json | None] = []
    for endpoint in item.endpoints:
        if endpoint.hints is None:
            found.append(None)
            continue
        hints: Json = {}
        if endpoint.hints.for_zones:
            hints["forZones"] = [zone.name for zone in endpoint.hints.for_zones]
        if endpoint.hints.for_nodes:
            hints["forNodes"] = [node.name for node in endpoint.hints.for_nodes]
        found.append(hints)
    return found


def _slice_of(case: Json) -> EndpointSlice:
    made = tuple(_endpoint(number, item) for number, item in enumerate(case["endpoints"]))
    return EndpointSlice(metadata=ObjectMeta(name="web-1"), address_type="IPv4", endpoints=made)


@pytest.mark.parametrize("name", DISTRIBUTION)
def test_hints_of_traffic_distribution(name: str) -> None:
    case = DISTRIBUTION[name]
    before = _slice_of(case)
    plan = SlicePlan(unchanged=[before])
    traffic_distribution.add_hints(plan, case["trafficDistribution"])
    assert (bool(plan.update), bool(plan.unchanged)) == (
        case["sliceIsUpdated"],
        case["sliceWouldBeLeftAlone"],
    )
    (after,) = [*plan.update, *plan.unchanged]
    assert _hints(after) == case["hints"], differences(_hints(after), case["hints"])
    # What is written for another reason gets the same hints.
    written = SlicePlan(update=[before])
    traffic_distribution.add_hints(written, case["trafficDistribution"])
    if case["sliceIsUpdated"]:
        assert written.update == plan.update


def _node(case: Json) -> Node:
    ready = case.get("readyCondition") or ""
    return Node(
        metadata=ObjectMeta(name=case["name"], labels=case.get("labels") or {}),
        status=NodeStatus(
            allocatable={"cpu": case["allocatableCPU"]} if case.get("allocatableCPU") else {},
            conditions=(NodeCondition(type="Ready", status=ready),) if ready else (),
        ),
    )


@pytest.mark.parametrize("name", TOPOLOGY)
def test_hints_of_topology_mode_auto(name: str) -> None:
    case = TOPOLOGY[name]
    before = _slice_of(case)
    plan = SlicePlan(unchanged=[before]) if case["sliceExists"] else SlicePlan(create=[before])
    ratios = topology.cpu_ratios(map(_node, case["nodes"]))
    events = topology.add_hints(plan, ratios, "IPv4", populated=False)
    assert [str(event) for event in events] == case["events"]
    assert bool(plan.unchanged) == case["sliceLeftAlone"]
    (after,) = [*plan.create, *plan.update, *plan.unchanged]
    outcomes = [outcome["hints"] for outcome in case["outcomes"]]
    assert _hints(after) in outcomes, differences(_hints(after), outcomes[0])
    assert all("Enabled" in event.reason for event in events) == case["hintsPopulated"]


def _world(case: Json, loops: tuple[Reconcile, ...]) -> Store:
    store = Store()
    for node in default_nodes(3, dual_stack=True):
        store.create(node)
    for kind, objects in (("Service", case["services"]), ("Pod", case["pods"])):
        for manifest in objects:
            store.create(from_manifest({"apiVersion": "v1", "kind": kind, **manifest}))
    for manifest in case["endpoints"]:
        if "endpoints.kubernetes.io/managed-by" not in manifest["metadata"].get("labels", {}):
            store.create(from_manifest({"apiVersion": "v1", "kind": "Endpoints", **manifest}))
    for loop in loops:
        apply(store, loop(store, DUAL_STACK))
    for loop in loops:
        assert loop(store, DUAL_STACK) == []
    return store


@pytest.mark.parametrize("name", SLICES)
def test_slices(name: str) -> None:
    case = SLICES[name]
    store = _world(case, (endpointslice.reconcile, mirroring.reconcile))
    model = [_plain_slice(item.to_manifest()) for item in store.list(EndpointSlice)]
    real = [_plain_slice(item) for item in case["endpointSlices"]]
    if name == "hundred-and-one":
        # How they are packed depends on when the pods came; how many there are, and the limit, does not.
        assert all(len(item["endpoints"]) <= 100 for item in model)
        model, real = [_joined(model)], [_joined(real)]
    model, real = sorted(model, key=json.dumps), sorted(real, key=json.dumps)
    assert model == real, differences(model, real)


@pytest.mark.parametrize("name", SLICES)
def test_endpoints(name: str) -> None:
    case = SLICES[name]
    store = _world(case, (endpoints.reconcile,))
    model = [_plain_endpoints(item.to_manifest()) for item in store.list(Endpoints)]
    real = [_plain_endpoints(item) for item in case["endpoints"]]
    assert model == real, differences(model, real)


def _masked(manifest: Json) -> Json:
    plain: Json = json.loads(json.dumps({**manifest, "apiVersion": "", "kind": ""}, sort_keys=True))
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        plain["metadata"].pop(key, None)
    annotations = plain["metadata"].get("annotations", {})
    annotations.pop("endpoints.kubernetes.io/last-change-trigger-time", None)
    if not annotations:
        plain["metadata"].pop("annotations", None)
    return plain


def _plain_slice(manifest: Json) -> Json:
    plain = _masked(manifest)
    metadata = plain["metadata"]
    prefix, _, suffix = metadata["name"].rpartition("-")
    assert len(suffix) == 5
    metadata["name"] = prefix
    for owner in metadata["ownerReferences"]:
        owner.pop("uid", None)
    plain["endpoints"] = sorted(plain.get("endpoints") or [], key=lambda endpoint: endpoint["addresses"])
    for endpoint in plain["endpoints"]:
        endpoint.get("targetRef", {}).pop("uid", None)
    plain["ports"] = plain.get("ports") or []
    return plain


def _plain_endpoints(manifest: Json) -> Json:
    plain = _masked(manifest)
    for subset in plain.get("subsets") or []:
        for address in [*subset.get("addresses", []), *subset.get("notReadyAddresses", [])]:
            address.get("targetRef", {}).pop("uid", None)
    return plain


def _joined(slices: list[Json]) -> Json:
    found = [endpoint for item in slices for endpoint in item["endpoints"]]
    return {**slices[0], "endpoints": sorted(found, key=lambda endpoint: endpoint["addresses"])}


def test_a_namespace_with_pods_in_every_state() -> None:
    """Services, pods and nodes as kubectl got them, against the slices and Endpoints it got beside them."""
    recorded = open_case("kubectl", "get")["objects"]

    def items(kind: str) -> list[Json]:
        found = recorded[kind]
        return list(found if isinstance(found, list) else found["items"])

    store = Store()
    for kind, name in (("nodes", "Node"), ("services", "Service"), ("pods", "Pod")):
        for manifest in items(kind):
            store.create(from_manifest({"apiVersion": "v1", "kind": name, **manifest}))
    for loop in (endpointslice.reconcile, endpoints.reconcile):
        apply(store, loop(store, DUAL_STACK))
    ours = "endpointslice-controller.k8s.io"
    real = [item for item in items("endpointslices") if ours in item["metadata"]["labels"].values()]
    model = [item.to_manifest() for item in store.list(EndpointSlice)]
    left, right = (sorted(map(_plain_slice, side), key=_place) for side in (model, real))
    assert len(right) == 8
    assert left == right, differences(left, right)
    real = [
        item for item in items("endpoints") if "endpoint-controller" in item["metadata"]["labels"].values()
    ]
    model = [item.to_manifest() for item in store.list(Endpoints)]
    left, right = (sorted(map(_plain_endpoints, side), key=_place) for side in (model, real))
    assert len(right) == 7
    assert left == right, differences(left, right)


def _place(manifest: Json) -> tuple[str, str, str]:
    return (manifest["metadata"]["name"], manifest.get("addressType", ""), json.dumps(manifest.get("ports")))


def test_a_slice_keeps_its_endpoints_and_takes_new_ones_in() -> None:
    """One pod that goes and one that comes are one write of one slice; the other slices stay as they are."""
    case = SLICES["hundred-and-one"]
    store = _world(case, (endpointslice.reconcile,))
    before = {item.name: item for item in store.list(EndpointSlice)}
    full = next(item for item in before.values() if len(item.endpoints) == 100)
    target = full.endpoints[0].target_ref
    assert target is not None
    pod = store.delete("Pod", target.name, target.namespace)
    fresh = replace(pod, metadata=replace(pod.metadata, name="web-new", uid="", resource_version=""))
    store.create(fresh)
    changes = endpointslice.reconcile(store, DUAL_STACK)
    assert [change.verb for change in changes] == ["update"]
    apply(store, changes)
    after = {item.name: item for item in store.list(EndpointSlice)}
    assert [name for name in before if before[name] != after[name]] == [full.name]
    assert after[full.name].endpoints[:-1] == full.endpoints[1:]
