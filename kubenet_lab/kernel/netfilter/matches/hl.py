"""`-m hl`: the hop limit of the IPv6 header."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.matches.ttl import Ttl


class HopLimit(Ttl, frozen=True):
    """As `-m ttl`, for IPv6."""

    NAME: ClassVar[str] = "hl"
    FAMILIES: ClassVar[tuple[int, ...]] = (6,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--hl-eq"), Option("--hl-lt"), Option("--hl-gt"))
