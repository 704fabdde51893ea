"""No BGP session of a node gets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.cni.plugin import chain_lines
from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.packet.ip import family

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

RULES = ("-p tcp -m tcp --dport 179 -j DROP", "-p tcp -m tcp --sport 179 -j DROP")


class BgpSessionLost(Fault, frozen=True):
    """A firewall on a node drops TCP port 179, so that its BGP sessions starve.

    Symptom: nothing for a while (hold time, then graceful restart); then pods on that node and all others lose each
    other, while everything within one node goes on.
    Where it lives: two rules in the node's raw table of each family; after that, routes `proto bird` that are missing
    on all nodes.
    Which tool shows it: `calicoctl node status` and `birdc show protocols` (no longer Established), `ip route`.
    Cure: open port 179 between nodes.
    """

    NAME: ClassVar[str] = "bgp-session-lost"
    TITLE: ClassVar[str] = "a firewall drops a node's BGP"

    node: str = "node-1"
    peer: str = ""
    """Address of the one neighbour whose packets are dropped; those of all when empty."""

    def inject(self, cluster: Cluster) -> Undo:
        """Insert the rules. Raises NotFound where the node speaks no BGP."""
        from kubenet_lab.cni.calico.network import Calico

        space = cluster.node(self.node).ns
        network = cluster.pod_network
        if not isinstance(network, Calico) or self.node not in network.fabric.daemons:
            raise NotFound("BGP speaker", self.node)

        def write(verb: str) -> None:
            source = f"-s {self.peer} " if self.peer else ""
            for fam in (family(self.peer),) if self.peer else (4, 6):
                there = chain_lines(space, fam, "raw", "PREROUTING")
                # Somebody may have taken them away before the fault is.
                mine = [rule for rule in RULES if verb == "-I" or any(rule in line for line in there)]
                text = "".join(f"{verb} PREROUTING {source}{rule}\n" for rule in mine)
                changed = iptables.restore(space.iptables[fam], f"*raw\n{text}COMMIT\n", noflush=True)
                space.set_iptables(fam, changed)
            cluster.settle()

        write("-I")
        return lambda: write("-D")
