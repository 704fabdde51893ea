"""flanneld's network configuration (`net-conf.json` of the ConfigMap kube-flannel-cfg) and its flags.

https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md ,
https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.cni import fields as kinds
from kubenet_lab.cni.fields import Object
from kubenet_lab.cni.gojson import fault_of
from kubenet_lab.errors import InputError
from kubenet_lab.packet.ip import prefix

BACKENDS = ("vxlan", "host-gw", "wireguard", "ipip", "udp", "alloc")
"""Backends that are modelled; `udp` is the legacy one, and `alloc` hands out subnets and routes nothing."""


class Backend(Struct, frozen=True, rename="pascal"):
    """How pod subnets reach each other. `mtu` 0 takes the MTU of the node's link; `listen_port` is WireGuard's."""

    type: str = "vxlan"
    vni: int = msgspec.field(default=1, name="VNI")
    port: int = 0
    """UDP port of vxlan (0: the kernel's 8472) or udp (0: 8285)."""
    mtu: int = msgspec.field(default=0, name="MTU")
    gbp: bool = msgspec.field(default=False, name="GBP")
    direct_routing: bool = False
    learning: bool = False
    mac_prefix: str = ""
    """Has no effect on Linux, as recorded."""
    listen_port: int = 51820
    listen_port_v6: int = msgspec.field(default=51821, name="ListenPortV6")
    psk: str = msgspec.field(default="", name="PSK")
    persistent_keepalive_interval: int = 0


class NetConf(Struct, frozen=True, rename="pascal"):
    """The whole document. `network` and `ipv6_network` are the ranges that all pod subnets are in."""

    network: str = "10.244.0.0/16"
    ipv6_network: str = msgspec.field(default="", name="IPv6Network")
    enable_ipv4: bool = msgspec.field(default=True, name="EnableIPv4")
    enable_ipv6: bool = msgspec.field(default=False, name="EnableIPv6")
    enable_nftables: bool = msgspec.field(default=False, name="EnableNFTables")
    backend: Backend = Backend()

    def __post_init__(self) -> None:
        for text in (self.network, self.ipv6_network):
            try:
                if text:
                    prefix(text)
            except ValueError:
                raise InputError(f"{PARSING}invalid CIDR address: {text}") from None

    @property
    def families(self) -> tuple[int, ...]:
        """The address families that are on."""
        return tuple(fam for fam, on in ((4, self.enable_ipv4), (6, self.enable_ipv6)) if on)

    def range(self, fam: int) -> str:
        """The range of all pod subnets of a family."""
        return self.network if fam == 4 else self.ipv6_network


class Flags(Struct, frozen=True):
    """flanneld's command line, as far as it changes what is left in the kernel.

    `ip_masq` is off in flanneld itself and on in kube-flannel.yml.
    """

    iface: str = "eth0"
    ip_masq: bool = True
    ip_masq_random_fully: bool = True
    """Not `--ip-masq-fully-random-disable`."""
    forward_rules: bool = True
    """`--iptables-forward-rules`."""
    blackhole_route: bool = False
    """`--ip-blackhole-route`."""


_CONFIG = Object(
    "subnet.Config",
    "Config",
    {
        "EnableIPv4": "bool",
        "EnableIPv6": "bool",
        "EnableNFTables": "bool",
        "SubnetLen": "uint",
        "IPv6SubnetLen": "uint",
    },
)
_TYPE = Object("struct { Type string }", "", {"Type": "string"})
_TUNNEL = {
    "VNI": "int",
    "Port": "int",
    "MTU": "int",
    "GBP": "bool",
    "Learning": "bool",
    "DirectRouting": "bool",
}
_OPTIONS: dict[str, tuple[str, Object]] = {
    "vxlan": ("VXLAN", Object("struct {...}", "", {**_TUNNEL, "MacPrefix": "string"})),
    "udp": ("UDP", Object("struct {...}", "", {"Port": "int"})),
    "ipip": ("IPIP", Object("struct {...}", "", {"DirectRouting": "bool"})),
    "wireguard": (
        "Wireguard",
        Object(
            "struct {...}",
            "",
            {
                "ListenPort": "int",
                "ListenPortV6": "int",
                "MTU": "int",
                "PSK": "string",
                "PersistentKeepaliveInterval": "int",
            },
        ),
    ),
}
"""Backend -> its name in messages, and the fields it reads."""
NOT_READ = "Failed to create SubnetManager: "
PARSING = f"{NOT_READ}error parsing subnet config: "


def load(text: str | dict[str, Any]) -> NetConf:
    """Read `net-conf.json` as flanneld's ParseConfig does. Raises InputError in flanneld's words.

    A document without a Backend has udp, not vxlan.
    """
    body: Any = text
    if isinstance(text, str):
        if wrong := fault_of(text):
            raise InputError(PARSING + wrong)
        body = json.loads(text)
    wrong = kinds.fault_of(body, _CONFIG)
    body = {key: value for key, value in (body or {}).items() if value is not None} if not wrong else {}
    backend = body.get("Backend", {"Type": "udp"})
    if not wrong and (said := kinds.fault_of(backend, _TYPE)):
        wrong = f"error decoding Backend property of config: {said}"
    if wrong:
        raise InputError(PARSING + wrong)
    kind = backend.get("Type") or ""
    name, options = _OPTIONS.get(kind, ("", None))
    if options is not None and (said := kinds.fault_of(backend, options)):
        raise InputError(f"Error registering network: error decoding {name} backend config: {said}")
    body["Backend"] = {"Type": kind, **{key: value for key, value in backend.items() if value is not None}}
    for key in ("Network", "IPv6Network"):
        if not isinstance(body.get(key, ""), str):
            raise InputError(f"{PARSING}invalid CIDR address: {json.dumps(body[key])}")
    return msgspec.convert(body, NetConf)


def load_flags(line: str) -> Flags:
    """Read flanneld's command line: `--ip-masq --iface=eth0`. Raises InputError for a flag that is not modelled."""
    flags = Flags(ip_masq=False)
    known = {
        "--ip-masq": "ip_masq",
        "--iptables-forward-rules": "forward_rules",
        "--ip-blackhole-route": "blackhole_route",
    }
    for word in line.split():
        name, _, value = word.partition("=")
        on = value in ("", "true")
        if name in known:
            flags = msgspec.structs.replace(flags, **{known[name]: on})
        elif name == "--ip-masq-fully-random-disable":
            flags = msgspec.structs.replace(flags, ip_masq_random_fully=not on)
        elif name == "--iface":
            flags = msgspec.structs.replace(flags, iface=value)
        elif name != "--kube-subnet-mgr":
            raise InputError(f"flannel: flag {name} is not modelled")
    return flags
