"""Every exercise: the kept answer passes, so does every other way that works, and a wrong one hears its own reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab import scenarios
from kubenet_lab.course import commands
from kubenet_lab.course.answers import Progress
from kubenet_lab.course.desk import NOTEBOOKS, all_exercises, exercises_of, find
from kubenet_lab.course.exercises import nb05, nb12
from kubenet_lab.course.sheet import CHOICE, DO, FIND, KINDS, PREDICT, Exercise, Sheet
from kubenet_lab.errors import NotFound

SOLVED = {
    name: row["answer"]
    for name, row in json.loads(Path(__file__).with_name("solved.json").read_text())["exercises"].items()
}
ALL = {one.id: one for one in all_exercises()}
CHOSEN = [(one, choice.key) for one in ALL.values() if one.asks == (CHOICE,) for choice in one.choices]


def _check(name: str, answer: Any) -> Any:
    return Sheet(ALL[name], Progress(None)).check(answer)


def test_every_exercise_has_an_answer_and_no_answer_is_left_over() -> None:
    assert SOLVED.keys() == ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_the_kept_answer_passes(name: str) -> None:
    result = _check(name, SOLVED[name])
    assert result.passed, str(result)


@pytest.mark.parametrize(("exercise", "key"), CHOSEN, ids=lambda v: v if isinstance(v, str) else v.id)
def test_exactly_one_choice_is_right(exercise: Exercise, key: str) -> None:
    result = _check(exercise.id, key)
    assert result.passed == (key == SOLVED[exercise.id]), str(result)


@pytest.mark.parametrize("name", [one.id for one in ALL.values() if one.asks == (CHOICE,)])
def test_each_wrong_guess_hears_its_own_reason_and_never_the_answer(name: str) -> None:
    right = next(choice.text for choice in ALL[name].choices if choice.key == SOLVED[name])
    said = [_check(name, choice.key).text for choice in ALL[name].choices if choice.key != SOLVED[name]]
    if ALL[name].kind == PREDICT:
        assert len(set(said)) == len(said)
    for text in said:
        assert len(text) > 40
        assert right not in text


@pytest.mark.parametrize("name", ALL)
def test_hints_are_three_and_do_not_give_the_answer_away(name: str) -> None:
    exercise, answer = ALL[name], SOLVED[name]
    assert len(set(exercise.hints)) == 3
    if exercise.asks == (CHOICE,):
        wanted = [next(choice.text for choice in exercise.choices if choice.key == answer)]
        wanted = [
            sentence for sentence in wanted if " " in sentence
        ]  # a single word may be needed to ask at all
    else:
        text = answer if isinstance(answer, str) else answer["text"]
        wanted = [line.strip() for line in text.splitlines() if line.startswith(("ip", "bridge"))]
    for hint in exercise.hints:
        assert not any(line in hint for line in wanted)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_each_notebook_has_something_to_do_or_find(number: str) -> None:
    ours = exercises_of(number)
    assert {one.kind for one in ours} & {DO, FIND}
    assert all(one.id.startswith(number + "-") and one.kind in KINDS for one in ours)


def test_an_unknown_exercise_names_one_that_comes_close() -> None:
    with pytest.raises(NotFound, match="05-routes"):
        find("05-route")


# -- other ways that work, and ways that do not
# -----------------------------------------------------------------------

ROUTES = SOLVED["05-routes"]


@pytest.mark.parametrize(
    ("text", "passes", "says"),
    [
        pytest.param(ROUTES.replace("add", "replace"), True, "without a tunnel", id="replace-instead-of-add"),
        pytest.param(
            ROUTES.replace("10.244.1.0/24 via 192.168.1.20", "10.244.1.3/32 via 192.168.1.20"),
            True,
            "All 12",
            id="a-route-for-the-one-pod-that-is-called",
        ),
        pytest.param(
            re.sub(r"ip route add (10\.244\.\d\.0)/24 via", r"ip route add \1/25 via", ROUTES),
            True,
            "All",
            id="longer-prefix",
        ),
        pytest.param(
            ROUTES.rpartition("ip route add")[0], False, "The first that does not", id="one-route-missing"
        ),
        pytest.param(ROUTES.split("on node-2")[0], False, "of 12 calls", id="only-one-node"),
        pytest.param(ROUTES.replace("192.168.1.20", "192.168.1.1"), False, "of 12 calls", id="to-the-router"),
        pytest.param(
            ROUTES.replace("192.168.1.20", "10.244.1.3"), False, "Nexthop has invalid gateway", id="via-a-pod"
        ),
        pytest.param(
            "on node-7\nip route add 10.244.1.0/24 via 192.168.1.20",
            False,
            "there is no node",
            id="no-such-node",
        ),
    ],
)
def test_routes(text: str, passes: bool, says: str) -> None:
    result = _check("05-routes", text)
    assert (result.passed, says in result.text) == (passes, True), str(result)


def test_routes_may_be_made_in_a_world_of_ones_own() -> None:
    world = nb05.no_ways()
    assert not _check("05-routes", world).passed
    commands.apply(world.network, ROUTES)
    assert _check("05-routes", world).passed
    assert _check("05-routes", scenarios.shop()).passed, "the agent's own way works, too"


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (SOLVED["05-find"]["text"].replace("append", "add"), True),
        ("on node-3\nip route replace 10.244.0.0/24 via 192.168.1.10 dev eth0", True),
        (SOLVED["05-find"]["text"].replace("192.168.1.10", "192.168.1.20"), False),
        ("on node-3\nip route replace default via 192.168.1.1", False),
    ],
)
def test_any_remedy_that_helps_is_right(text: str, passes: bool) -> None:
    result = _check("05-find", {"choice": "fdb-3-1", "text": text})
    assert result.passed == passes, str(result)


@pytest.mark.parametrize("choice", ["fdb-1-3", "fdb-2-3", "not-listening"])
def test_a_remedy_without_the_cause_is_not_enough(choice: str) -> None:
    assert not _check("05-find", {"choice": choice, "text": SOLVED["05-find"]["text"]}).passed


def _share(*conditions: str) -> str:
    found = nb12.rules_of(scenarios.shop())
    lines = zip(conditions, found.endpoints, strict=True)
    return "\n".join(f"iptables -t nat -A {found.chain} {c} -j {one.chain}" for c, one in lines)


def _random(probability: str) -> str:
    return f"-m statistic --mode random --probability {probability}"


def _nth(every: int) -> str:
    return f"-m statistic --mode nth --every {every} --packet 0"


@pytest.mark.parametrize(
    ("text", "passes", "says"),
    [
        (_share(_random("0.3333333333"), _random("0.5"), ""), True, "33.3%, 33.3%, 33.3%"),
        (_share(_random("0.333"), _random("0.5"), ""), True, "Even"),
        (_share(_random("0.3333333333"), _random("0.5"), _random("1")), True, "Even"),
        (_share(_nth(3), _nth(2), ""), True, "1000, 1000, 1000"),
        (_share(_random("0.3333333333"), _nth(2), ""), True, "Even"),
        (_share(_random("0.33"), _random("0.50"), ""), False, "33.0%, 33.5%, 33.5%"),
        (_share(_random("0.33"), _random("0.33"), _random("0.33")), False, "30.1%"),
        (_share("", "", ""), False, "2 of the three backends never get a packet"),
        (_share(_random("0.5"), _random("0.5"), ""), False, "50.0%, 25.0%, 25.0%"),
        (_share(_random("1.5"), _random("0.5"), ""), False, "--probability"),
    ],
)
def test_sharing(text: str, passes: bool, says: str) -> None:
    result = _check("12-share", text)
    assert (result.passed, says in result.text) == (passes, True), str(result)


@pytest.mark.parametrize(
    ("line", "passes", "says"),
    [
        (SOLVED["12-find"]["text"], True, "mended"),
        (
            "on node-2\niptables -t nat -I KUBE-SERVICES -d 10.96.0.10 -j KUBE-SVC-TCOU7JCQXEZGVUNU",
            True,
            "mended",
        ),
        (
            "on node-2\niptables -t nat -I PREROUTING -d 10.96.0.10 -p udp --dport 53 -j DNAT --to 10.244.0.3",
            True,
            "mended",
        ),
        (SOLVED["12-find"]["text"].replace("node-2", "node-1"), False, "could not resolve"),
        (SOLVED["12-find"]["text"].replace("10.96.0.10/", "10.96.0.11/"), False, "could not resolve"),
        (
            SOLVED["12-find"]["text"].replace("KUBE-SVC-TCOU7JCQXEZGVUNU", "KUBE-SVC-NONE"),
            False,
            "KUBE-SVC-NONE",
        ),
    ],
)
def test_the_missing_line_may_be_any_that_leads_to_a_name_server(line: str, passes: bool, says: str) -> None:
    result = _check("12-find", {"choice": "dns-2", "text": line})
    assert (result.passed, says in result.text) == (passes, True), str(result)


@pytest.mark.parametrize("choice", ["dns-1", "backend-2", "listen-2"])
def test_another_cause_is_contradicted_by_what_can_be_seen(choice: str) -> None:
    assert (
        "With that cause alone"
        in _check("12-find", {"choice": choice, "text": SOLVED["12-find"]["text"]}).text
    )
