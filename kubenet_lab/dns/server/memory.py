"""How much memory a CoreDNS needs: its makers' formula, taken apart.

    MB = (Pods + Services) / 1000 + 54          default settings
    MB = (Pods + Services) / 250 + 56           with autopath, which keeps the pods

In it are 30 MB for a cache that is full and 5 MB for queries in flight at some 30,000 a second; the rest is there at
once.
Source: https://github.com/coredns/deployment/blob/master/kubernetes/Scaling_CoreDNS.md (a line fitted to Kubernetes'
scale tests; a node's kernel counts page cache and fragments as well).
"""

from __future__ import annotations

import re

MB = 1_000_000
FULL_CACHE = 30.0
"""MB of a cache of the default size when it is full."""
BUSY = 5.0
BUSY_AT = 30_000.0
"""MB that queries in flight take at so many a second."""
_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
    "m": 0.001,
}  # fmt: skip


def megabytes(
    pods: int,
    services: int,
    *,
    cache_filled: float = 1.0,
    queries_per_second: float = BUSY_AT,
    autopath: bool = False,
    upstream_seconds: float = 0.0,
) -> float:
    """MB of one CoreDNS.

    Args:
        pods, services: How many the cluster has.
        cache_filled: Share of the cache in use, 0 to 1.
        queries_per_second: It gets.
        autopath: Whether that plugin is on.
        upstream_seconds: How long the upstream keeps queries waiting; each that waits holds a goroutine and its
            buffers, some 10 kB (an estimate, no measurement of CoreDNS's makers).

    """
    base, each = (56.0, 1 / 250) if autopath else (54.0, 1 / 1000)
    still = base - FULL_CACHE - BUSY
    waiting = queries_per_second * upstream_seconds * 0.010
    busy = BUSY * min(queries_per_second / BUSY_AT, 1.0)
    return still + (pods + services) * each + FULL_CACHE * cache_filled + busy + waiting


def octets(quantity: str) -> float:
    """A Kubernetes quantity ("170Mi", "1G", "128974848") in octets; 0 for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[kMGT]|[KMGT]i)?", quantity.strip())
    return float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
