"""The standard targets: `-j ACCEPT`, `-j DROP`, `-j RETURN`, `-j QUEUE`."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Target


class Accept(Target, frozen=True):
    """The packet passes this table's hook."""

    NAME: ClassVar[str] = "ACCEPT"


class Drop(Target, frozen=True):
    """The packet is discarded in silence."""

    NAME: ClassVar[str] = "DROP"


class Return(Target, frozen=True):
    """Back to the calling chain; in a built-in chain the policy decides."""

    NAME: ClassVar[str] = "RETURN"


class Queue(Target, frozen=True):
    """The packet goes to a program in user space (queue 0)."""

    NAME: ClassVar[str] = "QUEUE"
