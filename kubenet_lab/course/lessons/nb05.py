"""What the cells of 05_across_nodes call beside `lesson`: who writes the way to another node's pods, and how."""

from __future__ import annotations

from kubenet_lab.cluster import Cluster
from kubenet_lab.cni.static_network import StaticNetwork
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.table import Table
from kubenet_lab.scenarios import shop

__all__ = ["by_hand", "six_hands"]

NODE, FAR = "node-1", "node-2"


def by_hand() -> Cluster:
    """Return the shop on bare bridges, with the routes between the nodes written by an administrator."""
    world = shop(cni="bridge")
    assert isinstance(world.pod_network, StaticNetwork)
    world.pod_network.write_routes()
    return world


def six_hands() -> Table:
    """Return node-1's row for the backend pod on node-2 under six networks, and whether frontend's call arrives."""
    worlds = {
        "bridges, and nobody": shop(cni="bridge"),
        "bridges, by hand": by_hand(),
        "Flannel, host-gw": shop(cni="flannel-host-gw"),
        "Flannel, VXLAN": shop(cni="flannel"),
        "Calico, BGP": shop(cni="calico"),
        "Cilium, tunnel": shop(cni="cilium"),
    }
    rows = []
    for name, world in worlds.items():
        far = backend_on(world, FAR).ips[0]
        way = world.network.ns(NODE).lookup(far)
        trip = world.connect("frontend", f"tcp://{far}:8080")
        wrapped = "wrapped" if any(hop.encapsulated for _, hop in trip.hops) else "plain"
        rows.append(
            (name, str(way.route) if way else "none", wrapped if trip.delivered else "-", trip.verdict)
        )
    return Table(
        ("network, and who writes", "node-1's row for a pod on node-2", "on the wire", "the call"),
        tuple(rows),
    )
