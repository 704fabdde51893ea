"""One call, and a row of buttons that break the world under it: press one, see the new verdict and why, mend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from kubenet_lab.faults import Fault, make
from kubenet_lab.trip import Trip
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard
from kubenet_lab.widgets.trip_stepper import TripStepper

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

HEALTHY = "nothing broken"


class FaultPanel(w.VBox):  # type: ignore[misc]
    """Faults to switch on and off, one at a time, and the same call made anew after each switch.

    Args:
        cluster: The world; it is healthy again when "nothing broken" is chosen.
        call: Makes the call: `lambda: cluster.connect("frontend", "http://backend")`.
        faults: What the buttons break: a label, and a fault's name with its details.
    """

    def __init__(
        self, cluster: Cluster, call: Callable[[], Trip], faults: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> None:
        self.cluster, self.call, self.faults = cluster, call, dict(faults)
        self.fault: Fault | None = None
        self._undo: Callable[[], None] | None = None
        self.trip = call()
        self.buttons = w.ToggleButtons(
            options=[HEALTHY, *self.faults], value=HEALTHY, style={"button_width": "auto"},
            tooltips=["Mend everything", *(self._title(name) for name, _ in self.faults.values())],
        )  # fmt: skip
        self.said = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        self.stage = w.Box(layout=w.Layout(width="auto", display="block"))
        self.buttons.observe(lambda change: self.choose(change["new"]), "value")
        super().__init__([w.HTML(STYLE), self.buttons, self.said, self.stage, Guard()])
        self.add_class("knl-bench")
        self._show()

    @staticmethod
    def _title(name: str) -> str:
        return make(name).TITLE

    def choose(self, label: str) -> None:
        """Mend what is broken, break what was chosen, and call again."""
        if self._undo is not None:
            self._undo()
        self.fault, self._undo = None, None
        if label != HEALTHY:
            name, details = self.faults[label]
            self.fault = make(name, **details)
            self._undo = self.fault.inject(self.cluster)
        self.trip = self.call()
        self._show()

    def _marks(self) -> dict[str, str]:
        """Where on the map the fault is, as `views.cluster_map.key` names places."""
        if self.fault is None:
            return {}
        node, device = getattr(self.fault, "node", ""), getattr(self.fault, "device", "")
        pod = getattr(self.fault, "pod", "")
        where = f"{node}#{device}" if node else f"{_namespace(self.cluster, pod)}#"
        return {where: self.fault.TITLE}

    def _show(self) -> None:
        broken = f"Broken: <b>{self.fault.TITLE}</b>." if self.fault is not None else "Nothing is broken."
        waited = f" The caller waited {self.trip.seconds:g} s." if self.trip.seconds else ""
        self.said.value = f'<div role="status" style="margin:8px 0 2px">{broken}{waited}</div>'
        self.stage.children = (TripStepper(self.trip, self.cluster, faults=self._marks()),)

    def __repr__(self) -> str:
        return f"FaultPanel({self.fault.NAME if self.fault else HEALTHY}: {self.trip})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        choices = ", ".join(f"<b>{label}</b>" for label in self.faults)
        still = (
            f"<p>Run this cell, then break it with one click: {choices}.</p>{self.stage.children[0].still()}"
        )
        return {**data, "text/html": still, "text/plain": repr(self)}


def _namespace(cluster: Cluster, pod: str) -> str:
    return cluster.namespace_of(pod)
