"""One set of pods behind two Services that differ in their traffic policy, and every door one can come in by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.control.cloud_lb import addresses
from kubenet_lab.objects import Service
from kubenet_lab.views.outside_matrix import OutsideMatrix, outside_matrix

MANIFEST = Path(__file__).with_name("outside.yaml")
CLIENT = "203.0.113.77"
CLIENTS: Mapping[str, str] = {
    "a client outside": CLIENT,
    "a pod on node-1": "client-1",
    "a pod on node-2": "client-2",
    "node-1 itself": "node/node-1",
}
"""Places of a client: label -> source of a call."""
SERVICES: Mapping[str, str] = {"anywhere": "Cluster", "nearby": "Local"}
"""The two Services and their `externalTrafficPolicy`."""


def outside(*, load_balancer: str = "cloud", proxy: str = "iptables", **options: Any) -> Cluster:
    """Build it: pods `web-2` and `web-3` on the nodes of that number, Services `anywhere` and `nearby` before them.

    The health checks of a load balancer have had a minute to find out which nodes have pods.
    """
    world = Cluster.from_files(MANIFEST, load_balancer=load_balancer, proxy=proxy, **options)
    world.advance(60)
    return world


def doors(world: Cluster) -> dict[str, str]:
    """Return every door: label -> URL. Both Services' cluster addresses, node ports on two nodes, and addresses."""
    found: dict[str, str] = {}
    for name, policy in SERVICES.items():
        service = world.store.get(Service, name, "default")
        port = service.spec.ports[0]
        found[f"clusterIP, {policy}"] = f"tcp://{service.spec.cluster_ip}:{port.port}"
        if port.node_port:
            found[f"node port on node-1 (no pod), {policy}"] = f"tcp://192.168.1.10:{port.node_port}"
            found[f"node port on node-2 (a pod), {policy}"] = f"tcp://192.168.1.20:{port.node_port}"
        for address in addresses(service)[:1]:
            found[f"load balancer, {policy}"] = f"tcp://{address}:{port.port}"
    return found


def calls(world: Cluster, count: int = 8, clients: Mapping[str, str] = CLIENTS) -> OutsideMatrix:
    """Make so many calls from every place through every door; return what came of them."""
    made = {
        (door, place): [world.connect(source, url) for _ in range(count)]
        for door, url in doors(world).items()
        for place, source in clients.items()
    }
    return outside_matrix(made)
