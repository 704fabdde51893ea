"""ptp: a veth pair between container and host, and routes on both sides instead of a bridge.

The container reaches its gateway by a route with scope link and its own subnet through that gateway, so that every
packet goes by the host. https://www.cni.dev/plugins/current/main/ptp/
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.cni import interface, masquerade
from kubenet_lab.cni.plugin import Call, CniError, Interface, Ip, Plugin, Result
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import family, prefix


def add(call: Call) -> Result:
    """Address first, then forwarding, the pair, the container's routes, the host's address and route."""
    answer = interface.add_ipam(call, 1)
    try:
        return _connect(call, answer)
    except Exception:
        call.delegate(interface.ipam_type(call), command="DEL")
        raise


def _connect(call: Call, answer: Result) -> Result:
    interface.enable_forward(call.node, answer.ips)
    sandbox = call.sandbox()
    host_name = interface.make_veth(call, sandbox, int(call.conf.get("mtu") or 0))
    host, inside = call.node.link(host_name), sandbox.link(call.ifname)
    interface.configure(call, sandbox, answer.ips, answer.routes)
    for ip in answer.ips:
        _by_gateway(sandbox, call.ifname, ip)
    for ip in answer.ips:
        full = 32 if family(ip.address) == 4 else 128
        call.node.add_address(host_name, f"{ip.gateway}/{full}")
        try:
            call.node.add_route(f"{ip.address.partition('/')[0]}/{full}", dev=host_name, scope="host")
        except KernelError as fault:
            if fault.errno != "EEXIST":
                raise CniError(f"failed to add route on host: {fault.strerror}") from fault
    if call.conf.get("ipMasq"):
        for ip in answer.ips:
            masquerade.add(call, ip.address, call.conf.get("ipMasqBackend"))
    interfaces = (Interface(host_name, host.mac), Interface(call.ifname, inside.mac, call.netns))
    return replace(answer, interfaces=interfaces, dns=interface.dns_of(call) or answer.dns)


def _by_gateway(sandbox: Netns, dev: str, ip: Ip) -> None:
    """Replace the connected route by one to the gateway and one through it."""
    source, network = ip.address.partition("/")[0], str(prefix(ip.address))
    full = 32 if family(ip.address) == 4 else 128
    sandbox.delete_route(network, dev=dev)
    sandbox.add_route(f"{ip.gateway}/{full}", dev=dev, scope="link", prefsrc=source)
    sandbox.add_route(network, via=ip.gateway, dev=dev, prefsrc=source)


def delete(call: Call) -> None:
    """Release the address, delete the pair, and the masquerade rules of what the interface had."""
    call.delegate(interface.ipam_type(call))
    for cidr in interface.take_down(call) or ():
        if call.conf.get("ipMasq"):
            masquerade.remove(call, cidr)


def check(call: Call) -> None:
    """Compare the container's interface, addresses, gateways and routes with `prevResult`."""
    call.sandbox()
    call.delegate(interface.ipam_type(call))
    result = interface.required_result(call, "ptp: Required prevResult missing")
    inside = interface.container_interface(call, result, "Sandbox")
    sandbox = call.sandbox()
    link = sandbox.links.get(inside.name)
    if link is None:
        raise CniError(f"ptp: Container Interface name in prevResult: {inside.name} not found")
    if link.kind != "veth":
        raise CniError(f"Error: Container interface {link.name} not of type veth/p2p")
    if inside.mac and inside.mac != link.mac:
        raise CniError(
            f"ptp: Interface {inside.name} Mac {inside.mac} doesn't match container Mac: {link.mac}"
        )
    interface.check_addresses(sandbox, inside.name, result.ips)
    interface.check_routes(sandbox, result.routes)


PLUGIN = Plugin(name="ptp", add=add, delete=delete, check=check, status=interface.status)
