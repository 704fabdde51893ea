"""Measure what ways through a cluster cost in this machine's kernel, and fit a price to each kind of step.

python -m tests.benchmarks.hops            measure, fit, compare with the recorded run
python -m tests.benchmarks.hops --record   and keep it as kubenet_lab/cost/run.json
python -m tests.benchmarks.hops --add      and keep the better of it and the recorded run, way by way
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from msgspec import to_builtins
from msgspec.structs import replace

from kubenet_lab import cost, scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.cost import probe
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ICMP, Packet
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.twin import Twin
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

WORLDS = (
    ("flannel", "iptables"),
    ("flannel", "nftables"),
    ("flannel-host-gw", "iptables"),
    ("calico", "iptables"),
    ("calico-vxlan", "iptables"),
)
SERVICES = {"iptables": (10, 1000, 10_000), "nftables": (10, 200)}
"""Numbers of Services. A namespace's root has no more than net.core.wmem_max for one nft transaction, so nftables'
numbers end where that does."""
PINGS, TRIES = 400, 3

SERVER = r"""
import socket
s = socket.create_server(("0.0.0.0", 9999))
for _ in range(COUNT):
    c, _who = s.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        got = c.recv(100)
        if not got: break
        c.send(got)
    c.close()
"""
CLIENT = r"""
import socket, sys, time, statistics
clock = time.perf_counter_ns
connects, requests = [], []
for _ in range(COUNT):
    s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    begin = clock(); s.connect((sys.argv[1], 9999)); connects.append(clock() - begin)
    for _ in range(40):
        begin = clock(); s.send(b"x" * 56); s.recv(100); requests.append(clock() - begin)
    s.close()
print(statistics.median(connects) / 1000, statistics.median(requests) / 1000)
"""
CALLS = 60


def steps(network: Network, ns: str, address: str) -> dict[str, dict[str, int]]:
    """What the model counts for the first ping of a connection and for a later one."""
    ping = Packet("", address, ICMP, icmp_type=8, icmp_seq=1, payload_size=56)
    for _ in range(2):  # so that neighbours are known, as they are after the kernel's first ping
        first = exchange(Walk(network), ns, ping)
    later = exchange(Walk(network), ns, replace(first.request.packet, icmp_seq=2))
    assert first.ok
    assert later.ok
    return {"first": cost.counts(first.traces), "later": cost.counts(later.traces)}


def ways(world: Cluster) -> dict[str, tuple[str, str]]:
    """Nine ways through the shop: title -> (namespace, address)."""
    near, far = backend_on(world, "node-1").ips[0], backend_on(world, "node-2").ips[0]
    pod = "default/frontend"
    return {
        "pod to itself": (pod, world.pod("frontend").ips[0]),
        "pod to its node": (pod, "192.168.1.10"),
        "pod to pod, same node": (pod, near),
        "pod to pod, other node": (pod, far),
        "pod to another node": (pod, "192.168.1.20"),
        "node to itself": ("node-1", "127.0.0.1"),
        "node to node": ("node-1", "192.168.1.20"),
        "node to its pod": ("node-1", near),
        "node to another node's pod": ("node-1", far),
    }


def measured(
    cni: str, proxy: str, way: str, twin: Twin, ns: str, address: str, services: int = 0
) -> Iterator[cost.Measured]:
    """Yield a way's two rows, the first packet's and a later one's."""
    counted = steps(twin.network, ns, address)
    for which, found in counted.items():
        yield cost.Measured(
            cni,
            proxy,
            way,
            which,
            round(probe.best(twin, ns, address, which, pings=PINGS, tries=TRIES), 2),
            found,
            services,
        )


def measure() -> list[cost.Measured]:
    """Ping along nine ways in each world, in the kernel and in the model; then past many Services."""
    rows: list[cost.Measured] = []
    for cni, proxy in WORLDS:
        world = scenarios.shop(cni=cni, proxy=proxy)
        with world.twin() as twin:
            for way, (ns, address) in ways(world).items():
                rows += measured(cni, proxy, way, twin, ns, address)
    for proxy, numbers in SERVICES.items():
        for services in numbers:
            with Twin(alone(proxy, services)) as twin:
                rows += measured("none", proxy, "node to itself", twin, "node-1", "127.0.0.1", services)
    return rows


def calls() -> list[cost.Call]:
    """Call a program in another pod, which has to be woken to answer: the quietest of three medians."""
    out = []
    for cni in ("flannel", "flannel-host-gw"):
        world = scenarios.shop(cni=cni)
        with world.twin() as twin, ThreadPoolExecutor(1) as pool:
            for way, node in (("same node", "node-1"), ("other node", "node-2")):
                pod = backend_on(world, node)
                tried = []
                for _ in range(3):
                    serving = pool.submit(
                        probe.python, twin, f"default/{pod.name}", SERVER.replace("COUNT", str(CALLS))
                    )
                    twin.run(f"default/{pod.name}", "until ss -tln | grep -q :9999; do sleep 0.05; done")
                    tried.append(
                        probe.python(
                            twin, "default/frontend", CLIENT.replace("COUNT", str(CALLS)), pod.ips[0]
                        )
                    )
                    serving.result()
                connect, request = (min(column) for column in zip(*tried, strict=True))
                out.append(cost.Call(cni, way, round(connect, 1), round(request, 1)))
    return out


def recorded_us(row: cost.Measured) -> float:
    """The recorded time of the same way, infinite where there is none."""
    same = [r.us for r in cost.run() if replace(r, us=0, steps={}) == replace(row, us=0, steps={})]
    return min(same, default=float("inf"))


def main() -> None:
    """Print the prices beside the recorded ones, and each way beside what they make of it."""
    rows, programs = measure(), calls()
    if "--add" in sys.argv:
        rows = [replace(row, us=min(row.us, recorded_us(row))) for row in rows]
    about = (
        f"Linux {platform.release().split('-')[0]}, network namespaces, best of {TRIES * PINGS} pings a way"
    )
    prices = cost.fit(rows, about)
    if {"--record", "--add"} & set(sys.argv):
        document = {
            "about": about,
            "rows": [to_builtins(row) for row in rows],
            "calls": [to_builtins(call) for call in programs],
        }
        cost.RUN.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        for kept in (cost.run, cost.calls, cost.recorded):
            kept.cache_clear()
    recorded = cost.recorded()
    sys.stdout.write("us a step          here  recorded\n")
    for kind, us in prices.us.items():
        sys.stdout.write(f"  {kind:14} {us:8.3f}  {recorded.us.get(kind, float('nan')):8.3f}\n")
    sys.stdout.write(
        f"  half of the ways explained within {prices.usual:.0%}, the worst off by {prices.worst:.0%}\n"
    )
    for row in rows:
        made = sum(prices.us[kind] * n for kind, n in row.steps.items())
        name = f"{row.way}, {row.services} Services" if row.services else row.way
        sys.stdout.write(
            f"  {row.network:16} {row.proxy:9} {name:30} {row.packet:6} {row.us:7.1f} us  priced {made:7.1f} us\n"
        )
    for call in programs:
        sys.stdout.write(f"  {call}\n")


if __name__ == "__main__":
    main()
