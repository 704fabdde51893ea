"""host-device: moves a link of the host into the container, and back. Only `device` and `hwaddr` choose it here.

https://www.cni.dev/plugins/current/main/host-device/ ; `kernelpath`, `pciBusID` and DPDK are not modelled.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Interface, Plugin, Result

TEMPORARY = "temp_"
_ALIAS = "/var/lib/cni/host-device"
"""The real plugin keeps a link's old name in the link's alias; here it is kept as a file of the node."""


def _conf_device(call: Call) -> tuple[str, str]:
    device, mac = str(call.conf.get("device") or ""), str(call.conf.get("hwaddr") or "")
    for key in ("kernelpath", "pciBusID"):
        if call.conf.get(key):
            raise CniError(f"host-device: {key} is not modelled")
    if not device and not mac:
        raise CniError('specify either "device", "hwaddr", "kernelpath" or "pciBusID"')
    return device, mac


def add(call: Call) -> Result:
    """`ip link set DEVICE netns CONTAINER name eth0`, then addresses."""
    device, mac = _conf_device(call)
    sandbox = call.sandbox()
    if not device:
        device = next((link.name for link in call.node.links.values() if link.mac == mac.lower()), "")
    if device not in call.node.links:
        raise CniError("failed to find host device: Link not found")
    if call.ifname in sandbox.links:
        said = f'failed to rename device "{device}" to "{call.ifname}": file exists'
        raise CniError(f"failed to move link {said}")
    link = call.network.move_link(call.node.name, device, sandbox.name, call.ifname)
    call.node.files[_old_name(call)] = device
    interface.up(call, sandbox)
    made = (Interface(call.ifname, link.mac, call.netns),)
    if not interface.ipam_type(call):
        return Result(interfaces=made)
    answer = interface.add_ipam(call, 0)
    try:
        interface.configure(call, sandbox, answer.ips, answer.routes)
    except Exception:
        call.delegate(interface.ipam_type(call), command="DEL")
        raise
    return replace(answer, interfaces=made, dns=interface.dns_of(call))


def _old_name(call: Call) -> str:
    return f"{_ALIAS}/{call.container_id}-{call.ifname}"


def delete(call: Call) -> None:
    """Give the addresses back and the link to the host under its old name. Raises CniError when it is gone."""
    _conf_device(call)
    if not call.netns:
        return
    sandbox = call.find_sandbox()
    if sandbox is None:
        return
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))
    if call.ifname not in sandbox.links:
        raise CniError(f'failed to find "{call.ifname}" in containerNS: Link not found')
    old = call.node.files.pop(_old_name(call), call.ifname)
    call.network.move_link(sandbox.name, call.ifname, call.node.name, old)


def check(call: Call) -> None:
    """Compare the moved link, its addresses and routes with `prevResult`."""
    _conf_device(call)
    sandbox = call.sandbox()
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))
    result = interface.required_result(call)
    inside = interface.container_interface(call, result, "Sandbox")
    link = sandbox.links.get(inside.name)
    if link is None:
        raise CniError(f"host-device: Container Interface name in prevResult: {inside.name} not found")
    if inside.mac and inside.mac != link.mac:
        raise CniError(
            f"host-device: Interface {inside.name} Mac {inside.mac} doesn't match container Mac: {link.mac}"
        )
    interface.check_addresses(sandbox, inside.name, result.ips)
    interface.check_routes(sandbox, result.routes)


PLUGIN = Plugin(name="host-device", add=add, delete=delete, check=check, status=interface.status)
