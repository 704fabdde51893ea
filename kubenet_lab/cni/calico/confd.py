"""confd: from Calico's BGP objects to each node's BIRD configuration.

Every node is a peer of every other (node-to-node mesh) unless BGPConfiguration says no; BGPPeers add sessions by
node or for all. A node with a RouteReflectorClusterID reflects for those without it, and is no part of the mesh.
Source: `confd/pkg/backends/calico` and `confd/etc/calico/confd/templates` of
https://github.com/projectcalico/calico (v3.32).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.bgp.config import Config, FilterRule, Peer, Pool
from kubenet_lab.cni.calico.advertise import Ranges
from kubenet_lab.cni.calico.convert import Json
from kubenet_lab.cni.calico.ipam import IpPool
from kubenet_lab.cni.calico.selector import parse
from kubenet_lab.packet.ip import canonical, ip_int, prefix
from kubenet_lab.packet.ip import family as family_of

AS_NUMBER = 64512
"""Of every node where nothing else is said."""


class BgpNode(Struct, frozen=True, kw_only=True):
    """A node as confd sees it: its addresses with the length of their networks, its blocks and labels.

    `address6` is its IPv6 one, "" where it speaks no BGP over IPv6.
    """

    name: str
    address: str
    address6: str = ""
    blocks: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    asn: int = 0
    cluster_id: str = ""
    static: tuple[str, ...] = ()
    """Addresses of Services it announces (`advertise`)."""

    @property
    def ip(self) -> str:
        """The IPv4 address alone."""
        return self.at(4)

    @property
    def subnets(self) -> tuple[str, ...]:
        """The networks it is in, one a family."""
        return tuple(str(prefix(text)) for text in (self.address, self.address6) if text)

    def at(self, family: int) -> str:
        """Return the address of a family alone, "" where there is none."""
        return (self.address if family == 4 else self.address6).partition("/")[0]


class BgpObjects(Struct, frozen=True, kw_only=True):
    """BGPConfiguration default, the BGPPeers and BGPFilters, as manifests."""

    configuration: Json = {}
    peers: tuple[Json, ...] = ()
    filters: Mapping[str, Json] = {}

    @property
    def asn(self) -> int:
        """The AS number of nodes that have none of their own."""
        return int((self.configuration.get("spec") or {}).get("asNumber") or AS_NUMBER)

    @property
    def mesh(self) -> bool:
        """Whether every node is a peer of every other."""
        told = (self.configuration.get("spec") or {}).get("nodeToNodeMeshEnabled")
        return True if told is None else bool(told)


def bird_pools(pools: Sequence[IpPool]) -> tuple[Pool, ...]:
    """Return the pools as BIRD's filters use them."""
    return tuple(
        Pool(
            pool.cidr,
            export=not pool.no_bgp,
            tunnel="tunl0" if pool.ipip != "Never" and pool.family == 4 else "",
            cross_subnet=pool.ipip == "CrossSubnet",
            by_felix=pool.vxlan != "Never",
        )
        for pool in pools
    )


def bird_config(
    node: BgpNode, nodes: Sequence[BgpNode], pools: Sequence[IpPool], objects: BgpObjects
) -> Config:
    """Return one node's BIRD configuration."""
    asn = node.asn or objects.asn
    ranges = Ranges.of(objects.configuration)
    peers: dict[str, Peer] = {}
    if objects.mesh and not node.cluster_id:
        for other in nodes:
            if other.name == node.name or other.cluster_id:
                continue
            for peer in _node_peers("Mesh", node, other, objects):
                # Of two nodes the one with the smaller address waits, so that one connection is made.
                waits = ip_int(peer.source_address) < ip_int(peer.address)
                peers[peer.address] = replace(peer, passive=waits)
    for manifest in objects.peers:
        for peer in _peers_of(manifest, node, nodes, objects):
            peers.setdefault(peer.address, peer)
    return Config(
        node.ip,
        asn=asn,
        blocks=node.blocks,
        pools=bird_pools(pools),
        static=node.static,
        rejects=ranges.all,
        # A reflector passes on what others announce for load balancers; else only what it announces itself.
        reflected=ranges.balancer if node.cluster_id else (),
        peers=tuple(peers.values()),
        local_subnet=str(prefix(node.address)),
    )


def _name(kind: str, address: str) -> str:
    return f"{kind}_{address.replace('.', '_').replace(':', '_')}"


def _node_peers(kind: str, node: BgpNode, other: BgpNode, objects: BgpObjects) -> list[Peer]:
    """Return the sessions with another node: one for each family that both have."""
    client = bool(node.cluster_id) and node.cluster_id != other.cluster_id
    return [
        Peer(
            _name(kind, other.at(family)),
            other.at(family),
            other.asn or objects.asn,
            node.at(family),
            rr_client=client,
            cluster_id=node.cluster_id if client else "",
        )
        for family in (4, 6)
        if node.at(family) and other.at(family)
    ]


def _peers_of(manifest: Json, node: BgpNode, nodes: Sequence[BgpNode], objects: BgpObjects) -> list[Peer]:
    """Return the sessions a BGPPeer gives a node, in either direction where it is between nodes."""
    spec = manifest.get("spec") or {}
    mine = _selects(spec, node)
    if spec.get("peerIP"):
        if not mine:
            return []
        address = peer_address(spec["peerIP"])
        fam = family_of(address)
        kind = "Node" if spec.get("node") or spec.get("nodeSelector") else "Global"
        known = next((other for other in nodes if other.at(fam) == address), None)
        if known is not None:
            return [one for one in _node_peers(kind, node, known, objects) if one.address == address]
        if not node.at(fam):
            return []
        return [
            Peer(
                _name(kind, address),
                address,
                int(spec.get("asNumber") or objects.asn),
                node.at(fam),
                next_hop_keep=bool(spec.get("keepOriginalNextHop")),
                allow_own_as=int(spec.get("numAllowedLocalASNumbers") or 0),
                imports=_filter_rules(spec, objects, f"importV{fam}"),
                exports=_filter_rules(spec, objects, f"exportV{fam}"),
            )
        ]
    selector = parse(spec.get("peerSelector") or "")
    out = []
    for other in nodes:
        if other.name == node.name:
            continue
        there = selector.matches(other.labels)
        back = _selects(spec, other) and selector.matches(node.labels)
        if (mine and there) or back:
            out += _node_peers("Node", node, other, objects)
    return out


def peer_address(text: str) -> str:
    """Return the address of a peerIP: "192.0.2.1", "192.0.2.1:179", "2001:db8::1" or "[2001:db8::1]:179"."""
    if text.startswith("["):
        return canonical(text[1:].partition("]")[0])
    return canonical(text.rpartition(":")[0] if text.count(":") == 1 else text)


def _selects(spec: Json, node: BgpNode) -> bool:
    if spec.get("node"):
        return bool(spec["node"] == node.name)
    return parse(spec.get("nodeSelector") or "").matches(node.labels)


def _filter_rules(spec: Json, objects: BgpObjects, way: str) -> tuple[FilterRule, ...]:
    out = []
    for name in spec.get("filters") or ():
        for rule in (objects.filters.get(name) or {}).get("spec", {}).get(way) or ():
            out.append(
                FilterRule(
                    rule.get("cidr") or ("::/0" if way.endswith("6") else "0.0.0.0/0"),
                    rule["action"],
                    rule.get("matchOperator") or "In",
                )
            )
    return tuple(out)
