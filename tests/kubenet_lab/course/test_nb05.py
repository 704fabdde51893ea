"""Who writes the way to another node's pods, under six networks."""

from __future__ import annotations

from kubenet_lab.course.lessons.nb05 import six_hands


def test_without_an_agent_or_a_hand_nobody_knows_the_way() -> None:
    rows = {row[0]: row[1:] for row in six_hands().rows}
    assert rows["bridges, and nobody"] == ("default via 192.168.1.1 dev eth0", "-", "unreachable")
    assert {row[-1] for name, row in rows.items() if name != "bridges, and nobody"} == {"connected"}


def test_host_gw_writes_what_an_administrator_would() -> None:
    rows = {row[0]: row[1] for row in six_hands().rows}
    assert rows["Flannel, host-gw"] == rows["bridges, by hand"] == "10.244.1.0/24 via 192.168.1.20 dev eth0"
