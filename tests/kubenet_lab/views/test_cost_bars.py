"""The bill of a way: nothing is left out, nothing overlaps, and the words say the same as the bars."""

from __future__ import annotations

import re

import pytest

from kubenet_lab.cost import KINDS, Latency, Share
from kubenet_lab.course.lessons.nb26 import bill, service
from kubenet_lab.views.cost_bars import GROUPS, cost_svg, cost_text, grouped
from tests.pictures.svg import faults, texts


def test_every_kind_of_step_is_in_one_group() -> None:
    kinds = [kind for _words, _colour, kinds in GROUPS.values() for kind in kinds]
    assert sorted(kinds) == sorted(KINDS)


@pytest.mark.parametrize("picture", [bill("same node"), bill("same node", "routes", "VXLAN"), service()])
def test_words_do_not_overlap(picture: object) -> None:
    assert faults(str(picture)) == []
    names = [one for one in texts(str(picture)) if one.left == 16 and one.top > 70]
    assert names
    assert max(one.right for one in names) < 210, "before the bars"


def test_parts_add_up_to_the_whole() -> None:
    way = Latency(
        (Share("packet", 2, 4.0), Share("rule", 9, 0.5), Share("match", 2, 0.25), Share("bpf", 3, None))
    )
    assert grouped(way) == {"ends": 4.0, "rules": 0.75}
    assert sum(grouped(way).values()) == way.us
    text = cost_text("title", {"there": way})
    assert (
        text
        == "title\n  there: 4.8 us (the two ends 4.0, rules and NAT 0.8)\n  there: not measured: BPF, IPVS"
    )
    assert "not measured" in cost_svg("title", {"there": way})


def test_bars_have_one_scale() -> None:
    ways = {"short": Latency((Share("link", 1, 1.0),)), "long": Latency((Share("link", 4, 4.0),))}
    widths = [
        float(found) for found in re.findall(r'<rect x="210" [^>]*width="([\d.]+)"', cost_svg("title", ways))
    ]
    assert widths[1] == pytest.approx(4 * widths[0], rel=0.01)
    assert faults(cost_svg("title", ways)) == []
