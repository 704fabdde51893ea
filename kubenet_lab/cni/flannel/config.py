"""flanneld's network configuration (`net-conf.json` of the ConfigMap kube-flannel-cfg).

https://github.com/flannel-io/flannel/blob/master/Documentation/configuration.md
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.errors import InputError
from kubenet_lab.packet.ip import prefix


class Backend(Struct, frozen=True, rename="pascal"):
    """How pod subnets reach each other: `vxlan` or `host-gw`. `mtu` 0 takes the MTU of the node's link."""

    type: str = "vxlan"
    vni: int = msgspec.field(default=1, name="VNI")
    port: int = 8472
    mtu: int = msgspec.field(default=0, name="MTU")
    direct_routing: bool = False
    learning: bool = False


class NetConf(Struct, frozen=True, rename="pascal"):
    """The whole document, IPv4 part. `network` is the range that all pod subnets are in."""

    network: str = "10.244.0.0/16"
    backend: Backend = Backend()

    def __post_init__(self) -> None:
        try:
            prefix(self.network)
        except ValueError:
            raise InputError(f"flannel: Network {self.network!r} is no prefix; write 10.244.0.0/16") from None
        if self.backend.type not in ("vxlan", "host-gw"):
            raise InputError(f"flannel: backend {self.backend.type!r} is not modelled; use vxlan or host-gw")


def load(text: str | dict[str, Any]) -> NetConf:
    """Read `net-conf.json`. Raises InputError."""
    try:
        return msgspec.convert(json.loads(text) if isinstance(text, str) else text, NetConf)
    except (ValueError, msgspec.ValidationError) as fault:
        raise InputError(f"flannel: net-conf.json: {fault}") from fault
