"""18_coredns_inside: what the judges accept and refuse, and what the cells show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb18
from kubenet_lab.course.exercises.nb18 import TEMPLATE
from kubenet_lab.course.lessons.nb18 import cache, chain, cut, five_seconds, memories, names, one_bad
from kubenet_lab.errors import InputError

HOSTS = "    hosts {\n        10.96.0.100 shop.lan\n        fallthrough\n    }\n    forward"
BLOCK = TEMPLATE + "lan:53 {\n    hosts {\n        10.96.0.100 shop.lan\n    }\n}\n"
ANSWER = '    template IN A shop.lan {\n        answer "{{ .Name }} 60 IN A 10.96.0.100"\n    }\n    forward'
REWRITE = "rewrite name shop.lan backend.default.svc.cluster.local\n    errors"


@pytest.mark.parametrize(
    "corefile",
    [
        TEMPLATE.replace("    forward", HOSTS),
        TEMPLATE.replace("errors", REWRITE),
        TEMPLATE.replace("    forward", ANSWER),
        BLOCK,
    ],
    ids=["hosts", "rewrite", "template", "block"],
)
def test_every_plugin_that_does_it_is_right(corefile: str) -> None:
    found = nb18.OWN_NAME.judge(corefile)
    assert found.passed, found.text


@pytest.mark.parametrize(
    ("corefile", "says"),
    [
        (TEMPLATE, "`shop.lan`: NXDOMAIN"),
        (
            TEMPLATE.replace("    forward", HOSTS.replace("        fallthrough\n", "")),
            "SERVFAIL, and it should be",
        ),
        (TEMPLATE.replace("    forward", HOSTS.replace(".100", ".101")), "10.96.0.101, and it should be"),
        (TEMPLATE.replace("errors", "erors"), "Unknown directive 'erors'"),
        (TEMPLATE.replace("    kubernetes", "    kubernets"), "CoreDNS would not start"),
    ],
)
def test_what_is_still_wrong_is_named(corefile: str, says: str) -> None:
    found = nb18.OWN_NAME.judge(corefile)
    assert not found.passed
    assert says in found.text


def test_nothing_is_no_corefile() -> None:
    with pytest.raises(InputError):
        nb18.OWN_NAME.judge("  ")


def test_what_the_cells_show() -> None:
    world = names()
    told = chain(world, "backend.default.svc.cluster.local", "www.example.com", "www.example.com")
    assert [one.answered for one in told.found] == ["kubernetes", "forward", "cache"]
    assert [len(rows) for _, rows in cache(world).moments] == [1, 1, 1, 0]
    states = {row[0]: row[1:] for row in cut().rows}
    assert states["10 s after"] == ("SERVFAIL", "SERVFAIL", "NOERROR", "NXDOMAIN")
    assert states["API back"] == ("NOERROR",) * 4
    assert [count for _, count in memories().rows] == ["200", "200", "200", "200", "2"]
    assert [took for _, took in five_seconds().rows] == ["5 s", "2.5 s", "0 s", "0 s", "0 s", "0 s"]
    bad = dict(one_bad(40).rows)
    assert 0 < int(bad["0 s"].split()[0]) < 40
    assert int(bad["no address in the end"].split()[0]) > 5
