"""Whether a configuration has values of the kinds that its fields want, in the words of Go's encoding/json.

Every plugin decodes its configuration into a struct of its own, and fails with the decoder's sentence about the first
value that does not fit. Source: the structs of containernetworking/plugins and libcni; the sentences are held against
those of Debian's executables. `null` fits everywhere, and stands for the field's zero.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.cni.gojson import kind_of

_WHOLE = {
    "int": (-(1 << 63), (1 << 63) - 1),
    "uint": (0, (1 << 64) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}


class Object(Struct, frozen=True):
    """A struct: how Go prints its type in a message, its bare name, and its fields' types; others are not looked at."""

    go: str
    name: str
    fields: Mapping[str, Any]


class Items(Struct, frozen=True):
    """A slice: how Go prints its type, and its elements' type."""

    go: str
    of: Any


class Values(Struct, frozen=True):
    """A map with string keys: how Go prints its type, and its values' type; None for any."""

    go: str
    of: Any = None


STRINGS = Items("[]string", "string")
ANYTHING = Values("map[string]interface {}")
DNS = Object(
    "types.DNS",
    "DNS",
    {"nameservers": STRINGS, "domain": "string", "search": STRINGS, "options": STRINGS},
)
IPAM = Object("types.IPAM", "IPAM", {"type": "string"})
_NET = {
    "cniVersion": "string",
    "name": "string",
    "type": "string",
    "ipam": IPAM,
    "dns": DNS,
    "prevResult": ANYTHING,
}
ROUTES = Items("[]*types.Route", "route")
_RANGE = {"subnet": "cidr", "rangeStart": "address", "rangeEnd": "address", "gateway": "address"}
RANGES = Items(
    "[]allocator.RangeSet", Items("allocator.RangeSet", Object("allocator.Range", "Range", _RANGE))
)
ADDRESSES = Items(
    "[]main.Address", Object("main.Address", "Address", {"address": "string", "gateway": "address"})
)
PORTS = Items(
    "[]main.PortMapEntry",
    Object(
        "main.PortMapEntry",
        "PortMapEntry",
        {"hostPort": "int", "containerPort": "int", "protocol": "string", "hostIP": "string"},
    ),
)


_MAC = {"mac": "string"}
_RATES: dict[str, Any] = dict.fromkeys(
    ("ingressRate", "ingressBurst", "egressRate", "egressBurst"), "uint64"
) | {
    "unshapedSubnets": STRINGS,
    "shapedSubnets": STRINGS,
}


def _root(name: str, **fields: Any) -> Object:
    return Object(f"main.{name}", name, {**_NET, **fields})


def _nameless(go: str, **fields: Any) -> Object:
    """A struct written out where it is used: Go prints its fields, and has no name for it."""
    return Object(f"struct {{ {go} }}", "", fields)


def _args(go: str, kind: str, name: str, fields: Mapping[str, Any]) -> Object:
    return _nameless(go, cni=Object(kind, name, fields))


def _ipam(args: Object, runtime: Object, **fields: Any) -> Object:
    config = Object("IPAMConfig", "IPAMConfig", {"type": "string", "routes": ROUTES, **fields})
    root = {"cniVersion": "string", "name": "string", "ipam": config, "args": args, "runtimeConfig": runtime}
    return Object("main.Net", "Net", root)


RUNTIME_MAC = _nameless('Mac string "json:\\"mac,omitempty\\""', **_MAC)
_IPS = Items("[]*ip.IP", "ip")

_NETCONF = "failed to load netconf: "
STRUCTS: dict[str, tuple[str, Object]] = {
    "bridge": (
        _NETCONF,
        _root(
            "NetConf",
            bridge="string",
            isGateway="bool",
            isDefaultGateway="bool",
            forceAddress="bool",
            ipMasq="bool",
            ipMasqBackend="string",
            mtu="int",
            hairpinMode="bool",
            promiscMode="bool",
            vlan="int",
            vlanTrunk=Items(
                "[]*main.VlanTrunk",
                Object("main.VlanTrunk", "VlanTrunk", {"minID": "int", "maxID": "int", "id": "int"}),
            ),
            preserveDefaultVlan="bool",
            macspoofchk="bool",
            enabledad="bool",
            disableContainerInterface="bool",
            portIsolation="bool",
            args=_args(
                'Cni main.BridgeArgs "json:\\"cni,omitempty\\""', "main.BridgeArgs", "BridgeArgs", _MAC
            ),
            runtimeConfig=RUNTIME_MAC,
        ),
    ),
    "ptp": (_NETCONF, _root("NetConf", ipMasq="bool", ipMasqBackend="string", mtu="int")),
    "macvlan": (
        _NETCONF,
        _root(
            "NetConf",
            master="string",
            mode="string",
            mtu="int",
            mac="string",
            linkInContainer="bool",
            runtimeConfig=RUNTIME_MAC,
        ),
    ),
    "ipvlan": (_NETCONF, _root("NetConf", master="string", mode="string", mtu="int", linkInContainer="bool")),
    "vlan": (_NETCONF, _root("NetConf", master="string", vlanId="int", mtu="int", linkInContainer="bool")),
    "dummy": (_NETCONF, _root("NetConf")),
    "tap": (_NETCONF, _root("NetConf", mtu="int", mac="string", owner="uint32", group="uint32")),
    "host-device": (
        _NETCONF,
        _root(
            "NetConf",
            device="string",
            hwaddr="string",
            kernelpath="string",
            pciBusID="string",
            runtimeConfig=_nameless('DeviceID string "json:\\"deviceID,omitempty\\""', deviceID="string"),
        ),
    ),
    "loopback": ("failed to parse network config: ", _root("NetConf")),
    "portmap": (
        "failed to parse config: failed to parse network configuration: ",
        _root(
            "PortMapConf",
            snat="bool",
            backend="string",
            conditionsV4=STRINGS,
            conditionsV6=STRINGS,
            masqAll="bool",
            markMasqBit="int",
            externalSetMarkChain="string",
            runtimeConfig=_nameless(
                'PortMaps []main.PortMapEntry "json:\\"portMappings,omitempty\\""', portMappings=PORTS
            ),
        ),
    ),
    "tuning": (
        _NETCONF,
        _root(
            "TuningConf",
            dataDir="string",
            sysctl=Values("map[string]string", "string"),
            mac="string",
            promisc="bool",
            mtu="int",
            allmulti="bool",
            txQLen="int",
            args=_args('A *main.IPAMArgs "json:\\"cni\\""', "main.IPAMArgs", "IPAMArgs", _MAC),
            runtimeConfig=RUNTIME_MAC,
        ),
    ),
    "bandwidth": (
        "failed to parse network configuration: ",
        _root(
            "PluginConf",
            runtimeConfig=_nameless(
                'Bandwidth *main.BandwidthEntry "json:\\"bandwidth,omitempty\\""',
                bandwidth=Object("main.BandwidthEntry", "BandwidthEntry", _RATES),
            ),
            **_RATES,
        ),
    ),
    "firewall": (
        _NETCONF,
        _root(
            "FirewallNetConf",
            backend="string",
            iptablesAdminChainName="string",
            firewalldZone="string",
            ingressPolicy="string",
        ),
    ),
    "sbr": ("failed to parse network configuration: ", _root("PluginConf", table="int")),
    "vrf": (_NETCONF, _root("VRFNetConf", vrfname="string", table="uint32")),
    "host-local": (
        "",
        _ipam(
            _args('A *allocator.IPAMArgs "json:\\"cni\\""', "allocator.IPAMArgs", "IPAMArgs", {"ips": _IPS}),
            _nameless(
                'IPRanges []allocator.RangeSet "json:\\"ipRanges,omitempty\\""; '
                'IPs []*ip.IP "json:\\"ips,omitempty\\""',
                ipRanges=RANGES,
                ips=_IPS,
            ),
            **_RANGE,
            ranges=RANGES,
            dataDir="string",
            resolvConf="string",
        ),
    ),
    "static": (
        "",
        _ipam(
            _args('A *main.IPAMArgs "json:\\"cni\\""', "main.IPAMArgs", "IPAMArgs", {"ips": STRINGS}),
            _nameless('IPs []string "json:\\"ips,omitempty\\""', ips=STRINGS),
            addresses=ADDRESSES,
            dns=DNS,
        ),
    ),
    "flannel": (
        _NETCONF,
        _root("NetConf", ipam=ANYTHING, subnetFile="string", dataDir="string", delegate=ANYTHING),
    ),
}
"""Plugin -> what it says before the decoder's sentence, and the struct it decodes into."""

LIBCNI = Object(
    "types.PluginConf",
    "PluginConf",
    {**_NET, "capabilities": Values("map[string]bool", "bool")},
)
"""What the runtime's library decodes a plugin's part of a list into before anything is executed."""


def fault_of(value: Any, wanted: Object) -> str:
    """Return the decoder's sentence about the first value that does not fit, "" when all do."""
    return _fault(value, wanted, "", "")


def decoded(plugin: str, conf: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a plugin says of a configuration it cannot decode, "" when it can, and that without its nulls.

    A plugin that is not known here takes everything.
    """
    if plugin not in STRUCTS:
        return "", conf
    # What a runtime puts in is of the right kind, and different for each container.
    given = {key: value for key, value in conf.items() if key != "prevResult" or not isinstance(value, dict)}
    try:
        text = msgspec.json.encode(given, order="sorted")  # as libcni writes it
    except OverflowError:  # it has no integers beyond 64 bits
        text = json.dumps(given, sort_keys=True).encode()
    said = _remembered(plugin, text)
    return said, _without_nulls(conf) if b"null" in text and not said else conf


@lru_cache(maxsize=8192)
def _remembered(plugin: str, text: bytes) -> str:
    before, wanted = STRUCTS[plugin]
    said = fault_of(json.loads(text), wanted)
    return said and before + said


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _fault(value: Any, wanted: Any, owner: str, path: str) -> str:
    """What is wrong with a value; `owner` is the innermost struct's name, `path` leads to the value from the root."""
    if wanted is None:
        return ""
    if value is None:
        return "invalid CIDR address: <nil>" if wanted == "cidr" else ""
    if isinstance(wanted, str):
        return _scalar(value, wanted, owner, path)
    if isinstance(wanted, Items):
        if not isinstance(value, list):
            return _cannot(kind_of(value), wanted.go, owner, path)
        return next(filter(None, (_fault(item, wanted.of, owner, path) for item in value)), "")
    if not isinstance(value, dict):
        return _cannot(kind_of(value), wanted.go, owner, path)
    if isinstance(wanted, Values):
        return next(filter(None, (_fault(one, wanted.of, owner, path) for one in value.values())), "")
    below = f"{path}." if path else ""
    found = (
        _fault(one, wanted.fields[key], wanted.name, below + key)
        for key, one in value.items()
        if key in wanted.fields
    )
    return next(filter(None, found), "")


def _scalar(value: Any, wanted: str, owner: str, path: str) -> str:
    kind = kind_of(value)
    if wanted == "route":
        return _route(value, owner, path)
    if wanted == "ip":  # read, and judged, by the plugin
        return "" if kind == "string" else _cannot(kind, "*ip.IP", owner, path)
    if wanted in ("cidr", "address"):
        if kind != "string":
            return _cannot(kind, "string" if wanted == "cidr" else "net.IP", owner, path)
        return _text(value, wanted)
    if wanted in _WHOLE:
        least, most = _WHOLE[wanted]
        if kind == "number" and not (isinstance(value, int) and least <= value <= most):
            return _cannot(f"number {json.dumps(value)}", wanted, owner, path)
        return "" if kind == "number" else _cannot(kind, wanted, owner, path)
    return "" if kind == wanted else _cannot(kind, wanted, owner, path)


def _route(value: Any, owner: str, path: str) -> str:
    """A route has a decoder of its own, which knows neither the struct nor the field it stands in."""
    if not isinstance(value, dict):
        return _cannot(kind_of(value), "types.route", owner, path)
    for key, wanted, go in (("dst", "cidr", "string"), ("gw", "address", "net.IP")):
        one = value.get(key)
        if one is None:
            if key == "dst":
                return "invalid CIDR address: <nil>"
        elif not isinstance(one, str):
            return _cannot(kind_of(one), go, owner, path)
        elif said := _text(one, wanted):
            return said
    return ""


def _text(value: str, wanted: str) -> str:
    """Go's ParseCIDR and ParseIP."""
    try:
        if wanted == "cidr":
            if "/" not in value:
                raise ValueError(value)
            ip_network(value, strict=False)
        elif value:
            ip_address(value)
    except ValueError:
        return f"invalid {'CIDR' if wanted == 'cidr' else 'IP'} address: {value}"
    return ""


def _cannot(value: str, go: str, owner: str, path: str) -> str:
    where = f"struct field {owner}.{path}" if path else "value"
    return f"json: cannot unmarshal {value} into Go {where} of type {go}"
