"""vrf: puts the interface under a VRF device, a routing table with a name. State only; no packet passes a VRF here.

https://www.cni.dev/plugins/current/meta/vrf/
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import mac_from


def _name(call: Call) -> str:
    name = str(call.conf.get("vrfname") or "")
    if not name:
        raise CniError("configuration is expected to have a valid vrf name")
    return name


def add(call: Call) -> Result:
    """`ip link add blue type vrf table N; ip link set blue up; ip link set eth0 master blue`."""
    name, result = _name(call), call.prev_result()
    if result is None:
        raise CniError("missing prevResult from earlier plugin")
    sandbox = call.sandbox()
    if name not in sandbox.links:
        try:
            sandbox.add_link(name, "vrf", mac=mac_from(sandbox.name, name))
        except KernelError as fault:
            raise CniError(f"cmdAdd failed: could not add VRF {name}: {fault.strerror}") from fault
        sandbox.set_link(name, up=True)
    elif sandbox.link(name).kind != "vrf":
        raise CniError(f"cmdAdd failed: Netlink {name} is not a VRF")
    present = sandbox.links.get(call.ifname)
    if present is None:
        raise CniError(f"cmdAdd failed: could not get link by name {call.ifname}")
    if present.master:
        raise CniError(f"cmdAdd failed: interface {call.ifname} has already a master set: {present.master}")
    sandbox.links[call.ifname] = _under(sandbox, call.ifname, name)
    return result


def _under(sandbox: Netns, dev: str, master: str) -> Link:
    return replace(sandbox.link(dev), master=master)


def delete(call: Call) -> None:
    """Take the interface out; the VRF goes with the last one in it."""
    name = _name(call)
    sandbox = call.find_sandbox() if call.netns else None
    if sandbox is None or name not in sandbox.links:
        return
    if call.ifname not in sandbox.links:
        raise CniError(f"resetMaster: could not get link by name {call.ifname}")
    sandbox.links[call.ifname] = _under(sandbox, call.ifname, "")
    if not any(link.master == name for link in sandbox.links.values()):
        sandbox.delete_link(name)


def check(call: Call) -> None:
    """Fail unless the interface is in the VRF."""
    name = _name(call)
    if call.prev_result() is None:
        raise CniError("missing prevResult from earlier plugin")
    sandbox = call.sandbox()
    if name not in sandbox.links:
        raise CniError("Link not found")
    if sandbox.link(name).kind != "vrf":
        raise CniError(f"Netlink {name} is not a VRF")
    if call.ifname not in sandbox.links or sandbox.link(call.ifname).master != name:
        raise CniError(f"failed to find {call.ifname} associated to vrf {name}")


PLUGIN = Plugin(
    name="vrf", add=add, delete=delete, check=check, versions=("0.3.1", "0.4.0", "1.0.0", "1.1.0")
)
