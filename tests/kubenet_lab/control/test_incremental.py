"""One changed object costs the same in a small world and in a large one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.control import settle, view
from kubenet_lab.errors import Invalid
from kubenet_lab.manifests import load
from kubenet_lab.objects import Pod, Service, default_nodes
from kubenet_lab.store import Store

APP = """---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: a{n}}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: a{n}}}}}
  template:
    metadata: {{labels: {{app: a{n}}}}}
    spec: {{containers: [{{name: c, image: x, ports: [{{containerPort: 80}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: a{n}}}
spec: {{selector: {{app: a{n}}}, ports: [{{port: 80}}]}}
"""


def world(apps: int) -> Store:
    store = Store()
    for node in default_nodes(3):
        store.create(node)
    store.apply_all(load("".join(APP.format(n=n) for n in range(apps))))
    settle(store)
    for number, pod in enumerate(store.list(Pod)):
        address = f"10.244.{number // 250}.{number % 250 + 1}"
        store.update(pod.with_status(phase="Running", ips=(address,), ready=True))
    settle(store)
    return store


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys that the loops look at."""
    keys: list[Any] = []
    each = view.Keyed._each

    def counted(loop: view.Keyed, context: view.Context, wanted: list[Any]) -> Iterable[Any]:
        keys.extend(wanted)
        return each(loop, context, wanted)

    monkeypatch.setattr(view.Keyed, "_each", counted)
    return keys


def change_pod(store: Store) -> None:
    store.update(store.list(Pod)[0].with_status(ready=False))


def delete_pod(store: Store) -> None:
    store.delete(Pod, store.list(Pod)[0].name, "default")


def scale(store: Store) -> None:
    first = store.list("Deployment")[0]
    store.update(replace(first, spec=replace(first.spec, replicas=3)))


def nothing(store: Store) -> None:
    pass


@pytest.mark.parametrize("change", [change_pod, delete_pod, scale, nothing])
def test_what_is_looked_at_does_not_grow_with_the_world(change: Any, looked_at: list[Any]) -> None:
    counts = []
    for apps in (2, 60):
        store = world(apps)
        looked_at.clear()
        change(store)
        changes = settle(store)
        assert bool(changes) == (change is not nothing)
        counts.append((len(looked_at), len(changes)))
    assert counts[0] == counts[1]
    if change is nothing:
        assert counts[0][0] == 0


def test_a_refused_change_is_not_forgotten() -> None:
    """Keys stay in a loop's queue when what it wished could not be applied, or was taken back."""
    store = world(2)
    change_pod(store)
    bad = Service(
        metadata=replace(store.get(Service, "a0").metadata, name="bad", uid="", resource_version=""),
        spec=replace(
            store.get(Service, "a0").spec, cluster_ip="10.99.0.1", cluster_ips=("10.99.0.1",), ip_families=()
        ),
    )

    def create_and_settle() -> None:
        with store.transaction():
            store.create(bad)
            settle(store)

    with pytest.raises(Invalid, match="not in the valid range"):
        create_and_settle()
    assert any(change.object.kind == "EndpointSlice" for change in settle(store))
    assert settle(store) == []


def test_a_store_that_went_back_is_followed() -> None:
    store = world(2)
    before = store.snapshot()
    delete_pod(store)
    settle(store)
    store.restore(before)
    assert settle(store) == []
    change_pod(store)
    assert [change.object.kind for change in settle(store)].count("EndpointSlice") == 1


def test_views_go_with_their_stores() -> None:
    import gc
    import weakref

    store = world(1)
    alive = weakref.ref(view.view_of(store))
    assert alive() is not None
    del store
    gc.collect()
    assert alive() is None
