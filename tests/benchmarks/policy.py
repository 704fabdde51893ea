"""Policies of whole companies: `python -m tests.benchmarks.policy`.

The limits are those the project gave itself. For scale, cyclonus (Go) needed 12.7 s of processor time for 1,000 pods
with 200 policies and three ports, 42 s with 1,000 policies, and was stopped after 300 s at 2,000 with 1,000.
"""

from __future__ import annotations

import resource
import statistics
import time

from msgspec.structs import replace

from kubenet_lab import manifests
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import World
from kubenet_lab.reach import Reach
from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from tests.benchmarks.__main__ import row
from tests.kubenet_lab.policy.worlds import large

DATABASE = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database}
spec:
  podSelector: {matchLabels: {app: database}}
  ingress: [{from: [{podSelector: {matchLabels: {app: backend}}}], ports: [{port: 5432}]}]
"""


def everything(world: World) -> tuple[Reach, float]:
    """All pairs and all ports of a world, and how long that took in s."""
    begin = time.perf_counter()
    reach = Reach(world)
    for kind in reach.kinds():
        reach.count(kind)
    return reach, time.perf_counter() - begin


def one_edit(reach: Reach) -> float:
    """The median time until all pairs are known again after one policy lost a rule, in s."""
    times = []
    for number in range(0, len(reach.world.policies), max(1, len(reach.world.policies) // 9)):
        policies = list(reach.world.policies)
        old = policies[number]
        policies[number] = replace(old, ingress=old.ingress[1:], egress=old.egress[1:])
        begin = time.perf_counter()
        after = reach.with_policies(policies)
        for kind in after.kinds():
            after.rows(kind, 0)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Measure all and print the table."""
    for pods, limit in ((2_000, 2), (10_000, 10)):
        world = large(pods, 1_000)
        reach, seconds = everything(world)
        row(f"all pairs, all ports, {pods:,} pods, 1,000 policies", f"{seconds:.2f} s", f"< {limit} s")
        row("  the same after one policy was edited", f"{one_edit(reach) * 1e3:.1f} ms", "< 500 ms")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("  memory of all that", f"{memory:,.0f} MB", "< 1,000 MB")
    objects = with_pods(manifests.load(SHOP, DATABASE))
    reach, _ = everything(World.from_objects(objects))
    row("the shop after its policy was edited", f"{one_edit(reach) * 1e3:.2f} ms", "< 20 ms")
    begin = time.perf_counter()
    everything(World.from_objects(with_pods(manifests.load(SHOP, DATABASE))))
    row("  from its text", f"{(time.perf_counter() - begin) * 1e3:.1f} ms", "< 20 ms")


if __name__ == "__main__":
    main()
