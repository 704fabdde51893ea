"""Kubernetes networking that you can run, break and see inside.

from kubenet_lab import Cluster, scenarios
shop = scenarios.shop()
trip = shop.connect("frontend", "http://backend")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kubenet_lab import scenarios
    from kubenet_lab.cluster import Cluster
    from kubenet_lab.errors import InputError, KubenetLabError, NotFound
    from kubenet_lab.packet import Packet
    from kubenet_lab.trip import Trip
    from kubenet_lab.walk.engine import Walk

_HOMES = {
    "Cluster": "kubenet_lab.cluster",
    "InputError": "kubenet_lab.errors",
    "KubenetLabError": "kubenet_lab.errors",
    "NotFound": "kubenet_lab.errors",
    "Packet": "kubenet_lab.packet",
    "Trip": "kubenet_lab.trip",
    "Walk": "kubenet_lab.walk.engine",
}
__all__ = ["Cluster", "InputError", "KubenetLabError", "NotFound", "Packet", "Trip", "Walk", "scenarios"]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used, so that importing the package costs next to nothing."""
    from importlib import import_module

    if name == "scenarios":
        return import_module("kubenet_lab.scenarios")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kubenet_lab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
