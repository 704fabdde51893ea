"""Forwarding database entries of bridges and VXLAN devices (`bridge fdb`)."""

from __future__ import annotations

from msgspec import Struct


class FdbEntry(Struct, frozen=True):
    """Where frames for `mac` go.

    For a bridge, `dev` is the port and `master` the bridge. For a VXLAN device, `dev` is the device itself and
    `dst` the remote VTEP; several entries with MAC 00:00:00:00:00:00 make the flood list.
    """

    dev: str
    mac: str
    dst: str = ""
    master: str = ""
    vlan: int = 0
    state: str = ""
    """"permanent", "static" or "" for a learned one."""
    updated: float = 0.0
    vni: int = 0
    port: int = 0

    def __str__(self) -> str:
        words = [self.mac, "dev", self.dev]
        if self.dst:
            words += ["dst", self.dst]
        words += ["master", self.master] if self.master else ["self"]
        if self.state:
            words.append(self.state)
        return " ".join(words)
