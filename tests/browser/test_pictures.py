"""Pictures measured by the browser that draws them, with the fonts it has: nothing overlaps, nothing is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser.lab import FLAGS, chromium
from pictures import trips

from kubenet_lab import scenarios
from kubenet_lab.views import map_svg, model_of, trip_svg

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium"),
]

MEASURE = """() => {
  const svg = document.querySelector('svg'), view = svg.getBoundingClientRect(), out = [];
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  if (!boxes.length) out.push('no text at all');
  for (const [words, b] of boxes)
    if (b.left < view.left - .5 || b.right > view.right + .5 || b.top < view.top - .5 || b.bottom > view.bottom + .5)
      out.push(`${words} is cut`);
  boxes.forEach(([one, a], i) => boxes.slice(i + 1).forEach(([two, b]) => {
    // The glyph box has room above and below its letters; a quarter of it may touch the next line's.
    const dx = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const dy = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (dx > 1 && dy > .25 * Math.min(a.height, b.height)) out.push(`${one} lies over ${two}`);
  }));
  return out;
}"""

COLOURS = """() => {
  const seen = c => { const m = getComputedStyle(c); return m.fill; };
  return [seen(document.querySelector('svg .bgr')), seen(document.querySelector('svg text[class="b"]'))];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the pictures."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield made
        made.close()


def _shop_map() -> str:
    shop = scenarios.shop()
    trip = shop.connect("frontend", "http://backend")
    broken = {"node-1#flannel.1": "an entry is missing"}
    return map_svg(
        model_of(shop.network, shop.names()), trip.exchange.traces if trip.exchange else (), faults=broken
    )


PICTURES: dict[str, Callable[[], str]] = {
    "shop map": _shop_map,
    "ten nodes": lambda: map_svg(model_of((s := scenarios.shop(nodes=10)).network, s.names())),
    "shop call": lambda: trip_svg(scenarios.shop().connect("frontend", "http://backend")),
    "refused": lambda: trip_svg(scenarios.shop().connect("frontend", "http://10.244.0.1:81")),
    "no such name": lambda: trip_svg(scenarios.shop().connect("frontend", "http://nowhere")),
    "outside": lambda: trip_svg(scenarios.shop().connect("frontend", "http://203.0.113.10")),
    "dropped": lambda: trip_svg(trips.dropped()),
}


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_overlaps_at_1024_pixels(browser: Any, name: str) -> None:
    page = browser.new_page(viewport={"width": 1024, "height": 768})
    page.set_content(f"<body style='margin:0'>{PICTURES[name]()}</body>")
    assert page.evaluate(MEASURE) == []
    page.close()


def _brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize(("scheme", "attribute", "dark"), [
    ("light", "", False), ("dark", "", True),
    ("dark", 'data-jp-theme-light="true"', False), ("light", 'data-jp-theme-light="false"', True),
])  # fmt: skip
def test_letters_stand_out_in_every_theme(browser: Any, scheme: str, attribute: str, dark: bool) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.set_content(f"<body {attribute}>{trip_svg(trips.connected())}</body>")
    ground, ink = (_brightness(colour) for colour in page.evaluate(COLOURS))
    assert (ground < ink) is dark
    assert abs(ground - ink) > 500
    page.close()
