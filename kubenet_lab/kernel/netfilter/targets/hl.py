"""`-j HL`: change the hop limit of an IPv6 packet."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.targets.ttl import TtlTarget


class HopLimitTarget(TtlTarget, frozen=True):
    """As `-j TTL`, for IPv6."""

    NAME: ClassVar[str] = "HL"
    FAMILIES: ClassVar[tuple[int, ...]] = (6,)
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--hl-set"), Option("--hl-dec"), Option("--hl-inc"))
