"""How a pod gets its network, and loses it, step by step: who acts, the command, what changed, and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import traitlets

from kubenet_lab.views.cni_steps import (
    Step,
    cni_state_svg,
    cni_steps_html,
    cni_steps_text,
    slots_of,
)
from kubenet_lab.views.state_diff import SIGNS, Change
from kubenet_lab.widgets.base import Widget, script


class CniStepper(Widget):
    """Walks a reader through a pod's start or end: forward, back, jump; by mouse, arrow keys, Home and End.

    Args:
        steps: The steps (`views.cni_steps.cni_steps`).
        headline: What it is about.
        step: The step to begin with, from 0.
    """

    _esm = script("cni_stepper")
    headline = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)

    def __init__(self, steps: Sequence[Step], headline: str = "", step: int = 0) -> None:
        if not steps:
            raise ValueError("there are no steps to show")
        self.steps = tuple(steps)
        slots = slots_of([one.state for one in steps])
        rows = []
        before = steps[0].state
        for one in steps:
            rows.append(_row(one, cni_state_svg(one.state, before, slots)))
            before = one.state
        super().__init__(headline=headline, rows=rows, step=step, words=cni_steps_text(steps, headline))

    def still(self) -> str:
        """Return the state at the end as a picture, and the steps as a table."""
        return cni_steps_html(self.steps, self.headline)

    def describe(self) -> str:
        """Return what it is about and how long it is."""
        return f"CniStepper({self.headline}: {len(self.steps)} steps)"


def _row(step: Step, svg: str) -> dict[str, Any]:
    return {
        "actor": step.actor,
        "depth": step.depth,
        "title": step.title,
        "told": step.told,
        "shell": step.shell,
        "failed": step.failed,
        "changes": [_change(c) for c in step.changes],
        "also": [_change(c) for c in step.also],
        "svg": svg,
    }


def _change(change: Change) -> dict[str, str]:
    fields = {name: getattr(change, name) for name in ("word", "where", "kind", "what", "was")}
    return fields | {"sign": SIGNS[change.word]}
