"""The shop's flows over Calico, in each encapsulation and every mode of the service proxy.

They end as over Flannel but for what is listed here, each with its cause. Addresses in the table that are Flannel's own
(cni0, flannel.1) stand for the node's own address and its tunnel's.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.cluster import PROXIES
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import ip_text, prefix
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.flows import DIFFERENT, INSTEAD, ROWS, Row, address, flow, place
from tests.flows.worlds import EXTRA, SHOP

CNIS = ("calico", "calico-ipip", "calico-vxlan")
TUNNELS = {"calico-ipip": "tunl0", "calico-vxlan": "vxlan.calico"}
SHOP_ROWS = [row for row in ROWS if row.world == SHOP]

UNUSED = "an address of a block that no pod has"
INSTEAD_OVER_CALICO: dict[str, dict[str, object]] = {
    # The block's own node has a blackhole route for it, which says nothing (recorded: ping gets no answer).
    "unknown address of a remote node's pods": {"end": "timed out", "icmp": None},
    "unknown address of a remote node's pods, UDP": {"end": "timed out", "icmp": None},
    "unknown address of the own node's pods": {"end": "timed out", "icmp": None},
}
FITS = {
    # Without headers of a tunnel, and with the 20 bytes of IPIP, a packet of 1451 bytes fits.
    "too big, DF": {"end": "answered", "servers": ("backend@node-2",), "sources": ("frontend",)},
    "too big for the tunnel, DF, from a node": {"end": "refused", "icmp": (3, 3, "backend@node-2")},
}
SEEN_HAIRPIN = {
    # Over cali... links, which have no address, a masqueraded packet gets the node's.
    "Service, from a node": {"sources": ("node-1", "tunnel@node-1")},
}


NFT = "-nft"
"""Ends the name of a world whose Felix programs nftables."""
NFT_MODE = (
    "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\n"
    "spec: {nftablesMode: Enabled}\n"
)


def build(cni: str, mode: str = "iptables") -> Cluster:
    """The shop over Calico, with either data plane of Felix."""
    made = Cluster.from_files(MANIFEST, EXTRA, proxy=mode, cni=cni.removesuffix(NFT))
    if cni.endswith(NFT):
        made.apply(NFT_MODE)
    return made


@cache
def cluster(cni: str, mode: str) -> Cluster:
    """One world for all its rows: a flow leaves the state as it found it."""
    return build(cni, mode)


def translated(text: str, cni: str, network: Network) -> str:
    """Return what an address of the table is over Calico."""
    if text.startswith("tunnel@"):
        node = text.removeprefix("tunnel@")
    elif text.startswith("10.244.") and text.split(".")[3] in ("0", "1"):
        node = f"node-{int(text.split('.')[2]) + 1}"
        if text.endswith(".1"):
            return address(network, node)
    else:
        return text
    device = TUNNELS.get(cni)
    return address(network, node) if device is None else network.ns(node).addrs(device, 4)[0].local


def unused(node: str, network: Network) -> str:
    """Return an address of a node's block that no pod has."""
    (block,) = [r.dst for r in network.ns(node).routes[4, 254].values() if r.type == "blackhole"]
    return ip_text(prefix(block).net + 50, 4)


def expected(row: Row, cni: str, mode: str, network: Network) -> Row:
    """Return the row as it must end."""
    cni = cni.removesuffix(NFT)
    row = replace(row, **INSTEAD.get(mode, {}).get(row.name, {}))
    if row.name in DIFFERENT.get(mode, {}):
        row = replace(row, end=DIFFERENT[mode][row.name], icmp=(3, 3, "node-1"))
    row = replace(row, **INSTEAD_OVER_CALICO.get(row.name, {}))
    if cni != "calico-vxlan":
        row = replace(row, **FITS.get(row.name, {}))
    row = replace(row, **SEEN_HAIRPIN.get(row.name, {}))
    sources = tuple(translated(source, cni, network) for source in row.sources)
    icmp = row.icmp and (row.icmp[0], row.icmp[1], translated(row.icmp[2], cni, network))
    dst = row.dst
    if dst.endswith(".77") and dst.startswith("10.244."):
        dst = unused(f"node-{int(dst.split('.')[2]) + 1}", network)
    return replace(row, sources=sources, icmp=icmp, dst=dst)


EVERY = os.environ.get("KUBENET_EVERY") == "1"
PAIRS = [
    (cni, mode)
    for cni in CNIS
    for mode in PROXIES
    if EVERY or mode == "iptables" or cni == "calico" or (cni, mode) == ("calico-vxlan", "nftables")
]
PAIRS += [(f"{cni}{NFT}", mode) for cni, mode in PAIRS if EVERY or (cni, mode) == ("calico", "nftables")]
"""KUBENET_EVERY=1 tries every encapsulation with every mode, in both data planes of Felix."""


@pytest.mark.parametrize(("cni", "mode"), PAIRS)
@pytest.mark.parametrize("row", SHOP_ROWS, ids=lambda row: row.name)
def test_row(row: Row, cni: str, mode: str) -> None:
    network = cluster(cni, mode).network
    if row.name == "pod network of no node":
        row = replace(row, dst="10.244.255.1")
    wanted = expected(row, cni, mode, network)
    outcomes, trace = model_outcomes(network, flow(wanted, network))
    assert {o.end for o in outcomes} == {wanted.end}, trace
    assert {o.server for o in outcomes if o.server} == {place(network, name) for name in wanted.servers}, (
        trace
    )
    seen = {o.source_seen for o in outcomes if o.source_seen}
    assert seen == {address(network, s) for s in wanted.sources}, trace
    errors = {(o.icmp.type, o.icmp.code, o.icmp.sender) for o in outcomes if o.icmp is not None}
    icmp = {(wanted.icmp[0], wanted.icmp[1], address(network, wanted.icmp[2]))} if wanted.icmp else set()
    assert errors == icmp, trace


def test_the_listed_differences_are_some() -> None:
    names = {row.name for row in SHOP_ROWS}
    assert {*INSTEAD_OVER_CALICO, *FITS, *SEEN_HAIRPIN} <= names
