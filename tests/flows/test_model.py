"""Every row of the table on the model alone, in every mode of the service proxy.

How it ends, who took it, what source was seen, which error came.
"""

from __future__ import annotations

from functools import cache

import pytest
from msgspec.structs import replace

from kubenet_lab.cluster import PROXIES
from kubenet_lab.kernel.network import Network
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.flows import DIFFERENT, INSTEAD, ROWS, Row, flow, hold
from tests.flows.worlds import UNSETTLED, WORLDS

MODES = tuple(mode for mode in PROXIES if mode not in UNSETTLED)


@cache
def world(name: str, mode: str) -> Network:
    """One world for all its rows: a flow leaves the state as it found it."""
    return WORLDS[name](mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, mode: str) -> None:
    network = world(row.world, mode)
    if row.name in INSTEAD.get(mode, {}):
        instead = replace(row, **INSTEAD[mode][row.name])
        assert instead != row
        row = instead
    outcomes, trace = model_outcomes(network, flow(row, network))
    if row.name in DIFFERENT.get(mode, {}):
        assert {o.end for o in outcomes} == {DIFFERENT[mode][row.name]} != {row.end}, trace
        return
    hold(row, network, outcomes, trace)


def test_every_end_occurs() -> None:
    """The table has no blind spot among the ends a caller can see."""
    ends = {
        "connected",
        "answered",
        "refused",
        "unreachable",
        "message too long",
        "ttl exceeded",
        "timed out",
    }
    assert {row.end for row in ROWS} == ends


def test_names_are_unique() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
