"""Exercises of 09_choose_a_network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb06 import LOCK, far, largest
from kubenet_lab.course.exercises.nb07 import API, WALL, two_networks
from kubenet_lab.course.exercises.nb08 import ask, fate
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.errors import InputError
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.trip import Trip

NODES = ("node-1", "node-2", "node-3")
WHOLE_WIRE = 1472
"""The largest ping on a wire of 1500 bytes that nothing is wrapped around."""
CILIUM_FLOOR = (5, 10)
"""The oldest kernel of Cilium 1.18 and later."""


class Choosable(Struct, frozen=True):
    """A network one can install: how it is made here."""

    title: str
    cni: str
    proxy: str = "iptables"
    more: str = ""


CROSS = (
    f"---\n{API}kind: IPPool\nmetadata: {{name: default-ipv4-ippool}}\n"
    "spec: {cidr: 10.244.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}\n"
)
NETWORKS = {
    "flannel": Choosable("Flannel, VXLAN", "flannel"),
    "flannel-host-gw": Choosable("Flannel, host-gw", "flannel-host-gw"),
    "calico": Choosable("Calico, no envelope", "calico"),
    "calico-ipip": Choosable("Calico, IPIP always", "calico-ipip"),
    "calico-vxlan": Choosable("Calico, VXLAN always", "calico-vxlan"),
    "calico-cross": Choosable("Calico, IPIP between networks", "calico", more=CROSS),
    "cilium": Choosable("Cilium, VXLAN", "cilium", proxy="ebpf"),
    "cilium-native": Choosable("Cilium, native routing", "cilium-native", proxy="ebpf"),
}


def rack(key: str) -> Cluster:
    """Return the shop with a network, all nodes on one wire."""
    one = NETWORKS[key]
    if not one.more:
        return shop(cni=one.cni, proxy=one.proxy)
    world = Cluster.from_files(MANIFEST, one.more, nodes=3, cni=one.cni, proxy=one.proxy)
    world.advance(5)
    return world


def rooms(key: str) -> Cluster:
    """Return the shop with a network, node-3 behind a router that knows no pods."""
    one = NETWORKS[key]
    return two_networks(one.cni, one.proxy, one.more)


def call(world: Cluster, node: str) -> Trip:
    """Return frontend's call to the backend on a node."""
    return world.connect("frontend", f"tcp://{far(world, node)}:8080")


def outer(trip: Trip) -> str:
    """Return what is around the packet between the nodes: VXLAN, IPIP, or ""."""
    found = [hop.packet for _trace, hop in trip.hops if hop.packet.inner is not None]
    return str(found[0]).split()[3] if found else ""


# -- needs: each returns what is wrong, "" when the need is met --------------------------------------------------------

Need = Callable[[Cluster, str], str]


def reach(world: Cluster, key: str) -> str:
    """Every backend is reached from node-1."""
    for node in NODES:
        trip = call(world, node)
        if not trip.delivered:
            return f"frontend's call to the backend on {node}: {trip.verdict} ({trip.why}, at {trip.place.netns})"
    return ""


def policy(world: Cluster, key: str) -> str:
    """A NetworkPolicy that lets only backend call the database is enforced."""
    world.apply(LOCK)
    stranger = world.connect("frontend", "tcp://database:5432")
    known = world.connect(backend_on(world, "node-2").name, "tcp://database:5432")
    if stranger.delivered:
        return "the policy is stored, and frontend still reaches the database: nobody enforces it"
    return "" if known.delivered else f"backend's call to the database: {known.verdict} ({known.why})"


ONLY_GET = """apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-get, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts: [{ports: [{port: "8080"}], rules: {http: [{method: GET}]}}]
"""


def requests(world: Cluster, key: str) -> str:
    """GET arrives at the backends and DELETE does not."""
    if not NETWORKS[key].cni.startswith("cilium"):
        return "its policies know addresses and ports, no requests (not without further software)"
    world.apply(ONLY_GET)
    told = {method: fate(ask(world, "frontend", method, "/accounts")) for method in ("GET", "DELETE")}
    wished = told["GET"].startswith("arrives") and not told["DELETE"].startswith("arrives")
    return "" if wished else ", ".join(f"{method}: {what}" for method, what in told.items())


def bare(world: Cluster, key: str) -> str:
    """Between neighbours nothing is wrapped around packets."""
    around = outer(call(world, "node-2"))
    return f"between neighbours there is an outer header ({around})" if around else ""


def whole(world: Cluster, key: str) -> str:
    """Pods of neighbours may use the whole of the wire's 1500 bytes."""
    size = largest(world)
    return (
        "" if size == WHOLE_WIRE else f"the largest ping has {size} bytes, the wire could carry {WHOLE_WIRE}"
    )


def only_tcp_udp(world: Cluster, key: str) -> str:
    """It works where the machines' network passes nothing but TCP, UDP and ICMP."""
    for node in NODES:
        commands.apply(world.network, "iptables -I INPUT -i eth0 -p 4 -j DROP", node)
    lost = reach(world, key)
    return f"with IP protocol 4 dropped between the machines, {lost}" if lost else ""


def kernel_5_4(world: Cluster, key: str) -> str:
    """It runs on Linux 5.4."""
    old = NETWORKS[key].cni.startswith("cilium") and CILIUM_FLOOR > (5, 4)
    return "Cilium 1.18 and later need Linux 5.10, and these nodes run 5.4" if old else ""


class Company(Struct, frozen=True):
    """A company: what it tells, where its machines stand, what it needs."""

    tells: str
    site: Callable[[str], Cluster]
    needs: tuple[Need, ...]


COMPANIES = {
    "bakery": Company("three machines in one rack; pods shall reach each other, no more", rack, (reach,)),
    "clinic": Company(
        "one rack, rented: its network passes only TCP, UDP and ICMP between machines. Linux 5.4. Only "
        "backend may reach the database of patients",
        rack,
        (reach, kernel_5_4, policy, only_tcp_udp),
    ),
    "studio": Company(
        "one rack of its own; films are copied all day, so the whole packet is to be theirs (1500 bytes, no "
        "envelope). Only backend may reach the database",
        rack,
        (reach, whole, policy),
    ),
    "university": Company(
        "two rooms, two networks, between them a router that knows no pods and will not learn. Pods of all "
        "nodes shall reach each other, and neighbours without an envelope",
        rooms,
        (reach, bare),
    ),
    "bank": Company(
        "two rooms as in the university, Linux 6.8. Only frontend may call backend, and only with GET",
        rooms,
        (reach, requests),
    ),
}


def failing(company: str, key: str) -> str:
    """Return the first need of a company that a network does not meet, "" when it meets all."""
    one = COMPANIES[company]
    for need in one.needs:
        wrong = need(one.site(key), key)
        if wrong:
            return wrong
    return ""


# -- do: five picks ----------------------------------------------------------------------------------------------------


def read(text: str) -> dict[str, str]:
    """Read "company: network" lines. Raises InputError."""
    picks: dict[str, str] = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        company, _, key = (part.strip() for part in line.partition(":"))
        if company not in COMPANIES:
            raise InputError(f"{company!r} is none of the companies: {', '.join(COMPANIES)}")
        if key not in NETWORKS:
            raise InputError(
                f"{company}: {key or 'nothing'!r} is none of the networks: {', '.join(NETWORKS)}"
            )
        picks[company] = key
    return picks


def _judge_picks(answer: Any) -> Finding:
    picks = read(answer)
    for company in COMPANIES:
        if company not in picks:
            return Finding(False, f"{company} has no network yet.")
        wrong = failing(company, picks[company])
        if wrong:
            return Finding(False, f"{company} with {NETWORKS[picks[company]].title}: {wrong}.")
    told = "; ".join(f"{company}: {NETWORKS[key].title}" for company, key in picks.items())
    return Finding(
        True,
        f"Everybody has what they need. {told}. Where several networks would do, and for most they do, "
        "choose what your people know best: they will have to mend it at night.",
    )


PICK = Exercise(
    id="09-pick",
    kind=DO,
    title="Five companies",
    task="Give each company a network. Write one of these names after the colon: "
    + ", ".join(f"`{key}` ({one.title})" for key, one in NETWORKS.items())
    + ".\n\n"
    + "\n".join(f"{name}: {one.tells}." for name, one in COMPANIES.items()),
    judge=_judge_picks,
    hints=(
        "`side_by_side()` runs one flow through all of them. Cross out, need by need.",
        "A router that knows no pods may carry packets from node to node. What has to be around the pods' packet then?",
        "IPIP is IP protocol 4, neither TCP nor UDP. VXLAN is UDP. And reading requests takes a proxy.",
    ),
    template="".join(f"{name}: \n" for name in COMPANIES),
)

# -- predict: as they come ---------------------------------------------------------------------------------------------

AS_THEY_COME = {"Flannel": "flannel", "Calico": "calico-ipip", "Cilium": "cilium"}
"""kube-flannel.yml, calico.yaml, Cilium's chart."""


def _default() -> Outcome:
    around = {name: outer(call(rack(key), "node-2")) for name, key in AS_THEY_COME.items()}
    bare_ones = [name for name, what in around.items() if not what]
    told = ", ".join(f"{name}: {what or 'nothing'}" for name, what in around.items())
    return Outcome(
        bare_ones[0] if len(bare_ones) == 1 else "none" if not bare_ones else "several",
        f"Around a packet to a neighbour: {told}. Each of them can do without, and each as it comes works "
        "on networks that know no pods. What tells them apart is not the envelope.",
        call(rack("calico-ipip"), "node-2"),
    )


DEFAULT = predict(
    "09-default",
    "As they come",
    "Three clusters, each installed as its project's own manifest has it: `kube-flannel.yml`, "
    "`calico.yaml`, Cilium's chart. frontend calls a pod of the next node. Which of them puts no envelope around "
    "the packet?",
    {
        "Flannel": "Flannel: it is the simple one",
        "Calico": "Calico: it routes, and has no overlay",
        "Cilium": "Cilium: it programs the kernel",
        "none": "None of the three",
    },
    _default,
    {
        "Flannel": "Simple to install; notebook 06 opened its letter in a letter.",
        "Calico": "It can, and recommends it. But look at the pool that its own manifest makes (notebook 07).",
        "Cilium": "The programs do it, but they wrap up as well: notebook 08 read a number on the envelope.",
    },
    (
        "A manifest for everybody has to work where the routers know no pods.",
        "`ipipMode: Always` stands in calico.yaml. What does Cilium's chart say for `routingMode`?",
        "Go through notebooks 06, 07 and 08: what was around the packet in each?",
    ),
)

# -- recall (07): the port ---------------------------------------------------------------------------------------------

CLUSTERS = {key: NETWORKS[key].title for key in ("flannel", "calico", "calico-vxlan", "cilium")}


def _bgp() -> Outcome:
    seen: dict[str, Trip] = {}
    for key in CLUSTERS:
        world = rack(key)
        for node in NODES:
            commands.apply(world.network, WALL, node)
        world.advance(300)
        seen[key] = call(world, "node-2")
    lost = [key for key, trip in seen.items() if not trip.delivered]
    told = "; ".join(f"{CLUSTERS[key]}: {trip.verdict}" for key, trip in seen.items())
    return Outcome(
        lost[0] if len(lost) == 1 else "several",
        f"After five minutes: {told}. Only there do the routes come by BGP. The others' agents learn from "
        "the API server which pods are behind which node.",
        seen[lost[0]] if lost else None,
    )


BGP = predict(
    "09-recall",
    "Once more, from notebook 07: port 179",
    "In four clusters somebody drops TCP port 179 between all nodes and goes to lunch. In which of them do pods of "
    "different nodes no longer reach each other when he comes back?",
    CLUSTERS,
    _bgp,
    {
        "flannel": "Its agents read the other nodes' blocks from Node objects. Who speaks to whom on port 179 here?",
        "calico-vxlan": "Calico it is. But with VXLAN everywhere no BIRD is started: Felix writes the routes itself.",
        "cilium": "Its map ipcache says behind which node an address is. Who fills it?",
    },
    (
        "TCP port 179 is BGP's.",
        "Where did notebook 07 say that there is no BGP at all?",
        "Whose routes are marked `proto bird`?",
    ),
)

EXERCISES = (DEFAULT, PICK, BGP)
