"""What a portmap configuration may say. https://www.cni.dev/plugins/current/meta/portmap/"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kubenet_lab.cni.plugin import DECODING_FAILURE, Call, CniError
from kubenet_lab.packet.ip import family, ip_int


class Mapping(Struct, frozen=True, rename="camel"):
    """One port of `runtimeConfig.portMappings`."""

    host_port: int = 0
    container_port: int = 0
    protocol: str = "tcp"
    host_ip: str = msgspec.field(default="", name="hostIP")

    def on(self, fam: int) -> str:
        """The host address it is limited to, "" for all, "-" when it is for the other family only."""
        try:
            zero = not self.host_ip or ip_int(self.host_ip) == 0
        except ValueError:
            return ""
        if self.host_ip and family(self.host_ip) != fam:
            return "-"
        return "" if zero else self.host_ip


class Config(Struct, frozen=True, rename="camel"):
    """The plugin's own keys."""

    backend: str | None = None
    snat: bool = True
    mark_masq_bit: int = 13
    external_set_mark_chain: str | None = None
    conditions_v4: list[str] = []
    conditions_v6: list[str] = []
    runtime_config: dict[str, list[Mapping]] = {}

    @property
    def mappings(self) -> list[Mapping]:
        """The ports to forward."""
        return self.runtime_config.get("portMappings", [])


def load(call: Call) -> Config:
    """Read standard input. Raises CniError in the plugin's words, or saying what is not modelled."""
    try:
        conf = msgspec.convert(call.conf, Config)
    except msgspec.ValidationError as fault:
        raise CniError(f"failed to parse config: {fault}", DECODING_FAILURE) from fault
    if conf.backend not in (None, "", "iptables", "nftables"):
        raise CniError(f'failed to parse config: unrecognized backend "{conf.backend}"')
    for item in conf.mappings:
        if item.host_port <= 0 or item.container_port <= 0:
            which, wrong = (
                ("host", item.host_port) if item.host_port <= 0 else ("container", item.container_port)
            )
            raise CniError(f"failed to parse config: Invalid {which} port number: {wrong}")
    return conf
