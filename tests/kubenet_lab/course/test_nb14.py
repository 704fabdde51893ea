"""14_outside: what the judges accept and refuse, and what the pictures show."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb14
from kubenet_lab.course.lessons.nb14 import node_dies, statuses, ways
from kubenet_lab.views.failover import failover_svg

TO_LB = "on router\nip route add 198.51.100.2/32 via 192.168.1.2\n"
BOTH = "ip route add 198.51.100.2/32 nexthop via 192.168.1.20 dev eth0 nexthop via 192.168.1.30 dev eth0\n"
SPREAD, STRAIGHT = f"on cloud-lb\n{BOTH}", f"on router\n{BOTH}"


@pytest.mark.parametrize(
    "answer",
    [TO_LB + SPREAD, STRAIGHT, (TO_LB + SPREAD).replace("198.51.100.2/32", "198.51.100.0/24")],
    ids=["as told", "without the machine", "whole network"],
)
def test_every_way_that_balances_is_right(answer: str) -> None:
    found = nb14.BUILD.judge(answer)
    assert found.passed, found.text


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "ended on router: no route"),
        (TO_LB, "ttl exceeded"),
        (TO_LB + SPREAD.replace(".20", ".10"), "Which nodes have a pod"),
        (TO_LB + "on cloud-lb\nip route add 198.51.100.2/32 via 192.168.1.20\n", "no balance"),
        (
            TO_LB + "on cloud-lb\n"
            "iptables -t nat -A PREROUTING -d 198.51.100.2 -p tcp -j DNAT --to-destination 192.168.1.20:30120\n"
            "iptables -t nat -A POSTROUTING -j MASQUERADE\n",
            "in place of the client",
        ),
    ],
    ids=["nothing", "no nodes", "node-1", "one node", "full NAT"],
)
def test_what_is_still_wrong_is_named(answer: str, says: str) -> None:
    found = nb14.BUILD.judge(answer)
    assert not found.passed
    assert says in found.text


def test_each_false_cause_is_contradicted_by_something_to_be_seen() -> None:
    mend = "iptables -D INPUT -p tcp --dport 30121 -j DROP"
    for cause in nb14.CAUSES:
        found = nb14.FIND_IT.judge({"choice": cause, "text": mend})
        assert found.passed == (cause == "firewall"), found.text
        if not found.passed:
            assert "With that cause" in found.text
    for remedy in ("iptables -F INPUT", "iptables -I INPUT -p tcp -s 192.168.1.2 -j ACCEPT"):
        assert nb14.FIND_IT.judge({"choice": "firewall", "text": remedy}).passed
    left = nb14.FIND_IT.judge(
        {"choice": "firewall", "text": "iptables -A INPUT -p tcp --dport 30121 -j ACCEPT"}
    )
    assert "does not help yet" in left.text


def test_who_finds_out_that_a_node_is_dead_and_when() -> None:
    seconds = {
        "cloud": node_dies("cloud").lost_until,
        "l2": node_dies("l2", step=1, until=14, back=10).lost_until,
        "bgp": node_dies("bgp", step=15, until=195, back=150).lost_until,
    }
    assert 12 <= seconds["cloud"] <= 20
    assert 3 <= seconds["l2"] <= 5
    assert 45 <= seconds["bgp"] <= 90
    alone = node_dies("none")
    assert [m.answered for m in alone.moments if 4 <= m.second < 28] == [0] * 6
    picture = failover_svg(alone)
    for words in ("leads to node-2", "node-2 loses its cable", "✕ 24"):
        assert words in picture


def test_the_tables() -> None:
    assert [row[4] for row in ways().rows] == ["node-1, node-2, node-3", "the client"] * 2 + [
        "node-1, node-2, node-3",
        "cloud-lb",
    ]
    assert [row[2] for row in statuses().rows] == ["1", "0", "0", "1"]
