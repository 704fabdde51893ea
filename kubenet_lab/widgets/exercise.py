"""The panel a learner answers an exercise in: a choice, a text, Check, Hint, and the judge's words beneath.

Everything is an ordinary form field, so Tab, arrow keys, space and Enter work, and a screen reader announces
the answer (`role="status"`). Without a running kernel the panel is still HTML: what the exercise asks.
"""

from __future__ import annotations

from html import escape
from typing import Any, Protocol

import ipywidgets as w

from kubenet_lab.widgets.choices import Choices
from kubenet_lab.widgets.guard import Guard


class Asked(Protocol):
    """What the panel needs of an exercise (`kubenet_lab.course.sheet.Exercise`)."""

    kind: str
    title: str
    task: str
    hints: tuple[str, str, str]
    choices: tuple[Any, ...]
    template: str


class OnDesk(Protocol):
    """What the panel needs of a sheet (`kubenet_lab.course.sheet.Sheet`)."""

    @property
    def exercise(self) -> Any:
        """The exercise."""

    @property
    def entry(self) -> Any:
        """How it stands."""

    def check(self, answer: Any = None) -> Any:
        """Judge an answer."""

    def recheck(self) -> Any:
        """Judge the stored answer again."""

    def hint(self) -> str:
        """Return the next hint."""

    def again(self) -> None:
        """Begin anew."""


STYLE = """<style>
.knl-exercise{border:1px solid var(--jp-border-color1,#8a94a0);border-left:6px solid #0072b2;border-radius:8px;
 padding:10px 16px 12px;margin:4px 0;max-width:980px;
 background:var(--jp-layout-color1,transparent)}
.knl-exercise .widget-html-content,.knl-exercise .jupyter-widgets-html-content{line-height:1.5}
.knl-exercise textarea{font-family:var(--jp-code-font-family,monospace);font-size:13px;line-height:1.45}
.knl-exercise button:focus-visible,.knl-exercise input:focus-visible,.knl-exercise textarea:focus-visible,
.knl-bench button:focus-visible{outline:3px solid #e69f00;outline-offset:1px}
.knl-exercise code{font-size:.93em}
.knl-exercise pre{white-space:pre-wrap}
.knl-bench .widget-toggle-buttons button{height:auto;min-height:32px}
.knl-bench .widget-toggle-buttons button.mod-active{box-shadow:inset 0 -3px 0 #0072b2;font-weight:bold}
.knl-exercise-done{border-left-color:#00805c}
</style>"""
"""The style sheet of panels; it follows JupyterLab's theme."""

_KINDS = {"predict": "Predict", "do": "Do", "find": "Find"}


class ExercisePanel(w.VBox):  # type: ignore[misc]
    """An exercise as a form. `sheet` judges, hints and remembers."""

    def __init__(self, sheet: OnDesk) -> None:
        from kubenet_lab.course.sheet import prose, result_html

        self._sheet = sheet
        self._prose, self._result_html = prose, result_html
        asked = sheet.exercise
        wide = w.Layout(width="auto", max_width="100%", overflow="visible")
        self.head = w.HTML(layout=wide)
        self.choice = Choices([(c.key, prose(c.text)) for c in asked.choices], asked.title)
        lines = asked.template.count("\n") + 1
        self.text = w.Textarea(
            value=asked.template,
            layout=w.Layout(width="auto", margin="0", height=f"{min(max(lines, 3), 16) * 20 + 18}px"),
            continuous_update=True,
        )
        self.check_button = w.Button(
            description="Check", button_style="primary", tooltip="Run the model on your answer"
        )
        self.hint_button = w.Button(description="Hint", tooltip="One hint at a time, three in all")
        self.again_button = w.Button(description="Start again", tooltip="Forget this answer and its hints")
        self.said = w.HTML(layout=wide)
        self.told = w.HTML(layout=wide)
        self.check_button.on_click(lambda _: self.check())
        self.hint_button.on_click(lambda _: self.hint())
        self.again_button.on_click(lambda _: self.again())
        fields: list[Any] = [self.head]
        fields += [self.choice] if asked.choices else []
        fields += [self.text] if asked.template else []
        buttons = w.HBox(
            [self.check_button, self.hint_button, self.again_button], layout=w.Layout(margin="6px 0 0")
        )
        super().__init__([*fields, buttons, self.told, self.said, Guard()], layout=w.Layout(width="auto"))
        self.add_class("knl-exercise")
        self._fill(sheet.entry.answer)
        kept = sheet.recheck()
        self._head()
        if kept is not None:
            self.said.value = self._result_html(kept)

    def __repr__(self) -> str:
        return f"<exercise panel: {self._sheet.exercise.id}>"

    @property
    def answer(self) -> Any:
        """What the form holds, in the shape the exercise wants; None while nothing is chosen."""
        asked = self._sheet.exercise
        if asked.choices and asked.template:
            return {"choice": self.choice.value or None, "text": self.text.value}
        return (self.choice.value or None) if asked.choices else self.text.value

    def _fill(self, answer: Any) -> None:
        asked = self._sheet.exercise
        parts = answer if isinstance(answer, dict) else {"choice": answer, "text": answer}
        if asked.choices and parts.get("choice") in [c.key for c in asked.choices]:
            self.choice.value = parts["choice"]
        if asked.template and isinstance(parts.get("text"), str):
            self.text.value = parts["text"]

    def _head(self) -> None:
        asked, entry = self._sheet.exercise, self._sheet.entry
        status = {"passed": "✓ solved", "tried": "tried, not solved yet"}.get(entry.status, "to do")
        self.head.value = (
            f'{STYLE}<div><b style="font-size:1.08em">{_KINDS[asked.kind]} · {escape(asked.title)}</b>'
            f' <span style="opacity:.75">({status})</span></div><div>{self._prose(asked.task)}</div>'
        )
        self.again_button.layout.display = "" if entry.attempts or entry.hints else "none"
        (self.add_class if entry.status == "passed" else self.remove_class)("knl-exercise-done")

    def check(self) -> None:
        """Judge what the form holds, as the button does."""
        self.said.value = "<i>Running the model…</i>"
        try:
            self.said.value = self._result_html(self._sheet.check(self.answer))
        except Exception as fault:
            # A panel that stays silent would leave the learner waiting; the kernel's log gets the traceback.
            self.said.value = (
                f"<b>The judge itself failed</b>, which is a fault of the course: {escape(repr(fault))}"
            )
            raise
        self._head()

    def hint(self) -> None:
        """Show the next hint beneath those already read."""
        self._sheet.hint()
        count = self._sheet.entry.hints
        given = self._sheet.exercise.hints[:count]
        self.told.value = "".join(
            f'<div style="margin:4px 0"><b>Hint {n} of 3:</b> {self._prose(text)}</div>'
            for n, text in enumerate(given, 1)
        )
        self.hint_button.disabled = count >= len(self._sheet.exercise.hints)
        self._head()

    def again(self) -> None:
        """Empty the form and forget the answer."""
        self._sheet.again()
        asked = self._sheet.exercise
        self.choice.value = ""
        self.text.value = asked.template
        self.said.value = self.told.value = ""
        self.hint_button.disabled = False
        self._head()
