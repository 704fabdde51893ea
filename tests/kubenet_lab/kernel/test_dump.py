"""The whole state out and in again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab import scenarios
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dump import FORMAT, dump, load


def document() -> dict[str, Any]:
    """Return a shop's state after a call, through JSON text."""
    shop = scenarios.shop()
    assert shop.connect("frontend", "http://backend").delivered
    return json.loads(json.dumps(dump(shop.network)))


def test_a_loaded_state_dumps_the_same() -> None:
    before = document()
    network = load(before)
    assert json.loads(json.dumps(dump(network))) == before
    node = next(ns for ns in before["namespaces"] if ns["name"] == "node-1")
    assert node["conntrack"]
    assert any("KUBE-SERVICES" in line for line in node["iptables"]["4"])
    assert node["fdb"]
    assert node["neighbours"]


def test_a_loaded_state_decides_as_the_first() -> None:
    first = load(document())
    again = load(document())
    for ns in first.netns.values():
        for other in again.netns.values():
            for address in (a.local for a in other.addrs(None, 4)):
                assert ns.lookup(address) == again.ns(ns.name).lookup(address)


def test_names_are_sorted() -> None:
    names = [ns["name"] for ns in document()["namespaces"]]
    assert names == sorted(names)


def test_every_fault_is_named_with_its_place() -> None:
    bad = {
        "format": FORMAT,
        "wires": [{"name": "w", "ports": [["a", "nosuch"]]}],
        "namespaces": [
            {
                "name": "a",
                "links": [
                    {"name": "lo", "index": 1, "kind": "loopback"},
                    {"name": "eth0", "index": "two", "kind": "veth"},
                ],
                "routes": [
                    {"dst": "10.0.0.0/8", "dev": "eth7"},
                    {"dst": "10.1.0.0/16", "gateway": "10.0.0.1"},
                ],
                "iptables": {"4": ["*filter", "-A INPUT -j NOSUCH", "COMMIT"]},
            },
            {"name": "a"},
        ],
    }
    with pytest.raises(InputError) as caught:
        load(bad)
    told = str(caught.value)
    for part in (
        "Expected `int`, got `str`",
        "leaves by a link that is not there",
        "unknown field 'gateway' of Route",
        "a second namespace 'a'",
        "wire 'w' ends at 'nosuch'",
        "NOSUCH",
    ):
        assert part in told


def test_something_else_is_refused() -> None:
    with pytest.raises(InputError, match="must be 'kubenet-lab network 1'"):
        load({"hello": 1})
