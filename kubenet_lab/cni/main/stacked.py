"""macvlan, ipvlan and vlan: an interface in the container that sits on a link of the host.

macvlan gives the container a MAC of its own on the host's wire, ipvlan an address under the host's MAC, vlan a tag.
None of them passes a bridge, and only ipvlan's modes l3 and l3s pass the host's routing. A pod with macvlan or ipvlan
(l2) cannot reach its own host, and one VLAN id can be used once on a link. https://www.cni.dev/plugins/current/main/
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Interface, Plugin, Result
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import IpvlanOptions, Link, MacvlanOptions, Peer, VlanOptions
from kubenet_lab.kernel.netns import Netns

MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
IPVLAN_MODES = ("l2", "l3", "l3s")
Options = MacvlanOptions | IpvlanOptions | VlanOptions


def _home(call: Call) -> Netns:
    """The namespace the master is looked for in: the host's, or with `linkInContainer` the container's."""
    return call.sandbox() if call.conf.get("linkInContainer") else call.node


def _default_master(call: Call) -> str:
    for fam in (4, 6):
        for route in _home(call).route_list(fam):
            if route.dst in ("0.0.0.0/0", "::/0") and route.dev:
                return route.dev
    raise CniError("no default route interface found")


def _lower(call: Call, master: str) -> Link:
    found = _home(call).links.get(master)
    if found is None:
        raise CniError("Link not found")
    return found


def _check_mtu(call: Call, lower: Link) -> int:
    mtu = int(call.conf.get("mtu") or 0)
    if mtu < 0 or mtu > lower.mtu:
        raise CniError(f"invalid MTU {mtu}, must be [0, master MTU({lower.mtu})]")
    return mtu


def _mode(call: Call, kind: str, known: tuple[str, ...]) -> str:
    mode = str(call.conf.get("mode") or known[0])
    if mode not in known:
        raise CniError(f'unknown {kind} mode: "{mode}"')
    return mode


def _macvlan(call: Call) -> tuple[Options, int, str]:
    master = str(call.conf.get("master") or _default_master(call))
    lower = _lower(call, master)
    mtu = _check_mtu(call, lower)
    wished = call.arguments().get("MAC", "") if call.args else ""
    mac = interface.wished_mac(call) or wished
    mode = _mode(call, "macvlan", MACVLAN_MODES)
    if mac and not interface.valid_mac(mac):
        raise CniError(f"invalid args {mac} for MAC addr: address {mac}: invalid MAC address")
    own = lower.mac if mode == "passthru" else interface.own_mac(call)
    return MacvlanOptions(Peer(_home(call).name, master), mode), mtu, mac or own


def _ipvlan(call: Call) -> tuple[Options, int, str]:
    master = str(call.conf.get("master") or "")
    before = call.prev_result()
    if not master and before is not None:
        if len(before.interfaces) != 1 or not before.interfaces[0].name:
            raise CniError("chained master failure. PrevResult lacks a single named interface")
        master = before.interfaces[0].name
    master = master or _default_master(call)
    mode = _mode(call, "ipvlan", IPVLAN_MODES)
    if master not in _home(call).links:
        raise CniError(f'failed to lookup master "{master}": Link not found')
    return IpvlanOptions(Peer(_home(call).name, master), mode), int(call.conf.get("mtu") or 0), ""


def _vlan(call: Call) -> tuple[Options, int, str]:
    master, vid = str(call.conf.get("master") or ""), int(call.conf.get("vlanId") or 0)
    if not master:
        raise CniError(
            '"master" field is required. It specifies the host interface name to create the VLAN for'
        )
    if not 0 <= vid <= 4094:
        raise CniError(f"invalid VLAN ID {vid} (must be between 0 and 4095 inclusive)")
    mtu = _check_mtu(call, _lower(call, master))
    return VlanOptions(Peer(_home(call).name, master), vid), mtu, ""


_READ: dict[str, Callable[[Call], tuple[Options, int, str]]] = {
    "macvlan": _macvlan,
    "ipvlan": _ipvlan,
    "vlan": _vlan,
}


def _add(kind: str) -> Callable[[Call], Result]:
    def add(call: Call) -> Result:
        """Make the device in the container, then let IPAM give it an address; a failure takes the device away."""
        options, mtu, mac = _READ[kind](call)
        sandbox = call.sandbox()
        try:
            link = call.network.add_upper(sandbox.name, call.ifname, options, mac=mac, mtu=mtu)
        except KernelError as fault:
            if fault.errno == "EEXIST" and call.ifname in sandbox.links:
                raise CniError(f'failed to rename {kind} to "{call.ifname}": file exists') from fault
            raise CniError(f"failed to create {kind}: {fault.strerror}") from fault
        made = (Interface(call.ifname, link.mac, call.netns),)
        ipam = interface.ipam_type(call)
        try:
            if not ipam and kind == "macvlan":
                interface.up(call, sandbox)
                return Result(interfaces=made, dns=interface.dns_of(call))
            answer = interface.add_ipam(call, 0)
        except CniError as fault:
            if kind != "vlan":
                sandbox.delete_link(call.ifname)
                raise
            raise CniError(f"failed to execute IPAM delegate: {fault}", fault.code) from fault
        try:
            interface.configure(call, sandbox, answer.ips, answer.routes)
        except Exception:
            call.delegate(ipam, command="DEL")
            raise
        return replace(answer, interfaces=made, dns=interface.dns_of(call))

    return add


def delete(call: Call) -> None:
    """Release the addresses and delete the device; that it is gone already is no error."""
    if interface.ipam_type(call):
        call.delegate(interface.ipam_type(call))
    interface.take_down(call)


def _check(kind: str) -> Callable[[Call], None]:
    def check(call: Call) -> None:
        """Compare the device, its mode or tag, addresses and routes with configuration and `prevResult`."""
        sandbox = call.sandbox()
        if interface.ipam_type(call):
            call.delegate(interface.ipam_type(call))
        missing = "vlan: Required prevResult missing" if kind == "vlan" else "required prevResult missing"
        result = interface.required_result(call, missing)
        inside = interface.container_interface(call, result, "sandbox" if kind == "macvlan" else "Sandbox")
        options, mtu, _mac = _READ[kind](call)
        if options.lower.link not in _home(call).links:
            raise CniError(f'failed to lookup master "{options.lower.link}": Link not found')
        link = sandbox.links.get(inside.name)
        if link is None:
            raise CniError(f"container Interface name in prevResult: {inside.name} not found")
        if link.kind != kind:
            raise CniError(f"error: Container interface {link.name} not of type {kind}")
        present = link.macvlan or link.ipvlan or link.vlan
        if isinstance(present, MacvlanOptions | IpvlanOptions) and isinstance(
            options, MacvlanOptions | IpvlanOptions
        ):
            if present.mode != options.mode:
                what = "macvlan" if kind == "macvlan" else "IPVlan"
                raise CniError(
                    f"container {what} mode {present.mode} does not match expected value: {options.mode}"
                )
        if inside.mac and inside.mac != link.mac:
            raise CniError(
                f"interface {inside.name} Mac {inside.mac} doesn't match container Mac: {link.mac}"
            )
        if kind == "vlan" and mtu and mtu != link.mtu:
            raise CniError(
                f"Error: Tuning configured MTU of {inside.name} is {mtu}, current value is {link.mtu}"
            )
        interface.check_addresses(sandbox, inside.name, result.ips)
        interface.check_routes(sandbox, result.routes)

    return check


PLUGINS = tuple(
    Plugin(name=kind, add=_add(kind), delete=delete, check=_check(kind), status=interface.status)
    for kind in ("macvlan", "ipvlan", "vlan")
)
