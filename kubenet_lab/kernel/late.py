"""A table whose bulk is only made when somebody looks: what a routing daemon promised to a node nobody has asked yet.

On a cluster of a thousand nodes every node has a route to every other one. Most of them no packet ever meets. A
`LateDict` answers for single keys from the promise, and becomes a plain dict when it is gone through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Promise(Protocol):
    """What is to come into a table."""

    def get(self, key: Any) -> Any | None:
        """Return the promised value of a key, None for none."""

    def items(self) -> list[tuple[Any, Any]]:
        """Return all that is promised."""


class LateDict(dict[K, V]):
    """A dict and a promise. Entries that were put by hand win over promised ones.

    `kept` is called once, after the promise was kept.
    """

    promise: Promise
    kept: Callable[[], None] | None

    @classmethod
    def over(
        cls, present: dict[K, V], promise: Promise, kept: Callable[[], None] | None = None
    ) -> LateDict[K, V]:
        """Return a table with the present entries and a promise."""
        made: LateDict[K, V] = cls()
        dict.update(made, present)
        made.promise, made.kept = promise, kept
        return made

    def keep(self) -> None:
        """Put what was promised into the table, which is an ordinary one from then on."""
        promised = self.promise.items()
        own = dict(dict.items(self))
        dict.clear(self)
        dict.update(self, promised)
        dict.update(self, own)
        self.__class__ = _Kept  # type: ignore[assignment]
        if self.kept is not None:
            self.kept()

    def copy(self) -> dict[K, V]:
        """Return a copy that still waits."""
        return LateDict.over(dict(dict.items(self)), self.promise, self.kept)

    def __missing__(self, key: K) -> V:
        found: V | None = self.promise.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: K, default: Any = None) -> Any:
        """Return an entry, put or promised."""
        found = dict.get(self, key)
        if found is None:
            found = self.promise.get(key)
        return default if found is None else found

    def __contains__(self, key: object) -> bool:
        return dict.__contains__(self, key) or self.promise.get(key) is not None

    def __delitem__(self, key: K) -> None:
        if self.promise.get(key) is None:
            dict.__delitem__(self, key)
            return
        self.keep()
        del self[key]

    def pop(self, *args: Any) -> Any:
        """Take an entry out, for which a promise is kept first when it is of this entry."""
        if self.promise.get(args[0]) is None:
            return dict.pop(self, *args)
        self.keep()
        return self.pop(*args)

    def __iter__(self) -> Iterator[K]:
        self.keep()
        return iter(self)

    def __len__(self) -> int:
        self.keep()
        return len(self)

    def __bool__(self) -> bool:
        return dict.__len__(self) > 0 or bool(self.promise.items())

    def keys(self) -> Any:
        """Keep the promise and return all keys."""
        self.keep()
        return self.keys()

    def values(self) -> Any:
        """Keep the promise and return all entries."""
        self.keep()
        return self.values()

    def items(self) -> Any:
        """Keep the promise and return all keys and entries."""
        self.keep()
        return self.items()

    def __reversed__(self) -> Iterator[K]:
        self.keep()
        return reversed(self)

    def __eq__(self, other: object) -> bool:
        self.keep()
        return self == other

    __hash__ = None


class _Kept(dict[K, V]):
    """A table that waits for nothing any more."""


def copied(table: dict[K, V]) -> dict[K, V]:
    """Return a copy of a table, which still waits where the table does."""
    return table.copy() if isinstance(table, LateDict) else dict(table)
