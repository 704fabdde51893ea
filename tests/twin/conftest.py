"""Tests here need a kernel; without one they say why and skip, or fail under KUBENET_NO_SKIP=1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubenet_lab.twin import Twin, unavailable
from tests.flows.worlds import two_nodes

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session")
def kernel() -> None:
    """This machine can have a twin."""
    reason = unavailable()
    if reason and os.environ.get("KUBENET_NO_SKIP") == "1":
        pytest.fail(f"no twin on this machine, and KUBENET_NO_SKIP=1: {reason}")
    if reason:
        pytest.skip(f"no twin on this machine: {reason}")


@pytest.fixture(scope="module")
def twin(kernel: None) -> Iterator[Twin]:
    """A twin of `two_nodes`."""
    with Twin(two_nodes()) as made:
        yield made
