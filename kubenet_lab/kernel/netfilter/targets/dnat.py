"""`-j DNAT`: rewrite the destination of a connection."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.targets.nat import FLAGS, AddressNat


class Dnat(AddressNat, frozen=True):
    """New destination, chosen once a connection."""

    NAME: ClassVar[str] = "DNAT"
    CHAINS: ClassVar[tuple[str, ...]] = ("PREROUTING", "OUTPUT")
    TO: ClassVar[str] = "--to-destination"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--to-destination"), *FLAGS)
