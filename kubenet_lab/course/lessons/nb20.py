"""What notebook 20's cells call: a guarded database, eight who want to talk to it, and the policies as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.course.table import Table
from kubenet_lab.objects import NetworkPolicy, Node
from kubenet_lab.policy.words import title
from kubenet_lab.scenarios.guarded import DATABASE, MANIFEST, SOURCES, guarded

if TYPE_CHECKING:
    from kubenet_lab.policy.explain import Explanation
    from kubenet_lab.widgets.reach import ReachPanel

PORT = 5432
HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
SEED = HEAD + (
    "metadata:\n  name: database-policy\n  namespace: production\n"
    "spec:\n  podSelector:\n    matchLabels:\n      app: database\n  policyTypes:\n  - Ingress\n  - Egress\n"
    "  ingress:\n  - from:\n    - podSelector:\n        matchLabels:\n          app: backend\n"
    "    ports:\n    - protocol: TCP\n      port: 5432\n"
)
"""The policy of the document the course grew out of."""


def unguarded(*, policy: str = "iptables", **options: Any) -> Cluster:
    """The world of `guarded` before anybody wrote a policy."""
    objects = [obj for obj in manifests.load(MANIFEST) if not isinstance(obj, NetworkPolicy)]
    return Cluster.from_objects(objects, policy=policy, **options)


def firewall() -> ReachPanel:
    """The matrix of that world, with the document's policy beside it to edit; the choice falls on one cell."""
    from kubenet_lab.widgets.reach import ReachPanel

    panel = ReachPanel(unguarded().policy_world(), SEED, (PORT, "TCP"))
    panel.select("production/frontend", "production/database-0")
    return panel


_WHY = {
    "itself": "a pod always reaches itself",
    "own node": "a node always reaches its own pods",
    "isolated": "selected, and no rule fits",
    "": "",
}


def asked(world: Cluster, source: str, target: str = DATABASE, port: int = PORT) -> Explanation:
    """What the policies say of a call; a node is asked for by its address."""
    if source.startswith("node/"):
        source = world.store.get(Node, source[5:]).internal_ips[0]
    return world.explain(source, target, port)


def called(world: Cluster, source: str, target: str = DATABASE, port: int = PORT) -> str:
    """What a caller of a pod sees."""
    space, _, name = target.partition("/")
    return world.connect(source, f"tcp://{world.pod(name, space).ips[0]}:{port}").verdict


def eight(world: Cluster | None = None) -> Table:
    """Eight sources against the database: what their packets meet, and why."""
    world = world or guarded()
    rows = []
    for source, what in SOURCES:
        told = asked(world, source)
        side = told.judgement.ingress
        rule = f"{title(side.fits[0].policy)}, rule {side.fits[0].rule.index + 1}" if side.fits else ""
        why = rule or _WHY[side.why] or "no policy selects it"
        rows.append((source, what, called(world, source), why))
    return Table(("who", "what it is", "sees", "because"), tuple(rows))


def written(inner: str, name: str = "try") -> str:
    """A policy of namespace production for the database, with these lines below its podSelector."""
    return HEAD + (
        f"metadata: {{name: {name}, namespace: production}}\n"
        f"spec:\n  podSelector: {{matchLabels: {{app: database}}}}\n{inner}"
    )


ONE_ITEM = written(
    "  ingress:\n  - from:\n    - namespaceSelector: {matchLabels: {team: shop}}\n"
    "      podSelector: {matchLabels: {app: backend}}\n"
)
TWO_ITEMS = written(
    "  ingress:\n  - from:\n    - namespaceSelector: {matchLabels: {team: shop}}\n"
    "    - podSelector: {matchLabels: {app: backend}}\n"
)
"""One dash more."""


def dash() -> Table:
    """Two policies that differ in a dash: whom each lets in."""
    rows = []
    for name, text in (("one item", ONE_ITEM), ("two items", TWO_ITEMS)):
        world = unguarded()
        world.apply(text)
        for source in ("production/backend", "staging/backend", "production/frontend"):
            rows.append((name, source, called(world, source)))
    return Table(("from has", "who", "sees"), tuple(rows))


def types() -> Table:
    """What `policyTypes` does, given or left out: who may call the database, and whom it may call."""
    cases = {
        "left out, no egress rules": "",
        "left out, with an egress rule": "  egress: [{to: [{podSelector: {}}]}]\n",
        "[Ingress]": "  policyTypes: [Ingress]\n",
        "[Egress]": "  policyTypes: [Egress]\n",
        "[Ingress, Egress]": "  policyTypes: [Ingress, Egress]\n",
        "[Ingress], egress rules ignored": "  policyTypes: [Ingress]\n  egress: [{to: []}]\n",
    }
    rows = []
    for name, inner in cases.items():
        world = unguarded()
        world.apply(written(inner))
        into = asked(world, "production/backend").judgement.ingress
        out = asked(world, DATABASE, "staging/backend", 8080).judgement.egress
        rows.append((name, *("open" if side.tier == "Default" else "isolated" for side in (into, out))))
    return Table(("policyTypes", "calls to the database", "calls of the database"), tuple(rows))


def planes() -> Table:
    """The same policy with everybody who may enforce it, and with nobody."""
    rows = []
    for name, options in (
        ("Flannel alone", {"policy": "none"}),
        ("Flannel, an iptables agent", {"policy": "iptables"}),
        ("Flannel, an nftables agent", {"policy": "nftables"}),
        ("Cilium", {"policy": "none", "cni": "cilium"}),
    ):
        world = guarded(**options)  # type: ignore[arg-type]
        there = "yes" if world.store.find(NetworkPolicy, "database-policy", "production") else "no"
        rows.append((name, there, called(world, "production/backend"), called(world, "production/frontend")))
    return Table(("who enforces", "kubectl shows the policy", "backend sees", "frontend sees"), tuple(rows))
