"""The slider and the panel of faults: what a click does to the world, without a browser."""

from __future__ import annotations

from kubenet_lab import scenarios
from kubenet_lab.course.lesson import across, break_it, slider
from kubenet_lab.widgets.fault_panel import HEALTHY


def test_the_slider_scales_the_world_and_its_rules() -> None:
    world = scenarios.shop()
    bench = slider(world)
    for replicas in (4, 0, 3):
        bench.slider.value = replicas
        assert len(bench.rules.endpoints) == replicas
        assert (
            len([p for p in world.store.list("Pod", "default") if p.name.startswith("backend")]) == replicas
        )
    assert "KUBE-SEP" in bench.text.value


def test_each_button_breaks_in_its_own_way_and_mends_again() -> None:
    world = scenarios.shop()
    across(world)
    panel = break_it(world)
    seen = []
    for label in panel.buttons.options:
        panel.buttons.value = label
        seen.append(panel.trip.verdict)
    assert seen == ["connected", "timed out", "refused", "could not resolve"]
    panel.buttons.value = HEALTHY
    assert panel.trip.delivered
    assert "Nothing is broken" in panel.said.value


def test_both_are_still_pictures_without_a_kernel() -> None:
    for made in (slider(scenarios.shop()), break_it(scenarios.shop())):
        bundle = made._repr_mimebundle_()
        assert "<img src=" in bundle["text/html"]
        assert "0x" not in bundle["text/plain"]
