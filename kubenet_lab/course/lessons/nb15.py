"""What notebook 15's cells call: Services of other kinds, and who answers behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.cluster import Cluster
from kubenet_lab.control import DUAL_STACK, Settings
from kubenet_lab.course.table import Table
from kubenet_lab.errors import KubenetLabError
from kubenet_lab.objects import Service
from kubenet_lab.objects.meta import ObjectMeta
from kubenet_lab.objects.service import ServicePort, ServiceSpec
from kubenet_lab.scenarios.kinds import kinds
from kubenet_lab.views.service_kinds import Kind, Kinds

SPECS = {
    "plain": ("type: ClusterIP",),
    "port": ("type: NodePort",),
    "balanced": ("type: LoadBalancer",),
    "headless": ("clusterIP: None",),
    "alias": ("type: ExternalName", "externalName: example.com"),
}
"""What tells the five Services of the scenario apart."""


def five(world: Cluster, node: str = "node-1") -> Kinds:
    """Return the five Services of `scenarios.kinds` side by side, as `client` and a node see them."""
    return Kinds(node, tuple(_kind(world, name, spec, node) for name, spec in SPECS.items()))


def _kind(world: Cluster, name: str, spec: tuple[str, ...], node: str) -> Kind:
    trips = [world.connect("client", f"http://{name}") for _ in range(8)]
    trip = trips[0]
    answers = trip.queries[-2].answers if len(trip.queries) > 1 else []
    lines = world.node(node).iptables_save().splitlines()
    rules = sum(line.startswith("-A") and f"default/{name}" in line for line in lines)
    who = sorted({(t.server or "").removeprefix("default/") for t in trips if t.delivered})
    outcome = f"{trip.verdict}: {', '.join(who)}" if who else f"{trip.verdict} on port {trip.port}"
    return Kind(name, spec, tuple(sorted(set(answers))), rules, outcome, bool(who))


def lookups(world: Cluster, *names: str, source: str = "client") -> Table:
    """Return what each name resolves to, asked for by a pod, and which question was answered."""
    from kubenet_lab.dns.client import lookup

    rows = []
    for name in names:
        found = lookup(world.walk(), world.network.ns(world.namespace_of(source)), name)
        query = next(
            (q.name for q in found.queries if q.answers), found.queries[-1].name if found.queries else ""
        )
        rows.append((name, query, ", ".join(sorted(found.addresses)) or found.failure))
    return Table(("the name", "the question that decided", "the answer"), tuple(rows))


def who_answers(world: Cluster, target: str, calls: int = 24, source: str = "client") -> dict[str, int]:
    """Call so many times; return how often each pod answered, or how the call failed."""
    trips = [world.connect(source, target) for _ in range(calls)]
    return dict(sorted(Counter((t.server or t.verdict).removeprefix("default/") for t in trips).items()))


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in counts.items())


# -- topology
# ---------------------------------------------------------------------------------------------------------


def near(more: str, name: str = "near") -> str:
    """Return a Service for the web pods with one more line in its spec."""
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  {more}\n"
        "  selector: {app: web}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n"
    )


WISHES = {
    "nothing": "type: ClusterIP",
    "trafficDistribution: PreferSameZone": "trafficDistribution: PreferSameZone",
    "trafficDistribution: PreferSameNode": "trafficDistribution: PreferSameNode",
    "internalTrafficPolicy: Local": "internalTrafficPolicy: Local",
}


def nearness(wishes: Iterable[str] = tuple(WISHES)) -> Table:
    """Return who answers 24 calls from node-1, with each wish: at first, and after the pod on node-1 has gone."""
    rows = []
    for wish in wishes:
        world = kinds()
        world.apply(near(WISHES[wish]))
        before = _words(who_answers(world, "http://near"))
        world.delete("Pod", "web-1")
        world.advance(60)
        rows.append((wish, before, _words(who_answers(world, "http://near"))))
    return Table(
        ("the Service asks for", "24 calls from node-1 (zone-a)", "after web-1 was deleted"), tuple(rows)
    )


# -- affinity
# ---------------------------------------------------------------------------------------------------------

STICKY = (
    "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}\n"
    "  type: NodePort\n  externalTrafficPolicy: Cluster"
)


def stickiness() -> Table:
    """Return who answers a Service with session affinity of 60 s, while time passes and pods go."""
    world = kinds()
    world.apply(near(STICKY, "sticky"))
    rows: list[tuple[str, str, str]] = []

    def note(what: str, source: str = "client") -> None:
        rows.append((f"{world.now:g}", what, _words(who_answers(world, "http://sticky", 8, source))))

    note("client calls eight times")
    world.advance(50)
    note("50 s later, again")
    held = next(iter(who_answers(world, "http://sticky", 1)))
    world.delete("Pod", held)
    world.advance(5)
    note(f"{held} was deleted")
    service = world.store.get(Service, "sticky", "default")
    port = service.spec.ports[0].node_port
    for source in ("203.0.113.61", "203.0.113.62", "203.0.113.63"):
        counts = who_answers(world, f"tcp://192.168.1.10:{port}", 4, source)
        rows.append((f"{world.now:g}", f"{source} calls node-1's node port", _words(counts)))
    return Table(("second", "what happens", "who answers"), tuple(rows))


# -- families
# ---------------------------------------------------------------------------------------------------------

POLICIES = ("SingleStack", "PreferDualStack", "RequireDualStack")


def families() -> Table:
    """Return the addresses a Service gets by its ipFamilyPolicy, in a cluster of one family and of two."""
    rows = []
    for policy in POLICIES:
        cells = [policy]
        for settings in (Settings(), DUAL_STACK):
            spec = ServiceSpec(
                ip_family_policy=policy, ports=(ServicePort(port=80),), selector={"app": "web"}
            )
            try:
                world = kinds(settings=settings)
                world.apply_objects(
                    [Service(metadata=ObjectMeta(name="both", namespace="default"), spec=spec)]
                )
                cells.append(", ".join(world.store.get(Service, "both", "default").addresses))
            except KubenetLabError as refused:
                cells.append(f"refused: {str(refused).rpartition(': ')[2]}")
        rows.append(tuple(cells))
    return Table(("ipFamilyPolicy", "a cluster of IPv4", "a cluster of IPv4 and IPv6"), tuple(rows))


def both_families() -> Table:
    """Return, for each family of a Service that has both, its address, its slice, and a call to it."""
    world = kinds(settings=DUAL_STACK)
    world.apply(near("ipFamilyPolicy: PreferDualStack", "both"))
    service = world.store.get(Service, "both", "default")
    rows = []
    for family, address in zip((4, 6), service.addresses, strict=True):
        kind = f"IPv{family}"
        ends = [
            e.addresses[0]
            for s in world.store.list("EndpointSlice", "default")
            if s.service_name == "both" and s.address_type == kind
            for e in s.endpoints
        ]
        lines = world.node("node-1").iptables_save(family).splitlines()
        rules = sum(line.startswith("-A") and "default/both" in line for line in lines)
        target = f"tcp://[{address}]:80" if family == 6 else f"tcp://{address}:80"
        answers = who_answers(world, target, 12)
        rows.append((kind, address, ", ".join(ends), str(rules), _words(answers)))
    return Table(("family", "address", "its EndpointSlice", "rules on node-1", "12 calls"), tuple(rows))


# -- by hand
# ----------------------------------------------------------------------------------------------------------

LEGACY = """\
apiVersion: v1
kind: Service
metadata: {name: legacy}
spec:
  clusterIP: 10.96.0.140
  ports: [{name: http, port: 80}]
"""
SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: legacy-1
  labels: {kubernetes.io/service-name: %s}
addressType: IPv4
ports: [{name: %s, port: %s}]
endpoints:
- addresses: [%s]
"""


def with_legacy(*slices: str) -> Cluster:
    """Return the world with a Service `legacy` that has no selector, and these slices."""
    world = kinds()
    world.apply(LEGACY)
    for text in slices:
        world.apply(text)
    return world


def database_names(world: Cluster) -> Table:
    """Return the names of the StatefulSet's pods and what they resolve to."""
    return lookups(world, "db", "db-0.db", "db-1.db", "db-2.db")


def unready(world: Cluster, pod: str) -> None:
    """A pod's program stops listening, and its readiness probe finds out."""
    from kubenet_lab.faults import make

    make("pod-not-listening", pod=pod).inject(world)
    world.advance(30)


def published(world: Cluster, name: str) -> None:
    """`kubectl patch service NAME -p '{"spec":{"publishNotReadyAddresses":true}}'`."""
    found = world.store.get(Service, name, "default")
    world.apply_objects([replace(found, spec=replace(found.spec, publish_not_ready_addresses=True))])
