"""`kubenet-lab validate`, held to what kube-apiserver 1.37 answered, and to its own word about places and status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubenet_lab import scenarios
from tests.kubenet_lab.cli.run import run
from tests.kubenet_lab.cli.test_startup import HEAVY, loaded
from tests.kubenet_lab.test_admission import (
    DEFAULTS,
    DIFFERENCES,
    INVALID,
    UPDATES,
    check,
    drawn_of,
    plain,
    put,
)
from tests.oracles import open_case

Json = dict[str, Any]
SHOP = str(Path(scenarios.__file__).with_name("shop.yaml"))
TEXTS: dict[str, Json] = {case["name"]: case for case in open_case("api", "yaml")}
KEYS = ["file", "line", "column", "document", "kind", "name", "field", "reason", "message", "help"]

ENDPOINT_ONLY = {name for name, why in DIFFERENCES["load"].items() if "endpoint" in why}
"""Cases whose object was sent where objects of another kind go, which a file cannot be."""
NAMESPACE = {name for name, why in DIFFERENCES["load"].items() if "namespace" in why}
"""Namespaces are taken to be there."""


def told(causes: list[Json]) -> list[tuple[str, str, str]]:
    return sorted((cause["reason"], cause["field"], cause["message"]) for cause in causes)


@pytest.mark.parametrize("mode", ["strict", "warn"])
@pytest.mark.parametrize("name", INVALID)
def test_what_the_api_server_refuses(name: str, mode: str, tmp_path: Path) -> None:
    case = INVALID[name]
    wanted = case.get("for_real") or case[mode]
    file = tmp_path / "case.json"
    file.write_text(json.dumps(case["input"]), encoding="utf-8")
    ran = run("validate", str(file), "-o", "json", *(["--lenient"] if mode == "warn" else []))
    faults = json.loads(ran.out)
    assert ran.status == int(bool(faults))
    assert all(list(fault) == KEYS and fault["file"] == str(file) and fault["line"] for fault in faults)
    if name in ENDPOINT_ONLY:
        assert [fault["message"].partition(" for kind")[0] for fault in faults] == ["no matches"]
    elif name in NAMESPACE or "status" not in wanted:
        assert faults == []
        for text in wanted["warnings"] if name not in NAMESPACE else ():
            assert json.loads(text.removeprefix("299 - ")) in ran.err
    elif wanted["code"] == 422:
        assert told(faults) == told(wanted["status"]["details"]["causes"])
    else:
        # The server stops at its first decoding error; here all are told.
        assert any(fault["message"] in wanted["status"]["message"] for fault in faults)


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_as_the_api_server_stores_them(name: str, form: str) -> None:
    case = DEFAULTS[name]
    ran = run("validate", "--print-defaults", "-o", form, "-f", "-", stdin=json.dumps(case["input"]))
    assert ran.status == 0
    for text in case["warnings"]:
        assert json.loads(text.removeprefix("299 - ")) in ran.err
    found = json.loads(ran.out) if form == "json" else yaml.load(ran.out, yaml.BaseLoader)
    drawn, wanted = drawn_of(case["input"]), case["output"]
    if form == "yaml":
        # Numbers and the like as text on both sides.
        wanted = yaml.load(yaml.safe_dump(wanted), yaml.BaseLoader)
        assert list(found) == sorted(found)
        drawn = tuple(key for key in drawn if key != "nodePort")
    assert found["metadata"] == wanted["metadata"]
    check(plain(found, drawn), plain(wanted, drawn))


@pytest.mark.parametrize("name", UPDATES)
def test_changes_as_the_api_server_answers_them(name: str, tmp_path: Path) -> None:
    case = UPDATES[name]
    after = json.loads(json.dumps(case["stored"]))
    for path, value in case["change"].items():
        put(after, path, value)
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(case["stored"]))
    new.write_text(json.dumps(after))
    argv = ["validate", str(new), "--changed-from", str(old)]
    ran = run(*argv, "-o", "json")
    faults = json.loads(ran.out)
    if case["code"] == 200:
        assert (faults, ran.status) == ([], 0)
        found = json.loads(run(*argv, "--print-defaults", "-o", "json").out)
        drawn = ("clusterIPs", "nodePort")
        check(plain(found, drawn), plain(case["output"], drawn))
    elif name in UNLIKE_A_REQUEST:
        assert [fault["field"] for fault in faults] == UNLIKE_A_REQUEST[name]
    else:
        assert ran.status == 1
        assert told(faults) == told(case["status"]["details"]["causes"])


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_accepted_or_refused_as_by_kubectl(name: str, tmp_path: Path) -> None:
    case = TEXTS[name]
    file = tmp_path / "case.yaml"
    file.write_text(case["yaml"], encoding="utf-8")
    ran = run("validate", str(file), "-o", "json")
    wanted = 0 if name in DIFFERENCES["yaml"] else int(case["kubectl"]["exit"] != 0)
    assert ran.status == wanted
    for fault in json.loads(ran.out):
        assert fault["message"] in case["kubectl"]["stderr"]


UNLIKE_A_REQUEST = {
    # A file has no URL whose name it could contradict: it is another Service, and the first one has its address.
    "rename": ["spec.clusterIPs"],
    # Recorded as a conflict, because a controller had reported in between; a file says what is wrong in itself.
    "deployment-selector": ["spec.selector"],
}


SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: {type}
  {line}
  ports:
  - port: 80
    {port}
"""


def service(
    name: str, line: str = "sessionAffinity: None", port: str = "protocol: TCP", type: str = "NodePort"
) -> str:
    return SERVICE.format(name=name, line=line, port=port, type=type)


WHOLE = """clusterIP: 10.96.0.7
  clusterIPs: [10.96.0.7]
  ipFamilies: [IPv4]
  ipFamilyPolicy: SingleStack"""


@pytest.mark.parametrize(
    ("second", "line", "reason", "says"),
    [
        (service("b", "clusterIP: 10.96.0.7"), 6, "FieldValueInvalid", "provided IP is already allocated"),
        (
            service(
                "b",
                "clusterIP: 10.96.0.7\n  clusterIPs: [10.96.0.7]\n  ipFamilies: [IPv4]\n  ipFamilyPolicy: SingleStack",
            ),
            7,
            "FieldValueInvalid",
            "provided IP is already allocated",
        ),
        (service("b", port="nodePort: 30007"), 9, "FieldValueInvalid", "provided port is already allocated"),
        (service("a"), 3, "AlreadyExists", 'services "a" already exists'),
        (service("b", "clusterIP: 10.96.0.1"), 6, "FieldValueInvalid", "provided IP is already allocated"),
    ],
    ids=["address", "address of a whole spec", "node port", "name", "the cluster's own address"],
)
def test_what_two_objects_cannot_have_together(
    second: str, line: int, reason: str, says: str, tmp_path: Path
) -> None:
    """Whichever files they are in, and at the second one's place."""
    first = service("a", "clusterIP: 10.96.0.7", "nodePort: 30007")
    one, two = tmp_path / "1.yaml", tmp_path / "2.yaml"
    one.write_text(first + "---\n" + second)
    (fault,) = json.loads(run("validate", str(one), "-o", "json").out)
    assert (fault["reason"], fault["document"]) == (reason, 2)
    assert fault["line"] == line + first.count("\n") + 1
    assert says in fault["message"]
    one.write_text(first)
    two.write_text(second)
    (apart,) = json.loads(run("validate", "-f", str(one), "-f", str(two), "-o", "json").out)
    assert apart["file"] == str(two)
    assert apart["line"] == line
    if reason == "AlreadyExists":
        assert apart["help"].endswith(f"{one}:1")


def test_all_faults_of_all_stages_in_the_order_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    texts = [
        service("a", "clusterIP: 10.96.0.1"),
        service("b", "clusterIP: 10.99.0.1", "port: 0"),
        service("c", "prots: []"),
    ]
    file.write_text("---\n".join(texts))
    ran = run("validate", str(file), str(tmp_path / "gone.yaml"), "-o", "json")
    faults = json.loads(ran.out)
    assert ran.status == 1
    told = [(Path(fault["file"]).name, fault["document"], fault["field"]) for fault in faults]
    assert told == [
        ("gone.yaml", 0, ""),
        ("x.yaml", 1, "spec.clusterIPs"),
        ("x.yaml", 2, "spec.clusterIPs"),
        # Where the target port would be; after it, in the same line, the port that it is by default.
        ("x.yaml", 2, "spec.ports[0].targetPort"),
        ("x.yaml", 2, "spec.ports[0].port"),
        ("x.yaml", 3, "spec.prots"),
    ]


def test_text_is_for_people_and_silence_is_good_news(tmp_path: Path) -> None:
    assert run("validate", SHOP) == run("validate", "-f", SHOP) == run("validate", "--file", SHOP)
    ran = run("validate", SHOP)
    assert (ran.status, ran.out, ran.err) == (0, b"", "")
    assert json.loads(run("validate", SHOP, "-o", "json").out) == []
    file = tmp_path / "x.yaml"
    file.write_text(service("a", "prots: []"))
    ran = run("validate", str(file))
    assert ran.status == 1
    assert ran.text.startswith(f'{file}:6:3: Service "a": strict decoding error: unknown field "spec.prots"')
    assert 'help: did you mean "ports"?' in ran.text
    assert ran.err == ""
    ran = run("validate", str(file), "--lenient")
    assert (ran.status, ran.out) == (0, b"")
    assert "warning: " in ran.err


def test_nothing_is_printed_of_what_has_faults(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(service("a") + "---\n" + service("a"))
    ran = run("validate", "--print-defaults", str(file))
    assert (ran.status, ran.out) == (1, b"")
    assert 'services "a" already exists' in ran.err


def test_several_objects_are_a_list_and_a_world_repeats() -> None:
    argv = ["validate", "--print-defaults", SHOP]
    listing = json.loads(run(*argv, "-o", "json").out)
    documents = list(yaml.safe_load_all(run(*argv).out))
    assert (listing["kind"], len(listing["items"])) == ("List", len(documents))
    assert run(*argv) == run(*argv, "--seed", "0") == run(*argv, "-o", "yaml")
    one = ["validate", "--print-defaults", "-", "-o", "json"]
    text = service("a", type="LoadBalancer")
    seeds = {run(*one, "--seed", str(seed), stdin=text).out for seed in range(3)}
    assert len(seeds) == 3


def test_a_dump_keeps_the_addresses_it_was_given() -> None:
    text = service("a", "clusterIP: 172.20.3.4").replace("{name: a}", "{name: a, uid: abc}")
    assert run("validate", "-", stdin=text).status == 0
    shown = json.loads(run("validate", "-", "--print-defaults", "-o", "json", stdin=text).out)
    assert shown["spec"]["clusterIPs"] == ["172.20.3.4"]
    assert shown["spec"]["ipFamilies"] == ["IPv4"]
    asked = text.replace(", uid: abc", "")
    assert "not in the valid range" in run("validate", "-", stdin=asked).text
    assert run("validate", "-", "--service-cluster-ip-range", "172.20.0.0/16", stdin=asked).status == 0


def test_a_full_range_is_told_of_the_one_that_came_last() -> None:
    text = "---\n".join(service(name, type="ClusterIP") for name in "abcdef")
    argv = ["validate", "-", "--service-cluster-ip-range", "10.0.0.0/29"]
    (fault,) = json.loads(run(*argv, "-o", "json", stdin=text).out)
    assert (fault["name"], fault["document"]) == ("f", 6)
    assert "range is full" in fault["message"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "no manifests"),
        ([SHOP, "-o", "yaml"], "--print-defaults"),
        ([SHOP, "--print-defaults", "-o", "text"], "yaml or json"),
        ([SHOP, "-o", "xml"], "xml"),
        ([SHOP, "--service-cluster-ip-range", "10.96.0.0/33"], "10.96.0.0/33"),
        ([SHOP, "--service-cluster-ip-range", "10.96.0.0/16,10.97.0.0/16"], "one family"),
        (["-", "--changed-from", "-"], "once only"),
    ],
)
def test_a_command_written_wrong_is_status_two(argv: list[str], says: str) -> None:
    ran = run("validate", *argv)
    assert (ran.status, ran.out) == (2, b"")
    assert says in ran.err


BAD: dict[str, bytes] = {
    "empty": b"",
    "binary": b"\x7fELF\x02\x00\x00",
    "utf-16": service("a").encode("utf-16"),
    "latin-1": b"# caf\xe9\n",
    "truncated": b'{"apiVersion": "v1", "kind": "List", "items": [{"kind"',
    "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(9)),
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["validate", "slices"])
def test_bad_input_is_a_sentence_from_files_and_standard_input(
    name: str, command: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(BAD[name])
    script = [sys.executable, "-m", "kubenet_lab", command]
    for argv, given, where in (([str(file)], b"", b"x.yaml"), (["-f", "-"], BAD[name], b"<stdin>")):
        done = subprocess.run([*script, *argv], input=given, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr
        assert done.returncode == (1 if command == "validate" else 2)
        told = done.stdout if command == "validate" else done.stderr
        assert where in told


def test_folders_and_what_is_not_there(tmp_path: Path) -> None:
    ran = run("validate", str(tmp_path))
    assert ran.status == 1
    assert "recognized file extensions" in ran.text
    (tmp_path / "shop.yaml").write_text(Path(SHOP).read_text())
    assert run("validate", str(tmp_path)).status == 0
    assert "did you mean" in run("validate", str(tmp_path / "shpo.yaml")).text


def test_nothing_of_the_network_is_loaded_to_judge_a_file() -> None:
    for argv in (["validate", SHOP], ["slices", SHOP]):
        names = loaded(f"from kubenet_lab.cli import main; main({argv!r})")
        assert not names & HEAVY
        assert not names & {
            f"kubenet_lab.{name}" for name in ("cluster", "walk", "kernel", "cni", "proxy", "dns")
        }
