"""Answers to requests against those of kube-apiserver 1.37.

`tests/errors/recorded-differences.json` names the recorded cases that cannot come out alike, and says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubenet_lab import admission
from kubenet_lab.control import DUAL_STACK, apply, bootstrap, service_ip
from kubenet_lab.manifests import load, schema
from kubenet_lab.manifests.text import Document, documents
from kubenet_lab.objects import Namespace, ObjectMeta, from_manifest
from kubenet_lab.store import Store
from tests.oracles import open_case

Json = dict[str, Any]

TESTS = Path(__file__).parents[1]
DIFFERENCES: dict[str, dict[str, str]] = json.loads(
    (TESTS / "errors" / "recorded-differences.json").read_text(encoding="utf-8")
)
DEFAULTS, INVALID, UPDATES = (
    {case["name"]: case for case in open_case("api", file)} for file in ("defaults", "invalid", "updates")
)
ENDPOINTS = {"service": ("v1", "Service"), "deployment": ("apps/v1", "Deployment")}
"""Where the requests of cases went whose object says it is another kind."""


def world() -> Store:
    """A cluster with two families, whose own Service is there, and the namespaces of the recording."""
    store = Store()
    for loop in (bootstrap.reconcile, service_ip.reconcile):
        apply(store, loop(store, DUAL_STACK))
    for name in ("demo", "scratch"):
        store.create(Namespace(metadata=ObjectMeta(name=name)))
    return store


def plain(manifest: Json, drawn: tuple[str, ...]) -> Json:
    """Without what differs from run to run; drawn addresses keep their number and families only."""
    copy: Json = json.loads(json.dumps(manifest))
    for key in ("uid", "resourceVersion", "creationTimestamp"):
        copy["metadata"].pop(key, None)
    spec = copy.get("spec", {})
    for key in drawn:
        if isinstance(spec.get(key), list):
            spec[key] = [":" in address for address in spec[key]]
        elif key in spec:
            spec[key] = "drawn"
    if "nodePort" in drawn:
        for port in spec.get("ports", []):
            if "nodePort" in port:
                port["nodePort"] = 30000 <= port["nodePort"] <= 32767
    return copy


def drawn_of(manifest: Json) -> tuple[str, ...]:
    asked = manifest["kind"] != "Service" or (manifest.get("spec") or {}).get("clusterIP")
    return () if asked else ("clusterIP", "clusterIPs")


def told(answer: admission.Answer) -> Json:
    """An answer as the recordings hold one."""
    found: Json = {
        "code": answer.code,
        "warnings": [f"299 - {json.dumps(text)}" for text in answer.warnings],
    }
    if answer.object is None:
        found["status"] = answer.status
    else:
        found["output"] = answer.object.to_manifest()
    return found


def differing(found: Any, wanted: Any, path: str = "") -> list[str]:
    """The fields that differ, one a line: `path: found, not wanted`."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        return [
            line
            for key in keys
            for line in differing(found.get(key, "absent"), wanted.get(key, "absent"), f"{path}.{key}")
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [line for index, (a, b) in pairs for line in differing(a, b, f"{path}[{index}]")]
    return [] if found == wanted else [f"{path.lstrip('.')}: {found!r}, not {wanted!r}"]


def check(found: Json, wanted: Json) -> None:
    lines = differing(found, wanted)
    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize("name", DEFAULTS)
def test_objects_are_stored_as_the_api_server_stores_them(name: str) -> None:
    case = DEFAULTS[name]
    answer = admission.create(world(), case["input"], DUAL_STACK)
    drawn = drawn_of(case["input"])
    found = told(answer)
    wanted = {key: case[key] for key in ("code", "warnings")}
    found["output"], wanted["output"] = plain(found["output"], drawn), plain(case["output"], drawn)
    check(found, wanted)


@pytest.mark.parametrize("mode", ["strict", "warn"])
@pytest.mark.parametrize("name", INVALID)
def test_what_is_refused_is_refused_in_the_servers_words(name: str, mode: str) -> None:
    """Where the recording has an answer in earnest, that one: a dry run does not know what is taken."""
    case = INVALID[name]
    wanted = dict(case.get("for_real") or case[mode])
    endpoint = ENDPOINTS.get(name.partition("-")[0])
    answer = admission.create(
        world(), case["input"], DUAL_STACK, strict=mode == "strict", dry_run=True, endpoint=endpoint
    )
    found = told(answer)
    if "output" in found and "output" in wanted:
        drawn = drawn_of(case["input"])
        found["output"], wanted["output"] = plain(found["output"], drawn), plain(wanted["output"], drawn)
    check(found, wanted)


def kubectl(text: str) -> str:
    """What kubectl prints to standard error about a YAML text."""
    document = next(iter(documents(text, "STDIN")))
    assert isinstance(document, Document)
    return admission.spoken(admission.create(world(), document.value, DUAL_STACK))


@pytest.mark.parametrize("name", INVALID)
def test_kubectl_says_it_as_recorded(name: str) -> None:
    case = INVALID[name]
    # As the recording wrote it: in quotes only what PyYAML puts in quotes.
    said = kubectl(yaml.safe_dump(case["input"]))
    if name in DIFFERENCES["kubectl"]:
        assert said != case["kubectl"]["stderr"], f"{name} is as recorded now: take it off"
    else:
        assert said == case["kubectl"]["stderr"]


def put(manifest: Any, path: str, value: Any) -> None:
    *steps, last = path.split(".")
    for step in steps:
        manifest = manifest[int(step)] if isinstance(manifest, list) else manifest[step]
    manifest[int(last) if isinstance(manifest, list) else last] = value


@pytest.mark.parametrize("name", UPDATES)
def test_updates_are_answered_as_recorded(name: str) -> None:
    case = UPDATES[name]
    store = world()
    stored = store.create(from_manifest(case["stored"]))
    manifest = stored.to_manifest()
    if name == "deployment-selector":
        # The deployment controller reported in between.
        store.update(from_manifest({**manifest, "status": {"observedGeneration": 1}}))
    for path, value in case["change"].items():
        put(manifest, path, value)
    answer = admission.update(store, manifest, DUAL_STACK, name=stored.name)
    found, drawn = told(answer), ("clusterIPs", "nodePort")
    wanted = {key: case[key] for key in ("code", "warnings", "status", "output") if key in case}
    for each in (found, wanted):
        if "output" in each:
            each["output"] = plain(each["output"], drawn)
    check(found, wanted)


def service(spec: str) -> Json:
    (obj,) = load(
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: demo}}\nspec: {{{spec}}}\n"
    )
    manifest: Json = obj.to_manifest()
    return manifest


def change(before: str, **fields: Any) -> admission.Answer:
    """Create a Service, change fields of its spec (None removes one), and replace it."""
    store = world()
    created = admission.create(store, service(before), DUAL_STACK)
    assert created.object is not None, created.status
    manifest = created.object.to_manifest()
    for field, value in fields.items():
        if value is None:
            manifest["spec"].pop(field, None)
        else:
            manifest["spec"][field] = value
    return admission.update(store, manifest, DUAL_STACK)


PORT = "ports: [{name: http, port: 80}]"
DUAL = "ipFamilyPolicy: RequireDualStack"
BOTH = "clusterIP: 10.96.0.50, clusterIPs: [10.96.0.50, 'fd00:10:96::50']"


@pytest.mark.parametrize(
    ("before", "fields", "says"),
    [
        (f"{PORT}, {DUAL}, {BOTH}", {"clusterIPs": ["10.96.0.50"]}, "to release the secondary cluster IP"),
        (PORT, {"ipFamilies": ["IPv6"]}, "expected an IPv6 value"),
        (
            f"{PORT}, clusterIP: None",
            {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]},
            "may not change",
        ),
        (f"{PORT}, type: NodePort", {"ports": [{"name": "http", "port": 0}]}, "ports[0].port"),
        (PORT, {"loadBalancerClass": "a/b"}, "may only be used when `type` is 'LoadBalancer'"),
        (
            f"{PORT}, type: LoadBalancer, externalTrafficPolicy: Local",
            {"healthCheckNodePort": 30001},
            "spec.healthCheckNodePort: Forbidden: field is immutable",
        ),
    ],
)
def test_changes_of_a_service_that_are_refused(before: str, fields: Json, says: str) -> None:
    answer = change(before, **fields)
    assert answer.status is not None
    assert answer.code == 422
    assert says in answer.status["message"]


def test_what_a_request_leaves_out_is_kept() -> None:
    answer = change(
        f"{PORT}, type: NodePort", clusterIP=None, clusterIPs=None, ports=[{"name": "http", "port": 81}]
    )
    assert answer.object is not None
    spec = answer.object.to_manifest()["spec"]
    assert spec["clusterIP"].startswith("10.96.")
    assert spec["ports"][0]["nodePort"] >= 30086


def test_what_a_type_no_longer_has_is_cleared() -> None:
    balanced = f"{PORT}, type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerClass: a/b"
    answer = change(balanced, type="ClusterIP")
    assert answer.object is not None
    spec = answer.object.to_manifest()["spec"]
    gone = (
        "healthCheckNodePort",
        "externalTrafficPolicy",
        "loadBalancerClass",
        "allocateLoadBalancerNodePorts",
    )
    assert not any(field in spec for field in gone)
    assert "nodePort" not in spec["ports"][0]


def test_a_second_family_comes_and_goes() -> None:
    answer = change(f"{PORT}, {DUAL}", ipFamilyPolicy="SingleStack")
    assert answer.object is not None
    spec = answer.object.to_manifest()["spec"]
    assert (spec["ipFamilies"], len(spec["clusterIPs"])) == (["IPv4"], 1)


def test_a_dry_run_and_a_refusal_leave_the_store_as_it_was() -> None:
    store = world()
    before = store.snapshot()
    assert admission.create(store, service(PORT), DUAL_STACK, dry_run=True).code == 201
    assert admission.create(store, service(f"{PORT}, clusterIP: 10.96.0.1"), DUAL_STACK).code == 422
    assert store.snapshot() == before
    assert admission.create(store, service(PORT), DUAL_STACK).code == 201
    again = admission.create(store, service(PORT), DUAL_STACK)
    assert again.status is not None
    assert again.status["message"] == 'services "web" already exists'


@pytest.mark.parametrize(
    ("address", "says"),
    [("10.96.0.1", "provided IP is already allocated"), ("10.99.0.1", "is not in the valid range")],
)
def test_a_service_that_says_all_of_itself_is_not_believed(address: str, says: str) -> None:
    whole = "ipFamilies: [IPv4], ipFamilyPolicy: SingleStack"
    asked = service(f"{PORT}, clusterIP: {address}, clusterIPs: [{address}], {whole}")
    answer = admission.create(world(), asked, DUAL_STACK)
    assert answer.status is not None
    assert says in answer.status["message"]


@pytest.mark.parametrize(
    "name", [name for name, case in DEFAULTS.items() if case["output"]["kind"] == "Service"]
)
def test_what_one_cluster_stored_another_stores_the_same(name: str) -> None:
    first = admission.create(world(), DEFAULTS[name]["input"], DUAL_STACK)
    assert first.object is not None
    manifest = plain(first.object.to_manifest(), ())
    second = admission.create(world(), manifest, DUAL_STACK)
    assert second.object is not None, second.status
    assert plain(second.object.to_manifest(), ()) == manifest


def test_every_kind_of_the_recordings_is_known() -> None:
    """So that no case passes because nothing looked at it."""
    for case in (*DEFAULTS.values(), *INVALID.values()):
        manifest = case["input"]
        known = schema.kind_of(manifest["apiVersion"], manifest["kind"]) is not None
        assert known or case["strict"]["code"] == 400
