"""Who may talk to whom, beside the policies that say so: the matrix follows the text as one types.

A cell explains itself: by which policies and rules it is open or closed, and what one change would turn it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import ipywidgets as w

from kubenet_lab.errors import InputError
from kubenet_lab.policy.explain import explain
from kubenet_lab.policy.mistakes import with_meanings
from kubenet_lab.policy.world import Endpoint, Policy, World, policy_of
from kubenet_lab.reach.listing import Listing, listing
from kubenet_lab.views.reach_matrix import OUTSIDE, ReachMatrix, matrix, reach_matrix_svg, short_names
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard
from kubenet_lab.widgets.matrix import MatrixWidget

LOOK = """<style>
.knl-yaml textarea { font: 13px/1.4 SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre.knl-why, pre.knl-fault { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere;
  line-height: 1.45; padding: 8px 12px; border-left: 4px solid #00805c; }
pre.knl-fault { border-left-color: #c94a00; }
</style>"""
SOMEWHERE = "198.51.100.7"
"""An address that stands for the outside in an explanation."""


class ReachPicture(MatrixWidget):
    """The matrix; `selected` is [source, destination] of the chosen cell, empty while none is."""

    def __init__(self, found: ReachMatrix) -> None:
        names = list(found.names)
        super().__init__(
            svg=reach_matrix_svg(found),
            rows=names,
            columns=names,
            words=str(found),
            gives="which policy and rule decide it",
        )
        self.matrix = found

    def show(self, found: ReachMatrix, before: ReachMatrix) -> None:
        """Draw another matrix of the same workloads; cells that differ from `before` have a thick edge."""
        self.matrix = found
        with self.hold_sync():
            self.words = str(found)
            self.rows = self.columns = list(found.names)
            self.svg = reach_matrix_svg(found, before)

    def still(self) -> str:
        """Return the picture."""
        return self.matrix._repr_html_()

    def describe(self) -> str:
        """Return its size."""
        return f"ReachPicture({len(self.rows)} by {len(self.columns)})"


class ReachPanel(w.VBox):  # type: ignore[misc]
    """Policies as text, the matrix they make, and why.

    Args:
        world: Pods, namespaces and nodes. Its own policies are the ones to begin with, unless there is a text.
        text: NetworkPolicies and policies of administrators as YAML, to edit.
        port: The port that explanations ask about where the destination declares none.

    Attributes:
        faults: What is wrong with the text at the moment; the matrix stays as it was while there is something.
    """

    def __init__(self, world: World, text: str = "", port: tuple[int, str] = (80, "TCP")) -> None:
        self.start, self.port = world, port
        self.faults: list[str] = []
        self.world = world
        self.listed: Listing = listing(world)
        self.before = self.found = matrix(world, self.listed)
        self.picture = ReachPicture(self.found)
        self.text = w.Textarea(
            value=text,
            description="",
            rows=max(12, min(30, text.count("\n") + 2)),
            layout=w.Layout(width="auto"),
        )
        self.text.add_class("knl-yaml")
        self.said = w.HTML()
        self.why = w.HTML()
        self.text.observe(lambda change: self.write(change["new"]), "value")
        self.picture.observe(lambda _change: self._explain(), "selected")
        if text:
            self.write(text)
        super().__init__([w.HTML(STYLE + LOOK), self.picture, self.why, self.text, self.said, Guard()])
        self.add_class("knl-bench")

    def write(self, text: str) -> None:
        """Read the policies anew and draw what they make; on a fault, say it and draw nothing new."""
        try:
            policies = _policies(text)
        except InputError as error:
            told = with_meanings(error.faults)
            self.faults = [str(fault) for fault in told]
            self.said.value = "".join(f"<pre class='knl-fault'>{escape(str(fault))}</pre>" for fault in told)
            return
        self.faults = []
        self.said.value = ""
        self.world = self.start.with_policies(policies)
        self.listed = listing(self.world)
        self.found = matrix(self.world, self.listed)
        self.picture.show(self.found, self.before)
        self._explain()

    def select(self, source: str, destination: str) -> None:
        """Choose a cell by the names of its row and column. Raises KeyError."""
        if (source, destination) not in self.found.cells:
            raise KeyError((source, destination))
        self.picture.selected = [source, destination]

    @property
    def explanation(self) -> str:
        """Why the chosen cell is as it is; empty while none is chosen."""
        chosen = tuple(self.picture.selected)
        if len(chosen) != 2 or chosen not in self.found.cells:
            return ""
        source, destination = (self._endpoint(name) for name in chosen)
        port, protocol = next(((p.number, p.protocol) for p in destination.ports), self.port)
        return explain(self.world, source, destination, port, protocol).text()

    def _explain(self) -> None:
        text = self.explanation
        self.why.value = f"<pre class='knl-why'>{escape(text)}</pre>" if text else ""

    def _endpoint(self, name: str) -> Endpoint:
        """The first pod a row stands for, or an address outside."""
        if name == OUTSIDE:
            return self.world.endpoint(SOMEWHERE)
        names = [node.name for node in self.listed.nodes if not node.outside]
        full = next(long for long, short in short_names(names).items() if short == name)
        pods: Sequence[str] = next(node.pods for node in self.listed.nodes if node.name == full)
        return self.world.endpoint(pods[0])

    def __repr__(self) -> str:
        return f"ReachPanel({len(self.found.names)} by {len(self.found.names)}, {len(self.world.policies)} policies)"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        shown = f"<pre>{escape(self.explanation)}</pre>" if self.explanation else ""
        text = f"<pre>{escape(self.text.value)}</pre>" if self.text.value else ""
        return {**data, "text/html": self.picture.still() + shown + text, "text/plain": repr(self)}


def _policies(text: str) -> Iterable[Policy]:
    """The policies of a text; none for an empty one. Raises InputError."""
    from kubenet_lab import manifests

    if not any(line.strip() and not line.lstrip().startswith(("#", "---")) for line in text.splitlines()):
        return []
    found = (policy_of(obj) for obj in manifests.load(f"{text}\n", lenient=False))
    return [policy for policy in found if policy is not None]
