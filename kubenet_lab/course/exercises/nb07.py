"""Exercises of 07_calico."""

from __future__ import annotations

from typing import Any

from kubenet_lab.bgp.session import ESTABLISHED
from kubenet_lab.cluster import Cluster
from kubenet_lab.cni.calico.network import Calico
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb06 import LOCK, far, largest
from kubenet_lab.course.judges import Outcome, contradiction, predict, still_failing, symptoms
from kubenet_lab.course.judges import pod_probes as probes_of
from kubenet_lab.course.sheet import FIND, Choice, Exercise, Finding
from kubenet_lab.objects.node import Node
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.trip import Trip

API = "apiVersion: projectcalico.org/v3\n"
WALL = (
    "iptables -I INPUT -p tcp -m tcp --dport 179 -j DROP\niptables -I INPUT -p tcp -m tcp --sport 179 -j DROP"
)
"""A firewall that refuses BGP, in both directions of a session."""
LABEL, CLUSTER_ID = "node-role.kubernetes.io/master", "projectcalico.org/RouteReflectorClusterID"
MESH_OFF = (
    f"{API}kind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false}}\n"
)
TO_REFLECTORS = (
    f"{API}kind: BGPPeer\nmetadata: {{name: reflectors}}\n"
    f"spec:\n  nodeSelector: all()\n  peerSelector: has({LABEL})\n"
)


def daemons(world: Cluster) -> Calico:
    """Return Calico's daemons of a world."""
    network = world.pod_network
    assert isinstance(network, Calico)
    return network


def call(world: Cluster, node: str = "node-2") -> Trip:
    """Return frontend's call to the backend on a node, by its own address."""
    return world.connect("frontend", f"tcp://{far(world, node)}:8080")


def sessions(world: Cluster) -> int:
    """Return how many BGP sessions stand between nodes, each counted once."""
    ends = [
        one for bird in daemons(world).fabric.daemons.values() if bird.alive for one in bird.bgp_sessions()
    ]
    return sum(one.state == ESTABLISHED for one in ends) // 2


def learned(world: Cluster, node: str = "node-1") -> list[str]:
    """Return the blocks that a node has routes to by BGP."""
    table = world.network.ns(node).route_list(4)
    return [route.dst for route in table if route.proto == "bird" and route.via]


# -- predict: the size of a letter -------------------------------------------------------------------------------------


def _size() -> Outcome:
    found = {cni: largest(shop(cni=cni)) for cni in ("calico", "calico-ipip", "calico-vxlan")}
    size = found["calico-ipip"]
    world = shop(cni="calico-ipip")
    return Outcome(
        str(size),
        f"{size} bytes. IPIP puts a second IP header before the first and nothing else: 20 bytes. Without any "
        f"encapsulation it is {found['calico']}, with VXLAN {found['calico-vxlan']}.",
        world.ping("frontend", far(world), size=size),
    )


SIZE = predict(
    "07-size",
    "How big is this envelope?",
    "You install Calico with `calico.yaml`, as its pages tell you. The pool that it makes says `ipipMode: "
    "Always`: an IP packet in an IP packet, between all nodes. The wire carries 1500 bytes. What is the "
    "largest `ping -M do -s SIZE` to a pod of another node?",
    {"1472": "1472", "1452": "1452", "1422": "1422"},
    _size,
    {
        "1472": "That is the wire itself: 1500 less 28. But `Always` means that there is an outer header.",
        "1422": "So it is with VXLAN: Ethernet, IP, UDP and VXLAN headers. IPIP has fewer of them.",
    },
    (
        "What does the outer packet consist of? Only of what its name says.",
        "An IP header has 20 bytes. Notebook 06 had 50 bytes of outer headers.",
        "1500, less one outer IP header, less the ping's own 28.",
    ),
)

# -- predict: a session that is lost -----------------------------------------------------------------------------------


def walled() -> Cluster:
    """Return the shop where node-2's firewall has just begun to drop BGP."""
    world = shop(cni="calico")
    commands.apply(world.network, WALL, "node-2")
    return world


def lost_after(world: Cluster, limit: float = 600.0, step: float = 10.0) -> float | None:
    """Let time pass until frontend no longer reaches node-2's backend: the seconds, or None if it always does."""
    while world.now < limit:
        world.advance(step)
        if not call(world).delivered:
            return world.now
    return None


def _session() -> Outcome:
    world = walled()
    first = call(world)
    when = lost_after(world)
    trip = call(world)
    key = "now" if not first.delivered else "never" if when is None else "later"
    return Outcome(
        key,
        f"At once: {first.verdict}. After {when:.0f} seconds: {trip.verdict} ({trip.why}, at "
        f"{trip.place.netns}). BIRD on each side waits for a sign of life, up to the *hold time* (240 s "
        "here). Then it gives the session up and takes the neighbour's routes out of the kernel. Packets "
        "for node-2's pods then follow the default route, to a router that knows no pods.",
        trip,
    )


SESSION = predict(
    "07-session",
    "A firewall between two routers",
    "Calico without encapsulation. Somebody secures node-2: TCP port 179 is dropped from now on, in both "
    "directions. No pod uses that port. frontend on node-1 keeps calling the backend on node-2. What does it see?",
    {
        "never": "Nothing: the routes are in the kernel, and stay there",
        "now": "The call fails from now on",
        "later": "All is well for minutes, then the calls fail",
    },
    _session,
    {
        "never": "They would, if nobody took them out. Who wrote them, and what of a neighbour that is silent?",
        "now": "The packets of the call are not on port 179, and the routes they follow are still there.",
    },
    (
        "Port 179 is where BIRD speaks to BIRD. The pods' packets need only the routes.",
        "A BIRD that hears nothing for a while thinks that its neighbour is dead.",
        "What has it to do with the routes it learned from a dead neighbour?",
    ),
)

# -- predict: full mesh ------------------------------------------------------------------------------------------------


def cluster_of(nodes: int) -> Cluster:
    """Return the shop on so many nodes."""
    return shop(cni="calico", nodes=nodes)


def reflected(nodes: int = 6, reflectors: int = 1) -> Cluster:
    """Return the shop with reflectors in the place of the mesh: the first nodes, known by a label."""
    world = cluster_of(nodes)
    for number in range(1, reflectors + 1):
        node = world.store.get(Node, f"node-{number}")
        labels = dict(node.metadata.labels) | {LABEL: ""}
        notes = dict(node.metadata.annotations) | {CLUSTER_ID: "244.0.0.1"}
        world.store.update(node.with_metadata(labels=labels, annotations=notes))
    world.apply(TO_REFLECTORS + "---\n" + MESH_OFF)
    world.advance(30)
    return world


def _mesh() -> Outcome:
    counts = {n: sessions(cluster_of(n)) for n in (3, 6)}
    return Outcome(
        str(counts[6]),
        f"{counts[3]} sessions between 3 nodes, {counts[6]} between 6: each node speaks with each other, n "
        f"x (n - 1) / 2. With 1000 nodes it would be {1000 * 999 // 2:,}. With one *route reflector*, which "
        f"passes on what it hears, the 6 nodes need {sessions(reflected())}.",
    )


MESH = predict(
    "07-mesh",
    "How many conversations?",
    "By default every node's BIRD has a session with every other node's: a full mesh. 3 nodes have 3 "
    "sessions. How many have 6 nodes?",
    {"5": "5", "6": "6", "15": "15", "30": "30"},
    _mesh,
    {
        "5": "So it would be if all spoke to one of them only.",
        "6": "Count for 4 nodes on paper: it is more than 4 already.",
        "30": "Each of 6 has 5 neighbours, that is so. But two ends make one session.",
    },
    (
        "Draw 4 nodes as points and join each with each.",
        "Each of the n nodes has n - 1 neighbours.",
        "A line between two points is one line, seen from either end.",
    ),
)

# -- find: the label that somebody removed -----------------------------------------------------------------------------


def ward() -> Cluster:
    """Return a cluster some minutes after its upgrade: the label that names its reflector is gone."""
    world = reflected(4)
    node = world.store.get(Node, "node-1")
    labels = {key: value for key, value in node.metadata.labels.items() if key != LABEL}
    world.store.update(node.with_metadata(labels=labels))
    world.settle()
    world.advance(60)
    return world


def _only(change: str) -> Cluster:
    """Return the healthy cluster with one supposed cause in it."""
    world = reflected(4)
    if change == "label":
        return ward()
    if change == "felix":
        for node in world.store.list(Node):
            commands.apply(world.network, "iptables -I FORWARD -j DROP", node.name)
    elif change == "bird":
        daemons(world).bird("node-2").shutdown()
    elif change == "mtu":
        for node in world.store.list(Node):
            commands.apply(world.network, "ip link set eth0 mtu 1400", node.name)
    world.advance(60)
    return world


CAUSES = {
    "label": "No node is selected as a reflector any more, so there are no sessions and no routes",
    "bird": "BIRD on node-2 has stopped",
    "felix": "The nodes' firewalls drop everything that is passed on",
    "mtu": "The packets between the nodes are too big",
}


def _judge_label(answer: Any) -> Finding:
    broken = ward()
    asked = probes_of(broken, ("frontend", "database"))
    seen, supposed = symptoms(broken, asked), _only(answer["choice"])
    would = symptoms(supposed, probes_of(supposed, ("frontend", "database")))
    against = contradiction(seen, seen | would)
    if against:
        return Finding(False, against)
    broken.apply(answer["text"])
    broken.advance(60)
    wrong = still_failing(broken, probes_of(broken, ("frontend", "database")))
    if wrong:
        return Finding(
            False,
            f"That is the cause. But a minute after your YAML {len(wrong)} of {len(asked)} calls still "
            f"fail: {wrong[0]}. {sessions(broken)} BGP sessions stand.",
        )
    return Finding(
        True,
        f"All {len(asked)} calls work again, by {sessions(broken)} sessions. A label that nobody looked at held the "
        "network together: a selector in a BGPPeer asked for it, and the upgrade took it away.",
        call(broken),
    )


FOUND = Exercise(
    id="07-label",
    kind=FIND,
    title="After the upgrade",
    task='`ward = exercise("07-label").world()` is a cluster of four nodes with a route reflector on node-1. '
    "Last night it was upgraded. Since then pods of different nodes do not reach each other, and neighbours do. Look "
    "with `look(ward)`, name the cause, and write the YAML that mends it (`kubectl apply`). The BGPPeer as it "
    "stands is in the field; you may change it, or give other objects.",
    judge=_judge_label,
    hints=(
        "How many sessions does each BIRD have? Which routes are `proto bird` and have a `via`?",
        "The selector in the BGPPeer asks for a label. Compare it with the labels the nodes have now.",
        "Name the reflector by something that it still has. (The mesh alone does not bring it back: a node with a "
        "cluster id of reflectors is no part of the mesh.)",
    ),
    choices=tuple(Choice(key, text) for key, text in CAUSES.items()),
    template=TO_REFLECTORS,
    world=ward,
)

# -- predict: borrowing ------------------------------------------------------------------------------------------------

SMALL_POOL = (
    f"{API}kind: IPPool\nmetadata: {{name: small}}\n"
    "spec: {cidr: 10.244.0.0/28, blockSize: 29, natOutgoing: true}\n"
)
"""Sixteen addresses in two blocks of eight."""


def _pod(name: str, node: str) -> str:
    return (
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  nodeName: {node}\n"
        "  containers: [{name: web, image: web, ports: [{containerPort: 80}]}]\n"
    )


def crowded() -> Cluster:
    """Return a cluster with two blocks, taken by node-1 and node-2, and a pod that comes to node-3."""
    pods = _pod("first", "node-1") + _pod("other", "node-2") + _pod("late", "node-3")
    world = Cluster.from_files(SMALL_POOL + pods, nodes=3, cni="calico")
    world.advance(5)
    return world


def blocks(world: Cluster) -> list[tuple[str, str]]:
    """Return (node, block) of every block that is taken."""
    found = daemons(world).ipam.all_blocks()
    return sorted((block["affinity"].removeprefix("host:"), block["cidr"]) for block in found)


def block_of(world: Cluster, address: str) -> str:
    """Return the block an address is in."""
    from kubenet_lab.packet.ip import ip_int, prefix

    for _node, cidr in blocks(world):
        whole = prefix(cidr)
        if ip_int(address) & whole.mask == whole.net:
            return cidr
    return ""


def _borrow() -> Outcome:
    world = crowded()
    pod = world.pod("late")
    trip = world.connect("first", f"tcp://{pod.ips[0]}:80") if pod.ips else None
    owner = next(
        (name for name, block in blocks(world) if pod.ips and block == block_of(world, pod.ips[0])), ""
    )
    key = "borrow" if pod.ips and owner not in ("", "node-3") else "pending" if not pod.ips else "split"
    routes = ", ".join(dst for dst in learned(world) if dst.endswith("/32"))
    return Outcome(
        key,
        f"The pod got {pod.ips[0] if pod.ips else 'nothing'}, out of {owner}'s block. node-3 announces it by itself; "
        f"node-1 has a route for {routes or 'no single address'} more. A longer prefix wins, so its packets go "
        "to node-3.",
        trip,
    )


BORROW = predict(
    "07-borrow",
    "No block left",
    "A tiny pool: 16 addresses, cut into two blocks of 8. node-1 and node-2 have taken one each, and most of their "
    "addresses are free. Now a first pod comes to node-3. What happens?",
    {
        "pending": "The pod stays without an address: there is no block left",
        "split": "One of the blocks is cut in two halves, and node-3 gets one",
        "borrow": "The pod gets a single address out of another node's block",
    },
    _borrow,
    {
        "pending": "There are free addresses. It would be a pity not to use them (with `strictAffinity` it is so).",
        "split": "A block keeps its size for ever; other nodes have one route for all of it.",
    },
    (
        "A block belongs to a node, but it is only an affinity: a preference.",
        "Routing takes the longest prefix that fits. What is the longest there is?",
        "A route for one address (/32) wins over the route for the block that it is in.",
    ),
)

# -- two networks ------------------------------------------------------------------------------------------------------

ADDRESSES = {"node-1": "192.168.1.10", "node-2": "192.168.1.20", "node-3": "192.168.2.30"}
"""node-3 is in another network, behind the router."""


def two_networks(cni: str, proxy: str = "iptables", more: str = "") -> Cluster:
    """Return the shop with node-3 in another network than the others."""
    nodes = "".join(
        f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n"
        f"status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
        for name, address in ADDRESSES.items()
    )
    world = Cluster.from_files(MANIFEST, nodes + more, cni=cni, proxy=proxy)
    world.advance(5)
    return world


def cross_subnet() -> Cluster:
    """Return two networks with Calico's pool set to IPIP between networks only."""
    pool = (
        f"---\n{API}kind: IPPool\nmetadata: {{name: default-ipv4-ippool}}\n"
        "spec: {cidr: 10.244.0.0/16, ipipMode: CrossSubnet, natOutgoing: true}\n"
    )
    return two_networks("calico", more=pool)


# -- recall (06): the policy ------------------------------------------------------------------------------------------


def _policy() -> Outcome:
    world = shop(cni="calico")
    world.apply(LOCK)
    trip = world.connect("frontend", "tcp://database:5432")
    known = world.connect(backend_on(world, "node-1").name, "tcp://database:5432")
    key = "open" if trip.delivered else "all" if not known.delivered else "closed"
    return Outcome(
        key,
        f"frontend to the database: {trip.verdict}, by a rule on {trip.place.netns}. A backend to the database: "
        f"{known.verdict}. Felix, Calico's agent on each node, turns policies into rules of that node "
        "(iptables here; nftables, eBPF or Windows' own are choices).",
        trip,
    )


POLICY = predict(
    "07-recall",
    "Once more, from notebook 06: a lock on the database",
    "The same NetworkPolicy as in notebook 06 lets only `backend` pods call `database`. Now the network is Calico. "
    "frontend calls the database.",
    {
        "open": "The call goes through, as with Flannel",
        "closed": "The call is blocked, and backend's goes through",
        "all": "No pod reaches the database any more",
    },
    _policy,
    {
        "open": "With Flannel nobody read the policy. Does anybody here?",
        "all": "The policy names those who may call, and somebody does read it.",
    },
    (
        "Who has to read a policy, for it to have an effect?",
        "Calico's agent is called Felix, and it watches policies.",
        "And whom does the policy let in?",
    ),
)

EXERCISES = (SESSION, SIZE, MESH, FOUND, BORROW, POLICY)
