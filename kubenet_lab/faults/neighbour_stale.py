"""A node holds on to the MAC that a peer had once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.objects import Node
from kubenet_lab.packet.ip import ip_text, mac_from, prefix

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class NeighbourStale(Fault, frozen=True):
    """A node has a permanent neighbour entry with the MAC that its peer had before.

    The peer's card was replaced, or its VTEP was made anew while flanneld was away on this node; then the tunnel's FDB
    has the old MAC too.

    Symptom: calls to pods of that one peer time out, and so do their calls to pods of this node, whose answers go that
    way; pings between the two nodes work where the entry is the tunnel's.
    Where it lives: the neighbour table of the node, on the device its route to the peer's pods leaves by (flannel.1,
    vxlan.calico, else eth0). A permanent entry is never asked for again.
    Which tool shows it: `ip neigh show dev flannel.1` on the node against `ip link show flannel.1` on the peer.
    Cure: `ip neigh replace ADDRESS lladdr MAC dev flannel.1`, and for a tunnel `bridge fdb` likewise; or restart
    flanneld, which writes its entries anew.
    """

    NAME: ClassVar[str] = "neighbour-stale"
    TITLE: ClassVar[str] = "a node holds on to a peer's old MAC"

    node: str = "node-1"
    peer: str = "node-2"

    def inject(self, cluster: Cluster) -> Undo:
        """Put the old MAC in. Raises NotFound where the node has no neighbour on its way to the peer's pods."""
        space = cluster.node(self.node).ns
        cluster.node(self.peer)
        pods = [
            p for p in cluster.store.list("Pod") if p.spec.node_name == self.peer and not p.spec.host_network
        ]
        cidr = cluster.store.get(Node, self.peer).spec.pod_cidr
        inside = [ip for pod in pods for ip in pod.ips if ":" not in ip]
        if not inside and cidr:
            inside = [ip_text(prefix(cidr).net + 2, 4)]
        way = space.lookup(inside[0]) if inside else None
        if way is None or not way.via or not space.links[way.dev].asks:
            raise NotFound("next hop with a MAC", f"from {self.node} to the pods of {self.peer}")
        key = (way.dev, way.via)
        before = space.neighbours.get(key)
        old = mac_from(self.peer, way.dev, "before")
        entries = [
            entry
            for group in space.fdb.values()
            for entry in group
            if before is not None and (entry.dev, entry.mac) == (way.dev, before.mac) and entry.dst
        ]
        for entry in entries:
            space.delete_fdb(entry.dev, entry.mac, entry.dst)
            space.add_fdb(replace(entry, mac=old), append=True)
        space.neighbours[key] = (
            replace(before, mac=old, state="PERMANENT")
            if before is not None
            else Neighbour(way.dev, way.via, old, "PERMANENT", cluster.now)
        )

        def undo() -> None:
            for entry in entries:
                space.delete_fdb(entry.dev, old, entry.dst)
                space.add_fdb(entry, append=True)
            if before is None:
                space.neighbours.pop(key, None)
            else:
                space.neighbours[key] = before

        return undo
