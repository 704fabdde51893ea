"""All pairs at once give what the evaluator gives flow by flow, on every recorded world."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from kubenet_lab.policy.evaluate import table
from kubenet_lab.policy.world import CLUSTER, TABLE, Conventions
from kubenet_lab.reach import Reach
from tests.kubenet_lab.policy.worlds import differences, large, steps, tables, world_of
from tests.oracles import open_case


@pytest.mark.parametrize("kind", ["random-", "tiers-", "disagreements-", "edges-"])
def test_all_recorded_worlds(kind: str) -> None:
    for name in tables(kind):
        case = open_case("policy", name)
        world = world_of(case)
        assert [endpoint.name for endpoint in world.endpoints] == case["order"]
        got = Reach(world).table(case["probes"])
        want = case.get("expected") or case["correct"]
        assert not differences(case, got, want), f"{name}: {case['policies']}"


def test_every_cyclonus_step() -> None:
    found = steps()
    assert len(found) > 200
    for name, case in found:
        got = Reach(world_of(case)).table(list(case["expected"]))
        for probe, want in case["expected"].items():
            cells = {".": (".", "."), "I": ("X", "."), "E": (".", "X"), "B": ("X", "X")}
            for i, row in enumerate(got[probe]):
                assert [cells[cell][0] for cell in row] == list(want["ingress"][i]), (name, probe, i)
                assert [cells[cell][1] for cell in row] == list(want["egress"][i]), (name, probe, i)


@pytest.mark.parametrize(
    "conventions", [CLUSTER, Conventions(block_matches_pods=False), Conventions(family=6)]
)
def test_under_other_conventions_too(conventions: Conventions) -> None:
    for kind in ("random-", "tiers-"):
        for name in tables(kind)[::40]:
            case = open_case("policy", name)
            world = world_of(case, conventions)
            got, want = Reach(world).table(case["probes"]), table(world, case["probes"])
            assert not differences(case, got, want), name


@pytest.mark.parametrize("conventions", [TABLE, CLUSTER])
def test_an_edited_policy_gives_what_a_fresh_start_gives(conventions: Conventions) -> None:
    """The worlds of one seed share their pods' names, so their policies are put on one another's pods."""
    names = tables("random-")[::25]
    for before, after in pairwise(names):
        first = world_of(open_case("policy", before), conventions)
        world = first.with_policies([*first.policies[1:], *world_of(open_case("policy", after)).policies[:2]])
        case = open_case("policy", before)
        edited = Reach(first).with_policies(world.policies)
        fresh = Reach(replace(world, namespaces=first.namespaces))
        assert edited.table(case["probes"]) == fresh.table(case["probes"]), (before, after)


def test_a_large_world_in_classes_and_the_sum_of_its_cells() -> None:
    world = large(300, 60)
    reach = Reach(world)
    assert len(reach.index.classes) < len(world.endpoints)
    for probe, rows in reach.table(["80/TCP", "53/UDP", "8080/TCP"]).items():
        number, protocol = probe.split("/")
        counted = reach.count(reach.kind(int(number), protocol))
        assert counted == sum(row.count(".") for row in rows)
