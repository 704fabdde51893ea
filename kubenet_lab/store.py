"""The API server's memory: objects by kind, namespace and name, with versions and watches.

It behaves as the API does for its callers: what is created gets a uid, a creation time, a resourceVersion and
its defaults; an update that carries an old resourceVersion is a conflict; a watcher hears of every change in
order. https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

from msgspec import Struct

from kubenet_lab.clock import Clock, timestamp
from kubenet_lab.errors import AlreadyExists, BadRequest, Cause, Conflict, Invalid, NotFound
from kubenet_lab.objects import (
    AnyObject,
    ApiObject,
    Json,
    LabelSelector,
    ObjectMeta,
    from_manifest,
    with_defaults,
)
from kubenet_lab.objects.defaults import on_create
from kubenet_lab.objects.update import kept, refusals

Key = tuple[str, str]
"""Namespace (empty for objects of the whole cluster) and name."""

T = TypeVar("T", bound=ApiObject)
Stored = list[Any]  # inside Store, `list` is the method


class Event(Struct, frozen=True):
    """A change: `type` is ADDED, MODIFIED or DELETED; `object` is the new (when deleted, last) state."""

    type: str
    object: AnyObject


class Watch:
    """The changes since the watch began, in order; iterate, or take them all with `poll`."""

    def __init__(self, kind: str | None, namespace: str | None) -> None:
        self.kind, self.namespace = kind, namespace
        self._events: deque[Event] = deque()

    def poll(self) -> list[Event]:
        """What happened since the last call."""
        events = list(self._events)
        self._events.clear()
        return events

    def __iter__(self) -> Iterator[Event]:
        while self._events:
            yield self._events.popleft()

    def _offer(self, kind: str, event: Event) -> None:
        if self.kind in (None, kind) and self.namespace in (None, event.object.metadata.namespace):
            self._events.append(event)


class Snapshot(Struct, frozen=True):
    """What the store held at one moment; objects are frozen, so this is a few shallow copies."""

    objects: dict[str, dict[Key, AnyObject]]
    applied: dict[tuple[str, Key], Json]
    used: frozenset[tuple[str, Key]]
    version: int
    drawn: int


class _Undo(Struct, frozen=True):
    """One write that can be taken back: the object and what was applied before it, None where there was none.

    `fresh` names a name that was never used before, `places` the order of a kind's objects before a delete; `whole`
    stands alone, for a `restore`.
    """

    kind: str = ""
    key: Key = ("", "")
    object: AnyObject | None = None
    applied: Json | None = None
    fresh: bool = False
    places: list[Key] | None = None
    whole: Snapshot | None = None


def kind_key(obj: AnyObject) -> str:
    """Under which name the store files an object: its kind, with the group where somebody else's group reuses
    kind names.

    `NetworkPolicy` is Kubernetes' own; Calico's is `NetworkPolicy.crd.projectcalico.org`, as `kubectl get`
    spells it.
    """
    group = obj.api_version.rpartition("/")[0]
    if "." in group and not group.endswith(".k8s.io"):
        return f"{obj.kind}.{group}"
    return obj.kind


def qualified(obj: AnyObject, word: str) -> str:
    """A kind or its plural with the API group, as errors name it: `deployments.apps`; bare in the core group."""
    group = obj.api_version.rpartition("/")[0]
    return f"{word}.{group}" if group else word


class Store:
    """Objects by kind, namespace and name. Reads return frozen objects; all writes return what is stored.

    Args:
        seed: Decides every uid, and with them all generated names; the same seed and the same calls give the
            same world.
        clock: The moment creations are stamped with; assign `store.clock` to move on.
    """

    def __init__(self, seed: int = 0, clock: Clock | None = None) -> None:
        self.seed = seed
        self.clock = clock or Clock()
        self.version = 0
        """The resourceVersion of the last change; it grows by one with each."""
        self._objects: dict[str, dict[Key, AnyObject]] = {}
        self._applied: dict[tuple[str, Key], Json] = {}
        self._used: set[tuple[str, Key]] = set()
        self._undo: list[_Undo] = []
        self._open = 0
        self._drawn = 0
        self._watches: list[Watch] = []

    # Reading

    def kinds(self) -> list[str]:
        """The kinds there are objects of, sorted."""
        return sorted(kind for kind, objects in self._objects.items() if objects)

    @overload
    def list(
        self, kind: type[T], namespace: str | None = None, selector: LabelSelector | None = None
    ) -> list[T]: ...

    @overload
    def list(
        self, kind: str, namespace: str | None = None, selector: LabelSelector | None = None
    ) -> list[Any]: ...

    def list(
        self, kind: str | type[ApiObject], namespace: str | None = None, selector: LabelSelector | None = None
    ) -> list[Any]:
        """All objects of a kind, in the order they were created.

        `kubectl get KIND [-A | -n NAMESPACE] [-l SELECTOR]`.

        `kind` is a class, or a name as in `kind_key`. A kind nobody created gives an empty list.
        """
        objects = self._objects.get(_kind_name(kind), {}).values()
        if namespace is None and selector is None:
            return [*objects]
        return [
            obj
            for obj in objects
            if namespace in (None, obj.metadata.namespace)
            and (selector is None or selector.matches(obj.metadata.labels))
        ]

    @overload
    def find(self, kind: type[T], name: str, namespace: str = "") -> T | None: ...

    @overload
    def find(self, kind: str, name: str, namespace: str = "") -> Any: ...

    def find(self, kind: str | type[ApiObject], name: str, namespace: str = "") -> Any:
        """The object, or None. Without `namespace`: of the whole cluster, or else of `default`."""
        objects = self._objects.get(_kind_name(kind), {})
        found = objects.get((namespace, name))
        return objects.get(("default", name)) if found is None and not namespace else found

    @overload
    def get(self, kind: type[T], name: str, namespace: str = "") -> T: ...

    @overload
    def get(self, kind: str, name: str, namespace: str = "") -> Any: ...

    def get(self, kind: str | type[ApiObject], name: str, namespace: str = "") -> Any:
        """The object; `kubectl get KIND NAME [-n NAMESPACE]`.

        Raises:
            NotFound: There is none; its `nearest` names one that looks alike.
        """
        found = self.find(kind, name, namespace)
        if found is None:
            raise self._not_found(_kind_name(kind), name, namespace)
        return found

    def was_used(self, kind: str, name: str, namespace: str) -> bool:
        """Whether an object of this name is there or ever was: generated names must not come back."""
        return (kind, (namespace, name)) in self._used

    # Writing

    def create(self, obj: AnyObject) -> Any:
        """Store a new object; `kubectl create`.

        Raises:
            AlreadyExists: There is one of that name.
            Invalid: It has neither a name nor a `generateName`.
        """
        obj = self._admit(obj)
        kind, metadata = kind_key(obj), obj.metadata
        objects = self._objects.setdefault(kind, {})
        key = (metadata.namespace, metadata.name)
        if key in objects:
            raise AlreadyExists(obj.kind, metadata.name, metadata.namespace, qualified(obj, obj.resource))
        self.version += 1
        obj = obj.with_metadata(
            uid=metadata.uid or self._new_uid(),
            creation_timestamp=metadata.creation_timestamp or _timestamp(self.clock.now),
            resource_version=str(self.version),
        )
        obj = on_create(obj)
        self._remember(kind, key, fresh=(kind, key) not in self._used)
        objects[key] = obj
        self._used.add((kind, key))
        self._tell(kind, Event("ADDED", obj))
        return obj

    def update(self, obj: AnyObject, name: str | None = None) -> Any:
        """Replace an object; `kubectl replace`. What changes nothing leaves the resourceVersion as it is.

        What a Service was allocated and the new object leaves out is kept, and what its new type no longer
        has is cleared (`kubenet_lab.objects.update`).

        Args:
            obj: The new state.
            name: The name the caller meant to update; by default the object's own.

        Raises:
            BadRequest: `name` is not the object's.
            NotFound: There is none of that name.
            Conflict: `obj` was read before the stored one was last changed. An empty resourceVersion skips
                this check.
            Invalid: The change touches what may not change.
        """
        obj = self._placed(obj)
        kind, metadata = kind_key(obj), obj.metadata
        obj = self._admit(obj, self._objects.get(kind, {}).get((metadata.namespace, metadata.name)))
        metadata = obj.metadata
        if name is not None and name != metadata.name:
            raise BadRequest(
                f"the name of the object ({metadata.name}) does not match the name on the URL ({name})"
            )
        key = (metadata.namespace, metadata.name)
        old = self._objects.get(kind, {}).get(key)
        if old is None:
            raise self._not_found(kind, metadata.name, metadata.namespace)
        if metadata.resource_version and metadata.resource_version != old.metadata.resource_version:
            raise Conflict(obj.kind, metadata.name, metadata.namespace, qualified(obj, obj.resource))
        obj = kept(old, obj).with_metadata(
            uid=old.metadata.uid,
            creation_timestamp=old.metadata.creation_timestamp,
            resource_version=old.metadata.resource_version,
        )
        if obj == old:
            return old
        refused = refusals(old, obj)
        if refused:
            raise Invalid(
                qualified(obj, obj.kind), metadata.name, namespace=metadata.namespace, causes=refused
            )
        self.version += 1
        obj = obj.with_metadata(resource_version=str(self.version))
        self._remember(kind, key)
        self._objects[kind][key] = obj
        self._tell(kind, Event("MODIFIED", obj))
        return obj

    def apply(self, obj: AnyObject) -> Any:
        """Create an object or bring it to what is written; `kubectl apply`.

        Fields that an earlier `apply` set and this one leaves out go away; fields that others set (an
        allocated address, a status) stay. Lists are replaced whole; kubectl merges some of them by key.
        """
        given = self._placed(obj)
        kind, key = kind_key(given), (given.metadata.namespace, given.metadata.name)
        wished = given.to_manifest()
        old = self._objects.get(kind, {}).get(key)
        if old is None:
            stored = self.create(given)
        else:
            merged = _merge(old.to_manifest(), wished, self._applied.get((kind, key), {}))
            stored = self.update(from_manifest(merged, getattr(old, "namespaced", True), old.resource))
        self._remember(kind, key)
        self._applied[kind, key] = wished
        return stored

    def apply_all(self, objects: Iterable[AnyObject]) -> Stored:
        """`apply` each, all or none: when one is refused the store is as before."""
        with self.transaction():
            return [self.apply(obj) for obj in objects]

    def delete(self, kind: str | type[ApiObject], name: str, namespace: str = "") -> Any:
        """Remove an object at once and return its last state.

        `kubectl delete KIND NAME --grace-period=0 --force`.

        What it owned goes when the garbage collector (`kubenet_lab.control.garbage`) runs.

        Raises:
            NotFound: There is none.
        """
        obj = self.get(kind, name, namespace)
        kind_name = kind_key(obj)
        key = (obj.metadata.namespace, obj.metadata.name)
        self._remember(kind_name, key, order=True)
        del self._objects[kind_name][key]
        self._applied.pop((kind_name, key), None)
        self.version += 1
        self._tell(kind_name, Event("DELETED", obj))
        return obj

    # Watching, and going back

    def watch(self, kind: str | type[ApiObject] | None = None, namespace: str | None = None) -> Watch:
        """Hear of every change from now on.

        `kubectl get KIND --watch-only`. `None` means every kind, every namespace.
        """
        watch = Watch(None if kind is None else _kind_name(kind), namespace)
        self._watches.append(watch)
        return watch

    def unwatch(self, watch: Watch) -> None:
        """Stop a watch; one that is not running is left alone."""
        if watch in self._watches:
            self._watches.remove(watch)

    def snapshot(self) -> Snapshot:
        """The state to come back to with `restore`."""
        return Snapshot(
            {kind: dict(objects) for kind, objects in self._objects.items() if objects},
            dict(self._applied),
            frozenset(self._used),
            self.version,
            self._drawn,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot. Watchers hear of the way back as of any other change."""
        if self._open:
            self._undo.append(_Undo(whole=self.snapshot()))
        before = self._objects
        self._objects = {kind: dict(objects) for kind, objects in snapshot.objects.items()}
        self._applied = dict(snapshot.applied)
        self._used = set(snapshot.used)
        self.version, self._drawn = snapshot.version, snapshot.drawn
        if not self._watches:
            return
        for kind in sorted({*before, *self._objects}):
            was, now = before.get(kind, {}), self._objects.get(kind, {})
            for key, obj in was.items():
                if key not in now:
                    self._tell(kind, Event("DELETED", obj))
            for key, obj in now.items():
                if key not in was:
                    self._tell(kind, Event("ADDED", obj))
                elif was[key] is not obj:
                    self._tell(kind, Event("MODIFIED", obj))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything done inside counts, or, when an exception leaves the block, nothing does.

        What it costs is what is written inside, however much the store holds.
        """
        mark, version, drawn = len(self._undo), self.version, self._drawn
        self._open += 1
        try:
            yield
        except BaseException:
            while len(self._undo) > mark:
                self._take_back(self._undo.pop())
            self.version, self._drawn = version, drawn
            raise
        finally:
            self._open -= 1
            if not self._open:
                self._undo.clear()

    # Inside

    def _remember(self, kind: str, key: Key, fresh: bool = False, order: bool = False) -> None:
        """Note what is to be put back should the open transaction fail."""
        if self._open:
            objects = self._objects.get(kind, {})
            applied = self._applied.get((kind, key))
            places = [*objects] if order else None
            self._undo.append(_Undo(kind, key, objects.get(key), applied, fresh, places))

    def _take_back(self, done: _Undo) -> None:
        if done.whole is not None:
            opened, self._open = self._open, 0
            self.restore(done.whole)
            self._open = opened
            return
        kind, key, old = done.kind, done.key, done.object
        objects = self._objects[kind]
        now = objects.get(key)
        if old is None:
            objects.pop(key, None)
        else:
            objects[key] = old
        if done.places is not None:
            self._objects[kind] = {name: objects[name] for name in done.places}
        if done.applied is None:
            self._applied.pop((kind, key), None)
        else:
            self._applied[kind, key] = done.applied
        if done.fresh:
            self._used.discard((kind, key))
        if old is None and now is not None:
            self._tell(kind, Event("DELETED", now))
        elif old is not None and now is not old:
            self._tell(kind, Event("ADDED" if now is None else "MODIFIED", old))

    def _placed(self, obj: AnyObject) -> AnyObject:
        """With the namespace a namespaced object has when it names none."""
        if obj.namespaced and not obj.metadata.namespace:
            return obj.with_metadata(namespace="default")
        return obj

    def _admit(self, obj: AnyObject, stored: AnyObject | None = None) -> AnyObject:
        obj = with_defaults(self._placed(obj), stored)
        metadata: ObjectMeta = obj.metadata
        if metadata.name:
            return obj
        if not metadata.generate_name:
            text = "Required value: name or generateName is required"
            raise Invalid(
                qualified(obj, obj.kind), "", causes=[Cause("metadata.name", text, "FieldValueRequired")]
            )
        name = self.generated_name(kind_key(obj), metadata.generate_name, metadata.namespace)
        return obj.with_metadata(name=name)

    def generated_name(self, kind: str, prefix: str, namespace: str, skip: Iterable[str] = ()) -> str:
        """A free name of the form `<prefix><5 characters>`, the same one for the same seed and past.

        `skip` names more names that must not be chosen.
        """
        taken = set(skip)
        attempt = 0
        while True:
            name = prefix + random_suffix(f"{self.seed}/{kind}/{namespace}/{prefix}/{attempt}")
            if name not in taken and not self.was_used(kind, name, namespace):
                return name
            attempt += 1

    def _new_uid(self) -> str:
        self._drawn += 1
        digits = hashlib.blake2b(f"{self.seed}/uid/{self._drawn}".encode(), digest_size=16).hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

    def _tell(self, kind: str, event: Event) -> None:
        for watch in self._watches:
            watch._offer(kind, event)

    def _not_found(self, kind: str, name: str, namespace: str) -> NotFound:
        objects = self._objects.get(kind, {})
        same = [key[1] for key in objects if namespace in ("", key[0])]
        near = difflib.get_close_matches(name, same, 1, 0.6)
        elsewhere = next((f"{key[0]}/{key[1]}" for key in objects if key[1] == name), "")
        resource = next((obj.resource for obj in objects.values()), "")
        return NotFound(kind, name, namespace, resource, elsewhere or (near[0] if near else ""))


ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names are made of: no vowels and no look-alikes (`k8s.io/apimachinery/pkg/util/rand`)."""


def random_suffix(material: str, length: int = 5) -> str:
    """Characters as at the end of a generated name, decided by `material`."""
    number = int.from_bytes(hashlib.blake2b(material.encode(), digest_size=8).digest(), "big")
    letters = ""
    for _ in range(length):
        number, index = divmod(number, len(ALPHABET))
        letters += ALPHABET[index]
    return letters


_timestamp = functools.lru_cache(maxsize=1)(timestamp)
"""Many objects are made at one moment."""


def _kind_name(kind: str | type[ApiObject]) -> str:
    return kind if isinstance(kind, str) else kind.kind


def _merge(live: Json, wished: Json, last: Json) -> Json:
    """The three-way merge of `kubectl apply`: live, minus what `last` set and `wished` does not, plus
    `wished`.
    """
    merged = {key: value for key, value in live.items() if key in wished or key not in last}
    for key, value in wished.items():
        here, before = live.get(key), last.get(key)
        if isinstance(value, dict) and isinstance(here, dict):
            merged[key] = _merge(here, value, before if isinstance(before, dict) else {})
        else:
            merged[key] = value
    return merged


__all__ = ["Event", "Key", "Snapshot", "Store", "Watch", "kind_key", "qualified", "random_suffix"]
