"""What the cells of 04_same_node call."""

from __future__ import annotations

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb04 import (
    NODE,
    by_service,
    set_bridge_nf,
    set_hairpin,
    to_itself,
    to_neighbour,
)
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import bridge_fdb, ip_neigh
from kubenet_lab.packet.packet import Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.views.words import short

__all__ = [
    "by_service",
    "shop",
    "step",
    "switches",
    "tables",
    "three_networks",
    "to_itself",
    "to_neighbour",
    "unseen",
    "without_hairpin",
]


def tables(world: Cluster) -> Texts:
    """Return who knows what after the call: frontend's neighbours, and the bridge's forwarding table."""
    pod, node = world.network.ns("default/frontend"), world.network.ns(NODE)
    learned = [
        line for line in bridge_fdb.show(node).splitlines() if "master" in line and "permanent" not in line
    ]
    where = {
        link.peer.link: short(f"pod {ns.name}")
        for ns in world.network.netns.values()
        for link in ns.links.values()
        if link.peer is not None and link.peer.netns == NODE
    }
    told = [f"{line.rstrip()}    # {where.get(line.split()[2], '')}" for line in learned]
    return Texts(
        {
            "frontend: ip neigh": ip_neigh.show(pod),
            "node-1: bridge fdb show br cni0 (what it learned)": "\n".join(told),
        }
    )


def unseen() -> Cluster:
    """Return the shop where node-1's bridge hands packets on without showing them to iptables."""
    world = shop()
    set_bridge_nf(world, False)
    return world


def without_hairpin() -> Cluster:
    """Return the shop where the backend's port at node-1's bridge is not in hairpin mode."""
    world = shop()
    set_hairpin(world, False)
    return world


def switches() -> Table:
    """Return which calls work with the two settings on and off."""
    rows = []
    for bridge_nf in (True, False):
        for hairpin in (True, False):
            world = shop()
            set_bridge_nf(world, bridge_nf)
            set_hairpin(world, hairpin)
            rows.append(
                (
                    "1" if bridge_nf else "0",
                    "on" if hairpin else "off",
                    to_neighbour(world).verdict,
                    by_service(world, "frontend", NODE).verdict,
                    by_service(world, "frontend", "node-2").verdict,
                    to_itself(world).verdict,
                )
            )
    head = (
        "bridge-nf-call-iptables",
        "hairpin",
        "to the neighbour's address",
        "Service, draws the neighbour",
        "Service, draws node-2",
        "Service, draws itself",
    )
    return Table(head, tuple(rows))


def _owner(world: Cluster, mac: str) -> str:
    for ns in world.network.netns.values():
        for link in ns.links.values():
            if link.mac == mac and ns.host == NODE:
                return f"{link.name} of {short(f'pod {ns.name}') if ns.name != NODE else NODE}"
    return mac


def _decided(trip: Trip) -> str:
    kinds = {found.kind for _trace, hop, found in trip.steps() if hop.netns == NODE}
    words = {"fdb": "the bridge's FDB", "route": "node-1's route table", "bpf": "an eBPF program"}
    return next((words[kind] for kind in ("bpf", "fdb", "route") if kind in kinds), "?")


def three_networks() -> Table:
    """Return how a packet gets from frontend to its neighbour under three pod networks."""
    rows = []
    for cni in ("flannel", "calico", "cilium"):
        world = shop(cni=cni)
        trip = to_neighbour(world)
        target = f"default/{backend_on(world, NODE).name}"
        frames = [
            (c.netns, c.direction, c.frame) for c in trip.captures() if isinstance(c.frame.body, Packet)
        ]
        sent = next(frame for where, way, frame in frames if where == "default/frontend" and way == "out")
        got = next(frame for where, way, frame in frames if where == target and way == "in")
        body = got.body
        assert isinstance(body, Packet)
        # Every cali interface has the same MAC: which one a frame meets, the cable decides.
        to = "its cali interface" if sent.dst == "ee:ee:ee:ee:ee:ee" else _owner(world, sent.dst)
        by = "its cali interface" if got.src == "ee:ee:ee:ee:ee:ee" else _owner(world, got.src)
        rows.append((cni, to, _decided(trip), by, str(body.ttl)))
    head = (
        "network",
        "frontend writes to the MAC of",
        "on node-1 decides",
        "it arrives from the MAC of",
        "TTL on arrival",
    )
    return Table(head, tuple(rows))
