"""Slices against those of kube-controller-manager 1.37."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.control import DUAL_STACK, apply, endpointslice
from kubenet_lab.objects import EndpointSlice, default_nodes, from_manifest
from kubenet_lab.store import Store
from tests.oracles import open_case

Json = dict[str, Any]


def _by_name(file: str) -> dict[str, Json]:
    return {case["name"]: case for case in open_case("api", file)}


SLICES = _by_name("endpointslices")


@pytest.mark.parametrize("name", [name for name in SLICES if name != "endpoints-object"])
def test_slices_are_those_of_the_controller(name: str) -> None:
    """`endpoints-object` is about mirroring hand-written Endpoints, which is not modelled."""
    case = SLICES[name]
    store = Store()
    for node in default_nodes(3, dual_stack=True):
        store.create(node)
    for kind, objects in (("Service", case["services"]), ("Pod", case["pods"])):
        for manifest in objects:
            store.create(from_manifest({"apiVersion": "v1", "kind": kind, **manifest}))
    apply(store, endpointslice.reconcile(store, DUAL_STACK))
    model = [_slice(item.to_manifest()) for item in store.list(EndpointSlice)]
    real = [_slice(item) for item in case["endpointSlices"]]
    if name == "hundred-and-one":
        # How they are packed depends on when the pods came; how many there are, and the limit, does not.
        assert all(len(item["endpoints"]) <= 100 for item in model)
        model, real = [_joined(model)], [_joined(real)]
    assert sorted(model, key=json.dumps) == sorted(real, key=json.dumps)
    assert endpointslice.reconcile(store, DUAL_STACK) == []


def _slice(manifest: Json) -> Json:
    plain: Json = json.loads(json.dumps({**manifest, "apiVersion": "", "kind": ""}, sort_keys=True))
    metadata = plain["metadata"]
    for key in ("uid", "resourceVersion", "creationTimestamp", "annotations"):
        metadata.pop(key, None)
    prefix, _, suffix = metadata["name"].rpartition("-")
    assert len(suffix) == 5
    metadata["name"] = prefix
    for owner in metadata["ownerReferences"]:
        owner.pop("uid", None)
    plain["endpoints"] = sorted(plain.get("endpoints") or [], key=lambda endpoint: endpoint["addresses"])
    for endpoint in plain["endpoints"]:
        endpoint["targetRef"].pop("uid", None)
    plain["ports"] = plain.get("ports") or []
    return plain


def _joined(slices: list[Json]) -> Json:
    endpoints = [endpoint for item in slices for endpoint in item["endpoints"]]
    return {**slices[0], "endpoints": sorted(endpoints, key=lambda endpoint: endpoint["addresses"])}
