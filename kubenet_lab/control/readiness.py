"""When a started pod becomes ready at the earliest: its startup and readiness probes in simulated time.

That is worked out for a program that answers its probes from the first one on; `pod_workers` sends them.
`pkg/kubelet/prober/worker.go`;
https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from kubenet_lab.clock import timestamp
from kubenet_lab.objects import Json, Pod


def ready_seconds(pod: Pod) -> float:
    """How long after its start a pod becomes ready, in s; 0 without probes that delay it."""
    return max(
        (_container_seconds(c.startup_probe, c.readiness_probe) for c in pod.serving_containers), default=0.0
    )


def _container_seconds(startup: Json | None, readiness: Json | None) -> float:
    started = _passed(startup, 0.0) if startup else 0.0
    return _passed(readiness, started) if readiness else started


def _passed(probe: Json, started: float) -> float:
    """When a probe has succeeded often enough.

    Probes are sent every `periodSeconds`, but not before `initialDelaySeconds`; the first goes out as soon as the
    container has started.
    """
    period = float(probe.get("periodSeconds") or 10)
    delay = float(probe.get("initialDelaySeconds") or 0)
    first = started if delay <= started else math.ceil(delay / period) * period
    return first + ((probe.get("successThreshold") or 1) - 1) * period


def became_ready(pod: Pod, now: float) -> Pod:
    """The pod as its kubelet reports it ready, with the moment at which it became so."""
    ready = pod.with_status(ready=True)
    conditions = tuple(
        replace(item, last_transition_time=timestamp(now))
        if item.type in ("Ready", "ContainersReady") and item.status == "True"
        else item
        for item in ready.status.conditions
    )
    return replace(ready, status=replace(ready.status, conditions=conditions))
