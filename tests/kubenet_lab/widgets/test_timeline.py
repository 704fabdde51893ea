"""The clock over a Service's seconds, without a browser."""

from __future__ import annotations

from kubenet_lab.course.exercises.nb10 import deleted
from kubenet_lab.course.lesson import clock
from kubenet_lab.widgets.timeline import rows


def test_the_clock_begins_where_something_is_done() -> None:
    made = clock(deleted())
    assert made.second == 3
    assert made.rows[3]["did"] == "kubectl delete pod"
    assert clock(deleted(), 7).second == 7


def test_each_second_says_what_slice_and_rules_say_and_what_was_felt() -> None:
    line = deleted()
    told = rows(line)
    assert len(told) == len(line.seconds)
    before, at, after = told[2], told[3], told[4]
    assert (before["late"], before["lost"], before["gone"]) == (False, 0, [])
    assert at["late"]
    assert at["lost"] == line.lost > 0
    assert len(at["gone"]) == 1
    assert (before["dead"], at["dead"], after["dead"]) == ([], at["gone"], [])
    assert (after["late"], after["lost"], after["gone"]) == (False, 0, [])
    fresh = next(pod for pod in at["pods"] if pod["state"] == "starting")
    assert (fresh["slice"], fresh["rules"]) == ("not ready", "not named")
    assert sum(at["calls"].values()) == len(line.seconds[3].calls)


def test_it_is_a_still_picture_without_a_kernel() -> None:
    bundle = clock(deleted())._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "<img src=" in data["text/html"]
    assert "0x" not in data["text/plain"]
