"""What the cells of 02_four_rules call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb02 import OUTSIDE, broken
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import ip_addr
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip

__all__ = ["across", "broken", "everybody", "shop", "step", "three_layers", "who_am_i", "whose"]

NODES = ("node-1", "node-2", "node-3")


class Reach(Struct, frozen=True):
    """Who reaches whom, and as whom: caller -> target -> the trip."""

    trips: dict[str, dict[str, Trip]]
    names: dict[str, str]

    def __repr__(self) -> str:
        lines = ["who reaches whom, and which caller the target sees"]
        for caller, row in self.trips.items():
            for target, trip in row.items():
                lines.append(f"  {caller:22} -> {target:22} {self._cell(trip)}")
        return "\n".join(lines)

    def _cell(self, trip: Trip) -> str:
        return f"✓ seen as {trip.source_seen}" if trip.delivered else f"✗ {trip.verdict}"

    def _repr_html_(self) -> str:
        targets = next(iter(self.trips.values()))
        rows = ((caller, *map(self._cell, row.values())) for caller, row in self.trips.items())
        return Table(("caller ↓ target →", *targets), tuple(rows))._repr_html_()


def everybody(world: Cluster | None = None) -> Reach:
    """Let pods, nodes and a host outside call pods and nodes, and see who arrives as whom."""
    made = world or shop()
    callers = {"frontend (node-1)": "frontend", "backend (node-2)": backend_on(made, "node-2").name}
    callers |= {"node-1 itself": "node/node-1", "node-2 itself": "node/node-2", "outside": OUTSIDE}
    targets = {f"backend on {node}": f"tcp://{backend_on(made, node).ips[0]}:8080" for node in NODES}
    targets |= {"node-1 (kubelet)": "tcp://192.168.1.10:10250"}
    trips = {
        who: {what: made.connect(source, target) for what, target in targets.items()}
        for who, source in callers.items()
    }
    return Reach(trips, made.names())


def across(world: Cluster) -> Trip:
    """Return a call from frontend to the backend on node-2, by its own address."""
    return world.connect("frontend", f"tcp://{backend_on(world, 'node-2').ips[0]}:8080")


def whose(world: Cluster) -> Texts:
    """Return what the pod itself says its address is."""
    text = ip_addr.show(world.network.ns("default/frontend"))
    lines = [line.strip() for line in text.splitlines() if "inet " in line and "127.0.0.1" not in line]
    listed = world.pod("frontend").ips[0]
    return Texts(
        {
            "frontend: ip addr": "\n".join(lines),
            "kubectl get pod frontend -o jsonpath={.status.podIP}": listed,
            "a backend pod that frontend calls sees": str(across(world).source_seen),
        }
    )


def who_am_i() -> Table:
    """Let frontend (and a backend) call on six ways and return as whom each is seen."""
    world = shop()
    near, far = backend_on(world, "node-1"), backend_on(world, "node-2")
    own = near.ips[0]

    def hairpin() -> Trip:
        from kubenet_lab.course.steer import toward

        return world.connect(near.name, "http://10.96.0.100", choose=toward(world, own))

    ways: dict[str, Callable[[], Any]] = {
        "a pod on its node": lambda: world.connect("frontend", f"tcp://{own}:8080"),
        "a pod on another node": lambda: world.connect("frontend", f"tcp://{far.ips[0]}:8080"),
        "a Service": lambda: world.connect("frontend", "http://10.96.0.100"),
        "its own node": lambda: world.connect("frontend", "tcp://192.168.1.10:10250"),
        "another node": lambda: world.connect("frontend", "tcp://192.168.1.20:10250"),
        "a server outside": lambda: world.connect("frontend", f"tcp://{OUTSIDE}:80"),
        "(a backend) its own Service, and meets itself": hairpin,
    }
    names = world.names()
    rows = []
    for way, call in ways.items():
        trip = call()
        rows.append((way, trip.source_seen, names.get(trip.source_seen, "").replace("default/", "")))
    return Table(("frontend calls...", "is seen as", "which is"), tuple(rows))


def three_layers() -> Texts:
    """Return the headers of the first packet on the wire, or where it arrives, for three ways to a pod."""
    world = shop()
    far = backend_on(world, "node-2").ips[0]
    parts = {}
    for title, target in (
        ("to a pod's address", f"tcp://{far}:8080"),
        ("to a Service's address", "http://10.96.0.100"),
    ):
        trip = world.connect("frontend", target)
        sent = trip.exchange.request.hops[0].packet if trip.exchange is not None else None
        there = trip.exchange.request.delivered_as if trip.exchange is not None else None
        wire = [hop.packet for _t, hop in trip.hops if hop.encapsulated][:1]
        lines = [
            f"leaves frontend as  {sent}",
            *(f"on the wire         {p}" for p in wire),
            f"arrives as          {there}",
        ]
        parts[title] = "\n".join(lines)
    return Texts(parts)
