"""Takes pods away whose programs have ended after somebody deleted them (the kubelet's last word on a pod).

Until then the pod runs, answers, and stands in its EndpointSlices as terminating. Pods that were being deleted already
when this world began (a dump's) stay as they are. `pkg/kubelet/kubelet.go` (SyncTerminatingPod).
"""

from __future__ import annotations

from collections.abc import Iterator

from kubenet_lab.control.deletion import lasting
from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.control.moment import seconds
from kubenet_lab.control.view import Context, Keyed, View
from kubenet_lab.objects import Pod
from kubenet_lab.store import Key, Store


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """A delete for each pod whose time has come."""
    return _LOOP(store, settings)


def _sync(context: Context, key: Key) -> list[Change]:
    pod: Pod | None = context.view.all("Pod").get(key)
    if pod is None or not pod.terminating or pod.metadata.finalizers:
        return []
    grace = pod.metadata.deletion_grace_period_seconds or 0
    asked = seconds(pod.metadata.deletion_timestamp) - grace
    end = asked + min(grace, lasting(pod, context.settings))
    if end > context.now and pod.spec.node_name:
        context.wake(key, end)
        return []
    return [Change("delete", pod, "its programs have ended")]


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    if old is None or new is None or not new.terminating:
        return
    ended = new.finished and not old.finished
    if ended or not old.terminating or old.metadata.finalizers != new.metadata.finalizers:
        yield (new.namespace, new.name)


_LOOP = Keyed((), {"Pod": _of_pod}, _sync)
