"""The explorer of data planes: what a choice in its lists does, without a browser."""

from __future__ import annotations

from kubenet_lab.scenarios.planes import FourPlanes
from kubenet_lab.widgets.planes import PlanesExplorer


def test_a_choice_makes_the_call_anew() -> None:
    shown = PlanesExplorer(FourPlanes(modes=("iptables", "ebpf"), counts=()))
    first = shown.found
    shown.caller.value = "node/node-1"
    assert shown.found.title == "node/node-1 calls http://10.96.0.100" != first.title
    assert "cil_sock4_connect" in shown.words.value
    bundle = shown._repr_mimebundle_()
    assert "<img src=" in bundle["text/html"]
    assert bundle["text/plain"] == "PlanesExplorer(node/node-1 calls http://10.96.0.100: iptables, ebpf)"


def test_a_call_that_cannot_be_made_says_why() -> None:
    shown = PlanesExplorer(
        FourPlanes(modes=("ebpf",), counts=()), targets=("http://10.96.0.100", "http://nobody")
    )
    shown.target.value = "http://nobody"
    assert "has no address" in shown.picture.value
