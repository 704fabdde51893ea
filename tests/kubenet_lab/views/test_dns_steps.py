"""Lookups as lists of queries, grids of names, a server's chain and its cache: every fact in picture and text."""

from __future__ import annotations

from functools import partial

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.scenarios.names import grid, names, resolv_conf, steps
from kubenet_lab.views.dns_steps import cache_at, chain_of, steps_picture
from kubenet_lab.widgets.dns_stepper import DnsStepper
from tests.pictures.svg import faults


@pytest.fixture(scope="module")
def world() -> Cluster:
    return names()


ROWS = [
    # name, namespace, libc, policy, ndots -> queries, result
    ("backend", "default", "glibc", "ClusterFirst", None, 2, "10.96.0.100"),
    ("backend.default", "default", "glibc", "ClusterFirst", None, 4, "10.96.0.100"),
    ("database.production", "default", "glibc", "ClusterFirst", None, 4, "10.96.0.201"),
    ("backend.default.svc.cluster.local", "default", "glibc", "ClusterFirst", None, 8, "10.96.0.100"),
    ("backend.default.svc.cluster.local.", "default", "glibc", "ClusterFirst", None, 2, "10.96.0.100"),
    ("api.github.com", "default", "glibc", "ClusterFirst", None, 8, "203.0.113.10"),
    ("api.github.com.", "default", "glibc", "ClusterFirst", None, 2, "203.0.113.10"),
    ("database", "default", "glibc", "ClusterFirst", None, 2, "10.96.0.200"),
    ("database", "production", "glibc", "ClusterFirst", None, 2, "10.96.0.201"),
    ("backend", "production", "glibc", "ClusterFirst", None, 8, "Name or service not known"),
    ("database.production", "default", "glibc", "ClusterFirst", 1, 6, "10.96.0.201"),
    ("database.production", "default", "musl", "ClusterFirst", 1, 2, "Name does not resolve"),
    ("backend", "default", "glibc", "Default", None, 2, "Name or service not known"),
    ("db-0.db.production", "default", "glibc", "ClusterFirst", None, 4, "10.244."),
    ("partner.production", "default", "glibc", "ClusterFirst", None, 4, "203.0.113.10"),
]


@pytest.mark.parametrize(("name", "namespace", "libc", "policy", "ndots", "count", "result"), ROWS)
def test_a_lookup(
    world: Cluster,
    name: str,
    namespace: str,
    libc: str,
    policy: str,
    ndots: int | None,
    count: int,
    result: str,
) -> None:
    found = steps(world, name, namespace=namespace, libc=libc, policy=policy, ndots=ndots)
    assert (len(found.queries), found.result.startswith(result)) == (count, True), found.text()
    svg = steps_picture(found).svg
    assert faults(svg) == []
    for query in found.queries:
        assert query.outcome in svg
        assert query.name in found.text()
    assert f"{count} quer" in svg
    assert "<img" in found._repr_html_()


def test_ndots_is_written_where_the_kubelet_writes_none(world: Cluster) -> None:
    assert "ndots:3" in resolv_conf(world, "default", ndots=3)
    assert resolv_conf(world, "default", "Default", 2).endswith("options ndots:2\n")


def test_a_grid_says_who_reaches_what(world: Cluster) -> None:
    found = grid(world, names=("backend", "database.production"))
    assert len(found.cells) == 8
    assert found.cells["backend", "default", "ClusterFirst"].addresses
    assert not found.cells["backend", "production", "ClusterFirst"].addresses
    assert found.cells["database.production", "production", "ClusterFirst"].addresses
    assert found._repr_html_().count("queries</small>") == 8


CHAIN = [
    ("backend.default.svc.cluster.local", "A", "kubernetes", "10.96.0.100"),
    ("nosuch.default.svc.cluster.local", "A", "kubernetes", "NXDOMAIN"),
    ("www.example.com", "A", "forward", "203.0.113.10"),
    ("www.example.com", "A", "cache", "203.0.113.10"),
]


def test_which_plugin_answers() -> None:
    world = names()
    server = world.dns[min(world.dns)]
    for name, kind, plugin, outcome in CHAIN:
        found = chain_of(server, name, kind, now=1.0)
        assert (found.answered, found.outcome) == (plugin, outcome)
        assert f"[{plugin}]" in found.text()
        assert f"✓ {plugin}" in found._repr_html_()
    assert chain_of(server).plugins[0] == "prometheus"
    # Nothing is left of the watching.
    assert not any("serve" in vars(plugin) for plugin in server.servers["."].chain)


def test_a_cache_over_time() -> None:
    world = names()
    server = world.dns[min(world.dns)]
    chain_of(server, "www.example.com", now=0.0)
    kept = cache_at(server, (0, 10, 31))
    left = [{row[0]: row[3] for row in rows}.get("www.example.com.") for _, rows in kept.moments]
    assert left == [30, 20, None]
    assert "20 s left" in kept.text()
    assert "20 s left" in kept._repr_html_()


def test_the_stepper_asks_again_when_something_is_changed(world: Cluster) -> None:
    stepper = DnsStepper(partial(steps, world))
    assert (len(stepper.found.queries), stepper.found.result) == (2, "10.96.0.100")
    stepper.namespace.value = "production"
    assert len(stepper.found.queries) == 8
    stepper.name.value = "database.production"
    stepper.ndots.value = 1
    assert len(stepper.found.queries) == 6
    stepper.resolver.value = "musl"
    assert not stepper.found.addresses
    assert "The same as text" in stepper.words.value
    stepper.name.value = "  "
    assert "Type a name" in stepper.picture.value
    assert "DnsStepper(" in stepper._repr_mimebundle_()["text/plain"]
