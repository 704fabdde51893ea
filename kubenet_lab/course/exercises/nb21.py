"""Exercises of 21_the_breach."""

from __future__ import annotations

from typing import Any

from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.lessons.nb20 import HEAD, PORT, SEED, called, unguarded
from kubenet_lab.course.lessons.nb21 import (
    FLOWS,
    OPEN_DOOR,
    OUTSIDE,
    TAKEN,
    breach,
    judged,
    shop,
    tiers,
    ways,
)
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.packet.packet import ACK, PSH, TCP, Packet
from kubenet_lab.reach.attack import attack
from kubenet_lab.scenarios.guarded import DATABASE

# -- predict: attack stopped? --------------------


def _stopped() -> Outcome:
    before, after = (attack(judged(shop(stage)), TAKEN) for stage in ("open", "guarded"))
    hops = len(after.paths.get(DATABASE, ()))
    key = "stopped" if not hops else "same" if hops == len(before.paths[DATABASE]) else "longer"
    over = after.paths[DATABASE][0].destination if hops > 1 else ""
    return Outcome(
        key,
        f"The direct way is closed. But the frontend may call `{over}`, as it has to, and `{over}` "
        "may call the database. "
        "Whoever finds a way to make the backend do something (an injected query, a stolen "
        "password) still gets there.",
        breach("open", "guarded"),
    )


STOPPED = predict(
    "21-stopped",
    "Attack stopped?",
    "An attacker has taken over `production/frontend`. The document's policy is in force: only the "
    "backend reaches the "
    "database. What is left of the way to the database?",
    {
        "stopped": "Nothing: the attack has been stopped",
        "longer": "A longer way",
        "same": "Everything: policies do not bind whoever is inside a pod",
    },
    _stopped,
    {
        "stopped": "Whom may the frontend still call? And whom may *they* call?",
        "same": "The rules are in the node's kernel, outside of the pod. Nobody inside gets at them.",
    },
    (
        "Think of pods as rooms and of open connections as doors.",
        "The frontend has to call somebody, or the shop is closed.",
        "Is there a door from there to the database?",
    ),
)

# -- predict: who else is in reach --------------------


def _others() -> Outcome:
    found = attack(judged(shop("guarded")), TAKEN)
    key = {True: "all", False: "some"}[not found.safe]
    direct = sum(len(hops) == 1 for hops in found.paths.values())
    if not found.paths:
        key = "none"
    return Outcome(
        key,
        f"{direct} pods are one step away, among them `staging/backend` and CoreDNS: no policy "
        "selects them. A policy for "
        "the database guards the database, and nothing else.",
        ways(),
    )


OTHERS = predict(
    "21-others",
    "Next door",
    "The same attacker, the same policy for the database. Which of the *other* pods can be reached "
    "from the frontend, in "
    "one step or in several: backend, report, the backend of `staging`, CoreDNS?",
    {
        "none": "None but the backend: the policy is about this namespace",
        "some": "Those of `production`, not those of other namespaces",
        "all": "All of them",
    },
    _others,
    {
        "none": "Whom does the policy's `podSelector` select? Everybody else is as open as before.",
        "some": "Which rule would stop a packet between namespaces? (Notebook 20, first exercise.)",
    },
    (
        "Isolation begins with being selected.",
        "Only the databases are selected.",
        "Namespaces do not stop packets.",
    ),
)

# -- do: close everything else --------------------


def _judge_close(answer: Any) -> Finding:
    world = unguarded(policy="nftables")
    world.apply(str(answer))
    for flow in FLOWS:
        told = world.explain(flow.source, flow.destination, flow.port)
        if not told.allowed:
            return Finding(False, f"The shop is closed: {flow} has to work.\n\n{told.text()}")
    servers = [pod for pod in world.store.list("Pod", "kube-system") if "coredns" in pod.name]
    for source in ("production/frontend", "production/backend"):
        if not world.explain(source, f"kube-system/{servers[0].name}", 53, "UDP").allowed:
            return Finding(
                False, f"{source} cannot ask for names any more, and calls its neighbours by name."
            )
    for target, port in (
        ("production/report", 8080),
        ("staging/backend", 8080),
        (DATABASE, PORT),
        (OUTSIDE, 443),
    ):
        told = world.explain(TAKEN, target, port)
        if told.allowed:
            return Finding(
                False, f"From the frontend one still gets to {target} on port {port}.\n\n{told.text()}"
            )
    for source in ("production/report", "staging/backend", OUTSIDE):
        for target, port in (("production/backend", 8080), (DATABASE, PORT)):
            if world.explain(source, target, port).allowed:
                return Finding(False, f"{source} still gets to {target} on port {port}.")
    told = world.explain("production/backend", OUTSIDE, 443)
    if told.allowed:
        return Finding(
            False, "The backend, one step further, can still carry everything out: port 443 of any address."
        )
    trip = world.connect(TAKEN, f"http://{world.pod('backend', 'production').ips[0]}:8080")
    if not trip.delivered:
        return Finding(False, f"The policies are right, and the packet is {trip.verdict}: {trip.why}.", trip)
    return Finding(
        True,
        "The shop works, and from the frontend one gets to the backend, to the name server, and "
        "nowhere else directly. "
        "What the backend is willing to do for the frontend is beyond any firewall.",
        trip,
    )


CLOSE = Exercise(
    id="21-close",
    kind=DO,
    title="Close the other doors",
    task="Write policies of namespace `production` under which\n"
    "the frontend reaches the backend on 8080, and the backend both databases on 5432;\n"
    "the pods of `production` can ask the cluster's DNS;\n"
    "nobody else gets to the backend or to a database, and the frontend and the backend get nowhere else.\n"
    "Several documents are separated by a line `---`.",
    judge=_judge_close,
    hints=(
        "Begin with a policy that selects every pod (`podSelector: {}`), names both types and allows DNS only.",
        "Then open each connection twice: `egress` at the caller, `ingress` at the callee.",
        "Three connections, so the frontend needs egress, the backend both, the database ingress.",
    ),
    template=HEAD
    + "metadata:\n  name: default-deny\n  namespace: production\n"
    + "spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n",
    world=unguarded,
)

# -- predict: what gets out --------------------


def _out() -> Outcome:
    world = shop("closed")
    direct = world.explain(TAKEN, OUTSIDE, 443).allowed
    servers = [pod for pod in world.store.list("Pod", "kube-system") if "coredns" in pod.name]
    asks = world.explain(TAKEN, f"kube-system/{servers[0].name}", 53, "UDP").allowed
    onward = world.explain(f"kube-system/{servers[0].name}", OUTSIDE, 53, "UDP").allowed
    key = "direct" if direct else "names" if asks and onward else "nothing"
    return Outcome(
        key,
        "A connection to the outside is blocked. But the pod may ask for any name, and CoreDNS "
        "asks on for names it does "
        "not know: a question for `c3VwZXJzZWNyZXQ.evil.example` carries its letters to the name "
        "server of evil.example.",
    )


OUT = predict(
    "21-out",
    "What gets out",
    "Everything is closed but the shop's own connections and DNS. The attacker in the frontend "
    "wants to send out what "
    "they have found. Which way is left?",
    {
        "direct": "A connection to port 443 of some address: that is always open",
        "names": "Questions for names",
        "nothing": "None",
    },
    _out,
    {
        "direct": "Is the frontend isolated for egress? And is there a rule for addresses outside?",
        "nothing": "There is one service every pod may ask, and it asks others in its turn.",
    },
    (
        "Which rule does every default deny need, or nothing works?",
        "The one for DNS. What does CoreDNS do with a name of the outside?",
        "It forwards the question. The name is the message.",
    ),
)

# -- predict: two tiers --------------------


def _tier() -> Outcome:
    found = tiers()
    together = next(row for row in found.rows if row[0] == "both")
    key = "admin" if together[1] != "connected" else "team"
    if together[2] != "connected":
        key = "all"
    return Outcome(
        key,
        f"`staging/backend`: {together[1]}. `production/frontend`: {together[2]}. The tier Admin is "
        "asked before any "
        "NetworkPolicy, and its Deny is final. What it does not mention goes on to the namespace's own policies.",
        found,
    )


TIER = predict(
    "21-tier",
    "Two who decide",
    "The administrator has a ClusterNetworkPolicy, tier Admin: pods of `staging` are denied in "
    "`production`. A team of "
    "`production` writes a NetworkPolicy that lets everybody in. What do `staging/backend` and "
    "`production/frontend` meet "
    "at the pod `report`?",
    {
        "team": "Both get in: policies add up",
        "admin": "Only the frontend gets in",
        "all": "Neither: a Deny closes the pods it is about",
    },
    _tier,
    {
        "team": "NetworkPolicies add up among themselves. Who is asked before them?",
        "all": "The Deny names whom it is about: those of `staging`. What happens with everybody else?",
    },
    (
        "NetworkPolicies cannot deny. These can.",
        "They are asked in tiers: Admin, then NetworkPolicies, then Baseline.",
        "A rule that does not fit decides nothing.",
    ),
)

# -- do: a wall that no team can open --------------------


def _judge_wall(answer: Any) -> Finding:
    world = shop("guarded")
    world.apply(str(answer))
    kinds = {policy.kind for policy in judged(world).policies}
    if "ClusterNetworkPolicy" not in kinds:
        return Finding(
            False, "There is no ClusterNetworkPolicy in it. A NetworkPolicy can be overruled by another one."
        )
    if world.explain(TAKEN, DATABASE, 22).allowed:
        return Finding(
            False, "The database is open on port 22 now: an Accept in tier Admin overrules its own policy."
        )
    servers = [pod for pod in world.store.list("Pod", "kube-system") if "coredns" in pod.name]
    dns = f"kube-system/{servers[0].name}"
    for text, name in (("", "as things stand"), (OPEN_DOOR, "with a team's policy that lets everybody in")):
        if text:
            world.apply(text)
        for source, target, port, protocol, wanted in (
            ("staging/backend", "production/report", 8080, "TCP", False),
            ("staging/backend", "production/backend", 8080, "TCP", False),
            (TAKEN, "production/report", 8080, "TCP", True),
            (TAKEN, "staging/backend", 8080, "TCP", True),
            ("staging/backend", dns, 53, "UDP", True),
        ):
            told = world.explain(source, target, port, protocol)
            if told.allowed != wanted:
                state = "open" if told.allowed else "closed"
                return Finding(False, f"{source} to {target} on {port} is {state}, {name}.\n\n{told.text()}")
    verdict = called(world, "staging/backend", "production/report", 8080)
    return Finding(
        verdict != "connected",
        f"Nothing of `staging` gets into `production` (its packet: {verdict}), whatever teams "
        "write, and everything else "
        "is still theirs to decide.",
    )


BUILD = Exercise(
    id="21-wall",
    kind=DO,
    title="A wall no team can open",
    task="Write a ClusterNetworkPolicy: pods of namespace `staging` never get into namespace `production`, whatever "
    "NetworkPolicies anybody writes. Everything else, the way from production to staging too, stays as the "
    "namespaces' own policies say.",
    judge=_judge_wall,
    hints=(
        "`subject` says whose traffic it is about, `ingress.from` who is meant, `action` what happens.",
        "Only the tier Admin is asked before NetworkPolicies.",
        "A rule that accepts the others would be wrong: it would overrule the policy of the "
        "database. Say nothing of them.",
    ),
    template="apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata:\n  name: wall\n"
    "spec:\n  tier: \n  priority: 10\n",
    world=lambda: shop("guarded"),
)

# -- again: while the line is open --------------------


def _recall() -> Outcome:
    world = unguarded(policy="nftables")
    address = world.pod("database-0", "production").ips[0]
    trip = world.connect(TAKEN, f"tcp://{address}:{PORT}")
    assert trip.exchange is not None
    sent = trip.exchange.request.packet
    world.apply(SEED)
    more = Packet(sent.src, address, TCP, sent.sport, PORT, flags=PSH | ACK, seq=1, ack=1, payload=b"COPY")

    def arrives() -> bool:
        trace = world.walk().send(TAKEN, more, role="data")
        return any(hop.netns == DATABASE for hop in trace.hops)

    goes_on = arrives()
    world.network.ns("node-3").conntrack.flush()
    after = arrives()
    return Outcome(
        "entry" if goes_on and not after else "policy" if not goes_on else "never",
        "The policy closes the door to those who come after it. The open connection ends when its "
        "entry in the node's "
        "connection table is deleted (`conntrack -D`), or with the pod.",
    )


RECALL = predict(
    "21-recall",
    "Once more: the line is open",
    "The attacker in the frontend has a connection to the database open and copies away. You apply "
    "the policy. When do "
    "the attacker's packets stop arriving?",
    {
        "policy": "At once",
        "entry": "When somebody deletes the connection's entry on the database's node",
        "never": "Not before the database is restarted",
    },
    _recall,
    {
        "policy": "Which packets of a connection are shown to the policy's rules? (Notebook 20.)",
        "never": "The database has nothing to do with it: it takes what is let through. Who "
        "remembers the connection?",
    },
    (
        "The agent's first rule lets pass what belongs to a known connection.",
        "Known to whom?",
        "To the connection table of the node.",
    ),
)

EXERCISES = (STOPPED, OTHERS, CLOSE, OUT, TIER, BUILD, RECALL)
