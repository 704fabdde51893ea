"""Slices, Endpoints and mirroring as things change: rules that no single recorded state shows."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.control import DUAL_STACK, endpoints, settle
from kubenet_lab.control.endpoints import OVER_CAPACITY
from kubenet_lab.control.slices import slices_of
from kubenet_lab.control.topology import quantity
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Node, ObjectMeta, Pod, Service, default_nodes, from_manifest
from kubenet_lab.objects.endpoints import EndpointAddress, Endpoints, EndpointsPort, EndpointSubset
from kubenet_lab.objects.endpointslice import MANAGED_BY_LABEL
from kubenet_lab.objects.node import NodeCondition
from kubenet_lab.store import Store


def pod(number: int, *, ready: bool = True, port: int = 8080, app: str = "web", **spec: Any) -> Pod:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{app}-{number}", "namespace": "default", "labels": {"app": app}},
        "spec": {
            "nodeName": f"node-{number % 3 + 1}",
            "containers": [{"name": "c", "image": "x", "ports": [{"name": "http", "containerPort": port}]}],
            **spec,
        },
    }
    made = from_manifest(body)
    assert isinstance(made, Pod)
    address = f"10.244.{number // 250}.{number % 250 + 1}"
    return made.with_status(phase="Running", ips=(address, f"fd00:10:244::{number:x}"), ready=ready)


def service(name: str = "web", **spec: Any) -> Service:
    body = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **spec}
    made = from_manifest(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": body,
        }
    )
    assert isinstance(made, Service)
    return made


def world(*objects: Any) -> Store:
    store = Store()
    for node in default_nodes(3):
        store.create(node)
    for obj in objects:
        store.create(obj)
    settle(store, DUAL_STACK)
    return store


def slices(store: Store, name: str = "web") -> list[EndpointSlice]:
    return [item for item in store.list(EndpointSlice) if item.service_name == name]


def addresses(item: EndpointSlice) -> list[str]:
    return [endpoint.addresses[0] for endpoint in item.endpoints]


def test_several_numbers_of_one_name_are_several_slices() -> None:
    store = world(service(), pod(1), pod(2, port=9090), pod(3))
    found = {item.ports[0].port: addresses(item) for item in slices(store)}
    assert found == {8080: ["10.244.0.2", "10.244.0.4"], 9090: ["10.244.0.3"]}
    # The Endpoints object tells the same in two subsets.
    subsets = store.get(Endpoints, "web", "default").subsets
    assert {subset.ports[0].port: [a.ip for a in subset.addresses] for subset in subsets} == found


def test_families_that_go_and_come() -> None:
    store = world(service(ipFamilyPolicy="PreferDualStack"), pod(1))
    assert [item.address_type for item in slices(store)] == ["IPv4", "IPv6"]
    kept = slices(store)[0].name
    current = store.get(Service, "web")
    spec = replace(
        current.spec,
        ip_families=("IPv4",),
        cluster_ips=current.spec.cluster_ips[:1],
        ip_family_policy="SingleStack",
    )
    store.update(replace(current, spec=spec))
    settle(store, DUAL_STACK)
    assert [(item.address_type, item.name) for item in slices(store)] == [("IPv4", kept)]


def test_a_service_that_loses_its_selector_keeps_its_slices() -> None:
    store = world(service(), pod(1))
    before = slices(store)
    current = store.get(Service, "web")
    store.update(replace(current, spec=replace(current.spec, selector={})))
    store.update(store.get(Pod, "web-1").with_status(ready=False))
    settle(store, DUAL_STACK)
    ours = [item for item in slices(store) if item.name == before[0].name]
    assert ours == before


def test_a_slice_somebody_emptied_is_filled_again() -> None:
    store = world(service(), pod(1))
    (mine,) = slices(store)
    store.update(replace(mine, endpoints=()))
    settle(store, DUAL_STACK)
    assert [addresses(item) for item in slices(store)] == [["10.244.0.2"]]
    store.delete(EndpointSlice, mine.name, "default")
    settle(store, DUAL_STACK)
    assert [addresses(item) for item in slices(store)] == [["10.244.0.2"]]


def test_a_slice_of_an_older_service_of_the_name_goes() -> None:
    store = world(service(), pod(1))
    (old,) = slices(store)
    store.delete(Service, "web")
    store.create(service())
    settle(store, DUAL_STACK)
    (new,) = slices(store)
    assert new.name != old.name
    assert new.metadata.owner_references[0].uid == store.get(Service, "web").metadata.uid


def test_slices_are_filled_up_and_not_repacked() -> None:
    store = world(service(), *map(pod, range(250)))
    assert sorted(len(item.endpoints) for item in slices(store)) == [50, 100, 100]
    for number in range(0, 100, 2):
        store.delete(Pod, f"web-{number}", "default")
    settle(store, DUAL_STACK)
    assert sorted(len(item.endpoints) for item in slices(store)) == [50, 50, 100]
    store.create(pod(300))
    before = {item.name: item for item in slices(store)}
    settle(store, DUAL_STACK)
    changed = [item for item in slices(store) if item != before[item.name]]
    assert [len(item.endpoints) for item in changed] == [51]


def test_labels_of_the_service_are_followed() -> None:
    store = world(service(), pod(1))
    current = store.get(Service, "web")
    store.update(current.with_metadata(labels={"team": "a", "kubernetes.io/service-name": "liar"}))
    settle(store, DUAL_STACK)
    (found,) = slices(store)
    assert found.metadata.labels["team"] == "a"
    assert found.service_name == "web"


def test_a_pod_whose_node_is_gone_is_left_out() -> None:
    store = world(service(), service("all", publishNotReadyAddresses=True), pod(1), pod(2))
    store.delete(Node, "node-2")
    settle(store, DUAL_STACK)
    assert [addresses(item) for item in slices(store)] == [["10.244.0.3"]]
    assert [sorted(addresses(item)) for item in slices(store, "all")] == [["10.244.0.2", "10.244.0.3"]]


def test_without_any_node_every_pod_counts() -> None:
    store = Store()
    for obj in (service(), pod(1)):
        store.create(obj)
    settle(store, DUAL_STACK)
    assert [addresses(item) for item in slices(store)] == [["10.244.0.2"]]


def test_a_node_that_moves_takes_its_endpoints_along() -> None:
    store = world(service(trafficDistribution="PreferSameZone"), pod(1))
    node = store.get(Node, "node-2")
    store.update(node.with_metadata(labels={**node.metadata.labels, "topology.kubernetes.io/zone": "zone-x"}))
    settle(store, DUAL_STACK)
    (endpoint,) = slices(store)[0].endpoints
    assert (endpoint.zone, endpoint.hints and endpoint.hints.for_zones[0].name) == ("zone-x", "zone-x")


def sized(store: Store, cpus: dict[str, str]) -> None:
    for name, cpu in cpus.items():
        node = store.get(Node, name)
        status = replace(
            node.status, allocatable={"cpu": cpu}, conditions=(NodeCondition(type="Ready", status="True"),)
        )
        store.update(replace(node, status=status))


def hinted(store: Store) -> list[str]:
    (found,) = slices(store)
    return sorted(e.hints.for_zones[0].name if e.hints else "-" for e in found.endpoints)


def test_topology_hints_come_and_go_with_the_nodes_cpus() -> None:
    auto = service().with_metadata(annotations={"service.kubernetes.io/topology-mode": "Auto"})
    store = world(auto, *map(pod, range(9)))
    assert hinted(store) == ["-"] * 9
    sized(store, {"node-1": "4", "node-2": "4", "node-3": "4"})
    store.update(store.get(Pod, "web-0").with_metadata(labels={"app": "web", "x": "y"}))
    settle(store, DUAL_STACK)
    assert hinted(store) == ["zone-a"] * 3 + ["zone-b"] * 3 + ["zone-c"] * 3
    # Now zone-a has most of the CPUs: what was fair overloads its endpoints.
    sized(store, {"node-1": "16"})
    settle(store, DUAL_STACK)
    assert hinted(store) == ["zone-a"] * 5 + ["zone-b"] * 2 + ["zone-c"] * 2
    sized(store, {"node-1": "0"})
    settle(store, DUAL_STACK)
    assert hinted(store) == ["-"] * 9


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("4", 4),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("2k", 2000),
        ("1Ki", 1024),
        ("1e3", 1000),
        (2, 2),
        (None, 0),
        ("x", 0),
    ],
)
def test_quantities(text: object, number: float) -> None:
    assert float(quantity(text)) == number


def test_endpoints_follow_readiness_and_leave_the_terminating_out() -> None:
    store = world(service(), service("all", publishNotReadyAddresses=True), pod(1), pod(2, ready=False))
    going = store.get(Pod, "web-1")
    store.update(
        going.with_metadata(deletion_timestamp="2026-01-01T00:00:30Z", deletion_grace_period_seconds=30)
    )
    for change in endpoints.reconcile(store, DUAL_STACK):
        store.update(change.object)
    (subset,) = store.get(Endpoints, "web", "default").subsets
    assert ([a.ip for a in subset.addresses], [a.ip for a in subset.not_ready_addresses]) == (
        [],
        ["10.244.0.3"],
    )
    (subset,) = store.get(Endpoints, "all", "default").subsets
    assert [a.ip for a in subset.addresses] == ["10.244.0.2", "10.244.0.3"]


def test_endpoints_are_cut_at_a_thousand() -> None:
    store = world(service(), *(pod(number, ready=number % 2 == 0) for number in range(1200)))
    found = store.get(Endpoints, "web", "default")
    (subset,) = found.subsets
    assert (len(subset.addresses), len(subset.not_ready_addresses)) == (600, 400)
    assert found.metadata.annotations[OVER_CAPACITY] == "truncated"
    assert sum(len(item.endpoints) for item in slices(store)) == 1200
    for number in range(1, 601, 2):
        store.delete(Pod, f"web-{number}", "default")
    settle(store, DUAL_STACK)
    assert OVER_CAPACITY not in store.get(Endpoints, "web", "default").metadata.annotations


def test_endpoints_go_with_their_service() -> None:
    store = world(service(), pod(1))
    store.delete(Service, "web")
    settle(store, DUAL_STACK)
    assert store.find(Endpoints, "web", "default") is None


def by_hand(*ips: str, name: str = "ext", **metadata: Any) -> Endpoints:
    subset = EndpointSubset(
        addresses=tuple(EndpointAddress(ip=ip) for ip in ips),
        ports=(EndpointsPort(name="http", port=5432, protocol="TCP"),),
    )
    return Endpoints(metadata=ObjectMeta(name=name, namespace="default", **metadata), subsets=(subset,))


def mirrored(store: Store) -> dict[str, list[str]]:
    return {
        item.address_type: addresses(item)
        for item in slices(store, "ext")
        if item.metadata.labels[MANAGED_BY_LABEL] == "endpointslicemirroring-controller.k8s.io"
    }


def test_hand_written_endpoints_are_mirrored_family_by_family() -> None:
    store = world(
        service("ext", selector={}), by_hand("203.0.113.7", "2001:db8::7", "not an address", "::ffff:1.2.3.4")
    )
    assert mirrored(store) == {"IPv4": ["203.0.113.7", "1.2.3.4"], "IPv6": ["2001:db8::7"]}
    names = [item.name for item in slices(store, "ext")]
    store.update(replace(store.get(Endpoints, "ext", "default"), subsets=by_hand("203.0.113.8").subsets))
    settle(store, DUAL_STACK)
    assert mirrored(store) == {"IPv4": ["203.0.113.8"]}
    assert slices(store, "ext")[0].name in names
    store.delete(Endpoints, "ext", "default")
    settle(store, DUAL_STACK)
    assert slices(store, "ext") == []


@pytest.mark.parametrize(
    ("spec", "metadata"),
    [
        ({"selector": {"app": "other"}}, {}),
        ({"selector": {}}, {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}),
        ({"selector": {}}, {"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
    ],
)
def test_endpoints_that_are_not_mirrored(spec: dict[str, Any], metadata: dict[str, Any]) -> None:
    assert mirrored(world(service("ext", **spec), by_hand("203.0.113.7", **metadata))) == {}
    assert mirrored(world(by_hand("203.0.113.7"))) == {}


def test_what_is_mirrored_carries_labels_and_annotations() -> None:
    store = world(
        service("ext", selector={}),
        by_hand(
            "203.0.113.7",
            labels={"team": "a"},
            annotations={"note": "x", "kubectl.kubernetes.io/last-applied-configuration": "y"},
        ),
    )
    (found,) = slices(store, "ext")
    assert found.metadata.labels["team"] == "a"
    assert found.metadata.annotations == {"note": "x"}


def test_manifests_of_endpoints_are_read_and_mirrored() -> None:
    store = Store()
    store.apply_all(
        load(
            "apiVersion: v1\nkind: Service\nmetadata: {name: ext}\nspec: {ports: [{port: 5432}]}\n---\n"
            "apiVersion: v1\nkind: Endpoints\nmetadata: {name: ext}\n"
            "subsets: [{addresses: [{ip: 203.0.113.7}], ports: [{port: 5432}]}]\n"
        )
    )
    settle(store, DUAL_STACK)
    assert mirrored(store) == {"IPv4": ["203.0.113.7"]}


def test_slices_without_a_world_are_those_of_a_world() -> None:
    objects = [
        service(ipFamilyPolicy="PreferDualStack"),
        service("all", publishNotReadyAddresses=True, trafficDistribution="PreferSameNode"),
        service("none", selector={"app": "nobody"}),
        service("ext", selector={}),
        by_hand("203.0.113.7"),
        *(pod(number, ready=number % 7 != 0, port=8080 + number % 2) for number in range(230)),
    ]
    store = world(*objects)

    def shown(items: list[EndpointSlice]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for item in items:
            ends = [replace(e, target_ref=None) for e in item.endpoints]
            found.append((item.name, item.metadata.labels, item.address_type, item.ports, ends))
        return sorted(found, key=lambda row: str(row[0]))

    alone = slices_of([*default_nodes(3), *objects], DUAL_STACK)
    assert shown(alone) == shown(
        [item for item in store.list(EndpointSlice) if item.service_name != "kubernetes"]
    )


def test_slices_of_a_dump_are_those_in_it() -> None:
    store = world(service(), *(pod(number) for number in range(120)))
    dump = [obj for kind in store.kinds() for obj in store.list(kind)]
    kept = {item.name: item.endpoints for item in slices_of(dump, DUAL_STACK)}
    assert kept == {item.name: item.endpoints for item in store.list(EndpointSlice)}
    # Without the pods' nodes every pod still counts: the manifests do not say that there are none.
    bare = [obj for obj in dump if obj.kind in ("Service", "Pod")]
    assert sum(len(item.endpoints) for item in slices_of(bare, DUAL_STACK)) == 120
