"""`-j SNAT`: rewrite the source of a connection."""

from __future__ import annotations

from typing import ClassVar

from kubenet_lab.kernel.netfilter.extension import Option
from kubenet_lab.kernel.netfilter.targets.nat import FLAGS, AddressNat


class Snat(AddressNat, frozen=True):
    """New source, chosen once a connection."""

    NAME: ClassVar[str] = "SNAT"
    CHAINS: ClassVar[tuple[str, ...]] = ("INPUT", "POSTROUTING")
    TO: ClassVar[str] = "--to-source"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--to-source"), *FLAGS)
