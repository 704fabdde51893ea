"""Measure and print; each row is a median or a ratio of medians, with its target beside it."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from kubenet_lab import Cluster, scenarios
from kubenet_lab.objects import AnyObject, from_manifest
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.twin import unavailable

FEW, MANY = 10, 10_000
"""Services in the worlds of one call."""


def seconds(act: Callable[[], object], times: int) -> list[float]:
    """How long each of some runs took, in s; the garbage collector runs between them, not in them."""
    out = []
    for _ in range(times):
        gc.collect()
        begin = time.perf_counter()
        act()
        out.append(time.perf_counter() - begin)
    return out


def row(what: str, value: str, target: str) -> None:
    """Print one line of the table."""
    sys.stdout.write(f"{what:<62} {value:>14}   target {target}\n")
    sys.stdout.flush()


def fresh(code: str, times: int = 7) -> float:
    """Median time of a statement in fresh Pythons, in s; what Python itself takes is not counted."""
    script = f"import time; a = time.perf_counter(); {code}; print(time.perf_counter() - a)"
    runs = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(times)
    ]
    return statistics.median(runs)


def command(*argv: str, times: int = 5) -> float:
    """Median time of a whole `kubenet-lab` command, in s."""
    code = "from kubenet_lab.cli import main; main()"
    return statistics.median(
        seconds(
            lambda: subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, check=True),
            times,
        )
    )


def world(services: int) -> Cluster:
    """Return the shop among so many Services in all; the others have two endpoints each, as slices."""
    shop = [MANIFEST.read_text(encoding="utf-8")]
    objects: list[AnyObject] = []
    for number in range(services - 4):
        high, low = divmod(number, 250)
        name = f"other-{number}"
        objects.append(
            from_manifest(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "clusterIP": f"10.96.{high + 10}.{low + 1}",
                        "ports": [{"port": 80, "targetPort": 8080}],
                    },
                }
            )
        )
        objects.append(
            from_manifest(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": name,
                        "namespace": "default",
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": [f"10.244.{node}.{100 + number % 100}"]} for node in (1, 2)],
                    "ports": [{"port": 8080}],
                }
            )
        )
    from kubenet_lab import manifests

    return Cluster.from_objects([*manifests.load(shop), *objects])


def across(cluster: Cluster) -> float:
    """Time one call in s: DNS, Service, another node, reply; a call that stayed on its node is made again."""
    while True:
        begin = time.perf_counter()
        trip = cluster.connect("frontend", "http://backend")
        took = time.perf_counter() - begin
        assert trip.delivered
        hosts = {hop.host for trace in (trip.exchange.traces if trip.exchange else ()) for hop in trace.hops}
        if len(hosts) > 1:
            return took


def calls(*clusters: Cluster, times: int = 400) -> list[float]:
    """Return each cluster's median time of a call; they take turns, so that a busy machine is busy for all."""
    for cluster in clusters:
        for _ in range(20):
            across(cluster)
    gc.collect()
    rounds = [[across(cluster) for cluster in clusters] for _ in range(times)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def memory() -> float:
    """The most memory this process has had, in MB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Print every row."""
    worlds: list[Cluster] = []
    row("import kubenet_lab", f"{fresh('import kubenet_lab') * 1e3:.0f} ms", "150 ms")
    row("import kubenet_lab.cluster", f"{fresh('import kubenet_lab.cluster') * 1e3:.0f} ms", "-")
    picture = fresh("from kubenet_lab import scenarios; scenarios.shop().map()", 5)
    row("scenarios.shop() to its picture, import included", f"{picture * 1e3:.0f} ms", "1000 ms")
    warm = statistics.median(seconds(lambda: scenarios.shop().map(), 9))
    row("scenarios.shop() to its picture, again", f"{warm * 1e3:.0f} ms", "1000 ms")
    shop = str(MANIFEST)
    rules = command("rules", "-f", shop, "--node", "node-1")
    row("kubenet-lab rules, the whole command", f"{rules * 1e3:.0f} ms", "500 ms")
    trace = command("trace", "-f", shop, "frontend", "http://backend", "-o", "json")
    row("kubenet-lab trace, the whole command", f"{trace * 1e3:.0f} ms", "-")

    small = world(FEW)
    before = memory()
    (built,) = seconds(lambda: worlds.append(world(MANY)), 1)
    big = worlds[0]
    (first,) = seconds(lambda: big.connect("frontend", "http://backend"), 1)
    row(f"a world of {MANY:,} Services, built", f"{built:.1f} s", "-")
    row("its first call, which writes and reads a node's rules", f"{first:.1f} s", "-")
    row("its memory", f"{memory() - before:.0f} MB", "-")
    few, many = calls(small, big)
    row(f"one traced call at {FEW} Services, p50", f"{few * 1e3:.2f} ms", "1 ms")
    row(f"one traced call at {MANY:,} Services, p50", f"{many * 1e3:.2f} ms", "1.5 ms")
    row(f"ratio {MANY:,} to {FEW} Services", f"{many / few:.2f}", "1.5")

    why = unavailable()
    if why:
        sys.stdout.write(f"twin of the shop: not measured, {why}\n")
        return

    def ready() -> float:
        begin = time.perf_counter()
        with scenarios.shop().twin():
            return time.perf_counter() - begin

    row("twin of the shop ready", f"{statistics.median(ready() for _ in range(5)):.2f} s", "2 s")


if __name__ == "__main__":
    main()
