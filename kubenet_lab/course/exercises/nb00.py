"""Exercises of 00_start_here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, Probe, predict, same_symptoms, with_fault
from kubenet_lab.course.sheet import FIND, Choice, Exercise, Finding
from kubenet_lab.course.steer import toward
from kubenet_lab.scenarios import shop


def backend_on(cluster: Cluster, node: str) -> Any:
    """Return the backend pod of a node."""
    return next(
        pod
        for pod in cluster.store.list("Pod", "default")
        if pod.spec.node_name == node and pod.metadata.labels.get("app") == "backend"
    )


def name_server_on(cluster: Cluster, node: str) -> str:
    """Return the address of a node's CoreDNS pod, "" when it has none."""
    pods = [p for p in cluster.store.list("Pod", "kube-system") if p.spec.node_name == node]
    return next((p.ips[0] for p in pods if p.metadata.labels.get("k8s-app") == "kube-dns"), "")


def across(cluster: Cluster, node: str = "node-2") -> Any:
    """Call the Service from frontend, with chance led to the backend of one node and the name server next door."""
    lead = toward(cluster, backend_on(cluster, node).ips[0], name_server_on(cluster, "node-1"))
    return cluster.connect("frontend", "http://backend", choose=lead)


# -- predict: what a missing entry does ------------------------------------------------------------------------------


def _without_entry() -> Outcome:
    world = with_fault(shop, "fdb-entry-missing", node="node-1", peer="node-2")
    trip = across(world)
    told = (
        f"The caller sees: {trip.verdict}, after {trip.seconds:g} s of waiting. node-1 has a packet for node-2's "
        "tunnel end and no entry that says behind which machine it lives, so it drops the packet and tells nobody. "
        "Silence is what a caller calls a timeout."
    )
    return Outcome(trip.verdict, told, trip)


MISSING_ENTRY = predict(
    "00-missing-entry",
    "One entry less",
    "node-1 keeps a small table that says behind which machine each other node's tunnel ends. We delete its entry "
    "for `node-2`. Then `frontend` on node-1 calls the `backend` pod on node-2. What does `frontend` see?",
    {
        "refused": "“Connection refused”, at once",
        "timed out": "Nothing, until it gives up: a timeout",
        "could not resolve": "“Could not resolve host”: the name is not found",
        "connected": "It works: another node knows the way and passes it on",
    },
    _without_entry,
    {
        "refused": "To be refused, somebody must have received the packet and answered no. Here it never leaves "
        "node-1.",
        "could not resolve": "Names are looked up first, from a CoreDNS pod; the one asked here runs on node-1 "
        "itself, so the lookup never needs the missing entry.",
        "connected": "Nodes do not ask each other for the way. Each forwards by its own tables, and node-1's lacks "
        "the entry.",
    },
    (
        "Follow the packet in the first picture: which part of the way lies between node-1 and node-2?",
        "Who could send an answer back, if the packet is dropped inside node-1's kernel?",
        "A caller hears “refused” only when a packet comes back. Does one come back here?",
    ),
)


# -- find: which of them is it? --------------------------------------------------------------------------------------

CAUSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "fdb-1-2": ("fdb-entry-missing", {"node": "node-1", "peer": "node-2"}),
    "fdb-1-3": ("fdb-entry-missing", {"node": "node-1", "peer": "node-3"}),
    "not-listening-3": ("pod-not-listening", {"pod": "database"}),
    "dns-1": ("kube-dns-rules-missing", {"node": "node-1"}),
}


def _broken() -> Cluster:
    return with_fault(shop, "fdb-entry-missing", node="node-1", peer="node-3")


def _probes(cluster: Cluster) -> Sequence[Probe]:
    """Calls without chance in them: each pod's own address, and the name, asked until every branch has been seen."""
    out = []
    for node in ("node-1", "node-2", "node-3"):
        address = backend_on(cluster, node).ips[0]
        out.append(Probe("frontend", f"http://{address}:8080", f"frontend's call to the backend on {node}"))
    database = cluster.pod("database").ips[0]
    return [*out, Probe("frontend", f"tcp://{database}:5432", "frontend's call to database on node-3")]


_explains = same_symptoms(shop, _broken, _probes, CAUSES)


def _judge(answer: Any) -> Finding:
    against = _explains(answer)
    if against:
        return Finding(False, against)
    world = _broken()
    trip = world.connect("frontend", f"http://{backend_on(world, 'node-3').ips[0]}:8080")
    return Finding(
        True,
        "That explains everything you can see: both pods on node-3 are out of reach from node-1, everything else "
        f"works. The packet's own trace says: {trip.why}. Put the entry back and the calls work again.",
        trip,
    )


FIND_IT = Exercise(
    id="00-find",
    kind=FIND,
    title="Something is broken. What?",
    task='`ward = exercise("00-find").world()` is a shop with one thing broken. Make calls from `frontend` to the '
    "pods themselves, watch which work and which do not, and name the one cause that explains all of it.",
    judge=_judge,
    hints=(
        "Try both pods on node-3, backend and database, and one on each other node. Which calls fail, and what "
        "have the failing ones in common?",
        "A pod that does not listen refuses. Do you see refusals or timeouts?",
        "All that fails lives on one node, and it fails with a timeout. What must node-1 know about that node?",
    ),
    choices=(
        Choice("fdb-1-2", "node-1 has no forwarding entry for node-2's tunnel end"),
        Choice("fdb-1-3", "node-1 has no forwarding entry for node-3's tunnel end"),
        Choice("not-listening-3", "the database's program does not listen on its port"),
        Choice("dns-1", "the rules for the cluster DNS are missing on node-1"),
    ),
    world=_broken,
)

EXERCISES = (MISSING_ENTRY, FIND_IT)
