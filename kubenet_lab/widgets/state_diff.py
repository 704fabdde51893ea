"""What an action changed, with a choice of moments to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from kubenet_lab.views.state_diff import SIGNS, Change, changes, state_diff_html, state_diff_text
from kubenet_lab.widgets.base import Widget, script


class StateDiff(Widget):
    """Compares two of several moments: dumps of a network (`kubenet_lab.kernel.dump.dump`), or texts.

    Args:
        moments: (label, dump or text) pairs, in order of time; at least two, all of one sort.
        before, after: Which two are compared first, as indices; by default the first and the last.
    """

    _esm = script("state_diff")
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    before = traitlets.Int(0).tag(sync=True)
    after = traitlets.Int(1).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)

    def __init__(
        self, moments: Sequence[tuple[str, Mapping[str, Any] | str]], *, before: int = 0, after: int = -1
    ) -> None:
        if len(moments) < 2:
            raise ValueError(f"two moments are needed to compare, {len(moments)} given")
        self._moments = list(moments)
        after = after % len(moments)
        self.changes: list[Change] = changes(moments[before][1], moments[after][1])
        super().__init__(
            labels=[label for label, _ in moments],
            before=before,
            after=after,
            rows=_rows(self.changes),
            words=state_diff_text(self.changes),
        )
        self.observe(self._compare, ["before", "after"])

    def _compare(self, _change: Any) -> None:
        self.changes = changes(self._moments[self.before][1], self._moments[self.after][1])
        with self.hold_trait_notifications():
            self.rows = _rows(self.changes)
            self.words = state_diff_text(self.changes)

    def still(self) -> str:
        """Return the comparison as tables."""
        return state_diff_html(self.changes)

    def describe(self) -> str:
        """Return what is compared and how much differs."""
        names = f"{self._moments[self.before][0]} and {self._moments[self.after][0]}"
        return f"StateDiff({names}: {len(self.changes)} changes)"


def _rows(found: Sequence[Change]) -> list[dict[str, str]]:
    return [
        {name: getattr(c, name) for name in Change.__struct_fields__} | {"sign": SIGNS[c.word]} for c in found
    ]
