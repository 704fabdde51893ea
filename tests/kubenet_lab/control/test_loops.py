"""Each control loop in a small world, and all of them together."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kubenet_lab.control import DUAL_STACK, Settings, apply, node_ipam, scheduler, service_ip, settle
from kubenet_lab.control.deployment import _share
from kubenet_lab.control.loop import Change
from kubenet_lab.errors import DidNotSettle, InputError, Invalid
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Node, ObjectMeta, Pod, ReplicaSet, Service, default_nodes
from kubenet_lab.store import Store

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1.27", ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"""


def world(text: str = "", nodes: int = 3, settings: Settings | None = None, seed: int = 0) -> Store:
    store = Store(seed)
    for node in default_nodes(nodes):
        store.create(node)
    if text:
        store.apply_all(load(text))
    settle(store, settings)
    return store


def run_pods(store: Store) -> None:
    """The kubelet's part: every placed pod runs and is ready."""
    for number, pod in enumerate(store.list(Pod)):
        if pod.spec.node_name and not pod.ready:
            store.update(pod.with_status(phase="Running", ips=(f"10.244.9.{number + 1}",), ready=True))


def service(name: str, spec: str) -> str:
    head = f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
    return head + f"spec: {{ports: [{{port: 80}}], {spec}}}\n"


def test_a_new_cluster_has_its_namespaces_and_the_service_kubernetes() -> None:
    store = world()
    assert [item.name for item in store.list("Namespace")] == [
        "default",
        "kube-node-lease",
        "kube-public",
        "kube-system",
    ]
    kubernetes = store.get(Service, "kubernetes")
    assert kubernetes.addresses == ("10.96.0.1",)
    (found,) = store.list(EndpointSlice)
    assert (found.endpoints[0].addresses, found.ports[0].port) == (("192.168.1.1",), 6443)
    assert settle(store) == []


@pytest.mark.parametrize(
    ("settings", "cidrs"),
    [
        (Settings(), [("10.244.0.0/24",), ("10.244.1.0/24",), ("10.244.2.0/24",)]),
        (
            DUAL_STACK,
            [
                ("10.244.0.0/24", "fd00:10:244::/64"),
                ("10.244.1.0/24", "fd00:10:244:1::/64"),
                ("10.244.2.0/24", "fd00:10:244:2::/64"),
            ],
        ),
    ],
)
def test_nodes_get_their_shares_in_order(settings: Settings, cidrs: list[tuple[str, ...]]) -> None:
    assert [node.spec.pod_cidrs for node in world(settings=settings).list(Node)] == cidrs


def test_a_share_that_a_node_has_is_kept_and_not_given_twice() -> None:
    store = Store()
    first, second, third = default_nodes(3)
    store.create(first)
    store.create(second.with_pod_cidrs(("10.244.0.0/24",)))
    store.create(third.with_pod_cidrs(("10.244.2.0/23",)))
    store.create(replace(first, metadata=ObjectMeta(name="node-4")))
    apply(store, node_ipam.reconcile(store, Settings()))
    assert [node.spec.pod_cidr for node in store.list(Node)] == [
        "10.244.1.0/24", "10.244.0.0/24", "10.244.2.0/23", "10.244.4.0/24",
    ]  # fmt: skip


def test_a_full_range_is_told() -> None:
    with pytest.raises(Invalid, match=r"no share of 10\.244\.0\.0/23 is left"):
        world(settings=Settings(cluster_cidr=("10.244.0.0/23",)))


def test_addresses_are_drawn_from_the_dynamic_part_and_repeat() -> None:
    text = "".join(service(f"s{number}", "") for number in range(50))
    addresses = [item.addresses[0] for item in world(text).list(Service) if item.name != "kubernetes"]
    assert len(set(addresses)) == 50
    assert not any(address.startswith("10.96.0.") for address in addresses)
    # Neither another order nor other Services change them.
    backwards = "".join(service(f"s{number}", "") for number in reversed(range(50)))
    assert sorted(item.addresses[0] for item in world(backwards).list(Service)) == sorted(
        [*addresses, "10.96.0.1"]
    )
    assert sorted(item.addresses[0] for item in world(text, seed=1).list(Service)) != sorted(
        [*addresses, "10.96.0.1"]
    )


def test_a_full_dynamic_part_falls_back_to_the_static_one() -> None:
    settings = Settings(service_cluster_ip_range=("10.96.0.0/27",))
    store = world("".join(service(f"s{number}", "") for number in range(29)), settings=settings)
    assert len({item.addresses for item in store.list(Service)}) == 30
    with pytest.raises(Invalid, match="range is full"):
        world("".join(service(f"s{number}", "") for number in range(30)), settings=settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (service("a", "clusterIP: 10.96.0.1"), "provided IP is already allocated"),
        (
            service("a", "clusterIP: 10.96.0.9") + service("b", "clusterIP: 10.96.0.9"),
            '"b" is invalid.*already allocated',
        ),
        (
            service("a", "clusterIP: 10.97.0.1"),
            "not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (service("a", "clusterIP: 10.96.255.255"), "not in the valid range"),
        (service("a", "clusterIP: hello"), r"spec.clusterIPs\[0\]: .*must be a valid IP address"),
        (service("a", "clusterIP: 10.096.0.5"), "must not have leading 0s"),
        (service("a", "clusterIP: 10.96.0.7, clusterIPs: [10.96.0.8]"), "first value must match `clusterIP`"),
        (
            service("a", "ipFamilyPolicy: RequireDualStack"),
            "this cluster is not configured for dual-stack services",
        ),
        (service("a", "ipFamilies: [IPv6]"), "not configured on this cluster"),
    ],
)
def test_addresses_that_cannot_be_had_are_refused_and_nothing_changes(text: str, says: str) -> None:
    store = world()
    before = store.snapshot()

    def apply_and_settle() -> None:
        with store.transaction():
            store.apply_all(load(text))
            settle(store)

    with pytest.raises((Invalid, InputError), match=says):
        apply_and_settle()
    assert store.snapshot() == before


def test_pods_are_spread_and_bound() -> None:
    store = world(DEPLOYMENT)
    assert sorted(pod.spec.node_name for pod in store.list(Pod)) == ["node-1", "node-1", "node-2", "node-3"]
    (replica_set,) = store.list(ReplicaSet)
    for pod in store.list(Pod):
        assert pod.name.startswith(f"{replica_set.name}-")
        assert replica_set.name.startswith("web-")
        assert pod.metadata.controller is not None
        assert pod.status.phase == "Pending"
    assert [pod.name for pod in world(DEPLOYMENT).list(Pod)] == [pod.name for pod in store.list(Pod)]


POD = (
    "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {0}}}\n"
    "spec: {{containers: [{{name: c, image: x{2}}}]{1}}}\n"
)


@pytest.mark.parametrize(
    ("text", "placed"),
    [
        (POD.format("a", ", nodeName: node-3", ""), {"a": "node-3"}),
        (POD.format("a", ", nodeSelector: {topology.kubernetes.io/zone: zone-b}", ""), {"a": "node-2"}),
        (
            "".join(POD.format(name, "", ", ports: [{containerPort: 80, hostPort: 80}]") for name in "abc"),
            {"a": "node-1", "b": "node-2", "c": "node-3"},
        ),
    ],
)
def test_where_pods_go(text: str, placed: dict[str, str]) -> None:
    assert {pod.name: pod.spec.node_name for pod in world(text).list(Pod)} == placed


def test_a_pod_that_fits_nowhere_stays_pending_and_says_why() -> None:
    store = world()
    cordoned = store.get(Node, "node-1")
    store.update(replace(cordoned, spec=replace(cordoned.spec, unschedulable=True)))
    store.apply_all(load(POD.format("a", ", nodeSelector: {disk: ssd}", "")))
    settle(store)
    (condition,) = store.get(Pod, "a").status.conditions
    assert (condition.type, condition.status, condition.reason) == ("PodScheduled", "False", "Unschedulable")
    assert condition.message.startswith(
        "0/3 nodes are available: 1 node(s) were unschedulable, "
        "2 node(s) didn't match Pod's node affinity/selector."
    )
    assert scheduler.reconcile(store, Settings()) == []


def test_a_roll_out_never_has_too_few_or_too_many_pods() -> None:
    store = world(DEPLOYMENT)
    run_pods(store)
    settle(store)
    store.apply_all(load(DEPLOYMENT.replace("1.27", "1.28")))
    images = []
    for _ in range(20):
        settle(store)
        pods = store.list(Pod)
        assert sum(pod.ready for pod in pods) >= 3
        assert len(pods) <= 5
        images.append(sum(pod.spec.containers[0].image == "nginx:1.28" for pod in pods))
        run_pods(store)
    assert images == sorted(images)
    assert images[-1] == len(store.list(Pod)) == 4
    status = store.get("Deployment", "web").status
    assert (status.replicas, status.updated_replicas, status.available_replicas) == (4, 4, 4)


SHARES = [("25%", 4, 1, 1), ("25%", 3, 1, 0), ("50%", 1, 1, 0), (2, 9, 2, 2)]


@pytest.mark.parametrize(("value", "total", "up", "down"), SHARES)
def test_shares_round_up_for_surge_and_down_for_unavailable(
    value: int | str, total: int, up: int, down: int
) -> None:
    assert (_share(value, total, True), _share(value, total, False)) == (up, down)


def test_scaling_down_takes_pods_that_are_not_ready_first() -> None:
    store = world(DEPLOYMENT)
    run_pods(store)
    sick = store.list(Pod)[0]
    store.update(sick.with_status(ready=False))
    store.apply_all(load(DEPLOYMENT.replace("replicas: 4", "replicas: 3")))
    settle(store)
    assert sick.name not in [pod.name for pod in store.list(Pod)]
    assert len(store.list(Pod)) == 3


def test_what_a_deployment_made_goes_with_it_and_the_slice_empties() -> None:
    store = world(DEPLOYMENT)
    run_pods(store)
    settle(store)
    (before,) = [item for item in store.list(EndpointSlice) if item.service_name == "web"]
    assert len(before.endpoints) == 4
    store.delete("Deployment", "web")
    settle(store)
    assert (store.list(Pod), store.list(ReplicaSet)) == ([], [])
    (after,) = [item for item in store.list(EndpointSlice) if item.service_name == "web"]
    assert (after.name, after.endpoints) == (before.name, ())
    store.delete(Service, "web")
    settle(store)
    assert [item.service_name for item in store.list(EndpointSlice)] == ["kubernetes"]


def test_one_changed_pod_changes_one_slice_of_one_service() -> None:
    store = world(DEPLOYMENT + service("other", "selector: {app: other}"))
    run_pods(store)
    settle(store)
    pod = store.list(Pod)[0]
    store.update(pod.with_status(ready=False))
    slices = [change.object for change in settle(store) if isinstance(change.object, EndpointSlice)]
    assert [item.service_name for item in slices] == ["web"]
    conditions = [endpoint.ready for endpoint in slices[0].endpoints]
    assert (conditions.count(False), conditions.count(True)) == (1, 3)


def test_loops_that_work_against_each_other_are_stopped_and_undone() -> None:
    store = world()
    before = store.snapshot()

    def grow(store: Store, settings: Settings) -> list[Change]:
        return [Change("create", Pod(metadata=ObjectMeta(generate_name="p-")), "for ever")]

    with pytest.raises(
        DidNotSettle, match=r"within 5 rounds; the last change was: create Pod p- \(for ever\)"
    ):
        settle(store, loops=(grow,), limit=5)
    assert store.snapshot() == before


def test_reconcile_reads_only() -> None:
    store = Store()
    store.apply_all(load(DEPLOYMENT))
    before = store.snapshot()
    assert service_ip.reconcile(store, Settings())
    assert store.snapshot() == before
