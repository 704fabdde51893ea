"""Exercises of 06_flannel."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip

ICMP_HEADERS = 28
"""Bytes of an IPv4 and an ICMP header."""
LOCK = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: lock-the-database}
spec:
  podSelector: {matchLabels: {app: database}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: backend}}}]
"""


def far(world: Cluster, node: str = "node-2") -> str:
    """Return the address of the backend on a node."""
    return str(backend_on(world, node).ips[0])


def ping(world: Cluster, size: int, *, df: bool = False) -> Trip:
    """Ping the backend on node-2 from frontend with so many bytes: `ping -s SIZE [-M do]`."""
    return world.ping("frontend", far(world), size=size, df=df)


def largest(world: Cluster) -> int:
    """Return the largest `ping -M do -s` that is answered."""
    low, high = 0, 9000
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ping(world, middle, df=True).delivered else (low, middle - 1)
    return low


# -- predict: the largest letter ---------------------------------------------------------------------------------------


def _size() -> Outcome:
    world = shop()
    found = largest(world)
    mtu = world.network.ns("default/frontend").link("eth0").mtu
    trip = ping(world, found + 1, df=True)
    return Outcome(
        str(found),
        f"{found} bytes pass, {found + 1} do not: {trip.why}, at {trip.place.netns}. The pod's eth0 has an "
        f"MTU of {mtu}: 50 less than the wire's 1500, which leaves room for the outer letter. And {mtu} "
        f"less {ICMP_HEADERS} bytes of headers is {found}.",
        trip,
    )


SIZE = predict(
    "06-size",
    "How big may the inner letter be?",
    "The nodes' wire carries packets of up to 1500 bytes. frontend pings the backend on node-2 and forbids "
    "fragmentation: `ping -M do -s SIZE`. What is the largest SIZE that passes? (An IP header has 20 bytes, ICMP 8.)",
    {"1500": "1500", "1472": "1472", "1450": "1450", "1422": "1422"},
    _size,
    {
        "1500": "That would leave no room even for the ping's own headers.",
        "1472": "So it is between two machines without a tunnel: 1500 less 28. Here something is wrapped around it.",
        "1450": "That is the size of the whole inner packet. SIZE counts what is inside it.",
    },
    (
        "The letter goes into another letter: outer Ethernet, IP, UDP and VXLAN headers make 50 bytes.",
        "So the inner packet may have 1500 less 50 bytes in all.",
        "From that take the ping's own headers: 20 and 8.",
    ),
)

# -- predict: the port of the tunnel -----------------------------------------------------------------------------------


def walled() -> Cluster:
    """Return the shop where node-2's firewall drops what it does not know: UDP 8472."""
    world = shop()
    commands.apply(world.network, "iptables -A INPUT -p udp -m udp --dport 8472 -j DROP", "node-2")
    return world


def _wall() -> Outcome:
    world = walled()
    near, other = far(world, "node-1"), far(world, "node-2")
    same = world.connect("frontend", f"tcp://{near}:8080")
    across = world.connect("frontend", f"tcp://{other}:8080")
    node = world.connect("node/node-1", "tcp://192.168.1.20:10250")
    seen = (same.delivered, across.delivered, node.delivered)
    key = {(True, False, True): "across", (False, False, False): "all", (True, True, True): "none"}.get(
        seen, "other"
    )
    return Outcome(
        key,
        f"To the pod on its own node: {same.verdict}. To the pod on node-2: {across.verdict}; {across.why}, at "
        f"{across.place.netns}. From node to node: {node.verdict}. The tunnel's packets are ordinary UDP to "
        "port 8472, and a firewall between nodes has to let them through.",
        across,
    )


WALL = predict(
    "06-wall",
    "A careful firewall",
    "Somebody secures node-2: its firewall now drops UDP port 8472, which nobody recognised. What stops working for "
    "frontend on node-1?",
    {
        "all": "All calls to pods",
        "across": "Calls to pods on node-2; those on its own node are well, and so is ssh to node-2",
        "node": "Calls to node-2 itself",
        "none": "Nothing: pods use TCP ports 80 and 8080",
    },
    _wall,
    {
        "all": "A neighbour on the same node is reached by the bridge. No tunnel is involved.",
        "node": "Calls to the node itself need no tunnel: they are ordinary packets from card to card.",
        "none": "What is the outer packet that carries those TCP packets from node to node?",
    },
    (
        "Which calls travel in a letter in a letter?",
        "Only those between different nodes.",
        "And what does the caller of a packet that is dropped in silence see?",
    ),
)

# -- predict and do: the black hole ------------------------------------------------------------------------------------


def narrow() -> Cluster:
    """Return the shop where node-1's network card takes 1400 bytes, and nobody told the tunnel."""
    world = shop()
    commands.apply(world.network, "ip link set eth0 mtu 1400", "node-1")
    return world


def _hole() -> Outcome:
    world = narrow()
    small, big = ping(world, 56), ping(world, 1400, df=True)
    key = (
        "hang"
        if small.delivered and big.verdict == "timed out"
        else "error"
        if small.delivered
        else "nothing"
    )
    return Outcome(
        key,
        f"56 bytes: {small.verdict}. 1400 bytes: {big.verdict}; {big.why}, at {big.place.netns}. The "
        "handshake of a connection is made of small packets, so `curl` connects, sends its request, and "
        "then waits for an answer that is too big to arrive. This is called an MTU black hole.",
        big,
    )


HOLE = predict(
    "06-hole",
    "A narrower wire",
    "node-1 gets a network card that takes only 1400 bytes (a VPN, a provider's network...). Flannel was "
    "not told. What do frontend's users notice?",
    {
        "nothing": "Nothing works between the nodes any more",
        "hang": "Small requests work; big answers never arrive, and nobody says why",
        "error": "Big packets fail with “message too long”",
    },
    _hole,
    {
        "nothing": "Most packets are far smaller than 1400 bytes.",
        "error": "Somebody has to notice and to say so: the inner sender only sees its own MTU, and that is as it was.",
    },
    (
        "The pods' MTU is still 1450, so pods still make packets of 1450 bytes.",
        "Wrapped up they are 1500. What happens where they meet a card that takes 1400?",
        "The outer packet is lost at the card, and the error does not reach the one who sent the inner packet.",
    ),
)


def _judge_mend(answer: Any) -> Finding:
    world = narrow()
    commands.apply(world.network, answer, "node-1")
    back = backend_on(world, "node-2").name
    own = world.pod("frontend").ips[0]
    for size in (56, 1300, 1400, 1422):
        for who, trip in (
            ("frontend", world.ping("frontend", far(world), size=size)),
            ("the backend on node-2", world.ping(back, own, size=size)),
        ):
            if not trip.delivered and trip.verdict != "message too long":
                why = f"{trip.why.capitalize()}, at {trip.place.netns}"
                return Finding(False, f"A ping of {size} bytes from {who}: {trip.verdict}. {why}.", trip)
    return Finding(
        True,
        "No packet is lost in silence any more, in either direction. The largest ping that needs no "
        f"fragmentation has {largest(world)} bytes.",
        ping(world, 1400),
    )


MEND = Exercise(
    id="06-mend",
    kind=DO,
    title="Fill the hole",
    task="Mend it: no packet between the pods of node-1 and node-2 may vanish any more. Pings of any size "
    "up to 1422 bytes must be answered, or their sender must be told that they are too big; in both "
    "directions. You may change the MTU of links on any node: `ip link set DEV mtu N`.",
    judge=_judge_mend,
    hints=(
        "Either the card takes more, or what is sent to it is smaller. Both are mends.",
        "The tunnel is `flannel.1`. Its packets become 50 bytes longer on the wire.",
        "It is not only about what node-1 sends: node-2's big answers are lost at node-1's card just the same.",
    ),
    template="on node-1\n# ip link set DEV mtu N\n",
)

# -- predict: a policy that nobody reads -------------------------------------------------------------------------------


def locked() -> Cluster:
    """Return the shop with a NetworkPolicy that lets only backends call the database."""
    world = shop()
    world.apply(LOCK)
    return world


def _inert() -> Outcome:
    world = locked()
    trip = world.connect("frontend", "tcp://database:5432")
    stored = world.store.find("NetworkPolicy", "lock-the-database", "default") is not None
    key = "open" if trip.delivered and stored else "closed" if stored else "refused"
    return Outcome(
        key,
        f"The API server stores the policy, and frontend's call to the database: {trip.verdict}. flanneld "
        "does not look at policies, and no error tells you so. Whoever wants them needs an agent beside it "
        "(Flannel's chart can install one since 0.25.5) or another network.",
        trip,
    )


INERT = predict(
    "06-policy",
    "A lock on the database",
    "You apply a NetworkPolicy that lets only `backend` pods call `database`. The network is Flannel as it "
    "comes. Then frontend calls the database.",
    {
        "refused": "The API server refuses the policy: this network cannot do it",
        "closed": "The call is blocked",
        "open": "The policy is stored, and the call goes through",
    },
    _inert,
    {
        "refused": "The API server knows nothing about what the network can do. It stores valid objects.",
        "closed": "Somebody would have to turn the policy into rules on the nodes. Who would that be here?",
    },
    (
        "A NetworkPolicy is an object in the API. It does nothing by itself.",
        "What does flanneld watch? Nodes.",
        "So who reads the policy?",
    ),
)

# -- recall (05): host-gw ----------------------------------------------------------------------------------------------


def _host_gw() -> Outcome:
    world = shop(cni="flannel-host-gw")
    node = world.network.ns("node-1")
    lines = [line for line in ip_route.show(node).splitlines() if line.startswith("10.244.1.0/24")]
    line = lines[0] if lines else ""
    key = "node" if "via 192.168.1.20" in line else "tunnel" if "flannel" in line else "none"
    return Outcome(
        key,
        f"node-1's row: `{line}`. No tunnel, no outer letter, no smaller MTU: the other node itself is the "
        "next hop. That is the table you wrote by hand in notebook 05. It works between neighbours on one wire.",
    )


HOST_GW = predict(
    "06-recall",
    "Once more, from notebook 05: without a tunnel",
    "Flannel has another backend, `host-gw`. It makes no tunnel at all. What does node-1's route to the "
    "pods of node-2 (10.244.1.0/24) look like then?",
    {
        "node": "via 192.168.1.20, node-2's own address",
        "tunnel": "via 10.244.1.0, through flannel.1",
        "none": "There is none: the default route to the router does it",
    },
    _host_gw,
    {
        "tunnel": "That is the row of the VXLAN backend, which has a tunnel to send things through.",
        "none": "The router knows nothing of pods, unless somebody tells it.",
    },
    (
        "The name says it: the *host* is the gateway.",
        "Which host is the gateway to node-2's pods?",
        "You wrote that row yourself in notebook 05.",
    ),
)

EXERCISES = (SIZE, HOLE, MEND, WALL, INERT, HOST_GW)
