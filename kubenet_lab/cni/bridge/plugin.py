"""bridge: makes the bridge if it is missing, a veth pair a container, and the gateway (isGateway).

The steps are those of `plugins/main/bridge/bridge.go` (v1.9.1), in its order; a step that fails leaves the
earlier ones done, as there. https://www.cni.dev/plugins/current/main/bridge/
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.cni import interface, masquerade
from kubenet_lab.cni.bridge import spoofing
from kubenet_lab.cni.bridge.config import Config, load
from kubenet_lab.cni.plugin import (
    Call,
    CniError,
    Interface,
    Ip,
    Plugin,
    Result,
    RouteEntry,
    serve,
    served_alike,
)
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import DEFAULT_VLANS, BridgeOptions, BridgePort, PortVlan
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import family, ip_text, mac_from, prefix

_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}


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
    host_name = interface.make_veth(call, sandbox, conf.mtu, interface.wished_mac(call))
    _join(call.node, conf, host_name)
    if conf.vlan and conf.gateway:
        _ensure_vlan_gateway(call.node, conf)
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
    if conf.macspoofchk:
        spoofing.add(call, host_name, sandbox.link(call.ifname).mac)
    serve(call)
    # The bridge's MAC is read last: it changed when the port joined, and again when it got its address.
    interfaces = (
        Interface(conf.bridge, call.node.link(conf.bridge).mac),
        Interface(host_name, call.node.link(host_name).mac),
        Interface(call.ifname, sandbox.link(call.ifname).mac, call.netns),
    )
    return replace(result, interfaces=interfaces)


def plan(call: Call) -> Result | None:
    """Reserve the addresses, where the bridge has served a container of this very configuration before."""
    conf = load(call.conf)
    if not conf.layer3 or conf.macspoofchk or not served_alike(call):
        return None
    return call.delegate(conf.ipam["type"], command="ADD")


def _ensure_bridge(node: Netns, conf: Config) -> None:
    """`ip link add cni0 type bridge; ip link set cni0 up`, unless it is there."""
    name = conf.bridge
    present = node.links.get(name)
    if len(name) > 15:
        raise CniError(
            f'failed to create bridge "{name}": could not add "{name}": numerical result out of range'
        )
    if 0 < conf.mtu < interface.SMALLEST_MTU or conf.mtu > 65535:
        raise CniError(f'failed to create bridge "{name}": could not add "{name}": invalid argument')
    filtering = bool(conf.vlan or conf.vlan_trunk)
    if present is None:
        if filtering and node.network is not None and "vlan_filtering" in node.network.lacks:
            fault = KernelError("EOPNOTSUPP", "vlan_filtering").strerror
            raise CniError(f'failed to create bridge "{name}": could not add "{name}": {fault}')
        node.add_link(
            name,
            "bridge",
            mac=mac_from(node.name, name, first=0x02),
            mtu=conf.mtu or 1500,
            bridge=BridgeOptions(vlan_filtering=filtering),
        )
    elif present.kind != "bridge":
        raise CniError(f'failed to create bridge "{name}": "{name}" already exists but is not a bridge')
    if conf.promisc_mode:
        node.set_link(name, promiscuous=True)
    if not node.link(name).up:
        node.set_link(name, up=True)


def _join(node: Netns, conf: Config, name: str) -> None:
    """`ip link set vethX master cni0; bridge link set dev vethX hairpin on`; with `vlan`, `bridge vlan add` too."""
    node.set_link(
        name,
        master=conf.bridge,
        port=BridgePort(hairpin=conf.hairpin_mode, isolated=conf.port_isolation, vlans=_vlans(conf)),
    )


def _vlans(conf: Config) -> tuple[PortVlan, ...]:
    """The VLANs of a container's port. Without `preserveDefaultVlan` it is taken out of VLAN 1."""
    if not (conf.vlan or conf.vlan_trunk):
        return DEFAULT_VLANS
    default = (PortVlan(1, untagged=True, pvid=not conf.vlan),) if conf.preserve_default_vlan else ()
    if conf.vlan:
        return (*default, PortVlan(conf.vlan, pvid=True, untagged=True))
    return (*default, *(PortVlan(vid) for trunk in conf.vlan_trunk for vid in trunk.vids))


def _ensure_vlan_gateway(node: Netns, conf: Config) -> None:
    """A gateway on a tagged bridge has its address on a veth of the host's that is a port of the VLAN."""
    name = _gateway_device(conf)
    if name in node.links:
        return
    assert node.network is not None
    port = f"veth{interface.hash_with_prefix(8, '', f'{node.name}/{name}')}"
    node.network.add_veth(
        node.name,
        name,
        node.name,
        port,
        mac_a=mac_from(node.name, name),
        mac_b=mac_from(node.name, port),
        mtu=conf.mtu or 1500,
    )
    for dev in (port, name):
        node.set_link(dev, up=True)
    _join(node, conf, port)


def _gateway_device(conf: Config) -> str:
    """The device that holds the gateway's address: the bridge, or `cni0.100` with `vlan` 100."""
    return f"{conf.bridge}.{conf.vlan}" if conf.vlan else conf.bridge


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
        interface.enable_forward(call.node, ips)
    if conf.ip_masq:
        for ip in ips:
            masquerade.add(call, ip.address, conf.ip_masq_backend)
    return Result(ips=ips, routes=tuple(routes), dns=interface.dns_of(call) or answer.dns)


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
    interface.configure(call, sandbox, ips, routes)
    _announce(call, conf, sandbox, host_name)


def _announce(call: Call, conf: Config, sandbox: Netns, host_name: str) -> None:
    """A container's first frames (arp_notify, neighbour discovery) teach the bridge its MAC."""
    if sandbox.link(call.ifname).running and call.node.link(conf.bridge).up:
        entry = FdbEntry(host_name, sandbox.link(call.ifname).mac, master=conf.bridge, updated=call.now)
        call.node.add_fdb(entry, replace_existing=True)


def _ensure_address(node: Netns, conf: Config, cidr: str) -> None:
    """`ip addr add 10.244.0.1/24 dev cni0`, unless it is there."""
    name, fam = _gateway_device(conf), family(cidr)
    for address in node.addrs(name, fam):
        present = f"{address.local}/{address.length}"
        if present == cidr:
            return
        # IPv6 links hold several addresses; a different one is in the way only where the networks overlap.
        if fam == 4 or address.local in prefix(cidr):
            if not conf.force_address:
                raise CniError(f'"{name}" already has an IP address different from {cidr}')
            node.delete_address(name, present)
    node.add_address(name, cidr, broadcast=interface.broadcast(cidr))
    # Setting the MAC makes the bridge keep it; otherwise it takes its lowest port's and changes as pods
    # come and go. The plugin looked the bridge up before the first port joined, so the MAC it sets is the
    # one the bridge was born with.
    if not conf.vlan and not node.link(name).mac_set:
        node.set_link(name, mac=mac_from(node.name, name, first=0x02))


def delete(call: Call) -> None:
    """Delete the container's link (its far end vanishes too), then release its addresses and rules."""
    conf = load(call.conf)
    gone = interface.take_down(call)
    if conf.layer3:
        call.delegate(conf.ipam["type"])
    if conf.layer3 and conf.ip_masq:
        for cidr in gone or ():
            masquerade.remove(call, cidr)
    if conf.macspoofchk:
        spoofing.remove(call)


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
    interface.check_addresses(sandbox, inside.name, result.ips)
    interface.check_routes(sandbox, result.routes)


PLUGIN = Plugin(name="bridge", add=add, delete=delete, check=check, status=interface.status, plan=plan)
