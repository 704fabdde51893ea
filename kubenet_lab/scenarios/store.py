"""The store: a frontend that calls three services by name, with 3, 5 and 2 pods behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubenet_lab.cluster import Cluster

MANIFEST = Path(__file__).with_name("store.yaml")


def store(**options: Any) -> Cluster:
    """Build the store, running and at rest; `options` are the cluster's.

    `frontend` is on node-1. cart-service is 10.96.0.101 (3 pods), product-service 10.96.0.102 (5), payment-service
    10.96.0.103 (2); all listen on 8080 behind port 80.
    """
    return Cluster.from_files(MANIFEST, **options)
