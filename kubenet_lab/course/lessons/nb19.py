"""What the cells of 19_the_shop call."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb19 import SERVICES, page, replaced
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.scenarios import shop, store
from kubenet_lab.trip import Trip

__all__ = ["chain", "counted", "load", "page", "replaced", "scaled", "step", "store", "written_down"]


class Page(Struct, frozen=True):
    """One page's calls in the order they were made: service -> trip."""

    trips: dict[str, Trip]

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        """Return (what the code says, questions, the Service's address, the pod, seen as, packets) of each call."""
        found = []
        for name, trip in self.trips.items():
            asked = ", ".join(query.type for query in trip.queries)
            packets = sum(1 for _ in trip.traces)
            pod = (trip.server or "nobody").removeprefix("default/")
            found.append((SERVICES.get(name, name), asked, trip.address, pod, trip.source_seen, str(packets)))
        return found

    def __repr__(self) -> str:
        return "\n".join(
            f"{target}: asks DNS ({asked}), gets {address}, meets {pod}, seen as {seen}, {packets} packets"
            for target, asked, address, pod, seen, packets in self.rows()
        )

    def _repr_html_(self) -> str:
        heads = (
            "the code calls",
            "questions to DNS",
            "the answer",
            "the pod that answers",
            "it sees",
            "packets in all",
        )
        return Table(heads, tuple(self.rows()))._repr_html_()


def load(world: Cluster) -> Page:
    """Load one page of the store."""
    return Page(page(world))


def chain() -> Page:
    """Return the two calls behind one request in the shop: frontend to backend, backend to database."""
    world = shop()
    first = world.connect("frontend", "http://backend")
    second = world.connect(str(first.server), "tcp://database:5432")
    return Page({"http://backend (from frontend)": first, "tcp://database:5432 (from that pod)": second})


class Counted(Struct, frozen=True):
    """Pages loaded, and how many calls each pod answered: service -> pod -> calls."""

    pages: int
    met: dict[str, dict[str, int]]

    def __repr__(self) -> str:
        lines = [f"{self.pages} pages"]
        for service, found in self.met.items():
            told = ", ".join(f"{pod} {n}" for pod, n in sorted(found.items()))
            lines.append(f"  {service:16} {len(found)} pods: {told}")
        return "\n".join(lines)


def counted(world: Cluster, pages: int = 60) -> Counted:
    """Load so many pages and count who answered."""
    met: dict[str, Counter[str]] = {name: Counter() for name in SERVICES}
    for _ in range(pages):
        for name, trip in page(world).items():
            met[name][(trip.server or "nobody").rpartition("-")[2]] += 1
    return Counted(pages, {name: dict(found) for name, found in met.items()})


def scaled(**pods: int) -> Cluster:
    """Return the store with so many pods of a service: `scaled(product=8)`."""
    world = store()
    for name, number in pods.items():
        found = world.store.get("Deployment", name, "default")
        world.apply_objects([replace(found, spec=replace(found.spec, replicas=number))])
    world.advance(30)
    return world


def written_down() -> Texts:
    """Return what came of a pod's address that somebody wrote down, after that pod was replaced."""
    world, old = replaced()
    pods = [p for p in world.store.list("Pod", "default") if p.name.startswith("cart")]
    by_address = world.connect("frontend", f"tcp://{old}:8080")
    by_name = world.connect("frontend", SERVICES["cart"])
    return Texts(
        {
            "cart pods now": "\n".join(f"{p.name}  {p.ips[0]}  {p.spec.node_name}" for p in pods),
            f"by the address written down, {old}": f"{by_address.verdict}: {by_address.why}",
            "by name": f"{by_name.verdict}: {by_name.server} answered",
        }
    )
