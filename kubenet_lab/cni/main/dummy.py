"""dummy and tap: an interface with nobody at its other end.

dummy drops what it is given. tap waits for a program, such as a virtual machine, to open it, and has no carrier until
then. https://www.cni.dev/plugins/current/main/dummy/ , https://www.cni.dev/plugins/current/main/tap/
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Interface, Plugin, Result
from kubenet_lab.kernel.errors import KernelError


def _add(name: str, kind: str) -> Callable[[Call], Result]:
    def add(call: Call) -> Result:
        """Make the link in the container, then let IPAM give it an address."""
        if name == "dummy" and not interface.ipam_type(call):
            raise CniError("dummy interface requires an IPAM configuration")
        sandbox = call.sandbox()
        mac = interface.wished_mac(call)
        if mac and not interface.valid_mac(mac):
            raise CniError(f"invalid args {mac} for MAC addr: address {mac}: invalid MAC address")
        try:
            link = sandbox.add_link(
                call.ifname,
                kind,
                mac=mac or interface.own_mac(call),
                mtu=int(call.conf.get("mtu") or 1500),
                carrier=name != "tap",
            )
        except KernelError as fault:
            raise CniError(f"failed to create {name}: {fault.strerror}") from fault
        made = (Interface(call.ifname, link.mac, call.netns),)
        if not interface.ipam_type(call):
            interface.up(call, sandbox)
            return Result(interfaces=made, dns=interface.dns_of(call))
        try:
            answer = interface.add_ipam(call, 0)
        except CniError:
            sandbox.delete_link(call.ifname)
            raise
        try:
            interface.configure(call, sandbox, answer.ips, answer.routes)
        except Exception:
            call.delegate(interface.ipam_type(call), command="DEL")
            raise
        return replace(answer, interfaces=made, dns=interface.dns_of(call) or answer.dns)

    return add


def delete(call: Call) -> None:
    """Release the addresses and delete the link."""
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))
    interface.take_down(call)


def check(call: Call) -> None:
    """Compare the link, its addresses and routes with `prevResult`."""
    sandbox = call.sandbox()
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))
    result = interface.required_result(call, "required prevResult missing")
    inside = interface.container_interface(call, result, "Sandbox")
    link = sandbox.links.get(inside.name)
    if link is None:
        raise CniError(f"container interface name in prevResult: {inside.name} not found")
    if inside.mac and inside.mac != link.mac:
        raise CniError(f"interface {inside.name} Mac {inside.mac} doesn't match container Mac: {link.mac}")
    interface.check_addresses(sandbox, inside.name, result.ips)
    interface.check_routes(sandbox, result.routes)


PLUGINS = tuple(
    Plugin(name=name, add=_add(name, kind), delete=delete, check=check, status=interface.status)
    for name, kind in (("dummy", "dummy"), ("tap", "tun"))
)
