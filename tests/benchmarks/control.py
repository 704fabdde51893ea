"""The control loops in small and large worlds: `python -m tests.benchmarks.control`."""

from __future__ import annotations

import gc
import statistics
import time

from msgspec.structs import replace

from kubenet_lab.control import Settings, settle
from kubenet_lab.control.slices import slices_of
from kubenet_lab.objects import ObjectMeta, Pod, from_manifest, make_node, with_defaults
from kubenet_lab.store import Store
from tests.benchmarks.__main__ import row, seconds, world

SETTINGS = Settings(service_cluster_ip_range=("10.96.0.0/12",))
SMALL, LARGE = (3, 20, 15), (5_000, 10_000, 15)
"""Nodes, Services, pods of each Service."""


def store(nodes: int, services: int, each: int) -> Store:
    """Return a store of running pods behind Services; nothing has been settled."""
    made = Store()
    for number in range(nodes):
        node = make_node(
            f"node-{number}", (f"172.16.{number // 250}.{number % 250 + 1}",), f"zone-{number % 3}"
        )
        made.create(node.with_pod_cidrs((f"10.{number // 256}.{number % 256}.0/24",)))
    spec = {"containers": [{"name": "c", "image": "x:1", "ports": [{"containerPort": 8080}]}]}
    base = with_defaults(
        from_manifest({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec})
    )
    assert isinstance(base, Pod)
    for number in range(services):
        port = {"port": 80, "targetPort": 8080}
        meta = {"name": f"s{number}", "namespace": "default"}
        spec = {"selector": {"app": f"a{number}"}, "ports": [port]}
        made.create(from_manifest({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}))
    for count in range(services * each):
        service, index = divmod(count, each)
        labels = {"app": f"a{service}", "tier": "web"}
        metadata = ObjectMeta(name=f"p{service}-{index}", namespace="default", labels=labels)
        address = f"11.{count >> 16 & 255}.{count >> 8 & 255}.{count & 255}"
        pod = replace(base, metadata=metadata).with_node(f"node-{count % nodes}")
        made.create(pod.with_status(phase="Running", ips=(address,), ready=True))
    return made


def one_pod(made: Store) -> float:
    """Return the median time that the loops take after one pod has changed, in s."""
    pods, times = made.list(Pod), []
    for number in range(30):
        pod = made.get(Pod, pods[number * 7].name, "default")
        made.update(pod.with_status(ready=not pod.ready))
        begin = time.perf_counter()
        settle(made, SETTINGS)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    """Measure all and print the table."""
    small = store(*SMALL)
    settle(small, SETTINGS)
    gc.disable()
    large = store(*LARGE)
    gc.enable()
    objects = [obj for kind in large.kinds() for obj in large.list(kind)]
    what = "10,000 Services, 150,000 pods, 5,000 nodes"
    row(f"slices of {what}", f"{seconds(lambda: slices_of(objects, SETTINGS), 1)[0]:.1f} s", "< 20 s")
    row(
        "all loops for the first time, the same",
        f"{seconds(lambda: settle(large, SETTINGS), 1)[0]:.1f} s",
        "",
    )
    idle = statistics.median(seconds(lambda: settle(large, SETTINGS), 9))
    row("all loops with nothing to do, the same", f"{idle * 1e3:.2f} ms", "near 0")
    few, many = one_pod(small), one_pod(large)
    row("one changed pod among 300", f"{few * 1e3:.2f} ms", "")
    row("one changed pod among 150,000", f"{many * 1e3:.2f} ms", "the same")
    cluster = world(10_000)
    cluster.settle()
    idle = statistics.median(seconds(cluster.settle, 5))
    row("a whole cluster of 10,000 Services with nothing to do", f"{idle * 1e3:.2f} ms", "near 0")


if __name__ == "__main__":
    main()
