"""Exercises of 20_firewall."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, contradiction, predict
from kubenet_lab.course.lessons.nb20 import (
    HEAD,
    PORT,
    SEED,
    asked,
    called,
    dash,
    eight,
    types,
    unguarded,
)
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.packet.packet import ACK, PSH, TCP, Packet
from kubenet_lab.scenarios.guarded import DATABASE, guarded

# -- predict: no policy at all --------------------


def _default() -> Outcome:
    world = unguarded()
    seen = {source: called(world, source) for source in ("production/frontend", "staging/backend")}
    open_to = [source for source, verdict in seen.items() if verdict == "connected"]
    key = {0: "nobody", 1: "namespace", 2: "everybody"}[len(open_to)]
    return Outcome(
        key,
        f"From `production/frontend`: {seen['production/frontend']}. From `staging/backend`: "
        f"{seen['staging/backend']}. Namespaces are no walls; as long as no policy selects a pod, "
        "everything may reach it.",
    )


DEFAULT = predict(
    "20-default",
    "Before the first policy",
    "Nobody has written a policy yet. `production/frontend` and `staging/backend`, a pod of another "
    "namespace, both open "
    "a connection to the database in `production`. Who gets through?",
    {
        "nobody": "Neither: databases are not open by default",
        "namespace": "Only frontend: it is in the same namespace",
        "everybody": "Both",
    },
    _default,
    {
        "nobody": "What would have to stand in the way? So far nobody has asked for anything to be closed.",
        "namespace": "A namespace is a scope for names. Did any rule of the earlier notebooks look at it?",
    },
    (
        "In notebook 02: who may reach whom by Kubernetes' own rules?",
        "Every pod every other pod, without translation.",
        "A namespace changes what a name means, not where packets go.",
    ),
)

# -- predict: the replica --------------------


def _replica() -> Outcome:
    world = guarded()
    verdict = called(world, "production/database-1")
    told = asked(world, "production/database-1")
    return Outcome(
        "blocked" if not told.allowed and verdict != "connected" else "through",
        f"It is {verdict}. The policy selects both databases, and its rule names the backend alone. "
        "That two pods have "
        "the same labels gives them no right to one another; replication is the first thing such a policy breaks.",
        eight(world),
    )


REPLICA = predict(
    "20-replica",
    "Between two databases",
    "The policy is in force. `database-1` wants to fetch the latest changes from `database-0`, on "
    "port 5432. Both have "
    "the label `app: database`.",
    {
        "through": "It gets through: both are selected by the same policy",
        "blocked": "It is blocked",
    },
    _replica,
    {"through": "To be *selected* is to be isolated. Whom does the rule under `from` name?"},
    (
        "`podSelector` under `spec` says whom the policy is about, not whom it lets in.",
        "The ones let in stand under `ingress`, `from`.",
        "There stands one label. Does database-1 have it?",
    ),
)

# -- predict: the node --------------------


def _node() -> Outcome:
    world = guarded()
    own, other = called(world, "node/node-3"), called(world, "node/node-1")
    key = ("own" if own == "connected" else "") + ("other" if other == "connected" else "")
    return Outcome(
        {"own": "own", "ownother": "both", "": "none", "other": "other"}[key],
        f"From node-3, where the database runs: {own}. From node-1: {other}. A pod's own node is "
        "always let in, or the "
        "kubelet could not probe it. Whoever gets hold of a node is behind the policies of its pods.",
        eight(world),
    )


NODE = predict(
    "20-node",
    "From the nodes",
    "Somebody is logged in on node-3, where `database-0` runs, and somebody else on node-1. Both try port 5432 of "
    "`database-0`. No rule names a node.",
    {
        "none": "Both are blocked",
        "own": "node-3 gets through, node-1 does not",
        "both": "Both get through: policies are about pods",
        "other": "node-1 gets through, node-3 does not",
    },
    _node,
    {
        "none": "Then the kubelet's probes would be blocked too, and the pod would never be ready.",
        "both": "Policies are about pods as *destinations*, whoever the source is. One source is an exception.",
        "other": "Which of the two has to reach the pod for the cluster to work?",
    },
    (
        "Who probes the pod to find out whether it is ready?",
        "The kubelet, from the pod's own node.",
        "Only the node of the pod has that need.",
    ),
)

# -- predict: a dash --------------------


def _dash() -> Outcome:
    found = dash()
    seen = {(row[0], row[1]): row[2] == "connected" for row in found.rows}
    frontend, staging = seen["two items", "production/frontend"], seen["two items", "staging/backend"]
    key = {(True, True): "more", (False, True): "same", (False, False): "fewer", (True, False): "odd"}[
        frontend, staging
    ]
    return Outcome(
        key,
        "With one item both conditions have to hold. With two, either is enough: every pod of a namespace with "
        "`team: shop` *or* any backend of the policy's own namespace. So frontend gets in.",
        found,
    )


DASH = predict(
    "20-dash",
    "One dash more",
    "`from` has one item: `namespaceSelector: {team: shop}` and, in the same item, `podSelector: "
    "{app: backend}`. It lets "
    "in the backends of both namespaces. Now somebody puts a dash before `podSelector`. Who gets in?",
    {
        "same": "The same as before",
        "fewer": "Fewer: the backend of `staging` no longer",
        "more": "More: frontend, too",
        "odd": "More in production, and nobody of `staging`",
    },
    _dash,
    {
        "same": "A dash begins a new item of the list. What holds between items of a list of peers?",
        "fewer": "The namespace selector is still there, alone in its item. Whom does it mean without a podSelector?",
        "odd": "`staging` has the label `team: shop` as well as production has.",
    },
    (
        "Fields within one item all have to hold.",
        "Items of the list are alternatives.",
        "A `namespaceSelector` alone means every pod of those namespaces.",
    ),
)

# -- predict: DNS --------------------


def _dns() -> Outcome:
    world = guarded()
    trip = world.connect(DATABASE, "http://frontend:8080")
    key = "name" if trip.verdict == "could not resolve" else "connect" if not trip.delivered else "works"
    return Outcome(
        key,
        f"The caller sees: {trip.verdict}. It ends before there is an address to call. `Egress` "
        "stands in `policyTypes` and there "
        "is no egress rule, so *nothing* may leave, and a question to the name server is a packet that leaves.",
        trip,
    )


DNS = predict(
    "20-dns",
    "The database calls",
    "The policy names `Egress` and has no egress rules. In the pod `database-0` somebody types "
    "`curl http://frontend:8080`. Where does it end?",
    {
        "works": "It works: the policy is about calls *to* the database",
        "connect": "The name resolves, and the connection is blocked",
        "name": "The name does not resolve",
    },
    _dns,
    {
        "works": "The second line under `policyTypes` is about calls of the database.",
        "connect": "Something has to leave the pod before there is an address to connect to.",
    },
    (
        "What is the first packet of such a call? (Notebook 00.)",
        "A question to 10.96.0.10, port 53.",
        "It leaves the pod like any other packet.",
    ),
)

# -- predict: policyTypes left out --------------------


def _types() -> Outcome:
    found = types()
    into, out = next(row[1:] for row in found.rows if row[0] == "left out, no egress rules")
    key = {("isolated", "open"): "in", ("isolated", "isolated"): "both", ("open", "open"): "none"}[into, out]
    return Outcome(
        key,
        "Without `policyTypes`, `Ingress` is always meant, and `Egress` only if there are egress "
        "rules. Such a policy "
        "closes the way in and leaves the way out open.",
        found,
    )


TYPES = predict(
    "20-types",
    "Left out",
    "A policy selects the database and says nothing else: no `policyTypes`, no rules. What is isolated?",
    {
        "none": "Nothing: it has no rule",
        "in": "Calls to the database",
        "both": "Calls to it, and calls of it",
    },
    _types,
    {
        "none": "To be selected is enough to be isolated. In which direction, when nobody says so?",
        "both": "Who writes a policy without a word about egress would be surprised to lose DNS. "
        "What is the default?",
    },
    (
        "There is no deny rule in a NetworkPolicy: selecting a pod is what isolates it.",
        "`policyTypes` has a default that looks at the rules.",
        "Egress is meant only where there are egress rules.",
    ),
)

# -- predict: an open connection --------------------


def _open_connection() -> Outcome:
    world = unguarded()
    address = world.pod("database-0", "production").ips[0]
    trip = world.connect("production/frontend", f"tcp://{address}:{PORT}")
    assert trip.exchange is not None
    sent = trip.exchange.request.packet
    world.apply(SEED)
    fresh = called(world, "production/frontend")
    more = Packet(
        sent.src, address, TCP, sent.sport, PORT, flags=PSH | ACK, seq=1, ack=1, payload=b"SELECT 1"
    )
    trace = world.walk().send("production/frontend", more, role="data")
    goes_on = any(hop.netns == DATABASE for hop in trace.hops)
    return Outcome(
        "stays" if goes_on and fresh != "connected" else "cut" if not goes_on else "all",
        f"Its next packet reaches the database all the same; a new connection is {fresh}. Agents like "
        "this one judge the "
        "first packet and let what the connection table knows pass. The API leaves it open: another "
        "data plane may cut.",
    )


OPEN = predict(
    "20-open",
    "While the line is open",
    "`frontend` has a connection to the database open. Now the policy is applied. It does not name frontend. What "
    "happens, with the agent of this world?",
    {
        "cut": "The open connection is cut",
        "stays": "The open connection goes on, a new one is blocked",
        "all": "Nothing, until the pods are restarted",
    },
    _open_connection,
    {
        "cut": "For which packets of a connection are rules asked? Remember notebook 13.",
        "all": "Rules are in the node's kernel. No pod has to be restarted for them.",
    },
    (
        "How does the answer of the database get back to the backend, when nothing may leave?",
        "The agent's first rule accepts what belongs to a connection that is known.",
        "The open connection is known.",
    ),
)

# -- do: the wanted matrix --------------------

WANTED = (
    ("production/backend", DATABASE, PORT, "TCP", True),
    ("production/database-1", DATABASE, PORT, "TCP", True),
    (DATABASE, "production/database-1", PORT, "TCP", True),
    ("production/frontend", DATABASE, PORT, "TCP", False),
    ("production/report", DATABASE, PORT, "TCP", False),
    ("staging/backend", DATABASE, PORT, "TCP", False),
    ("production/backend", DATABASE, 22, "TCP", False),
    ("198.51.100.7", DATABASE, PORT, "TCP", False),
    (DATABASE, "production/frontend", 8080, "TCP", False),
    (DATABASE, "198.51.100.7", 443, "TCP", False),
    ("production/frontend", "production/backend", 8080, "TCP", True),
    ("staging/backend", "production/report", 8080, "TCP", True),
)


def _judge_matrix(answer: Any) -> Finding:
    world = unguarded()
    world.apply(str(answer))
    for source, target, port, protocol, wanted in WANTED:
        told = world.explain(source, target, port, protocol)
        if told.allowed != wanted:
            state = "open" if told.allowed else "closed"
            other = "closed" if told.allowed else "open"
            return Finding(
                False,
                f"{source} to {target} on port {port} is {state}, and shall be {other}.\n\n{told.text()}",
            )
    servers = [
        pod
        for pod in world.store.list("Pod", "kube-system")
        if pod.metadata.labels.get("k8s-app") == "kube-dns"
    ]
    for protocol in ("UDP", "TCP"):
        told = world.explain(DATABASE, f"kube-system/{servers[0].name}", 53, protocol)
        if not told.allowed:
            return Finding(
                False, f"The database cannot ask the name server over {protocol}.\n\n{told.text()}"
            )
    trip = world.connect(DATABASE, f"tcp://{world.pod('database-1', 'production').ips[0]}:{PORT}")
    if not trip.delivered:
        return Finding(False, f"The policies are right, and the packet is {trip.verdict}: {trip.why}.", trip)
    return Finding(
        True,
        "The matrix is the wanted one, and packets end as it says. Whether in one policy or in "
        "several does not matter: "
        "policies add up, in any order.",
        trip,
    )


MATRIX = Exercise(
    id="20-matrix",
    kind=DO,
    title="The wanted matrix",
    task="Write the policies (of namespace `production`) under which\n"
    "the backend of `production` reaches both databases on 5432, and nothing else of them;\n"
    "the databases reach each other on 5432, and ask the cluster's DNS (UDP and TCP);\n"
    "nobody else reaches a database, and a database reaches nobody else;\n"
    "everything between other pods stays as it is.",
    judge=_judge_matrix,
    hints=(
        "Both ends have to allow a connection: the databases' own egress counts when they call each other.",
        "The name servers are pods of `kube-system` with the label `k8s-app: kube-dns`. Another namespace needs a "
        "`namespaceSelector`; every namespace has the label `kubernetes.io/metadata.name`.",
        "Select only `app: database`. A policy with `podSelector: {}` would be about everybody.",
    ),
    template=SEED,
    world=unguarded,
)

# -- find: allowed, and blocked all the same --------------------

TARGET = f"tcp://database:{PORT}"


def _backend_egress() -> Cluster:
    world = guarded()
    world.apply(
        HEAD + "metadata: {name: backend, namespace: production}\nspec:\n"
        "  podSelector: {matchLabels: {app: backend}}\n  policyTypes: [Egress]\n  egress:\n"
        "  - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]\n"
        "  - to: [{podSelector: {matchLabels: {app: report}}}]\n"
    )
    return world


def _label() -> Cluster:
    world = guarded()
    world.apply(SEED.replace("app: backend", "app: back-end"))
    return world


def _port() -> Cluster:
    world = guarded()
    world.apply(SEED.replace("5432", "5433"))
    return world


def _no_dns() -> Cluster:
    world = guarded()
    world.apply(
        HEAD + "metadata: {name: backend, namespace: production}\nspec:\n"
        "  podSelector: {matchLabels: {app: backend}}\n  policyTypes: [Egress]\n  egress:\n"
        "  - to: [{podSelector: {}}]\n"
    )
    return world


CAUSES: Mapping[str, Callable[[], Cluster]] = {
    "label": _label,
    "port": _port,
    "egress": _backend_egress,
    "dns": _no_dns,
}


def _signs(world: Cluster) -> dict[str, str]:
    """What one can see, each sign in words."""
    return {
        "the backend's call by name": world.connect("production/backend", TARGET).verdict,
        "the backend's call by address": called(world, "production/backend"),
        "the backend's call to report": called(world, "production/backend", "production/report", 8080),
        "the backend's call to frontend": called(world, "production/backend", "production/frontend", 8080),
    }


def _judge_find(answer: Any) -> Finding:
    against = contradiction(_signs(_backend_egress()), _signs(CAUSES[answer["choice"]]()))
    if against:
        return Finding(False, against)
    world = _backend_egress()
    world.apply(answer["text"])
    trip = world.connect("production/backend", TARGET)
    if not trip.delivered:
        return Finding(
            False, f"The cause is found, and the remedy does not help yet: {trip.verdict} ({trip.why}).", trip
        )
    if asked(world, "production/frontend").allowed:
        return Finding(
            False,
            "The backend gets through. So does frontend now, and that was the point of the policy.",
            trip,
        )
    return Finding(
        True,
        "Found and mended. The database's policy let the backend in all the time; the backend's own "
        "policy did not let "
        "it out. Every connection between pods has two sides that may say no.",
        trip,
    )


FIND_IT = Exercise(
    id="20-find",
    kind=FIND,
    title="Let in, and blocked",
    task='In `ward = exercise("20-find").world()` the backend no longer reaches the database, although '
    "`database-policy` "
    "names it. Name the cause, and write the YAML that mends it without opening the database to others. "
    '(`ward.explain("production/backend", "production/database-0", 5432)` asks the policies; '
    "`%kubectl get networkpolicies -A -o yaml` shows them.)",
    judge=_judge_find,
    hints=(
        "Is it the name, or the connection? Try both.",
        "Ask for both sides: what may the database receive, and what may the backend send?",
        "A pod that one policy isolates needs a rule for every call it makes. Which one is missing?",
    ),
    choices=(
        Choice("label", "The rule of database-policy names a label the backend does not have"),
        Choice("port", "The rule names another port than the database listens on"),
        Choice("egress", "The backend's own policy does not let it call the database"),
        Choice("dns", "The backend cannot ask for the name"),
    ),
    template=HEAD + "metadata:\n  name: \n  namespace: production\n",
    world=_backend_egress,
)

# -- again: the port after translation --------------------


def _recall() -> Outcome:
    ends = {}
    for port in (80, 8080):
        world = unguarded()
        world.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: production}\n"
            "spec: {selector: {app: frontend}, ports: [{port: 80, targetPort: 8080}]}\n---\n"
            + HEAD
            + "metadata: {name: front, namespace: production}\nspec:\n  podSelector: {matchLabels: {app: frontend}}\n"
            + f"  ingress: [{{ports: [{{port: {port}}}]}}]\n"
        )
        ends[port] = world.connect("production/report", "http://front").delivered
    key = "pod" if ends[8080] and not ends[80] else "service" if ends[80] and not ends[8080] else "either"
    return Outcome(
        key,
        "With 8080 the call gets through, with 80 it does not. The address and the port of the "
        "Service are gone by the "
        "time anybody looks at policies: kube-proxy's rules rewrite the first packet in PREROUTING, before FORWARD.",
    )


RECALL = predict(
    "20-recall",
    "Once more: which port is it?",
    "A Service `front` has port 80 and `targetPort: 8080`. A policy selects its pods and shall let "
    "callers of the Service "
    "in. Which port has to stand in its rule?",
    {
        "service": "80, the port that callers use",
        "pod": "8080, the port of the pod",
        "either": "Either: the rule is about the Service",
    },
    _recall,
    {
        "service": "At which hook was the packet rewritten, in notebook 12? And at which one are pods guarded?",
        "either": "A NetworkPolicy knows pods, namespaces and addresses. Is there a Service in it anywhere?",
    },
    (
        "In notebook 13: what stands on the packet when it arrives at the pod?",
        "The pod's address and the pod's port.",
        "Policies are asked after the translation.",
    ),
)

EXERCISES = (DEFAULT, REPLICA, NODE, DASH, TYPES, DNS, OPEN, MATRIX, FIND_IT, RECALL)
