"""static: addresses written in the configuration, and no store: nothing keeps two containers from having one address.

https://www.cni.dev/plugins/current/ipam/static/
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from kubenet_lab.cni.plugin import VERSIONS, Call, CniError, Ip, Plugin, Result, RouteEntry
from kubenet_lab.packet.ip import family, prefix


def _cidr(text: str, says: str) -> str:
    try:
        if "/" not in text:
            raise ValueError(text)
        return ip_interface(text).with_prefixlen
    except ValueError:
        raise CniError(says.format(text)) from None


def load(call: Call) -> tuple[Ip, ...]:
    """Read the addresses: CNI_ARGS add to the configuration's, `args` and `runtimeConfig` replace them."""
    body = call.conf.get("ipam")
    if body is None:
        raise CniError("IPAM config missing 'ipam' key")
    given = [
        (str(item.get("address", "")), str(item.get("gateway") or "")) for item in body.get("addresses") or []
    ]
    arguments = dict(pair.partition("=")[::2] for pair in call.args.split(";")) if call.args else {}
    added = [
        _cidr(item.strip(), "the 'ip' field is expected to be in CIDR notation, got: '{}'")
        for item in arguments.get("IP", "").split(",")
        if item
    ]
    given += [(item, "") for item in added]
    for item in arguments.get("GATEWAY", "").split(",") if arguments.get("GATEWAY") else ():
        gateway = item.strip()
        try:
            ip_address(gateway)
        except ValueError:
            raise CniError(f"invalid gateway address: {item}") from None
        given = [(a, gateway if "/" in a and gateway in prefix(a) else g) for a, g in given]
    entry = "an entry in the 'ips' field is NOT in CIDR notation, got: '{}'"
    for source in (call.conf.get("args") or {}).get("cni") or {}, call.conf.get("runtimeConfig") or {}:
        if source.get("ips"):
            given = [(_cidr(str(text), entry), "") for text in source["ips"]]
    ips = tuple(
        Ip(_cidr(address, "the 'address' field is expected to be in CIDR notation, got: '{}'"), gateway)
        for address, gateway in given
    )
    version = call.conf.get("cniVersion") or "0.1.0"
    for fam in (4, 6):
        many = sum(family(ip.address) == fam for ip in ips) > 1
        if many and VERSIONS.index(version) < VERSIONS.index("0.3.0"):
            said = call.conf.get("cniVersion") or ""
            raise CniError(f"CNI version {said} does not support more than 1 address per family")
    return ips


def add(call: Call) -> Result:
    """Answer with the configured addresses, routes and DNS."""
    body = call.conf.get("ipam") or {}
    routes = tuple(RouteEntry.from_json(route) for route in body.get("routes") or [])
    return Result(ips=load(call), routes=routes, dns={k: v for k, v in (body.get("dns") or {}).items() if v})


def delete(call: Call) -> None:
    """Do nothing: no address was reserved."""


def check(call: Call) -> None:
    """Fail when an address of `prevResult` has another gateway than the configuration says."""
    ips = load(call)
    result = call.prev_result()
    if result is None:
        raise CniError("Required prevResult missing")
    for ip in ips:
        for had in result.ips:
            same = had.address.partition("/")[0] == ip.address.partition("/")[0]
            if same and ip.gateway and ip.gateway != had.gateway:
                where = had.address.partition("/")[0]
                raise CniError(f"static: Failed to match addr {where} on interface {call.ifname}")


PLUGIN = Plugin(name="static", add=add, delete=delete, check=check)
