"""Answers of a real CoreDNS 1.15, question by question."""

from __future__ import annotations

import pytest

from tests.kubenet_lab.dns.answers import Judge, server
from tests.oracles import cases, open_case

RANDOM = {
    "autopath": ("src", "10.244.1.75"),  # two pods have this address, and CoreDNS takes either
    "forward-two-random": ("name", "whoami.up."),  # which upstream is asked
}
"""Rows whose answer the real server draws: they are held against every answer it gave to that question."""
COREFILES = [name.removeprefix("answers-") for name in cases("dns", "answers-")]


@pytest.mark.parametrize("name", COREFILES)
def test_every_answer_is_the_recorded_one(name: str) -> None:
    corefile = open_case("dns", "corefiles")[name]
    wrong: list[str] = []
    rows = 0
    for world, recorded in open_case("dns", f"answers-{name}")["worlds"].items():
        judge = Judge(server(corefile, world))
        for row in recorded:
            if "raw" in row["query"]:
                continue
            rows += 1
            difference = judge.difference(row)
            if difference and name in RANDOM and row["query"].get(RANDOM[name][0]) == RANDOM[name][1]:
                others = [{**row, "response": each["response"]} for each in recorded]
                difference = difference if all(judge.difference(other) for other in others) else ""
            if difference:
                wrong.append(f"{world} {difference}")
    assert rows
    assert not wrong, f"{len(wrong)} of {rows} differ:\n" + "\n".join(wrong[:5])


SAME = [name for name in COREFILES if open_case("dns", f"answers-{name}").get("same_as_kubeadm")]
"""Corefiles with answers of which only that they are kubeadm's was written down."""


@pytest.mark.parametrize("name", SAME)
def test_answers_recorded_only_as_equal_to_kubeadms(name: str) -> None:
    """Where the recording of kubeadm's lacks the row, the model's own answer with kubeadm's stands in for it."""
    kubeadm = open_case("dns", "answers-kubeadm")["worlds"]["world-main"]
    known = {" ".join(str(value) for value in row["query"].values()): row for row in kubeadm}
    corefiles = open_case("dns", "corefiles")
    wrong: list[str] = []
    rows = 0
    for world, queries in open_case("dns", f"answers-{name}")["same_as_kubeadm"].items():
        judge, usual = Judge(server(corefiles[name], world)), Judge(server(corefiles["kubeadm"], world))
        for query in queries:
            row = known.get(query)
            words = query.split()
            if row is None and len(words) == 2:
                asked = {"query": {"name": words[0], "type": words[1]}}
                row = {**asked, "response": usual.answer(asked)}
            if row is not None and "raw" not in row["query"]:
                rows += 1
                wrong += filter(None, [judge.difference(row)])
    assert rows
    assert not wrong, f"{len(wrong)} of {rows} differ:\n" + "\n".join(wrong[:5])
