"""`kubenet-lab policy`: the truth table, in the form of the recorded ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from tests.kubenet_lab.cli.run import run
from tests.kubenet_lab.policy.worlds import differences, manifests
from tests.oracles import open_case


@pytest.mark.parametrize("name", ["random-0005", "tiers-0006", "disagreements-0001", "edges-endport-range"])
def test_json_is_the_recorded_table(name: str, tmp_path: Path) -> None:
    case = open_case("policy", name)
    (tmp_path / "world.yaml").write_text("\n---\n".join(json.dumps(item) for item in manifests(case)) + "\n")
    probes, external = ",".join(case["probes"]), ",".join(case["external"])
    ran = run("policy", "-f", str(tmp_path), "--ports", probes, "--external", external, "-o", "json")
    assert ran.status == 0, ran.err
    got = json.loads(ran.out)
    assert got["order"] == case["order"]
    assert list(got["tables"]) == case["probes"]
    assert not differences(case, got["tables"], case.get("expected") or case["correct"])


def test_text_names_rows_and_says_what_the_letters_mean() -> None:
    ran = run("policy", "-f", str(SHOP), "--ports", "80", "--external", "8.8.8.8")
    assert ran.status == 0
    assert "I denied by the destination's ingress" in ran.text
    lines = [line for line in ran.text.splitlines() if "8.8.8.8" in line]
    assert lines == [" 6 8.8.8.8                         . . . . . -"]


def test_workloads_get_the_pods_a_cluster_would_make() -> None:
    order = json.loads(run("policy", "-f", str(SHOP), "-o", "json").out)["order"]
    assert sum(name.startswith("default/backend-") for name in order) == 3


def test_all_that_is_wrong_is_told_at_once() -> None:
    ran = run("policy", "--ports", "80/ICMP,x", "--external", "10.0.0")
    assert ran.status == 2
    assert ran.out == b""
    for says in ("no manifests", "'80/ICMP': the protocol is", "'x': the port is", "'10.0.0' is not an IP"):
        assert says in ran.err
