"""Notebook 26: the judge takes every name that works; tables say what was measured and what was not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubenet_lab import cost
from kubenet_lab.course.exercises import nb26
from kubenet_lab.course.lessons import nb26 as lesson

NOTEBOOKS = Path(__file__).parents[3] / "notebooks"


@pytest.mark.parametrize(
    ("answer", "passed", "word"),
    [
        ("http://backend.default.svc.cluster.local.", True, "two questions"),
        ("http://backend.default.svc.cluster.local.:80", True, "two questions"),
        ("backend.default.svc.cluster.local.:80", True, "two questions"),
        ("http://backend", False, "From other/visitor it does not work: could not resolve"),
        ("http://backend.default", False, "asks 4 questions"),
        ("http://backend.default.svc", False, "questions"),
        ("http://10.96.0.100", False, "That is an address"),
        ("tcp://database.default.svc.cluster.local.:5432", False, "no backend"),
        ("http://backend.default.svc.cluster.local.:81", False, "does not work"),
    ],
)
def test_a_name_that_takes_two_questions_from_everywhere(answer: str, passed: bool, word: str) -> None:
    found = nb26.NAME.judge(answer)
    assert (found.passed, word in found.text) == (passed, True), found.text


def test_without_the_tunnel_a_second_walk_is_gone_too() -> None:
    gone = nb26.saved()
    assert gone["tunnel"] == 4
    assert {"link", "tracked", "match"} <= gone.keys()
    assert "nat" not in gone


def cells(table: lesson.Table) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in table.rows}


def test_what_was_not_measured_stands_in_brackets() -> None:
    found = cells(lesson.services(10, 200, 1000, 5000, 30_000))
    assert "(" not in "".join(found["10"] + found["1,000"] + found["5,000"])
    assert found["200"][1].startswith("(")
    assert found["30,000"][1].startswith("(2")
    assert found["30,000"][3:] == tuple(f"({us})" for us in found["10"][3:]), "a map is as fast at any number"
    assert found["1,000"][0] == "1,014"


def test_prices_are_those_of_the_recorded_run() -> None:
    table = lesson.prices()
    found = cells(table)
    assert found[cost.KINDS["ipvs"]] == (f"about {cost.recorded().us['nat']:.3f}",)
    assert "no kernel with IPVS was there" in table.note
    assert float(found[cost.KINDS["nat"]][0]) == pytest.approx(cost.recorded().us["nat"], abs=1e-3)


def test_a_service_costs_a_microsecond_under_every_plane() -> None:
    rows = cells(lesson.planes())
    assert [name for name, found in rows.items() if "about" in "".join(found)] == ["IPVS"]
    us = {name: [float(cell.removeprefix("about ")) for cell in found] for name, found in rows.items()}
    for name, (pod, to_service, later, later_service) in us.items():
        assert 0 <= to_service - pod < 1.6, name
        assert 0 <= later_service - later < 1, name
    assert us["BPF at the socket"][2] == us["BPF at the socket"][3], "no packet is translated"
    assert us["Cilium, all in BPF"][0] == min(found[0] for found in us.values())


def test_other_notebooks_name_the_numbers_of_the_recorded_run() -> None:
    def says(name: str) -> str:
        cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
        return "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")

    def ping(network: str, way: str) -> float:
        rows = [r for r in cost.run() if (r.network, r.proxy, r.way) == (network, "iptables", way)]
        return min(r.us for r in rows if r.packet == "later" and not r.services)

    near = ping("flannel", "pod to pod, same node")
    assert f"at {lesson.stream('same node'):.0f} Gbit/s" in says("04_same_node.ipynb")
    assert f"at {near:.0f} µs: {near / 1000:.3f} ms" in says("04_same_node.ipynb")
    far = [ping(network, "pod to pod, other node") for network in ("flannel-host-gw", "flannel")]
    assert f"takes {far[0]:.0f} µs by routes and {far[1]:.0f} µs through VXLAN" in says(
        "05_across_nodes.ipynb"
    )


def test_names_are_compared_on_the_same_way() -> None:
    long = "http://backend.default.svc.cluster.local"
    found = cells(lesson.names("http://backend", long, long + "."))
    short, full, dotted = (found[name] for name in ("backend", long[7:], long[7:] + "."))
    assert short == dotted
    assert [short[0], full[0]] == ["2", "8"]
    assert float(full[2]) == pytest.approx(4 * float(short[2]), rel=0.1)


def test_looking_up_again_asks_again() -> None:
    assert cells(lesson.lookups(5)) == {
        "looks the name up for each request": ("10",),
        "keeps one connection open for all": ("2",),
    }


def test_a_card_changes_only_what_goes_to_another_node() -> None:
    near, far = (row[1:] for row in lesson.cables(1_000, 40_000).rows)
    assert near[0] == near[1]
    assert "wire" in far[0]
    assert "processor" in far[1]


def test_the_race_says_where_it_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubenet_lab.twin.unavailable", lambda: "no kernel here")
    found = lesson.race()
    assert repr(found) == (
        "In the recorded run, fastest first: to itself; to a neighbour; to another node. "
        "That is the same order as the prices say."
    )
    turned = lesson.Race("here", {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.0})
    assert "b; a. That is another order than the prices say" in repr(turned)
