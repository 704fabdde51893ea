"""What the cells of 18_coredns_inside call."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.cluster import COREDNS, Cluster
from kubenet_lab.course.exercises.nb18 import NAME, queries_of, race, rcode, replicas
from kubenet_lab.course.lesson import Texts
from kubenet_lab.course.table import Table
from kubenet_lab.dns.client import lookup
from kubenet_lab.scenarios.names import names, steps
from kubenet_lab.scenarios.shop import shop
from kubenet_lab.views.dns_steps import CacheRows, CorefileChain, cache_at, chain_of

__all__ = ["cache", "chain", "corefile", "cut", "five_seconds", "memories", "names", "one_bad", "steps"]


def corefile(world: Cluster) -> Texts:
    """Return the Corefile that kubeadm writes."""
    text = world.store.get("ConfigMap", "coredns", "kube-system").data["Corefile"]
    return Texts({"kubectl -n kube-system get configmap coredns": text})


class Chains(Struct, frozen=True):
    """Several queries and the plugin that spoke."""

    found: tuple[CorefileChain, ...]

    def __repr__(self) -> str:
        return "\n".join(one.text() for one in self.found)

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self.found)


def chain(world: Cluster, *asked: str) -> Chains:
    """Ask one replica for names, one after the other."""
    server = world.dns[min(world.dns)]
    return Chains(tuple(chain_of(server, name, now=world.now) for name in asked))


def cache(world: Cluster) -> CacheRows:
    """Return what that replica's cache holds now, and later; the query that `loop` sent at the start left out."""
    found = cache_at(world.dns[min(world.dns)], [world.now + more for more in (0, 10, 20, 31)])
    return CacheRows(
        tuple((at, tuple(row for row in rows if row[1] != "HINFO")) for at, rows in found.moments)
    )


LATE = """
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}
"""


def cut() -> Table:
    """Return what two replicas say before, during and after the API is away; the first restarts meanwhile."""
    world = shop()
    first, second = replicas(world)
    late = NAME.replace("backend", "late")
    rows = []

    def note(when: str) -> None:
        rows.append((when, *(rcode(world, pod, name) for pod in (first, second) for name in (NAME, late))))

    note("at first")
    world.core_dns.cut_off()
    world.apply(LATE)
    note("API away, Service late made")
    world.advance(30)
    world.crash(first)
    world.advance(3)
    note("3 s after the first one crashed")
    world.advance(7)
    note("10 s after")
    world.core_dns.reconnect()
    note("API back")
    return Table(("", "first: backend", "first: late", "second: backend", "second: late"), tuple(rows))


def memories() -> Table:
    """Return how many queries a hundred calls send, by kind of program."""
    titles = {
        "glibc": "Debian's C library",
        "musl": "Alpine's C library",
        "go": "Go",
        "node": "Node.js, dns.lookup",
        "jvm": "JVM",
    }
    rows = tuple((title, str(queries_of(kind))) for kind, title in titles.items())
    return Table(("program", "queries of 100 calls in 10 s"), rows)


def five_seconds() -> Table:
    """Return how long a lookup takes whose two queries race, by kernel and cure."""
    cases = (
        ("Linux 4.14, Debian's image", "drop", "glibc", ""),
        ("Linux 4.14, Alpine's image", "drop", "musl", ""),
        ("Linux 4.14, a Go program", "drop", "go", ""),
        ("Linux 4.14, options single-request-reopen", "drop", "glibc", " single-request-reopen"),
        ("Linux 5.7 or newer", "insert", "glibc", ""),
    )
    rows = [(what, f"{race(kernel, libc, options):g} s") for what, kernel, libc, options in cases]
    world = shop()
    world.apply(COREDNS.with_name("nodelocaldns.yaml"))
    with world.fault("parallel-queries-race"):
        done = lookup(world.walk(), world.network.ns(world.namespace_of("frontend")), "backend").resolution
    assert done is not None
    rows.append(("Linux 4.14, NodeLocal DNSCache", f"{done.seconds:g} s"))
    return Table(("", "one lookup takes"), tuple(rows))


def one_bad(lookups: int = 60) -> Table:
    """Return how long lookups take when one of two replicas is silent."""
    world = shop()
    ns = world.network.ns(world.namespace_of("frontend"))
    took: dict[float, int] = {}
    failed = 0
    with world.fault("coredns-replica-silent"):
        for _ in range(lookups):
            found = lookup(world.walk(), ns, "backend")
            assert found.resolution is not None
            took[found.resolution.seconds] = took.get(found.resolution.seconds, 0) + 1
            failed += not found.addresses
            world.advance(31)
    rows = [(f"{seconds:g} s", f"{count} of {lookups}") for seconds, count in sorted(took.items())]
    return Table(("a lookup took", "how often"), (*rows, ("no address in the end", f"{failed} of {lookups}")))
