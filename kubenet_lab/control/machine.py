"""Machines before Kubernetes: nodes as kubeadm wants them, the router, and a host outside.

    node-1 .10 --+                                  +-- outside 203.0.113.10 (a web server)
    node-2 .20 --+-- underlay 192.168.1.0/24 -- .1 router .1 -- 203.0.113.0/24
    node-3 .30 --+

The outside has no route to pod addresses, as the internet has none: a pod that wants an answer has to be
masqueraded. Source:
https://kubernetes.io/docs/setup/production-environment/container-runtimes/#install-and-configure-prerequisites
"""

from __future__ import annotations

from kubenet_lab.dns.outside import OutsideNames
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.ip import ip_text, mac_from, prefix
from kubenet_lab.packet.packet import TCP, UDP

ROUTER, OUTSIDE = "router", "outside"
UNDERLAY = "underlay"
OUTSIDE_ADDRESS, OUTSIDE_GATEWAY = "203.0.113.10", "203.0.113.1"
OUTSIDE_ADDRESS6, OUTSIDE_GATEWAY6 = "2001:db8:113::10", "2001:db8:113::1"
OUTSIDE_NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(
    ("example.com.", "www.example.com.", "api.github.com."), (OUTSIDE_ADDRESS,)
)
"""Names of the world outside; all are the one host there."""
API_SERVER_PORT = 6443
KUBELET_PORT = 10250

NODE_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
"""What kubeadm's prerequisites set on a node."""


def build_underlay(network: Network, *, subnet: str = "192.168.1.0/24", mtu: int = 1500) -> None:
    """Build the wire the nodes share, its router, and a host outside with a web server on port 80.

    The router's address on the underlay is the subnet's first; the API server listens there on port 6443, and the name
    server of the world outside on port 53.
    """
    network.add_wire(UNDERLAY, mtu=mtu)
    network.add_wire(OUTSIDE)
    router = network.add_netns(ROUTER)
    router.set_sysctl("net.ipv4.ip_forward", 1)
    gateway = _first(subnet)
    _plug(network, router, "eth0", UNDERLAY, f"{gateway}/{prefix(subnet).length}", mtu)
    _plug(network, router, "eth1", OUTSIDE, f"{OUTSIDE_GATEWAY}/24", 1500)
    router.listen(Socket(TCP, "::", API_SERVER_PORT, "kube-apiserver"))
    router.listen(Socket(UDP, "::", 53, "dnsmasq", handler=OutsideNames(dict(OUTSIDE_NAMES)).handle))
    outside = network.add_netns(OUTSIDE)
    _plug(network, outside, "eth0", OUTSIDE, f"{OUTSIDE_ADDRESS}/24", 1500)
    outside.add_route("default", via=OUTSIDE_GATEWAY, dev="eth0")
    outside.files["/etc/resolv.conf"] = f"nameserver {OUTSIDE_GATEWAY}\n"
    outside.listen(Socket(TCP, "::", 80, "nginx"))


def check_address(name: str, address: str) -> None:
    """Raise InputError for an InternalIP that is no address, or that of the router of the node's /24."""
    try:
        block = prefix(f"{address}/24")
    except ValueError:
        said = f"Node {name}: status.addresses: {address!r} is no IP address"
        raise InputError([Fault(said, help="write an IPv4 address such as 192.168.1.10")]) from None
    if address == _first(str(block)):
        said = f"Node {name}: status.addresses: {address} is the address of the router in {block} here"
        raise InputError([Fault(said, help="take another address of that network")])


def build_node(
    network: Network,
    name: str,
    address: str = "192.168.1.10/24",
    *,
    gateway: str = "",
    address6: str = "",
    mtu: int = 1500,
    sysctls: dict[str, str] | None = None,
) -> Netns:
    """Build one node: root namespace `name`, eth0, default route, sysctls, the kubelet's port.

    A node in another subnet than the first gets a wire of its own behind the router. `gateway` defaults to
    the subnet's first address. With `address6` ("fd00:192:168:1::10/64") node and router speak IPv6 on that wire too.
    Raises KernelError EEXIST when the name is taken.
    """
    if UNDERLAY not in network.wires:
        build_underlay(network, subnet=str(prefix(address)), mtu=mtu)
    node = network.add_netns(name)
    for key, value in (NODE_SYSCTLS if sysctls is None else sysctls).items():
        node.set_sysctl(key, value)
    gateway = gateway or _first(address)
    _plug(network, node, "eth0", _wire_of(network, address, gateway, mtu), address, mtu)
    node.add_route("default", via=gateway, dev="eth0")
    if address6:
        _speak_ipv6(network, node, address6)
    node.files["/etc/resolv.conf"] = f"nameserver {gateway}\n"
    node.files["/etc/hosts"] = f"127.0.0.1\tlocalhost\n{address.partition('/')[0]}\t{name}\n"
    node.listen(Socket(TCP, "::", KUBELET_PORT, "kubelet"))
    return node


def remove_node(network: Network, name: str) -> None:
    """Switch a node off: its pods' namespaces and its own are gone."""
    for ns in [ns for ns in network.netns.values() if ns.host == name and ns.name != name]:
        network.delete_netns(ns.name)
    network.delete_netns(name)


def _speak_ipv6(network: Network, node: Netns, address: str) -> None:
    """A second family on the node's link, where the router has the subnet's first address, and on the way outside."""
    gateway = _first(address)
    router = network.ns(ROUTER)
    wire = node.link("eth0").wire
    dev = next(link.name for link in router.links.values() if link.wire == wire)
    if all(present.local != gateway for present in router.addrs(dev, 6)):
        router.set_sysctl("net.ipv6.conf.all.forwarding", 1)
        router.add_address(dev, f"{gateway}/{prefix(address).length}")
    outside = network.ns(OUTSIDE)
    if all(present.local != OUTSIDE_ADDRESS6 for present in outside.addrs("eth0", 6)):
        router.add_address("eth1", f"{OUTSIDE_GATEWAY6}/64")
        outside.add_address("eth0", f"{OUTSIDE_ADDRESS6}/64")
        outside.add_route("default", via=OUTSIDE_GATEWAY6, dev="eth0")
    node.add_address("eth0", address)
    node.add_route("default", via=gateway, dev="eth0")


def _first(cidr: str) -> str:
    block = prefix(cidr)
    return ip_text(block.net + 1, block.family)


def _wire_of(network: Network, address: str, gateway: str, mtu: int) -> str:
    """The wire of this subnet; made, with the router's link, when the node is the first there."""
    router = network.ns(ROUTER)
    for present in router.addrs(fam=4):
        if present.dev != "lo" and present.local == gateway:
            return router.link(present.dev).wire
    wire = f"{UNDERLAY}-{prefix(address)}"
    network.add_wire(wire, mtu=mtu)
    _plug(network, router, f"eth{len(router.links) - 1}", wire, f"{gateway}/{prefix(address).length}", mtu)
    return wire


def _plug(network: Network, ns: Netns, dev: str, wire: str, cidr: str, mtu: int) -> None:
    ns.add_link(dev, "physical", mac=mac_from(ns.name, dev, first=0x52), mtu=mtu)
    network.plug(wire, ns.name, dev)
    ns.set_link(dev, up=True)
    ns.add_address(dev, cidr)
