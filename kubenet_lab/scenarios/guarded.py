"""A guarded database: eight who try to reach it, and the policy that lets one of them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubenet_lab.cluster import Cluster

MANIFEST = Path(__file__).with_name("guarded.yaml")
DATABASE = "production/database-0"
SOURCES = (
    ("production/backend", "the pods the rule names"),
    ("production/frontend", "another pod of the shop"),
    ("production/report", "any pod of the namespace"),
    ("staging/backend", "a backend of another namespace"),
    ("production/database-1", "a replica of the database"),
    ("production/database-0", "the database itself"),
    ("node/node-3", "the node it runs on"),
    ("node/node-1", "another node"),
)
"""Who calls the database, and what makes them worth a try."""


def guarded(*, policy: str = "iptables", cni: str = "flannel", nodes: int = 3, **options: Any) -> Cluster:
    """Build namespace production with its database and `database-policy`, and an agent that enforces it.

    database-0 is on node-3 with the backend, database-1 on node-2, the others on node-1. `policy` "none" leaves the
    policy to the pod network: with Flannel nobody enforces it.
    """
    return Cluster.from_files(MANIFEST, nodes=nodes, cni=cni, policy=policy, **options)
