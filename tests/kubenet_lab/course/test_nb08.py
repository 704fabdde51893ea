"""08_cilium: what the judges accept and refuse, and what the tables show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb08
from kubenet_lab.course.lessons import nb08 as lesson

HTTP = '      rules: {http: [{method: GET, path: "/products(/.*)?"}, {method: POST, path: /orders}]}\n'
GOOD = nb08.STARTED + HTTP
THREE = nb08.STARTED + (
    "      rules:\n        http:\n        - {method: GET, path: /products}\n"
    "        - {method: GET, path: '/products/.*'}\n        - {method: POST, path: /orders}\n"
)
TWO_RULES = nb08.STARTED + (
    "      rules: {http: [{method: GET, path: '/products(/.+)?'}]}\n"
    "  - fromEndpoints: [{matchLabels: {app: frontend}}]\n    toPorts:\n"
    '    - ports: [{port: "8080"}]\n      rules: {http: [{method: POST, path: /orders}]}\n'
)


@pytest.mark.parametrize("text", [GOOD, THREE, TWO_RULES], ids=["one-entry", "three-entries", "two-rules"])
def test_every_way_to_write_it_passes(text: str) -> None:
    found = nb08.REQUESTS.judge(text)
    assert found.passed, found.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (nb08.STARTED + "  # nothing more\n", "DELETE /products/7: arrives"),
        (GOOD.replace("(/.*)?", ""), "GET /products/7: HTTP 403"),
        (GOOD.replace("method: POST, ", ""), "GET /orders: arrives"),
        (GOOD.replace("{app: frontend}", "{app: front}"), "GET /products: no connection"),
        (
            GOOD.replace("fromEndpoints: [{matchLabels: {app: frontend}}]", "fromEndpoints: [{}]"),
            "database: GET",
        ),
    ],
)
def test_what_is_still_wrong_is_named(text: str, says: str) -> None:
    found = nb08.REQUESTS.judge(text)
    assert not found.passed
    assert says in found.text


def test_the_more_is_done_by_programs_the_less_by_netfilter() -> None:
    rows = lesson.ways().rows
    rules = [int(row[2]) for row in rows]
    assert rules == sorted(rules, reverse=True)
    assert rules[-1] == 0
    assert [int(row[5]) > 0 for row in rows] == [False, True, True, True]


def test_each_kernel_is_enough_for_what_is_said() -> None:
    found = {row[0]: row[1:] for row in lesson.floors("4.19.56", "4.19.57", "5.4", "5.10").rows}
    assert [row.count("yes") for row in found.values()] == [0, 1, 2, 3]
