"""`-j MASQUERADE`: rewrite the source to the address of the interface the packet leaves by."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.targets.nat import PortNat


class Masquerade(PortNat, frozen=True):
    """The source becomes the outgoing interface's address."""

    NAME: ClassVar[str] = "MASQUERADE"
    CHAINS: ClassVar[tuple[str, ...]] = ("POSTROUTING",)
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--to-ports"),
        Option("--random", 0),
        Option("--random-fully", 0),
    )
