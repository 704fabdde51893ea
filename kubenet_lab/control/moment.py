"""Simulated time as it stands in objects: RFC 3339 texts of whole seconds."""

from __future__ import annotations

from datetime import datetime

from kubenet_lab.clock import START
from kubenet_lab.objects import Pod


def seconds(text: str) -> float:
    """The simulated second an object's time means, the inverse of `clock.timestamp`.

    Raises:
        ValueError: The text is no RFC 3339 time.
    """
    return (datetime.fromisoformat(text) - START).total_seconds()


def ready_since(pod: Pod) -> float | None:
    """When the pod became ready (its condition's `lastTransitionTime`), None where nobody wrote that down."""
    for condition in pod.status.conditions:
        if condition.type == "Ready" and condition.status == "True" and condition.last_transition_time:
            return seconds(condition.last_transition_time)
    return None


def available_at(pod: Pod, min_ready_seconds: int, now: float) -> float | None:
    """When the pod becomes, or became, available: ready for `minReadySeconds`. None while it is not ready.

    A pod that does not say since when it is ready, or that says a time to come (a dump of another day), has been
    ready for long.
    """
    if not pod.ready:
        return None
    since = ready_since(pod)
    if since is None or since > now:
        return now
    return since + min_ready_seconds


def available(pod: Pod, min_ready_seconds: int, now: float) -> bool:
    """Whether the pod has been ready for `minReadySeconds`."""
    at = available_at(pod, min_ready_seconds, now)
    return at is not None and at <= now
