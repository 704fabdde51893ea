"""What the real tools say of a twin is what the model says of itself."""

from __future__ import annotations

import pytest

from kubenet_lab.twin import Twin
from tests.flows.worlds import WORLDS, two_nodes


@pytest.mark.parametrize("build", [two_nodes, *WORLDS.values()], ids=["two_nodes", *WORLDS])
def test_state_reads_back_alike(kernel: None, build: object) -> None:
    """Links, addresses, every routing table, rules, permanent neighbours, static FDB entries, sets and iptables."""
    assert callable(build)
    with Twin(build()) as twin:
        assert twin.differences() == []


def test_a_difference_is_named(kernel: None) -> None:
    with Twin(two_nodes()) as twin:
        twin.run("node-1", "ip link set eth0 mtu 1400; ip route del default; iptables -A INPUT -j DROP")
        assert twin.differences() == [
            "node-1: link in the model only: 2: eth0 veth 0a:1d:04:6f:68:ca mtu 1500 up",
            "node-1: link in the kernel only: 2: eth0 veth 0a:1d:04:6f:68:ca mtu 1400 up",
            "node-1: route in the model only: default via 192.168.1.1 dev eth0 table 254 proto boot",
            "node-1: IPv4 rules: --- model",
            "node-1: IPv4 rules: +++ kernel",
            "node-1: IPv4 rules: @@ -5,0 +6 @@",
            "node-1: IPv4 rules: +-A INPUT -j DROP",
        ]


def test_conntrack_is_read_as_flows(kernel: None) -> None:
    with Twin(two_nodes()) as twin:
        twin.run("frontend", "curl -s --max-time 5 http://10.96.0.100/")
        (flow,) = [f for f in twin.read("node-1").conntrack if f.orig[0] == 6]
        assert flow.orig[1:3] == ("10.244.0.2", "10.96.0.100")
        assert flow.reply[1] in ("10.244.0.3", "10.244.1.2")
        assert flow.dst_nat
