"""Names in a big cluster: `python -m tests.benchmarks.dns`.

The limits are those the project gave itself: 10,000 answers a second on one core, and an index of 10,000 Services with
150,000 endpoints in 5 s and 300 MB. For scale, a real CoreDNS gives some 33,700 on two cores (Scaling_CoreDNS.md).
"""

from __future__ import annotations

import random
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

from kubenet_lab import scenarios
from kubenet_lab.dns.client import lookup
from kubenet_lab.dns.message import to_wire
from kubenet_lab.dns.records import Query
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.dns.server.view import ServiceView
from tests.benchmarks.__main__ import row, seconds

SERVICES, ENDPOINTS, TEAMS = 10_000, 15, 50


def objects(services: int) -> Iterator[dict[str, Any]]:
    """Namespaces, Services, and a slice of endpoints for each."""
    for number in range(TEAMS):
        yield {"kind": "Namespace", "metadata": {"name": f"team-{number}"}}
    for number in range(services):
        meta = {"namespace": f"team-{number % TEAMS}"}
        yield {
            "kind": "Service",
            "metadata": {**meta, "name": f"svc-{number}"},
            "spec": {
                "clusterIP": f"10.96.{number >> 8}.{number & 255}",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
            },
        }
        yield slice_of(number)


def slice_of(number: int, first: int = 0) -> dict[str, Any]:
    """The EndpointSlice of one Service; its addresses begin at `first`."""
    places = range(number * ENDPOINTS + first, number * ENDPOINTS + first + ENDPOINTS)
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"svc-{number}-x",
            "namespace": f"team-{number % TEAMS}",
            "labels": {"kubernetes.io/service-name": f"svc-{number}"},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{place >> 16}.{place >> 8 & 255}.{place & 255}"],
                "conditions": {"ready": True},
            }
            for place in places
        ],
    }


def rate(server: CoreDNS, queries: list[Query]) -> float:
    """Answers a second."""
    begin = time.perf_counter()
    for query in queries:
        server.answer(query, "10.244.1.2", 1.0)
    return len(queries) / (time.perf_counter() - begin)


def main() -> None:
    """Measure all and print the table."""
    given = list(objects(SERVICES))
    begin = time.perf_counter()
    view = ServiceView.from_objects(given)
    row(
        f"index of {SERVICES:,} Services, {SERVICES * ENDPOINTS:,} endpoints",
        f"{time.perf_counter() - begin:.2f} s",
        "5 s",
    )
    tracemalloc.start()
    kept = ServiceView.from_objects(given)
    row("  its memory", f"{tracemalloc.get_traced_memory()[0] / 1e6:.0f} MB", "300 MB")
    tracemalloc.stop()
    del kept
    small = ServiceView.from_objects(objects(10))
    # The two in turns, and the best of each: what else the machine does meanwhile is not asked.
    times = {"few": 1.0, "many": 1.0}
    for _ in range(25):
        for name, which in (("few", small), ("many", view)):
            begin = time.perf_counter()
            for first in range(50):
                which.apply(slice_of(3, first))
            times[name] = min(times[name], (time.perf_counter() - begin) / 50)
    row("one changed slice, 10 Services", f"{times['few'] * 1e6:.0f} us", "-")
    row(f"one changed slice, {SERVICES:,} Services: ratio", f"{times['many'] / times['few']:.2f}", "1.5")
    server = CoreDNS(KUBEADM, view, local_ips=("10.244.0.2",))
    rng = random.Random(1)
    known = [
        Query(f"svc-{n}.team-{n % TEAMS}.svc.cluster.local.", rng.choice(("A", "AAAA")), id=n)
        for n in (rng.randrange(SERVICES) for _ in range(20_000))
    ]
    row("answers a second, Services in random order", f"{rate(server, known):,.0f}", "10,000")
    unknown = [
        Query(f"svc-{n}.team-{(n + 1) % TEAMS}.svc.cluster.local.", "A", id=n)
        for n in (rng.randrange(SERVICES) for _ in range(20_000))
    ]
    row("answers a second, names that do not exist", f"{rate(server, unknown):,.0f}", "10,000")
    wire = [to_wire(query) for query in known[:5000]]
    begin = time.perf_counter()
    for data in wire:
        server.answer_wire(data, "10.244.1.2", 1.0)
    row("answers a second, octets in and out", f"{len(wire) / (time.perf_counter() - begin):,.0f}", "-")
    shop = scenarios.shop()
    ns = shop.network.ns(shop.namespace_of("frontend"))
    took = statistics.median(seconds(lambda: lookup(shop.walk(), ns, "backend"), 50))
    row("getaddrinfo of a Service in the shop, its packets walked", f"{took * 1e3:.2f} ms", "-")


if __name__ == "__main__":
    main()
