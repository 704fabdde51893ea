"""The CNI stepper without a browser."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises.nb03 import live
from kubenet_lab.widgets.cni_stepper import CniStepper


def test_every_step_has_its_picture_and_words() -> None:
    born = live().birth("a pod is born")
    shown = CniStepper(born.steps, born.headline)
    assert len(shown.rows) == len(born.steps)
    assert all(row["svg"].startswith("<svg") and row["told"] for row in shown.rows)
    assert "20. kubelet: Start the containers" in shown.words
    found = shown._repr_mimebundle_()
    bundle = found[0] if isinstance(found, tuple) else found
    assert "<img src=" in bundle["text/html"]
    assert bundle["text/plain"] == f"CniStepper(a pod is born: {len(born.steps)} steps)"


def test_nothing_to_show_is_said() -> None:
    with pytest.raises(ValueError, match="no steps"):
        CniStepper(())
