"""The tree of rules in a real browser: it folds, searches and walks by keyboard, and nothing is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from browser.lab import FLAGS, chromium

from kubenet_lab import scenarios, widgets
from kubenet_lab.widgets.base import STYLE, script

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]

PAGE = """<!doctype html><meta charset="utf-8"><style>%s</style><div id="here"></div><script type="module">
%s
const data = %s, heard = {};
const model = {
  get: (name) => data[name],
  set: (name, value) => {
    const changed = data[name] !== value;
    data[name] = value;
    if (changed) (heard["change:" + name] || []).forEach((act) => act());
  },
  save_changes() {},
  on: (name, act) => (heard[name] = heard[name] || []).push(act),
  off() {},
};
widget.render({ model, el: document.getElementById("here") });
</script>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture(params=["iptables", "nftables"])
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The shop's rules, with a call followed, and what went wrong in the page."""
    shop = scenarios.shop(proxy=request.param)
    made = widgets.RuleTree(shop, calls=shop.connect("frontend", "http://backend"))
    data = {name: getattr(made, name) for name in ("rows", "title", "words", "query", "only_path")}
    page = browser.new_page(viewport={"width": 1040, "height": 800})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    document = json.dumps(data).replace("</", "<\\/")
    page.set_content(
        PAGE % (STYLE, script("rules_explorer").replace("export default", "const widget ="), document)
    )
    page.wait_for_selector("[role=treeitem]")
    yield page
    page.close()
    assert errors == []


def rows(page: Any) -> list[str]:
    texts: list[str] = page.locator("[role=treeitem] > code").all_inner_texts()
    return texts


def here(page: Any) -> str:
    text: str = page.evaluate("document.activeElement.querySelector('code').textContent")
    return text


def test_the_packets_way_is_open_and_marked(page: Any) -> None:
    met = page.locator(".knl-met > code").all_inner_texts()
    assert any("8080" in text for text in met)
    assert len(met) < len(rows(page))
    page.locator(".knl-only input").check()
    assert page.locator(".knl-met").count() == len(rows(page)) == len(met)
    assert page.locator(".knl-share").count() >= 1


def test_it_folds_and_unfolds(page: Any) -> None:
    page.locator(".knl-fold").first.wait_for()
    page.get_by_role("button", name="Fold all", exact=True).click()
    folded = rows(page)
    assert all(text.startswith("table ") for text in folded)
    page.get_by_role("button", name="Unfold all").click()
    assert len(rows(page)) == page.evaluate("document.querySelector('pre').textContent.split('\\n').length")
    page.get_by_role("button", name="Fold all", exact=True).click()
    page.locator("[role=treeitem]").first.click()
    assert len(rows(page)) > len(folded)


def test_it_finds(page: Any) -> None:
    page.locator(".knl-search").fill("10.96.0.200")
    assert page.locator(".knl-hit").count() >= 1
    assert all("10.96.0.200" in text for text in page.locator(".knl-hit").all_inner_texts())
    assert "found" in page.locator(".knl-bar .knl-said").inner_text()
    page.locator(".knl-search").fill("no such thing")
    assert page.locator("[role=treeitem]").count() == 0
    assert page.locator(".knl-rules").inner_text() == "Nothing holds that."
    page.keyboard.press("Escape")
    assert page.locator("[role=treeitem]").count() > 5


def test_it_is_walked_by_keyboard(page: Any) -> None:
    page.locator("[role=treeitem][tabindex='0']").focus()
    first, table = rows(page), here(page)
    assert table.startswith("table ")
    page.keyboard.press("ArrowLeft")
    assert len(rows(page)) < len(first)
    assert page.locator("[aria-selected=true]").get_attribute("aria-expanded") == "false"
    page.keyboard.press("ArrowRight")
    assert (rows(page), here(page)) == (first, table)
    page.keyboard.press("ArrowRight")
    assert here(page) == first[first.index(table) + 1]
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert rows(page) == first
    page.keyboard.press("ArrowUp")
    assert here(page) == table
    page.keyboard.press("Home")
    assert here(page) == first[0]
    page.keyboard.press("End")
    assert here(page) == first[-1]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.className") == "knl-search"
    page.keyboard.press("ArrowDown")
    assert here(page) == first[-1]


@pytest.mark.parametrize("width", [1040, 480])
def test_nothing_is_cut_or_covered(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name="Unfold all").click()
    wrong = page.evaluate(
        """() => {
      const box = document.querySelector('.knl-rules'), out = [];
      if (box.scrollWidth > box.clientWidth + 1) out.push('the tree scrolls sideways');
      for (const row of document.querySelectorAll('[role=treeitem]')) {
        const [code, words] = ['code', '.knl-behind'].map(name => row.querySelector(name).getBoundingClientRect());
        if (words.width && Math.min(code.right, words.right) - Math.max(code.left, words.left) > 1
            && Math.min(code.bottom, words.bottom) - Math.max(code.top, words.top) > 1) out.push(row.textContent);
      }
      return out;
    }"""
    )
    assert wrong == []
