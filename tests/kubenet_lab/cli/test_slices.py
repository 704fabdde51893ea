"""`kubenet-lab slices`, held to what kube-controller-manager 1.37 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubenet_lab import scenarios
from tests.kubenet_lab.cli.run import run
from tests.oracles import open_case

Json = dict[str, Any]
CASES = {case["name"]: case for case in open_case("api", "endpointslices")}
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
"""Not modelled: when the change happened that led to the slice."""


def given(case: Json) -> str:
    """What the controllers saw: Services, pods, and Endpoints that a person wrote."""
    items = [{"apiVersion": "v1", "kind": "Service", **item} for item in case["services"]]
    items += [{"apiVersion": "v1", "kind": "Pod", **item} for item in case["pods"]]
    for item in case["endpoints"]:
        if "endpoints.kubernetes.io/managed-by" not in item["metadata"].get("labels", {}):
            items.append({"apiVersion": "v1", "kind": "Endpoints", **item})
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def masked(slices: list[Json]) -> list[Json]:
    """Without the ends of names, the time of the trigger, and the order of endpoints."""
    found = []
    for item in json.loads(json.dumps(slices)):
        item.pop("apiVersion", None), item.pop("kind", None)
        name, _, suffix = item["metadata"]["name"].rpartition("-")
        assert len(suffix) == 5
        item["metadata"]["name"] = name
        annotations = item["metadata"].get("annotations", {})
        annotations.pop(TRIGGER, None)
        if not annotations:
            item["metadata"].pop("annotations", None)
        if item["endpoints"]:
            item["endpoints"].sort(key=lambda endpoint: endpoint["addresses"])
        found.append(item)
    return sorted(found, key=lambda item: json.dumps(item, sort_keys=True))


def joined(slices: list[Json]) -> Json:
    endpoints = [endpoint for item in slices for endpoint in item["endpoints"]]
    return {**slices[0], "endpoints": sorted(endpoints, key=lambda endpoint: endpoint["addresses"])}


def test_all_recorded_cases_are_here() -> None:
    assert len(CASES) == 20


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("name", CASES)
def test_slices_are_those_the_controllers_wrote(name: str, form: str, tmp_path: Path) -> None:
    case = CASES[name]
    file = tmp_path / "case.json"
    file.write_text(given(case), encoding="utf-8")
    ran = run("slices", "-f", str(file), "-o", form)
    assert ran.status == 0, ran.err
    if form == "json":
        found = json.loads(ran.out)["items"]
    else:
        documents = list(yaml.safe_load_all(ran.out))
        found = [item for item in documents if item["kind"] == "EndpointSlice"]
    assert all(item["apiVersion"] == "discovery.k8s.io/v1" for item in found)
    model, real = masked(found), masked(case["endpointSlices"])
    if name == "hundred-and-one":
        # How they are packed depends on when the pods came; how many there are, and the limit, does not.
        assert all(len(item["endpoints"]) <= 100 for item in model)
        model, real = [joined(model)], [joined(real)]
    assert model == real


def test_standard_input_folders_and_several_files_are_the_same(tmp_path: Path) -> None:
    text = given(CASES["three-ready"])
    (tmp_path / "a.json").write_text(text)
    ran = run("slices", "-f", "-", "-o", "json", stdin=text)
    assert ran.status == 0
    assert (
        ran == run("slices", str(tmp_path), "-o", "json") == run("slices", "-f", str(tmp_path), "-o", "json")
    )
    items = json.loads(text)["items"]
    for number, item in enumerate(items):
        (tmp_path / f"{number}.yaml").write_text(json.dumps(item))
    files = [str(tmp_path / f"{number}.yaml") for number in range(len(items))]
    assert ran == run("slices", "-f", *files, "-o", "json")
    other = run("slices", "-f", *files, "-o", "json", "--seed", "1")
    assert masked(json.loads(other.out)["items"]) == masked(json.loads(ran.out)["items"])
    assert other != ran


def test_what_was_printed_is_left_alone_when_it_is_read_back(tmp_path: Path) -> None:
    first = run("slices", "-", "-o", "json", stdin=given(CASES["dual-stack"]))
    items = [*json.loads(given(CASES["dual-stack"]))["items"], *json.loads(first.out)["items"]]
    again = run(
        "slices", "-", "-o", "json", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    assert again.out == first.out


def test_no_slices_are_an_empty_list() -> None:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
    assert json.loads(run("slices", "-", "-o", "json", stdin=text).out)["items"] == []
    assert yaml.safe_load(run("slices", "-", stdin=text).out)["items"] == []


def test_bad_input_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
        "spec:\n  clusterIP: 10.99.0.1\n  ports: [{port: 80}]\n"
    )
    ran = run("slices", "-f", str(file))
    assert (ran.status, ran.out) == (2, b"")
    assert f"{file}:5:" in ran.err
    assert "not in the valid range" in ran.err
    assert run("slices", "-f", str(tmp_path / "gone.yaml")).status == 2
    assert run("slices").status == 2
    shop = Path(scenarios.__file__).with_name("shop.yaml")
    assert run("slices", str(shop)).status == 0
