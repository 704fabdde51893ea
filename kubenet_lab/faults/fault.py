"""What a fault is: a value that changes a cluster's state and hands back the way to mend it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

Undo = Callable[[], None]


class Fault(Struct, frozen=True):
    """A fault with its details.

    A subclass's docstring says symptom, where it lives, which tool shows it, and the cure.
    """

    NAME: ClassVar[str] = ""
    TITLE: ClassVar[str] = ""

    def inject(self, cluster: Cluster) -> Undo:
        """Break it; the returned function mends it. Raises NotFound where there is nothing of the kind to break."""
        raise NotImplementedError
