"""Calico's worlds in the real kernel: the state comes up whole, and the shop's flows end as in the model.

Nothing of IPIP here: where the kernel has no ipip, the twin names it.
"""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Comparison, Twin
from tests.flows.flows import ROWS, Row, flow
from tests.flows.test_calico import SHOP_ROWS, build, expected

CNIS = ("calico", "calico-vxlan", "calico-nft")


def world(cni: str) -> Network:
    return build(cni).network


@pytest.fixture(scope="module", params=CNIS)
def compared(request: pytest.FixtureRequest, kernel: None) -> tuple[str, list[str], dict[str, Comparison]]:
    """All rows tried side by side, once an encapsulation; and what of the state the kernel did not take."""
    network = world(request.param)
    rows = [expected(row, request.param, "iptables", network) for row in SHOP_ROWS]
    with Twin(network) as twin:
        differences = [*map(str, twin.missing), *twin.differences()]
        met = twin.compare([flow(row, network) for row in rows])
    return request.param, differences, {row.name: one for row, one in zip(rows, met, strict=True)}


def test_the_state_is_the_models(compared: tuple[str, list[str], dict[str, Comparison]]) -> None:
    assert compared[1] == []


@pytest.mark.parametrize("row", SHOP_ROWS, ids=lambda row: row.name)
def test_model_and_kernel_agree(row: Row, compared: tuple[str, list[str], dict[str, Comparison]]) -> None:
    comparison = compared[2][row.name]
    assert comparison.equal, f"{compared[0]}\n{comparison}"


def test_ipip_is_named_where_the_twin_has_none(kernel: None) -> None:
    with Twin(world("calico-ipip"), strict=False) as twin:
        named = [str(missing) for missing in twin.missing if "tunl0 of kind ipip" in str(missing)]
    assert len(named) == 3, named


def test_the_table_is_the_shops() -> None:
    assert {row.name for row in SHOP_ROWS} < {row.name for row in ROWS}
