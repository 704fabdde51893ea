"""Network interfaces: what `ip -d link` shows. One frozen value a link, whatever its kind."""

from __future__ import annotations

from msgspec import Struct

STATELESS = ("loopback", "vxlan", "dummy", "ifb", "ipip", "sit", "ip6tnl", "wireguard", "tun")
"""Kinds whose operational state is UNKNOWN while they are up: nobody tells the kernel of their carrier."""

_BIRTH_FLAGS = {
    "loopback": ("LOOPBACK",),
    "ipip": ("NOARP",),
    "sit": ("NOARP",),
    "ip6tnl": ("NOARP",),
    "wireguard": ("POINTOPOINT", "NOARP"),
    "ifb": ("BROADCAST", "NOARP"),
    "dummy": ("BROADCAST", "NOARP"),
}
"""Flags a kind is born with where they are not BROADCAST,MULTICAST."""


class Peer(Struct, frozen=True):
    """The other end of a veth pair: a link name in a named network namespace."""

    netns: str
    link: str


class PortVlan(Struct, frozen=True):
    """A VLAN a port carries (`bridge vlan add dev X vid N [pvid] [untagged]`)."""

    vid: int
    pvid: bool = False
    """Frames without a tag belong to it."""
    untagged: bool = False
    """Frames leave without a tag."""


DEFAULT_VLANS = (PortVlan(1, pvid=True, untagged=True),)
"""What a port gets when it joins a bridge, and the bridge itself has (`vlan_default_pvid` 1)."""


class BridgeOptions(Struct, frozen=True):
    """Options of a bridge device (`ip link add type bridge ...`)."""

    vlan_filtering: bool = False
    nf_call_iptables: bool = False
    nf_call_ip6tables: bool = False
    ageing: float = 300.0
    """Seconds until a learned FDB entry is forgotten."""
    stp: bool = False
    mcast_snooping: bool = True
    vlans: tuple[PortVlan, ...] = DEFAULT_VLANS
    """The VLANs of the bridge itself (`bridge vlan add dev BRIDGE vid N self`): what the host hears and sends."""


class BridgePort(Struct, frozen=True):
    """Options of a port (`bridge link set dev X hairpin on`)."""

    hairpin: bool = False
    learning: bool = True
    flood: bool = True
    isolated: bool = False
    state: str = "forwarding"
    vlans: tuple[PortVlan, ...] = DEFAULT_VLANS
    """What `bridge vlan` shows for the port; only a bridge with `vlan_filtering` looks at it."""


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
    external: bool = False
    """True where each packet's metadata says where to go and by which VNI (`external`, collect_md); no FDB is asked."""


class MacvlanOptions(Struct, frozen=True):
    """Options of a macvlan device (`ip link add link D type macvlan mode bridge`): further MACs on one link.

    `mode` is bridge, private, vepa or passthru. `lower` may be in another namespace.
    """

    lower: Peer
    mode: str = "bridge"


class IpvlanOptions(Struct, frozen=True):
    """Options of an ipvlan device (`ip link add link D type ipvlan mode l2`): further addresses on one MAC.

    `mode` is l2, l3 or l3s; `flag` is bridge, private or vepa.
    """

    lower: Peer
    mode: str = "l2"
    flag: str = "bridge"


class VlanOptions(Struct, frozen=True):
    """Options of a VLAN device (`ip link add link D type vlan id N`), IEEE 802.1Q."""

    lower: Peer
    id: int


class TunnelOptions(Struct, frozen=True):
    """Options of an ipip, sit or ip6tnl device (`ip link add type ipip local A remote B ttl N`)."""

    local: str = ""
    remote: str = ""
    """"" is any: a route's gateway is then the far end."""
    link: str = ""
    ttl: int = 0
    pmtudisc: bool = True


class WireguardPeer(Struct, frozen=True):
    """One peer of a WireGuard device (`wg set wg0 peer KEY endpoint A:P allowed-ips ...`)."""

    public_key: str
    endpoint: str = ""
    allowed_ips: tuple[str, ...] = ()
    keepalive: int = 0
    """Seconds between keep-alive packets; 0 sends none."""

    def __str__(self) -> str:
        where = f" endpoint {self.endpoint}" if self.endpoint else ""
        return f"peer {self.public_key}{where} allowed-ips {', '.join(self.allowed_ips) or '(none)'}"


class WireguardOptions(Struct, frozen=True):
    """Options of a WireGuard device, as `wg show` prints them; the private key stays out of the state."""

    public_key: str
    port: int = 51820
    peers: tuple[WireguardPeer, ...] = ()
    fwmark: int = 0
    """Mark of the outer packets, for routing them; 0 sets none."""
    home: str = ""
    """The namespace whose UDP sockets it uses: where it was made, before it was moved; "" is its own."""


class Qdisc(Struct, frozen=True):
    """A queueing discipline somebody set (`tc qdisc`). Nothing here delays a packet: it is state to look at.

    `rate` is in bytes/s, `burst` in bytes, `latency` in us, as `tc -j qdisc` prints them.
    """

    kind: str
    handle: str = "1:"
    parent: str = "root"
    rate: int = 0
    burst: int = 0
    latency: int = 0


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
    macvlan: MacvlanOptions | None = None
    ipvlan: IpvlanOptions | None = None
    vlan: VlanOptions | None = None
    tunnel: TunnelOptions | None = None
    wireguard: WireguardOptions | None = None
    qdiscs: tuple[Qdisc, ...] = ()
    """Those that somebody set; without any a link has its kind's default."""
    promiscuous: bool = False
    allmulti: bool = False
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
    def asks(self) -> bool:
        """True when a next hop's MAC has to be found (ARP, neighbour discovery) before the link can send."""
        return not self.noarp and "NOARP" not in _BIRTH_FLAGS.get(self.kind, ())

    @property
    def lower(self) -> Peer | None:
        """The link this one sits on, perhaps in another namespace; None for what stands alone."""
        options = self.macvlan or self.ipvlan or self.vlan
        return None if options is None else options.lower

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags in the order `ip link` prints them."""
        out = list(_BIRTH_FLAGS.get(self.kind, ("BROADCAST", "MULTICAST")))
        if self.kind == "tun" and not self.mac:  # a tun carries packets, a tap frames
            out = ["POINTOPOINT", "MULTICAST", "NOARP"]
        if self.up and not self.carrier:
            out.insert(0, "NO-CARRIER")
        if self.noarp and "NOARP" not in out:
            out.append("NOARP")
        if self.allmulti:
            out.append("ALLMULTI")
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
        if self.kind in STATELESS:
            return "UNKNOWN" if self.running else "DOWN"
        return "UP" if self.running else "DOWN"

    def __str__(self) -> str:
        master = f", port of {self.master}" if self.master else ""
        state = "" if self.running else ", down" if not self.up else ", no carrier"
        return f"{self.name} ({self.kind}, mtu {self.mtu}{master}{state})"
