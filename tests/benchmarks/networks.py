"""Pod networks of a big cluster: `python -m tests.benchmarks.networks [NODES PODS]`.

Each network is built in a Python of its own, so that its memory is its own. What is measured of time is this process's,
not the clock on the wall: others may be using the machine.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable

from kubenet_lab import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.objects import Container, ContainerPort, ObjectMeta, Pod, PodSpec
from kubenet_lab.objects.node import make_node
from tests.benchmarks.__main__ import row

NETWORKS = ("bridge", "flannel", "flannel-host-gw", "calico", "calico-ipip", "calico-vxlan", "cilium")
NODES, PODS = 1_000, 30_000
FEW = 10
"""Nodes of the small cluster that the big one's changes are compared with; it has as many pods on each node."""


def pods(nodes: int, count: int) -> list[Pod]:
    """Return pods that are bound to nodes already, as many to each."""
    container = Container(name="main", image="web:1", ports=(ContainerPort(container_port=8080),))
    return [
        Pod(
            metadata=ObjectMeta(name=f"pod-{number}", namespace="default"),
            spec=PodSpec(node_name=f"node-{number % nodes + 1}", containers=(container,)),
        )
        for number in range(count)
    ]


def build(cni: str, nodes: int, count: int) -> Cluster:
    """Return a cluster of so many nodes and pods."""
    return Cluster(pods(nodes, count), nodes=nodes, cni=cni, settings=Settings(cluster_cidr=("10.0.0.0/8",)))


def spent(act: Callable[[], object]) -> float:
    """Return how long this process worked on something, in s."""
    begin = time.process_time()
    act()
    return time.process_time() - begin


def one(cni: str, nodes: int, count: int) -> None:
    """Print what one network takes: to build, to see a node join, to be looked at from one node, to leave."""
    made: list[Cluster] = []
    took = spent(lambda: made.append(build(cni, nodes, count)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    (cluster,) = made
    join = spent(lambda: cluster.apply_objects([make_node("node-new", ("192.168.200.10",))]))
    space = cluster.node(f"node-{nodes}").ns
    look = spent(lambda: [list(table.values()) for table in space.routes.values()])
    call = spent(lambda: cluster.ping("pod-0", cluster.pod(f"pod-{nodes - 1}").ips[0]))
    sys.stdout.write(" ".join(map(str, (took, memory, join, look, call))) + "\n")


def measured(cni: str, nodes: int, count: int) -> list[float]:
    """Return what `one` prints in a fresh Python."""
    argv = [sys.executable, "-m", "tests.benchmarks.networks", "one", cni, str(nodes), str(count)]
    return [
        float(word)
        for word in subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    ]


def main(nodes: int = NODES, count: int = PODS) -> None:
    """Measure all and print the table."""
    for cni in NETWORKS:
        few = measured(cni, FEW, FEW * count // nodes)
        took, memory, join, look, call = measured(cni, nodes, count)
        what = f"{cni}: {nodes:,} nodes"
        row(f"{what} and {count:,} pods", f"{took:.1f} s", "< 15 s")
        row(f"{what}, memory", f"{memory:.0f} MB", "< 1,024 MB")
        row(f"{what}, one more joins", f"{join * 1e3:.0f} ms", f"of {FEW}: {few[2] * 1e3:.0f} ms")
        row(f"{what}, first look at one's routes", f"{look * 1e3:.1f} ms", f"of {FEW}: {few[3] * 1e3:.1f} ms")
        row(f"{what}, first ping between two", f"{call * 1e3:.1f} ms", f"of {FEW}: {few[4] * 1e3:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*map(int, sys.argv[1:3]))
