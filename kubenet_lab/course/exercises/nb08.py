"""Exercises of 08_cilium."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb06 import far, largest
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.walk.http import Got, get

FLUSH = "iptables -F\niptables -t nat -F"
WORLD = "203.0.113.10"
"""A web server outside the cluster."""


def cilium() -> Cluster:
    """Return the shop with Cilium as its pod network, in kube-proxy's place as well."""
    return shop(cni="cilium", proxy="ebpf")


def neighbour(world: Cluster) -> Trip:
    """Return frontend's call to the backend on its own node."""
    return world.connect("frontend", f"tcp://{backend_on(world, 'node-1').ips[0]}:8080")


# -- predict: what is in the way ---------------------------------------------------------------------------------------

STATIONS = {
    "bridge": "the bridge's table",
    "rule": "iptables rules",
    "conntrack": "conntrack",
    "route": "the routing table",
    "bpf": "BPF programs",
}


def stations(trip: Trip, node: str = "node-1") -> dict[str, int]:
    """Return how often the first packet met each kind of station on a node: key of STATIONS -> steps."""
    assert trip.exchange is not None
    steps = [step for hop in trip.exchange.request.hops if hop.netns == node for step in hop.steps]
    kinds = ["bridge" if step.kind == "fdb" else step.kind for step in steps]
    return {kind: kinds.count(kind) for kind in STATIONS}


def _met(trip: Trip) -> str:
    return ", ".join(f"{STATIONS[kind]} ({n})" for kind, n in stations(trip).items() if n) or "nothing"


def _way() -> Outcome:
    trip, plain = neighbour(cilium()), neighbour(shop())
    met = {kind for kind, n in stations(trip).items() if n}
    key = "programs" if met == {"bpf"} else "fewer" if "rule" in met else "route"
    return Outcome(
        key,
        f"Steps on node-1 with Cilium: {_met(trip)}. With Flannel and kube-proxy: {_met(plain)}. A program "
        "hangs where the packet comes out of frontend's cable. It looks into its maps, sees that the "
        "receiver lives on this node, and puts the packet into the other pod's cable.",
        trip,
    )


WAY = predict(
    "08-way",
    "What is in the way?",
    "frontend calls the backend on its own node, by the pod's address. The packet comes out of the pod's cable on "
    "node-1. What does it meet there, before it goes into the other pod's cable?",
    {
        "fewer": "A bridge and the iptables rules, as everywhere; only fewer rules",
        "route": "No bridge; the node's routing table and conntrack, as for any routed packet",
        "programs": "Only Cilium's programs",
    },
    _way,
    {
        "fewer": "Look for a bridge in the list of this node's links. There is none, and netfilter is "
        "reached only by packets that go up to the node's own stack.",
        "route": "That is how a router does it. But the kernel asks its routes only if nobody has decided before.",
    },
    (
        "A program sits at the very place where the packet comes out of the cable (the hook is called tc, or tcx).",
        "What could the program do there, besides letting the packet go on?",
        "It may redirect the packet to another link. Then nothing further on ever sees it.",
    ),
)

# -- predict: flush ---------------------------------------------------------------------------------------------------


def flushed(world: Cluster) -> Cluster:
    """Return a world after somebody has emptied iptables on all nodes."""
    for node in ("node-1", "node-2", "node-3"):
        commands.apply(world.network, FLUSH, node)
    return world


def three_calls(world: Cluster) -> dict[str, Trip]:
    """Return frontend's calls to a Service, to a pod of another node, and to the world."""
    targets = {
        "Service": "http://backend",
        "pod": f"tcp://{far(world)}:8080",
        "world": f"http://{WORLD}",
    }
    return {name: world.connect("frontend", target) for name, target in targets.items()}


def _flush() -> Outcome:
    calls = three_calls(flushed(cilium()))
    plain = three_calls(flushed(shop()))
    lost = [name for name, trip in calls.items() if not trip.delivered]
    key = {(): "none", ("world",): "world", ("Service",): "services"}.get(tuple(lost), "all")

    def words(trips: dict[str, Trip]) -> str:
        return "; ".join(f"{name}: {trip.verdict}" for name, trip in trips.items())

    return Outcome(
        key,
        f"With Cilium: {words(calls)}. With Flannel and kube-proxy: {words(plain)}. Services and pods live "
        "in BPF maps. But Cilium's default leaves one thing to iptables: giving packets to the world the "
        "node's address. (`bpf.masquerade=true` moves that into BPF, too.)",
        calls["world"],
    )


EMPTY = predict(
    "08-flush",
    "Somebody empties iptables",
    "On all nodes somebody runs `iptables -F` and `iptables -t nat -F`. Cilium is installed with its "
    "defaults, but in kube-proxy's place as well. What stops working for frontend, until the agent writes "
    "its rules again?",
    {
        "none": "Nothing at all: nothing is iptables any more",
        "services": "Calls to Services, names included",
        "world": "Calls to the world outside the cluster",
        "all": "Calls to everything but pods of the same node",
    },
    _flush,
    {
        "none": "Nearly. Run `iptables-save` on a node: a dozen rules are there, and one of them is needed.",
        "services": "That is kube-proxy's cluster. Here the Service's address is replaced before there is a packet.",
        "all": "Pods of other nodes are reached by what the BPF map ipcache says, whatever iptables says.",
    },
    (
        "Go through the calls one by one: who replaces an address in each of them?",
        "The Service's address is replaced by a program. Which other address has to be replaced, and for whom?",
        "Outside nobody knows a pod's address. Look for MASQUERADE in the rules in the cell above.",
    ),
)

# -- predict: the number on the envelope ------------------------------------------------------------------------------


def envelope(world: Cluster, source: str = "frontend") -> int:
    """Return the VXLAN network number of a pod's first packet to the backend on node-2."""
    trip = world.connect(source, f"tcp://{far(world)}:8080")
    outer = [
        hop.packet for _trace, hop in trip.hops if hop.packet.vni is not None and hop.packet.inner is not None
    ]
    return outer[0].vni or 0 if outer else 0


def _number() -> Outcome:
    world = cilium()
    first = envelope(world)
    state = world.network.ns("node-1").bpf
    assert state is not None
    state.look()
    mine = state.identity(world.pod("frontend").ips[0])
    other = envelope(world, "database")
    key = "identity" if first == mine and first != other else "same" if first == other else "node"
    return Outcome(
        key,
        f"frontend's packet carries {first}, database's {other}. {mine} is the *security identity* of pods with "
        "frontend's labels. So the receiving node knows at once who speaks, and looks into the receiver's "
        f"policy map: may {mine} come in? No list of addresses is searched.",
        world.connect("frontend", f"tcp://{far(world)}:8080"),
    )


NUMBER = predict(
    "08-number",
    "The number on the envelope",
    "Between nodes Cilium too puts the letter into another one: VXLAN, by default. Each VXLAN header has room for a "
    "number (the VNI). With Flannel it is always 1. What does Cilium write there?",
    {
        "same": "Also one number for the whole tunnel",
        "node": "The number of the sending node",
        "identity": "A number that says who sends: the same for all pods with the same labels",
    },
    _number,
    {
        "same": "It could. But 24 bits in each packet are too good to be left unused.",
        "node": "The outer source address says that already.",
    },
    (
        "What does the receiving node need to know, to decide whether a packet may come in?",
        "Policies speak of labels. The packet carries addresses.",
        "Compare the number with `cilium-dbg identity list`.",
    ),
)

# -- do: a policy that reads requests ---------------------------------------------------------------------------------

STARTED = """apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: backend, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
"""
"""A policy by labels and ports only."""
WANTED = (
    ("frontend", "GET", "/products", True),
    ("frontend", "GET", "/products/7", True),
    ("frontend", "POST", "/orders", True),
    ("frontend", "DELETE", "/products/7", False),
    ("frontend", "POST", "/products", False),
    ("frontend", "GET", "/orders", False),
    ("frontend", "GET", "/admin", False),
    ("database", "GET", "/products", False),
)
"""(who asks, method, path, whether the request is to arrive)."""


def ask(world: Cluster, source: str, method: str, path: str, node: str = "node-2") -> Got:
    """Send a request to the backend on a node: `curl -X METHOD http://ADDRESS:8080/PATH`."""
    there = backend_on(world, node).ips[0]
    return get(world.walk(), world.namespace_of(source), there, 8080, path, method=method)


def fate(got: Got) -> str:
    """Return what the caller saw of a request."""
    if not got.exchange.ok:
        return f"no connection: {got.exchange.verdict}"
    return f"HTTP {got.status} from the proxy" if got.status else "arrives at the program"


def guarded(policy: str) -> Cluster:
    """Return the shop with a policy."""
    world = cilium()
    world.apply(policy)
    return world


def _judge_requests(answer: Any) -> Finding:
    world = guarded(answer)
    for node in ("node-1", "node-2"):
        for source, method, path, wanted in WANTED:
            got = ask(world, source, method, path, node)
            if (fate(got) == "arrives at the program") != wanted:
                should = "should arrive" if wanted else "should not"
                return Finding(False, f"{source}: {method} {path}: {fate(got)}, and it {should}.")
    denied = ask(world, "frontend", "DELETE", "/products/7")
    return Finding(
        True,
        f"All {len(WANTED)} are as wanted, on both nodes. Note the two ways to say no: a stranger gets no connection "
        f"({fate(ask(world, 'database', 'GET', '/products'))}); a wrong request on an allowed connection gets an "
        f"answer ({fate(denied)}).",
        world.connect("frontend", f"tcp://{far(world)}:8080"),
    )


REQUESTS = Exercise(
    id="08-requests",
    kind=DO,
    title="A policy that reads requests",
    task="Only frontend may call backend, and of its requests only these may arrive: `GET /products`, `GET` "
    "of anything below `/products/`, and `POST /orders`. The policy as it stands lets every request of "
    "frontend pass. Add what is missing: beside `ports`, `rules: {http: [{method: ..., path: ...}]}`; a "
    "path is a regular expression that must fit the whole path.",
    judge=_judge_requests,
    hints=(
        "`rules` stands at the same depth as `ports`, under the same dash.",
        "`http` is a list. A request passes if one of its entries fits: one for GET, another for POST.",
        "`/products/.*` does not fit `/products` itself. A part that may be missing is written `(...)?`, or "
        "add a third entry.",
    ),
    template=STARTED,
)

# -- recall (06): the size of a letter --------------------------------------------------------------------------------


def _size() -> Outcome:
    tunnel, native = largest(cilium()), largest(shop(cni="cilium-native", proxy="ebpf"))
    key = "less" if tunnel < native else "same"
    trip = cilium().ping("frontend", far(cilium()), size=tunnel + 1, df=True)
    return Outcome(
        key,
        f"{tunnel} bytes pass, as with Flannel. As it is installed, Cilium tunnels with VXLAN. With "
        f"`routingMode=native` there is no envelope, and {native} bytes pass; then the network between the nodes has "
        "to know where the pods are.",
        trip,
    )


SIZE = predict(
    "08-recall",
    "Once more, from notebook 06: the size of a letter",
    "Cilium as it is installed, on a wire of 1500 bytes. What is the largest `ping -M do -s SIZE` from "
    "frontend to the backend on node-2?",
    {
        "same": "1472: programs need no envelope",
        "less": "1422: there is an envelope, as with Flannel",
    },
    _size,
    {
        "same": "Programs in the kernel of one node still have to bring the packet to another one. How, by default?"
    },
    (
        "What did you see around the packet, with a number on it?",
        "VXLAN takes 50 bytes, whoever writes it.",
        "1500 less the envelope, less 28 bytes of the ping's own headers.",
    ),
)

EXERCISES = (WAY, NUMBER, EMPTY, REQUESTS, SIZE)
