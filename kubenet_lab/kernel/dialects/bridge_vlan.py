"""`bridge vlan`: which VLANs each port, and the bridge itself, is in (iproute2 6.1, `bridge/vlan.c`)."""

from __future__ import annotations

from typing import Any

from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.link import BridgeOptions, BridgePort, Link, PortVlan
from kubenet_lab.kernel.netns import Netns

HEADER = f"{'port':<16}  {'vlan-id':<7}  "


def vlans_of(link: Link) -> tuple[PortVlan, ...]:
    """Return the VLANs of a bridge or of a port, by number."""
    if link.master:
        found = (link.port or BridgePort()).vlans
    else:
        found = (link.bridge or BridgeOptions()).vlans if link.kind == "bridge" else ()
    return tuple(sorted(found, key=lambda one: one.vid))


def _flags(one: PortVlan) -> list[str]:
    return (["PVID"] if one.pvid else []) + (["Egress Untagged"] if one.untagged else [])


def show(ns: Netns, *, dev: str = "", json: bool = False, pretty: bool = False) -> str:
    """Return `bridge [-j] vlan show [dev DEV]`: bridges and their ports, by index."""
    rows: list[dict[str, Any]] = []
    lines = [HEADER]
    for link in sorted(ns.links.values(), key=lambda one: one.index):
        found = vlans_of(link)
        if not found or dev not in ("", link.name):
            continue
        rows.append(
            {
                "ifname": link.name,
                "vlans": [
                    {"vlan": one.vid} | ({"flags": _flags(one)} if one.pvid or one.untagged else {})
                    for one in found
                ],
            }
        )
        for number, one in enumerate(found):
            name = "" if number else link.name
            lines.append(f"{name:<16}  " + " ".join([str(one.vid), *_flags(one)]))
    if json:
        return iproute2.dumps(rows, pretty)
    return "".join(line + "\n" for line in lines)


def change(present: tuple[PortVlan, ...], wished: PortVlan | None, vid: int) -> tuple[PortVlan, ...]:
    """Return the VLANs after `bridge vlan add` (or `del`, with None): one PVID at most, by number."""
    kept = [one for one in present if one.vid != vid]
    if wished is not None:
        if wished.pvid:
            kept = [PortVlan(one.vid, False, one.untagged) for one in kept]
        kept.append(wished)
    return tuple(sorted(kept, key=lambda one: one.vid))
