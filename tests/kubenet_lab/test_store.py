"""The store behaves as the API does for its callers."""

from __future__ import annotations

import contextlib

import pytest
from msgspec.structs import replace

from kubenet_lab.clock import Clock
from kubenet_lab.errors import AlreadyExists, Conflict, Invalid, NotFound
from kubenet_lab.manifests import load
from kubenet_lab.objects import ConfigMap, LabelSelector, Namespace, ObjectMeta, Pod, Service
from kubenet_lab.store import Store, kind_key


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name), data=data)


def test_what_is_created_gets_namespace_uid_version_time_and_defaults() -> None:
    store = Store(clock=Clock(61.5))
    service = store.create(
        load("kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}")[0]
    )
    assert service.namespace == "default"
    assert service.metadata.creation_timestamp == "2026-01-01T00:01:01Z"
    assert service.metadata.resource_version == "1"
    assert len(service.metadata.uid) == 36
    assert (service.spec.type, service.spec.ports[0].target_port) == ("ClusterIP", 80)
    assert store.get("Service", "a") is store.get(Service, "a", "default") is service


def test_the_same_seed_and_calls_give_the_same_world() -> None:
    def world(seed: int) -> list[object]:
        store = Store(seed)
        pod = Pod(metadata=ObjectMeta(generate_name="web-"))
        return [store.create(config("a")), store.create(pod), store.create(pod)]

    assert world(1) == world(1)
    assert world(1) != world(2)


def test_generated_names_never_come_back() -> None:
    store = Store()
    first = store.create(Pod(metadata=ObjectMeta(generate_name="web-")))
    store.delete(Pod, first.name)
    second = store.create(Pod(metadata=ObjectMeta(generate_name="web-")))
    assert second.name != first.name
    assert len(second.name) == len("web-") + 5


def test_refusals() -> None:
    store = Store()
    a = store.create(config("a", x="1"))
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
        store.create(config("a"))
    with pytest.raises(NotFound, match="did you mean 'a'") as caught:
        store.get(ConfigMap, "aa")
    assert caught.value.nearest == "a"
    with pytest.raises(NotFound):
        store.update(config("b"))
    with pytest.raises(NotFound):
        store.delete("ConfigMap", "b")
    with pytest.raises(Invalid, match="name or generateName is required"):
        store.create(ConfigMap())
    newer = store.update(replace(a, data={"x": "2"}))
    with pytest.raises(Conflict, match="please apply your changes to the latest version"):
        store.update(replace(a, data={"x": "3"}))
    assert store.get(ConfigMap, "a") == newer


def test_an_update_that_changes_nothing_is_none() -> None:
    store = Store()
    a = store.create(config("a", x="1"))
    watch = store.watch()
    assert store.update(a) is a
    assert store.apply(config("a", x="1")) is a
    assert (watch.poll(), store.version) == ([], 1)


def test_apply_removes_what_it_set_before_and_keeps_what_others_set() -> None:
    store = Store()
    store.apply(config("a", x="1", y="1"))
    store.update(replace(store.get(ConfigMap, "a"), data={"x": "1", "y": "1", "other": "1"}))
    assert store.apply(config("a", y="2")).data == {"y": "2", "other": "1"}


def test_lists_filter_by_namespace_and_labels() -> None:
    store = Store()
    for namespace in ("one", "two"):
        for app in ("a", "b"):
            store.create(Pod(metadata=ObjectMeta(name=app, namespace=namespace, labels={"app": app})))
    assert [pod.namespace + "/" + pod.name for pod in store.list(Pod)] == ["one/a", "one/b", "two/a", "two/b"]
    assert [pod.name for pod in store.list("Pod", "two")] == ["a", "b"]
    selector = LabelSelector(match_labels={"app": "b"})
    assert [pod.namespace for pod in store.list(Pod, selector=selector)] == ["one", "two"]
    assert store.list("Gateway") == []


def test_watchers_hear_of_their_kind_in_order() -> None:
    store = Store()
    everything, pods = store.watch(), store.watch(Pod, "default")
    store.create(config("a"))
    pod = store.create(Pod(metadata=ObjectMeta(name="p")))
    store.update(pod.with_status(phase="Running"))
    store.delete(Pod, "p")
    assert [event.type for event in pods] == ["ADDED", "MODIFIED", "DELETED"]
    assert [(event.type, event.object.kind) for event in everything.poll()] == [
        ("ADDED", "ConfigMap"),
        ("ADDED", "Pod"),
        ("MODIFIED", "Pod"),
        ("DELETED", "Pod"),
    ]
    store.unwatch(everything)
    store.create(config("b"))
    assert everything.poll() == []


def test_a_failed_apply_leaves_everything_as_it_was() -> None:
    store = Store()
    store.apply(config("a", x="1"))
    watch = store.watch()
    before = store.snapshot()
    with pytest.raises(Invalid):
        store.apply_all([config("a", x="2"), config("b"), ConfigMap()])
    assert store.snapshot() == before
    # A watcher has seen the way there and the way back.
    seen: dict[str, object] = {}
    for event in watch:
        seen[event.object.metadata.name] = (event.type, event.object)
    assert seen == {"a": ("MODIFIED", store.get(ConfigMap, "a")), "b": ("DELETED", seen["b"][1])}  # type: ignore[index]
    assert store.create(config("c")).metadata.resource_version == "2"


def test_kinds_of_other_groups_do_not_mix() -> None:
    store = Store()
    for group in ("networking.k8s.io", "projectcalico.org"):
        api = f"apiVersion: {group}/{'v1' if group.endswith('k8s.io') else 'v3'}\n"
        spec = "spec: {podSelector: {}}" if group.endswith("k8s.io") else "spec: {selector: all()}"
        store.apply(load(f"{api}kind: NetworkPolicy\nmetadata: {{name: p, namespace: x}}\n{spec}")[0])
    assert store.kinds() == ["NetworkPolicy", "NetworkPolicy.projectcalico.org"]
    assert kind_key(store.list("NetworkPolicy.projectcalico.org")[0]) == "NetworkPolicy.projectcalico.org"


def test_objects_of_the_whole_cluster_have_no_namespace() -> None:
    store = Store()
    assert store.create(Namespace(metadata=ObjectMeta(name="shop"))).namespace == ""
    assert store.get(Namespace, "shop").metadata.labels == {"kubernetes.io/metadata.name": "shop"}


def test_a_failed_transaction_leaves_no_trace_at_any_depth() -> None:
    """Objects, their order, names, versions and what was applied are as before; watchers hear of the way back."""
    store = Store()
    for name in ("a", "b", "c"):
        store.apply(config(name))
    before, order = store.snapshot(), [item.name for item in store.list(ConfigMap)]
    watch = store.watch(ConfigMap)

    def fail() -> None:
        with store.transaction():
            store.apply(config("b", x="y"))
            with store.transaction():
                store.delete(ConfigMap, "a", "default")
                store.create(config("d"))
            with contextlib.suppress(RuntimeError), store.transaction():
                store.delete(ConfigMap, "c", "default")
                raise RuntimeError("inner")
            assert [item.name for item in store.list(ConfigMap)] == ["b", "c", "d"]
            store.restore(before)
            store.create(config("e"))
            raise RuntimeError("outer")

    with pytest.raises(RuntimeError, match="outer"):
        fail()
    assert (store.snapshot(), [item.name for item in store.list(ConfigMap)]) == (before, order)
    seen: dict[str, str] = {}
    for event in watch:
        seen[event.object.metadata.name] = event.type
    assert {name: kind for name, kind in seen.items() if kind == "DELETED"} == {
        "d": "DELETED",
        "e": "DELETED",
    }
