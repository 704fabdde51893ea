"""The same state in the real kernel, rootless: see README.md."""

from __future__ import annotations

from kubenet_lab.twin.flow import Comparison, Flow, IcmpError, Outcome, Tracked
from kubenet_lab.twin.plan import Missing, Plan, plan
from kubenet_lab.twin.twin import Completed, Twin, TwinError, unavailable

__all__ = [
    "Comparison",
    "Completed",
    "Flow",
    "IcmpError",
    "Missing",
    "Outcome",
    "Plan",
    "Tracked",
    "Twin",
    "TwinError",
    "plan",
    "unavailable",
]
