"""Exercises: *predict* (choose, then watch), *do* (change something until a goal holds), *find* (name the cause,
mend it).

An `Exercise` is a value; its judge runs the model and says what it found, so every way that works is right. A
`Sheet` is an exercise on a learner's desk: it checks, gives hints one at a time, and keeps the answer in the
progress file.

Nothing here knows a solution: the answers the tests use are kept with the tests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.course.answers import PASSED, Entry, Progress, place
from kubenet_lab.errors import KubenetLabError, NotFound

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

STRICT = "KUBENET_STRICT"
"""Environment variable: set to 1, an exercise that is not solved raises NotSolved. For tests of solved notebooks."""

PREDICT, DO, FIND = "predict", "do", "find"
KINDS = {PREDICT: "Predict", DO: "Do", FIND: "Find"}

CHOICE, TEXT = "choice", "text"
"""What is asked for. An exercise that asks for both takes {"choice": ..., "text": ...}."""


class NotSolved(AssertionError):
    """Raised in strict mode by an exercise that is not solved."""


class Choice(Struct, frozen=True):
    """One answer to choose: `key` is what is stored, `text` what the learner reads."""

    key: str
    text: str


class Finding(Struct, frozen=True):
    """What a judge found by running the model.

    `text` says what happened and why; where the exercise is not solved it says what is still wrong, and no more.
    `evidence` is anything with `_repr_html_` (a trip, a table): the model's own trace.
    """

    passed: bool
    text: str
    evidence: Any = None


class Exercise(Struct, frozen=True, kw_only=True):
    """One exercise.

    Attributes:
        id: "05-routes": the notebook's number, then a name.
        kind: PREDICT, DO or FIND.
        title, task: What the learner reads; `code` in backticks, a blank line between paragraphs.
        judge: Runs the model on an answer. May raise KubenetLabError for an answer that cannot be read.
        hints: Three, each one step further; none gives the answer away.
        choices: Answers to choose from; empty when the learner writes.
        template: What the text field begins with; "" with no text field.
        world: Builds the world the exercise is about, broken where something is to be found.
    """

    id: str
    kind: str
    title: str
    task: str
    judge: Callable[[Any], Finding]
    hints: tuple[str, str, str]
    choices: tuple[Choice, ...] = ()
    template: str = ""
    world: Callable[[], Cluster] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind {self.kind!r} is none of {', '.join(KINDS)}")
        if not self.choices and not self.template:
            raise ValueError(f"{self.id}: nothing to answer with: give choices, a template, or both")

    @property
    def asks(self) -> tuple[str, ...]:
        """What an answer consists of: CHOICE, TEXT, or both."""
        return (CHOICE,) * bool(self.choices) + (TEXT,) * bool(self.template)

    def complete(self, answer: Any) -> str:
        """Return what is missing before an answer can be judged, "" when nothing is."""
        if answer is None or answer is ...:
            return "Choose an answer first." if CHOICE in self.asks else "Write your answer first."
        if len(self.asks) == 2:
            if not isinstance(answer, Mapping):
                return 'The answer has two parts: {"choice": ..., "text": ...}.'
            for part in self.asks:
                if not answer.get(part):
                    return "Choose a cause first." if part == CHOICE else "Write how to mend it, too."
            choice = answer[CHOICE]
        else:
            choice = answer if self.choices else None
        keys = [c.key for c in self.choices]
        if choice is not None and choice not in keys:
            return f"{choice!r} is not one of the answers: {', '.join(keys)}."
        if self.asks == (TEXT,) and isinstance(answer, str) and answer.strip() == self.template.strip():
            return "Change the text first: it is still as you found it."
        return ""


class Result(Struct, frozen=True):
    """The judge's words on one answer. `status` is "passed", "wrong" or "to do"."""

    exercise: str
    status: str
    text: str
    evidence: Any = None

    @property
    def passed(self) -> bool:
        """True when the exercise is solved."""
        return self.status == PASSED

    def __str__(self) -> str:
        return f"{_SIGNS[self.status]} {self.text}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return result_html(self)


_SIGNS = {PASSED: "✓ Right.", "wrong": "✕ Not yet.", "to do": "○ To do."}
_COLOURS = {PASSED: "#00805c", "wrong": "#c94a00", "to do": "#6b7785"}


def result_html(result: Result, *, evidence: bool = True) -> str:
    """Return the judge's words as HTML, the model's own trace folded beneath them."""
    sign = _SIGNS[result.status]
    html = (
        f'<div role="status" style="border-left:4px solid {_COLOURS[result.status]};padding:2px 12px;margin:6px 0">'
        f"<b>{sign}</b> {prose(result.text)}"
    )
    shown = getattr(result.evidence, "_repr_html_", None)
    if evidence and shown is not None:
        html += f"<details><summary>What the model did</summary>{shown()}</details>"
    return html + "</div>"


def prose(text: str) -> str:
    """Return text as HTML: `code` in backticks, *stress* on one word, paragraphs and line breaks as they are."""
    parts = escape(text, quote=False).split("`")
    marked = "".join(
        f"<code>{part}</code>" if number % 2 else re.sub(r"\*([A-Za-z]+)\*", r"<em>\1</em>", part)
        for number, part in enumerate(parts)
    )
    return marked.replace("\n\n", "<br><br>").replace("\n", "<br>")


def _complaint(error: KubenetLabError) -> str:
    """Return what is wrong with an answer, line by line of the text field."""
    faults = getattr(error, "faults", ())
    if not any(fault.line for fault in faults):
        return str(error)
    rows = (f"line {f.line}: {f.message}" + (f"\n({f.help})" if f.help else "") for f in faults)
    return "\n".join(rows)


class Sheet:
    """An exercise on a learner's desk. A notebook shows it as a panel; `check` and `hint` do the same in code."""

    def __init__(self, exercise: Exercise, progress: Progress) -> None:
        self.exercise = exercise
        self.progress = progress
        self._panel: Any = None

    @property
    def entry(self) -> Entry:
        """How the exercise stands."""
        return self.progress.entry(self.exercise.id)

    def world(self) -> Cluster:
        """Return the world the exercise is about, fresh; yours to look at and to change.

        Raises NotFound when the exercise has none.
        """
        if self.exercise.world is None:
            raise NotFound("world of exercise", self.exercise.id)
        return self.exercise.world()

    def check(self, answer: Any = None) -> Result:
        """Judge an answer by running the model, and keep it. In strict mode raises NotSolved unless it passes."""
        missing = self.exercise.complete(answer)
        if missing:
            result = Result(self.exercise.id, "to do", missing)
        else:
            result = self._judge(answer)
            if isinstance(answer, str | Mapping):
                self.progress.checked(self.exercise.id, answer, result.passed)
        if strict() and not result.passed:
            raise NotSolved(f"{self.exercise.id}: {result}")
        return result

    def _judge(self, answer: Any) -> Result:
        try:
            found = self.exercise.judge(answer)
        except KubenetLabError as fault:
            found = Finding(False, f"That cannot be read or done:\n{_complaint(fault)}")
        return Result(self.exercise.id, PASSED if found.passed else "wrong", found.text, found.evidence)

    def recheck(self) -> Result | None:
        """Judge the stored answer again, without counting a try; None when there is none."""
        answer = self.entry.answer
        return None if answer is None or self.exercise.complete(answer) else self._judge(answer)

    def hint(self) -> str:
        """Return the next hint; after the third, the third again."""
        count = min(self.entry.hints + 1, len(self.exercise.hints))
        self.progress.hinted(self.exercise.id, count)
        return f"Hint {count} of {len(self.exercise.hints)}: {self.exercise.hints[count - 1]}"

    def again(self) -> None:
        """Forget the answer and the hints."""
        self.progress.forget(self.exercise.id)

    @property
    def status(self) -> str:
        """How it stands, in words."""
        entry = self.entry
        return {PASSED: "solved", "tried": "tried", "new": "to do"}[entry.status]

    def __repr__(self) -> str:
        return f"{KINDS[self.exercise.kind]} · {self.exercise.title} ({self.exercise.id}, {self.status})"

    def html(self) -> str:
        """Return the exercise as still HTML: what it asks, and how it stands."""
        exercise = self.exercise
        answers = "".join(f"<li>{prose(choice.text)}</li>" for choice in exercise.choices)
        choices = f"<ul>{answers}</ul>" if answers else ""
        text = f"<pre>{escape(exercise.template)}</pre>" if exercise.template else ""
        return (
            '<div style="border:1px solid #8a94a0;border-radius:8px;padding:8px 14px;max-width:960px">'
            f"<b>{KINDS[exercise.kind]} · {escape(exercise.title)}</b> <i>({self.status})</i><br>"
            f"{prose(exercise.task)}{choices}{text}"
            "<small>Run this cell to answer.</small></div>"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        from kubenet_lab.widgets.exercise import ExercisePanel

        if self._panel is None:
            self._panel = ExercisePanel(self)
        found = self._panel._repr_mimebundle_(**kwargs)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        return {**data, "text/plain": repr(self), "text/html": self.html()}


def strict() -> bool:
    """Return True when an unsolved exercise is to raise."""
    return os.environ.get(STRICT, "") not in ("", "0")


_open: dict[str, Progress] = {}


def progress_file() -> Progress:
    """Return the workspace's progress."""
    path = place()
    key = str(path)
    if key not in _open:
        _open[key] = Progress(path)
    return _open[key]


def sheet(exercise: Exercise) -> Sheet:
    """Lay an exercise on the desk. In strict mode the stored answer must pass, else NotSolved is raised."""
    made = Sheet(exercise, progress_file())
    if strict():
        result = made.recheck()
        if result is None or not result.passed:
            raise NotSolved(f"{exercise.id}: {result or 'no answer in the progress file'}")
    return made
