"""A lease: what one node offers the others, written in its Node's annotations.

Source: `pkg/subnet/kube/{annotations,kube}.go` (v0.28).
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from kubenet_lab.objects.node import Node
from kubenet_lab.packet.ip import prefix

PREFIX = "flannel.alpha.coreos.com/"
_NAMES = {
    4: ("public-ip", "backend-data"),
    6: ("public-ipv6", "backend-v6-data"),
}


class Half(Struct, frozen=True):
    """A lease's part for one address family: the pod subnet, where it is, and what the backend says about it."""

    subnet: str
    public_ip: str
    mac: str = ""
    """VTEP's MAC, with vxlan."""
    key: str = ""
    """Public key, with wireguard."""
    port: int = 0

    @property
    def network_address(self) -> str:
        """First address of the subnet: the tunnel device's own address, and next hop of the route."""
        return self.subnet.partition("/")[0]


class Lease(Struct, frozen=True):
    """What one node offers."""

    node: str
    backend_type: str
    halves: tuple[tuple[int, Half], ...]

    def half(self, fam: int) -> Half | None:
        """The part of one family, None where the node has none."""
        return next((half for of, half in self.halves if of == fam), None)

    @classmethod
    def of(cls, node: Node) -> Lease | None:
        """Read a Node's lease; None while its flanneld has not written one."""
        notes = node.metadata.annotations
        if notes.get(PREFIX + "kube-subnet-manager") != "true":
            return None
        halves = []
        for fam, (address, data) in _NAMES.items():
            subnet = pod_cidr(node, fam)
            if not subnet or PREFIX + data not in notes:
                continue
            said = json.loads(notes[PREFIX + data] or "null") or {}
            halves.append(
                (
                    fam,
                    Half(
                        subnet,
                        notes.get(PREFIX + address, ""),
                        str(said.get("VtepMAC", "")),
                        str(said.get("PublicKey", "")),
                        int(said.get("Port", 0)),
                    ),
                )
            )
        return cls(node.name, notes.get(PREFIX + "backend-type", ""), tuple(halves)) if halves else None


def pod_cidr(node: Node, fam: int) -> str:
    """The Node's pod subnet of a family, "" for none."""
    cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    return next((str(prefix(c)) for c in cidrs if (":" in c) == (fam == 6)), "")


def with_lease(
    present: dict[str, str], backend: str, addresses: dict[int, str], data: dict[int, Any]
) -> dict[str, str]:
    """Return a Node's annotations with the lease in them; `public-ip-overwrite` wins over the link's address."""
    notes = dict(present)
    for fam, address in addresses.items():
        name, data_name = _NAMES[fam]
        overwrite = notes.get(f"{PREFIX}{name}-overwrite")
        notes[PREFIX + data_name] = json.dumps(data.get(fam), separators=(",", ":"))
        notes[PREFIX + name] = overwrite or address
    notes[PREFIX + "backend-type"] = backend
    notes[PREFIX + "kube-subnet-manager"] = "true"
    return notes
