"""Exercises of 15_other_services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, contradiction, predict
from kubenet_lab.course.lessons.nb15 import (
    SLICE,
    database_names,
    families,
    lookups,
    near,
    nearness,
    unready,
    who_answers,
    with_legacy,
)
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.course.table import Table
from kubenet_lab.objects import Service
from kubenet_lab.scenarios.kinds import kinds

# -- predict: a headless Service's port
# --------------------------------------------------------------------------------

TRIES = {
    "target": ("http://headless:8080",),
    "again": ("http://headless",) * 9,
    "node": ("tcp://192.168.1.10:80",),
}


def _headless_port() -> Outcome:
    world = kinds()
    seen = {key: [world.connect("client", url) for url in urls] for key, urls in TRIES.items()}
    works = [key for key, trips in seen.items() if any(trip.delivered for trip in trips)]
    trip = seen["again"][0]
    good = seen["target"][0]
    return Outcome(
        works[0] if len(works) == 1 else "none",
        f"Port 80 is {trip.verdict} by every pod, as often as one tries: their programs listen on 8080. `http://headless:"
        f"8080` is {good.verdict}. `port` and `targetPort` are words for the rules that rewrite packets, and for a "
        "headless Service there are none.",
        good,
    )


HEADLESS_PORT = predict(
    "15-headless-port",
    "Why was it refused?",
    "`plain` and `headless` have the same selector and the same `ports: [{port: 80, targetPort: 8080}]`. The call to "
    "`plain` on port 80 was answered, the one to `headless` was refused. What would be answered?",
    {
        "again": "`http://headless` again: it was a pod that was not ready yet, and there are two more",
        "target": "`http://headless:8080`",
        "node": "Port 80 of a node: a headless Service lives on the nodes",
        "none": "Nothing: a headless Service is there for DNS alone",
    },
    _headless_port,
    {
        "again": "All three pods are ready, and all three would refuse. Look at the port in the picture.",
        "node": "Nodes have no rule for it at all, as the picture says.",
        "none": "Its name resolves to three addresses where somebody listens. On which port?",
    },
    (
        "Write down where the packet went: which address, which port?",
        "A pod's own address, port 80. On which port does the program in that pod listen?",
        "For `plain` a rule rewrites 80 to 8080. How many rules has `headless`?",
    ),
)


# -- predict: a name that outlives a pod
# -------------------------------------------------------------------------------


def _renamed() -> Outcome:
    world = kinds()
    before = {row[0]: row[2] for row in database_names(world).rows}
    world.delete("Pod", "db-1")
    world.advance(30)
    found = database_names(world)
    after = {row[0]: row[2] for row in found.rows}
    if "no-such-name" in after["db-1.db"]:
        key = "nothing"
    else:
        key = "same" if after["db-1.db"] == before["db-1.db"] else "new-address"
    return Outcome(
        key,
        f"`db-1.db` was {before['db-1.db']} and is now {after['db-1.db']}. A StatefulSet gives the new pod the old "
        "pod's name, and the headless Service publishes that name. So a client that looks the name up again finds it; "
        "one that kept the address does not.",
        found,
    )


RENAMED = predict(
    "15-renamed",
    "db-1 is deleted",
    "The StatefulSet `db` has pods `db-0`, `db-1` and `db-2`, each of which can be called by name: `db-1.db`. Pod "
    "`db-1` is deleted. Half a minute later, what does the name `db-1.db` resolve to?",
    {
        "nothing": "Nothing: the new pod has another name, such as `db-3`",
        "same": "The same address as before",
        "new-address": "A new address",
    },
    _renamed,
    {
        "nothing": "So it would be with a Deployment. What is a StatefulSet for?",
        "same": "The address belonged to the old pod's network namespace (notebook 10).",
    },
    (
        "Two things identify a pod here: its name and its address. Which one does a StatefulSet keep?",
        "The name. And who gives out the address?",
        "The new sandbox gets a free address from its node's block.",
    ),
)


# -- predict: an alias with another port
# -------------------------------------------------------------------------------


def _alias_port() -> Outcome:
    world = kinds()
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec:\n  type: ExternalName\n"
    world.apply(text + "  externalName: example.com\n  ports: [{port: 8000, targetPort: 80}]\n")
    trip = world.connect("client", "http://shop:8000")
    good = world.connect("client", "http://shop:80")
    return Outcome(
        trip.verdict,
        f"Port 8000: {trip.verdict}; port 80: {good.verdict}. The name server answers `shop` with “that is another "
        f"name for example.com”, and the client calls {trip.address} on the port it wanted. No packet ever meets a "
        "rule of this Service.",
        trip,
    )


ALIAS_PORT = predict(
    "15-alias-port",
    "An alias with ports",
    "A Service `shop` has `type: ExternalName`, `externalName: example.com` and, below, `ports: [{port: 8000, "
    "targetPort: 80}]`. The API server takes it. example.com listens on port 80. `client` calls `http://shop:8000`. "
    "What does it see?",
    {
        "connected": "It is connected: 8000 is translated to 80",
        "refused": "“Connection refused”",
        "could not resolve": "The name does not resolve",
        "timed out": "Nothing, until it gives up",
    },
    _alias_port,
    {
        "connected": "A translation needs a rule, and a rule needs an address to match. Has this Service one?",
        "could not resolve": "It does: to whatever example.com resolves to.",
        "timed out": "example.com is there, and says so when nobody listens on a port.",
    },
    (
        "What does the name server answer for `shop`? (`dig +search shop`)",
        "A CNAME: another name. From there on the client is on its own.",
        "It calls example.com's address, on port 8000.",
    ),
)


# -- do: a slice by hand
# -----------------------------------------------------------------------------------------------


def _judge_slice(answer: Any) -> Finding:
    world = with_legacy()
    wished = manifests.load(answer)
    if any(obj.kind == "Service" for obj in wished):
        return Finding(False, "The Service is to stay as it is. Write the object that it lacks.")
    world.apply_objects(wished)
    world.advance(5)
    for source in ("client", "web-2", "web-3", "node/node-2"):
        trip = world.connect(source, "http://10.96.0.140")
        if not trip.delivered:
            named = [s for s in world.store.list("EndpointSlice", "default") if s.service_name == "legacy"]
            more = "" if named else " No EndpointSlice says that it belongs to the Service `legacy`."
            return Finding(False, f"A call from {source} ends as “{trip.verdict}”: {trip.why}.{more}", trip)
        if trip.server != "outside":
            return Finding(False, f"It is answered, but by {trip.server}, not by 203.0.113.10.", trip)
    return Finding(
        True,
        "Every caller in the cluster reaches the machine outside by the Service's name and address. When it moves, "
        "you change one slice. (Nobody checks whether it is well: that would be the work of whoever writes the slice.)",
        trip,
    )


BY_HAND = Exercise(
    id="15-by-hand",
    kind=DO,
    title="A Service for a machine outside",
    task="The Service `legacy` (10.96.0.140, port 80, named `http`) has no selector, so nobody writes endpoints for "
    "it, and calls are refused. An old machine outside the cluster, 203.0.113.10, listens on port 80. Write the "
    "EndpointSlice that puts it behind `legacy`.",
    judge=_judge_slice,
    hints=(
        "A slice belongs to a Service by a label, `kubernetes.io/service-name`, not by its name.",
        "It needs `addressType: IPv4`, a list of `endpoints` with `addresses`, and `ports`.",
        "The port in the slice has to have the *name* of the Service's port: `{name: http, port: 80}`.",
    ),
    template="apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: legacy-1\n",
    world=with_legacy,
)


# -- predict: two families
# ---------------------------------------------------------------------------------------------


def _required() -> Outcome:
    found = families()
    one = next(row for row in found.rows if row[0] == "PreferDualStack")[1]
    strict = next(row for row in found.rows if row[0] == "RequireDualStack")[1]
    key = "refused" if strict.startswith("refused") and not one.startswith("refused") else "both"
    return Outcome(
        key,
        f"PreferDualStack: {one}. RequireDualStack: {strict}. “Prefer” takes what there is; that is why it is the word "
        "for manifests that are to work everywhere.",
        found,
    )


REQUIRED = predict(
    "15-required",
    "Two families wanted",
    "A cluster has addresses of IPv4 only. Two Services are applied to it, one with `ipFamilyPolicy: PreferDualStack`, "
    "one with `RequireDualStack`. What happens?",
    {
        "both": "Both get one address",
        "refused": "The first gets one address, the second is refused",
        "pending": "The second waits until the cluster has IPv6",
        "two": "Both get two addresses; the second is of no use",
    },
    _required,
    {
        "both": "Then the two words would mean the same. Which of them leaves no room?",
        "pending": "Addresses are given by the API server while it answers. It does not answer “later”.",
        "two": "It has no range to take an IPv6 address from.",
    },
    (
        "Who gives a Service its address, and when?",
        "The API server, before it stores the Service. What can it say when it cannot?",
        "“Prefer” and “Require” are meant as in English.",
    ),
)


# -- predict: near, and nobody near
# ------------------------------------------------------------------------------------


def _nobody_near() -> Outcome:
    found = nearness(("trafficDistribution: PreferSameZone", "internalTrafficPolicy: Local"))
    zone, local = (row[2] for row in found.rows)
    works = {name: "web-" in text for name, text in (("zone", zone), ("local", local))}
    key = {(True, True): "both", (True, False): "zone", (False, True): "local"}.get(
        (works["zone"], works["local"]), "neither"
    )
    return Outcome(
        key,
        f"PreferSameZone: {zone}. internalTrafficPolicy: Local: {local}. The first is a preference, and gives way when "
        "nobody in the zone is ready. The second is a rule, and says nobody rather than somebody far.",
        found,
    )


NOBODY_NEAR = predict(
    "15-nobody-near",
    "Nobody near",
    "Node-1 is the only node of zone-a, and `web-1` is the only web pod there. `client` lives on node-1, too. Then "
    "`web-1` is deleted. Of two Services for the web pods, one says `trafficDistribution: PreferSameZone`, the other "
    "`internalTrafficPolicy: Local`. Which of them can `client` still call?",
    {
        "both": "Both: there are two more pods",
        "zone": "Only the one with PreferSameZone",
        "local": "Only the one with Local",
        "neither": "Neither",
    },
    _nobody_near,
    {
        "both": "One of the two words is a preference. The other is not.",
        "local": "It is the other way round: which of the words sounds like it could give way?",
        "neither": "One of them gives way when nobody is near.",
    },
    (
        "What happens to hints in an EndpointSlice when a zone in use has no endpoint left?",
        "Without hints for it, a node uses all endpoints.",
        "And `Local` is what it was in notebook 14: to pods of this node or not at all.",
    ),
)


# -- predict: affinity behind one address
# ------------------------------------------------------------------------------


def _office() -> Outcome:
    world = kinds()
    world.apply(near("sessionAffinity: ClientIP\n  type: NodePort", "sticky"))
    port = world.store.get(Service, "sticky", "default").spec.ports[0].node_port
    counts = who_answers(world, f"tcp://192.168.1.10:{port}", 24, "203.0.113.60")
    plain = who_answers(world, "tcp://192.168.1.10:30131", 24, "203.0.113.60")
    key = "one" if len(counts) == 1 else "even"
    words = ", ".join(f"{name}: {n}" for name, n in counts.items())
    other = ", ".join(f"{name}: {n}" for name, n in plain.items())
    return Outcome(
        key,
        f"With affinity {words}; without, {other}. `ClientIP` means the source address that the node sees, and nothing "
        "else. An office, a mobile network or a proxying load balancer is one client.",
        Table(("24 calls from 203.0.113.60", "who answers"), (("with affinity", words), ("without", other))),
    )


OFFICE = predict(
    "15-office",
    "An office of 24",
    "A Service with `sessionAffinity: ClientIP` and a node port has three pods. 24 people in one office call it for "
    "the first time, at the same moment. Their router gives all of them one public address, as such routers do. Where "
    "do their calls go?",
    {
        "even": "About eight to each pod; each person then stays with theirs",
        "one": "All to one pod",
        "cookie": "That depends on their cookies",
    },
    _office,
    {
        "even": "What tells the 24 apart, seen from a node? Affinity does not look at ports.",
        "cookie": "A cookie is inside HTTP. A rule in the kernel looks at addresses.",
    },
    (
        "Affinity remembers something about a call. What can a rule in the kernel see of it?",
        "The name of the option says it.",
        "Which source address do the 24 have?",
    ),
)


# -- find: a slice that nobody heeds
# -----------------------------------------------------------------------------------


def _unlabelled() -> Cluster:
    return with_legacy(SLICE % ("legcay", "http", 80, "203.0.113.10"))


def _misnamed() -> Cluster:
    return with_legacy(SLICE % ("legacy", "web", 80, "203.0.113.10"))


def _wrong_port() -> Cluster:
    return with_legacy(SLICE % ("legacy", "http", 8080, "203.0.113.10"))


def _wrong_address() -> Cluster:
    return with_legacy(SLICE % ("legacy", "http", 80, "203.0.113.11"))


CAUSES: Mapping[str, Callable[[], Cluster]] = {
    "label": _unlabelled,
    "port": _wrong_port,
    "name": _misnamed,
    "address": _wrong_address,
}


def _signs(world: Cluster) -> dict[str, str]:
    """What one can see, each sign in words."""
    made = next(s for s in world.store.list("EndpointSlice", "default") if s.name == "legacy-1")
    trip = world.connect("client", "http://10.96.0.140")
    direct = {
        world.connect("client", f"tcp://{address}:{port.port}").verdict
        for endpoint in made.endpoints
        for address in endpoint.addresses
        for port in made.ports
    }
    return {
        "what a call to the Service sees": trip.verdict,
        "the Service that the slice names": made.service_name,
        "what a direct call to the slice's address and port sees": ", ".join(sorted(direct)),
    }


def _judge_find(answer: Any) -> Finding:
    against = contradiction(_signs(_misnamed()), _signs(CAUSES[answer["choice"]]()))
    if against:
        return Finding(False, against)
    world = _misnamed()
    world.apply(answer["text"])
    world.advance(5)
    trip = world.connect("client", "http://legacy")
    if not trip.delivered:
        return Finding(
            False,
            f"The cause is found, and the remedy does not help yet: {trip.verdict} ({trip.why}).",
            trip,
        )
    return Finding(
        True,
        "Found and mended. kube-proxy joins a Service's ports to a slice's ports by name, and nothing complains when "
        "two names do not meet: there are simply no endpoints for that port.",
        trip,
    )


FIND_IT = Exercise(
    id="15-find",
    kind=FIND,
    title="A slice that nobody heeds",
    task='In `ward = exercise("15-find").world()` somebody has written an EndpointSlice `legacy-1` for the Service '
    "`legacy`, and calls to `http://legacy` are still refused. Name the cause, and write the YAML that mends it. "
    "(`%kubectl get services,endpointslices -o yaml` shows both.)",
    judge=_judge_find,
    hints=(
        "Is the machine there? `%netshoot client curl -m 3 http://203.0.113.10`. Is the slice the Service's? Read its "
        "label.",
        "Address, port number and label are all right. What else do the Service's `ports` and the slice's `ports` have "
        "in common, or not?",
        "Their names.",
    ),
    choices=(
        Choice("label", "the slice's label names another Service"),
        Choice("port", "the slice has the wrong port number"),
        Choice("name", "the slice's port has another name than the Service's"),
        Choice("address", "the slice has the wrong address"),
    ),
    template="apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: legacy-1\n",
    world=_misnamed,
)


# -- again: readiness
# --------------------------------------------------------------------------------------------------


def _unready_name() -> Outcome:
    world = kinds()
    unready(world, "db-2")
    found = lookups(world, "db", "db-2.db")
    several, own = (row[2] for row in found.rows)
    address = world.store.get("Pod", "db-2", "default").ips[0]
    key = ("in" if address in several else "out") + ("-gone" if "name" in own else "-there")
    return Outcome(
        key,
        f"`db` resolves to {several}; `db-2.db`: {own}. Names come from the EndpointSlice, and an endpoint that is not "
        "ready is not published. (Members that have to find each other before they are ready need "
        "`publishNotReadyAddresses: true` in their Service.)",
        found,
    )


RECALL = predict(
    "15-recall",
    "Once more: what does “ready” mean?",
    "The program in `db-2` stops listening, and its readiness probe finds out. The pod keeps its address 10.244.2.x. "
    "What do the names `db` and `db-2.db` resolve to now?",
    {
        "in-there": "Nothing changes: the pod is still there",
        "out-there": "`db` to the other two; `db-2.db` still to the pod's address",
        "out-gone": "`db` to the other two; `db-2.db` to nothing at all",
        "in-gone": "`db` to all three; `db-2.db` to nothing at all",
    },
    _unready_name,
    {
        "in-there": "In notebook 10 a pod that was not ready got no calls. Who kept them away?",
        "out-there": "Both names come from the same place. Is the pod in it as a ready endpoint?",
        "in-gone": "Both names come from the same place. It lists the pod as ready, or it does not.",
    },
    (
        "Where does the name server get the addresses of a headless Service from?",
        "From its EndpointSlices, where every endpoint says whether it is ready.",
        "A name for an endpoint that is not ready is left out, its own name too.",
    ),
)


EXERCISES = (
    HEADLESS_PORT,
    RENAMED,
    ALIAS_PORT,
    BY_HAND,
    FIND_IT,
    REQUIRED,
    NOBODY_NEAR,
    OFFICE,
    RECALL,
)
