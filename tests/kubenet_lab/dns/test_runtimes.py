"""Programs of several kinds, and what each remembers of a lookup."""

from __future__ import annotations

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.dns.runtimes import RUNTIMES, Program


@pytest.fixture
def shop() -> Cluster:
    return scenarios.shop()


def program(cluster: Cluster, kind: str) -> Program:
    return Program(kind, cluster.network.ns(cluster.namespace_of("frontend")))


ROWS = [
    # kind, name, queries of calls at 0 s, 9 s, 29 s and 31 s
    ("glibc", "backend", [2, 2, 2, 2]),
    ("musl", "backend", [2, 2, 2, 2]),
    ("go", "backend", [2, 2, 2, 2]),
    ("jvm", "backend", [2, 0, 0, 2]),
    ("jvm-alpine", "backend", [2, 0, 0, 2]),
    ("node", "backend", [2, 2, 2, 2]),
    ("node-resolve", "backend", [1, 1, 1, 1]),
    ("jvm", "nosuch", [8, 0, 8, 0]),
]


@pytest.mark.parametrize(("kind", "name", "counts"), ROWS)
def test_queries_of_four_calls(shop: Cluster, kind: str, name: str, counts: list[int]) -> None:
    running = program(shop, kind)
    got = []
    for moment in (0, 9, 29, 31):
        shop.advance(moment - shop.now)
        got.append(len(running.lookup(shop.walk(), name).queries))
    assert got == counts


def test_every_kind_has_a_row() -> None:
    assert {runtime.name for runtime in RUNTIMES} == {row[0] for row in ROWS}


def test_a_jvm_goes_on_with_an_address_that_is_gone(shop: Cluster) -> None:
    """Half a minute after the Service was deleted and made anew elsewhere it still calls the old address."""
    running = program(shop, "jvm")
    assert running.lookup(shop.walk(), "backend").addresses == ("10.96.0.100",)
    shop.delete("Service", "backend")
    shop.advance(20)
    assert running.lookup(shop.walk(), "backend").addresses == ("10.96.0.100",)
    assert program(shop, "glibc").lookup(shop.walk(), "backend").failure == "no-such-name"
    shop.advance(11)
    assert running.lookup(shop.walk(), "backend").failure == "no-such-name"


def test_c_ares_asks_for_the_name_as_it_is(shop: Cluster) -> None:
    running = program(shop, "node-resolve")
    assert running.lookup(shop.walk(), "backend").failure == "no-such-name"
    found = running.lookup(shop.walk(), "backend.default.svc.cluster.local")
    assert (found.addresses, [query.type for query in found.queries]) == (("10.96.0.100",), ["A"])


def test_four_threads_make_a_fifth_lookup_wait(shop: Cluster) -> None:
    assert program(shop, "node").waits(4, 5.0) == 5.0
    assert program(shop, "node").waits(5, 5.0) == 10.0
    assert program(shop, "go").waits(50, 5.0) == 5.0
