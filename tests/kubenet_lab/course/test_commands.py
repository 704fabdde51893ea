"""Commands written as an answer: read by node, applied all or nothing, every mistake named."""

from __future__ import annotations

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.errors import InputError


@pytest.fixture(scope="module")
def shop() -> Cluster:
    return scenarios.shop()


def test_each_tool_changes_its_table(shop: Cluster) -> None:
    node = shop.network.ns("node-1")
    before = node.snapshot()
    done = commands.apply(
        shop.network,
        """
        # the way to the old office
        on node-1
        sudo ip route add 172.16.0.0/16 via 192.168.1.20
        $ ip neigh replace 192.168.1.99 lladdr 02:00:00:00:00:63 dev eth0
        bridge fdb append 02:00:00:00:00:63 dev flannel.1 dst 192.168.1.99
        on node/node-2:
        iptables -t nat -N MINE
        """,
    )
    assert [c.netns for c in done] == ["node-1"] * 3 + ["node-2"]
    assert node.lookup("172.16.1.1").via == "192.168.1.20"  # type: ignore[union-attr]
    assert node.neighbours["eth0", "192.168.1.99"].mac == "02:00:00:00:00:63"
    (entry,) = node.fdb["flannel.1", "02:00:00:00:00:63"]
    assert (entry.dst, entry.state) == ("192.168.1.99", "permanent")
    assert "MINE" in shop.node("node-2").iptables_save()
    commands.apply(shop.network, "ip route del 172.16.0.0/16", "node-1")
    node.restore(before)


def test_a_mistake_changes_nothing_and_every_mistake_is_named(shop: Cluster) -> None:
    text = "on node-1\nip route add 172.16.0.0/16 via 192.168.1.20\nip route add nonsense\nroute add -net\n"
    with pytest.raises(InputError) as caught:
        commands.apply(shop.network, text)
    assert [fault.line for fault in caught.value.faults] == [3, 4]
    assert shop.network.ns("node-1").lookup("172.16.1.1").route.dst == "0.0.0.0/0"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ip route add 172.16.0.0/16 via 192.168.1.20", "on which node?"),
        ("on node-9\nip route add 172.16.0.0/16 via 192.168.1.20", "there are: router"),
        ("on node-1\nip route add 172.16.0.0/16 via 172.17.0.1", "Nexthop has invalid gateway"),
        ("on node-1\nip route show", "changes nothing"),
        ("on node-1\niptables -t nat -A KUBE-SVC-NONE -j ACCEPT", "No chain/target/match"),
        ("on node-1\niptables -t nat -A PREROUTING -m nonsense -j ACCEPT", "nonsense"),
    ],
)
def test_it_says_what_is_wrong(shop: Cluster, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        commands.apply(shop.network, text)
