"""`-j REDIRECT`: rewrite the destination to this host itself."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.targets.nat import PortNat


class Redirect(PortNat, frozen=True):
    """The destination becomes the incoming interface's address, or 127.0.0.1 for local packets."""

    NAME: ClassVar[str] = "REDIRECT"
    CHAINS: ClassVar[tuple[str, ...]] = ("PREROUTING", "OUTPUT")
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--to-ports"), Option("--random", 0))
