"""A matrix of doors and callers in which every cell opens one of the calls it stands for."""

from __future__ import annotations

from typing import Any

import ipywidgets as w

from kubenet_lab.trip import Trip
from kubenet_lab.views.outside_matrix import OutsideMatrix, outside_matrix_svg
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard
from kubenet_lab.widgets.matrix import MatrixWidget
from kubenet_lab.widgets.trip_stepper import TripStepper


class MatrixPicture(MatrixWidget):
    """The picture; `selected` is [door, place] of the chosen cell, empty while none is."""

    def __init__(self, matrix: OutsideMatrix) -> None:
        self.matrix = matrix
        super().__init__(
            svg=outside_matrix_svg(matrix),
            rows=list(matrix.doors),
            columns=list(matrix.places),
            words=str(matrix),
            gives="one of its calls step by step",
        )

    def still(self) -> str:
        """Return the picture."""
        return self.matrix._repr_html_()

    def describe(self) -> str:
        """Return its size."""
        return f"MatrixPicture({len(self.matrix.doors)} doors, {len(self.matrix.places)} places)"


class OutsideMatrixPanel(w.VBox):  # type: ignore[misc]
    """The matrix, and below it the call of the chosen cell that tells most (one that failed, if any did).

    Args:
        matrix: The calls.
        world: The Network or Cluster they went through.
        selected: (door, place) of the cell to begin with.
    """

    def __init__(self, matrix: OutsideMatrix, world: Any, selected: tuple[str, str] | None = None) -> None:
        self.matrix, self.world = matrix, world
        self.picture = MatrixPicture(matrix)
        self.stage = w.Box(layout=w.Layout(width="auto", display="block"))
        self.picture.observe(lambda change: self._show(change["new"]), "selected")
        super().__init__([w.HTML(STYLE), self.picture, self.stage, Guard()])
        self.add_class("knl-bench")
        if selected is not None:
            self.picture.selected = [*selected]

    @property
    def trip(self) -> Trip | None:
        """The call shown, None while no cell is chosen."""
        chosen = tuple(self.picture.selected)
        return self.matrix[chosen].telling if len(chosen) == 2 and chosen in self.matrix.cells else None

    def _show(self, _selected: list[str]) -> None:
        trip = self.trip
        for old in self.stage.children:
            old.close()
        self.stage.children = () if trip is None else (TripStepper(trip, self.world),)

    def __repr__(self) -> str:
        return f"OutsideMatrixPanel({len(self.matrix.doors)} doors, {len(self.matrix.places)} places)"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        below = self.stage.children[0].still() if self.stage.children else ""
        return {**data, "text/html": self.picture.still() + below, "text/plain": str(self.matrix)}
