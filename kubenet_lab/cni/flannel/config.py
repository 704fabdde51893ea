"""flanneld's network configuration (`net-conf.json` of the ConfigMap kube-flannel-cfg) and its flags.

https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md ,
https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

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
                said = f"error parsing subnet config: invalid CIDR address: {text}"
                raise InputError(f"Failed to create SubnetManager: {said}") from None

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


def load(text: str | dict[str, Any]) -> NetConf:
    """Read `net-conf.json`. Raises InputError in flanneld's words where it has some."""
    try:
        return msgspec.convert(json.loads(text) if isinstance(text, str) else text, NetConf)
    except InputError:
        raise
    except (ValueError, msgspec.ValidationError) as fault:
        raise InputError(f"flannel: net-conf.json: {fault}") from fault


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
