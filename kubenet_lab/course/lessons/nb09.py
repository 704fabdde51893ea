"""What the cells of 09_choose_a_network call."""

from __future__ import annotations

from collections.abc import Iterable

from kubenet_lab.course.exercises.nb06 import largest
from kubenet_lab.course.exercises.nb09 import (
    NETWORKS,
    call,
    outer,
    policy,
    rack,
    requests,
    rooms,
)
from kubenet_lab.course.table import Table
from kubenet_lab.trip import Trip
from kubenet_lab.views.planes import Cell, Planes, PlanesRow

__all__ = ["light", "one_flow", "side_by_side"]

FOUR = ("flannel", "calico-ipip", "calico", "cilium")
FIBRE = 200_000
"""Kilometres that light goes in a second in glass, two thirds of its speed in nothing."""


def _planes(title: str, keys: Iterable[str], rows: dict[str, list[Cell]]) -> Planes:
    names = tuple(NETWORKS[key].title for key in keys)
    return Planes(title, names, tuple(PlanesRow(q, tuple(cells)) for q, cells in rows.items()), (), width=820)


def _around(trip: Trip) -> Cell:
    return Cell("", outer(trip) or "nothing") if trip.delivered else Cell("", trip.verdict)


def _bytes(trip: Trip) -> Cell:
    """The first packet's length between the nodes, and what of it is not the pod's."""
    assert trip.exchange is not None
    sent = trip.exchange.request.packet
    most = max(hop.packet.length for hop in trip.exchange.request.hops)
    return Cell(f"the pod sent {sent.length}", f"{most} bytes")


def one_flow() -> Planes:
    """Make one call from node-1 to node-2 in four networks, and compare."""
    rows: dict[str, list[Cell]] = {}
    for key in FOUR:
        world = rack(key)
        trip = call(world, "node-2")
        assert trip.exchange is not None
        programs = sum(step.kind == "bpf" for hop in trip.exchange.request.hops for step in hop.steps)
        eth0 = world.network.ns("default/frontend").link("eth0").mtu
        seen = {
            "It ends": Cell("", trip.verdict),
            "Around the packet between the nodes": _around(trip),
            "The first IP packet between them has": _bytes(trip),
            "Entries compared": Cell("", str(trip.exchange.request.rules_tried)),
            "BPF programs' steps": Cell("", str(programs)),
            "MTU of the pod's eth0": Cell("its route says 1450" if key == "cilium" else "", str(eth0)),
        }
        for question, cell in seen.items():
            rows.setdefault(question, []).append(cell)
    return _planes("frontend on node-1 calls a backend on node-2", FOUR, rows)


def side_by_side(*keys: str) -> Table:
    """Ask the same questions of networks, all of them by default."""
    rows = []
    for key in keys or tuple(NETWORKS):
        far, near = rooms(key), rack(key)
        size, lacks = largest(near), policy(near, key)
        reads = key.startswith("cilium") and not requests(rack(key), key)
        rows.append(
            (
                NETWORKS[key].title,
                str(_around(call(far, "node-2"))),
                str(_around(call(far, "node-3"))),
                f"{size} bytes",
                "stored only" if lacks else "enforced",
                "read" if reads else "not read",
            )
        )
    heads = ("network", "around a packet to a neighbour", "to a node behind a router")
    return Table((*heads, "largest ping", "NetworkPolicy", "requests"), tuple(rows))


def light(*kilometres: int) -> Table:
    """Return how long a packet and its answer take at least over so many kilometres of glass."""
    rows = [(f"{km:,} km", f"{2 * km / FIBRE * 1000:.3g} ms") for km in kilometres]
    return Table(("distance", "there and back, at least"), tuple(rows))
