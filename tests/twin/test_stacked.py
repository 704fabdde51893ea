"""Flows through macvlan, ipvlan and VLAN devices in the real kernel: each ends as in the model, and as the table says.

A kernel without a kind of device is told by the twin, by name; then there is nothing to compare.
"""

from __future__ import annotations

import pytest

from kubenet_lab.twin import Flow, Twin
from tests.flows.stacked import KINDS, ROWS, WORLDS
from tests.flows.test_stacked import flow
from tests.kubenet_lab.cni.test_stacked_pods import pods


@pytest.mark.parametrize("name", WORLDS)
def test_model_and_kernel_agree(kernel: None, name: str) -> None:
    rows = [row for row in ROWS if row.world == name]
    with Twin(WORLDS[name](), strict=False) as twin:
        if twin.missing:
            kinds = {one.what.rpartition(" of kind ")[2] for one in twin.missing if " of kind " in one.what}
            # A kernel without VLANs has none in its bridges either, and no macvlan finds its link.
            others = {"macvlan", "bridge"} if KINDS[name] == "vlan" else set()
            assert KINDS[name] in kinds <= {KINDS[name], *others}, twin.missing
            assert all(" of kind " in one.what or one.what.startswith("bridge vlan") for one in twin.missing)
            return
        met = twin.compare([flow(row) for row in rows])
        differs = [str(one) for one in met if not one.equal]
        assert not differs, "\n".join(differs)
        ends = {
            row.name: {(o.end, o.source_seen) for o in one.kernel} for row, one in zip(rows, met, strict=True)
        }
        assert ends == {row.name: {(row.end, row.source)} for row in rows}
        assert twin.differences() == []


@pytest.mark.parametrize("mode", ["bridge", "private"])
def test_pods_that_the_macvlan_plugin_attached(kernel: None, mode: str) -> None:
    """Every pair of pods and hosts, in the model's state and in the kernel that was given it."""
    network, addresses = pods(type="macvlan", mode=mode)
    flows = [
        Flow(ns=src, dst=address, port=80)
        for src in addresses
        for dst, address in addresses.items()
        if src != dst
    ]
    with Twin(network) as twin:
        differs = [str(one) for one in twin.compare(flows) if not one.equal]
        assert not differs, "\n".join(differs)
