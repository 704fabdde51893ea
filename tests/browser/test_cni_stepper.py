"""The CNI stepper in the real JupyterLab: buttons, list and keys move it; each step has its picture and commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.lab import Lab, chromium, notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]


def test_a_birth_is_stepped_through(tmp_path: Path) -> None:
    notebook(tmp_path / "cni.ipynb", ["from kubenet_lab.course.lessons.nb03 import birth\nbirth()"])
    with Lab(tmp_path) as lab, lab.open("cni.ipynb", width=1330) as opened:
        opened.run_all()
        page = opened.page
        page.wait_for_selector(".knl-cni .knl-item button")
        count = page.locator(".knl-cni .knl-count")
        total = page.locator(".knl-cni .knl-item").count()
        assert count.inner_text() == f"Step 1 of {total}"
        assert "no network namespace" in page.locator(".knl-cni .knl-picture").inner_text()

        for _ in range(6):
            page.locator(".knl-cni .knl-next").click()
        assert "master cni0" in page.locator(".knl-cni .knl-cni-shell").inner_text()
        assert "port of cni0" in page.locator(".knl-cni .knl-picture").inner_text()
        page.locator(".knl-cni").focus()
        page.keyboard.press("ArrowRight")
        assert count.inner_text() == f"Step 8 of {total}"
        page.keyboard.press("End")
        assert "Start the containers" in page.locator(".knl-cni .knl-sentence").inner_text()
        page.keyboard.press("Home")
        assert count.inner_text() == f"Step 1 of {total}"
        page.locator(".knl-cni .knl-item button", has_text="Reserve an address").click()
        assert "taken" in page.locator(".knl-cni .knl-picture").inner_text()
        assert opened.errors == []
        assert opened.console_errors == []
