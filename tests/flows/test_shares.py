"""Each endpoint gets its share of the connections: chi-square against equal shares, on the model."""

from __future__ import annotations

from collections import Counter

import pytest

from kubenet_lab.cluster import PROXIES
from kubenet_lab.packet.packet import UDP, Packet
from kubenet_lab.walk.engine import Walk
from tests.flows.shares import CLIENT, FULL, PORT, SIZES, judge, service_ip, world
from tests.flows.worlds import UNSETTLED

CONNECTIONS = FULL or 3_000


@pytest.mark.parametrize("mode", [mode for mode in PROXIES if mode not in UNSETTLED])
def test_shares_of_the_model(mode: str) -> None:
    network = world(mode)
    walk = Walk(network, seed=11)
    for size in SIZES:
        counts: Counter[str] = Counter()
        network.ns("node-1").conntrack.flush()
        for n in range(CONNECTIONS):
            trace = walk.send(
                "default/client", Packet(CLIENT, service_ip(size), UDP, 1024 + n, PORT, payload=b"x")
            )
            assert trace.delivered_as is not None, trace.text()
            counts[trace.delivered_as.dst] += 1
        judge(counts, size, CONNECTIONS, 0.001)


def test_unequal_shares_are_found_out() -> None:
    """The judge can fail: the shares of a chain whose rules all said 1/3, instead of 1/3, 1/2 and the rest."""
    total = 1_000
    wrong = Counter({"10.244.0.10": 333, "10.244.0.11": 222, "10.244.0.12": 445})
    with pytest.raises(AssertionError, match="chi-square"):
        judge(wrong, 3, total, 1e-6)
