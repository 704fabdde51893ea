"""The shop's flows over host-gw and one node's bridge, and the Services table over each network, in every mode.

On the model; Calico's shop is in test_calico.py, Cilium's tables are in test_cilium.py.
"""

from __future__ import annotations

import os

import pytest

from kubenet_lab.cluster import PROXIES
from kubenet_lab.twin.compare import model_outcomes
from tests.flows import services
from tests.flows.flows import Row, flow, hold
from tests.flows.networks import (
    BRIDGE,
    FROM_THE_VIP,
    HOST_GW,
    ONE_NODE,
    SERVICE_ROWS,
    UNMASQUERADED,
    expected,
    rows_of,
    served,
    service_row,
    shop,
)

EVERY = os.environ.get("KUBENET_EVERY") == "1"
TABLES = [
    (cni, mode)
    for cni in (HOST_GW, "calico", "calico-ipip", "calico-vxlan")
    for mode in PROXIES
    if EVERY or cni == "calico" or (cni, mode) in ((HOST_GW, "iptables"), ("calico-vxlan", "nftables"))
]
"""KUBENET_EVERY=1 tries every network with every mode."""


@pytest.mark.parametrize("mode", PROXIES)
@pytest.mark.parametrize(
    ("cni", "row"),
    [(cni, row) for cni in (HOST_GW, BRIDGE) for row in rows_of(cni)],
    ids=lambda one: one.name if isinstance(one, Row) else one,
)
def test_shop(cni: str, row: Row, mode: str) -> None:
    network = shop(cni, mode)
    wanted = expected(row, cni, mode, network)
    outcomes, trace = model_outcomes(network, flow(wanted, network))
    hold(wanted, network, outcomes, trace)


@pytest.mark.parametrize(("cni", "mode"), TABLES)
@pytest.mark.parametrize("row", SERVICE_ROWS, ids=lambda row: row.name)
def test_services(row: services.Row, cni: str, mode: str) -> None:
    network = served(cni, mode)
    wanted = service_row(row, cni, mode, network)
    outcomes, trace = model_outcomes(network, services.flow(row, network))
    assert {o.end for o in outcomes} == {wanted.end}, trace
    assert {o.server for o in outcomes if o.server} == services.servers(wanted, network), trace
    assert {o.source_seen for o in outcomes if o.source_seen} == services.sources(wanted, network), trace


def test_what_is_listed_is_in_the_tables() -> None:
    assert set(ONE_NODE) <= {row.name for row in rows_of(BRIDGE)}
    assert {*UNMASQUERADED, *FROM_THE_VIP} <= {row.name for row in SERVICE_ROWS}
    assert len(rows_of(BRIDGE)) > 20
