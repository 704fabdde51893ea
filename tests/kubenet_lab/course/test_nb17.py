"""17_names: what the judges accept and refuse, and what the cells show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb17
from kubenet_lab.course.lessons.nb17 import costs, file, names, records, resolvers
from kubenet_lab.errors import InputError

OPTIONS = "dnsConfig:\n  options:\n  - {name: ndots, value: %s}\n"


@pytest.mark.parametrize(
    "text", [OPTIONS % '"1"', OPTIONS % '"2"', "dnsPolicy: ClusterFirst\n" + OPTIONS % '"2"']
)
def test_every_ndots_that_does_it_is_right(text: str) -> None:
    assert nb17.FEWER.judge(text).passed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OPTIONS % '"3"', "still takes 8 queries"),
        ("dnsPolicy: Default\n" + OPTIONS % '"1"', "`backend` is not found any more"),
        ("dnsConfig:\n  searches: [example.com]\n", "still takes 10 queries"),
    ],
)
def test_what_is_still_wrong_is_named(text: str, says: str) -> None:
    found = nb17.FEWER.judge(text)
    assert not found.passed
    assert says in found.text


def test_what_is_no_dns_config_is_refused() -> None:
    for text in ("dnsConfig:", "- a", "dnsConfig: [", ""):
        with pytest.raises(InputError):
            nb17.FEWER.judge(text)


def test_the_price_is_told_where_there_is_one() -> None:
    assert "leaves the cluster" in nb17.FEWER.judge(OPTIONS % '"1"').text
    assert "pays nothing" in nb17.FEWER.judge(OPTIONS % '"2"').text


def test_what_the_cells_show() -> None:
    world = names()
    assert "options ndots:5" in repr(file(world))
    assert [row[2] for row in costs(world, "backend", "backend.default", "api.github.com").rows] == [2, 4, 8]
    shown = repr(records(world))
    assert "SRV 0 100 5432 database.production.svc.cluster.local." in shown
    assert "NODATA" in shown
    assert "NXDOMAIN" in shown
    three = resolvers(world, "database.production", ndots=1).parts
    assert ["= 10.96.0.201" in text for text in three.values()] == [True, False, True]
