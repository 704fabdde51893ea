"""07_calico: what the judges accept and refuse, and what the tables show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb07
from kubenet_lab.course.lessons import nb07 as lesson

BY_NAME = nb07.TO_REFLECTORS.replace(f"has({nb07.LABEL})", "kubernetes.io/hostname == 'node-1'")
LABELLED = (
    "apiVersion: v1\nkind: Node\nmetadata:\n  name: node-1\n"
    f"  labels: {{{nb07.LABEL}: ''}}\n  annotations: {{{nb07.CLUSTER_ID}: 244.0.0.1}}\n"
)


@pytest.mark.parametrize("text", [BY_NAME, LABELLED], ids=["another-selector", "the-label-again"])
def test_every_remedy_that_helps_is_right(text: str) -> None:
    found = nb07.FOUND.judge({"choice": "label", "text": text})
    assert found.passed, found.text


@pytest.mark.parametrize(
    ("choice", "text", "says"),
    [
        ("label", nb07.TO_REFLECTORS, "0 BGP sessions stand"),
        ("label", nb07.MESH_OFF.replace("false", "true"), "3 BGP sessions stand"),
        ("bird", BY_NAME, "With that cause alone"),
        ("felix", BY_NAME, "With that cause alone"),
        ("mtu", BY_NAME, "With that cause alone"),
    ],
)
def test_what_is_still_wrong_is_named(choice: str, text: str, says: str) -> None:
    found = nb07.FOUND.judge({"choice": choice, "text": text})
    assert not found.passed
    assert says in found.text


def test_time_goes_on_after_a_session_is_given_up() -> None:
    world = nb07.walled()
    for _ in range(8):
        world.advance(39.7)
    assert nb07.sessions(world) == 1
    assert not nb07.call(world).delivered


def test_what_is_wrapped_up_and_where() -> None:
    found = {row[0]: row[1:] for row in lesson.wires().rows}
    assert [("none" in near, "none" in far) for near, far, _mtu in found.values()] == [
        (True, False),
        (False, False),
        (True, False),
        (False, False),
    ]
    assert [row[1].startswith("connected") for row in found.values()] == [False, True, True, True]
    assert [row[2] for row in found.values()] == ["1500", "1480", "1480", "1450"]


def test_reflectors_need_fewer_sessions_and_bring_the_same_routes() -> None:
    for nodes, full, two, routes in lesson.meshes(4, 6).rows:
        n = int(nodes)
        assert (int(full), int(two)) == (n * (n - 1) // 2, 2 * (n - 2) + 1)
        assert len(set(routes.split(" and "))) == 1
