"""What a bridge configuration may say. https://www.cni.dev/plugins/current/main/bridge/"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from kubenet_lab.cni.plugin import DECODING_FAILURE, CniError, Json


class Trunk(Struct, frozen=True, rename="camel"):
    """VLANs that a container's port carries with their tags: one `id`, or all from `min_id` to `max_id`."""

    id: int | None = None
    min_id: int | None = msgspec.field(default=None, name="minID")
    max_id: int | None = msgspec.field(default=None, name="maxID")

    @property
    def vids(self) -> range:
        """The VLANs it names."""
        if self.id is not None:
            return range(self.id, self.id + 1)
        return range(self.min_id or 0, (self.max_id or 0) + 1)


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
    vlan_trunk: list[Trunk] = field(default_factory=list)
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


def _check_trunk(conf: Config) -> None:
    if conf.vlan:
        raise CniError("cannot set both vlan and vlanTrunk")
    for trunk in conf.vlan_trunk:
        if trunk.id is not None and not 0 <= trunk.id <= 4094:
            raise CniError("incorrect trunk id parameter")
        if (trunk.min_id is None) != (trunk.max_id is None):
            said = "minID and maxID should be configured simultaneously, "
            raise CniError(said + ("minID is missing" if trunk.min_id is None else "maxID is missing"))
        for bound, which in ((trunk.min_id, "minID"), (trunk.max_id, "maxID")):
            if bound is not None and not 0 <= bound <= 4094:
                raise CniError(f"incorrect trunk {which} parameter")
        if trunk.min_id is not None and trunk.max_id is not None and trunk.min_id > trunk.max_id:
            raise CniError("minID is greater than maxID in trunk parameter")


def load(body: Json) -> Config:
    """Read standard input. Raises CniError in the plugin's words, or saying what is not modelled."""
    try:
        conf = msgspec.convert(body, Config)
    except msgspec.ValidationError as fault:
        raise CniError(f"failed to load netconf: {fault}", DECODING_FAILURE) from fault
    if not 0 <= conf.vlan <= 4094:
        raise CniError(f"invalid VLAN ID {conf.vlan} (must be between 0 and 4094)")
    if conf.vlan_trunk:
        _check_trunk(conf)
    return conf
