"""The same three pods behind Services of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubenet_lab.cluster import Cluster

MANIFEST = Path(__file__).with_name("kinds.yaml")


def kinds(*, load_balancer: str = "cloud", **options: Any) -> Cluster:
    """Build it: `client` on node-1, `web-1`..`web-3` on the nodes of that number, each a zone of its own.

    Services `plain`, `port`, `balanced`, `headless` and `alias` have the same selector (the last one none); StatefulSet
    and headless Service `db` give pods names of their own.
    """
    return Cluster.from_files(MANIFEST, load_balancer=load_balancer, **options)
