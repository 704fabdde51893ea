"""A picture of rows and columns in which one cell is chosen by click or key."""

from __future__ import annotations

import traitlets

from kubenet_lab.widgets.base import Widget, script


class MatrixWidget(Widget):
    """The picture; `selected` is [row, column] of the chosen cell, empty while none is.

    Subclasses draw `svg` with a hit area per cell (`data-door` and `data-place` say its row and column) and say what
    a click `gives`, in words that follow "Click a cell to see".
    """

    _esm = script("matrix")
    svg = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Unicode(), help="Names of rows, in order.").tag(sync=True)
    columns = traitlets.List(traitlets.Unicode(), help="Names of columns, in order.").tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)
    gives = traitlets.Unicode().tag(sync=True)
