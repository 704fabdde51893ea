"""A node forgot behind which machine another node's VTEP lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.objects import Node

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class FdbEntryMissing(Fault, frozen=True):
    """The FDB of a node's VXLAN device lacks the entry of one peer.

    Symptom: calls to pods of that one peer time out; everything else works, and pings between the nodes work too.
    Where it lives: the forwarding database of flannel.1 on the sending node.
    Which tool shows it: `bridge fdb show dev flannel.1`; `tcpdump -i eth0 udp port 8472` stays empty.
    Cure: `bridge fdb append MAC dev flannel.1 dst NODE`, or restart flanneld, which writes its entries anew.
    """

    NAME: ClassVar[str] = "fdb-entry-missing"
    TITLE: ClassVar[str] = "a node does not know where another node's tunnel ends"

    node: str = "node-1"
    peer: str = "node-2"
    device: str = "flannel.1"

    def inject(self, cluster: Cluster) -> Undo:
        """Delete the peer's entry."""
        space = cluster.node(self.node).ns
        cluster.node(self.peer)
        address = cluster.store.get(Node, self.peer).internal_ips[0]
        entries = [
            e for group in space.fdb.values() for e in group if e.dev == self.device and e.dst == address
        ]
        if not entries:
            raise NotFound("FDB entry", f"dev {self.device} dst {address}", known=[self.device])
        for entry in entries:
            space.delete_fdb(entry.dev, entry.mac, entry.dst)

        def undo() -> None:
            for entry in entries:
                space.add_fdb(entry, append=True)

        return undo
