"""What asking for an object's deletion comes to: `kubectl delete`, as the API server carries it out.

A pod that runs is given its grace period; an object with finalizers stays, marked, until they are gone; cascades are
finalizers too ("foregroundDeletion", "orphan"), which the garbage collector works off.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from kubenet_lab.clock import timestamp
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import AnyObject, Container, Namespace, Pod
from kubenet_lab.store import Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
PROPAGATION = {"Background": "", "Foreground": FOREGROUND, "Orphan": ORPHAN}
"""`propagationPolicy` and the finalizer it sets."""

_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)")


def wish(
    store: Store,
    kind: str,
    name: str,
    namespace: str = "",
    *,
    propagation: str = "Background",
    grace_period_seconds: int | None = None,
    settings: Settings | None = None,
) -> list[Change]:
    """The change that a request to delete an object makes at once; the loops do the rest.

    `kubectl delete KIND NAME [--cascade=background|foreground|orphan] [--grace-period=N]`.

    Raises:
        NotFound: There is none.
        ValueError: `propagation` is none of Background, Foreground, Orphan.
    """
    if propagation not in PROPAGATION:
        raise ValueError(f"propagation is one of {', '.join(PROPAGATION)}, not {propagation!r}")
    obj: AnyObject = store.get(kind, name, namespace)
    if isinstance(obj, Pod) and propagation == "Background":
        change = of_pod(
            obj, store.clock.now, settings or Settings(), "somebody deleted it", grace_period_seconds
        )
        return [] if change is None else [change]
    return of_object(obj, store.clock.now, "somebody deleted it", PROPAGATION[propagation])


def of_object(obj: AnyObject, now: float, why: str, finalizer: str = "") -> list[Change]:
    """Delete an object, or mark it where something has to happen before it may go."""
    metadata = obj.metadata
    finalizers = metadata.finalizers
    if finalizer and finalizer not in finalizers:
        finalizers = (*finalizers, finalizer)
    held = finalizers or (isinstance(obj, Namespace) and obj.spec.finalizers)
    if not held:
        return [Change("delete", obj, why)]
    marked = obj.with_metadata(
        finalizers=finalizers,
        deletion_timestamp=metadata.deletion_timestamp or timestamp(now),
        deletion_grace_period_seconds=0,
    )
    if isinstance(marked, Namespace):
        marked = replace(marked, status=replace(marked.status, phase="Terminating"))
    return [] if marked == obj else [Change("update", marked, why)]


def of_pod(
    pod: Pod, now: float, settings: Settings, why: str, grace_period_seconds: int | None = None
) -> Change | None:
    """Delete a pod: at once when nothing of it runs or its programs end at once, else in time.

    None when it is being deleted already.
    """
    if pod.terminating and grace_period_seconds is None:
        return None
    grace = grace_seconds(pod) if grace_period_seconds is None else grace_period_seconds
    if not pod.metadata.finalizers and (not pod.spec.node_name or min(grace, lasting(pod, settings)) <= 0):
        return Change("delete", pod, why)
    marked = pod.with_metadata(deletion_timestamp=timestamp(now + grace), deletion_grace_period_seconds=grace)
    return Change("update", marked, why)


def grace_seconds(pod: Pod) -> int:
    """The pod's `terminationGracePeriodSeconds`."""
    given = pod.spec.termination_grace_period_seconds
    return 30 if given is None else given


def lasting(pod: Pod, settings: Settings) -> float:
    """How long the pod's programs run on after it was deleted, its grace period left aside, in s.

    Nothing in a manifest says how long a program takes after SIGTERM (`Settings.stop_seconds`); a `preStop` hook that
    sleeps says how long it takes. Other hooks are taken to return at once.
    """
    if pod.finished or pod.status.phase != "Running":
        return 0.0
    return max(
        (_hook_seconds(item.lifecycle) + _stops(item, settings) for item in pod.serving_containers),
        default=0.0,
    )


def _stops(container: Container, settings: Settings) -> float:
    """How long a program takes after SIGTERM; of CoreDNS it is known."""
    return max(settings.stop_seconds, settings.coredns_lameduck if "coredns" in container.image else 0.0)


def _hook_seconds(lifecycle: object) -> float:
    hook = (lifecycle.get("preStop") or {}) if isinstance(lifecycle, dict) else {}
    if "sleep" in hook:
        return float((hook["sleep"] or {}).get("seconds", 0))
    command = " ".join(map(str, (hook.get("exec") or {}).get("command") or ()))
    found = _SLEEP.search(command)
    return float(found[1]) if found is not None else 0.0
