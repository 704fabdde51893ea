"""The truth, cell by cell: what each caller sees through each door, in each data plane and with each load balancer."""

from __future__ import annotations

import functools

import pytest

from kubenet_lab.cluster import PROXIES, Cluster
from kubenet_lab.scenarios.outside import CLIENTS, calls, outside
from kubenet_lab.views.outside_matrix import COLUMNS, OutsideMatrix, outside_matrix, outside_matrix_svg

PLACES = ("outside", "pod on node-1", "pod on node-2", "node-1")
CLUSTER_IP, CLUSTER_IP_L = "clusterIP, Cluster", "clusterIP, Local"
PORT_1, PORT_1_L = "node port on node-1 (no pod), Cluster", "node port on node-1 (no pod), Local"
PORT_2, PORT_2_L = "node port on node-2 (a pod), Cluster", "node port on node-2 (a pod), Local"
LB, LB_L = "load balancer, Cluster", "load balancer, Local"

# Door: what callers outside, in a pod on node-1, in a pod on node-2 and on node-1 itself see. "23 client": pods on
# node-2 and node-3 answer and see the client's own address; "2 node-1": only node-2's pod, which sees node-1.
#
# Why, cell by cell (proxier.go of iptables mode; the virtual-ips page of the documentation):
# - clusterIP: nobody outside has a route to it; a node's own call is no pod's, so it is masqueraded on a far pod's way.
# - node port, Cluster: every node answers with any pod, and masquerades, so that the answer comes back through it.
# - node port, Local: only a node with a pod; without one it drops what comes from outside. Traffic of a node's own pods
#   (or of the node itself) is not from outside: it may go to all pods. Flannel masquerades what a pod sends to a node,
#   so node-2's pod asks node-1 as node-2, which is not one of node-1's pods: dropped.
DOORS = {
    CLUSTER_IP: ("unreachable", "23 client", "23 client", "23 node-1"),
    PORT_1: ("23 node-1", "23 node-1", "23 node-1", "23 node-1"),
    PORT_2: ("23 node-2", "23 node-2", "23 node-2", "23 node-2"),
    CLUSTER_IP_L: ("unreachable", "23 client", "23 client", "23 node-1"),
    PORT_1_L: ("timed out", "23 client", "timed out", "23 node-1"),
    PORT_2_L: ("2 client", "2 node-1", "23 client", "2 client"),
}
# - ipMode VIP: a call from a node or its pods never gets as far as the load balancer; the node's own rules take it.
VIP = {
    LB: ("23 node-1 node-2 node-3", "23 node-1", "23 node-2", "23 node-1"),
    LB_L: ("23 client", "23 client", "23 client", "23 node-1"),
}
# - ipMode Proxy: everybody goes through the load balancer, and it is whom the server sees under Local.
PROXY = {
    LB: ("23 node-1 node-2 node-3",) * 4,
    LB_L: ("23 cloud-lb",) * 4,
}
# IPVS knows one set of servers for an address: those of its own node under Local, for its own pods too; and all, where
# it has none ("traffic from an external source will be routed", kubernetes/kubernetes pull request 97081). Flannel then
# masquerades what comes from outside the pods' network, so that even the answer comes back.
IPVS = {
    PORT_1_L: ("23 node-1", "23 client", "23 node-1", "23 node-1"),
    PORT_2_L: ("2 client", "2 node-1", "2 client", "2 client"),
}
IPVS_VIP = {LB_L: ("23 client", "23 client", "2 client", "23 node-1")}
# Cilium translates what a node's own programs and pods call when they call connect(): nobody rewrites their packets,
# and a node port is theirs on any node. What comes from outside keeps its source on the way to a pod of the node, and
# gets the node's where the pod is elsewhere; under Local a node without a pod refuses (`service-no-backend-response`).
# https://docs.cilium.io/en/stable/network/kubernetes/kubeproxy-free/#client-source-ip-preservation
INSIDE = ("23 client",) * 3
EBPF = {
    CLUSTER_IP: ("unreachable", *INSIDE),
    PORT_1: ("23 node-1", *INSIDE),
    PORT_2: ("23 client node-2", *INSIDE),
    CLUSTER_IP_L: ("unreachable", *INSIDE),
    PORT_1_L: ("refused", *INSIDE),
    PORT_2_L: ("2 client", *INSIDE),
}
EBPF_VIP = {LB: ("23 client node-1 node-2 node-3", *INSIDE), LB_L: ("23 client", *INSIDE)}
# Behind the proxy "cloud-lb" is the client of a node with a pod; where node-1 calls, its address is "the client".
EBPF_PROXY = {LB: (*("23 cloud-lb node-1 node-2 node-3",) * 3, "23 client cloud-lb node-2 node-3")}
MODES = [name for name in ("iptables", "nftables", "ipvs", "ebpf") if name in PROXIES]


@functools.cache
def matrix(balancer: str, proxy: str) -> tuple[Cluster, OutsideMatrix]:
    world = outside(load_balancer=balancer, proxy=proxy)
    return world, calls(world, 16)


def told(found: OutsideMatrix, door: str, place: str) -> str:
    cell = found[door, place]
    if not cell.delivered:
        return cell.verdict
    assert cell.delivered == len(cell.trips), cell.telling.text()
    return " ".join(
        ["".join(node[-1] for node in cell.nodes), *(word.removeprefix("the ") for word in cell.seen)]
    )


@pytest.mark.parametrize("proxy", MODES)
@pytest.mark.parametrize(("balancer", "doors"), [("cloud", DOORS | VIP), ("cloud-proxy", DOORS | PROXY)])
def test_every_cell(balancer: str, doors: dict[str, tuple[str, ...]], proxy: str) -> None:
    _world, found = matrix(balancer, proxy)
    assert set(found.doors) == set(doors)
    if proxy == "ipvs":
        doors = doors | IPVS | (IPVS_VIP if balancer == "cloud" else {})
    if proxy == "ebpf":
        doors = doors | EBPF | (EBPF_VIP if balancer == "cloud" else EBPF_PROXY)
    for door, expected in doors.items():
        for (place, source), wanted in zip(CLIENTS.items(), expected, strict=True):
            said = told(found, door, place)
            assert said == wanted, (
                f"{balancer} {proxy}: {door} from {place} ({source})\n{found[door, place].telling.text()}"
            )


def test_the_way_and_the_translations_are_read_off_the_calls() -> None:
    _world, found = matrix("cloud", "iptables")
    cell = found[LB_L, "a client outside"]
    assert set(cell.ways) == {"outside → router → cloud-lb → node-2", "outside → router → cloud-lb → node-3"}
    assert cell.translations == (1, 1)
    assert found[PORT_1, "a client outside"].translations == (2, 2), "destination and source"
    assert found[CLUSTER_IP, "a client outside"].translations == (0, 0)


def test_text_table_and_picture_say_the_same() -> None:
    _world, found = matrix("cloud", "iptables")
    part = found.only("node-1 (no pod)")
    assert part.doors == (PORT_1, PORT_1_L)
    assert "  a client outside: timed out" in str(part).splitlines()
    frame = part.table()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 8
    picture = outside_matrix_svg(part)
    for words in ("who see node-1", "timed out", "pods on node-2, node-3"):
        assert words in picture
    assert picture.count('class="hit"') == 8
    assert "<img" in part._repr_html_()


def test_without_a_load_balancer_there_is_no_such_door() -> None:
    world = outside(load_balancer="none")
    assert LB not in calls(world, 1).doors


def test_a_cell_without_a_call_is_refused() -> None:
    world, _found = matrix("cloud", "iptables")
    trip = world.connect("client-1", "tcp://10.96.0.110:80")
    with pytest.raises(ValueError, match=r"no call for \('b', 'x'\)"):
        outside_matrix({("a", "x"): [trip], ("a", "y"): [trip], ("b", "y"): [trip]})


def test_some_calls_lost_is_neither_green_nor_red() -> None:
    world, _found = matrix("cloud", "iptables")
    good = world.connect("203.0.113.77", "tcp://192.168.1.20:30120")
    bad = world.connect("203.0.113.77", "tcp://192.168.1.10:30120")
    cell = outside_matrix({("door", "place"): [good, bad]})["door", "place"]
    assert cell.verdict == "1 connected, 1 timed out"
    assert cell.telling is bad
    assert "f-service" in outside_matrix_svg(outside_matrix({("door", "place"): [good, bad]}))
