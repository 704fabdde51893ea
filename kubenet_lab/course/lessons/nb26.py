"""What the cells of 26_how_fast call."""

from __future__ import annotations

from html import escape
from typing import Any

from msgspec import Struct

from kubenet_lab import cost
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb26 import POD, pings, recorded, round_trip, talk, two_namespaces
from kubenet_lab.course.table import Table
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import cost as compared
from kubenet_lab.trace import Trace
from kubenet_lab.views.cost_bars import cost_picture

__all__ = [
    "bill",
    "cables",
    "distances",
    "lookups",
    "measured",
    "names",
    "planes",
    "prices",
    "programs",
    "race",
    "service",
    "services",
]

CONNECTION = (("first", "a connection's first packet"), ("later", "every later one"))


def _numbers(title: str, heads: tuple[str, ...], rows: tuple[tuple[str, ...], ...], note: str = "") -> Table:
    return Table(heads, rows, title, note, numbers=True)


WAYS = {
    "same node": ("a pod on the same node", "flannel", "node-1"),
    "routes": ("another node, by routes", "flannel-host-gw", "node-2"),
    "VXLAN": ("another node, through VXLAN", "flannel", "node-2"),
}


def bill(*ways: str) -> Any:
    """Return where the microseconds of a ping on a known connection go, for some of frontend's ways (keys of WAYS)."""
    found = {WAYS[way][0]: round_trip(*WAYS[way][1:]) for way in ways}
    return cost_picture("A ping from frontend and its answer: what the kernels do with the time", found)


def prices() -> Table:
    """Return what each kind of step costs, and where the numbers come from."""
    known = cost.recorded()
    rows = tuple((what, known.shown(kind)) for kind, what in cost.KINDS.items())
    about = "".join(f" About: {why}." for why in known.estimated.values())
    return _numbers(
        "What one step costs",
        ("step", "µs"),
        rows,
        f"Fitted to: {known.source}. Half of the ways are explained within {known.usual:.0%}, the worst is off by "
        f"{known.worst:.0%}.{about}",
    )


def measured() -> Table:
    """Return the recorded round trips beside what the prices make of the model's steps."""
    price = cost.recorded().us
    worlds = (("flannel", "VXLAN"), ("flannel-host-gw", "routes"))
    rows = []
    for way in ("pod to itself", "pod to pod, same node", "pod to pod, other node"):
        for network, by in worlds if way.endswith("other node") else worlds[:1]:
            found = {
                r.packet: r
                for r in cost.run()
                if (r.network, r.proxy, r.way) == (network, "iptables", way) and not r.services
            }
            made = {
                which: sum(price[kind] * count for kind, count in row.steps.items())
                for which, row in found.items()
            }
            rows.append((
                f"{way} ({by})" if way.endswith("other node") else way,
                *(f"{found[which].us:.1f} / {made[which]:.1f}" for which, _words in CONNECTION),
            ))  # fmt: skip
    return _numbers(
        "Measured in a kernel / made of the prices, in µs, there and back",
        ("way", *(words for _which, words in CONNECTION)),
        tuple(rows),
    )


class Race(Struct, frozen=True):
    """Ways in the order of their times, fastest first. `us` has the times."""

    where: str
    us: dict[str, float]
    priced: dict[str, float]

    def __repr__(self) -> str:
        order = sorted(self.us, key=lambda way: self.us[way])
        wanted = sorted(self.priced, key=lambda way: self.priced[way])
        same = "the same order as" if order == wanted else "another order than"
        return f"{self.where}, fastest first: {'; '.join(order)}. That is {same} the prices say."

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def race() -> Race:
    """Time three ways in this machine's kernel; where it has no twin, take the recorded run."""
    from kubenet_lab.cost import probe
    from kubenet_lab.twin import unavailable

    world = shop()
    to = {
        "to itself": ("pod to itself", world.pod("frontend").ips[0]),
        "to a neighbour": ("pod to pod, same node", backend_on(world, "node-1").ips[0]),
        "to another node": ("pod to pod, other node", backend_on(world, "node-2").ips[0]),
    }
    priced = {
        way: cost.latency(pings(world.network, POD, address)["later"]).us
        for way, (_title, address) in to.items()
    }
    if unavailable():
        rows = {
            r.way: r.us
            for r in cost.run()
            if (r.network, r.proxy, r.packet) == ("flannel", "iptables", "later")
        }
        return Race("In the recorded run", {way: rows[title] for way, (title, _to) in to.items()}, priced)
    with world.twin() as twin:
        took = {way: round(probe.best(twin, POD, address, tries=3), 1) for way, (_t, address) in to.items()}
    return Race("In this machine's kernel", took, priced)


def programs() -> Table:
    """Return what programs in pods waited in the recorded run, beside the kernels' own part."""
    by = {"flannel": "VXLAN", "flannel-host-gw": "routes"}
    rows = [
        (
            call.way if call.way == "same node" else f"{call.way} ({by[call.network]})",
            f"{call.request_us:.0f}",
            f"{call.connect_us:.0f}",
        )
        for call in cost.calls()
        if (call.network, call.way) != ("flannel-host-gw", "same node")
    ]
    return _numbers(
        "What a program waited for a program in another pod, medians in µs",
        ("way", "a request on an open connection", "connect()"),
        tuple(rows),
        "Both programs sleep until the kernel wakes them. No cable and no network card is in it.",
    )


def service() -> Any:
    """Return the bill of one packet to the Service, and of one to a pod directly: a connection's first, and a later."""
    world = shop()
    near = backend_on(world, "node-2")
    ways = {}
    for name, address, port in (("the pod", near.ips[0], 8080), ("the Service", "10.96.0.100", 80)):
        world.network.ns("node-1").conntrack.flush()
        found = talk(world.network, POD, address, port)
        for which, words in (("first", "first packet"), ("later", "later packet")):
            ways[f"to {name}, {words}"] = cost.latency([found[which]])
    return cost_picture("One packet from frontend to a pod on node-2, with and without a Service", ways)


def services(*numbers: int) -> Table:
    """Return what was measured on a node with so many Services, and what the prices say of more."""
    price = cost.recorded().us["rule"]
    rows = []
    base = compared("iptables", 1)
    for number in numbers:
        cells = []
        for proxy in ("iptables", "nftables"):
            for which in ("first", "later"):
                known = recorded(proxy, which)
                if number in known:
                    cells.append(f"{known[number]:.0f}")
                else:
                    grows = (proxy, which) == ("iptables", "first")
                    more = (number - min(known)) * price if grows else 0.0
                    cells.append(f"({known[min(known)] + more:.0f})")
        rows.append((f"{number:,}", f"{base + number - 1:,}", *cells))
    return _numbers(
        "A node with so many Services pings itself, in µs",
        ("Services", "rules read (iptables)", "iptables: first", "later", "nftables: first", "later"),
        tuple(rows),
        "In brackets: not measured, but made of the prices. One more Service is one more rule for iptables; for "
        "nftables it is one more entry in a map, and a look-up in it costs the same.",
    )


PLANES = {
    "iptables": ("flannel", "iptables"),
    "nftables": ("flannel", "nftables"),
    "IPVS": ("flannel", "ipvs"),
    "BPF at the socket": ("flannel", "ebpf"),
    "Cilium, all in BPF": ("cilium", "ebpf"),
}


def planes() -> Table:
    """Return what a packet to another node costs under five data planes: to a pod, and to a Service in front of it."""
    rows = []
    for name, (cni, proxy) in PLANES.items():
        world = shop(cni=cni, proxy=proxy)
        pod = backend_on(world, "node-2").ips[0]
        cells = []
        for which in ("first", "later"):
            for address, port in ((pod, 8080), ("10.96.0.100", 80)):
                way = cost.latency([_to_node_2(world, address, port)[which]])
                cells.append(f"{'about ' if way.estimated else ''}{way.us:.1f}")
        rows.append((name, *cells))
    return _numbers(
        "One packet from frontend to a pod on node-2, in µs",
        (
            "Services are made by",
            "first packet: to the pod",
            "to the Service",
            "later: to the pod",
            "to the Service",
        ),
        tuple(rows),
        "With few Services. BPF programs are priced at least: what they count and write down is not in it.",
    )


def _to_node_2(world: Cluster, address: str, port: int) -> dict[str, Trace]:
    """Call until chance takes the pod on node-2: only ways of the same length can be compared."""
    for seed in range(64):
        found = talk(world.network, POD, address, port, seed)
        if found["first"].hops[-1].host == "node-2":
            return found
        world.network.ns("node-1").conntrack.flush()
    raise LookupError(f"{address}:{port} never took node-2")


def names(*urls: str) -> Table:
    """Return what the look-ups of some URLs take, from a pod in `default`."""
    rows = []
    for url in urls:
        # The same CoreDNS pod for all, so that they can be compared.
        trip = two_namespaces().connect(POD, url, choose=lambda _rule, _chance: True)
        packets = [trace for query in trip.queries for trace in query.traces if trace.role != "arp"]
        us = cost.latency(packets).us
        rows.append((url.removeprefix("http://"), str(len(trip.queries)), str(len(packets)), f"{us:.0f}"))
    return _numbers(
        "What a look-up takes, from frontend",
        ("name", "questions", "packets", "µs in the kernels"),
        tuple(rows),
        "What CoreDNS needs to think is not in it, nor what programs wait to be woken.",
    )


def lookups(calls: int = 20) -> Table:
    """Count the questions of a row of calls: as usual, and by a program that keeps its connection."""
    world = shop()
    made = [world.connect("frontend", "http://backend") for _ in range(calls)]
    first = [len(trip.queries) for trip in made]
    return _numbers(
        f"Questions that {calls} requests ask CoreDNS",
        ("the program", "questions"),
        (
            ("looks the name up for each request", str(sum(first))),
            ("keeps one connection open for all", str(first[0])),
        ),
        f"The second look-up asks as much as the first ({first[0]} and {first[1]}): between the pod and CoreDNS nobody "
        "keeps an answer.",
    )


PLACES = (
    ("the same rack", 0.02),
    ("the same data centre", 0.5),
    ("another zone of the region", 30.0),
    ("another region", 1000.0),
    ("across the Atlantic", 6000.0),
)


def distances() -> Table:
    """Return the least time of a ping over some distances: what the kernels do, and what light needs."""
    world = shop(cni="flannel-host-gw")
    way = pings(world.network, POD, backend_on(world, "node-2").ips[0])["later"]
    rows = []
    for place, km in PLACES:
        found = cost.latency(way, wire=cost.Wire(km=km))
        rows.append(
            (place, f"{km:,g}", f"{found.us - found.wire_us:.0f}", f"{found.wire_us:,.1f}", _time(found.us))
        )
    return _numbers(
        "A ping to a pod on a node this far away, at least",
        ("where", "km", "kernels, µs", "light there and back, µs", "together"),
        tuple(rows),
    )


def _time(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.0f} µs"


def cables(*mbit_s: int) -> Table:
    """Return what one TCP stream reaches with cards of several speeds, and what limits it."""
    world = shop()
    rows = []
    for node, words in (
        ("node-1", "to a pod on the same node"),
        ("node-2", "to a pod on another node (VXLAN)"),
    ):
        data = talk(world.network, POD, backend_on(world, node).ips[0], 8080)["later"]
        found = [cost.throughput(data, mtu=1450, wire=cost.Wire(mbit_s=speed)) for speed in mbit_s]
        rows.append((words, *(f"{one.mbit_s / 1000:.1f} (the {one.limit})" for one in found)))
    return _numbers(
        "One TCP stream, Gbit/s (and what limits it)",
        ("cards of", *(f"{speed / 1000:g} Gbit/s" for speed in mbit_s)),
        tuple(rows),
        "Derived: a byte costs what it cost in streams within a node, in segments of 64 KiB. Measured, without cards: "
        f"{stream('same node'):.1f} on the same node, {stream('other node', 'flannel'):.1f} to another one through "
        f"VXLAN, {stream('other node', 'flannel-host-gw'):.1f} by routes.",
    )


def stream(way: str, network: str = "") -> float:
    """Return what a stream in large segments reached in the recorded run, Gbit/s: under one network, or on average."""
    found = [
        s.mbit_s for s in cost.streams() if s.way == way and s.large_segments and network in ("", s.network)
    ]
    return sum(found) / len(found) / 1000
