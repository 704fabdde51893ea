"""Four data planes side by side: choose who calls what, and compare what each of them does with the call."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import ipywidgets as w

from kubenet_lab.scenarios.planes import FourPlanes
from kubenet_lab.views.planes import Planes, planes_picture
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard

CALLERS = ("frontend", "node/node-1", "203.0.113.10")
TARGETS = ("http://10.96.0.100", "tcp://10.96.0.200:5432")
"""By address: a node and a host outside do not ask the cluster's DNS."""


class PlanesExplorer(w.VBox):  # type: ignore[misc]
    """One call in several clusters that differ in their Service data plane alone.

    Args:
        worlds: The clusters.
        callers, targets: What the two lists offer, as `Cluster.connect` takes them.
    """

    def __init__(
        self, worlds: FourPlanes, callers: Iterable[str] = CALLERS, targets: Iterable[str] = TARGETS
    ) -> None:
        self.worlds = worlds
        style = {"description_width": "initial"}
        self.caller = w.Dropdown(options=list(callers), description="who calls", style=style)
        self.target = w.Dropdown(options=list(targets), description="what", style=style)
        self.picture = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        self.words = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        for one in (self.caller, self.target):
            one.observe(lambda _change: self.draw(), "value")
        super().__init__(
            [w.HTML(STYLE), w.HBox([self.caller, self.target]), self.picture, self.words, Guard()]
        )
        self.add_class("knl-bench")
        self.draw()

    @property
    def found(self) -> Planes:
        """The comparison that is shown."""
        return self._found

    def draw(self) -> None:
        """Make the call in every cluster and show what came of it; a call that cannot be made says why."""
        try:
            self._found = self.worlds.connect(self.caller.value, self.target.value)
        except ValueError as wrong:
            self.picture.value, self.words.value = f"<p>{escape(str(wrong))}</p>", ""
            return
        self.picture.value = planes_picture(self._found)._repr_html_()
        text = escape(self._found.text(), quote=False)
        self.words.value = (
            "<details><summary>The same as text</summary>"
            f'<pre style="overflow-x:auto;line-height:1.4">{text}</pre></details>'
        )

    def __repr__(self) -> str:
        return f"PlanesExplorer({self._found.title}: {', '.join(self._found.modes)})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        return {**data, "text/html": self.picture.value + self.words.value, "text/plain": repr(self)}
