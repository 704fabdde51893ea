"""What a bridge configuration may say. https://www.cni.dev/plugins/current/main/bridge/"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from kubenet_lab.cni.plugin import DECODING_FAILURE, CniError, Json


class Config(Struct, frozen=True, rename="camel"):
    """The plugin's own keys; unset ones have the plugin's defaults. `mtu` 0 lets the kernel choose (1500)."""

    bridge: str = "cni0"
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    ip_masq_backend: str | None = None
    mtu: int = 0
    hairpin_mode: bool = False
    promisc_mode: bool = False
    vlan: int = 0
    preserve_default_vlan: bool = True
    macspoofchk: bool = False
    enabledad: bool = False
    disable_container_interface: bool = False
    port_isolation: bool = False
    ipam: Json = field(default_factory=dict)

    @property
    def layer3(self) -> bool:
        """True when an IPAM plugin is named, so that addresses and routes are set."""
        return bool(self.ipam.get("type"))

    @property
    def gateway(self) -> bool:
        """True when the bridge gets the gateway's address."""
        return self.is_gateway or self.is_default_gateway


def load(body: Json) -> Config:
    """Read standard input. Raises CniError in the plugin's words, or saying what is not modelled."""
    try:
        conf = msgspec.convert(body, Config)
    except msgspec.ValidationError as fault:
        raise CniError(f"failed to load netconf: {fault}", DECODING_FAILURE) from fault
    if not 0 <= conf.vlan <= 4094:
        raise CniError(f"invalid VLAN ID {conf.vlan} (must be between 0 and 4094)")
    for key, used in (
        ("vlan", conf.vlan),
        ("macspoofchk", conf.macspoofchk),
        ('ipMasqBackend "nftables"', conf.ip_masq and conf.ip_masq_backend == "nftables"),
    ):
        if used:
            raise CniError(f"bridge: {key} is not modelled")
    return conf
