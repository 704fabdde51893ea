"""Exercises of 13_there_and_back."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.lessons.nb13 import ADDRESS, NODE, Talk, apart, flush_nat, forget, stages
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.course.steer import toward
from kubenet_lab.packet.packet import TCP
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip

# -- predict: whose address stands on the reply --------------------


def _sender() -> Outcome:
    found = stages(shop())
    sixth, last = found.rows[5], found.rows[7]
    leaves, arrives = sixth.packet.partition(" > ")[0], last.packet.partition(" > ")[0]
    key = "service" if leaves.startswith(ADDRESS) else "pod"
    return Outcome(
        key,
        f"The pod sends it as {leaves}: that is the address it was called at, as far as it knows. It "
        f"arrives as "
        f"{arrives}. Between the two, on {NODE}, somebody changed the sender.",
        found,
    )


SENDER = predict(
    "13-sender",
    "The sender of the answer",
    "`frontend` has called 10.96.0.100:80 and the packet has reached a backend pod, 10.244.1.3:8080. "
    "The pod answers. "
    "Which sender stands on the answer when it leaves the pod?",
    {
        "service": "10.96.0.100:80, the address that was called",
        "pod": "10.244.1.3:8080, the pod's own",
        "node": "Its node's address",
    },
    _sender,
    {
        "service": "How could the pod know that address? The packet that reached it had 10.244.1.3:8080 "
        "written on it.",
        "node": "That would be a second rewrite, on the pod's node. Nobody asked for one: the caller is a pod.",
    },
    (
        "What does the packet look like when the pod gets it? (Stage 5.)",
        "A program answers from the address at which it was called.",
        "It was called at its own address: the rewrite had happened long before.",
    ),
)


# -- predict: flush nat mid-connection --------------------


def _flushed() -> Outcome:
    world = shop()
    talk = Talk(world)
    flush_nat(world)
    back, there = talk.answer(), talk.ask()
    fresh = world.connect("frontend", f"http://{ADDRESS}")
    goes_on = back.delivered and there.delivered
    return Outcome(
        "goes on" if goes_on and not fresh.delivered else "dies" if not goes_on else "both",
        f"The open connection goes on: its next words arrive both ways. A new call is {fresh.verdict}. "
        f"Rules are asked "
        "for a connection's first packet only; after that the table of connections knows what to do.",
        talk,
    )


FLUSH = predict(
    "13-flush",
    "Flush the rules",
    "`frontend` has a connection open to the Service. On node-1 somebody types `iptables -t nat -F; "
    "iptables -t nat -X`: "
    "every rule of kube-proxy's in that table is gone. What happens?",
    {
        "dies": "The open connection breaks, and new calls fail",
        "goes on": "The open connection goes on, and new calls fail",
        "both": "Nothing: kube-proxy writes the rules anew at once",
    },
    _flushed,
    {
        "dies": "Which packets of a connection are shown to the nat table's rules?",
        "both": "kube-proxy looks for its canary chain every 30 seconds, and `-F` does not even take "
        "that away.",
    },
    (
        "In notebook 12: for which packets is the nat table asked?",
        "Only for the first one of a connection. Where does the kernel keep what it decided then?",
        "In the table of connections, and nobody flushed that.",
    ),
)


# -- predict: the entry is deleted --------------------


def _forgotten() -> Outcome:
    world = shop()
    talk = Talk(world)
    forget(talk)
    back = talk.answer()
    reset = any(trace.packet.proto == TCP and trace.packet.flags & 4 for trace in back.caused)
    arrived = back.place.netns == "default/frontend"
    source = back.hops[-1].packet.src
    key = "stranger" if arrived and reset and source != ADDRESS else "same" if back.delivered else "lost"
    return Outcome(
        key,
        f"It arrives at frontend as it left the pod, from {source}. frontend has no connection with "
        f"that address, and "
        "its kernel answers with RST. Rules could not help: none of them rewrites answers.",
        talk,
    )


FORGET = predict(
    "13-forget",
    "Delete the memory",
    "Again a connection is open. On node-1 somebody deletes its entry: `conntrack -D`. All rules are in "
    "place. Then the "
    "backend sends the next piece of its answer. What does `frontend` get?",
    {
        "same": "The piece, from 10.96.0.100 as before: the rules are all there",
        "stranger": "A packet from an address it never called, which it resets",
        "lost": "Nothing: the node drops what it does not know",
    },
    _forgotten,
    {
        "same": "Look for a rule that turns 10.244.1.3:8080 back into 10.96.0.100:80. (`iptables-save | "
        "grep 10.96.0.100`)",
        "lost": "The node routes any packet from pod to pod; to do so it needs no connection.",
    },
    (
        "Which rule would put the Service's address back?",
        "There is none. So what is the sender when the packet arrives?",
        "frontend waits for an answer from 10.96.0.100:80. What does a kernel do with a TCP packet of "
        "no connection?",
    ),
)


# -- predict: who sees whom --------------------


def _callers(world: Cluster) -> dict[str, tuple[str, str]]:
    """Caller -> (the address it calls from, the address the server sees)."""
    own = backend_on(world, NODE)
    trips: dict[str, Trip] = {
        "frontend": world.connect("frontend", f"http://{ADDRESS}", choose=toward(world, own.ips[0])),
        "itself": world.connect(own.name, f"http://{ADDRESS}", choose=toward(world, own.ips[0])),
        "node": world.connect(
            "node/node-1", f"http://{ADDRESS}", choose=toward(world, backend_on(world, "node-2").ips[0])
        ),
    }
    out = {}
    for name, trip in trips.items():
        assert trip.exchange is not None
        out[name] = (trip.exchange.request.hops[0].packet.src, trip.exchange.source_seen)
    return out


def _sees() -> Outcome:
    found = _callers(shop())
    true = [name for name, (own, seen) in found.items() if own == seen]
    words = "; ".join(f"{name} calls from {own} and is seen as {seen}" for name, (own, seen) in found.items())
    return Outcome(
        "pod" if true == ["frontend"] else "all" if len(true) == 3 else "none" if not true else "some",
        f"{words}. A pod's source is left alone. A caller that is no pod, and a pod that meets itself, "
        f"are masqueraded, "
        "so that the answer comes back by the node that holds the entry.",
    )


SEES = predict(
    "13-sees",
    "Whom does the server see?",
    "Three callers call the Service: the pod `frontend`; a program on node-1 itself; and the backend on "
    "node-1, which "
    "happens to get itself. Which of them is seen by the address it calls from?",
    {
        "all": "All three: only the destination is rewritten",
        "pod": "The pod frontend, and nobody else",
        "some": "The pod frontend and the program on the node",
        "none": "None: the server sees a node in each case",
    },
    _sees,
    {
        "all": "That is true for pods. Remember the mark 0x4000 of notebook 12: who gets it?",
        "some": "`! -s 10.244.0.0/16` marks whoever calls from outside the pods' range. Is a node's "
        "address in it?",
        "none": "Then no server could tell pods apart, and no NetworkPolicy could name its callers.",
    },
    (
        "In notebook 12 two kinds of packets got the mark for masquerade. Which?",
        "Callers from outside the pods' range, and pods that meet themselves.",
        "So two of the three are masqueraded.",
    ),
)


# -- do: the answer that takes a short cut --------------------


def _judge_mend(answer: Any) -> Finding:
    world = apart()
    before = world.network.ns(NODE).sysctls.copy()
    commands.apply(world.network, answer, NODE)
    for node in ("node-1", "node-2", "node-3"):
        pod = backend_on(world, node)
        trip = world.connect("frontend", f"http://{ADDRESS}", choose=toward(world, pod.ips[0]))
        if not trip.delivered:
            return Finding(
                False,
                f"A call that gets the backend on {node} still ends as “{trip.verdict}” ({trip.why}).",
                trip,
            )
        assert trip.exchange is not None
        if trip.exchange.request.delivered_as is not None and node == NODE:
            seen = trip.exchange.source_seen
            changed = world.network.ns(NODE).sysctls != before
            own = world.pod("frontend").ips[0]
            if not changed and seen != own:
                return Finding(
                    True,
                    f"It works: the backend next door now sees {seen} as its caller and answers to the "
                    f"node, so the "
                    "answer has to come by. The price: it no longer sees who calls. The usual cure is "
                    "the sysctl that "
                    "shows bridged packets to iptables.",
                    trip,
                )
    return Finding(
        True,
        "All calls arrive, and the backend next door sees its true caller. The bridge shows its packets "
        "to iptables and "
        "conntrack again, so the answer meets the entry that turns its sender back.",
    )


MEND = Exercise(
    id="13-mend",
    kind=DO,
    title="The short cut",
    task="On node-1 a setting is off, and calls to the Service time out whenever chance picks the "
    "backend on the "
    "caller's own node. Mend it with commands on node-1, so that `frontend` reaches all three backends.",
    judge=_judge_mend,
    hints=(
        "Step through a call that fails. Who gets the pod's answer, and what is its sender?",
        "Both pods are on one bridge: the answer is handed from port to port and never routed. Who "
        "would have to see it?",
        "br_netfilter shows bridged packets to iptables. Its sysctl is `net.bridge.bridge-nf-call-iptables`.",
    ),
    template="on node-1\n# sysctl -w KEY=VALUE, or rules\n",
    world=apart,
)


# -- find: what was lost --------------------


def _lost() -> Cluster:
    """The shop where node-1's nat rules of the Service are gone, as after `iptables -t nat -F`."""
    world = shop()
    flush_nat(world)
    return world


def _judge_lost(answer: Any) -> Finding:
    choice, text = answer["choice"], answer["text"]
    supposed = shop()
    if choice == "sysctl":
        supposed = apart()
    elif choice == "pod":
        pod = backend_on(supposed, "node-2")
        space = supposed.network.ns(f"default/{pod.name}")
        for group in list(space.sockets.values()):
            for socket in group:
                space.close(socket)
    elif choice == "rules":
        flush_nat(supposed)
    else:
        supposed.network.ns(NODE).conntrack.flush()
    real = _lost()
    for source in ("frontend", backend_on(real, "node-2").name):
        seen = {real.connect(source, f"http://{ADDRESS}").verdict for _ in range(12)}
        would = {supposed.connect(source, f"http://{ADDRESS}").verdict for _ in range(12)}
        if seen != would:
            told, found = " or ".join(sorted(would)), " or ".join(sorted(seen))
            return Finding(False, f"With that, calls from {source} would be: {told}. But they are: {found}.")
    world = _lost()
    commands.apply(world.network, text, NODE)
    calls = [world.connect("frontend", f"http://{ADDRESS}") for _ in range(9)]
    failed = next((trip for trip in calls if not trip.delivered), None)
    if failed is not None:
        return Finding(
            False, f"The cause is found. A new call still ends as “{failed.verdict}” ({failed.why}).", failed
        )
    return Finding(
        True,
        "Found and mended by hand, for one Service. A restart of kube-proxy on that node would have "
        "written all of them "
        "anew; left alone it does so after an hour, because `-F` leaves its canary chain where it is.",
    )


LOST = Exercise(
    id="13-find",
    kind=FIND,
    title="What was lost?",
    task='`ward = exercise("13-find").world()` is a shop in which connections that were open go on, and new calls '
    "from one node fail. Name what was lost, and write rules (a DNAT to one backend is enough) that let `frontend` "
    "call 10.96.0.100:80 again.",
    judge=_judge_lost,
    hints=(
        "Call 10.96.0.100 from a pod on each node. Then `iptables -t nat -S` and `conntrack -L` on each.",
        "A connection's first packet needs a rule; all others need an entry. Which of the two is missing?",
        "`iptables -t nat -A PREROUTING -d 10.96.0.100 -p tcp --dport 80 -j DNAT --to-destination POD:8080`",
    ),
    choices=(
        Choice("rules", "node-1's nat rules"),
        Choice("entries", "node-1's table of connections"),
        Choice("sysctl", "node-1's bridge no longer shows its packets to iptables"),
        Choice("pod", "the backend on node-2 does not listen"),
    ),
    template="on node-1\n",
    world=_lost,
)


# -- again: across nodes --------------------


def _which_entry() -> Outcome:
    world = shop()
    talk = Talk(world, "node-3")
    ports = {talk.opened.request.hops[0].packet.sport}
    entries = {
        node: [
            flow for flow in world.network.ns(node).conntrack if flow.orig[3] in ports and flow.orig[0] == TCP
        ]
        for node in ("node-1", "node-2", "node-3")
    }
    changed = [node for node, flows in entries.items() if any(flow.dst_nat for flow in flows)]
    have = [node for node, flows in entries.items() if flows]
    key = "caller" if changed == ["node-1"] else "server" if changed == ["node-3"] else "both"
    return Outcome(
        key,
        f"{' and '.join(have)} have an entry for the connection, and only {' and '.join(changed)}'s "
        f"says that something "
        "was rewritten. The other sees a call from pod to pod.",
        talk,
    )


RECALL = predict(
    "13-recall",
    "Once more: across nodes",
    "`frontend` on node-1 calls the Service and gets the backend on node-3. Which node's entry turns "
    "the answer's sender "
    "back into 10.96.0.100?",
    {
        "caller": "node-1's, where the caller lives",
        "server": "node-3's, where the answer starts",
        "both": "Both do half of it",
    },
    _which_entry,
    {
        "server": "In notebook 12 you saw where the destination was rewritten. An entry can only undo "
        "what it has seen.",
        "both": "On node-3 the packet arrived with the pod's address on it. What would there be to undo?",
    },
    (
        "Where was the destination rewritten? (12-recall)",
        "The node that rewrote it wrote down how to undo it.",
        "Rules and entry are on the same node.",
    ),
)


EXERCISES = (SENDER, FLUSH, FORGET, SEES, MEND, LOST, RECALL)
