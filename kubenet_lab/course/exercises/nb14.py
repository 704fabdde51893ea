"""Exercises of 14_outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.control.cloud_lb import EXCLUDED
from kubenet_lab.control.cloud_lb_machine import NAME
from kubenet_lab.control.health import Check, ask
from kubenet_lab.course import commands
from kubenet_lab.course.judges import Outcome, contradiction, predict
from kubenet_lab.course.lessons.nb14 import address_of, node_dies
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.course.steer import toward
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.packet.packet import TCP, Frame, Packet
from kubenet_lab.scenarios.outside import CLIENT, outside
from kubenet_lab.views.outside_matrix import outside_matrix, seen_as
from kubenet_lab.views.words import short

# -- predict: who listens
# ----------------------------------------------------------------------------------------------


def _listeners() -> Outcome:
    world = outside(load_balancer="none")
    trip = world.connect(CLIENT, "tcp://192.168.1.10:30110")
    sockets = world.network.ns("node-1").sockets.get((TCP, 30110), ())
    key = {"kube-proxy": "proxy", "": "nobody"}.get(sockets[0].process if sockets else "", "pod")
    return Outcome(
        key,
        f"The call is {trip.verdict}, and `ss -lnt` on node-1 has no line with 30110. Nobody has to listen: a rule "
        "rewrites the destination before the kernel asks who wants the packet. (kube-proxy does listen on 10256, for "
        "health checks; and older versions also held a socket on every node port, only so that nobody else took it.)",
        trip,
    )


SOCKET = predict(
    "14-socket",
    "Who listens on port 30110?",
    "The Service `anywhere` has node port 30110, and a call from outside to node-1, port 30110, works. Which program "
    "listens on that port on node-1? (`ss -lnt` would show it.)",
    {
        "proxy": "kube-proxy, which passes the bytes on",
        "pod": "The web server in one of the pods",
        "kubelet": "The kubelet",
        "nobody": "No program at all",
    },
    _listeners,
    {
        "proxy": "Then every byte would go through a program of its own, as in kube-proxy's first versions. What does "
        "it write today?",
        "pod": "Its socket is in the pod's own network namespace. And node-1 has none of these pods.",
        "kubelet": "The kubelet listens on 10250, for the API server. It carries nobody's traffic.",
    },
    (
        "In notebook 12: does anybody listen on 10.96.0.100?",
        "The rules for node ports are in the nat table, like those for Service addresses.",
        "PREROUTING comes before the kernel looks for a socket.",
    ),
)


# -- predict: 127.0.0.1
# ------------------------------------------------------------------------------------------------


def _loopback() -> Outcome:
    seen = {
        mode: outside(load_balancer="none", proxy=mode).connect("node/node-1", "tcp://127.0.0.1:30110")
        for mode in ("iptables", "nftables")
    }
    words = {mode: trip.verdict for mode, trip in seen.items()}
    key = {
        ("connected", "connected"): "both",
        ("connected", "refused"): "iptables",
        ("refused", "connected"): "nftables",
    }.get((words["iptables"], words["nftables"]), "neither")
    return Outcome(
        key,
        f"iptables mode: {words['iptables']}; nftables mode: {words['nftables']}. By default nftables mode serves node "
        "ports only on a node's primary addresses (`--nodeport-addresses=primary`). iptables mode serves them on all "
        "addresses, 127.0.0.1 too, for which it has to switch `route_localnet` on.",
        seen["nftables"],
    )


LOOPBACK = predict(
    "14-loopback",
    "From the node to itself",
    "Somebody is logged in on node-1 and types `curl 127.0.0.1:30110`. In which mode of kube-proxy does that work, "
    "with its defaults?",
    {
        "both": "In iptables mode and in nftables mode",
        "iptables": "Only in iptables mode",
        "nftables": "Only in nftables mode",
        "neither": "In neither",
    },
    _loopback,
    {
        "both": "“On all nodes” does not have to mean “on all addresses”. One of the modes is choosy by default.",
        "nftables": "Of the two, the newer mode is the one that is stricter about addresses.",
        "neither": "A packet to 127.0.0.1 passes the OUTPUT hook, and there the older mode has its rules too.",
    },
    (
        "Which addresses does node-1 have? Would you want all of them to be doors?",
        "Look at `--nodeport-addresses` in kube-proxy's manual: its default is not the same in all modes.",
        "nftables mode began in 2024 and left out what had been regretted.",
    ),
)


# -- predict: Local on a node without a pod
# ---------------------------------------------------------------------------


def _no_pod() -> Outcome:
    trip = outside(load_balancer="none").connect(CLIENT, "tcp://192.168.1.10:30120")
    return Outcome(
        trip.verdict,
        f"The caller sees: {trip.verdict}, and the rule that decided says why: `{trip.decided_by}`. kube-proxy drops "
        "rather than refuses: where a load balancer stands in front, its health check should long have turned away "
        "from this node.",
        trip,
    )


NO_POD = predict(
    "14-no-pod",
    "A node without a pod",
    "The Service `nearby` is like `anywhere`, with `externalTrafficPolicy: Local` and node port 30120. Its pods are on "
    "node-2 and node-3. A client outside calls node-1, port 30120. What does it see?",
    {
        "connected": "It is connected: node-1 passes the call on",
        "refused": "“Connection refused”, at once",
        "timed out": "Nothing, until it gives up",
        "unreachable": "“No route to host”",
    },
    _no_pod,
    {
        "connected": "Passing it on is just what `Local` forbids, so that nobody has to touch the source address.",
        "refused": "That would need a rule that rejects. Which rule is there for a policy that finds nobody near?",
        "unreachable": "node-1 is there and takes the packet. What does it do with it?",
    },
    (
        "`Local` means: only to pods on the node where the packet came in. node-1 has none.",
        "Is it an error of the client? kube-proxy treats it as something that should not have come.",
        "The rule's target is DROP.",
    ),
)


# -- predict: whom the pod sees behind a proxy
# ------------------------------------------------------------------------


def _proxied() -> Outcome:
    world = outside(load_balancer="cloud-proxy")
    trip = world.connect(CLIENT, f"http://{address_of(world)}")
    seen = seen_as(trip)
    key = {"the client": "client", NAME: "balancer"}.get(seen, "node")
    return Outcome(
        key,
        f"{trip.server} sees {trip.source_seen}, that is {seen}. `Local` keeps the source address from the node on. "
        "This load balancer opens a connection of its own, so by then it is the load balancer's. (Proxies tell the "
        "client's address in other ways: `X-Forwarded-For` in HTTP, or the PROXY protocol, which the program in the "
        "pod must understand. Neither is modelled here.)",
        trip,
    )


PROXIED = predict(
    "14-proxied",
    "Local, behind a proxy",
    "`nearby` has `externalTrafficPolicy: Local`, which is known to keep the client's address. The cloud's load "
    "balancer is a proxy: it takes the client's connection and opens one of its own to a node port. Which source "
    "address does the pod see?",
    {
        "client": "The client's: that is what Local is for",
        "node": "A node's",
        "balancer": "The load balancer's",
    },
    _proxied,
    {
        "client": "Local keeps the address that is on the packet when it reaches the node. Whose is that?",
        "node": "That is what policy Cluster does. Under Local no node rewrites the source.",
    },
    (
        "There are two TCP connections here. Between whom and whom is the second?",
        "The pod only ever sees the second one.",
        "Nobody rewrites anything on the way from the load balancer to the pod but the destination.",
    ),
)


# -- predict: how long a dead node costs calls
# ------------------------------------------------------------------------


def _how_long() -> Outcome:
    line = node_dies("cloud", step=4, until=60, back=60)
    found = line.lost_until + 4
    key = "never" if found > 50 else "three" if found > 12 else "one" if found > 4 else "at-once"
    return Outcome(
        key,
        "Checks come every 8 s, and only the third failure in a row takes a node out: here that was "
        f"about {found:g} s after the cable was pulled. All the while the load balancer sent this node its share.",
        line,
    )


HOW_LONG = predict(
    "14-how-long",
    "A node loses its cable",
    "Two nodes have pods of `nearby`, and the load balancer spreads calls over both. One of them loses its cable. The "
    "health check asks every node every 8 seconds, and believes a failure only when it was the third in a row. How "
    "long do callers lose calls?",
    {
        "at-once": "Not at all: a connection that fails is tried on the other node",
        "one": "For up to 8 seconds, until the next check",
        "three": "For about 20 seconds, until three checks have failed",
        "never": "Until somebody takes the node out by hand",
    },
    _how_long,
    {
        "at-once": "This load balancer passes packets on and knows of no connections. It cannot try again.",
        "one": "One failure may be an accident; that is what the number 3 is for.",
        "never": "Health checks are there so that nobody has to.",
    },
    (
        "When is the first check after the accident? And the third?",
        "Up to 8 s until the first, and two more intervals.",
        "Between 16 and 24 seconds.",
    ),
)


# -- do: build a load balancer
# ---------------------------------------------------------------------------------------------


def unbuilt() -> Cluster:
    """Return the world whose load balancer was wiped: no route, no rule for any Service, and nobody mends it."""
    world = outside(load_balancer="cloud")
    if world.load_balancer is not None:
        world.daemons.remove(world.load_balancer)
        world.load_balancer = None
    for name in (NAME, "router"):
        space = world.network.ns(name)
        for route in [r for r in space.route_list() if r.proto == "static"]:
            space.delete_route(route.dst)
    world.network.ns(NAME).set_iptables(4, Ruleset(4))
    return world


CALLERS = tuple(f"203.0.113.{n}" for n in range(60, 92))


def _judge_build(answer: Any) -> Finding:
    world = unbuilt()
    target = f"http://{address_of(world)}"
    commands.apply(world.network, answer, "router")
    trips = [world.connect(source, target) for source in CALLERS]
    lost = [trip for trip in trips if not trip.delivered]
    if len(lost) == len(trips):
        trip = lost[0]
        return Finding(
            False, f"No call arrives: {trip.verdict}. It ended on {trip.place.netns}: {trip.why}.", trip
        )
    if lost:
        trip = lost[0]
        way = outside_matrix({("", ""): lost})["", ""].ways[0]
        return Finding(
            False,
            f"{len(lost)} of {len(trips)} calls are lost, for instance on the way {way}: {trip.verdict} ({trip.why}). "
            "Which nodes have a pod of this Service?",
            trip,
        )
    cell = outside_matrix({("", ""): trips})["", ""]
    if cell.seen != ("the client",):
        return Finding(
            False,
            f"All calls arrive, and the pods see {', '.join(cell.seen)} in place of the client. The packets have to "
            "reach the node as the client sent them.",
            trips[0],
        )
    if len(cell.nodes) < 2:
        return Finding(False, f"All calls arrive, and all on {cell.nodes[0]}. That is no balance.", trips[0])
    shares = Counter(trip.server for trip in trips)
    words = ", ".join(f"{server}: {n}" for server, n in sorted(shares.items(), key=lambda item: str(item[0])))
    return Finding(
        True,
        f"{len(trips)} calls from as many clients, none lost ({words}), and each pod saw the client's own address. No "
        "answer came back through your load balancer: the node sends it straight to the router.",
        trips[0],
    )


BUILD = Exercise(
    id="14-build",
    kind=DO,
    title="Build the load balancer",
    task="In this world the machine `cloud-lb` (192.168.1.2, on the nodes' wire) has lost its configuration. The "
    "Service `nearby` still has its address 198.51.100.2, policy Local, and pods on node-2 (192.168.1.20) and node-3 "
    "(192.168.1.30). The nodes' rules expect packets that are still addressed to 198.51.100.2.\n\n"
    "Write the routes that bring calls from outside to those nodes, so that none is lost, both pods get some, and both "
    "see the clients' own addresses. `on router` and `on cloud-lb` say where a command runs.",
    judge=_judge_build,
    hints=(
        "The router knows no way to 198.51.100.2. Where should it send such packets?",
        "On cloud-lb a route can have several ways: `ip route add DST nexthop via A dev eth0 nexthop via B dev eth0`.",
        "node-1 drops what it gets, so it must not be one of the ways. Nothing has to be rewritten.",
    ),
    template="on router\n# ip route add 198.51.100.2/32 via ...\n\non cloud-lb\n",
    world=unbuilt,
)


# -- find: one pod gets nothing
# --------------------------------------------------------------------------------------------


def _firewall() -> Cluster:
    world = outside()
    commands.apply(world.network, "iptables -I INPUT -p tcp --dport 30121 -j DROP", "node-2")
    world.advance(40)
    return world


def _label() -> Cluster:
    world = outside()
    node = world.store.get("Node", "node-2")
    world.apply_objects([node.with_metadata(labels={**node.metadata.labels, EXCLUDED: ""})])
    world.advance(40)
    return world


def _selector() -> Cluster:
    world = outside()
    pod = world.store.get("Pod", "web-2", "default")
    world.apply_objects([pod.with_metadata(labels={"app": "web-old"})])
    world.advance(40)
    return world


def _stopped() -> Cluster:
    world = outside()
    world.stop_kube_proxy("node-2")
    world.advance(40)
    return world


CAUSES: Mapping[str, Callable[[], Cluster]] = {
    "selector": _selector,
    "stopped": _stopped,
    "firewall": _firewall,
    "label": _label,
}


def _signs(world: Cluster) -> dict[str, str]:
    """What one can see, each sign in words."""
    node = world.store.get("Node", "node-2")
    ends = [
        e.node_name or ""
        for s in world.store.list("EndpointSlice", "default")
        if s.service_name == "nearby"
        for e in s.endpoints
    ]
    return {
        "the nodes of the endpoints of `nearby`": ", ".join(sorted(ends)),
        "what a client outside sees at node-2's own node port": world.connect(
            CLIENT, "tcp://192.168.1.20:30120"
        ).verdict,
        "what a health check of node-2, port 30121, comes to": ask(
            world.network, NAME, Check("node-2", "192.168.1.20", 30121, "/healthz"), world.now
        ),
        "whether node-2 is labelled out of load balancers": "yes"
        if EXCLUDED in node.metadata.labels
        else "no",
    }


def _judge_find(answer: Any) -> Finding:
    against = contradiction(_signs(_firewall()), _signs(CAUSES[answer["choice"]]()))
    if against:
        return Finding(False, against)
    world = _firewall()
    commands.apply(world.network, answer["text"], "node-2")
    world.advance(40)
    trips = [world.connect(CLIENT, f"http://{address_of(world)}") for _ in range(24)]
    lost = [trip for trip in trips if not trip.delivered]
    if lost:
        return Finding(False, f"Forty seconds after your commands {len(lost)} of 24 calls are lost.", lost[0])
    nodes = outside_matrix({("", ""): trips})["", ""].nodes
    if "node-2" not in nodes:
        told = _signs(world)["what a health check of node-2, port 30121, comes to"]
        return Finding(
            False,
            "The cause is found, and the remedy does not help yet: forty seconds later all calls still go to "
            f"{', '.join(nodes)}. The load balancer's health check of node-2 comes to: {told}.",
            trips[0],
        )
    return Finding(
        True,
        "Found and mended. The pod, its node and its node port were well all the time; only the question whether they "
        "were was not answered. On a real cluster the rule would be in a cloud's security group as often as on a node.",
        trips[0],
    )


FIND_IT = Exercise(
    id="14-find",
    kind=FIND,
    title="One pod gets nothing",
    task='In `ward = exercise("14-find").world()` every call to the address of `nearby` is answered, and every one by '
    "`web-3`. `web-2` on node-2 idles. Name the cause, and write the command that mends it. (`%netshoot node/node-2 "
    "...`, `%netshoot cloud-lb ...` and `%kubectl` look.)",
    judge=_judge_find,
    hints=(
        "Follow the packet: does cloud-lb still have a way to node-2 for this address (`%netshoot cloud-lb ip route`)?",
        "It has none. So its health check of node-2 fails: `healthCheckNodePort: 30121`. Ask it as the load balancer "
        "does: `%netshoot cloud-lb curl -m 3 http://192.168.1.20:30121/healthz`.",
        "The question is lost in silence, and somebody listens there. What does node-2 do with packets for that port "
        "(`%netshoot node/node-2 iptables -S INPUT`)? `iptables -D` with the same words takes a rule away.",
    ),
    choices=(
        Choice("selector", "web-2 is no longer among the Service's endpoints"),
        Choice("stopped", "kube-proxy on node-2 does not run"),
        Choice("firewall", "node-2 drops the load balancer's health checks"),
        Choice("label", "node-2 is labelled out of external load balancers"),
    ),
    template="on node-2\n",
    world=_firewall,
)


# -- again: the tunnel
# -------------------------------------------------------------------------------------------------


def _inner() -> Outcome:
    world = outside(load_balancer="none")
    far = world.pod("web-3").ips[0]
    trip = world.connect(CLIENT, "tcp://192.168.1.10:30110", choose=toward(world, far))
    names = world.names()
    for capture in trip.captures():
        body = capture.frame.body
        if capture.netns == "node-1" and isinstance(body, Packet) and body.inner is not None:
            inner = body.inner.body if isinstance(body.inner, Frame) else body.inner
            assert isinstance(inner, Packet)
            label = names.get(inner.src, "")
            key = {CLIENT: "client", body.src: "eth0"}.get(
                inner.src, "tunnel" if "flannel" in label else "Service"
            )
            return Outcome(
                key,
                f"Outside it says {body.src} to {body.dst}, inside {inner.src} ({short(label)}) to {inner.dst}. "
                "node-1 masqueraded the call with the address of the device it left by, and that is flannel.1.",
                trip,
            )
    return Outcome("none", "No encapsulated packet left node-1.", trip)


RECALL = predict(
    "14-recall",
    "Once more: the letter in the letter",
    "A client outside, 203.0.113.77, calls node-1's node port 30110 (policy Cluster), and chance picks the pod on "
    "node-3. The packet crosses the wire between the nodes in a VXLAN envelope. Which source address stands on the "
    "inner packet?",
    {
        "client": "203.0.113.77, the client's",
        "eth0": "192.168.1.10, node-1's own",
        "tunnel": "10.244.0.0, that of node-1's tunnel device",
        "Service": "10.96.0.110, the Service's",
    },
    _inner,
    {
        "client": "Then node-3's pod would answer to the client directly, and the client has never called that pod.",
        "eth0": "That is on the outer envelope. Which device did the inner packet leave by, before it was wrapped?",
        "Service": "The Service's address was never on this packet: the client called a node.",
    },
    (
        "Policy Cluster: the answer has to come back through node-1. How does node-1 see to that?",
        "It masquerades: the source becomes its own address. It has several.",
        "MASQUERADE takes the address of the device that the packet goes out by (notebook 05).",
    ),
)


EXERCISES = (SOCKET, LOOPBACK, NO_POD, PROXIED, HOW_LONG, BUILD, FIND_IT, RECALL)
