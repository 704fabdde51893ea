"""Exercises of 04_same_node."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.course.steer import toward
from kubenet_lab.packet.packet import Arp, Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.views.words import short

NODE, SERVICE = "node-1", "http://10.96.0.100"
BRIDGE_NF = "net.bridge.bridge-nf-call-iptables"


def neighbour(world: Cluster) -> str:
    """Return the address of the backend pod on frontend's own node."""
    return str(backend_on(world, NODE).ips[0])


def to_neighbour(world: Cluster) -> Trip:
    """Return frontend's call to its neighbour on node-1, by address."""
    return world.connect("frontend", f"tcp://{neighbour(world)}:8080")


def by_service(world: Cluster, source: str, node: str) -> Trip:
    """Return a call to the Service for which chance picked the backend on a node."""
    return world.connect(source, SERVICE, choose=toward(world, backend_on(world, node).ips[0]))


def to_itself(world: Cluster) -> Trip:
    """Return the call of the backend on node-1 to its own Service, when it draws itself."""
    return by_service(world, backend_on(world, NODE).name, NODE)


def port_of(world: Cluster) -> str:
    """Return the bridge port behind which the backend on node-1 is: the node's end of its veth pair."""
    peer = world.network.ns(f"default/{backend_on(world, NODE).name}").link("eth0").peer
    assert peer is not None
    return peer.link


def set_hairpin(world: Cluster, on: bool) -> None:
    """`bridge link set dev vethX hairpin on|off` for the backend's port."""
    commands.apply(
        world.network, f"bridge link set dev {port_of(world)} hairpin {'on' if on else 'off'}", NODE
    )


def set_bridge_nf(world: Cluster, on: bool) -> None:
    """`sysctl -w net.bridge.bridge-nf-call-iptables=1|0` on node-1."""
    commands.apply(world.network, f"sysctl -w {BRIDGE_NF}={int(on)}", NODE)


def pods_on(world: Cluster, node: str) -> set[str]:
    """Return the namespaces of the pods on a node that have a network of their own."""
    return {ns.name for ns in world.network.netns.values() if ns.host == node and ns.name != node}


# -- predict: who hears the question -----------------------------------------------------------------------------------


def _hears() -> Outcome:
    world = shop()
    trip = to_neighbour(world)
    heard = {
        c.netns
        for c in trip.captures()
        if isinstance(c.frame.body, Arp)
        and c.frame.body.op == "request"
        and c.direction == "in"
        and c.link == "eth0"
    }
    here = pods_on(world, NODE)
    target = f"default/{backend_on(world, NODE).name}"
    key = "one" if heard == {target} else "bridge" if heard == here else "all" if heard > here else "other"
    names = ", ".join(short(f"pod {name}") for name in sorted(heard))
    return Outcome(
        key,
        f"The question arrived at {names}: every pod of node-1. The bridge sends a broadcast out of all its ports. "
        "(frontend hears itself, because Flannel's ports are in hairpin mode; without it, all but the asker.) One "
        "answered: the one that has the address.",
        trip,
    )


HEARS = predict(
    "04-hears",
    "Who has 10.244.0.4?",
    "frontend knows its neighbour's address, 10.244.0.4, and needs its MAC to write on the frame. So it "
    "asks, by ARP: “Who has 10.244.0.4? Tell 10.244.0.2.” Which pods hear the question? (node-1 runs "
    "frontend, one backend and one CoreDNS pod.)",
    {
        "one": "Only the backend pod on node-1: the bridge knows where it is",
        "bridge": "All pods on node-1",
        "all": "All pods of the cluster",
    },
    _hears,
    {
        "one": "If the asker knew where to send the question, it would not have to ask. To which MAC is it sent?",
        "all": "A broadcast goes as far as the wire goes. The tunnel to the other nodes is no port of this bridge.",
    },
    (
        "The question is sent to the MAC ff:ff:ff:ff:ff:ff.",
        "A bridge is a switch. What does a switch do with a broadcast?",
        "Which ports has the bridge `cni0`? `bridge link` on node-1 lists them.",
    ),
)

# -- predict: a forgotten entry ----------------------------------------------------------------------------------------


def _forgotten() -> Outcome:
    world = shop()
    to_neighbour(world)
    space = world.network.ns(NODE)
    pod = f"default/{backend_on(world, NODE).name}"
    space.delete_fdb(port_of(world), world.network.ns(pod).link("eth0").mac)
    trip = to_neighbour(world)
    reached = {
        c.netns
        for c in trip.captures()
        if isinstance(c.frame.body, Packet) and c.direction == "in" and c.link == "eth0"
    }
    strangers = reached - {pod, "default/frontend"}
    key = "lost" if not trip.delivered else "flood" if strangers else "arp"
    names = ", ".join(short(f"pod {name}") for name in sorted(strangers))
    return Outcome(
        key,
        f"{trip.verdict.capitalize()}. The bridge did not know the port, and sent the first packet out of "
        f"all of them: {names or 'nobody else'} got a copy and dropped it. With the answer the bridge "
        "learned the port again. A switch that has forgotten something is slow for a moment, never broken.",
        trip,
    )


FORGOTTEN = predict(
    "04-forgotten",
    "The switch forgets",
    "The bridge's forwarding table (FDB) says behind which port each MAC is. We delete the backend's line: "
    "`bridge fdb del 0a:87:... dev veth7b5a6b28 master`. frontend still knows the MAC. It calls again. What "
    "happens? (In notebook 00 a missing line of another FDB, the tunnel's, broke all calls to a node.)",
    {
        "lost": "The call times out, as in notebook 00",
        "flood": "It works: the bridge sends the packet out of all ports",
        "arp": "It works: the bridge asks by ARP who has that MAC",
    },
    _forgotten,
    {
        "lost": "The tunnel's table is written by an agent, and the tunnel does not learn. Who writes the "
        "bridge's table?",
        "arp": "ARP asks for the MAC of an IP address. And a bridge does not know of IP addresses.",
    },
    (
        "A bridge learns: from each frame that comes in, it notes sender and port.",
        "What did it do with the very first frame, when its table was empty?",
        "It has no other choice than to try everywhere.",
    ),
)

# -- predict: bridged packets past iptables ----------------------------------------------------------------------------


def _unseen() -> Outcome:
    world = shop()
    set_bridge_nf(world, False)
    direct = to_neighbour(world)
    near, far = by_service(world, "frontend", NODE), by_service(world, "frontend", "node-2")
    works = (direct.delivered, near.delivered, far.delivered)
    key = {
        (True, True, True): "none",
        (False, False, True): "direct",
        (True, False, True): "near",
        (True, False, False): "all",
    }.get(works, "other")
    return Outcome(
        key,
        f"To the neighbour by its address: {direct.verdict}. To the Service, when chance picks the neighbour: "
        f"{near.verdict}. To the Service, when it picks node-2: {far.verdict}. The neighbour answers "
        "frontend directly, by the bridge, under its own address. Nobody puts the Service's address back, "
        "and frontend is not waiting for an answer from that pod.",
        near,
    )


UNSEEN = predict(
    "04-unseen",
    "Past iptables",
    f"A bridge does not look at IP, and iptables does not look at bridged frames, unless `{BRIDGE_NF}` is "
    "1. On node-1 somebody sets it to 0. Which of frontend's calls fail now?",
    {
        "direct": "All calls to its neighbour on node-1",
        "near": "Calls to the Service, when chance picks the neighbour on node-1",
        "all": "All calls to the Service",
        "none": "None",
    },
    _unseen,
    {
        "direct": "A call by the pod's own address needs no rule: nothing is rewritten.",
        "all": "Follow the *first* packet of a call to 10.96.0.100: its next hop is the gateway, so it is "
        "routed, not bridged, and iptables sees it.",
        "none": "Follow the *answer*: from pod to pod on one bridge. Who has to see it?",
    },
    (
        "frontend calls 10.96.0.100. A rule on node-1 rewrites that to 10.244.0.4. Who rewrites the answer's sender?",
        "The answer goes from 10.244.0.4 to 10.244.0.2: two neighbours in one /24.",
        "An answer from node-2 is routed on node-1. One from the neighbour is not.",
    ),
)

# -- do: mend it -------------------------------------------------------------------------------------------------------


def deaf() -> Cluster:
    """Return the shop where node-1's bridge lets answers pass unseen and no packet go back where it came from."""
    world = shop()
    set_bridge_nf(world, False)
    set_hairpin(world, False)
    return world


def _judge_mend(answer: Any) -> Finding:
    if isinstance(answer, Cluster):
        world = answer
    else:
        world = deaf()
        commands.apply(world.network, answer)
    trips = {
        "frontend to its neighbour, by address": to_neighbour(world),
        "frontend to the Service, when it draws its neighbour": by_service(world, "frontend", NODE),
        "frontend to the Service, when it draws node-2": by_service(world, "frontend", "node-2"),
        "the backend to the Service, when it draws itself": to_itself(world),
    }
    failing = [label for label, trip in trips.items() if not trip.delivered]
    if failing:
        trip = trips[failing[0]]
        done = len(trips) - len(failing)
        return Finding(
            False, f"{done} of {len(trips)} kinds of calls work. Not yet: {failing[0]}: {trip.verdict}.", trip
        )
    last = trips["the backend to the Service, when it draws itself"]
    return Finding(True, "All four kinds of calls work, that of a pod to itself too.", last)


MEND = Exercise(
    id="04-mend",
    kind=DO,
    title="The remedy and its price",
    task="On node-1 frontend's calls to the Service `backend` (10.96.0.100) time out now and then: when "
    "chance picks the backend pod on its own node. That pod's port at the bridge is `veth7b5a6b28`. Write "
    "the commands that mend it. In the end all four kinds of calls of the table above must work.",
    judge=_judge_mend,
    hints=(
        "The answer has to be shown to iptables. Which setting does that?",
        "And then? Compare the rows of the table: which call fails with the one setting on and the other off?",
        "`sysctl -w KEY=VALUE` is one command, `bridge link set dev PORT ...` the other.",
    ),
    template="on node-1\n",
    world=deaf,
)

# -- predict: the network card -----------------------------------------------------------------------------------------


def _unplugged() -> Outcome:
    world = shop()
    world.network.ns(NODE).set_carrier("eth0", False)
    near = to_neighbour(world)
    far = world.connect("frontend", f"tcp://{backend_on(world, 'node-2').ips[0]}:8080")
    key = {(True, False): "far", (False, False): "both", (True, True): "none"}.get(
        (near.delivered, far.delivered), "other"
    )
    links = {(c.netns, c.link) for c in near.captures()}
    return Outcome(
        key,
        f"To the neighbour: {near.verdict}. To node-2: {far.verdict}. On the whole way between the neighbours "
        f"node-1's eth0 saw {'a frame' if (NODE, 'eth0') in links else 'no frame'}.",
        near,
    )


UNPLUGGED = predict(
    "04-unplugged",
    "Without a network card",
    "The document gives the speed between two pods of one node as that of the node's network card (NIC). Let us pull "
    "the cable out of node-1's `eth0`. Which of frontend's calls still work?",
    {
        "far": "Those to its neighbour on node-1",
        "both": "None",
        "none": "All",
    },
    _unplugged,
    {
        "both": "Look at the picture at the top: which devices did the packet meet between the two pods?",
        "none": "node-2 is another machine, and something has to carry the frame there.",
    },
    (
        "Step through the first call of this notebook again. Was there a network card in it?",
        "veth and bridge are software: a frame is a piece of memory that is handed on.",
        "The cable leads to the other machines.",
    ),
)

# -- recall (02): as whom ----------------------------------------------------------------------------------------------


def _itself() -> Outcome:
    world = shop()
    trip = to_itself(world)
    own = neighbour(world)
    key = {own: "own", "192.168.1.10": "node", "10.244.0.1": "bridge", "10.96.0.100": "service"}.get(
        trip.source_seen, "other"
    )
    return Outcome(
        key,
        f"It was called by {trip.source_seen}: the bridge's address, node-1 in the pods' network. Two "
        "things are needed for a pod to meet itself: a rule that lends it another sender (or it would answer itself "
        "directly), and a bridge port that lets a packet back out where it came in (hairpin).",
        trip,
    )


RECALL = predict(
    "04-recall",
    "Once more, from notebook 02: a pod that meets itself",
    "The backend pod on node-1 (10.244.0.4) calls its own Service, and chance picks itself. As whom does it see the "
    "caller?",
    {
        "own": "10.244.0.4: as itself",
        "bridge": "10.244.0.1, the bridge's address",
        "node": "192.168.1.10, the node's address",
        "service": "10.96.0.100, the Service's address",
    },
    _itself,
    {
        "own": "A machine that gets a packet from its own address from outside throws it away.",
        "node": "Nearly: it is node-1. But which of its addresses? It takes that of the device by which the "
        "packet leaves.",
        "service": "That was the *destination*, before a rule rewrote it.",
    },
    (
        "Notebook 02 had this call in its table of seven ways.",
        "The sender is replaced when the packet leaves node-1 again. By which device does it leave, towards the pod?",
        "`ip addr show cni0` on node-1.",
    ),
)

EXERCISES = (HEARS, FORGOTTEN, UNSEEN, MEND, UNPLUGGED, RECALL)
