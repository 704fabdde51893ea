"""The matrix of doors: a chosen cell opens one of its calls, without a browser."""

from __future__ import annotations

from kubenet_lab.scenarios.outside import CLIENTS, calls, outside
from kubenet_lab.widgets.outside_matrix import OutsideMatrixPanel


def test_a_cell_opens_the_call_that_tells_most() -> None:
    world = outside()
    panel = OutsideMatrixPanel(calls(world, 3), world)
    assert panel.trip is None
    assert panel.stage.children == ()
    assert panel.picture.columns == [*CLIENTS]
    door = next(door for door in panel.matrix.doors if "no pod" in door and "Local" in door)
    panel.picture.selected = [door, "a client outside"]
    assert panel.trip is not None
    assert panel.trip.verdict == "timed out"
    assert "timed out" in panel.stage.children[0].describe()
    panel.picture.selected = [door, "a pod on node-1"]
    assert panel.trip.delivered
    panel.picture.selected = ["nowhere", "nobody"]
    assert panel.trip is None


def test_it_is_a_still_picture_without_a_kernel() -> None:
    world = outside()
    matrix = calls(world, 1)
    panel = OutsideMatrixPanel(matrix, world, (matrix.doors[0], "a pod on node-1"))
    bundle = panel._repr_mimebundle_()
    assert bundle["text/html"].count("<img src=") >= 2
    assert bundle["text/plain"] == str(matrix)
