"""The shop: three nodes, a frontend, three backends behind a Service, a database, and CoreDNS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubenet_lab.cluster import Cluster

MANIFEST = Path(__file__).with_name("shop.yaml")


def shop(*, cni: str = "flannel", proxy: str = "iptables", nodes: int = 3, **options: Any) -> Cluster:
    """Build the shop, running and at rest.

    node-1..3 are 192.168.1.10/20/30; pods live in 10.244.0.0/16, a /24 a node. `frontend` calls the Service `backend`
    (10.96.0.100:80, three pods on 8080), which calls `database` (10.96.0.200:5432).
    """
    return Cluster.from_files(MANIFEST, nodes=nodes, cni=cni, proxy=proxy, **options)
