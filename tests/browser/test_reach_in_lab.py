"""The panel of policies in the real JupyterLab: typing redraws the matrix, cells explain themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser.lab import Lab, chromium, notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]

CELLS = ["from kubenet_lab.course.lessons.nb20 import firewall\npanel = firewall()\npanel"]


def test_policies_are_edited_beside_their_matrix(tmp_path: Path) -> None:
    notebook(tmp_path / "reach.ipynb", CELLS)
    with Lab(tmp_path) as lab, lab.open("reach.ipynb", width=1330) as opened:
        opened.run_all()
        page = opened.page
        assert opened.errors == []
        page.wait_for_selector(".knl-matrix .hit")
        assert "DENIED by the ingress of production/database-0" in page.locator(".knl-why").inner_text()

        page.locator(".knl-matrix .hit[aria-pressed=true]").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('.knl-said').textContent.includes('database-1')")
        # Beyond the diagonal's empty cell.
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "document.querySelector('.knl-said').textContent.includes('production/report')"
        )

        text = page.locator(".knl-yaml textarea")
        policy = text.input_value()
        text.fill(policy.replace("app: backend", "app: frontend"))
        label = "from production/frontend to production/database-0: TCP 5432, was everything"
        page.wait_for_selector(f'.knl-matrix .hit[aria-label="{label}"]')
        text.fill(policy.replace("ingress:", "ingres:"))
        page.wait_for_selector(".knl-fault")
        assert "unknown field" in page.locator(".knl-fault").inner_text()
        text.fill(policy)
        page.wait_for_selector(".knl-fault", state="detached")
        page.locator('.knl-matrix .hit[data-door="outside"][data-place="production/database-0"]').click()
        page.wait_for_function("document.querySelector('.knl-why').textContent.includes('198.51.100.7')")
