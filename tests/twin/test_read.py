"""What the real tools say of a twin is what the model says of itself."""

from __future__ import annotations

import pytest

from kubenet_lab.twin import Twin
from tests.flows.worlds import WORLDS, two_nodes


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("world", WORLDS)
def test_state_reads_back_alike(kernel: None, world: str, mode: str) -> None:
    """Links, addresses, all routes, rules, permanent neighbours, static FDB entries, sets, iptables, nftables."""
    network = WORLDS[world](mode)
    with Twin(network) as twin:
        assert twin.differences() == []
        assert twin.read("node-1").nftables.tables.keys() == network.ns("node-1").nftables.tables.keys()


def test_state_made_by_hand_reads_back_alike(kernel: None) -> None:
    with Twin(two_nodes()) as twin:
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


def test_a_difference_of_nftables_is_named(kernel: None) -> None:
    with Twin(WORLDS["shop"]("nftables")) as twin:
        twin.run("node-2", "nft add element ip kube-proxy cluster-ips { 10.96.9.9 }")
        twin.run("node-2", "iptables -A INPUT -j DROP")  # not one of nft's own tables
        found = twin.differences()
        assert any(line.startswith("node-2: nftables rules: +") and "10.96.9.9" in line for line in found)
        assert "node-2: IPv4 rules: +-A INPUT -j DROP" in found
        assert not [line for line in found if not line.startswith("node-2:")]


def test_what_packets_left_in_nftables_is_made_and_is_no_difference(kernel: None) -> None:
    """Affinity over time: the twin gets the elements that packets added, with what is left of their time."""
    from kubenet_lab.cluster import Cluster
    from kubenet_lab.scenarios.shop import MANIFEST

    sticky = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: sticky}\nspec: {clusterIP: 10.96.9.1, "
        "sessionAffinity: ClientIP, selector: {app: backend}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    cluster = Cluster.from_files(MANIFEST, sticky, proxy="nftables")
    drawn = cluster.connect("frontend", "http://10.96.9.1").server
    cluster.advance(3000)
    with cluster.twin() as twin:
        text = twin.run("node-1", "nft list ruleset").stdout
        assert "elements = { 10.244.0.2 expires 2h9m5" in text, text
        for _ in range(5):
            page = twin.run("frontend", "curl -s --max-time 5 http://10.96.9.1/").stdout
            assert page.startswith(drawn.partition("/")[2]), (drawn, page)
        assert "10.244.0.2 expires 2h59m" in twin.run("node-1", "nft list ruleset").stdout
        assert twin.differences() == []


def test_conntrack_is_read_as_flows(kernel: None) -> None:
    with Twin(two_nodes()) as twin:
        twin.run("frontend", "curl -s --max-time 5 http://10.96.0.100/")
        (flow,) = [f for f in twin.read("node-1").conntrack if f.orig[0] == 6]
        assert flow.orig[1:3] == ("10.244.0.2", "10.96.0.100")
        assert flow.reply[1] in ("10.244.0.3", "10.244.1.2")
        assert flow.dst_nat
