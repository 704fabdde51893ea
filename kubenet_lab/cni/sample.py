"""sample: a whole CNI plugin and its pod network in one file, to read, to copy and to extend.

A container gets a veth pair, an address from the configuration's IPAM plugin, and a default route to the host; the host
gets a /32 route to it. That is all: no bridge, no masquerade, no CHECK worth the name. Things to add, each a few lines:

- `ipMasq`: call `masquerade.add` in `add` and `masquerade.remove` in `delete`, and pods reach the outside;
- CHECK: compare links, addresses and routes with `prevResult` (`interface.check_addresses`);
- IPv6: the host's address below is an IPv4 one.

https://www.cni.dev/docs/spec/ ; upstream's counterpart is `plugins/sample/main.go`.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Interface, Plugin, Result
from kubenet_lab.cni.static_network import StaticNetwork

GATEWAY = "169.254.1.1"
"""The host's address on every container's pair: the same everywhere, because each pair is a network of two."""


def add(call: Call) -> Result:
    """Connect the container: four kernel edits, each whole; a failure leaves the earlier ones, and DEL clears them."""
    sandbox = call.sandbox()
    host = interface.make_veth(call, sandbox, mtu=0)
    answer = interface.add_ipam(call, index=1)
    # A /32: with the subnet's own length the container would look for its neighbours on a link where nobody is.
    ips = tuple(
        replace(ip, address=f"{ip.address.partition('/')[0]}/32", gateway=GATEWAY) for ip in answer.ips
    )
    interface.configure(call, sandbox, ips, routes=())
    call.node.add_address(host, f"{GATEWAY}/32")
    sandbox.add_route(f"{GATEWAY}/32", dev=call.ifname, scope="link")
    sandbox.add_route("0.0.0.0/0", via=GATEWAY, dev=call.ifname)
    for ip in ips:
        call.node.add_route(ip.address, dev=host, scope="link")
    interface.enable_forward(call.node, ips)
    links = (
        Interface(host, call.node.link(host).mac),
        Interface(call.ifname, sandbox.link(call.ifname).mac, call.netns),
    )
    return Result(links, ips)


def delete(call: Call) -> None:
    """Take the pair away (the host's end and its routes go with it), and give the address back. Twice is no error."""
    interface.take_down(call)
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))


def check(call: Call) -> None:
    """Fail when the interface is gone."""
    if call.ifname not in call.sandbox().links:
        raise CniError(f"interface {call.ifname} not found")


PLUGIN = Plugin(name="sample", add=add, delete=delete, check=check, status=interface.status)


class Sample(StaticNetwork):
    """A cluster whose nodes use the plugin, each with its own pod subnet; routes between nodes are written by hand."""

    def plugin(self, subnets: tuple[str, ...]) -> dict[str, Any]:
        """Return the plugin's configuration for a node's pod subnets; it takes the first, an IPv4 one."""
        return {"type": "sample", "ipam": {"type": "host-local", "ranges": [[{"subnet": subnets[0]}]]}}
