"""What one BIRD is configured with, as a value; `birdconf` prints it as the file.

The defaults are those of BIRD and of the template Calico's confd fills in
(https://github.com/projectcalico/calico, `confd/etc/calico/confd/templates/bird.cfg.template`).
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.errors import InputError
from kubenet_lab.packet.ip import prefix

NORMAL_METRIC = 1024
"""Metric of Felix's routes to pods; smaller ones belong to pods in live migration and go to everybody."""


class Pool(Struct, frozen=True):
    """An IP pool as BIRD sees it: whether to announce its routes, and how to reach other nodes.

    `tunnel` is the link that routes to other nodes use ("tunl0"), "" for none. `cross_subnet` keeps the tunnel for
    next hops outside the own subnet. `by_felix` leaves the routes to Felix (VXLAN).
    """

    cidr: str
    export: bool = True
    tunnel: str = ""
    cross_subnet: bool = False
    by_felix: bool = False


class FilterRule(Struct, frozen=True):
    """One rule of a BGPFilter: a prefix match and its action ("Accept" or "Reject").

    `operator` is Equal, NotEqual, In or NotIn, as in the BGPFilter object.
    """

    cidr: str
    action: str
    operator: str = "In"

    def matches(self, dst: str) -> bool:
        """True when the rule decides this prefix."""
        ours, block = prefix(self.cidr), prefix(dst)
        if ours.family != block.family:
            return False
        if self.operator in ("Equal", "NotEqual"):
            return (ours.text == block.text) == (self.operator == "Equal")
        inside = block.length >= ours.length and block.net & ours.mask == ours.net
        return inside == (self.operator == "In")


class Peer(Struct, frozen=True):
    """One `protocol bgp`: the neighbour, and how to treat it.

    Attributes:
        name: The protocol's name ("Mesh_192_168_1_20").
        source_address: Own end of the session; the router id by default.
        passive: Wait for the neighbour to connect (Calico: the smaller address of a mesh pair waits).
        rr_client, cluster_id: The neighbour is a client of ours as route reflector.
        next_hop_self: Put the own address into everything sent on.
        next_hop_keep: Leave the next hop as it is, even to another AS.
        imports, exports: Rules of BGPFilters, tried in order before Calico's own filter.
        allow_own_as: How often the own AS number may be in a received path.
    """

    name: str
    address: str
    asn: int
    source_address: str = ""
    passive: bool = False
    rr_client: bool = False
    cluster_id: str = ""
    next_hop_self: bool = False
    next_hop_keep: bool = False
    imports: tuple[FilterRule, ...] = ()
    exports: tuple[FilterRule, ...] = ()
    allow_own_as: int = 0
    graceful: bool = True
    add_paths: bool = True

    @property
    def family(self) -> int:
        """4 or 6: which routes the session carries."""
        return 6 if ":" in self.address else 4


class Config(Struct, frozen=True):
    """A whole bird.conf. Times in seconds.

    Attributes:
        blocks: Prefixes of this node, made as blackholes (`protocol static`) and announced whole.
        pools: What may be announced, and the tunnel of each.
        static: Further prefixes to announce (addresses of Services); like `blocks`, blackholes in the table.
        rejects: Prefixes whose routes never go into this kernel, own ones and learned ones.
        reflected: Prefixes that a route reflector passes on beside those of pools.
        filters: "calico" (confd's filters) or "static" (announce the own blocks, program static and BGP routes).
        version: 1 (Calico's fork of BIRD 1.6) or 2 (upstream): kernel metrics and texts differ.
        local_subnet: The node's subnet, for CrossSubnet.
    """

    router_id: str
    asn: int = 64512
    blocks: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()
    static: tuple[str, ...] = ()
    rejects: tuple[str, ...] = ()
    reflected: tuple[str, ...] = ()
    peers: tuple[Peer, ...] = ()
    filters: str = "calico"
    version: int = 1
    hold_time: int = 240
    graceful_restart: bool = True
    restart_time: int = 120
    connect_delay: float = 2.0
    connect_retry: float = 5.0
    error_wait: tuple[float, float] = (5.0, 30.0)
    scan_time: float = 2.0
    local_subnet: str = ""

    def __post_init__(self) -> None:
        if self.filters not in ("calico", "static"):
            raise InputError(f"bird: filters {self.filters!r} are not modelled; use calico or static")
        if self.hold_time != 0 and self.hold_time < 3:
            raise InputError(f"bird: Hold time must be in range 3-65535 or zero, not {self.hold_time}")
        for block in (*self.blocks, *self.static, *self.rejects, *(pool.cidr for pool in self.pools)):
            try:
                prefix(block)
            except ValueError:
                raise InputError(f"bird: {block!r} is no prefix; write 10.244.10.0/26") from None

    @property
    def kernel_metric(self) -> int:
        """Metric of routes that no filter gives one: none in BIRD 1.6, 32 in BIRD 2 unless a filter decides."""
        return 0 if self.version == 1 or self.filters == "calico" else 32

    def source_of(self, peer: Peer) -> str:
        """Own address of a session."""
        return peer.source_address or self.router_id
