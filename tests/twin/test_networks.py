"""Host-gw, one node's bridge and Calico in the real kernel: both tables of flows end as in the model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Comparison, Flow, Twin
from tests.flows import services
from tests.flows.flows import flow
from tests.flows.networks import BRIDGE, HOST_GW, SERVICE_ROWS, expected, rows_of, served, service_row, shop

SHOPS = [(cni, mode) for cni in (HOST_GW, BRIDGE) for mode in ("iptables", "nftables")]
TABLES = [(HOST_GW, "iptables"), ("calico", "nftables"), ("calico-vxlan", "iptables")]
TRIED = [row for row in SERVICE_ROWS if row.protocol != "sctp"]
"""The prober speaks no SCTP."""


def met(network: Network, flows: Sequence[Flow]) -> list[Comparison]:
    """Try flows in both; the state has to come up whole, but for servers of SCTP."""
    with Twin(network, strict=False) as twin:
        assert all("socket of protocol 132" in one.what for one in twin.missing), twin.missing
        assert twin.differences() == []
        return twin.compare(flows)


@pytest.mark.parametrize(("cni", "mode"), SHOPS)
def test_shop(cni: str, mode: str, kernel: None) -> None:
    network = shop(cni, mode)
    rows = [expected(row, cni, mode, network) for row in rows_of(cni)]
    found = met(network, [flow(row, network) for row in rows])
    assert not [str(one) for one in found if not one.equal]
    ends = {row.name: {o.end for o in one.kernel} for row, one in zip(rows, found, strict=True)}
    assert ends == {row.name: {row.end} for row in rows}


@pytest.mark.parametrize(("cni", "mode"), TABLES)
def test_services(cni: str, mode: str, kernel: None) -> None:
    network = served(cni, mode)
    rows = [service_row(row, cni, mode, network) for row in TRIED]
    found = met(network, [services.flow(row, network) for row in TRIED])
    assert not [str(one) for one in found if not one.equal]
    ends = {row.name: {o.end for o in one.kernel} for row, one in zip(rows, found, strict=True)}
    assert ends == {row.name: {row.end} for row in rows}
