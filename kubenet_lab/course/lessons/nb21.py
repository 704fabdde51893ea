"""What notebook 21's cells call: a frontend that was taken over, and how far its new owner gets "
"under which policies."""

from __future__ import annotations

from html import escape

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.lessons.nb20 import HEAD, SEED, called, unguarded
from kubenet_lab.course.table import Table
from kubenet_lab.policy.advice import Advice, Flow, allow_only
from kubenet_lab.policy.world import CLUSTER, World
from kubenet_lab.reach.attack import attack
from kubenet_lab.views.reach_matrix import graph
from kubenet_lab.views.theme import Picture

TAKEN = "production/frontend"
OUTSIDE = "198.51.100.7"
FLOWS = (
    Flow("production/frontend", "production/backend", 8080),
    Flow("production/backend", "production/database-0", 5432),
    Flow("production/backend", "production/database-1", 5432),
)
"""What the shop needs."""
STAGES = ("open", "guarded", "closed")
WALL = """apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata:
  name: staging-stays-out
spec:
  tier: Admin
  priority: 10
  subject:
    namespaces: {matchLabels: {kubernetes.io/metadata.name: production}}
  ingress:
  - name: staging
    action: Deny
    from:
    - namespaces: {matchLabels: {kubernetes.io/metadata.name: staging}}
"""
OPEN_DOOR = (
    HEAD + "metadata: {name: open-door, namespace: production}\nspec:\n  podSelector: {}\n  ingress: [{}]\n"
)
"""A policy of a team in a hurry: everybody may come in."""


def shop(stage: str = "open", *, agent: str = "nftables") -> Cluster:
    """The shop in one of three `STAGES`: no policy; the document's; and nothing but what the shop needs."""
    world = unguarded(policy=agent)
    if stage == "guarded":
        world.apply(SEED)
    elif stage == "closed":
        world.apply(advice().text())
    return world


def advice() -> Advice:
    """The fewest policies under which the shop's own connections work and nothing else does."""
    return allow_only(unguarded().policy_world(), FLOWS)


def judged(world: Cluster) -> World:
    """The world's policies and pods, as a cluster reads them."""
    found = world.policy_world()
    assert found.conventions == CLUSTER
    return found


class BeforeAndAfter(Struct, frozen=True):
    """Several graphs below one another, each with its caption."""

    parts: tuple[tuple[str, Picture], ...]

    def __str__(self) -> str:
        return "\n".join(f"{caption}\n{picture.alt}" for caption, picture in self.parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(
            f"<p><b>{escape(caption)}</b></p>{picture._repr_html_()}" for caption, picture in self.parts
        )


CAPTIONS = {
    "open": "No policy: somebody is inside the frontend",
    "guarded": "With the document's policy for the database",
    "closed": "With nothing open but what the shop needs",
}


def breach(*stages: str) -> BeforeAndAfter:
    """How far one gets from the frontend, a picture a stage."""
    return BeforeAndAfter(
        tuple((CAPTIONS[stage], graph(judged(shop(stage)), TAKEN)) for stage in stages or STAGES)
    )


def ways() -> Table:
    """The shortest way to each pod, in each stage."""
    found = {stage: attack(judged(shop(stage)), TAKEN) for stage in STAGES}
    pods = sorted({pod for one in found.values() for pod in (*one.paths, *one.safe)} - {TAKEN})

    def way(stage: str, pod: str) -> str:
        hops = found[stage].paths.get(pod)
        if hops is None:
            return "out of reach"
        over = [hop.destination for hop in hops[:-1]]
        return f"by way of {', '.join(over)}" if over else "directly"

    return Table(
        ("from the frontend to", *STAGES), tuple((pod, *(way(s, pod) for s in STAGES)) for pod in pods)
    )


def tried(stage: str = "guarded") -> Table:
    """What the attacker's own packets meet."""
    world = shop(stage)
    rows = []
    for pod, port in (("database-0", 5432), ("backend", 8080), ("report", 8080)):
        rows.append((f"production/{pod}", str(port), called(world, TAKEN, f"production/{pod}", port)))
    rows.append((OUTSIDE, "443", "allowed" if world.explain(TAKEN, OUTSIDE, 443).allowed else "blocked"))
    rows.append(("the name database", "53", "resolves" if _resolves(world) else "does not resolve"))
    return Table(("to", "port", "sees"), tuple(rows))


def _resolves(world: Cluster) -> bool:
    return world.connect(TAKEN, "http://database:5432").verdict != "could not resolve"


def tiers() -> Table:
    """An administrator's policy and a team's, alone and together: what a pod of staging meets in production."""
    rows = []
    for name, texts in (
        ("none", ()),
        ("the team's: everybody may come in", (OPEN_DOOR,)),
        ("the administrator's: staging stays out", (WALL,)),
        ("both", (OPEN_DOOR, WALL)),
    ):
        world = shop()
        for text in texts:
            world.apply(text)
        rows.append(
            (
                name,
                called(world, "staging/backend", "production/report", 8080),
                called(world, TAKEN, "production/report", 8080),
            )
        )
    return Table(("policies", "staging/backend sees", "production/frontend sees"), tuple(rows))
