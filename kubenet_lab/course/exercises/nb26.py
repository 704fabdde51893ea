"""Exercises of 26_how_fast."""

from __future__ import annotations

from functools import cache
from typing import Any

from msgspec.structs import replace

from kubenet_lab import cost
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ACK, ICMP, PSH, SYN, TCP, Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.trace import Trace
from kubenet_lab.trip import Trip
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

POD = "default/frontend"
VISITOR = """
apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: other}
spec:
  containers: [{name: main, image: example.com/visitor:1}]
"""


def pings(network: Network, ns: str, address: str) -> dict[str, list[Trace]]:
    """Ping with all neighbours known: the packets of a connection's "first" ping and answer, and of a "later" one."""
    ping = Packet("", address, ICMP, icmp_type=8, icmp_seq=1, payload_size=56)
    for _ in range(2):
        first = exchange(Walk(network), ns, ping)
    later = exchange(Walk(network), ns, replace(first.request.packet, icmp_seq=2))
    return {"first": first.traces, "later": later.traces}


def talk(network: Network, ns: str, address: str, port: int, seed: int = 0) -> dict[str, Trace]:
    """Open a TCP connection with all neighbours known: its "first" packet, and a "later" one with data."""
    opening = Packet("", address, TCP, 0, port, flags=SYN, mss=1410)
    for _ in range(2):
        call = exchange(Walk(network, seed=seed), ns, opening)
    data = replace(call.request.packet, flags=ACK | PSH, mss=0, payload_size=100)
    return {"first": call.request, "later": exchange(Walk(network), ns, data).request}


@cache
def round_trip(cni: str, node: str) -> cost.Latency:
    """What the kernels need for a ping on a known connection from frontend to the backend on a node."""
    world = shop(cni=cni)
    return cost.latency(pings(world.network, POD, backend_on(world, node).ips[0])["later"])


# -- predict: across nodes ---------------------------------------------------------------------------------------------


def _tunnel() -> Outcome:
    near, far = round_trip("flannel", "node-1"), round_trip("flannel", "node-2")
    key = "us" if far.us < 100 else "tenths" if far.us < 1000 else "ms"
    return Outcome(
        key,
        f"About {far.us:.0f} µs for both directions together, packing and unpacking of the tunnel included; to the "
        f"neighbour on the same node it is {near.us:.0f} µs. This is the kernels' work at its best: caches are warm "
        f"and nobody has to be woken. A millisecond has room for {1000 / far.us:.0f} of these. If you measure one, it "
        "was spent elsewhere: in programs, in queues, or on a long cable.",
    )


TUNNEL = predict(
    "26-tunnel",
    "The kernels' part",
    "frontend pings a backend on another node, through Flannel's VXLAN. Count only what the kernels of the two nodes "
    "do for the question and the answer: routing, rules, packing into the tunnel and out of it. How long do they need?",
    {
        "us": "Some tens of microseconds",
        "tenths": "Some tenths of a millisecond",
        "ms": "1 to 5 milliseconds, as the document says",
    },
    _tunnel,
    {
        "tenths": "That is ten thousand instructions for each of the steps. A step is a table looked up and a field "
        "written: a few hundred.",
        "ms": "A processor carries out some millions of instructions in a millisecond. Count the steps of the ping: "
        "there are about a hundred.",
    },
    (
        "A round trip through a tunnel takes about a hundred steps in the kernels: rules, links, look-ups.",
        "The neighbour's bill, above, has the prices. What is added on the way to another node?",
        "Twice as many links, and an outer packet. Is that twice as much, or a hundred times?",
    ),
)

# -- predict: many Services --------------------------------------------------------------------------------------------


def recorded(proxy: str, packet: str) -> dict[int, float]:
    """What was measured on a node with so many Services: number -> us."""
    return {r.services: r.us for r in cost.run() if r.services and (r.proxy, r.packet) == (proxy, packet)}


def _services() -> Outcome:
    few, many = (pings(alone("iptables", n), "node-1", "127.0.0.1") for n in (10, 60))
    grows = [
        which
        for which in ("first", "later")
        if cost.counts(many[which]).get("rule", 0) > cost.counts(few[which]).get("rule", 0)
    ]
    first, later = recorded("iptables", "first"), recorded("iptables", "later")
    key = {("first", "later"): "each", ("first",): "first", (): "none"}.get(tuple(grows), "")
    return Outcome(
        key,
        f"Measured in a kernel, from 10 Services to 10,000: the first packet of a connection goes from "
        f"{first[10]:.0f} to {first[10_000]:.0f} µs, every later one stays at {later[10_000]:.0f} µs. Rules of the nat "
        "table are only read for connections that conntrack does not know; for all others it knows the outcome.",
    )


SERVICES = predict(
    "26-services",
    "Ten thousand Services",
    "A cluster with kube-proxy in iptables mode grows from 10 Services to 10,000. A program opens a connection and "
    "sends a thousand requests over it. What becomes slower?",
    {
        "none": "Nothing that could be measured",
        "first": "The packet that opens the connection",
        "each": "Every packet: each of them has to find its Service",
    },
    _services,
    {
        "none": "KUBE-SERVICES has a rule for each Service, and rules are read one by one. Somebody has to read them.",
        "each": "Notebook 13: who remembers what the rules have chosen, so that nobody needs to read them again?",
    },
    (
        "Which packets does the nat table see? Notebook 13.",
        "A rule compared in vain costs about a hundredth of a microsecond. Ten thousand of them do show.",
        "conntrack keeps the choice for as long as the connection lasts.",
    ),
)

# -- do: the name ------------------------------------------------------------------------------------------------------

LONG = "http://backend.default.svc.cluster.local"


@cache
def two_namespaces() -> Cluster:
    """Return the shop, and a pod in a namespace of its own. Shared: for calls, not for changes."""
    world = shop()
    world.apply(VISITOR)
    return world


def asked(url: str) -> dict[str, Trip]:
    """Call a URL from a pod in `default` and from one in `other`."""
    world = two_namespaces()
    return {source: world.connect(source, url) for source in (POD, "other/visitor")}


def _judge_name(answer: Any) -> Finding:
    for source, trip in asked(str(answer).strip()).items():
        if not trip.delivered:
            return Finding(False, f"From {source} it does not work: {trip.verdict} ({trip.why}).", trip)
        if not (trip.server or "").startswith("default/backend-"):
            return Finding(False, f"From {source} it reaches {trip.server}, and that is no backend.", trip)
        if not trip.queries:
            return Finding(
                False, "That is an address. It asks nothing, but who tells everybody when it changes?", trip
            )
        if len(trip.queries) > 2:
            first = trip.queries[0].name
            return Finding(
                False,
                f"From {source} it works, and asks {len(trip.queries)} questions. The first is for `{first}`.",
                trip,
            )
    return Finding(
        True,
        "From everywhere it takes two questions, one for an IPv4 address and one for an IPv6 address. The name says of "
        "itself that it is complete, so nothing is tried behind it.",
    )


NAME = Exercise(
    id="26-name",
    kind=DO,
    title="Two questions are enough",
    task="This URL stands in the configuration of many programs. It works from every namespace, and each look-up asks "
    "eight questions. Change it so that it still works from pods of every namespace, and two questions are enough.",
    judge=_judge_name,
    hints=(
        "The table above shows which names are asked for, and in which order.",
        "A name with fewer than five dots is first tried with everything in the resolver's search list behind it.",
        "There is a way to write a name that says: this is all of it. It is one character.",
    ),
    template=LONG,
)

# -- predict: distance -------------------------------------------------------------------------------------------------

KM, QUERIES = 1000, 10


def _far() -> Outcome:
    world = shop(cni="flannel-host-gw")
    way = pings(world.network, POD, backend_on(world, "node-2").ips[0])["later"]
    one = cost.latency(way, wire=cost.Wire(km=KM))
    total = one.us * QUERIES / 1000
    key = min(("1", "10", "100"), key=lambda ms: abs(float(ms) - total))
    return Outcome(
        key,
        f"{total:.0f} ms. Light in glass needs {one.wire_us / 2000:.1f} ms for {KM:,} km, so a query and its answer "
        f"take {one.us / 1000:.1f} ms, and there are {QUERIES} one after the other. All that the kernels do is "
        f"{(one.us - one.wire_us) / one.us:.1%} of it. No network makes light faster; what helps is to ask less often.",
    )


FAR = predict(
    "26-far",
    "A database far away",
    f"A database is moved to a region {KM:,} km away. A page makes {QUERIES} queries, each after the answer to the one "
    "before, on a connection that is already open. How much time does the distance cost at least?",
    {"1": "About 1 ms", "10": "About 10 ms", "100": "About 100 ms"},
    _far,
    {
        "1": "Light runs about 200 km in a millisecond in glass. The region is farther than that.",
        "10": "That is one query and its answer. The next query has to wait for this answer.",
    },
    (
        "Light in glass: about 4.9 µs for each kilometre.",
        "A query and its answer cross the distance twice.",
        "Ten queries that wait for each other wait ten times.",
    ),
)

# -- recall (06): without the tunnel -----------------------------------------------------------------------------------


def saved() -> dict[str, int]:
    """Steps of a ping through VXLAN that the same ping by host-gw does not have."""
    with_, without = (
        {share.kind: share.count for share in round_trip(cni, "node-2").shares}
        for cni in ("flannel", "flannel-host-gw")
    )
    return {
        kind: count - without.get(kind, 0) for kind, count in with_.items() if count > without.get(kind, 0)
    }


def _recall() -> Outcome:
    gone = saved()
    key = (
        "only" if set(gone) == {"tunnel"} else "nat" if "nat" in gone else "more" if "tunnel" in gone else ""
    )
    told = ", ".join(f"{count} × {cost.KINDS[kind]}" for kind, count in gone.items())
    us = round_trip("flannel", "node-2").us - round_trip("flannel-host-gw", "node-2").us
    return Outcome(
        key,
        f"Gone are {told}: {us:.0f} µs a round trip. The outer packet is a packet of its own, so the node routes it, "
        "tracks it and asks the rules about it, as it does for any other.",
    )


RECALL = predict(
    "26-recall",
    "Once more, from notebook 06: without the tunnel",
    "Flannel's backend is changed from `vxlan` to `host-gw`. What disappears from the bill of a ping to another node?",
    {
        "only": "Only the packing and unpacking",
        "more": "The packing and unpacking, and a second walk through the node's stack",
        "nat": "The translation of addresses",
    },
    _recall,
    {
        "only": "Follow the outer packet in notebook 06. Who sends it, and which tables are asked about it?",
        "nat": "No address of this ping is translated, with or without a tunnel: pods see each other as they are.",
    },
    (
        "In notebook 06 the outer packet had addresses of its own.",
        "Somebody has to route a packet that has addresses of its own.",
        "Count the steps of node-1 in both cases: routing decisions, conntrack, rules.",
    ),
)

EXERCISES = (TUNNEL, SERVICES, NAME, FAR, RECALL)
