"""The filters of a Calico node's BIRD: what it tells its peers, what it takes, what goes into the kernel.

They are those that confd's templates write (`bird_aggr`, `bird_ipam` and `bird.cfg.template` of
https://github.com/projectcalico/calico); `birdconf` prints the same ones as text.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.bgp.config import NORMAL_METRIC, Config, FilterRule, Peer
from kubenet_lab.bgp.message import Attributes
from kubenet_lab.bgp.path import HIGH_PREFERENCE, Path
from kubenet_lab.packet.ip import Prefix, prefix

MOST_PREF = 2147483647
"""local_pref carries the kernel metric to the peers: it is this less the metric."""


def inside(block: Prefix, outer: Prefix) -> bool:
    """True when `block` is `outer` or part of it (BIRD's `net ~ outer`)."""
    return (
        outer.family == block.family and block.length >= outer.length and block.net & outer.mask == outer.net
    )


def decide(rules: tuple[FilterRule, ...], dst: str) -> bool | None:
    """Return what the rules of BGPFilters say of a prefix: True, False, or None when no rule fits."""
    for rule in rules:
        if rule.matches(dst):
            return rule.action == "Accept"
    return None


class Filters:
    """The filters of one configuration, with its prefixes read once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.blocks: dict[tuple[int, int, int], set[int]] = {}
        """(family, length, mask) -> network numbers of the own blocks."""
        for block in map(prefix, config.blocks):
            self.blocks.setdefault((block.family, block.length, block.mask), set()).add(block.net)
        self.pools = tuple((prefix(pool.cidr), pool) for pool in config.pools)
        self.passed = tuple(map(prefix, (*config.static, *config.reflected)))
        self.rejects = tuple(map(prefix, config.rejects))

    def preference(self, attributes: Attributes, peer: Peer) -> int:
        """Return the preference a received path gets (import filter): higher for pods in live migration."""
        pref = attributes.local_pref
        if self.config.filters == "calico" and pref is not None and pref > MOST_PREF - NORMAL_METRIC:
            return HIGH_PREFERENCE
        return 0

    def exports(self, path: Path, dst: str, peer: Peer) -> bool:
        """Say whether a path may be told to a peer (calico_export_to_bgp_peers)."""
        ruled = decide(peer.exports, dst) if peer.exports else None
        if ruled is not None:
            return ruled
        if self.config.filters == "static":
            return path.source == "static"
        net = prefix(dst)
        for (family, length, mask), nets in self.blocks.items():
            if family == net.family and net.length >= length and net.net & mask in nets:
                # The block goes out whole; single addresses in it only while they migrate.
                return net.length == length or self.metric_out(path) < NORMAL_METRIC
        return any(pool.export and inside(net, block) for block, pool in self.pools) or any(
            inside(net, block) for block in self.passed
        )

    def metric_out(self, path: Path) -> int:
        """Return the krt_metric the export filter works with."""
        attributes = path.attributes
        if attributes is not None and attributes.local_pref is not None:
            return MOST_PREF - attributes.local_pref
        return NORMAL_METRIC if path.metric is None else path.metric

    def local_pref(self, path: Path) -> int:
        """Return the local preference a path is sent with inside the AS."""
        if self.config.filters == "static":
            held = path.attributes.local_pref if path.attributes is not None else None
            return 100 if held is None else held
        return MOST_PREF - self.metric_out(path)

    def kernel_metric(self, path: Path) -> int:
        """Return the metric a path gets in the kernel (calico_kernel_programming)."""
        if self.config.filters == "calico" and path.source == "bgp":
            attributes = path.attributes
            assert attributes is not None
            return NORMAL_METRIC if attributes.local_pref is None else MOST_PREF - attributes.local_pref
        return self.config.kernel_metric

    def rejected(self, dst: str) -> bool:
        """Say whether a prefix stays out of the kernel: addresses of Services, which kube-proxy has."""
        return bool(self.rejects) and any(inside(prefix(dst), block) for block in self.rejects)

    def tunnel(self, path: Path, dst: str) -> str | None:
        """Return the link a BGP route uses in the kernel: a tunnel, "" for the plain way, None for no route at all.

        Routes of VXLAN pools are Felix's. CrossSubnet takes the tunnel for next hops outside the own subnet.
        """
        if path.source != "bgp":
            return ""
        net = prefix(dst)
        for block, pool in self.pools:
            if not inside(net, block):
                continue
            if pool.by_felix:
                return None
            if pool.cross_subnet and self.config.local_subnet:
                assert path.attributes is not None
                near = prefix(self.config.local_subnet)
                if path.attributes.next_hop in near:
                    return ""
            return pool.tunnel
        return ""


def sent(path: Path, peer: Peer, config: Config, filters: Filters) -> Attributes | None:
    """Return the attributes a path is sent to a peer with, or None where BGP itself forbids it.

    Inside an AS a path learned there goes on only through a route reflector, which leaves the next hop (RFC 4456);
    another AS sees our number in the path and our address as next hop (RFC 4271 section 5.1).
    """
    own = config.source_of(peer)
    internal = peer.asn == config.asn
    given = path.attributes or Attributes(own)
    if not internal:
        keep = peer.next_hop_keep and path.source == "bgp"
        return replace(
            given,
            as_path=(config.asn, *given.as_path),
            next_hop=given.next_hop if keep else own,
            local_pref=None,
            med=None,
            originator_id="",
            cluster_list=(),
        )
    out = replace(given, local_pref=filters.local_pref(path))
    if path.source != "bgp":
        return out
    if peer.next_hop_self:
        out = replace(out, next_hop=own)
    if path.session.external:
        return out
    source: Peer = path.session.peer
    if not (peer.rr_client or source.rr_client):
        return None
    cluster = (peer if peer.rr_client else source).cluster_id or config.router_id
    return replace(
        out,
        originator_id=out.originator_id or path.session.neighbour_id,
        cluster_list=(cluster, *out.cluster_list),
    )


def refused(attributes: Attributes, peer: Peer, config: Config) -> str:
    """Say why a received path is not taken: loops of RFC 4271 section 9.1.2 and RFC 4456 section 8; "" when it is."""
    if attributes.as_path.count(config.asn) > peer.allow_own_as:
        return f"own AS {config.asn} is in the path"
    if attributes.originator_id == config.router_id:
        return "own router id is the originator"
    clusters = {other.cluster_id or config.router_id for other in config.peers if other.rr_client}
    if clusters.intersection(attributes.cluster_list):
        return "own cluster id is in the cluster list"
    return ""
