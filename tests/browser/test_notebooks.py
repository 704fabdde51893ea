"""Each notebook in the real JupyterLab, in a real browser: it runs, it is visible, it answers to clicks and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser.lab import ROOT, Lab, chromium

from kubenet_lab.course.answers import Progress

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A learner's folder with the notebooks in it."""
    folder = tmp_path_factory.mktemp("course")
    for name in NAMES:
        shutil.copy(ROOT / "notebooks" / name, folder / name)
    (folder / ".kubenet").mkdir()
    with Lab(folder, env={"KUBENET_PROGRESS": str(folder / ".kubenet" / "progress.json")}) as running:
        yield running


# Panels of ours that stick out to the right, so that one would have to scroll sideways.
_TOO_WIDE = (
    "() => [...document.querySelectorAll('.knl-exercise, .knl-bench')]"
    ".filter(n => n.scrollWidth > n.clientWidth + 2).map(n => n.innerText.slice(0, 60))"
)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_can_be_seen(lab: Lab, name: str, tmp_path: Path) -> None:
    with lab.open(name, width=1400) as page:
        page.run_all()
        for width in (1400, 1024):
            page.page.set_viewport_size({"width": width, "height": 1700})
            shot = page.screenshot(tmp_path / f"{name}-{width}.png")
            assert shot.stat().st_size > 30_000
            pictures = page.page.locator(".jp-OutputArea-output svg.knl, .jp-OutputArea-output img")
            assert pictures.count() >= 1
            box = pictures.first.bounding_box()
            assert box is not None
            assert box["width"] > 400
            assert page.page.evaluate(_TOO_WIDE) == []
        assert page.errors == []
        assert page.console_errors == []
        assert page.external == []
        assert page.popups == []


def test_a_guess_is_judged_hinted_and_kept(lab: Lab) -> None:
    file = lab.folder / ".kubenet" / "progress.json"
    with lab.open("00_start_here.ipynb") as page:
        page.run_all()
        panel = page.page.locator(".knl-exercise", has_text="One entry less").first
        panel.get_by_role("button", name="Hint").click()
        panel.get_by_text("Hint 1 of 3").wait_for()
        panel.get_by_label("“Connection refused”, at once").check()
        panel.get_by_role("button", name="Check").click()
        panel.get_by_text("Not yet.").wait_for()
        assert Progress(file).entry("00-missing-entry").answer == "refused"
        # By keyboard: down from the first choice to the second, then Tab to the button.
        panel.get_by_label("“Connection refused”, at once").focus()
        page.page.keyboard.press("ArrowDown")
        panel.get_by_role("button", name="Check").focus()
        page.page.keyboard.press("Enter")
        panel.get_by_text("Right.").wait_for()
        entry = Progress(file).entry("00-missing-entry")
        assert (entry.status, entry.answer, entry.hints) == ("passed", "timed out", 1)
        assert page.errors == []
        assert page.console_errors == []
    with lab.open("00_start_here.ipynb") as page:
        page.run_all()
        panel = page.page.locator(".knl-exercise", has_text="One entry less").first
        assert "✓ solved" in panel.inner_text()
        assert panel.get_by_label("Nothing, until it gives up: a timeout").is_checked()


def test_one_click_breaks_the_shop_and_one_mends_it(lab: Lab) -> None:
    with lab.open("00_start_here.ipynb") as page:
        page.run_all()
        bench = page.page.locator(".knl-bench").first
        for button, says in (
            ("a forwarding entry is missing", "timed out"),
            ("the backend does not listen", "refused"),
            ("the DNS rules are missing", "could not resolve"),
            ("nothing broken", "connected"),
        ):
            bench.get_by_role("button", name=button).click()
            bench.get_by_text(f"http://backend: {says}").first.wait_for()
        assert page.console_errors == []


def test_the_slider_writes_the_rules_anew(lab: Lab) -> None:
    with lab.open("12_iptables_line_by_line.ipynb") as page:
        page.run_all()
        bench = page.page.locator(".knl-bench").first
        handle = bench.locator("[role=slider], .noUi-handle").first
        handle.focus()
        page.page.keyboard.press("ArrowRight")
        page.page.wait_for_function(
            "() => /0\\.25000000000/.test(document.querySelector('.knl-bench details pre').textContent)",
            timeout=15_000,
        )
        assert page.console_errors == []


def test_the_clock_moves_by_key_by_click_and_by_itself(lab: Lab) -> None:
    with lab.open("10_why_services.ipynb") as page:
        page.run_all()
        clock = page.page.locator(".knl-clock").first
        count = clock.locator(".knl-count")
        assert count.inner_text() == "second 3 of 16"
        assert "3 calls not answered" in clock.inner_text()
        clock.focus()
        page.page.keyboard.press("ArrowRight")
        clock.get_by_text("second 4 of 16").wait_for()
        assert "every call answered" in clock.inner_text()
        clock.locator(".hit[data-second='7']").click()
        clock.get_by_text("second 7 of 16").wait_for()
        assert "they are late" in clock.inner_text()
        page.page.keyboard.press("Home")
        clock.get_by_role("button", name="Play").click()
        clock.get_by_role("button", name="Pause").wait_for()
        page.page.wait_for_function(
            "() => !/second 0 /.test(document.querySelector('.knl-clock .knl-count').textContent)",
            timeout=5_000,
        )
        assert page.console_errors == []


def test_a_cell_of_the_matrix_opens_its_call_by_click_and_by_key(lab: Lab) -> None:
    with lab.open("14_outside.ipynb") as page:
        page.run_all()
        bench = page.page.locator(".knl-bench").first
        assert bench.locator(".knl-trip").count() == 0
        bench.locator(".hit[data-place='a client outside']").first.click()
        bench.locator(".knl-trip").wait_for()
        assert (
            "clusterIP, Cluster, a client outside: unreachable"
            in bench.locator(".knl-said").first.inner_text()
        )
        assert "unreachable" in bench.locator(".knl-banner").inner_text()
        page.page.keyboard.press("ArrowDown")
        bench.get_by_text(
            "Shown below: node port on node-1 (no pod), Cluster, a client outside: connected"
        ).wait_for()
        bench.locator(".knl-banner", has_text="connected").wait_for()
        assert bench.locator(".knl-trip").count() == 1
        assert page.console_errors == []
