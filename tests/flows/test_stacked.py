"""Flows through macvlan, ipvlan and VLAN devices, on the model."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Flow
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.stacked import ROWS, WORLDS, Row


@cache
def world(name: str) -> Network:
    """One world for all its rows: a flow leaves the state as it found it."""
    return WORLDS[name]()


def flow(row: Row) -> Flow:
    """The row as a flow to try."""
    return Flow(
        ns=row.src, dst=row.dst, port=row.port, proto=row.proto, size=row.size, df=row.df, name=row.name
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row) -> None:
    outcomes, trace = model_outcomes(world(row.world), flow(row))
    assert [(o.end, o.errno, o.source_seen) for o in outcomes] == [(row.end, row.errno, row.source)], trace


def test_names_are_unique_and_every_world_has_rows() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.world for row in ROWS} == set(WORLDS)
