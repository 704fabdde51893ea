"""Every row of the table in the real kernel, in both of kube-proxy's modes that it has rules for.

The model must allow everything the kernel did.
"""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Comparison, Twin
from tests.flows.flows import DIFFERENT, ROWS, Row, address, flow, place
from tests.flows.worlds import WORLDS

MODES = ("iptables", "nftables")


@pytest.fixture(scope="module")
def compared(kernel: None) -> dict[tuple[str, str], tuple[Network, Comparison]]:
    """All rows of each world and mode tried side by side, once."""
    out = {}
    for mode in MODES:
        for name, build in WORLDS.items():
            network = build(mode)
            rows = [row for row in ROWS if row.world == name]
            with Twin(network) as twin:
                met = twin.compare([flow(row, network) for row in rows])
            out.update({(row.name, mode): (network, one) for row, one in zip(rows, met, strict=True)})
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_model_and_kernel_agree(
    row: Row, mode: str, compared: dict[tuple[str, str], tuple[Network, Comparison]]
) -> None:
    _network, comparison = compared[row.name, mode]
    assert comparison.equal, f"\n{comparison}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_kernel_ends_as_the_table_says(
    row: Row, mode: str, compared: dict[tuple[str, str], tuple[Network, Comparison]]
) -> None:
    network, comparison = compared[row.name, mode]
    kernel = comparison.kernel
    assert {o.end for o in kernel} == {DIFFERENT.get(mode, {}).get(row.name, row.end)}
    seen = {o.server for o in kernel if o.server}
    allowed = {place(network, name) for name in row.servers}
    assert seen <= allowed
    assert bool(seen) == bool(allowed)
    assert {o.source_seen for o in kernel if o.source_seen} <= {address(network, s) for s in row.sources}
