"""calicoctl's texts."""

from __future__ import annotations

from kubenet_lab import scenarios
from kubenet_lab.cni.calico.calicoctl import ipam_show, node_status

STATUS = """\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+-------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |    INFO     |
+--------------+-------------------+-------+----------+-------------+
| 192.168.1.20 | node-to-node mesh | up    | 23:59:02 | Established |
| 192.168.1.30 | node-to-node mesh | up    | 23:59:02 | Established |
+--------------+-------------------+-------+----------+-------------+

IPv6 BGP status
No IPv6 peers found.
"""


def test_node_status() -> None:
    cluster = scenarios.shop(cni="calico")
    assert node_status(cluster.network.ns("node-1")) == STATUS
    with cluster.fault("bgp-session-lost"):
        cluster.advance(600)
        told = node_status(cluster.network.ns("node-1"))
    assert "Established" not in told
    assert "| start |" in told


def test_without_bird() -> None:
    cluster = scenarios.shop(cni="calico-vxlan")
    assert "(BIRD) is not running" in node_status(cluster.network.ns("node-1"))


def test_ipam_show() -> None:
    cluster = scenarios.shop(cni="calico")
    lines = ipam_show(cluster.network, blocks=True).splitlines()
    assert lines[1].split("|")[1:-1] == [
        " GROUPING ",
        "       CIDR        ",
        " IPS TOTAL ",
        " IPS IN USE ",
        "   IPS FREE   ",
    ]
    assert lines[3] == "| IP Pool  | 10.244.0.0/16     | 65536     | 7 (0%)     | 65529 (100%) |"
    assert len([line for line in lines if "Block" in line]) == 3
