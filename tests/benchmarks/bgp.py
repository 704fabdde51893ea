"""How long BGP takes to converge: a full mesh of 100 nodes and two route reflectors, 5,000 routes.

`python -m tests.benchmarks.bgp`
"""

from __future__ import annotations

import time

from kubenet_lab.bgp.config import Config, Peer, Pool
from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.control import machine
from kubenet_lab.kernel.network import Network
from tests.benchmarks.__main__ import memory, row

NODES, BLOCKS = 100, 50


def world(*, reflectors: int = 0) -> Fabric:
    """Return nodes with BIRDs that are not started: every two are peers, or all are the reflectors' clients."""
    network = Network()
    fabric = Fabric(network)
    addresses = {n: f"192.168.1.{n + 10}" for n in range(NODES)}
    for n, address in addresses.items():
        machine.build_node(network, f"node-{n}", f"{address}/24")
    for n, address in addresses.items():
        peers = tuple(
            Peer(
                f"Node_{other.replace('.', '_')}",
                other,
                64512,
                address,
                passive=n < m and not reflectors,
                rr_client=n < reflectors <= m,
                cluster_id="224.0.0.1",
            )
            for m, other in addresses.items()
            if m != n and (not reflectors or n < reflectors or m < reflectors)
        )
        first = n * BLOCKS
        blocks = tuple(
            f"10.{k // 1024 + 1}.{k // 4 % 256}.{k % 4 * 64}/26" for k in range(first, first + BLOCKS)
        )
        Bird(fabric, f"node-{n}", Config(address, blocks=blocks, pools=(Pool("10.0.0.0/8"),), peers=peers))
    return fabric


def converge(fabric: Fabric) -> float:
    """Start all and return the seconds of wall clock until every kernel has every route."""
    begin = time.perf_counter()
    for bird in fabric.daemons.values():
        bird.start()
    fabric.run(3.0)
    took = time.perf_counter() - begin
    assert all(len(bird.installed) == NODES * BLOCKS for bird in fabric.daemons.values())
    return took


def main() -> None:
    """Print every row."""
    row("BGP full mesh, 100 nodes, 5,000 routes", f"{converge(world()):.1f} s", "5 s")
    row("BGP two reflectors, 100 nodes, 5,000 routes", f"{converge(world(reflectors=2)):.1f} s", "5 s")
    fabric = world(reflectors=2)
    converge(fabric)
    begin = time.perf_counter()
    fabric.run(603.0)
    row("ten quiet minutes of that", f"{time.perf_counter() - begin:.1f} s", "-")
    row("most memory", f"{memory():.0f} MB", "1000 MB")


if __name__ == "__main__":
    main()
