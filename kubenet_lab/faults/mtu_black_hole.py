"""The wire between the nodes takes less than their cards believe."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from kubenet_lab.errors import InputError, NotFound
from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

SMALLEST = 68
"""Bytes that every IPv4 link takes (RFC 791)."""


class MtuBlackHole(Fault, frozen=True):
    """The wire of a node's eth0 takes smaller packets than the cards on it say, and loses bigger ones in silence.

    Symptom: small calls between nodes work, connections open, and answers that fill a packet never come: `curl` hangs
    after its request. Calls within a node work. Nobody gets an ICMP error, as no router is in the way to send one.
    Where it lives: the MTU of the switch or of the provider's network, below that of eth0 (with a tunnel, below what
    its packets come to with their outer headers).
    Which tool shows it: `ping -M do -s SIZE POD` answers up to a size and not beyond, while `ip link show eth0` still
    says 1500; `tcpdump -i eth0` shows the big packets on the sender and not on the receiver.
    Cure: lower the MTU of the nodes' cards and of the pod network (Flannel and Calico take it from eth0 when they
    start), or raise the wire's.
    """

    NAME: ClassVar[str] = "mtu-black-hole"
    TITLE: ClassVar[str] = "the wire between the nodes takes smaller packets than their cards believe"

    node: str = "node-1"
    mtu: int = 1400

    def inject(self, cluster: Cluster) -> Undo:
        """Set the wire's MTU. Raises NotFound where the node has no wire, InputError for an MTU no IP link has."""
        if self.mtu < SMALLEST:
            raise InputError(
                f"mtu: {self.mtu} is less than the {SMALLEST} bytes that every IP link takes (RFC 791)"
            )
        network, link = cluster.network, cluster.node(self.node).ns.links.get("eth0")
        if link is None or link.wire not in network.wires:
            raise NotFound("wire", f"eth0 of {self.node}", known=list(network.wires))
        name, before = link.wire, network.wires[link.wire].mtu
        network.wires[name] = replace(network.wires[name], mtu=self.mtu)

        def undo() -> None:
            network.wires[name] = replace(network.wires[name], mtu=before)

        return undo
