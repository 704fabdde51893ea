"""From kernel state to commands, without a kernel."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.link import VxlanOptions
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import NextHop, RouteRule
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.twin import plan
from kubenet_lab.twin.compare import parse
from tests.flows.worlds import two_nodes


def lines(network: Network, ns: str) -> list[str]:
    """All commands for one namespace, in order."""
    return [
        line
        for phase in plan(network).phases
        for kind, body in phase.get(ns, [])
        if kind in ("ip", "ip -6", "bridge")
        for line in body
    ]


def test_each_pair_is_made_once() -> None:
    root = plan(two_nodes()).root
    assert sum("peer name eth0" in line or "name eth0 netns default_" in line for line in root) == 3
    assert sum("netns underlay" in line for line in root) == 3


@pytest.mark.parametrize(
    ("route", "text"),
    [
        ({"dst": "10.9.0.0/16", "type": "blackhole"}, "route add blackhole 10.9.0.0/16 table 254"),
        (
            {"dst": "default", "via": "192.0.2.254", "dev": "eth0", "metric": 5},
            "route add 0.0.0.0/0 via 192.0.2.254 dev eth0 table 254 metric 5",
        ),
        (
            {"dst": "10.8.0.0/24", "via": "10.8.0.0", "dev": "eth0", "onlink": True, "table": 100},
            "route add 10.8.0.0/24 via 10.8.0.0 dev eth0 table 100 onlink",
        ),
        (
            {
                "dst": "10.7.0.0/24",
                "nexthops": (NextHop("192.0.2.7", "eth0"), NextHop("192.0.2.8", "eth0", 3)),
            },
            "route add 10.7.0.0/24 table 254 "
            "nexthop via 192.0.2.7 dev eth0 weight 1 nexthop via 192.0.2.8 dev eth0 weight 3",
        ),
        (
            {"dst": "fd00:9::/64", "dev": "eth0"},
            "route add fd00:9::/64 dev eth0 table 254 metric 1024",
        ),
    ],
)
def test_routes(route: dict[str, object], text: str) -> None:
    network = Network()
    ns = network.add_netns("a")
    ns.add_link("eth0", "physical", mac="0a:00:00:00:00:01")
    ns.set_link("eth0", up=True)
    ns.add_address("eth0", "192.0.2.1/24")
    ns.add_route(**route)  # type: ignore[arg-type]
    assert text in lines(network, "a")


def test_rules_keep_the_defaults_and_add_the_rest() -> None:
    network = Network()
    ns = network.add_netns("a")
    ns.add_rule(RouteRule(100, 100, src="10.0.0.0/8", fwmark=0x200, fwmask=0xF00))
    assert [line for line in lines(network, "a") if line.startswith("rule")] == [
        "rule add pref 100 from 10.0.0.0/8 fwmark 0x200/0xf00 lookup 100"
    ]


def test_vxlan_and_its_static_entries() -> None:
    found = lines(two_nodes(), "node-1")
    made = next(line for line in found if "type vxlan" in line)
    assert made.endswith("type vxlan id 1 dstport 8472 nolearning df unset local 192.168.1.10 dev eth0")
    assert any(
        line.startswith("fdb append") and line.endswith("dst 192.168.1.20 self permanent") for line in found
    )
    assert any(line.startswith("neighbour replace 10.244.1.0 lladdr") for line in found)


def test_device_names_with_dots_keep_them_in_parameters() -> None:
    sysctls = dict(
        pair
        for phase in plan(two_nodes()).phases
        for kind, body in phase["node-1"]
        if kind == "sysctl"
        for pair in body
    )
    assert sysctls["net/ipv4/conf/flannel.1/rp_filter"] == "0"
    assert sysctls["net/ipv4/ip_forward"] == "1"


def test_a_namespace_without_rules_gets_none() -> None:
    """An empty iptables-restore would switch connection tracking on in a pod."""
    made = plan(two_nodes())
    tools = {ns: {kind for phase in made.phases for kind, _body in phase.get(ns, [])} for ns in made.netns}
    assert "iptables-restore" in tools["node-1"]
    assert "iptables-restore" not in tools["default/frontend"]


def test_what_the_twin_cannot_make_is_named() -> None:
    network = Network()
    ns = network.add_netns("a")
    ns.add_link("wg0", "wireguard", mac="0a:00:00:00:00:01")
    ns.add_link("vx0", "vxlan", mac="0a:00:00:00:00:02", vxlan=VxlanOptions(vni=3))
    ns.listen(Socket(132, "0.0.0.0", 80))
    assert [item.what for item in plan(network).missing] == [
        "link wg0 of kind wireguard",
        "socket of protocol 132 on port 80",
    ]


def test_the_text_is_commands_to_read() -> None:
    text = plan(two_nodes()).text()
    assert "ip netns add default_frontend\n" in text
    assert "echo '1' > /proc/sys/net/ipv4/ip_forward\n" in text
    assert "iptables-restore <<'EOF'\n*filter" in text


def test_conntrack_text_is_read() -> None:
    text = (
        "tcp      6 431999 ESTABLISHED src=10.244.0.2 dst=10.96.0.100 sport=40000 dport=80 "
        "src=10.244.1.2 dst=10.244.0.2 sport=8080 dport=40000 [ASSURED] mark=0 use=1\n"
        "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=7 [UNREPLIED] "
        "src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=7 mark=0 use=1\n"
    )
    first, second = parse("node-1", text)
    assert first.orig == ("10.244.0.2", "10.96.0.100", 40000, 80)
    assert first.reply == ("10.244.1.2", "10.244.0.2", 8080, 40000)
    assert first.replied
    assert second.orig == ("10.0.0.1", "10.0.0.2", 7, 8 << 8)
    assert not second.replied
