"""Exercises of 12_iptables_line_by_line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from kubenet_lab.cluster import Cluster
from kubenet_lab.course import commands
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, Probe, predict, same_symptoms, with_fault
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.course.steer import branches, sample, toward
from kubenet_lab.kernel.netfilter.matches import Statistic
from kubenet_lab.scenarios import shop
from kubenet_lab.views.service_rules import ServiceRules, Spread, chi_square_tail, service_rules

NODE, PORT = "node-1", 80


def scaled(replicas: int) -> Cluster:
    """Return the shop with so many backends."""
    world = shop()
    found = world.store.get("Deployment", "backend", "default")
    world.apply_objects([replace(found, spec=replace(found.spec, replicas=replicas))])
    return world


def address_of(cluster: Cluster, service: str = "backend") -> str:
    """Return a Service's ClusterIP."""
    return str(cluster.store.get("Service", service, "default").addresses[0])


def rules_of(cluster: Cluster, node: str = NODE, service: str = "backend") -> ServiceRules:
    """Return a Service's rules on a node."""
    return service_rules(
        cluster.network.ns(node).iptables[4], address_of(cluster, service), 0, cluster.names()
    )


def frontend(cluster: Cluster) -> str:
    """Return frontend's address."""
    return cluster.pod("frontend").ips[0]


def count(cluster: Cluster, packets: int = 10_000, seed: int = 1) -> Spread:
    """Send first packets from frontend to the Service and count where node-1's rules send them."""
    found = sample(cluster, NODE, frontend(cluster), address_of(cluster), PORT, packets=packets, seed=seed)
    names = cluster.names()
    counts = {one.to: found.get(one.to, 0) for one in rules_of(cluster).endpoints}
    counts |= {to: n for to, n in found.items() if to not in counts}
    return Spread(
        counts,
        {
            to: names.get(to.rpartition(":")[0], "no rule rewrote it").removeprefix("pod default/")
            for to in counts
        },
    )


# -- predict: the second rule of four
# ---------------------------------------------------------------------------------


def _second() -> Outcome:
    found = rules_of(scaled(4))
    second = found.endpoints[1]
    key = {1 / 4: "quarter", 1 / 3: "third", 1 / 2: "half", 1.0: "all"}[
        min((1 / 4, 1 / 3, 1 / 2, 1.0), key=lambda p: abs(p - second.chance))
    ]
    return Outcome(
        key,
        f"The line says `{second.printed}`. The first rule has taken a quarter of all packets by then; a third of "
        f"the three quarters that are left is a quarter of all: {second.share:.2%}.",
        found,
    )


SECOND_RULE = predict(
    "12-second-rule",
    "The second rule of four",
    "The Service has four endpoints, and each is to get a quarter of all new connections. kube-proxy writes one "
    "rule an endpoint, asked from top to bottom. Which probability stands in the second endpoint's rule?",
    {
        "quarter": "0.25, as in every rule",
        "third": "about 0.333",
        "half": "0.50",
        "all": "none: it takes what is left",
    },
    _second,
    {
        "quarter": "Only packets that the first rule let pass reach the second. A quarter of those would be less "
        "than a quarter.",
        "half": "Half of what the first rule left would be more than a quarter of all.",
        "all": "Then two more endpoints below it would never get a packet.",
    },
    (
        "How many of 100 packets does the second rule get to see?",
        "It sees 75. How many of them should it take?",
        "25 of 75.",
    ),
)


# -- predict: 0.33 three times
# ----------------------------------------------------------------------------------------


def literal(*chances: str) -> Cluster:
    """Return the shop with the endpoint rules of `backend` on node-1 rewritten to these probabilities ("" is none)."""
    world = shop()
    found = rules_of(world)
    lines = [f"iptables -t nat -D {found.chain} {one.number}" for one in reversed(found.endpoints)]
    for one, chance in zip(found.endpoints, chances, strict=True):
        match = f"-m statistic --mode random --probability {chance} " if chance else ""
        lines.append(f"iptables -t nat -A {found.chain} {match}-j {one.chain}")
    commands.apply(world.network, "\n".join(lines), NODE)
    return world


def _three_times() -> Outcome:
    world = literal("0.33", "0.33", "0.33")
    exact = branches(world, NODE, frontend(world), address_of(world), PORT)
    lost = exact.get("", 0.0)
    shares = ", ".join(f"{share:.1%}" for to, share in exact.items() if to)
    key = "lost" if lost > 0.01 else "even"
    return Outcome(
        key,
        f"The three rules take {shares} of all packets; {lost:.1%} pass all three and are rewritten by none. They "
        "go on with the Service's address on them, which no machine owns.",
        rules_of(world),
    )


THREE_TIMES = predict(
    "12-three-times",
    "0.33 three times",
    "Somebody writes the rules for three endpoints by hand, and gives each of the three the probability 0.33. What "
    "becomes of the packets?",
    {
        "even": "Each endpoint gets a third",
        "first": "The first endpoint gets all of them",
        "lost": "Nearly a third of them is never rewritten at all",
        "last": "The last endpoint gets more than the others",
    },
    _three_times,
    {
        "even": "The second rule is only asked about packets that the first let pass, the third about those that "
        "both let pass.",
        "first": "The first rule takes 33 of 100. What happens to the other 67?",
        "last": "The last rule takes 33 of 100 of what reaches it, no more. So what happens to the rest of those?",
    },
    (
        "Follow 100 packets: 33 are taken by rule one. How many go on?",
        "67 go on, and 22 of them are taken by rule two. 45 go on.",
        "Of 45, 15 are taken. Is there a rule for the others?",
    ),
)


# -- predict: no endpoints
# ---------------------------------------------------------------------------------------------


def _nobody() -> Outcome:
    world = scaled(0)
    trip = world.connect("frontend", f"http://{address_of(world)}")
    told = (
        f"The caller sees: {trip.verdict}, after {trip.seconds:g} s. kube-proxy has written a REJECT rule for the "
        "address, and REJECT sends an error back at once. With DROP instead, the caller would wait in silence."
    )
    return Outcome(trip.verdict, told, trip)


NO_ENDPOINTS = predict(
    "12-no-endpoints",
    "Nobody at home",
    "We scale `backend` to zero pods. The Service stays. `frontend` calls its address, 10.96.0.100. What does it "
    "see?",
    {
        "refused": "“Connection refused”, at once",
        "timed out": "Nothing, until it gives up",
        "could not resolve": "The name is gone",
        "connected": "It still works: the last pod is kept",
    },
    _nobody,
    {
        "timed out": "So it would be if the packet were lost in silence. But kube-proxy knows that there is "
        "nobody, and says so.",
        "could not resolve": "We call the address, no name. (And the name would still resolve: the Service object "
        "exists.)",
        "connected": "Zero replicas means zero pods; no pod is kept.",
    },
    (
        "The Service object is still there, so kube-proxy still writes something for its address.",
        "It is not a nat rule: there is nothing to rewrite to. Look in the filter table.",
        "The target's name is REJECT. What does the caller of a rejected connection hear?",
    ),
)


# -- predict: hairpin
# --------------------------------------------------------------------------------------------------


def without_hairpin_mark() -> Cluster:
    """Return the shop whose node-1 lacks the rule that marks a backend calling itself."""
    world = shop()
    own = backend_on(world, NODE).ips[0]
    chain = next(one.chain for one in rules_of(world).endpoints if one.to.startswith(own + ":"))
    commands.apply(world.network, f"iptables -t nat -D {chain} 1", NODE)
    return world


def to_itself(cluster: Cluster) -> Any:
    """Let the backend on node-1 call its own Service and draw itself."""
    pod = backend_on(cluster, NODE)
    return cluster.connect(pod.name, f"http://{address_of(cluster)}", choose=toward(cluster, pod.ips[0]))


def _hairpin() -> Outcome:
    trip = to_itself(without_hairpin_mark())
    good = to_itself(shop())
    told = (
        f"The caller sees: {trip.verdict}. Why: {trip.why}. With the mark it works, because the packet is "
        f"masqueraded: the pod then sees {good.source_seen}, its node, as the caller, and answers to it."
    )
    return Outcome("works" if trip.delivered else trip.verdict, told, trip)


HAIRPIN = predict(
    "12-hairpin",
    "A pod that calls itself",
    "A `backend` pod calls the Service `backend`, and chance picks the very pod that is calling. On its node we "
    "have deleted one rule: the one that marks such a packet for masquerade (`-s` its own address `-j "
    "KUBE-MARK-MASQ`). What does it see?",
    {
        "works": "It works: it is talking to itself, after all",
        "refused": "“Connection refused”",
        "timed out": "It hangs until it gives up",
    },
    _hairpin,
    {
        "works": "The packet leaves the pod and comes back in by the same door, with the pod's own address as its "
        "sender.",
        "refused": "Nobody says no: the program does listen. The trouble is with a letter that claims to come from "
        "oneself.",
    },
    (
        "After DNAT the packet has the pod's address as destination. What is its source?",
        "Both are the same address. What does a kernel think of a packet that comes from outside and claims to be "
        "from itself?",
        "The packet (or its answer) is thrown away in silence. What does the caller of a silent world see?",
    ),
)


# -- do: share evenly
# --------------------------------------------------------------------------------------------------


def unfinished() -> Cluster:
    """Return the shop whose node-1 has the endpoint chains of `backend` and no rule that leads to them."""
    world = shop()
    found = rules_of(world)
    lines = [f"iptables -t nat -D {found.chain} {one.number}" for one in reversed(found.endpoints)]
    commands.apply(world.network, "\n".join(lines), NODE)
    return world


TOLERANCE = 0.002
"""How far a share may be from a third: 0.2 of 100. Three decimals in a rule are enough, two are not."""


def _judge_share(answer: Any) -> Finding:
    world = unfinished()
    wanted = [one.to for one in rules_of(shop()).endpoints]
    commands.apply(world.network, answer, NODE)
    exact = branches(world, NODE, frontend(world), address_of(world), PORT)
    counted = sample(world, NODE, frontend(world), address_of(world), PORT, packets=3000)
    counting = _counts_packets(world)
    shares = {to: n / 3000 for to, n in counted.items()} if counting else exact
    lost = shares.get("", 0.0)
    words = ", ".join(f"{shares.get(to, 0.0):.1%}" for to in wanted)
    evidence = rules_of(world)
    if lost > 1e-9:
        return Finding(
            False, f"{lost:.1%} of the packets pass all your rules and are rewritten by none.", evidence
        )
    if any(shares.get(to, 0.0) == 0 for to in wanted):
        missing = [to for to in wanted if shares.get(to, 0.0) == 0]
        return Finding(
            False, f"{len(missing)} of the three backends never get a packet: {', '.join(missing)}.", evidence
        )
    if not counting and max(abs(shares.get(to, 0.0) - 1 / 3) for to in wanted) > TOLERANCE:
        return Finding(False, f"All packets arrive, and the shares are not even: {words}.", evidence)
    square = sum((counted.get(to, 0) - 1000) ** 2 / 1000 for to in wanted)
    if chi_square_tail(square, 2) < 0.001:
        numbers = ", ".join(str(counted.get(to, 0)) for to in wanted)
        return Finding(False, f"3000 packets came out as {numbers}. That is not even.", evidence)
    return Finding(
        True,
        f"Even: {words} of all. 3000 packets went {', '.join(str(counted.get(to, 0)) for to in wanted)}.",
        evidence,
    )


def _counts_packets(cluster: Cluster) -> bool:
    """True when a rule counts (`--mode nth`): then no list of probabilities tells the shares, only packets do."""
    return any(
        isinstance(match, Statistic) and match.mode == "nth"
        for _table, _chain, _number, rule in cluster.network.ns(NODE).iptables[4]
        for match in rule.matches
    )


def _share_template() -> str:
    found = rules_of(shop())
    names = "\n".join(f"#   {one.chain}   leads to {one.to}" for one in found.endpoints)
    first = f"iptables -t nat -A {found.chain} -j {found.endpoints[0].chain}"
    return f"on {NODE}\n# three endpoint chains stand ready:\n{names}\n{first}\n"


SHARE = Exercise(
    id="12-share",
    kind=DO,
    title="Write the rules",
    task="On node-1 the Service's chain has lost the rules that lead to its three backends. Write them, so that "
    "each backend gets the same share of new connections. As it stands the first rule takes everything. (`-m "
    "statistic --mode random --probability P` makes a rule take only a part.)",
    judge=_judge_share,
    hints=(
        "Three rules, one an endpoint chain. Which of them needs no condition at all?",
        "The last one takes what is left. The one before it should take half of what reaches it.",
        "And the first should leave two thirds: give it as many decimals of one third as you like, but more than "
        "two.",
    ),
    template=_share_template(),
    world=unfinished,
)


# -- find: names do not resolve, for some
# ------------------------------------------------------------------------------

CAUSES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "dns-1": ("kube-dns-rules-missing", {"node": "node-1"}),
    "dns-2": ("kube-dns-rules-missing", {"node": "node-2"}),
    "backend-2": ("kube-dns-rules-missing", {"node": "node-2", "service": "backend", "namespace": "default"}),
    "listen-2": ("pod-not-listening", {"pod": "backend"}),
}


def _broken() -> Cluster:
    return with_fault(shop, "kube-dns-rules-missing", node="node-2")


def _probes(cluster: Cluster) -> Sequence[Probe]:
    out = []
    sources = {"frontend": "node-1", backend_on(cluster, "node-2").name: "node-2", "database": "node-3"}
    for source, node in sources.items():
        out.append(Probe(source, "http://backend", f"a call by name from {node}"))
        out.append(
            Probe(source, f"http://{address_of(cluster)}", f"a call to the Service's address from {node}")
        )
    return out


_explains = same_symptoms(shop, _broken, _probes, CAUSES, times=8)


def _judge_find(answer: Any) -> Finding:
    against = _explains(answer["choice"])
    if against:
        return Finding(False, against)
    world = _broken()
    commands.apply(world.network, answer["text"])
    for probe in _probes(world):
        # Often enough that chance has picked every name server and every backend.
        for trip in (world.connect(probe.source, probe.target) for _ in range(12)):
            if not trip.delivered:
                return Finding(
                    False,
                    f"The cause is found, and the remedy does not help yet: {probe.label} ends as “{trip.verdict}” "
                    f"({trip.why}).",
                    trip,
                )
    return Finding(
        True,
        "Found and mended. Every node has its own copy of the rules, so one node can be broken alone. On a real "
        "cluster you would restart kube-proxy there, and it would write all of them anew.",
    )


FIND_IT = Exercise(
    id="12-find",
    kind=FIND,
    title="Which line is missing, and where?",
    task='`ward = exercise("12-find").world()` is a shop in which some pods can call each other by address and not by '
    "name. Look at who can and who cannot, and at the nodes' rules; name the cause, and write the iptables line "
    "that mends it.",
    judge=_judge_find,
    hints=(
        "Call `http://backend` and `http://10.96.0.100` from a pod on each node. Which node is different?",
        "By address it works, by name it does not. So which Service's rules does that node miss?",
        "On each node: `iptables -t nat -S KUBE-SERVICES`. One list is shorter than the others.",
    ),
    choices=(
        Choice("dns-1", "node-1 has no rules for the cluster DNS (10.96.0.10)"),
        Choice("dns-2", "node-2 has no rules for the cluster DNS (10.96.0.10)"),
        Choice("backend-2", "node-2 has no rules for the Service backend (10.96.0.100)"),
        Choice("listen-2", "the backend on node-2 does not listen"),
    ),
    template="on node-\n# the line that is missing (UDP is enough for the name server)\n",
    world=_broken,
)


# -- again: across nodes
# -----------------------------------------------------------------------------------------------


def _who_rewrites() -> Outcome:
    world = shop()
    target = backend_on(world, "node-3")
    lead = toward(world, target.ips[0])
    trip = world.connect("frontend", f"http://{address_of(world)}", choose=lead)
    assert trip.exchange is not None
    changed = [
        hop.netns
        for hop in trip.exchange.request.hops
        for step in hop.steps
        if step.kind == "nat" and step.spot == "destination"
    ]
    asked = [
        hop.netns
        for hop in trip.exchange.request.hops
        for step in hop.steps
        if step.kind == "rule" and "KUBE-SVC" in step.spot
    ]
    where = sorted({*changed, *asked})
    return Outcome(
        where[0] if len(where) == 1 else "both",
        f"Only {' and '.join(where)} asked the Service's rules and rewrote the destination. When the packet left "
        f"that node, inside its tunnel envelope, it was already addressed to {target.ips[0]}. The far node forwards "
        "it like any other.",
        trip,
    )


RECALL = predict(
    "12-recall",
    "Once more: across nodes",
    "`frontend` on node-1 calls 10.96.0.100, and chance picks the backend on node-3. On which node is the "
    "destination rewritten to the pod's address?",
    {
        "node-1": "On node-1, where the caller lives",
        "node-3": "On node-3, where the backend lives",
        "both": "On both, each does its part",
        "router": "On the router between them",
    },
    _who_rewrites,
    {
        "node-3": "How would node-1 know that it has to send the packet to node-3, with only 10.96.0.100 written "
        "on it?",
        "both": "Once the destination is a pod's address, no KUBE-SERVICES rule matches any more.",
        "router": "The router has no such rules; kube-proxy runs on nodes. And it would see the outer envelope only.",
    },
    (
        "Which route would a packet to 10.96.0.100 take, if nobody rewrote it? (`ip route get 10.96.0.100` on "
        "node-1.)",
        "In notebook 05 the node's route table chose the tunnel by the destination. Which destination?",
        "The rewrite comes before the routing decision.",
    ),
)


EXERCISES = (SECOND_RULE, THREE_TIMES, NO_ENDPOINTS, HAIRPIN, SHARE, FIND_IT, RECALL)
