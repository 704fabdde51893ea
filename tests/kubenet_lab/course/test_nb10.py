"""10_why_services: what the judges accept and refuse, and what the scenes show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb10
from kubenet_lab.course.exercises.nb10 import HOOK, PROBE, deployment

QUICK = "\n        readinessProbe:\n          tcpSocket: {port: 8080}\n          periodSeconds: 1"
STARTUP = """
        startupProbe:
          tcpSocket: {port: http}
          periodSeconds: 1
          failureThreshold: 9"""
SHELL = "\n        lifecycle:\n          preStop:\n            exec: {command: [sh, -c, sleep 3]}"


def rollout(text: str) -> tuple[bool, str]:
    found = nb10.ROLLOUT.judge(text)
    return found.passed, found.text


@pytest.mark.parametrize(
    "extra",
    [(PROBE, HOOK), (QUICK, HOOK), (STARTUP, HOOK), (PROBE, SHELL)],
    ids=["probe", "quick", "startup", "exec"],
)
def test_every_way_that_loses_no_call_is_right(extra: tuple[str, ...]) -> None:
    passed, text = rollout(deployment("1.0", *extra))
    assert passed, text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (deployment("1.0"), "callers felt it"),
        (deployment("1.0", PROBE), "timed out"),
        (deployment("1.0", HOOK), "refused"),
        (
            deployment("1.0", PROBE, HOOK).replace(
                "rollingUpdate: {maxSurge: 1, maxUnavailable: 0}", "type: Recreate"
            ),
            "callers felt it",
        ),
        (deployment("1.0", PROBE.replace("Seconds: 2", "Seconds: 70"), HOOK), "not done"),
        (deployment("1.0", PROBE, HOOK).replace("replicas: 3", "replicas: 1"), "not done"),
        (deployment("1.0", PROBE, HOOK).replace("name: backend", "name: other", 1), "has to be one object"),
    ],
    ids=["nothing", "no hook", "no probe", "recreate", "too slow", "too few", "another"],
)
def test_what_loses_a_call_is_told_so(text: str, says: str) -> None:
    passed, said = rollout(text)
    assert not passed
    assert says in said


def test_each_wrong_cause_is_contradicted_by_a_sign() -> None:
    mend = nb10._SERVICE % ("backend", 8080)
    for cause in ("unready", "port", "scaled"):
        found = nb10.FIND_IT.judge({"choice": cause, "text": mend})
        assert not found.passed
        assert found.text.startswith("With that cause")
    assert nb10.FIND_IT.judge({"choice": "selector", "text": mend}).passed
    wrong = nb10.FIND_IT.judge({"choice": "selector", "text": nb10._SERVICE % ("backend", 9)})
    assert "does not help" in wrong.text


def test_a_crash_keeps_the_address_and_a_deletion_does_not() -> None:
    first, crashed, deleted = nb10.addresses().rows
    assert crashed[1:] == (first[1], first[2], "1")
    assert deleted[1] != first[1]
    assert deleted[2] != first[2]


def test_a_silent_program_is_found_out_by_its_probe_alone() -> None:
    probed, plain = nb10.silent(PROBE), nb10.silent(seconds=16, back=12)
    # Probes at 4, 6 and 8 fail; the rules follow at 9.
    assert max(probed.bad_seconds) == 8
    assert max(plain.bad_seconds) == 11
    assert all(len(s.ready) == 3 for s in plain.seconds)


def test_a_relabelled_pod_is_replaced_and_nobody_feels_it() -> None:
    line = nb10.relabelled()
    assert line.lost == 0
    assert len({pod.name for s in line.seconds for pod in s.moment.pods}) == 4


def test_open_connections_stay_where_they_are() -> None:
    kept, fresh = nb10.shared().parts.values()
    assert sum(n for pod, n in kept.items() if pod.endswith("new")) == 0
    assert sum(kept.values()) == sum(fresh.values()) == 600
    assert min(fresh.values()) > 50
    rows = nb10.left_behind().rows
    assert rows[0][2].startswith("answered")
    assert {row[2] for row in rows[1:]} == {"timed out"}
