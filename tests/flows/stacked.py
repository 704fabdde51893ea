"""Flows through devices on other links: small worlds made by hand, and how each flow must end.

The same rows run on the model and, where the kernel has the device, on the kernel. `KINDS` says which kind a world
needs, so that a kernel without it is recognised by name.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from kubenet_lab.kernel.dialects.iptables import load
from kubenet_lab.kernel.link import (
    BridgeOptions,
    BridgePort,
    IpvlanOptions,
    Link,
    MacvlanOptions,
    Peer,
    PortVlan,
    VlanOptions,
)
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.packet.packet import ICMP, ICMPV6, TCP, UDP

PORT = 8080
Options = MacvlanOptions | IpvlanOptions | VlanOptions


class Row(Struct, frozen=True, kw_only=True):
    """One flow and its end; `errno` is what the caller's system call returns, `source` the address the server saw."""

    world: str
    name: str
    src: str
    dst: str
    end: str
    proto: int = TCP
    port: int = PORT
    size: int = 0
    df: bool = False
    errno: str = ""
    source: str = ""


def host(network: Network, name: str, *cidrs: str, wire: str = "lan") -> Netns:
    """A machine with eth0 on a wire, and a server."""
    space = network.add_netns(name)
    space.add_link("eth0", "physical", mac=mac_from(name, "eth0"))
    network.plug(wire, name, "eth0")
    space.set_link("eth0", up=True)
    serve(space)
    for cidr in cidrs:
        space.add_address("eth0", cidr)
    return space


def serve(space: Netns) -> None:
    """A TCP server on every address."""
    space.listen(Socket(TCP, "::", PORT, "server"))


def device(
    network: Network, ns: str, dev: str, options: Options, *cidrs: str, on: str = "", up: bool = True
) -> Link:
    """A device on another link, in a namespace of its host (made where it is not there), with addresses."""
    if ns not in network.netns:
        serve(network.add_netns(ns, on or options.lower.netns))
    mac = mac_from(ns, dev) if isinstance(options, MacvlanOptions) else ""
    network.add_upper(ns, dev, options, mac=mac)
    space = network.ns(ns)
    if up:
        space.set_link(dev, up=True)
    for cidr in cidrs:
        space.add_address(dev, cidr)
    return space.links[dev]


def _switched(network: Network, switch: str, name: str, *cidrs: str, hairpin: bool) -> Netns:
    """A machine whose eth0 is a cable to a port of a switch, which may send frames back where they came from."""
    space = network.add_netns(name)
    macs = {"mac_a": mac_from(name, "eth0"), "mac_b": mac_from(name, "port")}
    network.add_veth(name, "eth0", switch, name, **macs)
    network.ns(switch).set_link(name, up=True, master="br0", port=BridgePort(hairpin=hairpin))
    space.set_link("eth0", up=True)
    serve(space)
    for cidr in cidrs:
        space.add_address("eth0", cidr)
    return space


def _switch(network: Network, name: str, **options: bool) -> Netns:
    space = network.add_netns(name)
    space.add_link("br0", "bridge", mac=mac_from(name, "br0"), bridge=BridgeOptions(**options))
    space.set_link("br0", up=True)
    return space


def macvlan() -> Network:
    """Hosts on a wire with macvlan pods of every mode; node-1 has a device of its own beside its pods'."""
    net = Network()
    net.add_wire("lan")
    host(net, "node-1", "10.1.0.1/16", "fd00:1::1/64")
    host(net, "node-2", "10.1.0.2/16", "fd00:1::2/64")
    host(net, "node-3", "10.1.0.3/16")
    host(net, "outside", "10.1.0.9/16", "fd00:1::9/64")
    one, two, three = Peer("node-1", "eth0"), Peer("node-2", "eth0"), Peer("node-3", "eth0")
    device(net, "a", "eth0", MacvlanOptions(one), "10.1.1.1/16", "fd00:1::a1/64")
    device(net, "b", "eth0", MacvlanOptions(one), "10.1.1.2/16", "fd00:1::a2/64")
    device(net, "secret-1", "eth0", MacvlanOptions(one, "private"), "10.1.1.3/16")
    device(net, "secret-2", "eth0", MacvlanOptions(one, "private"), "10.1.1.4/16")
    device(net, "vepa-1", "eth0", MacvlanOptions(one, "vepa"), "10.1.1.5/16")
    device(net, "vepa-2", "eth0", MacvlanOptions(one, "vepa"), "10.1.1.6/16")
    device(net, "small", "eth0", MacvlanOptions(one), "10.1.1.7/16")
    net.ns("small").set_link("eth0", mtu=1400)
    device(net, "node-1", "shim0", MacvlanOptions(one), "10.1.1.8/32")
    for pod in ("10.1.1.1/32", "10.1.1.2/32"):
        net.ns("node-1").add_route(pod, dev="shim0", prefsrc="10.1.1.8")
    device(net, "far", "eth0", MacvlanOptions(two), "10.1.2.1/16", "fd00:1::b1/64")
    device(net, "asleep", "eth0", MacvlanOptions(two), "10.1.2.2/16", up=False)
    device(net, "nested", "eth0", MacvlanOptions(Peer("far", "eth0")), "10.1.2.3/16", on="node-2")
    device(net, "guest", "eth0", MacvlanOptions(three, "passthru"), "10.1.3.1/16")
    return net


def macvlan_switch() -> Network:
    """Hosts behind a switch: one port sends frames back (802.1Qbg's reflective relay), as vepa wants it."""
    net = Network()
    _switch(net, "switch")
    one = _switched(net, "switch", "node-1", "10.1.0.1/16", hairpin=True)
    _switched(net, "switch", "outside", "10.1.0.9/16", hairpin=False)
    lower = Peer(one.name, "eth0")
    device(net, "a", "eth0", MacvlanOptions(lower), "10.1.1.1/16")
    device(net, "b", "eth0", MacvlanOptions(lower), "10.1.1.2/16")
    device(net, "secret-1", "eth0", MacvlanOptions(lower, "private"), "10.1.1.3/16")
    device(net, "secret-2", "eth0", MacvlanOptions(lower, "private"), "10.1.1.4/16")
    device(net, "vepa-1", "eth0", MacvlanOptions(lower, "vepa"), "10.1.1.5/16")
    device(net, "vepa-2", "eth0", MacvlanOptions(lower, "vepa"), "10.1.1.6/16")
    # And a device on a bridge itself, in the switch.
    device(net, "inside", "eth0", MacvlanOptions(Peer("switch", "br0")), "10.1.1.9/16")
    return net


def macvlan_down() -> Network:
    """As `macvlan`, with node-1's eth0 down."""
    net = macvlan()
    net.ns("node-1").set_link("eth0", up=False)
    return net


def vlan() -> Network:
    """Hosts with VLAN devices on one wire: in the host, in a pod, under a bridge, and under a macvlan."""
    net = Network()
    net.add_wire("lan")
    for number, ids in ((1, (100, 200)), (2, (100, 300)), (3, (100,))):
        name = f"node-{number}"
        host(net, name, f"10.0.0.{number}/24")
        for vid in ids:
            cidr = [] if number == 3 else [f"10.{vid % 255}.0.{number}/24", f"fd00:{vid}::{number}/64"]
            device(net, name, f"eth0.{vid}", VlanOptions(Peer(name, "eth0"), vid), *cidr)
    three = net.ns("node-3")
    three.add_link("br100", "bridge", mac=mac_from("node-3", "br100"), bridge=BridgeOptions())
    three.set_link("br100", up=True)
    three.set_link("eth0.100", master="br100")
    pod = net.add_netns("bridged", "node-3")
    serve(pod)
    net.add_veth("node-3", "vethb", "bridged", "eth0", mac_a=mac_from("vethb"), mac_b=mac_from("bridged"))
    three.set_link("vethb", up=True, master="br100")
    pod.set_link("eth0", up=True)
    pod.add_address("eth0", "10.100.0.33/24")
    device(net, "pod", "eth0", VlanOptions(Peer("node-2", "eth0"), 200), "10.200.0.22/24")
    device(net, "stacked", "eth0", MacvlanOptions(Peer("node-1", "eth0.100")), "10.100.0.11/24")
    net.ns("node-1").set_link("eth0.200", mtu=1400)
    device(net, "off", "eth0", VlanOptions(Peer("node-3", "eth0"), 300), "10.45.0.3/24", up=False)
    return net


def vlan_bridge() -> Network:
    """A bridge that filters VLANs: access ports of 10 and 20, a trunk, a port in none, a device on the bridge."""
    net = Network()
    switch = _switch(net, "node-1", vlan_filtering=True)
    switch.set_link(
        "br0",
        bridge=BridgeOptions(vlan_filtering=True, vlans=(PortVlan(1, True, True), PortVlan(20))),
    )
    access = {
        "ten-1": (PortVlan(10, True, True),), "ten-2": (PortVlan(10, True, True),),
        "twenty": (PortVlan(1, False, True), PortVlan(20, True, True)),
        "plain": (PortVlan(1, True, True),), "trunk": (PortVlan(10), PortVlan(20)), "none": (),
    }  # fmt: skip
    for number, (name, vlans) in enumerate(access.items(), 1):
        _switched(net, "node-1", name, f"10.5.0.{number}/16", hairpin=False)
        switch.set_link(name, port=BridgePort(vlans=vlans))
    device(net, "trunk", "eth0.10", VlanOptions(Peer("trunk", "eth0"), 10), "10.5.1.1/32")
    device(net, "trunk", "eth0.20", VlanOptions(Peer("trunk", "eth0"), 20), "10.5.2.1/32")
    for pod, dev in (("10.5.0.1/32", "eth0.10"), ("10.5.0.3/32", "eth0.20")):
        net.ns("trunk").add_route(pod, dev=dev)
    for pod in ("ten-1", "ten-2", "twenty"):
        net.ns(pod).add_route("10.5.9.9/32", dev="eth0")
    switch.add_address("br0", "10.5.0.99/16")
    device(net, "node-1", "br0.20", VlanOptions(Peer("node-1", "br0"), 20), "10.5.9.9/32")
    switch.add_route("10.5.0.3/32", dev="br0.20")
    serve(switch)
    return net


RULES = """*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 8081 -j DROP
-A OUTPUT -p tcp -m tcp --dport 8082 -j DROP
COMMIT
"""
"""Rules of the host below: l3s's packets meet INPUT, those of l3 and l3s OUTPUT."""


def _ipvlan(mode: str, flag: str = "bridge") -> Network:
    """Two pods behind node-1's MAC, one behind node-2's; the pods of l3 and l3s have networks of their own."""
    net = Network()
    net.add_wire("lan")
    one = host(net, "node-1", "10.1.0.1/16", "fd00:1::1/64")
    host(net, "node-2", "10.1.0.2/16", "fd00:1::2/64")
    host(net, "outside", "10.1.0.9/16", "fd00:1::9/64")
    one.set_iptables(4, load(RULES, 4))
    block = "10.1.1" if mode == "l2" else "10.7.1"
    for number, name in enumerate(("a", "b"), 1):
        cidrs = (
            (f"{block}.{number}/16", f"fd00:1::a{number}/64") if mode == "l2" else (f"{block}.{number}/24",)
        )
        device(net, name, "eth0", IpvlanOptions(Peer("node-1", "eth0"), mode, flag), *cidrs)
        net.ns(name).listen(Socket(TCP, "::", 8081, "second"))
        net.ns(name).listen(Socket(TCP, "::", 8082, "third"))
    for name in ("node-2", "outside"):
        net.ns(name).listen(Socket(TCP, "::", 8082, "third"))
    far = "10.1.2.1/16" if mode == "l2" else "10.7.2.1/24"
    device(net, "far", "eth0", IpvlanOptions(Peer("node-2", "eth0"), mode, flag), far)
    if mode != "l2":
        for name in ("a", "b", "far"):
            net.ns(name).add_route("default", dev="eth0")
        for name in ("node-1", "node-2", "outside"):
            for net_, node in (("10.7.1.0/24", "node-1"), ("10.7.2.0/24", "node-2")):
                if name != node:
                    net.ns(name).add_route(net_, via="10.1.0.1" if node == "node-1" else "10.1.0.2")
    return net


WORLDS: dict[str, Callable[[], Network]] = {
    "macvlan": macvlan,
    "macvlan-switch": macvlan_switch,
    "macvlan-down": macvlan_down,
    "vlan": vlan,
    "vlan-bridge": vlan_bridge,
    "ipvlan-l2": lambda: _ipvlan("l2"),
    "ipvlan-l2-private": lambda: _ipvlan("l2", "private"),
    "ipvlan-l2-vepa": lambda: _ipvlan("l2", "vepa"),
    "ipvlan-l3": lambda: _ipvlan("l3"),
    "ipvlan-l3-private": lambda: _ipvlan("l3", "private"),
    "ipvlan-l3-vepa": lambda: _ipvlan("l3", "vepa"),
    "ipvlan-l3s": lambda: _ipvlan("l3s"),
}
KINDS = {
    "macvlan": "macvlan", "macvlan-switch": "macvlan", "macvlan-down": "macvlan", "vlan": "vlan",
    "vlan-bridge": "vlan", **{name: "ipvlan" for name in WORLDS if name.startswith("ipvlan")},
}  # fmt: skip


def _rows(world: str, *rows: tuple[str, str, str, str]) -> list[Row]:
    """Rows from (source, destination, end, source seen or errno); a ping where the destination begins with "ping "."""
    out = []
    for src, target, end, more in rows:
        ping = target.startswith("ping ")
        dst, _, port = target.removeprefix("ping ").partition(" port ")
        ok = end in ("connected", "answered")
        out.append(
            Row(
                world=world, name=f"{world}: {src} to {target}", src=src, dst=dst, end=end,
                proto=TCP if not ping else ICMPV6 if ":" in dst else ICMP,
                port=0 if ping else int(port or PORT),
                source=more if ok else "", errno="" if ok else more,
            )
        )  # fmt: skip
    return out


HOST_DOWN = ("unreachable", "EHOSTUNREACH")

ROWS: tuple[Row, ...] = (
    *_rows(
        "macvlan",
        # Siblings in mode bridge, and everybody on the wire.
        ("a", "10.1.1.2", "connected", "10.1.1.1"),
        ("a", "ping 10.1.1.2", "answered", "10.1.1.1"),
        ("a", "fd00:1::a2", "connected", "fd00:1::a1"),
        ("a", "10.1.0.9", "connected", "10.1.1.1"),
        ("a", "ping fd00:1::9", "answered", "fd00:1::a1"),
        ("outside", "10.1.1.1", "connected", "10.1.0.9"),
        ("outside", "fd00:1::a1", "connected", "fd00:1::9"),
        ("a", "10.1.2.1", "connected", "10.1.1.1"),
        ("far", "ping 10.1.1.2", "answered", "10.1.2.1"),
        ("node-2", "10.1.1.2", "connected", "10.1.0.2"),
        # Parent and child do not hear each other.
        ("far", "10.1.0.2", *HOST_DOWN),
        ("nested", "ping 10.1.0.2", *HOST_DOWN),
        ("b", "ping fd00:1::1", *HOST_DOWN),
        ("node-1", "10.1.1.3", *HOST_DOWN),
        ("node-2", "10.1.2.1", *HOST_DOWN),
        ("node-1", "fd00:1::a1", *HOST_DOWN),
        # A device of the host's own beside its pods' does, and answers for every address of the host (arp_ignore 0).
        ("node-1", "10.1.1.1", "connected", "10.1.1.8"),
        ("a", "10.1.1.8", "connected", "10.1.1.1"),
        ("a", "10.1.0.1", "connected", "10.1.1.1"),
        ("b", "ping 10.1.0.1", "answered", "10.1.1.2"),
        # Private devices and those of mode vepa need a switch to hear siblings, and this wire sends nothing back.
        ("secret-1", "10.1.1.4", *HOST_DOWN),
        ("secret-1", "10.1.1.1", *HOST_DOWN),
        ("a", "10.1.1.3", *HOST_DOWN),
        ("secret-1", "10.1.0.9", "connected", "10.1.1.3"),
        ("outside", "10.1.1.4", "connected", "10.1.0.9"),
        ("vepa-1", "10.1.1.6", *HOST_DOWN),
        ("vepa-1", "10.1.1.1", *HOST_DOWN),
        ("a", "10.1.1.5", *HOST_DOWN),
        ("vepa-2", "10.1.0.9", "connected", "10.1.1.6"),
        ("outside", "ping 10.1.1.5", "answered", "10.1.0.9"),
        # A device that is down, one made on another macvlan, and nobody.
        ("far", "10.1.2.2", *HOST_DOWN),
        ("far", "10.1.2.3", "connected", "10.1.2.1"),
        ("nested", "10.1.0.9", "connected", "10.1.2.3"),
        ("nested", "10.1.0.2", *HOST_DOWN),
        ("a", "10.1.1.99", *HOST_DOWN),
        # passthru: the device gets every frame there is, and its parent gets broadcasts only.
        ("guest", "10.1.0.9", "connected", "10.1.3.1"),
        ("outside", "10.1.3.1", "connected", "10.1.0.9"),
        ("a", "10.1.3.1", "connected", "10.1.1.1"),
        ("outside", "10.1.0.3", "timed out", "ETIMEDOUT"),
        ("guest", "10.1.0.3", *HOST_DOWN),
    ),
    Row(world="macvlan", name="macvlan: more than the device's MTU", src="small", dst="10.1.0.9", proto=UDP, port=9,
        size=1450, df=True, end="message too long", errno="EMSGSIZE"),
    Row(world="macvlan", name="macvlan: more than a sibling's MTU", src="a", dst="10.1.1.7", proto=ICMP, port=0,
        size=1440, df=True, end="answered", source="10.1.1.1"),
    Row(world="macvlan", name="macvlan: nobody listens", src="a", dst="10.1.1.2", port=81,
        end="refused", errno="ECONNREFUSED"),
    *_rows(
        "macvlan-switch",
        ("vepa-1", "10.1.1.6", "connected", "10.1.1.5"),
        ("vepa-1", "10.1.1.1", "connected", "10.1.1.5"),
        ("a", "10.1.1.5", "connected", "10.1.1.1"),
        ("a", "10.1.1.2", "connected", "10.1.1.1"),
        ("a", "10.1.0.9", "connected", "10.1.1.1"),
        ("vepa-1", "10.1.1.3", *HOST_DOWN),
        ("secret-1", "10.1.1.4", *HOST_DOWN),
        ("secret-1", "10.1.1.5", *HOST_DOWN),
        ("secret-1", "10.1.0.9", "connected", "10.1.1.3"),
        # What comes back from the switch reaches the parent as well.
        ("node-1", "10.1.1.1", "connected", "10.1.0.1"),
        ("a", "ping 10.1.0.1", "answered", "10.1.1.1"),
        # A device on the bridge.
        ("inside", "10.1.0.9", "connected", "10.1.1.9"),
        ("outside", "ping 10.1.1.9", "answered", "10.1.0.9"),
        ("a", "10.1.1.9", "connected", "10.1.1.1"),
    ),
    *_rows(
        "macvlan-down",
        ("a", "10.1.1.2", *HOST_DOWN),
        ("a", "10.1.0.9", *HOST_DOWN),
        ("outside", "10.1.1.1", *HOST_DOWN),
    ),
    *_rows(
        "vlan",
        ("node-1", "10.100.0.2", "connected", "10.100.0.1"),
        ("node-1", "ping fd00:100::2", "answered", "fd00:100::1"),
        ("node-1", "10.0.0.2", "connected", "10.0.0.1"),
        ("node-1", "10.200.0.22", "connected", "10.200.0.1"),
        ("pod", "10.200.0.1", "connected", "10.200.0.22"),
        ("bridged", "10.100.0.2", "connected", "10.100.0.33"),
        ("node-1", "ping 10.100.0.33", "answered", "10.100.0.1"),
        ("stacked", "10.100.0.2", "connected", "10.100.0.11"),
        ("bridged", "10.100.0.11", "connected", "10.100.0.33"),
        ("stacked", "10.100.0.1", *HOST_DOWN),
        ("node-2", "10.45.0.3", *HOST_DOWN),
        ("node-2", "10.100.0.99", *HOST_DOWN),
    ),
    Row(world="vlan", name="vlan: a full frame and its tag", src="node-1", dst="10.100.0.2", proto=ICMP, port=0,
        size=1472, df=True, end="answered", source="10.100.0.1"),
    Row(world="vlan", name="vlan: more than the device's MTU", src="node-1", dst="10.200.0.22", proto=UDP, port=9,
        size=1400, df=True, end="message too long", errno="EMSGSIZE"),
    *_rows(
        "vlan-bridge",
        ("ten-1", "10.5.0.2", "connected", "10.5.0.1"),
        ("ten-1", "10.5.0.3", *HOST_DOWN),
        ("ten-1", "10.5.0.4", *HOST_DOWN),
        ("twenty", "10.5.0.1", *HOST_DOWN),
        ("none", "10.5.0.4", *HOST_DOWN),
        ("plain", "10.5.0.99", "connected", "10.5.0.4"),
        ("ten-1", "10.5.0.99", *HOST_DOWN),
        ("trunk", "ping 10.5.0.1", "answered", "10.5.1.1"),
        ("trunk", "10.5.0.3", "connected", "10.5.2.1"),
        ("twenty", "10.5.9.9", "connected", "10.5.0.3"),
        ("ten-1", "10.5.9.9", *HOST_DOWN),
    ),
    *_rows(
        "ipvlan-l2",
        ("a", "10.1.1.2", "connected", "10.1.1.1"),
        ("a", "ping fd00:1::a2", "answered", "fd00:1::a1"),
        ("a", "10.1.0.9", "connected", "10.1.1.1"),
        ("outside", "ping 10.1.1.2", "answered", "10.1.0.9"),
        ("outside", "fd00:1::a1", "connected", "fd00:1::9"),
        ("a", "10.1.2.1", "connected", "10.1.1.1"),
        ("a", "10.1.0.1", *HOST_DOWN),
        ("node-1", "10.1.1.1", *HOST_DOWN),
        # No hook of the host's sees what passes it.
        ("outside", "10.1.1.1 port 8081", "connected", "10.1.0.9"),
        ("a", "10.1.0.9 port 8082", "connected", "10.1.1.1"),
    ),
    *_rows(
        "ipvlan-l2-private",
        ("a", "10.1.1.2", *HOST_DOWN),
        ("a", "10.1.0.9", "connected", "10.1.1.1"),
        ("outside", "10.1.1.2", "connected", "10.1.0.9"),
    ),
    *_rows(
        "ipvlan-l2-vepa",
        # The sibling hears the broadcast and answers, by the wire, which sends nothing back.
        ("a", "10.1.1.2", *HOST_DOWN),
        ("a", "10.1.0.9", "connected", "10.1.1.1"),
    ),
    *_rows(
        "ipvlan-l3",
        ("a", "10.7.1.2", "connected", "10.7.1.1"),
        ("a", "ping 10.7.1.2", "answered", "10.7.1.1"),
        ("a", "10.7.2.1", "connected", "10.7.1.1"),
        ("a", "10.1.0.9", "connected", "10.7.1.1"),
        ("outside", "10.7.1.1", "connected", "10.1.0.9"),
        ("node-2", "ping 10.7.1.1", "answered", "10.1.0.2"),
        # INPUT of the host is not asked, OUTPUT is.
        ("outside", "10.7.1.1 port 8081", "connected", "10.1.0.9"),
        ("a", "10.1.0.9 port 8082", "timed out", "ETIMEDOUT"),
        ("outside", "10.7.1.9", "timed out", "ETIMEDOUT"),
    ),
    *_rows(
        "ipvlan-l3-private",
        ("a", "10.7.1.2", "timed out", "ETIMEDOUT"),
        ("a", "10.1.0.9", "connected", "10.7.1.1"),
    ),
    *_rows(
        "ipvlan-l3-vepa",
        ("a", "10.1.0.9", "connected", "10.7.1.1"),
        ("outside", "10.7.1.2", "connected", "10.1.0.9"),
    ),
    *_rows(
        "ipvlan-l3s",
        ("a", "10.7.1.2", "connected", "10.7.1.1"),
        ("a", "10.1.0.9", "connected", "10.7.1.1"),
        ("outside", "10.7.1.1", "connected", "10.1.0.9"),
        ("outside", "10.7.1.1 port 8081", "timed out", "ETIMEDOUT"),
        ("a", "10.1.0.9 port 8082", "timed out", "ETIMEDOUT"),
        ("a", "10.7.2.1", "connected", "10.7.1.1"),
    ),
)  # fmt: skip
