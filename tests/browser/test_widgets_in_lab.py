"""The widgets in the real JupyterLab: they draw, obey mouse and keyboard, tell the kernel, and fetch nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser.lab import Lab, chromium, notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]

CELLS = [
    "from kubenet_lab import scenarios\nfrom kubenet_lab.widgets import ClusterMap, StateDiff, TripStepper\n"
    "shop = scenarios.shop()\nstepper = TripStepper(shop.connect('frontend', 'http://backend'), shop)\nstepper",
    "places = ClusterMap(shop)\nplaces",
    "diff = StateDiff([('first', 'a\\nb'), ('second', 'a\\nc'), ('third', 'a\\nb\\nd')])\ndiff",
    "shop.connect('frontend', 'http://backend')",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one notebook."""
    notebook(tmp_path / "widgets.ipynb", CELLS)
    return tmp_path


def test_widgets_live(folder: Path) -> None:
    with Lab(folder) as lab, lab.open("widgets.ipynb", width=1330) as opened:
        opened.run_all()
        page = opened.page
        assert opened.errors == []
        page.wait_for_selector(".knl-trip .knl-item button")

        count = page.locator(".knl-count")
        total = int(count.inner_text().split()[-1])
        assert 15 <= total <= 30
        assert count.inner_text() == f"step 1 of {total}"
        start = page.locator(".knl-dot").get_attribute("transform")
        page.locator(".knl-next").click()
        page.locator(".knl-trip").focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        page.wait_for_timeout(1300)
        assert count.inner_text() == f"step 6 of {total}"
        assert page.locator(".knl-dot").get_attribute("transform") != start
        page.keyboard.press("ArrowLeft")
        assert "rewritten" in page.locator(".knl-sentence h3").inner_text()
        assert "changed, was 10.96.0.100" in page.locator(".knl-packet-card").inner_text()
        assert "--to-destination" in page.locator(".knl-entry").first.inner_text()

        page.locator(".knl-layer").select_option("tunnel")
        assert page.locator(".knl-item").count() == 4
        page.locator(".knl-layer").select_option("")
        page.locator(".knl-every input").check()
        assert page.locator(".knl-item").count() > 3 * total
        page.locator(".knl-every input").uncheck()
        page.locator(".knl-trip").focus()
        page.keyboard.press("End")
        page.wait_for_timeout(300)
        assert page.locator(".knl-sentence p").inner_text().startswith("It has arrived: pod frontend")
        page.keyboard.press("Home")
        page.keyboard.press(" ")
        page.wait_for_timeout(2500)
        page.keyboard.press(" ")
        page.wait_for_timeout(300)
        assert int(count.inner_text().split()[1]) >= 2

        page.locator('.hit[data-netns="node-2"][data-link="cni0"]').last.click()
        said = page.locator(".knl-said[aria-live]").first
        assert "bridge cni0 on node-2" in said.inner_text()

        page.locator(".knl-pick-after").select_option("1")
        page.wait_for_timeout(700)
        assert "+ added" in page.locator(".knl-diff table").inner_text()

        page.locator(".jp-Cell").last.click()
        page.keyboard.press("Escape")
        page.keyboard.press("b")
        page.keyboard.press("Enter")
        page.keyboard.type("print('KERNEL', places.selected, diff.after, stepper.step > 0)")
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1500)
        assert "KERNEL node-2#cni0 1 True" in opened.outputs[-1]
        assert opened.console_errors == []
        assert opened.external == []
        assert opened.popups == []


def test_an_exported_page_shows_the_pictures_without_a_kernel(folder: Path) -> None:
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    document = nbformat.read(folder / "widgets.ipynb", as_version=4)
    NotebookClient(
        document, store_widget_state=False, timeout=60, resources={"metadata": {"path": str(Path.cwd())}}
    ).execute()
    assert json.dumps(document.metadata).find("widget-state") == -1
    html, _ = HTMLExporter().from_notebook_node(document)
    assert html.count("data:image/svg+xml;base64,") >= 3
    assert "Destination rewritten" in html
    assert "+</b> added" in html
