"""What the cells of 07_calico call."""

from __future__ import annotations

from typing import Any

from kubenet_lab.bgp.birdc import show_protocols
from kubenet_lab.bgp.config import Config, Peer
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb07 import (
    API,
    blocks,
    call,
    cluster_of,
    cross_subnet,
    crowded,
    daemons,
    learned,
    reflected,
    sessions,
    two_networks,
    walled,
)
from kubenet_lab.course.exercises.nb09 import outer
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.objects.node import Node
from kubenet_lab.scenarios import shop
from kubenet_lab.widgets.bgp_sessions import BgpSessions

__all__ = [
    "blocks_of", "calico", "call", "crowded", "look", "meshes", "racks", "seconds", "step", "tables", "talks", "wires",
]  # fmt: skip
ROUTER, ROUTER_AS = "192.168.1.1", 65001
TO_ROUTER = (
    f"{API}kind: BGPPeer\nmetadata: {{name: rack}}\nspec: {{peerIP: {ROUTER}, asNumber: {ROUTER_AS}}}\n"
)


def calico() -> Cluster:
    """Return the shop with Calico and no encapsulation."""
    return shop(cni="calico")


def _bird(world: Cluster, node: str) -> str:
    head, *rest = show_protocols(daemons(world).bird(node)).splitlines()[1:]
    return "\n".join([head, *(line for line in rest if " BGP " in line)])


def tables(world: Cluster, node: str = "node-1") -> Texts:
    """Return a node's sessions, and the routes that came by them."""
    routes = ip_route.show(world.network.ns(node)).splitlines()
    pod = ip_route.show(world.network.ns("default/frontend"))
    return Texts(
        {
            f"{node}: birdc show protocols (with whom does it speak?)": _bird(world, node),
            f"{node}: ip route (what came of it?)": "\n".join(routes),
            "frontend: ip route": pod,
        }
    )


def talks(world: Cluster) -> BgpSessions:
    """Return the map of who speaks with whom, to break and to mend, with frontend's call to node-2's backend."""
    return BgpSessions(world, {"frontend calls node-2's backend": lambda: call(world)})


def racks() -> BgpSessions:
    """Return the same for four nodes with a reflector, whose rack's router, of another AS, hears their blocks too."""
    world = reflected(4)
    world.apply(TO_ROUTER)
    nodes = [node.internal_ips[0] for node in world.store.list(Node)]
    daemons(world).add_router(
        "router",
        Config(
            ROUTER,
            asn=ROUTER_AS,
            filters="static",
            version=2,
            peers=tuple(Peer(f"node_{n}", address, 64512) for n, address in enumerate(nodes, 1)),
        ),
    )
    world.advance(30)
    return BgpSessions(world, {"frontend calls node-2's backend": lambda: call(world)})


def look(world: Cluster) -> Texts:
    """Return what one would look at first: every node's sessions and labels, and the BGPPeers."""
    parts = {}
    for node in world.store.list(Node):
        labels = ", ".join(f"{key}={value}" for key, value in sorted(node.metadata.labels.items()))
        routes = ", ".join(learned(world, node.name)) or "none"
        parts[f"{node.name}: birdc show protocols"] = (
            f"{_bird(world, node.name)}\nroutes learned: {routes}\nlabels: {labels}"
        )
    for peer in daemons(world).bgp_objects().peers:
        spec = "\n".join(f"  {key}: {value}" for key, value in peer["spec"].items())
        parts[f"kubectl get bgppeer {peer['metadata']['name']} -o yaml"] = f"spec:\n{spec}"
    return Texts(parts)


def _outer(world: Cluster, node: str) -> str:
    trip = call(world, node)
    return (
        f"{trip.verdict}, outer headers: {outer(trip) or 'none'}"
        if trip.delivered
        else f"{trip.verdict}: {trip.why}"
    )


def wires() -> Table:
    """Return what is around the packet to a neighbour and to a node in another network, for four settings."""
    rows = []
    worlds: tuple[tuple[str, Cluster], ...] = (
        ("no encapsulation", two_networks("calico")),
        ("ipipMode: Always (calico.yaml)", two_networks("calico-ipip")),
        ("ipipMode: CrossSubnet", cross_subnet()),
        ("vxlanMode: Always", two_networks("calico-vxlan")),
    )
    for title, world in worlds:
        mtu = world.network.ns("default/frontend").link("eth0").mtu
        rows.append((title, _outer(world, "node-2"), _outer(world, "node-3"), str(mtu)))
    heads = ("the pool says", "to node-2, a neighbour", "to node-3, behind the router", "pods' MTU")
    return Table(heads, tuple(rows))


def seconds(*moments: int) -> Table:
    """Return what stands and what frontend sees, so many seconds after node-2's firewall began to drop BGP."""
    world, rows = walled(), []
    for moment in moments:
        world.advance(moment - world.now)
        rows.append((f"{moment} s", str(sessions(world)), str(len(learned(world))), call(world).verdict))
    heads = (
        "after",
        "sessions in the cluster",
        "blocks that node-1 has learned",
        "frontend calls node-2's backend",
    )
    return Table(heads, tuple(rows))


def meshes(*nodes: int) -> Table:
    """Return how many sessions clusters of several sizes have, in a full mesh and with two reflectors."""
    rows = []
    for n in nodes:
        full, two = cluster_of(n), reflected(n, 2)
        routes = (len(learned(full, f"node-{n}")), len(learned(two, f"node-{n}")))
        rows.append((str(n), str(sessions(full)), str(sessions(two)), f"{routes[0]} and {routes[1]}"))
    heads = (
        "nodes",
        "sessions, full mesh",
        "sessions, two reflectors",
        "blocks the last node learns in each",
    )
    return Table(heads, tuple(rows))


def blocks_of(world: Cluster) -> Any:
    """Return whose block is whose, with the pods in it."""
    held: dict[str, list[str]] = {}
    for block in daemons(world).ipam.all_blocks():
        names = [f"{one['pod']} on {one['node']}" for one in block["allocations"].values() if "pod" in one]
        held[block["cidr"]] = names
    rows = tuple((cidr, node, ", ".join(held[cidr])) for node, cidr in blocks(world))
    return Table(("block", "belongs to", "pods with an address of it"), rows)
