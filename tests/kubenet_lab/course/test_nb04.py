"""The judges of 04_same_node, and the two settings that its table turns."""

from __future__ import annotations

import pytest

from kubenet_lab.course import commands
from kubenet_lab.course.exercises import nb04
from kubenet_lab.course.lessons.nb04 import switches, tables, three_networks
from kubenet_lab.errors import InputError
from kubenet_lab.scenarios import shop

BRIDGE_NF = "sysctl -w net.bridge.bridge-nf-call-iptables=1"
HAIRPIN = "bridge link set dev veth7b5a6b28 hairpin on"


@pytest.mark.parametrize(
    ("answer", "passed", "says"),
    [
        (f"{BRIDGE_NF}\n{HAIRPIN}", True, "All four"),
        (f"{HAIRPIN}\n{BRIDGE_NF}", True, "All four"),
        # Another sender for what neighbours send each other: the answer comes back to the node, and is seen there.
        ("iptables -t nat -A POSTROUTING -s 10.244.0.2 -d 10.244.0.4 -j MASQUERADE", True, "All four"),
        (BRIDGE_NF, False, "when it draws itself: timed out"),
        (HAIRPIN, False, "when it draws its neighbour: timed out"),
        ("", False, "3 of 4"),
    ],
)
def test_the_remedy_is_judged_by_the_calls(answer: str, passed: bool, says: str) -> None:
    found = nb04.MEND.judge(f"on node-1\n{answer}")
    assert (found.passed, says in found.text) == (passed, True), found.text


def test_a_learners_own_world_can_be_judged() -> None:
    world = nb04.deaf()
    assert not nb04.MEND.judge(world).passed
    commands.apply(world.network, f"{BRIDGE_NF}\n{HAIRPIN}", "node-1")
    assert nb04.MEND.judge(world).passed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bridge link set dev eth0 hairpin on", "no port of a bridge"),
        ("bridge link set dev veth7b5a6b28 hairpin maybe", "not understood"),
        ("bridge link set dev veth7b5a6b28", "sets nothing"),
        ("bridge link show dev veth7b5a6b28", "only `bridge link set`"),
        ("bridge link set dev nobody hairpin on", "nobody"),
    ],
)
def test_a_port_that_cannot_be_set_is_said_to_be(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        commands.apply(shop().network, text, "node-1")


def test_the_settings_end_as_in_the_kernel() -> None:
    ends = {row[:2]: tuple(cell == "connected" for cell in row[2:]) for row in switches().rows}
    assert ends == {
        ("1", "on"): (True, True, True, True),
        ("1", "off"): (True, True, True, False),
        ("0", "on"): (True, False, True, True),
        ("0", "off"): (True, False, True, True),
    }


def test_the_tables_are_those_of_the_call() -> None:
    world = shop()
    assert "10.244.0.4" not in tables(world).parts["frontend: ip neigh"]
    nb04.to_neighbour(world)
    text = repr(tables(world))
    assert "10.244.0.4 dev eth0 lladdr 0a:87:62:e3:9a:b1 REACHABLE" in text
    assert "# pod frontend" in text


def test_only_a_bridge_leaves_the_ttl_alone() -> None:
    assert {row[0]: row[-1] for row in three_networks().rows} == {
        "flannel": "64",
        "calico": "63",
        "cilium": "63",
    }
