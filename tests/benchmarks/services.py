"""One node's Services in each mode of kube-proxy: `python -m tests.benchmarks.services [SERVICES]`.

The baseline is reading the same objects with nothing made of them (`ServiceTracker.update`): every mode does that too.
Each mode runs in a Python of its own, so that its memory is its own.
"""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects import EndpointSlice, Service, from_manifest
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import ServiceTracker
from tests.benchmarks.__main__ import row

MODES = ("iptables", "nftables", "ipvs", "ebpf")
SERVICES, ENDPOINTS = 10_000, 10
CONFIG = KubeProxyConfig(cluster_cidrs=("10.0.0.0/8",), service_cidrs=("172.20.0.0/14",))
NODE = ProxyNode("node-1", ("192.168.1.10",), ("10.0.0.0/16",))

Act = Callable[[list[Service], list[EndpointSlice]], object]


def objects(count: int) -> tuple[list[Service], list[EndpointSlice]]:
    """Return Services of one port and their slices, endpoints spread over three nodes."""
    services: list[Any] = []
    slices: list[Any] = []
    for number in range(count):
        name = f"svc-{number}"
        high, low = divmod(number, 250)
        services.append(
            from_manifest(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "clusterIP": f"172.20.{high}.{low + 1}",
                        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
                    },
                }
            )
        )
        first = number * ENDPOINTS
        endpoints = [
            {
                "addresses": [f"10.{n % 3}.{n // 3 // 250 % 250}.{n // 3 % 250 + 1}"],
                "nodeName": f"node-{n % 3 + 1}",
                "conditions": {"ready": True},
            }
            for n in range(first, first + ENDPOINTS)
        ]
        slices.append(
            from_manifest(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"{name}-abc",
                        "namespace": "default",
                        "labels": {"kubernetes.io/service-name": name},
                    },
                    "addressType": "IPv4",
                    "endpoints": endpoints,
                    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                }
            )
        )
    return services, slices


def node() -> Netns:
    """Return the node's kernel."""
    space = Netns("node-1")
    space.set_sysctl("net.ipv4.ip_forward", 1)
    space.add_link("eth0", "physical", mac="02:00:00:00:00:01", up=True)
    space.add_address("eth0", "192.168.1.10/24")
    return space


def to_text(mode: str) -> Act:
    """Return what makes a mode's text of Services and slices, and remembers for the next time."""
    if mode == "baseline":
        tracker = ServiceTracker()
        return tracker.update
    if mode == "iptables":
        from kubenet_lab.proxy.iptables import KubeProxyIptables

        return KubeProxyIptables(NODE, CONFIG).sync
    if mode == "nftables":
        from kubenet_lab.proxy.nftables import KubeProxyNftables

        return KubeProxyNftables(NODE, CONFIG).sync
    if mode == "ebpf":
        return _ebpf()
    from kubenet_lab.kernel.dialects import ipset, ipvsadm
    from kubenet_lab.proxy.ipvs import KubeProxyIpvs

    space, proxy = node(), KubeProxyIpvs(NODE, CONFIG)
    began = False

    def act(services: list[Service], slices: list[EndpointSlice]) -> object:
        nonlocal began
        written = proxy.sync(space, services, slices)
        if began:
            return written
        began = True
        return written, ipvsadm.save(space.ipvs), ipset.save(space.ipsets)

    return act


def _ebpf() -> Act:
    from kubenet_lab.kernel.dialects import cilium
    from kubenet_lab.kernel.network import Network
    from kubenet_lab.proxy.ebpf import ProxyEbpf

    network, space = Network(), node()
    network.netns["node-1"], space.network = space, network
    tracker, proxy = ServiceTracker(), ProxyEbpf(NODE, CONFIG)

    def act(services: list[Service], slices: list[EndpointSlice]) -> object:
        changed = tracker.update(services, slices)
        if space.bpf is not None:
            proxy.follow(space, tracker, changed)
            return space.bpf
        proxy.start(space, tracker)
        assert space.bpf is not None
        return cilium.lb_list(space.bpf.look())

    return act


def peak() -> float:
    """Most memory this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def one_mode(mode: str, count: int) -> None:
    """Print seconds for everything, memory in MB on top of the objects, and seconds for one endpoint's change."""
    services, slices = objects(count)
    act = to_text(mode)
    gc.collect()
    before = peak()
    begin = time.perf_counter()
    act(services, slices)
    took = time.perf_counter() - begin
    memory = peak() - before
    changes = []
    for number in range(30):
        at = number * (count // 30)
        old = slices[at]
        slices = [*slices[:at], replace(old, endpoints=old.endpoints[1:]), *slices[at + 1 :]]
        begin = time.perf_counter()
        act(services, slices)
        changes.append(time.perf_counter() - begin)
    sys.stdout.write(f"{took} {memory} {statistics.median(changes)}\n")


def walk(mode: str, count: int) -> float:
    """Return the median time of one packet through a node with so many Services, in s."""
    from kubenet_lab.cluster import PROXIES
    from kubenet_lab.kernel.network import Network
    from kubenet_lab.packet.packet import SYN, TCP, Frame, Packet
    from kubenet_lab.walk.engine import Walk

    network, space = Network(), node()
    network.netns["node-1"], space.network = space, network
    space.add_link("cni0", "physical", mac="02:00:00:00:00:02", up=True)
    space.add_address("cni0", "10.0.0.1/16")
    space.add_route("10.1.0.0/16", via="192.168.1.20", dev="eth0")
    space.add_route("10.2.0.0/16", via="192.168.1.30", dev="eth0")
    tracker = ServiceTracker()
    tracker.update(*objects(count))
    PROXIES[mode](NODE, CONFIG).start(space, tracker)
    times = []
    for number in range(420):
        pkt = Packet("10.0.99.2", "172.20.0.1", TCP, 20000 + number, 80, flags=SYN, mss=1460)
        frame = Frame("02:00:00:00:00:99", "02:00:00:00:00:02", pkt)
        one = Walk(network, seed=number)
        begin = time.perf_counter()
        if mode == "ebpf":  # the Service is looked up in the caller's system call, not on a link
            one.send("node-1", Packet("", "172.20.0.1", TCP, 20000 + number, 80, flags=SYN, mss=1460))
        else:
            one.deliver("node-1", "cni0", frame)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[20:])


def main(count: int) -> None:
    """Print every row."""
    what = f"{count:,} Services x {ENDPOINTS} endpoints"
    base = 0.0
    for mode in ("baseline", *MODES):
        argv = [sys.executable, "-m", "tests.benchmarks.services", mode, str(count)]
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
        took, memory, change = (float(number) for number in out)
        base = base or took
        row(f"{mode}: {what}, objects to text", f"{took:.2f} s", "3 s" if mode in MODES else "-")
        row(f"{mode}: ratio to the baseline", f"{took / base:.1f}", "-")
        row(f"{mode}: memory beside the objects", f"{memory:.0f} MB", "500 MB" if mode in MODES else "-")
        row(
            f"{mode}: one endpoint's change, p50", f"{change * 1e3:.1f} ms", "20 ms" if mode in MODES else "-"
        )
    for mode in MODES:
        few, many = walk(mode, 10), walk(mode, count)
        row(f"{mode}: a packet's walk at {count:,} Services, p50", f"{many * 1e3:.2f} ms", "1 ms")
        row(f"{mode}: ratio of it to the walk at 10 Services", f"{many / few:.2f}", "1.5")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one_mode(sys.argv[1], int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else SERVICES)
