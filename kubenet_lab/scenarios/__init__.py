"""Ready worlds for notebooks, tests and the command line."""

from __future__ import annotations

from kubenet_lab.scenarios.guarded import guarded
from kubenet_lab.scenarios.kinds import kinds
from kubenet_lab.scenarios.outside import outside
from kubenet_lab.scenarios.shop import shop
from kubenet_lab.scenarios.store import store

__all__ = ["guarded", "kinds", "outside", "shop", "store"]
