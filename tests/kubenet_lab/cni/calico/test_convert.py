"""NetworkPolicies, namespaces and pods as Calico's own converters make them."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.calico import convert, names
from kubenet_lab.cni.calico.selector import parse
from kubenet_lab.errors import InputError
from tests.oracles import open_case

SPECS: list[dict[str, Any]] = open_case("cni-calico", "networkpolicy-conversion")


def _policy(spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": spec["name"], "namespace": "prod"}, "spec": spec["in"]}


@pytest.mark.parametrize("spec", SPECS, ids=[spec["name"] for spec in SPECS])
def test_a_network_policy(spec: dict[str, Any]) -> None:
    v3, fault = convert.network_policy(_policy(spec))
    assert v3["spec"] == spec["v3"]
    assert fault == spec.get("error", "")
    assert convert.policy_v1(v3) == spec["v1"]


def _everything() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(object, its recorded conversion) of every case with objects of its own."""
    out = []
    world = open_case("cni-calico", "world")
    for name in ("felix-other", "felix-policy", "felix-pools-routes", "felix-static"):
        for case in open_case("cni-calico", name):
            objects: list[dict[str, Any]] = []
            for obj in case["objects"]:
                objects += world["objects"] if obj == "WORLD" else [obj]
            for done in case["result"].get("conversions", []):
                out.append((_find(objects, done), done))
    for done in world["result"]["conversions"]:
        out.append((_find(world["objects"], done), done))
    return out


def _find(objects: list[dict[str, Any]], done: dict[str, Any]) -> dict[str, Any]:
    kind = done["kind"].rpartition(" ")[2]
    space, _, name = done["name"].rpartition("/")
    return next(
        obj
        for obj in objects
        if obj["kind"] == kind
        and obj["metadata"]["name"] == name
        and (not space or obj["metadata"].get("namespace") == space)
    )


def test_every_recorded_object() -> None:
    kinds = set()
    for obj, done in _everything():
        kind = done["kind"]
        kinds.add(kind)
        if kind == "Namespace":
            assert convert.namespace_profile(obj) == done["profile"]
        elif kind == "ServiceAccount":
            assert convert.account_profile(obj) == done["profile"]
        elif kind == "Pod":
            assert (
                names.interface(obj["metadata"]["namespace"], obj["metadata"]["name"])
                == done["hostInterface"]
            )
            assert convert.valid_endpoint(obj) == done["validCalicoWorkloadEndpoint"], done["name"]
            if done.get("wep"):
                assert convert.workload_endpoint(obj) == done["wep"], done["name"]
            assert convert.ready_pod(obj) == done["readyCalicoPod"], done["name"]
        elif kind == "k8s NetworkPolicy":
            v3, _ = convert.network_policy(obj)
            assert v3 == done["v3"], done["name"]
            assert convert.policy_v1(v3) == done["v1"], done["name"]
        else:
            assert convert.policy_v1(obj) == done["v1"], done["name"]
    assert kinds == {
        "Namespace", "ServiceAccount", "Pod", "k8s NetworkPolicy", "calico NetworkPolicy", "GlobalNetworkPolicy",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "canonical", "labels", "matches"),
    [
        ("", "all()", {}, True),
        ("a == 'b'", 'a == "b"', {"a": "b"}, True),
        ("a != 'b'", 'a != "b"', {}, True),
        ("a in {'y','x'}", 'a in {"x", "y"}', {"a": "y"}, True),
        ("a not in {'y'}", 'a not in {"y"}', {}, True),
        ("!!has(a)", "has(a)", {}, False),
        ('! has(a) || b == "c\'d"', '(!has(a) || b == "c\'d")', {"a": "1", "b": "c'd"}, True),
        ("(a == 'b' && c == 'd') || all()", '((a == "b" && c == "d") || all())', {}, True),
        ("a starts with 'b'", 'a starts with "b"', {"a": "bcd"}, True),
        ("a ends with 'b'", 'a ends with "b"', {"a": "bcd"}, False),
        ("a contains 'c'", 'a contains "c"', {"a": "bcd"}, True),
        ("in == 'x'", 'in == "x"', {"in": "x"}, True),
        ("index in {'1'}", 'index in {"1"}', {"index": "1"}, True),
    ],
)
def test_a_selector(text: str, canonical: str, labels: dict[str, str], matches: bool) -> None:
    assert str(parse(text)) == canonical
    assert parse(text).matches(labels) is matches
    assert str(parse(canonical)) == canonical


@pytest.mark.parametrize("text", ["a ==", "a = 'b'", "(a == 'b'", "a in {'b'", "a == 'b' c", "&& a", "has()"])
def test_a_wrong_selector_is_named(text: str) -> None:
    with pytest.raises(InputError, match="selector"):
        parse(text)
