"""Every row of the Services table in every mode of kube-proxy and its replacements, on the model."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.cluster import PROXIES
from kubenet_lab.kernel.network import Network
from kubenet_lab.twin.compare import model_outcomes
from tests.flows.services import DIFFERENCES, ROWS, Row, expected, flow, servers, sources
from tests.flows.services_worlds import WORLDS
from tests.flows.worlds import UNSETTLED

MODES = tuple(mode for mode in PROXIES if mode not in UNSETTLED)


@cache
def world(name: str, mode: str) -> Network:
    """One world for all its rows: a flow leaves the state as it found it."""
    return WORLDS[name](mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, mode: str) -> None:
    network = world(row.world, mode)
    outcomes, trace = model_outcomes(network, flow(row, network))
    wanted = expected(row, mode)
    assert {o.end for o in outcomes} == {wanted.end}, trace
    assert {o.server for o in outcomes if o.server} == servers(wanted, network), trace
    assert {o.source_seen for o in outcomes if o.source_seen} == sources(wanted, network), trace


def test_the_table_covers_what_it_promises() -> None:
    assert len(ROWS) >= 200
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.family for row in ROWS} == {4, 6}
    assert {row.protocol for row in ROWS} == {"tcp", "udp", "sctp", "icmp"}
    assert {row.end for row in ROWS} == {
        "connected", "answered", "refused", "unreachable", "timed out", "ttl exceeded", "not permitted",
    }  # fmt: skip
    assert any(row.src in row.servers for row in ROWS), "no pod that calls itself"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: f"{one.mode}, {one.why[:40]}")
def test_a_difference_is_one(difference: object) -> None:
    """What a mode is said to do otherwise covers rows, and differs from each of them."""
    covered = [row for row in ROWS if difference.covers(row, difference.mode)]  # type: ignore[attr-defined]
    assert covered
    assert all(expected(row, difference.mode) != row for row in covered)  # type: ignore[attr-defined]


def test_headless_and_external_names_have_no_rules() -> None:
    from kubenet_lab.kernel.dialects.iptables import save
    from kubenet_lab.kernel.dialects.nft import list_ruleset

    text = save(world("objects", "iptables").ns("node-1").iptables[4])
    assert "default/plain:web" in text
    assert "default/headless" not in text
    assert "default/elsewhere" not in text
    text = list_ruleset(world("objects", "nftables").ns("node-1").nftables)
    assert "/plain/tcp/web" in text
    assert "/headless/" not in text
    assert "/elsewhere/" not in text
