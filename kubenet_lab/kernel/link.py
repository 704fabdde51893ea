"""Network interfaces: what `ip -d link` shows. One frozen value a link, whatever its kind."""

from __future__ import annotations

from msgspec import Struct


class Peer(Struct, frozen=True):
    """The other end of a veth pair: a link name in a named network namespace."""

    netns: str
    link: str


class BridgeOptions(Struct, frozen=True):
    """Options of a bridge device (`ip link add type bridge ...`)."""

    vlan_filtering: bool = False
    nf_call_iptables: bool = False
    nf_call_ip6tables: bool = False
    ageing: float = 300.0
    """Seconds until a learned FDB entry is forgotten."""
    stp: bool = False
    mcast_snooping: bool = True


class BridgePort(Struct, frozen=True):
    """Options of a port (`bridge link set dev X hairpin on`)."""

    hairpin: bool = False
    learning: bool = True
    flood: bool = True
    isolated: bool = False
    state: str = "forwarding"


class VxlanOptions(Struct, frozen=True):
    """Options of a VXLAN device (RFC 7348; `ip link add type vxlan id 1 local A dev D dstport 8472`)."""

    vni: int
    local: str = ""
    link: str = ""
    """The underlay device, or ""."""
    port: int = 8472
    learning: bool = False
    ttl: int = 0
    """0 takes the route's default TTL."""
    df: str = "unset"


class Link(Struct, frozen=True, kw_only=True):
    """One interface. `kind` is loopback, physical, veth, bridge, vxlan, dummy, or another name `ip -d link` knows."""

    name: str
    index: int
    kind: str
    mac: str = "00:00:00:00:00:00"
    mtu: int = 1500
    up: bool = False
    carrier: bool = True
    """False where the other end is down or the cable is out."""
    master: str = ""
    """The bridge this link is a port of, or ""."""
    peer: Peer | None = None
    wire: str = ""
    """Name of the wire a physical link is plugged into."""
    bridge: BridgeOptions | None = None
    port: BridgePort | None = None
    vxlan: VxlanOptions | None = None
    promiscuous: bool = False
    noarp: bool = False
    txqlen: int = 1000
    activated: bool = False
    """True once the link was up: it keeps its queueing discipline when it goes down."""
    mac_set: bool = False
    """True once somebody set the MAC: a bridge then no longer takes its lowest port's."""
    mtu_set: bool = False
    """True once somebody set the MTU: a bridge then no longer takes its smallest port's."""

    @property
    def running(self) -> bool:
        """True when the link can carry frames."""
        return self.up and self.carrier

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags in the order `ip link` prints them."""
        out = ["LOOPBACK"] if self.kind == "loopback" else ["BROADCAST", "MULTICAST"]
        if self.up and not self.carrier:
            out.insert(0, "NO-CARRIER")
        if self.noarp:
            out.append("NOARP")
        if self.promiscuous:
            out.append("PROMISC")
        if self.up:
            out.append("UP")
            if self.carrier:
                out.append("LOWER_UP")
        return tuple(out)

    @property
    def operstate(self) -> str:
        """UP, DOWN or UNKNOWN, as in RFC 2863."""
        if self.kind in ("loopback", "vxlan", "dummy"):
            return "UNKNOWN" if self.up else "DOWN"
        return "UP" if self.running else "DOWN"

    def __str__(self) -> str:
        master = f", port of {self.master}" if self.master else ""
        state = "" if self.running else ", down" if not self.up else ", no carrier"
        return f"{self.name} ({self.kind}, mtu {self.mtu}{master}{state})"
