"""Reading manifests: what comes out, and that every fault is told at its place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.manifests import ManifestWarning, dump, load, read
from kubenet_lab.manifests.load import decoded
from kubenet_lab.objects import KINDS, Generic, Pod, Service
from tests.oracles import open_case

TESTS = Path(__file__).parents[2]
GOOD = sorted((TESTS / "manifests").glob("*.yaml"))
BAD = sorted((TESTS / "errors").glob("*.yaml"))

# What cannot come out as recorded, with the reason.
DIFFERENCES: dict[str, dict[str, str]] = json.loads(
    (TESTS / "errors" / "recorded-differences.json").read_text(encoding="utf-8")
)

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n"


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_manifests_are_read_as_expected(file: Path) -> None:
    """`<case>.expected` holds the objects as YAML."""
    assert dump(load(file)) == file.with_suffix(".expected").read_text()


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
@pytest.mark.parametrize("format", ["yaml", "json"])
def test_what_is_dumped_reads_back_the_same(file: Path, format: str) -> None:
    objects = load(file)
    assert load(dump(objects, format)) == objects


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_all_faults_are_told_at_their_place(file: Path) -> None:
    """`<case>.log` holds the whole message."""
    with pytest.raises(InputError) as caught:
        load(file)
    assert str(caught.value).replace(str(file), file.name) + "\n" == file.with_suffix(".log").read_text()
    lines = file.read_text().splitlines()
    for fault in caught.value.faults:
        assert 1 <= fault.line <= len(lines) + 1, fault


def _faults(text: str) -> tuple[Fault, ...]:
    try:
        read(text)
    except InputError as error:
        return error.faults
    return ()


@pytest.mark.parametrize("name", [case["name"] for case in open_case("api", "yaml")])
def test_yaml_as_kubectl_reads_it(name: str) -> None:
    """Accepted or refused as kubectl 1.32 against a 1.37 API server does, and in its words."""
    case = next(case for case in open_case("api", "yaml") if case["name"] == name)
    accepted, said = case["kubectl"]["exit"] == 0, case["kubectl"]["stderr"]
    if name in DIFFERENCES["yaml"]:
        (obj,) = load(case["yaml"])
        assert isinstance(obj, Generic)
        return
    faults = _faults(case["yaml"])
    assert bool(faults) != accepted, faults or said
    for fault in faults:
        assert fault.message in said


DIFFERENT = DIFFERENCES["load"]


@pytest.mark.parametrize("name", [case["name"] for case in open_case("api", "invalid")])
def test_invalid_objects_are_refused_in_the_servers_words(name: str) -> None:
    case = next(case for case in open_case("api", "invalid") if case["name"] == name)
    """Reasons, fields and messages; all stages' faults at once, where the server stops after the first."""
    status: dict[str, Any] | None = case["strict"].get("status")
    faults = _faults(json.dumps(case["input"]))
    if status is None:
        assert not faults
        return
    causes = status.get("details", {}).get("causes") if case["strict"]["code"] == 422 else None
    if causes:
        wanted = sorted((cause["reason"], cause["field"], cause["message"]) for cause in causes)
        found = sorted((fault.reason, fault.path, fault.message) for fault in faults)
    else:
        # The server stops at its first decoding error.
        wanted, found = [True], [bool(faults) and any(fault.message in status["message"] for fault in faults)]
    if name in DIFFERENT:
        assert found != wanted, f"{name} is refused now as it should be: take it off"
    else:
        assert found == wanted


def test_sources_may_be_files_folders_text_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "b.yaml").write_text(SERVICE.replace("web", "b"))
    (tmp_path / "below" / "c.json").write_text(json.dumps(load(SERVICE)[0].to_manifest()))
    (tmp_path / "notes.txt").write_text("not a manifest")
    objects = load(tmp_path, "-", SERVICE.replace("web", "d"), stdin=io.StringIO(SERVICE.replace("web", "e")))
    assert [obj.name for obj in objects] == ["b", "web", "e", "d"]
    assert [obj.name for obj in load([str(tmp_path / "b.yaml"), tmp_path / "below"])] == ["b", "web"]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x00\x01binary", "the input is binary"),
        ("apiVersion: v1\n".encode("utf-16"), "the file is not UTF-8"),
        (b"# nothing\n", "no objects passed"),
        (b"", "no objects passed"),
        (b"[" * 300_000 + b"]" * 300_000, "nested too deeply"),
        (b"- " * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"a: &a [*a]\n", "anchor value contains itself"),
        (b'{"a": ', "error converting YAML to JSON"),
    ],
)
def test_what_is_no_manifest_is_refused_with_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load(file)


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(SERVICE)
    with pytest.raises(InputError, match=r"does not exist\n +help: did you mean .*shop.yaml"):
        load(tmp_path / "shop.yml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="recognized file extensions"):
        load(tmp_path / "empty")


def test_lenient_drops_unknown_fields_with_a_warning() -> None:
    text = SERVICE.replace("port: 80", "port: 80, targetport: 8080")
    with pytest.raises(InputError, match="unknown field"):
        load(text)
    with pytest.warns(ManifestWarning, match=r'unknown field "spec.ports\[0\].targetport"'):
        (service,) = load(text, lenient=True)
    assert service == load(SERVICE)[0]


def test_a_key_that_comes_twice_counts_last_with_a_warning() -> None:
    """kubectl loses the first one silently."""
    found = read(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: 80\n    port: 81\n"
    )
    assert isinstance(found.objects[0], Service)
    assert found.objects[0].spec.ports[0].port == 81
    (warning,) = found.warnings
    assert (warning.line, warning.column, warning.path) == (7, 5, "spec.ports[0].port")


def test_every_field_of_every_typed_kind_survives() -> None:
    """The types list exactly the published fields, so that nothing is lost where the model looks away."""
    import msgspec.inspect

    from kubenet_lab.manifests import customkinds, schema
    from kubenet_lab.objects.meta import Part

    def compare(cls: type[Part], name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        fields = dict(schema.table().types[name])
        for top in ("apiVersion", "kind") if cls in KINDS else ():
            del fields[top]
        info = msgspec.inspect.type_info(cls)
        assert isinstance(info, msgspec.inspect.StructType)
        assert {field.encode_name for field in info.fields} == set(fields), name
        for field in info.fields:
            for inner in _structs(field.type):
                compare(inner, fields[field.encode_name].removeprefix("[]"))

    seen: set[str] = set()
    for cls in KINDS:
        kind = schema.kind_of(cls.api_version, cls.kind)
        if kind is None:
            assert f"{cls.api_version}/{cls.kind}" in customkinds.published()  # tested in test_custom_kinds
            continue
        assert (kind.resource, kind.namespaced) == (cls.resource, cls.namespaced)
        compare(cls, kind.type)
    assert len(seen) > 40


def _structs(kind: Any) -> list[type[Any]]:
    import msgspec.inspect as inspect

    if isinstance(kind, inspect.StructType):
        return [kind.cls]
    if isinstance(kind, inspect.UnionType):
        return [found for item in kind.types for found in _structs(item)]
    if isinstance(kind, inspect.VarTupleType):
        return _structs(kind.item_type)
    return []


def test_objects_of_unknown_kinds_are_carried_whole() -> None:
    manifest = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "pool"},
        "spec": {"cidr": "10.244.0.0/16", "nothing": None, "deep": [{"a": 1.5}]},
    }
    (obj,) = load(json.dumps(manifest))
    assert isinstance(obj, Generic)
    assert obj.to_manifest() == manifest


def test_pods_of_a_dump_keep_their_status() -> None:
    (pod,) = load(TESTS / "manifests" / "dump.yaml")
    assert isinstance(pod, Pod)
    assert (pod.ips, pod.spec.host_network, pod.metadata.uid) == (("192.168.1.10",), True, "1b")


def test_a_fault_of_a_list_the_server_made_stands_where_its_one_value_was_written() -> None:
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n"
    text = head + "spec:\n  clusterIP: 10.96.0.300\n  ports: [{port: 80}]\n"
    with pytest.raises(InputError) as caught:
        load(text)
    fault = next(fault for fault in caught.value.faults if fault.path == "spec.clusterIPs[0]")
    assert (fault.line, fault.column) == (5, 14)


def test_what_a_cluster_might_hold_is_decoded_and_not_validated() -> None:
    listing = {
        "apiVersion": "v1",
        "kind": "ServiceList",
        "items": [{"metadata": {"name": "Not A Name"}, "spec": {"ports": [{"port": 0}]}, "later": 1}],
    }
    (service,) = decoded(json.dumps(listing))
    assert (service["kind"], service["apiVersion"]) == ("Service", "v1")
    assert service["metadata"]["name"] == "Not A Name"
    assert service["later"] == 1
    assert [each["kind"] for each in decoded("apiVersion: old/v1\nkind: Gone\n")] == ["Gone"]
    assert decoded("# nothing\n") == []
    with pytest.raises(InputError) as refused:
        decoded(SERVICE.replace("80", "eighty") + "---\n" + SERVICE.replace("[{port: 80}]", "80"))
    assert [(fault.line, fault.path) for fault in refused.value.faults] == [
        (4, "spec.ports[0].port"),
        (9, "spec.ports"),
    ]
