"""The panel of an exercise: what a click does, without a browser."""

from __future__ import annotations

from kubenet_lab.course.answers import Progress
from kubenet_lab.course.sheet import PREDICT, Choice, Exercise, Finding, Sheet
from kubenet_lab.widgets.exercise import ExercisePanel

EXERCISE = Exercise(
    id="00-x",
    kind=PREDICT,
    title="Where to?",
    task="Which address?",
    judge=lambda answer: Finding(answer == "b", f"you said {answer}"),
    hints=("one", "two", "three"),
    choices=(Choice("a", "A"), Choice("b", "B")),
)


def test_clicks_check_hint_and_begin_again() -> None:
    progress = Progress(None)
    panel = ExercisePanel(Sheet(EXERCISE, progress))
    assert panel.choice.value == ""
    panel.check_button.click()
    assert "Choose an answer first" in panel.said.value
    panel.choice.value = "a"
    panel.check_button.click()
    assert "Not yet" in panel.said.value
    assert "you said a" in panel.said.value
    panel.hint_button.click()
    panel.hint_button.click()
    assert "Hint 2 of 3" in panel.told.value
    assert "three" not in panel.told.value
    panel.choice.value = "b"
    panel.check_button.click()
    assert "Right" in panel.said.value
    assert progress.entry("00-x").status == "passed"
    panel.again_button.click()
    assert progress.entry("00-x").status == "new"
    assert panel.said.value == ""


def test_a_kept_answer_is_there_again() -> None:
    progress = Progress(None)
    progress.checked("00-x", "b", True)
    panel = ExercisePanel(Sheet(EXERCISE, progress))
    assert panel.choice.value == "b"
    assert "Right" in panel.said.value
