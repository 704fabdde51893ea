"""Every IPv6 row of the dual-stack shop in the real kernel: the model must allow everything the kernel did."""

from __future__ import annotations

import pytest

from kubenet_lab.twin import Comparison, Twin
from tests.flows.dual import ROWS, address, flow, masquerades, world
from tests.flows.flows import Row

CNIS = ("flannel", "calico", "calico-vxlan")


@pytest.fixture(scope="module", params=CNIS)
def compared(request: pytest.FixtureRequest, kernel: None) -> tuple[str, dict[str, Comparison]]:
    """All rows tried side by side, once: Flannel's IPv6 tunnel and Calico's routes, kube-proxy's ip6tables."""
    cluster = world(request.param, "iptables")
    if request.param.startswith("calico"):
        # With it an answer finds its way back: of a call that nobody answers the kernel cannot say who took it.
        cluster.apply(masquerades(request.param))
    with Twin(cluster.network) as twin:
        # The kernel lets a link speak IPv6 when its link watch has seen the carrier, which may take it a second.
        for _ in range(20):
            if twin.run("outside", f"ping -c1 -W1 {address(cluster, 'node-1')}").exit_code == 0:
                break
        met = twin.compare([flow(row, cluster) for row in ROWS])
    return request.param, {row.name: one for row, one in zip(ROWS, met, strict=True)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_model_and_kernel_agree(row: Row, compared: tuple[str, dict[str, Comparison]]) -> None:
    cni, met = compared
    comparison = met[row.name]
    assert comparison.equal, f"\n{comparison}"
    assert {o.end for o in comparison.kernel} == {row.end}, cni
