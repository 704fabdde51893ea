"""A Service's rules read and drawn; counts held against equal shares."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kubenet_lab import scenarios
from kubenet_lab.course.exercises.nb12 import literal, rules_of, scaled
from kubenet_lab.views.service_rules import (
    Spread,
    chi_square_tail,
    service_rules,
    service_rules_svg,
    spread_svg,
)


@pytest.mark.parametrize(
    ("replicas", "printed"),
    [
        (1, ["no condition"]),
        (3, ["--probability 0.33333333349", "--probability 0.50000000000", "no condition"]),
        (
            5,
            [
                "--probability 0.20000000019",
                "--probability 0.25000000000",
                "--probability 0.33333333349",
                "--probability 0.50000000000",
                "no condition",
            ],
        ),
    ],
)
def test_what_each_rule_says_and_takes(replicas: int, printed: list[str]) -> None:
    found = rules_of(scaled(replicas))
    assert [one.printed for one in found.endpoints] == printed
    assert all(one.share == pytest.approx(1 / replicas, abs=2e-9) for one in found.endpoints)
    assert found.marks.endswith("-j KUBE-MARK-MASQ")


def test_without_endpoints_the_refusal_is_what_is_left() -> None:
    found = rules_of(scaled(0))
    assert (found.entry, found.endpoints) == ("", ())
    assert "-j REJECT" in found.refusal
    assert "is refused" in service_rules_svg(found)


def test_an_address_nobody_knows_says_so() -> None:
    rules = scenarios.shop().network.ns("node-1").iptables[4]
    assert "No rule mentions 10.96.9.9" in service_rules_svg(service_rules(rules, "10.96.9.9"))


def test_what_passes_all_rules_is_drawn() -> None:
    assert "30.1% reach the end of the chain" in service_rules_svg(rules_of(literal("0.33", "0.33", "0.33")))


@pytest.mark.parametrize("replicas", [0, 1, 3, 8])
def test_pictures_are_well_formed_and_repeat(replicas: int) -> None:
    found = rules_of(scaled(replicas))
    assert service_rules_svg(found) == service_rules_svg(rules_of(scaled(replicas)))
    ET.fromstring(service_rules_svg(found))


def test_counts_in_words() -> None:
    even = Spread({"a": 3358, "b": 3307, "c": 3335}, {})
    assert "chance, not a preference" in even.words
    uneven = Spread({"a": 3600, "b": 3200, "c": 3200}, {})
    assert "more than chance" in uneven.words
    ET.fromstring(spread_svg(uneven))


@pytest.mark.parametrize(
    ("value", "freedom", "tail"),
    [
        (3.841459, 1, 0.05),
        (5.991465, 2, 0.05),
        (7.814728, 3, 0.05),
        (16.918978, 9, 0.05),
        (9.210340, 2, 0.01),
        (0, 3, 1),
    ],
)
def test_the_tail_of_chi_square_is_the_tables(value: float, freedom: int, tail: float) -> None:
    assert chi_square_tail(value, freedom) == pytest.approx(tail, abs=1e-6)
