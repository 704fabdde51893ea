"""The comparison of data planes says what the traces say, as a picture and as text."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.scenarios.planes import FourPlanes, cost
from kubenet_lab.views.planes import Planes, planes_svg
from tests.pictures.svg import boxed_faults, faults


@cache
def worlds() -> FourPlanes:
    return FourPlanes(counts=(10, 40))


def answers(found: Planes, question: str) -> dict[str, str]:
    row = next(row for row in found.rows if row.question == question)
    return {mode: cell.what for mode, cell in zip(found.modes, row.cells, strict=True)}


def places(found: Planes, question: str) -> dict[str, str]:
    row = next(row for row in found.rows if row.question == question)
    return {mode: cell.where for mode, cell in zip(found.modes, row.cells, strict=True)}


def test_a_pod_s_call() -> None:
    found = worlds().connect("frontend", "http://10.96.0.100")
    assert answers(found, "The Service is found by") == {
        "iptables": "rule 4 of KUBE-SERVICES",
        "nftables": "an element of the map service-ips",
        "ipvs": "the table of virtual servers",
        "ebpf": "an entry of cilium_lb4_services_v2",
    }
    assert places(found, "The destination is rewritten") == {
        "iptables": "node-1, netfilter",
        "nftables": "node-1, netfilter",
        "ipvs": "node-1, IPVS",
        "ebpf": "pod frontend, cil_sock4_connect at the system call",
    }
    on_the_way = answers(found, "On its way the packet is for")
    assert {mode for mode, what in on_the_way.items() if what == "10.96.0.100:80"} == {
        "iptables",
        "nftables",
        "ipvs",
    }
    assert answers(found, "The answer is put right")["ebpf"] == "nowhere"
    assert set(answers(found, "It ends").values()) == {"connected"}
    assert dict(zip(found.modes, found.tried, strict=True)) == {
        mode: int(what) for mode, what in answers(found, "Entries compared").items()
    }


def test_only_the_iptables_curve_climbs() -> None:
    growth = worlds().growth
    climbs = {mode: points[-1][1] - points[0][1] for mode, points in growth.items()}
    assert climbs["iptables"] == 30
    assert {mode for mode, climb in climbs.items() if climb} == {"iptables"}


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs", "ebpf"])
def test_the_cost_is_counted_by_the_walk(mode: str) -> None:
    assert cost(mode, 20) - cost(mode, 10) == (10 if mode == "iptables" else 0)


def test_the_text_says_everything_the_picture_does() -> None:
    found = worlds().connect("node/node-1", "tcp://10.96.0.200:5432")
    text = found.text()
    for row in found.rows:
        assert row.question in text
        assert all(cell.what in text for cell in row.cells)
    assert "of 40" in text


def test_the_picture_is_well_formed_and_its_words_fit() -> None:
    for source in ("frontend", "node/node-1"):
        svg = planes_svg(worlds().connect(source, "http://10.96.0.100"))
        assert faults(svg) == []
        assert boxed_faults(svg) == []


def test_a_name_nobody_knows() -> None:
    with pytest.raises(ValueError, match="has no address"):
        worlds().connect("frontend", "http://nobody")
