"""The matrix of workloads says what the listing says, as a picture and as text."""

from __future__ import annotations

import re
from functools import cache

from kubenet_lab import manifests
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import CLUSTER, World
from kubenet_lab.scenarios.guarded import MANIFEST
from kubenet_lab.views.reach_matrix import (
    OUTSIDE,
    WIDTH,
    ReachMatrix,
    graph,
    matrix,
    reach_graph_svg,
    reach_matrix_svg,
)
from tests.kubenet_lab.policy.worlds import large
from tests.pictures.svg import boxed_faults, faults


@cache
def world() -> World:
    return World.from_objects(with_pods(manifests.load(MANIFEST)), conventions=CLUSTER)


def test_cells_and_words() -> None:
    found = matrix(world())
    assert found.names[-1] == OUTSIDE
    assert found.words("production/backend", "production/database-0") == "TCP 5432"
    assert found.words("production/frontend", "production/database-0") == "nothing"
    assert found.words("production/frontend", "production/report") == "everything"
    assert ("production/backend", "production/backend") not in found.cells
    assert "from production/frontend\n" in str(found)
    assert len(found.rows()) == len(found.cells)
    assert "<caption>" in found.html()


def test_the_picture_holds_all_its_words() -> None:
    opened = matrix(world().with_policies([]))
    for svg in (reach_matrix_svg(matrix(world())), reach_matrix_svg(matrix(world()), opened)):
        assert not faults(svg)
        assert not boxed_faults(svg)
    label = "from production/frontend to production/database-0: nothing, was everything"
    assert label in reach_matrix_svg(matrix(world()), opened)


def test_the_graph_tells_how_far_an_attacker_gets() -> None:
    before = graph(world().with_policies([]), "production/frontend")
    after = graph(world(), "production/frontend")
    assert "Out of reach: none." in before.alt
    assert "production/backend:8080/TCP -> production/database-0:5432/TCP" in after.alt
    assert "reached in 1 step<" in before.svg
    assert "reached in 2 steps<" not in before.svg
    assert "reached in 2 steps<" in after.svg
    for picture in (before, after, graph(world())):
        assert not faults(picture.svg)


def test_no_arrow_runs_through_or_along_a_third_box() -> None:
    """Eight workloads of which each may talk to each, as the shop's without policies."""
    names = ("kube-system/coredns", "production/backend", "production/database-0", "production/database-1")
    names += ("production/frontend", "production/report", "staging/backend", OUTSIDE)
    pairs = {(one, other): "All Connections" for one in names for other in names if one != other}
    svg = reach_graph_svg(ReachMatrix(names, pairs))
    number = r"(-?[\d.]+)"
    shown = re.findall(rf'<rect x="{number}" y="{number}" width="{number}" height="{number}" rx="6"', svg)
    lines = re.findall(rf'd="M{number} {number}L{number} {number}" class="nof', svg)
    assert (len(shown), len(lines)) == (len(names), len(pairs))
    for x, y, width, height in (map(float, one) for one in shown):
        assert 0 <= x < x + width <= WIDTH
        beside = []
        for ax, ay, bx, by in (map(float, one) for one in lines):
            ends = ((ax, ay), (bx, by))
            if any(x - 12 <= ex <= x + width + 12 and y - 12 <= ey <= y + height + 12 for ex, ey in ends):
                continue  # begins or ends here
            at = [(ax + (bx - ax) * n / 200, ay + (by - ay) * n / 200) for n in range(201)]
            beside += [p for p in at if x - 4 < p[0] < x + width + 4 and y - 4 < p[1] < y + height + 4]
        assert not beside


def test_a_large_world_is_drawn_too() -> None:
    found = matrix(large(12, 6))
    assert not faults(reach_matrix_svg(found))
