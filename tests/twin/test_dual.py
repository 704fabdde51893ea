"""Every IPv6 row of the dual-stack shop in the real kernel: the model must allow everything the kernel did."""

from __future__ import annotations

import pytest

from kubenet_lab.twin import Comparison, Twin
from tests.flows.dual import ROWS, address, flow, world
from tests.flows.flows import Row


@pytest.fixture(scope="module")
def compared(kernel: None) -> dict[str, Comparison]:
    """All rows tried side by side, once: Flannel's IPv6 tunnel, kube-proxy's ip6tables."""
    cluster = world("flannel", "iptables")
    with Twin(cluster.network) as twin:
        # The kernel lets a link speak IPv6 when its link watch has seen the carrier, which may take it a second.
        for _ in range(20):
            if twin.run("outside", f"ping -c1 -W1 {address(cluster, 'node-1')}").exit_code == 0:
                break
        met = twin.compare([flow(row, cluster) for row in ROWS])
    return {row.name: one for row, one in zip(ROWS, met, strict=True)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_model_and_kernel_agree(row: Row, compared: dict[str, Comparison]) -> None:
    comparison = compared[row.name]
    assert comparison.equal, f"\n{comparison}"
    assert {o.end for o in comparison.kernel} == {row.end}
