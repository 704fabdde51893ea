"""What plugins that make an interface have in common: addresses and routes in the container, and judging them.

Source: `github.com/containernetworking/plugins/pkg/{ip,ipam,link}` (v1.9.1). Every step is one kernel edit; a step
that fails leaves the earlier ones done.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.cni.plugin import Call, CniError, Interface, Ip, Json, Result, RouteEntry
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN
from kubenet_lab.packet.ip import family, ip_text, mac_from, prefix

SMALLEST_MTU = 68
"""What Ethernet devices accept at least (ETH_MIN_MTU)."""
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")


def hash_with_prefix(length: int, head: str, text: str) -> str:
    """`utils.MustFormatHashWithPrefix`: the head and as many hex digits of sha512 as fit into `length`."""
    return head + hashlib.sha512(text.encode()).hexdigest()[: length - len(head)]


def broadcast(cidr: str) -> str:
    """The broadcast address the plugins set with an IPv4 address; "" for IPv6."""
    block = prefix(cidr)
    return ip_text(block.net | (~block.mask & 0xFFFFFFFF), 4) if block.family == 4 else ""


def wished_mac(call: Call) -> str:
    """The MAC asked for in `runtimeConfig.mac` or `args.cni.mac`, "" for none."""
    runtime: Json = call.conf.get("runtimeConfig") or {}
    args: Json = (call.conf.get("args") or {}).get("cni") or {}
    return str(runtime.get("mac") or args.get("mac") or "")


def valid_mac(mac: str) -> bool:
    """True for six bytes in hexadecimal."""
    return _MAC.fullmatch(mac) is not None


def own_mac(call: Call) -> str:
    """The MAC of the container's interface: random in reality, derived here so that a world repeats."""
    return mac_from(call.sandbox().name, call.ifname)


def make_veth(call: Call, sandbox: Netns, mtu: int, mac: str = "") -> str:
    """`ip link add eth0 type veth peer name vethXXXXXXXX netns HOST; ip link set vethXXXXXXXX up`: the host's end.

    The real name is random; here it is derived from container and interface. Raises CniError.
    """
    digest = hashlib.sha256(f"{call.container_id}/{call.ifname}".encode()).hexdigest()
    name = next(n for i in range(0, 56, 8) if (n := f"veth{digest[i : i + 8]}") not in call.node.links)
    if call.ifname in sandbox.links:
        raise CniError(f'container veth name ("{call.ifname}") peer provided ("{name}") already exists')
    if mac and not valid_mac(mac):
        raise CniError(f"failed to make veth pair: address {mac}: invalid MAC address")
    if 0 < mtu < SMALLEST_MTU or mtu > 65535:
        raise CniError("failed to make veth pair: invalid argument")
    call.network.add_veth(
        sandbox.name,
        call.ifname,
        call.node.name,
        name,
        mac_a=mac or mac_from(sandbox.name, call.ifname),
        mac_b=mac_from(call.node.name, name),
        mtu=mtu or 1500,
    )
    call.node.set_link(name, up=True)
    return name


def configure(call: Call, sandbox: Netns, ips: Iterable[Ip], routes: Iterable[RouteEntry]) -> None:
    """`ip addr add`, `ip link set up`, `ip route add` in the container (`ipam.ConfigureIface`). Raises CniError."""
    dev, ips = call.ifname, tuple(ips)
    for ip in ips:
        try:
            sandbox.add_address(dev, ip.address, broadcast=broadcast(ip.address))
        except KernelError as fault:
            raise CniError(f'failed to add IP addr {ip.address} to "{dev}": {fault.strerror}') from fault
    up(call, sandbox)
    gateways = {family(ip.address): ip.gateway for ip in reversed(ips)}
    for route in routes:
        via = route.gw or gateways.get(family(route.dst), "")
        fields: Json = {"table": route.table} if route.table else {}
        if route.scope is not None:
            fields["scope"] = {0: "global", 253: "link", 254: "host"}.get(route.scope, str(route.scope))
        try:
            sandbox.add_route(route.dst, via=via, dev=dev, metric=route.priority, mtu=route.mtu, **fields)
        except KernelError as fault:
            what = f"'{route.dst} via {via or '<nil>'} dev {dev} metric {route.priority} (Scope: 0)'"
            raise CniError(f"failed to add route {what}: {fault.strerror}") from fault


def up(call: Call, sandbox: Netns) -> None:
    """`ip link set eth0 up` in the container, whatever its kind."""
    sandbox.set_link(call.ifname, up=True)


def enable_forward(node: Netns, ips: Iterable[Ip]) -> None:
    """`sysctl -w net.ipv4.ip_forward=1`, and IPv6's, for the families of these addresses."""
    for fam in sorted({family(ip.address) for ip in ips}):
        node.set_sysctl("net.ipv4.ip_forward" if fam == 4 else "net.ipv6.conf.all.forwarding", 1)


def take_down(call: Call) -> list[str] | None:
    """Delete the container's interface; return the global addresses it had, None when it is not there."""
    sandbox = call.find_sandbox() if call.netns else None
    if sandbox is None or call.ifname not in sandbox.links:
        return None
    gone = [f"{a.local}/{a.length}" for a in sandbox.addrs(call.ifname) if a.scope == "global"]
    sandbox.delete_link(call.ifname)
    return gone


def add_ipam(call: Call, index: int) -> Result:
    """Run the configuration's IPAM plugin; its addresses belong to interface number `index`. Raises CniError."""
    answer = call.delegate(ipam_type(call)) or Result()
    if not answer.ips:
        raise CniError("IPAM plugin returned missing IP config")
    return replace(answer, ips=tuple(replace(ip, interface=index) for ip in answer.ips))


def ipam_type(call: Call) -> str:
    """The IPAM plugin of the configuration, "" for none."""
    return str((call.conf.get("ipam") or {}).get("type") or "")


def dns_of(call: Call) -> Json:
    """The `dns` of the configuration itself, which wins over the IPAM plugin's."""
    return {k: v for k, v in (call.conf.get("dns") or {}).items() if v}


def status(call: Call) -> None:
    """Ready when the IPAM plugin is."""
    if ipam_type(call):
        call.delegate(ipam_type(call))


def required_result(call: Call, says: str = "Required prevResult missing") -> Result:
    """`prevResult`. Raises CniError when the configuration has none."""
    result = call.prev_result()
    if result is None:
        raise CniError(says)
    return result


def container_interface(call: Call, result: Result, says: str) -> Interface:
    """The interface of `prevResult` that this call is about. Raises CniError, which begins with `says`."""
    found = next((i for i in result.interfaces if i.name == call.ifname and i.sandbox == call.netns), None)
    if found is None:
        raise CniError(f"{says} in prevResult  doesn't match configured netns: {call.netns}")
    return found


def check_addresses(sandbox: Netns, dev: str, ips: Iterable[Ip]) -> None:
    """`ip.ValidateExpectedInterfaceIPs`: address and gateway of each are there. Raises CniError."""
    for ip in ips:
        if not any(f"{a.local}/{a.length}" == ip.address for a in sandbox.addrs(dev)):
            raise CniError(f"Failed to match addr {ip.address} on interface {dev}")
        if ip.gateway and ip.address.partition("/")[0] != ip.gateway:
            routes = sandbox.route_list(family(ip.address))
            if not any(ip.gateway in prefix(r.dst) and r.dev == dev and _narrow(r.dst) for r in routes):
                raise CniError(f"Failed to find Gateway {ip.gateway} for interface {dev}")


def _narrow(dst: str) -> bool:
    return not dst.endswith("/0")


def check_routes(sandbox: Netns, routes: Iterable[RouteEntry]) -> None:
    """`ip.ValidateExpectedRoute`: each is in its table. Raises CniError."""
    for route in routes:
        table = sandbox.route_list(family(route.dst), route.table or TABLE_MAIN)
        if not any(r.dst == route.dst and (not route.gw or r.via == route.gw) for r in table):
            raise CniError(f"Expected Route {route.dst} not found in routing table")
