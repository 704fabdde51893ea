# ruff: noqa: E501 - recorded lines are as long as they are
"""Reading what the real tools printed, and printing it again; faults named all at once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from oracles import cases, open_case

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "diagnostics"))

from replay import TRANSCRIPTS, read

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.dialects import (
    bridge_fdb,
    conntrack,
    ip_addr,
    ip_link,
    ip_neigh,
    ip_route,
    ip_rule,
    ss,
    sysctl,
)
from kubenet_lab.kernel.link import Peer
from kubenet_lab.kernel.network import Network


def outputs(name: str, *commands: str) -> list[tuple[str, str]]:
    """Return (command, recorded output) of a transcript's steps that begin so and printed something."""
    steps = read(TRANSCRIPTS / name).steps
    return [(s.command, s.output) for s in steps if s.command in commands and s.output and s.exit_code == 0]


def host(text: str) -> Any:
    """Return a namespace that holds the links and addresses of a recorded `ip addr`."""
    network = Network()
    ns = network.add_netns("host")
    ns.links = {link.name: link for link in ip_link.parse(text, netns="host")}
    ns.addresses = {}
    # The kernel lists IPv6 addresses newest first.
    for address in sorted(ip_addr.parse(text), key=lambda a: a.family):
        held = ns.addresses.get(address.dev, ())
        ns.addresses[address.dev] = (address, *held) if address.family == 6 else (*held, address)
    return ns


ROUTES = ("ip route", "ip -4 route show table all", "ip -d route", "ip route show root 10.244.0.0/16")


@pytest.mark.parametrize(("command", "text"), outputs("ip/route.txt", *ROUTES))
def test_routes_print_as_they_were_read(command: str, text: str) -> None:
    routes = ip_route.parse(text)
    plain = text.replace(" dead", "").replace(" linkdown", "")
    shown = ip_route.show_routes(routes, details="-d" in command, tables="all" in command)
    assert shown == plain


@pytest.mark.parametrize(("command", "text"), outputs("ip/route.txt", "ip -j route", "ip -j -d route"))
def test_routes_in_json_print_as_they_were_read(command: str, text: str) -> None:
    assert ip_route.show_routes(ip_route.parse(text), json=True, details="-d" in command) == text


@pytest.mark.parametrize(
    ("command", "text"), outputs("ip/route6.txt", "ip -6 route | grep -v ^fe80", "ip -6 route show fd01::/64")
)
def test_ipv6_routes_print_as_they_were_read(command: str, text: str) -> None:
    assert ip_route.show_routes(ip_route.parse(text, family=6)) == text


@pytest.mark.parametrize(
    ("command", "text"), outputs("ip/rule.txt", "ip rule", "ip -j rule", "ip -6 rule", "ip -6 -j rule")
)
def test_rules_print_as_they_were_read(command: str, text: str) -> None:
    family = 6 if "-6" in command else 4
    ns = Network().add_netns("host")
    rules = ip_rule.parse(text, family=family)
    assert all(rule.family == family for rule in rules)
    assert ip_rule.show(ns, family=family, json="-j" in command, rules=rules) == text


@pytest.mark.parametrize(
    ("command", "text"), outputs("ip/neigh.txt", "ip neigh", "ip -4 neigh", "ip -6 neigh")
)
def test_neighbours_print_as_they_were_read(command: str, text: str) -> None:
    ns = Network().add_netns("host")
    assert ip_neigh.show(ns, entries=ip_neigh.parse(text)) == text


@pytest.mark.parametrize(
    ("command", "text"), outputs("ip/addr.txt", "ip addr", "ip -j addr", "ip -4 addr show cni0")
)
def test_links_and_addresses_print_as_they_were_read(command: str, text: str) -> None:
    ns = host(text)
    chosen = {"json": "-j" in command, "family": 4 if "-4" in command else 0}
    if "-4" in command:
        # Such a text has no hardware line.
        assert [a.local for a in ns.addrs("cni0")] == [a.local for a in ip_addr.parse(text)]
        return
    for name, link in ns.links.items():
        ns.links[name] = type(link)(
            **{f: getattr(link, f) for f in link.__struct_fields__} | {"activated": link.up}
        )
    # Text without -d tells no kinds: take them from the detailed one.
    kinds = {"cni0": "bridge", "flannel.1": "vxlan"}
    for name, kind in kinds.items():
        link = ns.links[name]
        ns.links[name] = type(link)(**{f: getattr(link, f) for f in link.__struct_fields__} | {"kind": kind})
    assert ip_addr.show(ns, **chosen) == text


def test_details_tell_kinds_and_options() -> None:
    text = "".join(
        out for _, out in outputs("ip/details.txt", "ip -d link show flannel.1", "ip -d link show veth1")
    )
    flannel, veth = ip_link.parse(text, netns="host")
    assert (flannel.kind, flannel.vxlan.vni, flannel.vxlan.local, flannel.vxlan.link) == (
        "vxlan",
        1,
        "192.168.1.10",
        "eth9",
    )
    assert not flannel.vxlan.learning
    assert (veth.kind, veth.peer, veth.master) == ("veth", Peer("host", "eth9"), "cni0")
    assert veth.port is not None
    assert veth.port.hairpin
    (other,) = ip_link.parse(
        dict(outputs("ip/details.txt", "ip -j -d link show flannel.1"))["ip -j -d link show flannel.1"]
    )
    assert other == flannel


def test_fdb_prints_as_it_was_read() -> None:
    network = Network()
    ns = network.add_netns("host")
    for command, text in outputs("bridge/fdb.txt", "bridge fdb", "bridge fdb show br cni0"):
        entries = bridge_fdb.parse(text)
        for entry in entries:
            if entry.dev not in ns.links:
                ns.add_link(entry.dev, "bridge" if entry.dev == "cni0" else "veth")
        assert "".join(bridge_fdb._text(entry, False) + "\n" for entry in entries) == text, command
        assert any(bridge_fdb.is_derived(entry) for entry in entries)


def _nodes(name: str) -> list[dict[str, Any]]:
    """Return the dumps of a recorded case's nodes that hold routes as JSON."""
    found = open_case("cni-flannel", name).get("state")
    nodes = found.values() if isinstance(found, dict) else []
    return [
        node
        for node in nodes
        if isinstance(node, dict) and node.get("route") and isinstance(node["route"][0], dict)
    ]


RECORDED = [name for name in cases("cni-flannel") if _nodes(name)]


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_real_flannel_node_printed_is_read(name: str) -> None:
    for node in _nodes(name):
        unknown: list[Fault] = []
        routes = ip_route.parse(json.dumps(node["route"]), unknown=unknown)
        assert len(routes) == len(node["route"])
        for row, route in zip(node["route"], routes, strict=True):
            assert ip_route.destination(route) == row["dst"]
            assert route.via == row.get("gateway", "")
            assert route.onlink == ("onlink" in row["flags"])
        rules = ip_rule.parse(json.dumps(node.get("rule", [])))
        assert len(rules) == len(node.get("rule", []))
        assert not unknown


def test_recordings_are_there() -> None:
    assert len(RECORDED) >= 2


@pytest.mark.parametrize(
    ("parse", "text", "faults"),
    [
        (ip_route.parse, "10.0.0.0/8 via nowhere\n\ndefault dev eth0 metric x\n", ["1 via must be", "3 metric must be"]),
        (ip_route.parse, "10.0.0.0/33 dev eth0\n", ["1 dst must be a prefix"]),
        (ip_route.parse, "10.0.0.0/8 tos 0x08 dev eth0\n", ["1 not modelled: tos 0x08"]),
        (ip_route.parse, '[{"dst":"10.0.0.0/8","dev":"e"},{"dev":"e"}]', ["0 'dst' is missing"]),
        (ip_route.parse, '[{"dst": ', ["1 not JSON"]),
        (ip_rule.parse, "from all lookup main\n5:\tfrom x lookup y\n", ["1 a rule begins", "2 from must be"]),
        (ip_neigh.parse, "10.0.0.1 dev eth0 lladdr zz REACHABLE\n10.0.0.2 dev eth0 SLEEPING\n", ["1 lladdr must", "2 state must"]),
        (ip_link.parse, "eth0: <UP>\n2: eth1: <UP,WEIRD> mtu x\n", ["1 a link begins", "2 not modelled: flag WEIRD", "2 mtu must"]),
        (ip_addr.parse, "2: eth0: <UP> mtu 1\n    inet 10.0.0.300/24 scope global eth0\n", ["2 local must be"]),
        (bridge_fdb.parse, "zz dev eth0 self permanent\n0a:00:00:00:00:01 self\n", ["1 mac must", "2 the entry names no device"]),
        (conntrack.parse, "tcp      6 100 FOO src=1.1.1.1 dst=2.2.2.2\nudp      6 1 src=x\n", ["1 state must", "2 udp is protocol 17"]),
        (ss.parse, "LISTEN 0 128 nowhere:80 *:*\nESTAB 0 0 10.0.0.1:5 10.0.0.2:80\n", ["1 Local Address:Port must", "2 not modelled: a socket in state ESTAB"]),
        (sysctl.parse, "net.ipv4.ip_forward 1\nnet.ipv4.nosuch = 1\n", ["1 a parameter is written", "2 not modelled: net.ipv4.nosuch"]),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_its_line(parse: Any, text: str, faults: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    told = [f"{fault.line} {fault.message}" for fault in caught.value.faults]
    assert len(told) == len(faults), told
    for found, wanted in zip(told, faults, strict=True):
        assert found.startswith(wanted)


def test_what_is_not_modelled_can_be_collected_instead() -> None:
    unknown: list[Fault] = []
    (route,) = ip_route.parse("10.0.0.0/8 tos 0x08 dev eth0 mtu lock 1400\n", unknown=unknown)
    assert (route.dev, route.mtu) == ("eth0", 1400)
    assert [fault.message for fault in unknown] == ["not modelled: tos 0x08", "not modelled: mtu lock"]


FLOWS = [
    "icmp     1 29 src=10.0.0.1 dst=10.0.0.1 type=8 code=0 id=27329 src=10.0.0.1 dst=10.0.0.1 type=0 code=0 id=27329 mark=0 use=1",
    "udp      17 29 src=10.0.0.1 dst=10.96.0.10 sport=40001 dport=53 [UNREPLIED] src=127.0.0.1 dst=10.0.0.1 sport=53 dport=40001 mark=0 use=1",
    "tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.1 sport=40009 dport=8080 src=10.0.0.1 dst=10.0.0.1 sport=8080 dport=40009 [ASSURED] mark=0 use=1",
    "tcp      6 119 SYN_SENT src=fd00::1 dst=fd00::2 sport=40005 dport=81 [UNREPLIED] src=fd00::2 dst=fd00::1 sport=81 dport=40005 mark=16384 use=1",
]


def test_flows_print_as_they_were_read() -> None:
    text = "".join(line + "\n" for line in FLOWS)
    flows = conntrack.parse(text, now=100.0)
    assert conntrack.show(flows, now=100.0) == text
    assert [(flow.src_nat, flow.dst_nat) for flow in flows] == [
        (False, False),
        (False, True),
        (False, False),
        (False, False),
    ]


def test_sockets_print_as_they_were_read() -> None:
    for command, text in outputs("ss/ss.txt", "ss -ltn", "ss -ltun", "ss -Hltn"):
        sockets = ss.parse(text)
        assert ss.show(sockets, netid="u" in command, header="H" not in command) == text


def test_parameters_print_as_they_were_read() -> None:
    ns = Network().add_netns("host")
    text = sysctl.show(ns)
    for key, value in sysctl.parse(
        text.replace("net.ipv4.ip_forward = 0", "net.ipv4.ip_forward = 1")
    ).items():
        ns.set_sysctl(key, value)
    assert ns.sysctl("net.ipv4.ip_forward") == "1"
    assert "net.ipv4.conf.lo.rp_filter = 0\n" in sysctl.show(ns)
