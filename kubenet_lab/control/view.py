"""What the loops remember of a store between two runs: indexes kept by its watch, and the keys to look at again.

It stands where client-go's shared informers and work queues stand: one changed pod puts the keys of the few objects
it concerns into the loops' queues, so that a run costs what changed and not what is there. It holds nothing that the
store does not: a view that is lost is built anew by listing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from msgspec import Struct

from kubenet_lab.objects import AnyObject, Pod, ReplicaSet, Service
from kubenet_lab.store import Key, Store, Watch, kind_key

if TYPE_CHECKING:
    from kubenet_lab.control.loop import Change, Settings

Under: TypeAlias = Callable[[Any], Iterable[Hashable]]
Trigger: TypeAlias = "Callable[[View, Any, Any], Iterable[Key]]"
"""(view, object before or None, object now or None) -> keys a loop has to look at."""


class Index:
    """Objects filed under what `under(obj)` says; a shelf keeps the order in which they came."""

    def __init__(self, under: Under) -> None:
        self._under = under
        self._shelves: dict[Hashable, dict[Hashable, Any]] = {}

    def change(self, identity: Hashable, old: Any, new: Any) -> None:
        """File the new state of an object and forget the old; None for one that is not there."""
        now = () if new is None else tuple(self._under(new))
        if old is not None:
            for value in self._under(old):
                if value not in now:
                    shelf = self._shelves[value]
                    del shelf[identity]
                    if not shelf:
                        del self._shelves[value]
        for value in now:
            self._shelves.setdefault(value, {})[identity] = new

    def of(self, value: Hashable) -> list[Any]:
        """The objects under a value."""
        return [*self._shelves.get(value, {}).values()]

    def count(self, value: Hashable) -> int:
        """How many objects are under a value."""
        return len(self._shelves.get(value, ()))


class Queue(Struct):
    """What one loop still has to look at, in order, and the settings it last did so with."""

    settings: Settings
    keys: dict[Key, None]
    due: dict[Key, float]


class View:
    """The indexes of one store, and the queues of the loops that work on it."""

    def __init__(self, store: Store) -> None:
        self._watch: Watch = store.watch()
        self._known: dict[str, dict[Key, AnyObject]] = {}
        self._queues: dict[Keyed, Queue] = {}
        self._timers: list[tuple[float, int, Keyed, Key]] = []
        self._numbered = 0
        self.pods_by_label = Index(_labels)
        """Pods under (namespace, label, value)."""
        self.pods_by_node = Index(lambda pod: (pod.spec.node_name,))
        self.load_of_node = Index(lambda pod: () if pod.finished else (pod.spec.node_name,))
        """Pods that have not ended under their node's name."""
        self.pods_by_controller = Index(_controller)
        """Pods under the uid of the owner that manages them; those that have none under their namespace."""
        self.services_by_label = Index(_one_selector_pair)
        """Services under (namespace, label, value): one pair of their selector, which all their pods have."""
        self.replica_sets_by_label = Index(_one_match_label)
        """ReplicaSets under (namespace, label, value): one pair of their selector, which all their pods have."""
        self.loose_replica_sets = Index(_uncontrolled)
        """ReplicaSets that nobody manages, under their namespace."""
        self.slices_by_service = Index(lambda item: ((item.namespace, item.service_name),))
        self.owned = Index(lambda obj: (owner.uid for owner in obj.metadata.owner_references if owner.uid))
        """Objects of all kinds under the uid of each of their owners."""
        self.uids: dict[str, AnyObject] = {}
        self._indexes: Mapping[str, tuple[Index, ...]] = {
            "Pod": (self.pods_by_label, self.pods_by_node, self.load_of_node, self.pods_by_controller),
            "Service": (self.services_by_label,),
            "ReplicaSet": (self.replica_sets_by_label, self.loose_replica_sets),
            "EndpointSlice": (self.slices_by_service,),
        }
        for kind in store.kinds():
            for obj in store.list(kind):
                self._note(kind, obj, None)

    def all(self, kind: str) -> dict[Key, Any]:
        """The objects of a kind by key, as of the last `sync`."""
        return self._known.get(kind, {})

    def sync(self) -> None:
        """Take in what happened since the last time."""
        for event in self._watch:
            kind = kind_key(event.object)
            if event.type == "DELETED":
                self._note(kind, None, event.object)
            else:
                self._note(kind, event.object, None)

    def _note(self, kind: str, new: AnyObject | None, gone: AnyObject | None) -> None:
        obj = new or gone
        assert obj is not None
        key = (obj.metadata.namespace, obj.metadata.name)
        known = self._known.setdefault(kind, {})
        old = known.get(key)
        if new is None:
            known.pop(key, None)
        else:
            known[key] = new
        if old is not None:
            self.uids.pop(old.metadata.uid, None)
        if new is not None:
            self.uids[new.metadata.uid] = new
        for index in self._indexes.get(kind, ()):
            index.change(key, old, new)
        if (old is not None and old.metadata.owner_references) or (
            new is not None and new.metadata.owner_references
        ):
            self.owned.change((kind, key), old, new)
        for loop, queue in self._queues.items():
            trigger = loop.triggers.get(kind) or loop.triggers.get("*")
            if trigger is not None:
                for wanted in trigger(self, old, new):
                    queue.keys[wanted] = None

    def queue(self, loop: Keyed, settings: Settings, now: float) -> Queue:
        """The queue of a loop, with what has become due; everything is in it the first time."""
        queue = self._queues.get(loop)
        if queue is None or queue.settings != settings:
            queue = self._queues[loop] = Queue(settings, {}, {})
            for kind in [*self._known] if "*" in loop.own else loop.own:
                trigger = loop.triggers.get(kind) or loop.triggers["*"]
                for obj in self.all(kind).values():
                    for key in trigger(self, None, obj):
                        queue.keys[key] = None
        while self._timers and self._timers[0][0] <= now:
            at, _, timed, key = heapq.heappop(self._timers)
            waiting = self._queues.get(timed)
            if waiting is not None and waiting.due.get(key) == at:
                del waiting.due[key]
                waiting.keys[key] = None
        return queue

    def wake(self, loop: Keyed, key: Key, at: float) -> None:
        """Put a key into a loop's queue at a moment to come; a later call for the same key replaces an earlier one."""
        queue = self._queues[loop]
        if queue.due.get(key) == at:
            return
        queue.due[key] = at
        self._numbered += 1
        heapq.heappush(self._timers, (at, self._numbered, loop, key))

    def next_due(self) -> float | None:
        """The first moment at which a loop has something to look at; None when nothing waits for time to pass."""
        while self._timers:
            at, _, loop, key = self._timers[0]
            queue = self._queues.get(loop)
            if queue is not None and queue.due.get(key) == at:
                return at
            heapq.heappop(self._timers)
        return None


One: TypeAlias = "Callable[[Context, Key], list[Change]]"
Many: TypeAlias = "Callable[[Context, Iterable[Key]], Iterable[tuple[Key, list[Change]]]]"


class Context(Struct, frozen=True):
    """What a loop gets to decide about one key."""

    view: View
    store: Store
    settings: Settings
    loop: Keyed

    @property
    def now(self) -> float:
        """Simulated time in s."""
        return self.store.clock.now

    def wake(self, key: Key, at: float) -> None:
        """Look at this key again at a moment to come."""
        self.view.wake(self.loop, key, at)


class Keyed:
    """A loop that works key by key: what changed puts keys into its queue, `one` says what each of them needs.

    A key leaves the queue when nothing is left to do for it, so that a change that could not be applied is wished
    again.

    Attributes:
        own: The kinds whose objects are all looked at the first time.
        triggers: For each kind that matters ("*": all the others) the keys that a change of an object concerns.
        one: The changes that bring what a key stands for to what it should be; none when it is.
        many: The same for several keys, where what is decided for one bears on the next.
    """

    def __init__(
        self,
        own: tuple[str, ...],
        triggers: Mapping[str, Trigger],
        one: One | None = None,
        many: Many | None = None,
    ) -> None:
        self.own = own
        self.triggers = triggers
        self.one = one
        self.many = many

    def __call__(self, store: Store, settings: Settings) -> list[Change]:
        """What has to be done for the keys in the queue."""
        view = view_of(store)
        view.sync()
        queue = view.queue(self, settings, store.clock.now)
        if not queue.keys:
            return []
        context = Context(view, store, settings, self)
        changes: list[Change] = []
        for key, wished in self._each(context, [*queue.keys]):
            if wished:
                changes += wished
            else:
                del queue.keys[key]
        return changes

    def _each(self, context: Context, keys: list[Key]) -> Iterable[tuple[Key, list[Change]]]:
        if self.many is not None:
            return self.many(context, keys)
        one = self.one
        assert one is not None
        return ((key, one(context, key)) for key in keys)


class Gated:
    """A loop that looks at all objects of a kind, run only when one of them changed since it last had nothing to do."""

    def __init__(self, kinds: tuple[str, ...], reconcile: Callable[[Store, Settings], list[Change]]) -> None:
        self._reconcile = reconcile
        self._gate = Keyed(kinds, {kind: lambda view, old, new: (("", ""),) for kind in kinds}, self._run)

    def _run(self, context: Context, key: Key) -> list[Change]:
        return self._reconcile(context.store, context.settings)

    def __call__(self, store: Store, settings: Settings) -> list[Change]:
        """What the loop wishes."""
        return self._gate(store, settings)


_views: WeakKeyDictionary[Store, View] = WeakKeyDictionary()


def view_of(store: Store) -> View:
    """The view of a store; it lives as long as the store does."""
    view = _views.get(store)
    if view is None:
        view = _views[store] = View(store)
    return view


def own_key(view: View, old: Any, new: Any) -> Iterable[Key]:
    """The trigger of a loop's own kind: the object's own key."""
    metadata = (new or old).metadata
    return ((metadata.namespace, metadata.name),)


def controller_key(kind: str) -> Trigger:
    """The trigger of what a loop's objects own: the key of the controlling owner, if it is of this kind."""

    def keys(view: View, old: Any, new: Any) -> Iterable[Key]:
        found = []
        for obj in (old, new):
            owner = None if obj is None else obj.metadata.controller
            if owner is not None and owner.kind == kind:
                found.append((obj.metadata.namespace, owner.name))
        return found

    return keys


def _labels(pod: Pod) -> Iterable[Hashable]:
    namespace = pod.metadata.namespace
    return [(namespace, key, value) for key, value in pod.metadata.labels.items()]


def _controller(pod: Pod) -> Iterable[Hashable]:
    owner = pod.metadata.controller
    return (("", pod.metadata.namespace) if owner is None else owner.uid,)


def _one_selector_pair(service: Service) -> Iterable[Hashable]:
    selector = service.spec.selector
    if not selector:
        return ()
    return ((service.namespace, *min(selector.items())),)


def _one_match_label(replica_set: ReplicaSet) -> Iterable[Hashable]:
    labels = replica_set.spec.selector.match_labels
    return ((replica_set.namespace, *min(labels.items())),) if labels else ()


def _uncontrolled(replica_set: ReplicaSet) -> Iterable[Hashable]:
    return () if replica_set.metadata.controller is not None else (replica_set.namespace,)


def services_of(view: View, pod: Pod) -> list[Service]:
    """The Services whose selector means a pod."""
    labels = pod.metadata.labels
    return [
        service
        for key, value in labels.items()
        for service in view.services_by_label.of((pod.namespace, key, value))
        if service.spec.selector.items() <= labels.items()
    ]


def pods_of(view: View, service: Service) -> list[Pod]:
    """The pods that a Service's selector means, in the order they came; none for a Service without selector."""
    selector = service.spec.selector
    if not selector:
        return []
    shelves = [(service.namespace, key, value) for key, value in selector.items()]
    fewest = view.pods_by_label.of(min(shelves, key=view.pods_by_label.count))
    if len(shelves) == 1:
        return fewest
    wanted = selector.items()
    return [pod for pod in fewest if wanted <= pod.metadata.labels.items()]
