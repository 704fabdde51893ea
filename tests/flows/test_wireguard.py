"""The shop's flows over Flannel with backend wireguard, in every mode of the service proxy.

They end as over vxlan but for what is listed here, each with its cause. The device's address is the first of the node's
pod subnet, as that of flannel.1 is, so the table's addresses stand for the same things.
"""

from __future__ import annotations

import os
from functools import cache

import pytest
from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.cluster import PROXIES
from kubenet_lab.kernel.network import Network
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.twin.compare import model_outcomes
from kubenet_lab.twin.plan import plan
from tests.flows.flows import DIFFERENT, INSTEAD, ROWS, Row, flow, hold
from tests.flows.worlds import EXTRA, SHOP

SHOP_ROWS = [row for row in ROWS if row.world == SHOP]
INSTEAD_OVER_WIREGUARD: dict[str, dict[str, object]] = {
    # One route for all pods leads into the device, and it has no peer for the address: the sender is told at once.
    "pod network of no node": {"end": "unreachable", "icmp": (3, 1, "10.244.0.1")},
    # flanneld takes 80 bytes for the outer headers, and 50 for those of vxlan.
    "as big as may be, DF": {"size": 1392},
}


@cache
def world(mode: str) -> Network:
    """One world for all its rows: a flow leaves the state as it found it."""
    return Cluster.from_files(MANIFEST, EXTRA, proxy=mode, cni="flannel-wireguard").network


EVERY = os.environ.get("KUBENET_EVERY") == "1"
MODES = tuple(mode for mode in PROXIES if EVERY or mode in ("iptables", "nftables"))
"""KUBENET_EVERY=1 tries every mode of the service proxy."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", SHOP_ROWS, ids=lambda row: row.name)
def test_row(row: Row, mode: str) -> None:
    network = world(mode)
    row = replace(row, **INSTEAD.get(mode, {}).get(row.name, {}))
    row = replace(row, **INSTEAD_OVER_WIREGUARD.get(row.name, {}))
    outcomes, trace = model_outcomes(network, flow(row, network))
    if row.name in DIFFERENT.get(mode, {}):
        assert {o.end for o in outcomes} == {DIFFERENT[mode][row.name]} != {row.end}, trace
        return
    hold(row, network, outcomes, trace)


def test_the_listed_differences_are_some() -> None:
    assert set(INSTEAD_OVER_WIREGUARD) <= {row.name for row in SHOP_ROWS}


def test_the_twin_names_what_it_cannot_make() -> None:
    missing = plan(world("iptables")).missing
    assert {one.what for one in missing} == {"link flannel-wg of kind wireguard"}
    assert len(missing) == 3
