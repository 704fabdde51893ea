"""The map of BGP sessions in the real JupyterLab: a session is picked, cut, given up, and brought back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser.lab import Lab, chromium, notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]


def test_a_session_is_cut_and_brought_back(tmp_path: Path) -> None:
    shots = Path(os.environ.get("KUBENET_SHOTS", tmp_path))
    notebook(
        tmp_path / "bgp.ipynb",
        ["from kubenet_lab.course.lessons.nb07 import calico, racks, talks\ntalks(calico())", "racks()"],
    )
    with Lab(tmp_path) as lab, lab.open("bgp.ipynb", width=1400) as opened:
        opened.run_all()
        page = opened.page
        shown = page.locator(".knl-bgp").first
        shown.locator("svg .hit").first.wait_for()
        page.wait_for_function("() => document.querySelectorAll('.knl-bgp').length === 2")
        log, felt = shown.locator(".knl-bgp-log"), shown.locator(".knl-felt")
        assert "connected" in felt.inner_text()

        shown.locator('.hit[data-session="node-1|node-3"]').focus()
        page.keyboard.press("Enter")
        shown.locator(".knl-bgp-title", has_text="node-1 – node-3").wait_for()
        shown.locator(".knl-session").select_option("node-1|node-2")
        shown.locator(".knl-bgp-title", has_text="node-1 – node-2").wait_for()

        shown.locator(".knl-cut").click()
        shown.locator(".knl-picture", has_text="? silent").wait_for()
        assert "✓" in felt.inner_text(), "nobody has noticed yet"
        shown.locator(".knl-next").click()
        log.get_by_text("session down (BGP Error: Hold timer expired)").wait_for()
        shown.locator(".knl-next").click()
        log.get_by_text("node-1's kernel loses").wait_for()
        felt.get_by_text("timed out").wait_for()
        opened.screenshot(shots / "bgp-cut-1400.png")
        page.set_viewport_size({"width": 1024, "height": 1700})
        opened.screenshot(shots / "bgp-cut-1024.png")
        wide = page.evaluate(
            "() => [...document.querySelectorAll('.knl-bgp')].map(n => [n.scrollWidth, n.clientWidth])"
        )
        assert all(have <= room + 1 for have, room in wide), wide

        shown.locator(".knl-mend").click()
        shown.locator(".knl-wait10").click()
        log.get_by_text("session established").wait_for()
        felt.get_by_text("connected").wait_for()

        rack = page.locator(".knl-bgp").nth(1)
        rack.locator(".knl-stop-node-1").click()
        rack.locator(".knl-start-node-1").wait_for()
        rack.locator("svg text", has_text="BIRD is down").wait_for()
        opened.shot_of(".knl-bgp", shots / "bgp-rack.png", 1)
        assert opened.errors == []
        assert opened.console_errors == []
