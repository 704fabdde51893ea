"""Every IPv6 row on the model alone, in every mode of the service proxy and in the pod networks that carry IPv6."""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.cluster import PROXIES
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.dual import INSTEAD, ROWS, address, flow, masquerades, over_calico, world
from tests.flows.flows import Row, place

WORLDS = [
    *(("flannel", mode) for mode in PROXIES),
    ("flannel-host-gw", "iptables"),
    ("bridge", "iptables"),
    *(("calico", mode) for mode in PROXIES),
    ("calico-vxlan", "iptables"),
]

MASQUERADED = {
    "pod to pod, across",
    "Service",
    "Service, from another node",
    "Service, with one endpoint",
    "ping, across",
}
"""bridge's `ipMasq` gives whatever leaves the node's own subnet the node's address, other pods' packets too."""

NODES_OWN = {"Service, itself only (hairpin)", "node to its pod", "TTL 1"}
"""Rows in which a node speaks over a link to a pod, which over Calico has no address of its own."""

built = cache(world)


def expected(row: Row, cni: str, mode: str) -> Row:
    row = replace(row, **INSTEAD.get(mode, {}).get(row.name, {}))
    if cni.startswith("calico"):
        return over_calico(row, cni)
    if cni == "bridge" and row.sources and row.name in (MASQUERADED | {"TTL 3, across", "pod to its node"}):
        return replace(row, sources=())
    return row


def seen_by(row: Row, cluster: Cluster) -> set[str]:
    return {address(cluster, name) for name in row.sources}


@pytest.mark.parametrize(("cni", "mode"), WORLDS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, cni: str, mode: str) -> None:
    cluster = built(cni, mode)
    row = expected(row, cni, mode)
    outcomes, trace = model_outcomes(cluster.network, flow(row, cluster))
    assert {o.end for o in outcomes} == {row.end}, trace
    assert {o.server for o in outcomes if o.server} == {
        place(cluster.network, name) for name in row.servers
    }, trace
    errors = {(o.icmp.type, o.icmp.code, o.icmp.sender) for o in outcomes if o.icmp is not None}
    if (cni, mode) == ("calico", "ipvs") and row.name in NODES_OWN:
        # The longest match decides (RFC 6724, rule 8): addresses on kube-ipvs0 begin as pods' do.
        node = cluster.network.ns("node-2" if row.src == "alone" else "node-1")
        seen = {o.source_seen for o in outcomes if o.source_seen} | {sender for _, _, sender in errors}
        assert seen, trace
        assert seen <= {a.local for a in node.addrs("kube-ipvs0", 6)}, trace
        return
    if row.sources:
        assert {o.source_seen for o in outcomes if o.source_seen} == seen_by(row, cluster), trace
    wanted = {(row.icmp[0], row.icmp[1], address(cluster, row.icmp[2]))} if row.icmp else set()
    assert errors == wanted, trace


def test_a_pool_that_masquerades() -> None:
    """`natOutgoing: true` on the IPv6 pool: outside sees the node, as over Flannel, and answers come back."""
    cluster = world("calico", "iptables")
    cluster.apply(masquerades("calico"))
    for row in ROWS:
        if "outside" in row.name and row.src == "frontend":
            outcomes, trace = model_outcomes(cluster.network, flow(row, cluster))
            assert {o.end for o in outcomes} == {row.end}, trace
            if row.sources:
                assert {o.source_seen for o in outcomes} == seen_by(row, cluster), trace


def test_bridge_masquerades_what_leaves_the_node() -> None:
    """The rows whose source is not compared there: the other node's pod sees the node."""
    cluster = built("bridge", "iptables")
    across = next(row for row in ROWS if row.name == "pod to pod, across")
    outcomes, trace = model_outcomes(cluster.network, flow(across, cluster))
    assert {o.source_seen for o in outcomes} == {address(cluster, "node-1")}, trace
