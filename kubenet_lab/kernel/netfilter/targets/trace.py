"""`-j TRACE`: have the kernel report every rule this packet meets; the next rule goes on."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Target


class TraceTarget(Target, frozen=True):
    """Mark the packet for tracing."""

    NAME: ClassVar[str] = "TRACE"
    TABLES: ClassVar[tuple[str, ...]] = ("raw",)
