"""Exercises of 02_four_rules."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, predict, with_fault
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.errors import InputError
from kubenet_lab.scenarios import shop

OUTSIDE = "203.0.113.10"
AGENTS = """
apiVersion: v1
kind: Pod
metadata: {name: agent-1}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: node-1}
  containers: [{name: agent, image: agent, ports: [{containerPort: 9100}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: agent-2}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: node-1}
  containers: [{name: agent, image: agent, ports: [{containerPort: 9100}]}]
"""


def with_agents() -> Cluster:
    """Return the shop with two pods on node-1's own network, both of which want port 9100."""
    world = shop()
    world.apply(AGENTS)
    return world


# -- predict: two pods, one address ------------------------------------------------------------------------------------


def _shared() -> Outcome:
    world = with_agents()
    first, second = world.pod("agent-1"), world.pod("agent-2")
    told = [c.message for c in second.status.conditions if c.type == "PodScheduled" and c.message]
    if second.ips and second.ips == first.ips:
        return Outcome("both", f"Both run, and both are {first.ips[0]}.")
    key = "own" if second.ips else "pending"
    return Outcome(
        key,
        f"agent-1 runs and is {first.ips[0]}: its node's own address. agent-2 is {second.status.phase}: "
        f"“{told[0].partition('.')[0] if told else ''}”. One address has each port once, whoever shares it.",
    )


SHARED = predict(
    "02-shared",
    "Two pods, one network",
    "Two pods are to run on node-1 with `hostNetwork: true`, and both name port 9100. Which addresses do they get?",
    {
        "own": "Two different ones: every pod has its own",
        "both": "Both get the node's address, and both run",
        "pending": "The first gets the node's address; the second does not start",
    },
    _shared,
    {
        "own": "`hostNetwork` means: no network of its own. Such a pod lives on the node's.",
        "both": "The address is right. But an address has each port only once.",
    },
    (
        "With hostNetwork there is no network namespace of the pod's own, no veth, no IPAM.",
        "Two programs on one machine both want to listen on port 9100.",
        "The scheduler knows which host ports a node has left.",
    ),
)

# -- predict: as whom, outside? ----------------------------------------------------------------------------------------


def _outside() -> Outcome:
    world = shop()
    trip = world.connect("frontend", f"tcp://{OUTSIDE}:80")
    own = world.pod("frontend").ips[0]
    key = "pod" if trip.source_seen == own else "node" if trip.source_seen == "192.168.1.10" else "other"
    return Outcome(
        key,
        f"The server outside saw {trip.source_seen}: {world.names().get(trip.source_seen, '')}. frontend is "
        f"{own}. A rule of the pod network on node-1 replaces the source of all that leaves for somewhere "
        "beyond the pods' range: out there nobody would know the way back to a pod.",
        trip,
    )


OUT = predict(
    "02-outside",
    "Beyond the cluster",
    "frontend (10.244.0.2, on node-1) calls a server outside the cluster. Whom does that server see as the caller?",
    {
        "pod": "10.244.0.2: a pod's address is seen by everybody",
        "node": "192.168.1.10: the node",
        "other": "The router's address",
    },
    _outside,
    {
        "pod": "An answer to 10.244.0.2 would have to find its way back. Has the world outside a route to the pods?",
        "other": "This router only forwards. (At home yours may well do the same trick once more, further on.)",
    },
    (
        "The rule says: no NAT between *pods*, and between nodes and pods.",
        "The pods' range is known on the nodes and nowhere else.",
        "Somebody on the way has to lend the packet an address that the world can answer to.",
    ),
)

# -- predict: node to a far pod ----------------------------------------------------------------------------------------


def _far() -> Outcome:
    world = shop()
    pod = backend_on(world, "node-2")
    trip = world.connect("node/node-1", f"tcp://{pod.ips[0]}:8080")
    key = {"192.168.1.10": "node", "10.244.0.1": "bridge", "10.244.0.0": "tunnel"}.get(trip.source_seen, "?")
    return Outcome(
        key,
        f"The pod on node-2 saw {trip.source_seen}: {world.names().get(trip.source_seen, '')}. A program "
        "that names no source gets the address of the interface its packet leaves by, and towards another "
        "node's pods that is the tunnel `flannel.1`. All three addresses are the same machine.",
        trip,
    )


FAR = predict(
    "02-far",
    "A node has several faces",
    "A program on node-1 itself (not in a pod) calls the backend pod on node-2. Which caller does that pod see?",
    {
        "node": "192.168.1.10, the node's address",
        "bridge": "10.244.0.1, the address of its bridge cni0",
        "tunnel": "10.244.0.0, the address of its tunnel flannel.1",
    },
    _far,
    {
        "node": "That is what `kubectl get nodes` shows. The kernel chooses a source by the way the packet takes.",
        "bridge": "So it would be for a pod on node-1 itself: those are behind the bridge.",
    },
    (
        "`ip route get ADDRESS` on the node tells the source a packet would get: the word after `src`.",
        "By which interface does a packet leave node-1 for a pod on node-2? Notebook 05 knew it.",
        "`ip addr show` of that interface.",
    ),
)

# -- do: three ranges --------------------------------------------------------------------------------------------------

NAMES = ("nodes", "pods", "services")
RANGES = "nodes: 192.168.1.0/24\npods: 192.168.0.0/16\nservices: 10.96.0.0/12\n"


def read_ranges(text: str) -> dict[str, IPv4Network]:
    """Read `nodes: 192.168.1.0/24` and so on. Raises InputError with the line."""
    found: dict[str, IPv4Network] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = re.fullmatch(r"\s*(\w+)\s*:\s*(\S+)\s*", line.partition("#")[0])
        if not line.partition("#")[0].strip():
            continue
        if words is None or words[1] not in NAMES:
            raise InputError(
                f"line {number}: {line.strip()!r} is not understood; write `pods: 10.244.0.0/16`"
            )
        try:
            found[words[1]] = IPv4Network(words[2])
        except ValueError as error:
            raise InputError(f"line {number}: {error}; write a network such as 10.244.0.0/16") from None
    missing = [name for name in NAMES if name not in found]
    if missing:
        raise InputError(f"there is no line for {', '.join(missing)}")
    return found


def _judge_ranges(answer: Any) -> Finding:
    found = read_ranges(answer)
    if found["nodes"] != IPv4Network("192.168.1.0/24"):
        return Finding(False, "The machines are there already: leave the nodes' line as it is.")
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :] if found[a].overlaps(found[b])]
    if pairs:
        told = "; ".join(f"{a} {found[a]} and {b} {found[b]} overlap" for a, b in pairs)
        return Finding(
            False, f"{told}. An address in both means two things, and a route can only choose one."
        )
    if found["pods"].prefixlen > 22:
        return Finding(False, f"{found['pods']} has no room for a /24 of pods on each of three nodes.")
    if found["services"].prefixlen < 12 or found["services"].prefixlen > 29:
        return Finding(
            False, f"The API server takes a Service range between /12 and /29, not {found['services']}."
        )
    world = Cluster.from_files(
        _without_addresses(),
        settings=Settings(
            cluster_cidr=(str(found["pods"]),), service_cluster_ip_range=(str(found["services"]),)
        ),
    )
    trip = world.connect("frontend", "http://backend")
    if not trip.delivered:
        return Finding(
            False, f"With these ranges frontend's call to backend ends: {trip.verdict}. {trip.why}.", trip
        )
    return Finding(
        True,
        f"Three ranges, three meanings. In the cluster built from them frontend is "
        f"{world.pod('frontend').ips[0]}, the Service is {trip.address}, and the call arrives.",
        trip,
    )


def _without_addresses() -> str:
    """The manifests of the shop and of CoreDNS with no address chosen by hand."""
    from kubenet_lab.cluster import COREDNS
    from kubenet_lab.scenarios.shop import MANIFEST

    text = "---\n".join(path.read_text(encoding="utf-8") for path in (COREDNS, MANIFEST))
    return re.sub(r"(?m)^\s*clusterIP: \d.*\n", "", text)


OVERLAP = Exercise(
    id="02-overlap",
    kind=DO,
    title="Three ranges that do not meet",
    task="Somebody plans a cluster: nodes as in the document (192.168.1.x), pods in Calico's usual range. "
    "Build it, and it will misbehave in strange ways. Mend the plan.",
    judge=_judge_ranges,
    hints=(
        "Write down from where to where each of the three ranges goes.",
        "192.168.0.0/16 holds every address that begins with 192.168.",
        "The pods can be anywhere in the private ranges (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16) that is "
        "not taken. Services take 10.96.0.0 to 10.111.255.255 here.",
    ),
    template=RANGES,
)

# -- recall (00): one entry less ---------------------------------------------------------------------------------------


def broken() -> Cluster:
    """Return the shop where node-1's tunnel has no entry for node-3."""
    return with_fault(shop, "fdb-entry-missing", node="node-1", peer="node-3")


def _one_way() -> Outcome:
    world = broken()
    near, far = backend_on(world, "node-1"), backend_on(world, "node-3")
    there = world.connect(near.name, f"tcp://{far.ips[0]}:8080")
    back = world.connect(far.name, f"tcp://{near.ips[0]}:8080")
    key = "both" if not there.delivered and not back.delivered else "one" if back.delivered else "other"
    return Outcome(
        key,
        f"From node-1 to node-3: {there.verdict}. From node-3 to node-1: {back.verdict}. The first packet "
        f"of the second call arrives; its answer has to take the broken way. It was lost at {back.place.netns}.",
        back,
    )


RECALL = predict(
    "02-recall",
    "Once more, from notebook 00: one entry less",
    "On node-1 the tunnel has lost its entry for node-3 (the one you deleted in notebook 00). Between the "
    "pods of these two nodes, which calls fail now?",
    {
        "one": "Those from node-1 to node-3; the other way round all is well",
        "both": "Calls in both directions",
        "other": "Those from node-3 to node-1",
    },
    _one_way,
    {
        "one": "A call is a packet there and a packet back.",
        "other": "node-3 has all its entries: what it sends arrives.",
    },
    (
        "The entry on node-1 decides about packets that *leave* node-1.",
        "What leaves node-1 when a pod on node-3 calls a pod on node-1?",
        "The answer.",
    ),
)

EXERCISES = (SHARED, FAR, OUT, OVERLAP, RECALL)
