"""The tables of flows with Cilium as the pod network, beside kube-proxy and without it.

Where a row really comes out otherwise than with Flannel it stands here, or in `services_cilium.py`, with its source.
"""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from kubenet_lab.cluster import Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.flows import B1, ROWS, Row, flow, hold
from tests.flows.services import ROWS as SERVICES
from tests.flows.services import Row as ServiceRow
from tests.flows.services import expected, servers, sources
from tests.flows.services import flow as service_flow
from tests.flows.services_cilium import CILIUM
from tests.flows.services_worlds import (
    ADDRESSES,
    BY_NODE_1,
    BY_NODE_3,
    MACHINES,
    OBJECTS,
    SERVERS,
    services,
    written,
)
from tests.flows.worlds import EXTRA, SHOP

Changes = dict[str, dict[str, object]]

NOBODY_ANSWERS: dict[str, object] = {"end": "timed out", "icmp": None}
TUNNEL: Changes = {
    # The host has cilium_host's address for pods elsewhere, where it has flannel.1's with Flannel.
    "Service, from a node": {"sources": ("10.244.0.1",)},
    "DNS over UDP, from a node": {"sources": ("10.244.2.1",)},
    "node to another node's pod": {"sources": ("10.244.0.1",)},
    # Blocks are looked up in the ipcache and no ARP asks for a pod: what no endpoint has gets lost in silence.
    "unknown address of a remote node's pods": NOBODY_ANSWERS,
    "unknown address of a remote node's pods, UDP": NOBODY_ANSWERS,
    "unknown address of the own node's pods": NOBODY_ANSWERS,
    # Only the node's own block is not masqueraded: the router gets it and answers.
    "pod network of no node": {"end": "unreachable", "icmp": (3, 0, "192.168.1.1")},
    # bpf/lib/l3.h, ipv4_l3: a TTL that runs out in a program is dropped without ICMP; the tunnel's sender counts none.
    "TTL 1": NOBODY_ANSWERS,
    "TTL 1, UDP to a Service": NOBODY_ANSWERS,
    "TTL 1, TCP to a Service": NOBODY_ANSWERS,
    "TTL 2, across": {
        "end": "answered",
        "servers": ("backend@node-2",),
        "sources": ("frontend",),
        "icmp": None,
    },
}
BESIDE: Changes = {
    # --kube-proxy-replacement=false: cluster IPs are still served to pods packet by packet at their veth.
    "Service, maybe itself (hairpin)": {"sources": (B1, "169.254.42.1")},
    "Service, itself only (hairpin)": {"sources": ("169.254.42.1",)},
    "Service without endpoints": {"icmp": (3, 3, "10.96.0.250")},
}
REPLACED: Changes = {
    # The socket is given a backend (bpf/bpf_sock.c).
    "Service, maybe itself (hairpin)": {"sources": (B1,)},
    "Service, itself only (hairpin)": {"sources": ("alone",)},
    "Service without endpoints": {"end": "unreachable", "icmp": None},
    "Service without endpoints, from a node": {"end": "unreachable", "icmp": None},
}
NATIVE: Changes = {
    # Routes between nodes: the host keeps its own address, nothing is wrapped, and nodes see pods as they are.
    "Service, from a node": {"sources": ("10.244.0.1", "192.168.1.10")},
    "DNS over UDP, from a node": {"sources": ("192.168.1.30",)},
    "node to another node's pod": {"sources": ("192.168.1.10",)},
    "pod to another node": {"sources": ("frontend",)},
    "ping a node": {"sources": ("frontend",)},
    "too big, DF": {"end": "answered", "servers": ("backend@node-2",), "sources": ("frontend",)},
    "too big for the tunnel, DF, from a node": {"end": "refused", "icmp": (3, 3, "backend@node-2")},
    "pod network of no node": {},
    "unknown neighbour of a node, from a pod": NOBODY_ANSWERS,
    "TTL 2, across": NOBODY_ANSWERS,
}
"""eBPF host routing: from the pod's veth straight out of eth0."""

WORLDS: dict[tuple[str, str], Changes] = {
    ("cilium", "iptables"): TUNNEL | BESIDE,
    ("cilium", "ebpf"): TUNNEL | REPLACED,
    ("cilium-native", "ebpf"): TUNNEL | REPLACED | NATIVE,
}


@cache
def shop(cni: str, proxy: str) -> Network:
    return written(Cluster.from_files(MANIFEST, EXTRA, cni=cni, proxy=proxy).network)


@pytest.mark.parametrize(("cni", "proxy"), WORLDS)
@pytest.mark.parametrize("row", [row for row in ROWS if row.world == SHOP], ids=lambda row: row.name)
def test_row(row: Row, cni: str, proxy: str) -> None:
    network = shop(cni, proxy)
    changes = WORLDS[cni, proxy].get(row.name)
    if changes:
        changed = replace(row, **changes)
        assert changed != row, "no difference"
        row = changed
    outcomes, trace = model_outcomes(network, flow(row, network))
    hold(row, network, outcomes, trace)


def test_every_difference_is_of_a_row() -> None:
    names = {row.name for row in ROWS}
    assert all(set(changes) <= names for changes in WORLDS.values())


@cache
def world(proxy: str) -> Network:
    cluster = Cluster.from_files(MACHINES, dns=False, proxy=proxy, cni="cilium")
    cluster.apply(services({name: cluster.pod(name).ips[0] for name in SERVERS}))
    router = cluster.network.ns("router")
    router.add_route(BY_NODE_1, via=ADDRESSES["node-1"], dev="eth0")
    router.add_route(BY_NODE_3, via=ADDRESSES["node-3"], dev="eth0")
    return written(cluster.network)


def with_cilium(row: ServiceRow, proxy: str) -> ServiceRow:
    row = expected(row, proxy)
    moved = tuple(dict.fromkeys(_moved(source) for source in row.sources))
    row = ServiceRow(row.world, row.service, row.src, row.target, row.end, row.servers, moved)
    for one in CILIUM[proxy]:
        if (one.service, one.caller, one.target) == (row.service, row.src, row.target):
            other = ServiceRow(
                row.world, row.service, row.src, row.target, one.end, one.servers, one.sources
            )  # fmt: skip
            assert other != row, "no difference"
            return other
    return row


def _moved(source: str) -> str:
    """flannel.1's address becomes cilium_host's."""
    return source[:-1] + "1" if source.startswith("10.244.") and source.endswith(".0") else source


@pytest.mark.parametrize("proxy", CILIUM)
@pytest.mark.parametrize("row", [row for row in SERVICES if row.world == OBJECTS], ids=lambda row: row.name)
def test_service(row: ServiceRow, proxy: str) -> None:
    network = world(proxy)
    outcomes, trace = model_outcomes(network, service_flow(row, network))
    wanted = with_cilium(row, proxy)
    assert {o.end for o in outcomes} == {wanted.end}, trace
    assert {o.server for o in outcomes if o.server} == servers(wanted, network), trace
    assert {o.source_seen for o in outcomes if o.source_seen} == sources(wanted, network), trace
