"""`kubenet-lab explain` and `kubenet-lab reach`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from tests.kubenet_lab.cli.run import run

POLICY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: database
spec:
  podSelector:
    matchLabels:
      app: database
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: backend
    ports:
    - port: 5432
"""


@pytest.fixture
def wall(tmp_path: Path) -> str:
    file = tmp_path / "wall.yaml"
    file.write_text(POLICY)
    return str(file)


def test_explain_names_file_and_line(wall: str) -> None:
    ran = run("explain", "-f", str(SHOP), wall, "frontend", "database", "5432/TCP")
    assert ran.status == 0, ran.err
    assert "DENIED by the ingress of default/database" in ran.text
    assert f"[{wall}:10]" in ran.text
    ran = run("explain", "-f", str(SHOP), wall, "backend", "database", "5432/TCP", "-o", "json")
    told = json.loads(ran.out)
    assert told["allowed"] is True
    assert told["ingress"]["rules"] == [
        {"policy": "default/database", "kind": "NetworkPolicy", "rule": 0, "action": "Accept"}
    ]
    assert told["ingress"]["reasons"][1]["place"] == f"{wall}:11"


def test_a_service_stands_for_the_pods_behind_it(wall: str) -> None:
    # "backend" is a workload's name first; its Service is asked for by a name that only it has.
    ran = run("explain", "-f", str(SHOP), wall, "frontend", "database", "5432")
    assert "default/frontend" in ran.text
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: api}\n"
        "spec: {selector: {app: backend}, ports: [{port: 80, targetPort: http}]}\n"
    )
    ran = run("explain", "-f", str(SHOP), "-f", "-", "frontend", "api", "80", "-o", "json", stdin=service)
    assert ran.status == 0, ran.err
    assert [item["port"] for item in json.loads(ran.out)] == ["8080/TCP"] * 3
    ran = run("explain", "-f", str(SHOP), "-f", "-", "frontend", "api", "81", stdin=service)
    assert "Service default/api has no port 81/TCP" in ran.err


def test_explain_tells_all_faults() -> None:
    ran = run("explain", "-f", str(SHOP), "frontnd", "databas", "5432/TCP")
    assert ran.status == 2
    assert "did you mean frontend?" in ran.err
    assert "did you mean database?" in ran.err
    assert run("explain", "-f", str(SHOP), "frontend", "database", "x").status == 2


def test_reach_lists_connections_findings_and_newcomers(wall: str) -> None:
    ran = run("reach", "-f", str(SHOP), wall)
    assert ran.status == 0, ran.err
    assert "default/backend[Deployment] => default/database[Pod] : TCP 5432\n" in ran.text
    assert "\nFindings:\n  none\n" in ran.text
    assert "default/frontend[Pod] can be reached by any pod of a new namespace" in ran.text
    data = json.loads(run("reach", "-f", str(SHOP), wall, "-o", "json").out)
    assert {item["name"] for item in data["workloads"]} == {
        "default/backend[Deployment]", "default/database[Pod]", "default/frontend[Pod]"
    }  # fmt: skip
    rows = list(csv.DictReader(run("reach", "-f", str(SHOP), wall, "-o", "csv").text.splitlines()))
    assert len(rows) == len(data["connections"])
    page = run("reach", "-f", str(SHOP), wall, "-o", "html").text
    assert page.startswith("<!doctype html>")
    assert "✕ nothing" in page


def test_reach_diff_applies_policies_to_the_first_world(wall: str) -> None:
    ran = run("reach", "-f", str(SHOP), "--diff", wall)
    assert (
        "~ default/backend[Deployment] => default/database[Pod] : All Connections -> TCP 5432\n" in ran.text
    )
    data = json.loads(run("reach", "-f", str(SHOP), "--diff", wall, "-o", "json").out)
    assert {item["change"] for item in data["changes"]} == {"changed", "removed"}
    assert run("reach", "-f", str(SHOP), "--diff", str(SHOP)).text == "nothing changes\n"


def test_reach_from_a_pod_that_was_taken_over(wall: str) -> None:
    data = json.loads(run("reach", "-f", str(SHOP), wall, "--from", "frontend", "-o", "json").out)
    assert len(data["paths"]["default/database"]) == 2
    assert run("reach", "-f", str(SHOP), "--from", "8.8.8.8").status == 2


def test_trace_says_that_nobody_enforces_a_policy_unless_somebody_does(wall: str) -> None:
    call = ("trace", "-f", str(SHOP), wall, "frontend", "tcp://database:5432")
    ran = run(*call)
    assert "connected" in ran.text
    assert "warning: Flannel enforces no policy" in ran.err
    ran = run(*call, "--policy", "iptables")
    assert "KUBE-POD-FW-" in ran.text
    assert "refused" in ran.text
    assert "enforces no policy" not in ran.err
    assert run(*call, "--policy", "ebtables").status == 2


TWO = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec: {%s}
"""
NAMED = "selector: {app: web}, ports: [{port: 80, targetPort: %s}]"


@pytest.mark.parametrize(
    ("worlds", "ends", "words"),
    [
        (["a"], ["a/web", "", "80"], ["DST: '' is no pod, no workload and no address"]),
        (["a"], ["a/", "a/web", "80"], ["SRC: 'a/' is no pod"]),
        (
            ["a", "b"],
            ["web", "10.0.0.1", "80"],
            ["SRC: 'web' is in 2 namespaces", "write one of a/web, b/web"],
        ),
        (["a", "b"], ["a/web", "api", "80"], ["DST: 'api' is in 2 namespaces", "write one of a/api, b/api"]),
        (
            ["a:type: ExternalName, externalName: example.com"],
            ["a/web", "api", "80"],
            ["a name for example.com"],
        ),
        (
            ["a:ports: [{port: 80}]"],
            ["a/web", "api", "80"],
            ["Service a/api has no selector", "write that address"],
        ),
        (
            [f"a:{NAMED % 'htpp'}"],
            ["a/web", "api", "80"],
            ["Service a/api: no pod behind it calls a TCP port 'htpp', its targetPort", "they have http"],
        ),
        (
            ["a:selector: {app: wbe}, ports: [{port: 80}]"],
            ["a/web", "api", "80"],
            ["no pod is behind Service a/api"],
        ),
    ],
)
def test_names_that_stand_for_nothing_or_for_too_much(
    worlds: list[str], ends: list[str], words: list[str], tmp_path: Path
) -> None:
    files = []
    for number, world in enumerate(worlds):
        space, _, spec = world.partition(":")
        file = tmp_path / f"{number}.yaml"
        file.write_text(TWO % (space, "api", space, spec or NAMED % "http"))
        files.append(str(file))
    ran = run("explain", *ends, "-f", *files)
    assert (ran.status, ran.out) == (2, b"")
    for word in words:
        assert word in ran.err


def test_a_headless_service_translates_no_port(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text(TWO % ("a", "api", "a", f"clusterIP: None, {NAMED % 'http'}"))
    told = json.loads(run("explain", "a/web", "api", "80", "-f", str(file), "-o", "json").out)
    assert told["port"] == "80/TCP"
    file.write_text(TWO % ("a", "api", "a", NAMED % "http"))
    told = json.loads(run("explain", "a/web", "api", "80", "-f", str(file), "-o", "json").out)
    assert told["port"] == "8080/TCP"
