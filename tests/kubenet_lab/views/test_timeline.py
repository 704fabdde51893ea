"""A Service's seconds: what is late, what is dead, what is felt, in words and in the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kubenet_lab.control.replay import EndpointMoment, Moment, PodMoment
from kubenet_lab.course.exercises import nb10
from kubenet_lab.course.exercises.nb10 import HOOK, PROBE
from kubenet_lab.views.timeline import (
    ENDING,
    PENDING,
    READY,
    STARTING,
    UNREADY,
    Call,
    Second,
    Shares,
    TimeLine,
    lanes,
    shares_svg,
    state_of,
    timeline_svg,
)


def pod(
    name: str, state: str = "Running", ready: bool = True, ip: str = "10.0.0.1", restarts: int = 0
) -> PodMoment:
    return PodMoment(name, state, ready, "node-1", ip, "shop/backend:1.0", restarts)


def second(
    number: int, *pods: PodMoment, rules: tuple[str, ...] = (), calls: tuple[Call, ...] = ()
) -> Second:
    ends = tuple(EndpointMoment("s", p.ip, p.name, p.ready, p.ready, False) for p in pods)
    return Second(Moment(float(number), pods, ends, (), tuple((ip, 1 / len(rules)) for ip in rules)), calls)


def line(*seconds: Second) -> TimeLine:
    return TimeLine("backend", "node-1", "frontend", seconds)


@pytest.mark.parametrize(
    ("given", "was_ready", "word"),
    [
        (pod("a"), False, READY),
        (pod("a", ready=False), False, STARTING),
        (pod("a", ready=False), True, UNREADY),
        (pod("a", ready=False, restarts=1), False, UNREADY),
        (pod("a", "Pending", False), False, PENDING),
        (pod("a", "Terminating"), True, ENDING),
    ],
)
def test_a_state_is_a_word(given: PodMoment, was_ready: bool, word: str) -> None:
    assert state_of(given, was_ready) == word


def test_lanes_follow_pods_rules_and_restarts() -> None:
    found = lanes(
        line(
            second(0, pod("web-a"), rules=("10.0.0.1",)),
            second(1, pod("web-a", ready=False), rules=("10.0.0.1",)),
            second(2, pod("web-a", restarts=1), pod("web-b", ready=False, ip="10.0.0.2"), rules=()),
            second(3, pod("web-b", ip="10.0.0.2"), rules=("10.0.0.2",)),
        )
    )
    assert [lane.pod.name for lane in found] == ["web-a", "web-b"]
    assert [(b.state, b.begin, b.end) for b in found[0].bars] == [
        (READY, 0, 1),
        (UNREADY, 1, 2),
        (READY, 2, 3),
    ]
    assert [(b.state, b.begin, b.end) for b in found[1].bars] == [(STARTING, 2, 3), (READY, 3, 4)]
    assert found[0].named == (True, True, False, False)
    assert found[1].named == (False, False, False, True)
    assert (found[0].restarts, found[1].restarts) == ((2,), ())


def test_what_callers_saw_in_a_sentence() -> None:
    good, bad = Call("connected", "web-a"), Call("refused")
    assert line(second(0, calls=(good, good))).summary == "2 calls, all answered."
    told = line(second(0, calls=(good, bad)), second(1, calls=(bad, Call("timed out"))))
    assert told.summary == "4 calls, 1 answered, 3 not (2 refused, 1 timed out)."
    assert (told.lost, told.bad_seconds) == (3, [0, 1])
    assert line(second(0)).summary == "Nobody called."


def test_rules_that_are_late_are_said_to_be() -> None:
    late = timeline_svg(line(second(0, pod("web-a"), rules=("10.0.0.9",))))
    assert "1, late" in late
    assert "late" not in timeline_svg(line(second(0, pod("web-a"), rules=("10.0.0.1",))))


@pytest.mark.parametrize(
    ("extra", "lost", "late"),
    [((), [2, 3, 4, 5], [2]), ((PROBE,), [6, 10, 14], [6, 10, 14]), ((PROBE, HOOK), [], [6, 10, 14])],
    ids=["no probe", "probe", "probe and hook"],
)
def test_a_rolling_update_is_felt_as_its_template_lets(
    extra: tuple[str, ...], lost: list[int], late: list[int]
) -> None:
    found = nb10.rolled(*extra)
    assert found.bad_seconds == lost
    assert [s.moment.second for s in found.seconds if s.ready != s.named] == late
    assert {p.image for p in found.seconds[-1].moment.pods} == {"shop/backend:2.0"}
    # A call fails only in a second in which the rules name an address where nobody answers.
    assert {s.moment.second for s in found.seconds if s.named & s.dead} >= set(lost)
    picture = timeline_svg(found)
    ET.fromstring(picture)
    assert picture == timeline_svg(nb10.rolled(*extra))
    assert ("and nobody answers there" in picture) == bool(lost)


def test_every_second_is_told_and_can_be_pointed_at() -> None:
    found = nb10.deleted()
    root = ET.fromstring(timeline_svg(found))
    hits = [node for node in root.iter() if node.get("data-second") is not None]
    assert [int(node.get("data-second") or "") for node in hits] == [*range(len(found.seconds))]
    assert all((node.get("aria-label") or "").startswith("second ") for node in hits)


@pytest.mark.parametrize("seconds", [1, 5, 60])
def test_any_length_is_well_formed(seconds: int) -> None:
    ET.fromstring(timeline_svg(line(*(second(n, pod("web-a")) for n in range(seconds)))))


def test_shares_are_drawn_to_one_scale() -> None:
    ET.fromstring(shares_svg(Shares({"one": {"web-a": 10, "web-b": 0}, "two": {"web-a": 5}})))
    ET.fromstring(shares_svg(Shares({"nothing": {"web-a": 0}})))
