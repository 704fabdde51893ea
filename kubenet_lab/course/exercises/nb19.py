"""Exercises of 19_the_shop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.scenarios import store
from kubenet_lab.trip import Trip

SERVICES: dict[str, str] = {
    "cart": "http://cart-service",
    "product": "http://product-service",
    "payment": "http://payment-service",
}
"""What the frontend calls for one page: the program, and the name its code has for it."""


def page(world: Cluster) -> dict[str, Trip]:
    """Load one page: call each service once, by its name."""
    return {name: world.connect("frontend", target) for name, target in SERVICES.items()}


# -- predict: how many questions? --------------------------------------------------------------------------------------


def _questions() -> Outcome:
    trips = page(store())
    number = sum(len(trip.queries) for trip in trips.values())
    return Outcome(
        str(number),
        f"{number}: for each name one question for IPv4 (A) and one for IPv6 (AAAA), sent together. Nothing "
        "in the pod keeps the answers: the next page asks all of them again.",
        next(iter(trips.values())),
    )


QUESTIONS = predict(
    "19-questions",
    "One page, three calls",
    "The frontend's code says `cart-service`, `product-service` and `payment-service`. For one page it "
    "calls each of them once. How many questions does its pod send to the cluster's DNS?",
    {
        "1": "1: the answer holds all three",
        "3": "3, one a name",
        "6": "6, two a name",
        "0": "None: Kubernetes wrote them into /etc/hosts",
    },
    _questions,
    {
        "1": "A question to a name server has one name in it, and one type.",
        "3": "One name, yes. But which *kind* of address is asked for: IPv4 or IPv6?",
        "0": "The pod's /etc/hosts names the pod itself and localhost, and no Service at all.",
    },
    (
        "Look at a lookup of one name first: `dig`, or the queries of one trip.",
        "The program asks for any kind of address it could use.",
        "A and AAAA, for each of three names.",
    ),
)

# -- predict: the address written down ---------------------------------------------------------------------------------


def replaced() -> tuple[Cluster, str]:
    """Return the store after the cart pod on node-1 was replaced, and the address it had."""
    world = store()
    pod = next(
        p
        for p in world.store.list("Pod", "default")
        if p.name.startswith("cart") and p.spec.node_name == "node-1"
    )
    world.delete("Pod", pod.name)
    world.advance(60)
    return world, pod.ips[0]


def _written() -> Outcome:
    world, old = replaced()
    by_address, by_name = (
        world.connect("frontend", f"tcp://{old}:8080"),
        world.connect("frontend", SERVICES["cart"]),
    )
    key = (
        "dead"
        if not by_address.delivered and by_name.delivered
        else "both"
        if by_address.delivered
        else "none"
    )
    return Outcome(
        key,
        f"By the old address {old}: {by_address.verdict}. {by_address.why.capitalize()}. By name: "
        f"{by_name.verdict}, and {by_name.server} answered. One day another pod will have it: a stranger.",
        by_address,
    )


WRITTEN = predict(
    "19-written",
    "An address in the code",
    "A colleague found DNS too slow and wrote a cart pod's address into the code. That pod is deleted and "
    "replaced. What happens to calls by that address, and to calls by name?",
    {
        "both": "Both work: the new pod takes over the old one's address",
        "dead": "By address: dead. By name: fine",
        "none": "Both fail until the frontend is restarted",
    },
    _written,
    {
        "both": "A new pod gets a new address. It does not inherit one.",
        "none": "Who calls by name finds the Service, and the Service follows its pods.",
    },
    (
        "Deployments replace pods. What does a replacement keep: the name? the address?",
        "Neither.",
        "And what stays the same, whatever happens to pods? The Service's name and address.",
    ),
)

# -- do: one more service ----------------------------------------------------------------------------------------------


def _judge_more(answer: Any) -> Finding:
    world = store()
    world.apply(answer)
    trip = world.connect("frontend", "http://review-service/")
    if not trip.queries or not trip.address:
        return Finding(
            False, f"frontend looks up `review-service`: {trip.verdict}. {trip.why.capitalize()}.", trip
        )
    if not trip.delivered:
        return Finding(
            False, f"`review-service` is {trip.address}, and the call: {trip.verdict}. {trip.why}.", trip
        )
    pods = {world.connect("frontend", "http://review-service").server for _ in range(40)}
    if len(pods) < 2:
        return Finding(
            False,
            f"It works, with one pod behind it ({pods.pop()}). Make it two, so that one may fail.",
            trip,
        )
    broken = [name for name, other in page(world).items() if not other.delivered]
    if broken:
        return Finding(False, f"Now {', '.join(broken)} no longer answers.", trip)
    return Finding(
        True,
        f"http://review-service/ works, with {len(pods)} pods behind it. No address was written anywhere, "
        "and no caller had to be told.",
        trip,
    )


MORE = Exercise(
    id="19-more",
    kind=DO,
    title="A fourth service",
    task="Reviews are wanted. Add a Deployment `review` with two pods that listen on port 8080, and a "
    "Service so that the frontend can call `http://review-service/`. Write no address.",
    judge=_judge_more,
    hints=(
        "Two objects with `---` between them. The Service's selector has to fit the labels of the pods' template.",
        "`port: 80`, because the URL names none; `targetPort: 8080`, because that is where the program "
        "listens. And the container has to name its port: `ports: [{containerPort: 8080}]`.",
        "Copy what cart has: `kubectl get deployment cart -o yaml` shows it. Change names, labels, number.",
    ),
    template="apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: review}\nspec:\n  replicas: 2\n---\n"
    "apiVersion: v1\nkind: Service\nmetadata: {name: review-service}\nspec:\n",
)

# -- find: the page that does not load ---------------------------------------------------------------------------------

FAULTY = """
apiVersion: v1
kind: Service
metadata: {name: payment-service}
spec:
  clusterIP: 10.96.0.103
  selector: {app: payments}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
CAUSES: Mapping[str, tuple[str, str]] = {
    "name": ("The frontend asks for a name that nobody has", ""),
    "selector": ("payment-service selects pods that do not exist", FAULTY),
    "port": (
        "payment-service leads to the wrong port of its pods",
        FAULTY.replace("app: payments", "app: payment").replace("targetPort: 8080", "targetPort: 8081"),
    ),
    "pods": ("The payment pods are not running", "scale"),
}


def ward() -> Cluster:
    """Return the store whose page does not load."""
    return _with("selector")


def _with(cause: str) -> Cluster:
    world = store()
    change = CAUSES[cause][1]
    if change == "scale":
        from msgspec.structs import replace

        found = world.store.get("Deployment", "payment", "default")
        world.apply_objects([replace(found, spec=replace(found.spec, replicas=0))])
    elif change:
        world.apply(change)
    else:
        world.delete("Service", "payment-service")
    return world


def signs(world: Cluster) -> dict[str, str]:
    """What can be seen of payment: the lookup, the endpoints, the pods, the call."""
    trip = world.connect("frontend", SERVICES["payment"])
    slices = [s for s in world.store.list("EndpointSlice", "default") if s.service_name == "payment-service"]
    ready = {a for s in slices for e in s.endpoints if e.ready for a in e.addresses}
    pods = [
        p
        for p in world.store.list("Pod", "default")
        if p.name.startswith("payment") and p.status.phase == "Running"
    ]
    return {
        "the name payment-service is": trip.address or "unknown",
        "running payment pods": str(len(pods)),
        "endpoints of payment-service": str(len(ready)),
        "the call to payment": trip.verdict,
    }


def _judge_find(answer: Any) -> Finding:
    seen, would = signs(ward()), signs(_with(answer))
    for what, value in seen.items():
        if would[what] != value:
            return Finding(False, f"If that were so, {what}: {would[what]}. But {what}: {value}.")
    told = "; ".join(f"{what}: {value}" for what, value in seen.items())
    return Finding(True, f"That fits everything: {told}.")


FIND_IT = Exercise(
    id="19-find",
    kind=FIND,
    title="The page does not load",
    task="Cart and products are there, and the payment part of the page is not. Look at the cluster in the "
    "cells above, and say why.",
    judge=_judge_find,
    hints=(
        "Ask in the order of the call: does the name resolve? does the Service have endpoints? do the pods run?",
        "`kubectl get endpointslices` shows who is behind each Service. Compare it with `kubectl get pods`.",
        "`kubectl get service payment-service -o yaml` and `kubectl get pods -l app=payment`: read the selector.",
    ),
    choices=tuple(Choice(key, text) for key, (text, _change) in CAUSES.items()),
    world=ward,
)

# -- recall (10): one connection ---------------------------------------------------------------------------------------


def _pool() -> Outcome:
    world = store()
    first = world.connect("frontend", SERVICES["product"])
    found = world.store.get("Deployment", "product", "default")
    from msgspec.structs import replace

    world.apply_objects([replace(found, spec=replace(found.spec, replicas=10))])
    exchange = first.exchange
    kept = exchange is not None and bool(first.server)
    # An open connection's packets follow its conntrack entry, so its pod stays the same whatever the rules say now.
    flows = [flow for flow in world.network.ns("node-1").conntrack if flow.orig[2] == first.address]
    pod = next((p for p in world.store.list("Pod", "default") if flows and flows[0].reply[1] in p.ips), None)
    same = kept and pod is not None and f"default/{pod.name}" == first.server
    return Outcome(
        "one" if same else "spread",
        f"The connection was opened to {first.server}, and node-1's connection table still leads it there, "
        "with ten pods behind the Service. The choice was made when it was opened.",
        first,
    )


POOL = predict(
    "19-recall",
    "Once more, from notebook 10: keep-alive",
    "The frontend keeps one connection to `product-service` open and sends all its requests over it. You "
    "scale product from 5 to 10 pods. How many of the ten answer the frontend's requests now?",
    {
        "spread": "All ten, in turn",
        "half": "The five new ones: they are idle",
        "one": "One, as before",
    },
    _pool,
    {
        "spread": "When does the node choose a pod: at each request, or at each connection?",
        "half": "Nobody looks at how busy a pod is when a request comes along an open connection.",
    },
    (
        "Notebook 10: “The choice is made once per ...”.",
        "The connection table of node-1 has an entry for that connection.",
        "It leads to the pod that was chosen when the connection was opened.",
    ),
)

EXERCISES = (QUESTIONS, WRITTEN, MORE, FIND_IT, POOL)
