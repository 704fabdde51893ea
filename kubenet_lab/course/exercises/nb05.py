"""Exercises of 05_across_nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import across, backend_on
from kubenet_lab.course.judges import (
    Outcome,
    Probe,
    pod_probes,
    predict,
    same_symptoms,
    still_failing,
    with_fault,
)
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.views.words import short

# -- predict: the pod's own table ------------------------------------------------------------------------------------


def _pod_table() -> Outcome:
    world = shop()
    pod, far = world.network.ns("default/frontend"), backend_on(world, "node-2").ips[0]
    way = pod.lookup(far)
    gateways = {
        a.local for ns in world.network.netns.values() if ns.host == "node-1" for a in ns.addrs("cni0", 4)
    }
    key = "gateway" if way is not None and way.via in gateways else "row"
    via = way.via if way is not None else "nobody"
    return Outcome(
        key,
        f"`ip route get {far}` in frontend answers: via {via}, the bridge's address on its own node. The pod's "
        f"whole table:\n`{ip_route.show(pod).strip()}`\nIt names no other node. The node's table does the knowing.",
    )


POD_TABLE = predict(
    "05-pod-table",
    "What does a pod know?",
    "`frontend` (node-1) wants to reach the `backend` pod on node-2. What does frontend's own route table say "
    "about the way?",
    {
        "row": "It has a row for node-2's pods, with node-2's address",
        "gateway": "Nothing about node-2: everything beyond its own node's pods goes to a gateway",
        "pod": "It has a row for that one pod",
        "plugin": "It has no table; the CNI plugin is asked each time",
    },
    _pod_table,
    {
        "row": "That row exists, but in node-1's table. The pod has a table of its own, in its own network "
        "namespace.",
        "pod": "Pods come and go; nobody tells every pod about every other.",
        "plugin": "A CNI plugin is a program that runs when a pod starts or stops, and then ends. No packet ever "
        "waits for it.",
    },
    (
        "A pod is its own small machine with its own table. How many doors does that machine have?",
        "It has one: eth0. Whoever has one door needs few signposts.",
        "Look in the pod itself: run `ip route` there and read the line that fits 10.244.1.x.",
    ),
)


# -- predict: the outer letter ---------------------------------------------------------------------------------------


def _outer() -> Outcome:
    world = shop()
    trip = across(world)
    names = world.names()
    for capture in trip.captures():
        body = capture.frame.body
        if (
            capture.netns == "node-1"
            and capture.link == "eth0"
            and isinstance(body, Packet)
            and body.inner is not None
        ):
            inner = body.inner.body if isinstance(body.inner, Frame) else body.inner
            assert isinstance(inner, Packet)
            label = names.get(body.dst, "")
            kind = "node" if label.startswith("node") and "flannel" not in label else label.partition(" ")[0]
            told = (
                f"On node-1's eth0 the outer header says {body.src} to {body.dst}: {short(names[body.src])} to "
                f"{short(label)}. Inside, untouched: {inner.src} to {inner.dst}. The network between the nodes only "
                "ever sees nodes talk to nodes."
            )
            return Outcome(kind, told, trip)
    return Outcome("none", "No encapsulated frame left node-1.", trip)


OUTER = predict(
    "05-outer",
    "The outer envelope",
    "`frontend`'s packet leaves node-1 for the backend on node-2, a letter in a letter. Which destination address "
    "is written on the outer envelope?",
    {
        "pod": "The backend pod's address, 10.244.1.x",
        "Service": "The Service's address, 10.96.0.100",
        "node": "node-2's own address, 192.168.1.20",
        "tunnel": "The address of node-2's tunnel device, 10.244.1.0",
    },
    _outer,
    {
        "pod": "That one is on the inner envelope. The router between the nodes has never heard of 10.244.1.x.",
        "Service": "It was gone before: node-1's rules had already rewritten it to a pod's address.",
        "tunnel": "That address is the next hop in node-1's route, and only finds the tunnel's MAC. It is on no IP "
        "header.",
    },
    (
        "Who must be able to deliver the outer letter? Not a pod: the ordinary network between the nodes.",
        "Which addresses does that network know?",
        "Look for the line “dst” in `bridge fdb show dev flannel.1` on node-1.",
    ),
)


# -- do: the route tables --------------------------------------------------------------------------------------------


def no_ways() -> Cluster:
    """Return the shop before any agent has told the nodes about each other.

    No node has a route to another's pods, nor the neighbour and forwarding entries of the tunnel.
    """
    world = shop()
    nodes = [node.name for node in world.store.list("Node")]
    for name in nodes:
        space = world.network.ns(name)
        for route in [r for r in space.route_list() if r.dev == "flannel.1"]:
            space.delete_route(route.dst, dev=route.dev)
        for device, address in [key for key in space.neighbours if key[0] == "flannel.1"]:
            space.delete_neighbour(device, address)
        for entry in [e for entries in space.fdb.values() for e in entries if e.dev == "flannel.1" and e.dst]:
            space.delete_fdb(entry.dev, entry.mac, entry.dst)
    return world


def _callers(cluster: Cluster) -> Sequence[Probe]:
    sources = ["frontend", *(backend_on(cluster, node).name for node in ("node-2", "node-3"))]
    return pod_probes(cluster, sources)


def _judge_routes(answer: Any) -> Finding:
    if isinstance(answer, Cluster):
        world = answer
    else:
        world = no_ways()
        commands.apply(world.network, answer)
    probes = _callers(world)
    failing = still_failing(world, probes)
    if failing:
        return Finding(
            False,
            f"{len(probes) - len(failing)} of {len(probes)} calls between pods work. The first that does not: "
            f"{failing[0]}.",
            world.connect(
                *next((p.source, p.target) for p in probes if failing[0].startswith(p.label + ":"))
            ),
        )
    trip = across(world)
    kind = "with" if any(hop.encapsulated for _, hop in trip.hops) else "without"
    return Finding(
        True,
        f"All {len(probes)} calls between pods on three nodes work, {kind} a tunnel. You did what an agent does.",
        trip,
    )


ROUTES = Exercise(
    id="05-routes",
    kind=DO,
    title="Fill in the route tables",
    task="Three nodes, and none knows the way to the others' pods: no agent has run. All three stand on the same "
    "wire (192.168.1.0/24), so a node can hand a packet to another node directly.\n\nnode-1 is 192.168.1.10 and "
    "has the pods of 10.244.0.0/24; node-2 is 192.168.1.20 with 10.244.1.0/24; node-3 is 192.168.1.30 with "
    "10.244.2.0/24.\n\nWrite the routes, so that every pod reaches every other, there and back.",
    judge=_judge_routes,
    template="on node-1\nip route add 10.244.1.0/24 via ...\n\non node-2\n\n\non node-3\n",
    hints=(
        "A route says: packets for these addresses go next to that machine. Each node needs one for each other "
        "node's pods.",
        "The next hop must be a machine on the node's own wire: its 192.168.1.x address, not a pod's.",
        "Two routes a node, six in all. If a call still times out, look whether the answer finds its way back.",
    ),
    world=no_ways,
)


# -- find: the tunnel ------------------------------------------------------------------------------------------------

CAUSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fdb-1-3": ("fdb-entry-missing", {"node": "node-1", "peer": "node-3"}),
    "fdb-3-1": ("fdb-entry-missing", {"node": "node-3", "peer": "node-1"}),
    "fdb-2-3": ("fdb-entry-missing", {"node": "node-2", "peer": "node-3"}),
    "not-listening": ("pod-not-listening", {"pod": "database"}),
}


def _broken() -> Cluster:
    return with_fault(shop, "fdb-entry-missing", node="node-3", peer="node-1")


_explains = same_symptoms(shop, _broken, _callers, CAUSES)


def _judge_find(answer: Any) -> Finding:
    against = _explains(answer["choice"])
    if against:
        return Finding(False, against)
    world = _broken()
    commands.apply(world.network, answer["text"])
    failing = still_failing(world, _callers(world))
    if failing:
        return Finding(
            False, f"The cause is found, and the remedy does not help yet. Still failing: {failing[0]}."
        )
    return Finding(
        True,
        "Found and mended. The request always arrived; it was the answer that node-3 could not send. A timeout at "
        "the caller does not tell which of the two ways is broken.",
        world.connect("frontend", f"tcp://{world.pod('database').ips[0]}:5432"),
    )


FIND_IT = Exercise(
    id="05-find",
    kind=FIND,
    title="There, but not back?",
    task='`ward = exercise("05-find").world()` is a shop in which calls between node-1 and node-3 time out. Find out '
    "in which node the packets vanish, name the cause, and write the commands that mend it.",
    judge=_judge_find,
    hints=(
        "A call is two packets: there and back. Which of them is lost? `%cluster ward` turns your tools to this shop.",
        "Compare `bridge fdb show dev flannel.1` on the three nodes: each should have one line for each other node.",
        "The missing line needs a MAC and a node's address. The MAC of a tunnel device is in the other nodes' `ip "
        "neigh` and FDB tables, and in `ip link show flannel.1` on the node it belongs to.",
    ),
    choices=(
        Choice("fdb-1-3", "node-1 does not know where node-3's tunnel ends"),
        Choice("fdb-3-1", "node-3 does not know where node-1's tunnel ends"),
        Choice("fdb-2-3", "node-2 does not know where node-3's tunnel ends"),
        Choice("not-listening", "the pods on node-3 do not listen"),
    ),
    template="on node-\n# the command that puts back what is missing\n",
    world=_broken,
)


# -- again: notebook 00 in a new light -------------------------------------------------------------------------------


def _lookups() -> Outcome:
    world = with_fault(shop, "fdb-entry-missing", node="node-1", peer="node-2")
    calls = 40
    slow = sum(
        any(q.seconds > 0 for q in world.connect("frontend", "http://database:5432").queries)
        for _ in range(calls)
    )
    key = "none" if slow == 0 else "all" if slow == calls else "some"
    return Outcome(
        key,
        f"{slow} of {calls} lookups had to wait. One of the two name servers lives on node-2, and chance picks one "
        "of the two for each question. A broken way between two nodes looks like “DNS is flaky”.",
    )


RECALL = predict(
    "05-recall",
    "Once more: one entry less",
    "As in notebook 00, node-1 has no forwarding entry for node-2. This time `frontend` calls "
    "`http://database:5432`, a pod on node-3. There are two CoreDNS pods, one on node-1 and one on node-2. How "
    "many of frontend's name lookups have to wait?",
    {"none": "None: the database is on node-3", "some": "Some of them", "all": "All of them"},
    _lookups,
    {
        "none": "The call to node-3 is fine. But before it there is a question to a name server, and where does "
        "that one live?",
        "all": "One of the two name servers is reached without leaving node-1.",
    },
    (
        "Before a packet for the database there is one for the name server.",
        "The name servers stand behind a Service too: 10.96.0.10 is one of two pods, drawn by chance.",
        "How likely is it that chance picks the one on node-2 at least once?",
    ),
)

EXERCISES = (POD_TABLE, ROUTES, OUTER, FIND_IT, RECALL)
__all__ = ["EXERCISES", "no_ways"]
