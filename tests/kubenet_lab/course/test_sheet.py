"""An exercise on the desk: it judges, hints in three steps, and never shows more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubenet_lab.course.answers import Progress
from kubenet_lab.course.sheet import DO, PREDICT, Choice, Exercise, Finding, NotSolved, Sheet, prose, sheet
from kubenet_lab.errors import InputError

HINTS = ("one", "two", "three")


def _predict(**changed: Any) -> Exercise:
    fields: dict[str, Any] = {
        "id": "00-x",
        "kind": PREDICT,
        "title": "Where to?",
        "task": "Which `address`?",
        "judge": lambda answer: Finding(answer == "b", "it went to b" if answer == "b" else "a is asleep"),
        "hints": HINTS,
        "choices": (Choice("a", "address A"), Choice("b", "address B")),
    }
    return Exercise(**{**fields, **changed})


def _desk(exercise: Exercise) -> Sheet:
    return Sheet(exercise, Progress(None))


def test_no_answer_is_to_do_and_not_an_error() -> None:
    result = _desk(_predict()).check()
    assert (result.status, result.passed) == ("to do", False)


def test_a_wrong_answer_gets_its_own_reason_and_not_the_solution() -> None:
    result = _desk(_predict()).check("a")
    assert result.status == "wrong"
    assert "a is asleep" in str(result)
    assert "b" not in result.text


def test_a_right_answer_passes_and_is_kept() -> None:
    desk = _desk(_predict())
    assert desk.check("b").passed
    assert (desk.status, desk.entry.answer, desk.recheck()) == ("solved", "b", desk.recheck())


def test_an_unknown_choice_names_the_known_ones() -> None:
    assert "a, b" in _desk(_predict()).check("c").text


def test_hints_come_one_by_one_and_end_at_the_third() -> None:
    desk = _desk(_predict())
    assert [desk.hint() for _ in range(4)] == [
        "Hint 1 of 3: one",
        "Hint 2 of 3: two",
        "Hint 3 of 3: three",
        "Hint 3 of 3: three",
    ]


def test_an_answer_that_cannot_be_read_is_not_yet_right_and_says_why() -> None:
    def judge(answer: Any) -> Finding:
        raise InputError("line 3 is no route")

    result = _desk(_predict(judge=judge)).check("a")
    assert (result.status, "line 3 is no route" in result.text) == ("wrong", True)


def test_a_fault_of_the_judge_is_not_swallowed() -> None:
    def judge(answer: Any) -> Finding:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _desk(_predict(judge=judge)).check("a")


def test_a_text_left_as_it_was_is_to_do() -> None:
    desk = _desk(_predict(kind=DO, choices=(), template="on node-1\n"))
    assert desk.check("on node-1").status == "to do"


def test_both_parts_are_needed_where_both_are_asked() -> None:
    desk = _desk(_predict(template="# mend"))
    assert desk.check("b").status == "to do"
    assert desk.check({"choice": "b", "text": ""}).status == "to do"


def test_strict_mode_raises_until_the_stored_answer_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "p.json"
    monkeypatch.setenv("KUBENET_PROGRESS", str(file))
    monkeypatch.setenv("KUBENET_STRICT", "1")
    with pytest.raises(NotSolved, match="no answer"):
        sheet(_predict())
    Progress(file).checked("00-x", "a", False)
    with pytest.raises(NotSolved, match="asleep"):
        sheet(_predict())
    Progress(file).checked("00-x", "b", True)
    assert sheet(_predict()).status == "solved"


def test_it_is_still_a_picture_without_a_kernel() -> None:
    bundle = _desk(_predict())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "address B" in bundle["text/html"]
    assert bundle["text/plain"] == "Predict · Where to? (00-x, to do)"


def test_prose_is_escaped() -> None:
    assert prose("a < b `x<y`\n\nc") == "a &lt; b <code>x&lt;y</code><br><br>c"
    assert (
        prose("calls *to* it, `*all*`, *:80 and *:81")
        == "calls <em>to</em> it, <code>*all*</code>, *:80 and *:81"
    )


def test_an_exercise_without_anything_to_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to answer with"):
        _predict(choices=())
