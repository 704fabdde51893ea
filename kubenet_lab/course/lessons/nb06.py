"""What the cells of 06_flannel call."""

from __future__ import annotations

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb06 import far, narrow, ping
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import bridge_fdb, ip_link, ip_neigh, ip_route
from kubenet_lab.packet.packet import Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip

__all__ = ["call", "goodput", "letters", "narrow", "shop", "sizes", "step", "tables", "wires"]

VXLAN = 50
"""Bytes of the outer headers over IPv4: Ethernet 14, IP 20, UDP 8, VXLAN 8."""
TCP_IP = 40


def call(world: Cluster) -> Trip:
    """Return frontend's call to the backend on node-2, by its own address."""
    return world.connect("frontend", f"tcp://{far(world)}:8080")


def tables(node: str = "node-1", peer: str = "10.244.1.0") -> Texts:
    """Return the three entries that flanneld wrote on a node for one other node."""
    space = shop().network.ns(node)

    def lines(text: str, word: str) -> str:
        return "\n".join(line for line in text.splitlines() if word in line)

    mac = next(line.split()[-2] for line in ip_neigh.show(space).splitlines() if line.startswith(f"{peer} "))
    return Texts(
        {
            f"{node}: ip route (who has the pods 10.244.1.0/24?)": lines(ip_route.show(space), f"{peer}/24"),
            f"{node}: ip neigh (what is that next hop's MAC?)": lines(ip_neigh.show(space), f"{peer} "),
            f"{node}: bridge fdb (behind which node is that MAC?)": lines(bridge_fdb.show(space), mac),
            f"{node}: ip -d link show flannel.1": ip_link.show(
                space, links=[space.link("flannel.1")], details_=True
            ),
        }
    )


def wires() -> Texts:
    """Return what is on the wire between the nodes, for two backends of Flannel."""
    parts = {}
    for title, cni in (("vxlan", "flannel"), ("host-gw", "flannel-host-gw")):
        world = shop(cni=cni)
        trip = call(world)
        hops = [hop for _trace, hop in trip.hops if hop.netns == "node-2"]
        mtu = world.network.ns("default/frontend").link("eth0").mtu
        parts[f"{title}: the first packet as node-2's eth0 gets it"] = (
            f"{hops[0].packet}\npods' MTU: {mtu} bytes"
        )
    return Texts(parts)


def sizes(world: Cluster, *bytes_: int) -> Table:
    """Ping the backend on node-2 with several sizes, fragmentation forbidden."""
    rows = []
    for size in bytes_:
        trip = ping(world, size, df=True)
        rows.append((str(size), trip.verdict, "" if trip.delivered else f"{trip.why}, at {trip.place.netns}"))
    return Table(("ping -M do -s", "frontend sees", "why"), tuple(rows))


def goodput(*mtus: int) -> Table:
    """Return how much of a full TCP packet on the wire is data, with and without the outer letter."""
    rows = ((str(mtu), f"{(mtu - TCP_IP) / mtu:.1%}", f"{(mtu - VXLAN - TCP_IP) / mtu:.1%}") for mtu in mtus)
    return Table(("MTU of the wire", "without a tunnel", "in VXLAN"), tuple(rows), numbers=True)


def letters(world: Cluster) -> Texts:
    """Return the headers of one packet, from the outside in, as node-2's card gets it."""
    trip = call(world)
    outer = next(
        hop.packet for _trace, hop in trip.hops if hop.netns == "node-2" and hop.packet.inner is not None
    )
    frame = outer.inner
    assert frame is not None
    inner = frame.body
    assert isinstance(inner, Packet)
    rows = [
        f"outer IP        {outer.src} > {outer.dst} (nodes)",
        f"outer UDP       {outer.sport} > {outer.dport} (the tunnel's port)",
        f"VXLAN           network {outer.vni}",
        f"inner Ethernet  {frame.src} > {frame.dst}",
        f"inner IP        {inner.src} > {inner.dst} (pods)",
        f"inner TCP       {inner.sport} > {inner.dport} (programs)",
    ]
    return Texts({"a letter in a letter, as node-2's eth0 gets it": "\n".join(rows)})
