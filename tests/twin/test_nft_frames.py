"""nftables where frames pass, and where connections are counted: netdev, inet ingress, arp, ct count."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ICMP, SYN, TCP, Packet
from kubenet_lab.twin import Comparison, Flow, Twin
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange
from tests.twin.lab import lab

TABLES = {
    "ingress drops one port": (
        'table netdev t {{ chain c {{ type filter hook ingress device "{dev}" priority 0; policy accept;\n'
        "tcp dport 80 drop\n}}\n}}",
        {"tcp": "timed out", "ping": "answered"},
    ),
    "ingress of family inet": (
        'table inet t {{ chain c {{ type filter hook ingress device "{dev}" priority 0; policy accept;\n'
        "ip protocol icmp drop\n}}\n}}",
        {"tcp": "connected", "ping": "timed out"},
    ),
    "ingress, two families at one link": (
        'table netdev t {{ chain c {{ type filter hook ingress device "{dev}" priority 10; policy accept;\n'
        "tcp dport 80 drop\n}}\n}}\n"
        'table inet u {{ chain c {{ type filter hook ingress device "{dev}" priority -10; policy accept;\n'
        "meta protocol ip icmp type echo-request drop\n}}\n}}",
        {"tcp": "timed out", "ping": "timed out"},
    ),
    "ingress by its policy": (
        'table netdev t {{ chain c {{ type filter hook ingress device "{dev}" priority 0; policy drop;\n'
        "meta protocol arp accept\nicmp type echo-request accept\n}}\n}}",
        {"tcp": "timed out", "ping": "answered"},
    ),
    "egress": (
        'table netdev t {{ chain c {{ type filter hook egress device "out0" priority 0; policy accept;\n'
        "ip daddr 10.2.0.2 tcp dport 80 drop\n}}\n}}",
        {"tcp": "timed out", "ping": "answered"},
    ),
    "a link that is not named": (
        'table netdev t {{ chain c {{ type filter hook ingress device "lo" priority 0; policy drop;\n}}\n}}',
        {"tcp": "connected", "ping": "answered"},
    ),
    "ARP requests of nobody": (
        "table arp t {{ chain c {{ type filter hook input priority 0; policy accept;\n"
        "arp operation request drop\n}}\n}}",
        {"tcp": "connected", "ping": "answered"},
    ),
    "ARP answers are dropped": (
        "table arp t {{ chain c {{ type filter hook input priority 0; policy accept;\n"
        "arp operation reply arp saddr ip 10.2.0.2 drop\n}}\n}}",
        {"tcp": "unreachable", "ping": "unreachable"},
    ),
    "ARP requests are not sent": (
        "table arp t {{ chain c {{ type filter hook output priority 0; policy accept;\n"
        "arp operation request arp daddr ip 10.2.0.2 drop\n}}\n}}",
        {"tcp": "unreachable", "ping": "unreachable"},
    ),
}
"""Rules of the router, and how a connection and a ping from client to server end. {dev} is its link to the client."""


def world(rules: str) -> Network:
    """The lab, whose router has to ask for the server's MAC and the server for the router's."""
    network = lab()
    router = network.ns("router")
    router.set_nftables(nft.load(rules.format(dev="in0")))
    router.delete_neighbour("out0", "10.2.0.2")
    return network


@pytest.fixture(scope="module")
def compared(kernel: None) -> dict[str, dict[str, Comparison]]:
    flows = [
        Flow(ns="client", dst="10.2.0.2", port=80, name="tcp"),
        Flow(ns="client", dst="10.2.0.2", proto=ICMP, size=56, name="ping"),
    ]
    out = {}
    for name, (rules, _ends) in TABLES.items():
        with Twin(world(rules)) as twin:
            assert twin.differences() == []
            out[name] = {one.flow.name: one for one in twin.compare(flows, timeout=0.7)}
    return out


@pytest.mark.parametrize("flow", ["tcp", "ping"])
@pytest.mark.parametrize("name", TABLES)
def test_frames_meet_the_same_chains(
    name: str, flow: str, compared: dict[str, dict[str, Comparison]]
) -> None:
    one = compared[name][flow]
    assert one.equal, f"\n{one}"
    assert {o.end for o in one.kernel} == {TABLES[name][1][flow]}


COUNT = """
table ip t {
  set many { type ipv4_addr; flags dynamic; }
  chain c {
    type filter hook forward priority 0; policy accept;
    ip daddr 10.2.0.2 tcp dport 80 ct state new ct count over 3 reject with tcp reset
    ip daddr 10.3.0.2 tcp dport 80 ct state new add @many { ip saddr ct count over 2 } reject with tcp reset
  }
}
"""
HOLD = """
import socket
open_, ends = [], []
for number in range(5):
    s = socket.socket()
    try:
        s.connect(("{address}", 80))
        open_.append(s)
        ends.append("connected")
    except OSError as problem:
        ends.append("refused" if problem.errno == 111 else str(problem))
print(" ".join(ends))
"""


@pytest.mark.parametrize(("address", "most"), [("10.2.0.2", 3), ("10.3.0.2", 2)])
def test_connections_are_counted(address: str, most: int, kernel: None) -> None:
    """`ct count`: connections that stand count, of the rule or of an element."""
    network = lab()
    network.ns("router").set_nftables(nft.load(COUNT))
    with Twin(network) as twin:
        done = twin.run("client", "python3 -", stdin=HOLD.format(address=address))
        assert (done.stdout.split(), done.stderr) == (["connected"] * most + ["refused"] * (5 - most), "")
    ends = [
        exchange(Walk(network, seed=n), "client", Packet("", address, TCP, 4000 + n, 80, flags=SYN)).verdict
        for n in range(5)
    ]
    assert ends == ["connected"] * most + ["refused"] * (5 - most)
    network.ns("router").conntrack.flush()
    assert exchange(Walk(network), "client", Packet("", address, TCP, 5000, 80, flags=SYN)).ok
