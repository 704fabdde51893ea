"""Who goes with whom: cascades, namespaces, adoption."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.control import Settings, apply, deletion, settle
from kubenet_lab.errors import NotFound
from kubenet_lab.manifests import load
from kubenet_lab.objects import Pod, ReplicaSet, default_nodes
from kubenet_lab.store import Store

WEB = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
"""


@pytest.fixture
def store() -> Store:
    """A world whose pods all run."""
    made = Store()
    for node in default_nodes(3):
        made.create(node)
    made.apply_all(load(WEB))
    settle(made)
    for number, pod in enumerate(made.list(Pod)):
        made.update(pod.with_status(phase="Running", ips=(f"10.244.0.{number + 9}",), ready=True))
    settle(made)
    return made


def ask(
    store: Store, kind: str, name: str, propagation: str = "Background", settings: Settings | None = None
) -> None:
    place = "" if kind == "Namespace" else "shop"
    apply(store, deletion.wish(store, kind, name, place, propagation=propagation, settings=settings))


def there(store: Store, namespace: str = "shop") -> dict[str, int]:
    return {kind: len(found) for kind in store.kinds() if (found := store.list(kind, namespace))}


def test_background_takes_everything_below(store: Store) -> None:
    ask(store, "Deployment", "web")
    assert store.find("Deployment", "web", "shop") is None
    settle(store)
    assert there(store) == {"ConfigMap": 1, "EndpointSlice": 1, "Endpoints": 1, "Service": 1}


def test_orphans_stay_and_a_new_owner_adopts_them(store: Store) -> None:
    before = [pod.name for pod in store.list(Pod)]
    ask(store, "Deployment", "web", "Orphan")
    settle(store)
    assert store.find("Deployment", "web", "shop") is None
    (left,) = store.list(ReplicaSet)
    assert (left.metadata.owner_references, [pod.name for pod in store.list(Pod)]) == ((), before)
    store.apply_all(load(WEB))
    settle(store)
    (left,) = store.list(ReplicaSet)
    assert left.metadata.controller is not None
    assert left.metadata.controller.uid == store.get("Deployment", "web", "shop").metadata.uid
    assert [pod.name for pod in store.list(Pod)] == before


def test_foreground_waits_for_what_is_below(store: Store) -> None:
    slow = Settings(stop_seconds=math.inf)
    settle(store, slow)
    ask(store, "Deployment", "web", "Foreground", slow)
    settle(store, slow)
    assert store.get("Deployment", "web", "shop").metadata.finalizers == ("foregroundDeletion",)
    assert store.list(ReplicaSet)[0].metadata.finalizers == ("foregroundDeletion",)
    assert [pod.terminating for pod in store.list(Pod)] == [True, True]
    store.clock = store.clock.after(30)
    settle(store, slow)
    assert there(store) == {"ConfigMap": 1, "EndpointSlice": 1, "Endpoints": 1, "Service": 1}


def test_a_namespace_goes_with_all_it_holds(store: Store) -> None:
    slow = Settings(stop_seconds=math.inf)
    settle(store, slow)
    ask(store, "Namespace", "shop", settings=slow)
    settle(store, slow)
    assert store.get("Namespace", "shop").status.phase == "Terminating"
    assert there(store) == {"Pod": 2}
    store.clock = store.clock.after(30)
    settle(store, slow)
    assert (there(store), store.find("Namespace", "shop")) == ({}, None)
    assert store.find("Namespace", "default") is not None


def test_a_cluster_deletes_as_kubectl_does() -> None:
    cluster = Cluster.from_files(WEB)
    cluster.delete("Namespace", "shop")
    assert there(cluster.store) == {}
    assert not any(name.startswith("shop/") for name in cluster.network.netns)
    with pytest.raises(NotFound):
        cluster.delete("Deployment", "web", "shop")


def test_pods_of_a_node_that_is_gone_are_replaced_after_a_while() -> None:
    cluster = Cluster.from_files(WEB.replace("replicas: 2", "replicas: 3"))
    cluster.delete("Node", "node-2")
    nodes = [pod.spec.node_name for pod in cluster.store.list(Pod, "shop")]
    assert sorted(nodes) == ["node-1", "node-2", "node-3"]
    (found,) = cluster.store.list("EndpointSlice", "shop")
    assert len(found.endpoints) == 2
    cluster.advance(39)
    assert sorted(pod.spec.node_name for pod in cluster.store.list(Pod, "shop")) == sorted(nodes)
    cluster.advance(1)
    assert {pod.spec.node_name for pod in cluster.store.list(Pod, "shop")} == {"node-1", "node-3"}
    (found,) = cluster.store.list("EndpointSlice", "shop")
    assert len(found.endpoints) == 3


def test_finalizers_hold_an_object(store: Store) -> None:
    held = store.get("ConfigMap", "settings", "shop")
    store.update(held.with_metadata(finalizers=("example.com/keep",)))
    ask(store, "ConfigMap", "settings")
    settle(store)
    marked = store.get("ConfigMap", "settings", "shop")
    assert marked.metadata.deletion_timestamp
    assert deletion.wish(store, "ConfigMap", "settings", "shop") == []


def test_an_unknown_propagation_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="propagation is one of Background, Foreground, Orphan"):
        deletion.wish(store, "Deployment", "web", "shop", propagation="background")


def test_a_relabelled_pod_is_let_go_and_replaced(store: Store) -> None:
    """How one takes a pod out of service to look at it: its labels no longer match, so another takes its place."""
    pod = store.list(Pod)[0]
    store.update(pod.with_metadata(labels={**pod.metadata.labels, "app": "debug"}))
    settle(store)
    assert store.get(Pod, pod.name, "shop").metadata.owner_references == ()
    assert len(store.list(Pod)) == 3
    (found,) = store.list("EndpointSlice", "shop")
    assert pod.name not in [endpoint.target_ref.name for endpoint in found.endpoints]


def test_one_stray_pod_has_one_adopter(store: Store) -> None:
    """Two ReplicaSets whose selectors both mean a pod do not both take it."""
    sets = [
        ReplicaSet(
            metadata=replace(
                store.list(ReplicaSet)[0].metadata, name=name, uid="", resource_version="", labels={}
            ),
            spec=replace(store.list(ReplicaSet)[0].spec, replicas=1),
        )
        for name in ("one", "two")
    ]
    store.delete("Deployment", "web", "shop")
    settle(store)
    template = sets[0].spec.template
    stray = Pod(metadata=replace(template.metadata, name="stray", namespace="shop"), spec=template.spec)
    store.create(stray)
    for item in sets:
        store.create(item.with_metadata(owner_references=()))
    settle(store)
    owners = sorted(
        pod.metadata.controller.name for pod in store.list(Pod) if pod.metadata.controller is not None
    )
    assert owners == ["one", "two"]
    assert store.get(Pod, "stray", "shop").metadata.controller is not None
