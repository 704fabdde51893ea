"""What the tree of rules sends to the browser, and what stands in for it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.scenarios import shop
from kubenet_lab.widgets import RuleTree


@cache
def cluster(mode: str) -> Cluster:
    return shop(proxy=mode)


@pytest.fixture(autouse=True)
def closed() -> Any:
    """Widgets stay open until told otherwise."""
    yield
    from ipywidgets import Widget

    Widget.close_all()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_it_sends_one_row_a_line_of_the_tree(mode: str) -> None:
    made = RuleTree(cluster(mode), calls=cluster(mode).connect("frontend", "http://backend"))
    assert json.loads(json.dumps(made.rows)) == made.rows
    assert [row["depth"] for row in made.rows] == [depth for depth, _one in made.tree.branches()]
    assert made.rows[0]["depth"] == 0
    assert any(row["met"] for row in made.rows)
    assert made.title == f"node-1: {mode}, IPv4"
    assert made.words == made.tree.text()
    assert repr(made) == f"RuleTree(node-1: {mode}, IPv4: {len(made.rows)} lines)"


def test_without_a_call_nothing_is_marked() -> None:
    made = RuleTree(cluster("nftables"), "node-2", family=6)
    assert made.rows
    assert not any(row["met"] for row in made.rows)


def test_where_no_script_runs_it_is_lists_that_fold() -> None:
    made = RuleTree(cluster("nftables"), calls=[cluster("nftables").connect("frontend", "http://backend")])
    bundle = made._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/html"].count("<code>") == len(made.rows)
    assert "<details" in data["text/html"]
    assert data["text/plain"] == repr(made)
