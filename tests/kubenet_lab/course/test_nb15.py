"""15_other_services: what the judges accept and refuse, and what the tables show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb15
from kubenet_lab.course.lessons.nb15 import (
    SLICE,
    both_families,
    families,
    five,
    nearness,
    published,
    stickiness,
    unready,
)
from kubenet_lab.course.lessons.nb15 import database_names as names
from kubenet_lab.scenarios import kinds
from kubenet_lab.views.service_kinds import kinds_svg

GOOD = SLICE % ("legacy", "http", 80, "203.0.113.10")


def test_a_slice_by_hand() -> None:
    assert nb15.BY_HAND.judge(GOOD).passed
    assert nb15.BY_HAND.judge(GOOD.replace("legacy-1", "anything")).passed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SLICE % ("legacy", "web", 80, "203.0.113.10"), "refused"),
        (SLICE % ("other", "http", 80, "203.0.113.10"), "No EndpointSlice says"),
        (SLICE % ("legacy", "http", 8080, "10.244.0.3"), "answered, but by"),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: legacy}\nspec: {ports: [{port: 80}]}\n",
            "is to stay as it is",
        ),
    ],
)
def test_what_is_still_wrong_is_named(text: str, says: str) -> None:
    found = nb15.BY_HAND.judge(text)
    assert not found.passed
    assert says in found.text


def test_each_false_cause_is_contradicted() -> None:
    for cause in nb15.CAUSES:
        assert nb15.FIND_IT.judge({"choice": cause, "text": GOOD}).passed == (cause == "name")
    port = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: legacy}\nspec:\n  ports: [{name: web, port: 80}]\n"
    )
    assert nb15.FIND_IT.judge({"choice": "name", "text": port}).passed, "the Service may change as well"


def test_five_services_side_by_side() -> None:
    found = five(kinds())
    assert [one.rules > 0 for one in found.kinds] == [True, True, True, False, False]
    assert [one.well for one in found.kinds] == [True, True, True, False, True]
    assert found.kinds[3].outcome == "refused on port 80"
    picture = kinds_svg(found)
    assert picture.count("none at all") == 2
    assert "externalName:" in picture


def test_names_of_a_stateful_set_follow_readiness() -> None:
    world = kinds()
    assert [row[0] for row in names(world).rows if row[2] != "no-such-name"] == [
        "db",
        "db-0.db",
        "db-1.db",
        "db-2.db",
    ]
    unready(world, "db-2")
    assert names(world).rows[3][2] == "no-such-name"
    published(world, "db")
    assert names(world).rows[3][2] == world.store.get("Pod", "db-2", "default").ips[0]


def test_nearness_affinity_and_families() -> None:
    rows = {row[0]: row[1:] for row in nearness().rows}
    assert rows["nothing"][0].count("web-") == 3
    for wish in ("trafficDistribution: PreferSameZone", "trafficDistribution: PreferSameNode"):
        assert rows[wish][0] == "web-1: 24"
        assert "web-2" in rows[wish][1]
    assert rows["internalTrafficPolicy: Local"] == ("web-1: 24", "timed out: 24")
    sticky = stickiness().rows
    assert all(row[2].count("web-") == 1 for row in sticky)
    assert sticky[0][2] == sticky[1][2] != sticky[2][2]
    assert families().rows[2][1].startswith("refused")
    assert all(row[4].count("web-") == 3 for row in both_families().rows), "each family reaches all pods"
