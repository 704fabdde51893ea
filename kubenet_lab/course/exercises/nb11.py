"""Exercises of 11_cluster_ip."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip

ADDRESS = "10.96.0.100"
LAPTOP = "203.0.113.77"
"""A machine outside the cluster, beyond the router."""


def knock(world: Cluster, what: str, source: str = "frontend") -> Trip:
    """Knock at the Service's address: "ping", or a TCP port."""
    if what == "ping":
        return world.ping(source, ADDRESS)
    return world.connect(source, f"tcp://{ADDRESS}:{what}")


# -- predict: ping -----------------------------------------------------------------------------------------------------


def _seen(trip: Trip) -> str:
    """What the caller can tell: an answer, an error at once, or nothing."""
    if trip.delivered:
        return "answer"
    return "silence" if trip.verdict == "timed out" else "error"


def _ping() -> Outcome:
    trip = knock(shop(), "ping")
    told = (
        f"`ping {ADDRESS}` from frontend ends with: {trip.verdict}. {trip.why.capitalize()}, at {trip.place.netns}. "
        "The rules for this Service speak of TCP port 80 and of nothing else, so the ping keeps the Service's address "
        "as its destination, leaves the node, and the router beyond knows nobody of that name."
    )
    return Outcome({"answer": "pod", "error": "nobody", "silence": "nobody"}[_seen(trip)], told, trip)


PING = predict(
    "11-ping",
    "Ping the Service",
    "`curl http://10.96.0.100` works from frontend. Now `ping 10.96.0.100`, in iptables mode. Who answers?",
    {
        "pod": "One of the three backend pods, as with curl",
        "node": "The node: it holds the Service's address",
        "proxy": "kube-proxy itself",
        "nobody": "Nobody",
    },
    _ping,
    {
        "pod": "The rule that leads to a pod asks for protocol TCP and port 80. What is the port of a ping?",
        "node": "Look through `ip addr` on the node: on which interface would that address be?",
        "proxy": "kube-proxy writes the tables and steps aside. No packet passes through it.",
    },
    (
        "A ping is ICMP. It has no port.",
        "Read the rule again: `-d 10.96.0.100/32 -p tcp -m tcp --dport 80`. Does it fit a ping?",
        "A packet that fits no rule keeps the destination it has. Which machine has that address?",
    ),
)


# -- predict: port 81 --------------------------------------------------------------------------------------------------


def _port_81() -> Outcome:
    trip = knock(shop(proxy="nftables"), "81")
    key = {"answer": "works", "error": "refused", "silence": "silence"}[_seen(trip)]
    told = (
        f"Port 81 in nftables mode: {trip.verdict}. {trip.why.capitalize()}. kube-proxy keeps a set of all ClusterIPs; "
        "what is addressed to one of them and belongs to none of its ports is rejected. The iptables mode has no such "
        "rule: there the packet wanders off to the router."
    )
    return Outcome(key, told, trip)


PORT_81 = predict(
    "11-port-81",
    "The port next door",
    "The Service has port 80 and nothing else. A pod calls port 81 of the same address, on nodes whose kube-proxy runs "
    "in nftables mode. What does the caller see?",
    {
        "works": "It works: the address is the same",
        "refused": "“Connection refused”, at once",
        "silence": "Nothing, until it gives up",
    },
    _port_81,
    {
        "works": "A Service is not an address: it is an address with a port. The neighbour was never promised.",
        "silence": "That is what happens where nobody feels responsible for the address. This mode has a list of them "
        "all.",
    },
    (
        "The newer mode was written with a wish: a wrong port should tell you so.",
        "`nft list set ip kube-proxy cluster-ips` on a node lists every ClusterIP. What could a rule do with the list?",
        "The chain is called `cluster-ips-check`, and it does not drop.",
    ),
)


# -- predict: IPVS -----------------------------------------------------------------------------------------------------


def _ipvs() -> Outcome:
    world = shop(proxy="ipvs")
    holds = any(a.local == ADDRESS for a in world.network.ns("node-1").addrs(fam=4))
    trip = knock(world, "ping")
    key = {"answer": "answers", "error": "refused", "silence": "silence"}[_seen(trip)] if holds else "nobody"
    told = (
        f"In IPVS mode the address does stand on every node, on an interface called `kube-ipvs0`. And the ping: "
        f"{trip.verdict}. {trip.why.capitalize()}. Having the address would be enough to answer, but kube-proxy adds a "
        "rule that rejects whatever is new, addressed to a Service, and none of its ports."
    )
    return Outcome(key, told, trip)


IPVS = predict(
    "11-ipvs",
    "The mode that has the address",
    "In IPVS mode every node really holds 10.96.0.100: `ip addr show kube-ipvs0` lists it. Ping it again. What does "
    "frontend see?",
    {
        "answers": "An answer: its own node has the address now",
        "refused": "An error, at once",
        "silence": "Nothing at all",
    },
    _ipvs,
    {
        "answers": "So it was for years, and so you can still read it. Since then kube-proxy writes one more rule, in "
        "the chain KUBE-IPVS-FILTER.",
        "silence": "The packet does reach a machine that has the address, and that machine has a rule about it.",
    },
    (
        "The packet gets as far as the node's INPUT hook this time.",
        "`iptables -t filter -S KUBE-IPVS-FILTER` on the node. Read the last line.",
        "REJECT is not DROP.",
    ),
)


# -- do: a Service -----------------------------------------------------------------------------------------------------


def _judge_manifest(answer: Any) -> Finding:
    world = shop()
    world.apply(answer)
    service = world.store.find("Service", "storefront", "default")
    if service is None:
        return Finding(False, "There is no Service called `storefront` in namespace default yet.")
    if service.spec.type != "ClusterIP":
        return Finding(
            False, f"`storefront` is of type {service.spec.type}; it is to be reachable inside only."
        )
    slices = [s for s in world.store.list("EndpointSlice", "default") if s.service_name == "storefront"]
    ready = {a for s in slices for e in s.endpoints if e.ready for a in e.addresses}
    backends = {
        ip for pod in world.store.list("Pod", "default") for ip in pod.ips if pod.name.startswith("backend")
    }
    if not ready:
        return Finding(False, "`storefront` has no endpoints: its selector fits no pod's labels.")
    if ready != backends:
        return Finding(
            False, f"`storefront` leads to {', '.join(sorted(ready))}, and the backends are others."
        )
    trip = world.connect("frontend", "http://storefront:8000")
    if not trip.delivered:
        return Finding(
            False, f"A call to http://storefront:8000 from frontend: {trip.verdict}. {trip.why}.", trip
        )
    return Finding(True, f"frontend reaches http://storefront:8000, and {trip.server} answered.", trip)


MANIFEST = Exercise(
    id="11-manifest",
    kind=DO,
    title="One more door",
    task="The backend pods (label `app: backend`) listen on port 8080. Give them a second Service, `storefront`, "
    "reachable inside the cluster at port 8000: `http://storefront:8000` must work from frontend.",
    judge=_judge_manifest,
    hints=(
        "Two ports: the one callers use (`port`) and the one the program listens on (`targetPort`). Leave out the "
        "second and it is the same as the first.",
        "`selector` is a map of labels, and it names the pods, not the Deployment.",
        "`spec: {selector: {app: ...}, ports: [{port: ..., targetPort: ...}]}`. The type may be left out.",
    ),
    template="apiVersion: v1\nkind: Service\nmetadata:\n  name: storefront\nspec:\n",
)


# -- do: affinity ------------------------------------------------------------------------------------------------------

CALLS = 24


def _judge_stick(answer: Any) -> Finding:
    world = shop()
    world.apply(answer)
    service = world.store.get("Service", "backend", "default")
    if ADDRESS not in service.addresses:
        return Finding(False, f"The Service no longer has {ADDRESS}; keep the one that is there.")
    servers = {knock(world, "80").server for _ in range(CALLS)}
    if None in servers:
        return Finding(False, "Some calls to the Service no longer arrive.", knock(world, "80"))
    if len(servers) > 1:
        return Finding(False, f"{CALLS} calls from frontend met {len(servers)} different pods.")
    client = (service.spec.session_affinity_config or {}).get("clientIP") or {}
    seconds = client.get("timeoutSeconds", 10800)
    trips = {
        knock(world, "80", source).server for source in ("frontend", "database", "node/node-2", "node/node-3")
    }
    return Finding(
        True,
        f"{CALLS} calls from frontend all met {servers.pop()}. Other callers have pods of their own: four callers met "
        f"{len(trips)} in all. The rules remember each caller's address for {seconds} seconds after its last new "
        "connection.",
        knock(world, "80"),
    )


STICK = Exercise(
    id="11-stick",
    kind=DO,
    title="Always the same pod",
    task="By default every new connection is a new throw of the die. Change the Service `backend` so that one caller "
    "always meets the same pod.",
    judge=_judge_stick,
    hints=(
        "It is one field of the Service's spec. Its name begins with `session`.",
        "Its values are `None` and one other, which names what the rules remember: the caller's address.",
        "`sessionAffinity:` and then the words Client and IP in one.",
    ),
    template="apiVersion: v1\nkind: Service\nmetadata:\n  name: backend\nspec:\n  selector: {app: backend}\n"
    "  ports:\n  - {name: http, port: 80, targetPort: 8080}\n",
)


# -- do: the laptop (needs notebook 05) --------------------------------------------------------------------------------


def _judge_laptop(answer: Any) -> Finding:
    world = shop()
    before = dict(world.network.ns("node-1").iptables)
    commands.apply(world.network, answer, "router")
    if dict(world.network.ns("node-1").iptables) != before:
        return Finding(False, "Leave the nodes' rules as they are: a route is all it takes.")
    trip = world.connect(LAPTOP, f"http://{ADDRESS}")
    if not trip.delivered:
        return Finding(
            False,
            f"The laptop's call ends at {trip.place.netns}: {trip.verdict}. {trip.why.capitalize()}.",
            trip,
        )
    names = world.names()
    return Finding(
        True,
        f"The laptop at {LAPTOP} got its answer from {trip.server}. The pod saw {trip.source_seen} "
        f"({names.get(trip.source_seen, 'unknown')}) as the caller: kube-proxy's rules masquerade such visitors, so "
        "that the answer finds its way back through the same node.",
        trip,
    )


LAPTOP_EXERCISE = Exercise(
    id="11-recall",
    kind=DO,
    title="Once more, from notebook 05: a way in",
    task=f"“Only reachable inside”, they say. Out there, beyond the router, is a laptop with the address {LAPTOP}. "
    "With a command or two on the router (and nothing else), make `curl http://10.96.0.100` work on it.",
    judge=_judge_laptop,
    hints=(
        "What stops the laptop's packet now? Look at the router's table: it has no row for that address.",
        "Every node has the rules for every Service. So any node will do as the next hop.",
        "A route for the Services' range 10.96.0.0/16 on the router, via a node's address on 192.168.1.0/24.",
    ),
    template="on router\n# ip route add NETWORK via ADDRESS\n",
)

EXERCISES = (PING, PORT_81, IPVS, MANIFEST, STICK, LAPTOP_EXERCISE)
