"""Every row of the table in the real kernel: the model must allow everything the kernel did."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.twin import Comparison, Twin
from tests.flows.flows import ROWS, Row, address, flow, place
from tests.flows.worlds import WORLDS


@pytest.fixture(scope="module")
def compared(kernel: None) -> dict[str, Comparison]:
    """All rows of each world tried side by side, once."""
    out: dict[str, Comparison] = {}
    for name, build in WORLDS.items():
        network = build()
        rows = [row for row in ROWS if row.world == name]
        with Twin(network) as twin:
            for row, comparison in zip(rows, twin.compare([flow(row, network) for row in rows]), strict=True):
                out[row.name] = comparison
    return out


@cache
def names(world: str) -> object:
    return WORLDS[world]()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_model_and_kernel_agree(row: Row, compared: dict[str, Comparison]) -> None:
    comparison = compared[row.name]
    assert comparison.equal, f"\n{comparison}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_kernel_ends_as_the_table_says(row: Row, compared: dict[str, Comparison]) -> None:
    network = names(row.world)
    kernel = compared[row.name].kernel
    assert {o.end for o in kernel} == {row.end}
    seen = {o.server for o in kernel if o.server}
    allowed = {place(network, name) for name in row.servers}  # type: ignore[arg-type]
    assert seen <= allowed
    assert bool(seen) == bool(allowed)
    assert {o.source_seen for o in kernel if o.source_seen} <= {address(network, s) for s in row.sources}  # type: ignore[arg-type]
