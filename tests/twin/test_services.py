"""Every row of the Services table in the real kernel, with the rules kube-proxy writes for iptables and nftables.

One twin a world and mode; all rows are tried in it side by side.
"""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Comparison, Twin
from tests.flows.services import ROWS, Row, expected, flow, servers, sources
from tests.flows.services_worlds import WORLDS

MODES = ("iptables", "nftables")
"""Modes whose state this kernel can be given."""
TRIED = tuple(row for row in ROWS if row.protocol != "sctp")
ATTEMPTS = 6
"""Calls of a row that more than one pod may serve; all other rows end alike whenever they are tried."""


class Tried:
    """A world in the kernel: what its rows met, and what could not be made there."""

    def __init__(self, build: object, world: str, mode: str) -> None:
        assert callable(build)
        self.network: Network = build(mode)
        rows = [row for row in TRIED if row.world == world]
        flows = [flow(row, self.network, count=ATTEMPTS if len(row.servers) > 1 else 1) for row in rows]
        with Twin(self.network, strict=False) as twin:
            self.missing = {str(one) for one in twin.missing}
            self.differences = twin.differences()
            self.met: dict[str, Comparison] = {
                row.name: one for row, one in zip(rows, twin.compare(flows), strict=True)
            }


@pytest.fixture(scope="module")
def tried(kernel: None) -> dict[tuple[str, str], Tried]:
    """Every world in every mode, once."""
    return {(world, mode): Tried(build, world, mode) for world, build in WORLDS.items() for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", TRIED, ids=lambda row: row.name)
def test_row(row: Row, mode: str, tried: dict[tuple[str, str], Tried]) -> None:
    there = tried[row.world, mode]
    comparison = there.met[row.name]
    assert comparison.equal, f"\n{comparison}"
    wanted = expected(row, mode)
    assert {o.end for o in comparison.kernel} == {wanted.end}
    seen = {o.server for o in comparison.kernel if o.server}
    assert seen <= servers(wanted, there.network)
    assert bool(seen) == bool(wanted.servers)
    assert {o.source_seen for o in comparison.kernel if o.source_seen} <= sources(wanted, there.network)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world", WORLDS)
def test_only_sctp_is_missing(world: str, mode: str, tried: dict[tuple[str, str], Tried]) -> None:
    """The rows of SCTP are not tried here; the twin says which sockets it has not opened, and why."""
    there = tried[world, mode]
    assert there.missing
    assert all(
        one.endswith("socket of protocol 132 on port 9000: the twin serves TCP and UDP")
        for one in there.missing
    )
    assert there.differences == []
