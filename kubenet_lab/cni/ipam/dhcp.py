"""dhcp: asks a DHCP server through a daemon on the host. Not modelled: no machine here answers DHCP.

https://www.cni.dev/plugins/current/ipam/dhcp/
"""

from __future__ import annotations

from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result

_SOCKET = "/run/cni/dhcp.sock"


def add(call: Call) -> Result:
    """Fail as the real plugin does where its daemon is not running."""
    raise CniError(
        f"error dialing DHCP daemon: dial unix {_SOCKET}: connect: no such file or directory",
        999,
        "dhcp: not modelled",
    )


def delete(call: Call) -> None:
    """Fail as `add` does."""
    add(call)


def check(call: Call) -> None:
    """Fail as `add` does."""
    add(call)


PLUGIN = Plugin(name="dhcp", add=add, delete=delete, check=check, status=check)
