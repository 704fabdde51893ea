"""An address on a link: what `ip addr` shows."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.packet.ip import Prefix, prefix


class Address(Struct, frozen=True):
    """`local`/`length` on `dev`. `broadcast` is "" where none is set."""

    dev: str
    local: str
    length: int
    scope: str = "global"
    broadcast: str = ""
    label: str = ""
    secondary: bool = False
    flags: tuple[str, ...] = ()

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.local else 4

    @property
    def network(self) -> Prefix:
        """The connected network."""
        return prefix(f"{self.local}/{self.length}")

    def __str__(self) -> str:
        return f"{self.local}/{self.length} dev {self.dev}"
