"""bridge: makes the bridge if it is missing, a veth pair a container, and the gateway (isGateway).

The steps are those of `plugins/main/bridge/bridge.go` (v1.9.1), in its order; a step that fails leaves the
earlier ones done, as there. https://www.cni.dev/plugins/current/main/bridge/
"""

from __future__ import annotations

import hashlib
import re

from msgspec.structs import replace

from kubenet_lab.cni.bridge.config import Config, load
from kubenet_lab.cni.plugin import (
    Call,
    CniError,
    Interface,
    Ip,
    Plugin,
    Result,
    RouteEntry,
    add_lines,
)
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.link import BridgeOptions, BridgePort
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import family, ip_text, mac_from, prefix

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


def add(call: Call) -> Result:
    """Connect the container to the bridge."""
    call.arguments()
    conf = load(call.conf)
    if conf.layer3 and conf.disable_container_interface:
        raise CniError("cannot use IPAM when DisableContainerInterface flag is set")
    if conf.hairpin_mode and conf.promisc_mode:
        raise CniError("cannot set hairpin mode and promiscuous mode at the same time")
    _ensure_bridge(call.node, conf)
    sandbox = call.sandbox()
    host_name = _make_pair(call, conf, sandbox)
    _join(call.node, conf, host_name)
    result = Result()
    if conf.layer3:
        answer = call.delegate(conf.ipam["type"]) or Result()
        try:
            result = _configure(call, conf, sandbox, host_name, answer)
        except Exception:
            call.delegate(conf.ipam["type"], command="DEL")
            raise
    elif not conf.disable_container_interface:
        sandbox.set_link(call.ifname, up=True)
        _announce(call, conf, sandbox, host_name)
    # The bridge's MAC is read last: it changed when the port joined, and again when it got its address.
    interfaces = (
        Interface(conf.bridge, call.node.link(conf.bridge).mac),
        Interface(host_name, call.node.link(host_name).mac),
        Interface(call.ifname, sandbox.link(call.ifname).mac, call.netns),
    )
    return replace(result, interfaces=interfaces)


def _ensure_bridge(node: Netns, conf: Config) -> None:
    """`ip link add cni0 type bridge; ip link set cni0 up`, unless it is there."""
    name = conf.bridge
    present = node.links.get(name)
    if len(name) > 15:
        raise CniError(
            f'failed to create bridge "{name}": could not add "{name}": numerical result out of range'
        )
    if present is None:
        node.add_link(
            name,
            "bridge",
            mac=mac_from(node.name, name, first=0x02),
            mtu=conf.mtu or 1500,
            bridge=BridgeOptions(),
        )
    elif present.kind != "bridge":
        raise CniError(f'failed to create bridge "{name}": "{name}" already exists but is not a bridge')
    if conf.promisc_mode:
        node.set_link(name, promiscuous=True)
    if not node.link(name).up:
        node.set_link(name, up=True)


def _make_pair(call: Call, conf: Config, sandbox: Netns) -> str:
    """`ip link add eth0 type veth peer name vethXXXXXXXX netns HOST; ip link set vethXXXXXXXX up`.

    The real name is random; here it is derived from container and interface, so that a world repeats.
    """
    digest = hashlib.sha256(f"{call.container_id}/{call.ifname}".encode()).hexdigest()
    name = next(n for i in range(0, 56, 8) if (n := f"veth{digest[i : i + 8]}") not in call.node.links)
    if call.ifname in sandbox.links:
        raise CniError(f'container veth name ("{call.ifname}") peer provided ("{name}") already exists')
    mac = (call.conf.get("runtimeConfig") or {}).get("mac") or (
        (call.conf.get("args") or {}).get("cni") or {}
    ).get("mac")
    if mac and not re.fullmatch(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", mac):
        raise CniError(f"failed to make veth pair: address {mac}: invalid MAC address")
    call.network.add_veth(
        sandbox.name,
        call.ifname,
        call.node.name,
        name,
        mac_a=mac or mac_from(sandbox.name, call.ifname),
        mac_b=mac_from(call.node.name, name),
        mtu=conf.mtu or 1500,
    )
    call.node.set_link(name, up=True)
    return name


def _join(node: Netns, conf: Config, name: str) -> None:
    """`ip link set vethX master cni0; bridge link set dev vethX hairpin on`."""
    node.set_link(
        name, master=conf.bridge, port=BridgePort(hairpin=conf.hairpin_mode, isolated=conf.port_isolation)
    )


def _configure(call: Call, conf: Config, sandbox: Netns, host_name: str, answer: Result) -> Result:
    if not answer.ips:
        raise CniError("IPAM plugin returned missing IP config")
    ips = tuple(replace(ip, gateway=_gateway(ip, conf), interface=2) for ip in answer.ips)
    routes = list(answer.routes)
    if conf.is_default_gateway:
        for ip in _first_of_family(ips):
            default = _DEFAULT[family(ip.address)]
            if not any(r.dst == default and r.gw for r in routes):
                routes.append(RouteEntry(default, ip.gateway))
    _configure_link(call, conf, sandbox, host_name, ips, routes)
    if conf.gateway:
        for ip in ips:
            _ensure_address(call.node, conf, f"{ip.gateway}/{ip.address.partition('/')[2]}")
        for fam in {family(ip.address) for ip in ips}:
            call.node.set_sysctl("net.ipv4.ip_forward" if fam == 4 else "net.ipv6.conf.all.forwarding", 1)
    if conf.ip_masq:
        for ip in ips:
            _masquerade(call, ip)
    return Result(ips=ips, routes=tuple(routes), dns=answer.dns)


def _gateway(ip: Ip, conf: Config) -> str:
    """The address's gateway; a gateway bridge without one takes the subnet's first address."""
    if ip.gateway or not conf.gateway:
        return ip.gateway
    block = prefix(ip.address)
    return ip_text(block.net + 1, block.family)


def _first_of_family(ips: tuple[Ip, ...]) -> list[Ip]:
    found = {family(ip.address): ip for ip in reversed(ips)}
    return [found[fam] for fam in sorted(found)]


def _configure_link(
    call: Call, conf: Config, sandbox: Netns, host_name: str, ips: tuple[Ip, ...], routes: list[RouteEntry]
) -> None:
    """`ip addr add`, `ip link set up`, `ip route add` in the container (`ipam.ConfigureIface`)."""
    dev = call.ifname
    for ip in ips:
        sandbox.add_address(dev, ip.address, broadcast=_broadcast(ip.address))
    sandbox.set_link(dev, up=True)
    _announce(call, conf, sandbox, host_name)
    gateways = {family(ip.address): ip.gateway for ip in reversed(ips)}
    for route in routes:
        via = route.gw or gateways.get(family(route.dst), "")
        sandbox.add_route(route.dst, via=via, dev=dev)


def _announce(call: Call, conf: Config, sandbox: Netns, host_name: str) -> None:
    """A container's first frames (arp_notify, neighbour discovery) teach the bridge its MAC."""
    if sandbox.link(call.ifname).running and call.node.link(conf.bridge).up:
        entry = FdbEntry(host_name, sandbox.link(call.ifname).mac, master=conf.bridge, updated=call.now)
        call.node.add_fdb(entry, replace_existing=True)


def _broadcast(cidr: str) -> str:
    block = prefix(cidr)
    return ip_text(block.net | (~block.mask & 0xFFFFFFFF), 4) if block.family == 4 else ""


def _ensure_address(node: Netns, conf: Config, cidr: str) -> None:
    """`ip addr add 10.244.0.1/24 dev cni0`, unless it is there."""
    name, fam = conf.bridge, family(cidr)
    for address in node.addrs(name, fam):
        present = f"{address.local}/{address.length}"
        if present == cidr:
            return
        # IPv6 links hold several addresses; a different one is in the way only where the networks overlap.
        if fam == 4 or address.local in prefix(cidr):
            if not conf.force_address:
                raise CniError(f'"{name}" already has an IP address different from {cidr}')
            node.delete_address(name, present)
    node.add_address(name, cidr, broadcast=_broadcast(cidr))
    # Setting the MAC makes the bridge keep it; otherwise it takes its lowest port's and changes as pods
    # come and go. The plugin looked the bridge up before the first port joined, so the MAC it sets is the
    # one the bridge was born with.
    if not node.link(name).mac_set:
        node.set_link(name, mac=mac_from(node.name, name, first=0x02))


def masquerade_chain(name: str, container_id: str) -> str:
    """The chain of one container: "CNI-" and 24 hex digits of sha512(network name + container)."""
    return "CNI-" + hashlib.sha512(f"{name}{container_id}".encode()).hexdigest()[:24]


def _rules(call: Call) -> tuple[str, str]:
    chain = masquerade_chain(call.name, call.container_id)
    return chain, f'-m comment --comment "name: \\"{call.name}\\" id: \\"{call.container_id}\\""'


def _masquerade(call: Call, ip: Ip) -> None:
    """One chain a container: accept inside the subnet, masquerade the rest but multicast."""
    chain, comment = _rules(call)
    fam, address = family(ip.address), ip.address.partition("/")[0]
    lines = (
        f"*nat\n:{chain} - [0:0]\n"
        f"-A {chain} -d {prefix(ip.address)} {comment} -j ACCEPT\n"
        f"-A {chain} ! -d {_MULTICAST[fam]} {comment} -j MASQUERADE\n"
        f"-A POSTROUTING -s {address} {comment} -j {chain}\nCOMMIT\n"
    )
    add_lines(call.node, fam, lines)


def _unmasquerade(call: Call, cidr: str) -> None:
    chain, comment = _rules(call)
    address = cidr.partition("/")[0]
    unhook = f"-D POSTROUTING -s {address} {comment} -j {chain}"
    add_lines(call.node, family(cidr), f"*nat\n{unhook}\n-F {chain}\n-X {chain}\nCOMMIT\n")


def delete(call: Call) -> None:
    """Delete the container's link (its far end vanishes too), then release its addresses and rules."""
    conf = load(call.conf)
    sandbox = call.find_sandbox() if call.netns else None
    gone: list[str] = []
    if sandbox is not None and call.ifname in sandbox.links:
        gone = [f"{a.local}/{a.length}" for a in sandbox.addrs(call.ifname) if a.scope == "global"]
        sandbox.delete_link(call.ifname)
    if conf.layer3:
        call.delegate(conf.ipam["type"])
    if conf.layer3 and conf.ip_masq:
        for cidr in gone:
            _unmasquerade(call, cidr)


def check(call: Call) -> None:
    """Compare the links, addresses and routes with `prevResult`."""
    conf = load(call.conf)
    call.delegate(str(conf.ipam.get("type", "")))
    result = call.prev_result()
    if result is None:
        raise CniError("Required prevResult missing")
    sandbox = call.sandbox()
    inside = next((i for i in result.interfaces if i.sandbox), None)
    outside = {i.name: i for i in result.interfaces if not i.sandbox}
    bridge = outside.get(conf.bridge)
    if bridge is None or conf.bridge not in call.node.links:
        raise CniError(f"Bridge interface {conf.bridge} not found")
    if bridge.mac and bridge.mac != call.node.link(conf.bridge).mac:
        raise CniError(f"Bridge interface {conf.bridge} Mac doesn't match: {bridge.mac}")
    if inside is None or inside.name not in sandbox.links:
        raise CniError(f"Interface name {call.ifname} not found")
    if inside.mac != sandbox.link(inside.name).mac:
        raise CniError(f"Interface {inside.name} Mac doesn't match: {inside.mac}")
    for ip in result.ips:
        if not any(f"{a.local}/{a.length}" == ip.address for a in sandbox.addrs(inside.name)):
            raise CniError(f"Failed to match addr {ip.address} on interface {inside.name}")
    for route in result.routes:
        if not any(
            r.dst == route.dst and (not route.gw or r.via == route.gw)
            for r in sandbox.route_list(family(route.dst))
        ):
            raise CniError(f"Expected Route {route.dst} not found in routing table")


def status(call: Call) -> None:
    """Ready when the IPAM plugin is."""
    conf = load(call.conf)
    if conf.layer3:
        call.delegate(conf.ipam["type"])


PLUGIN = Plugin(name="bridge", add=add, delete=delete, check=check, status=status)
