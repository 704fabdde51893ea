"""Measure what ways through a cluster cost in this machine's kernel, and fit a price to each kind of step.

python -m tests.benchmarks.hops            measure, fit, compare with the recorded run
python -m tests.benchmarks.hops --record   and keep it as kubenet_lab/cost/run.json
python -m tests.benchmarks.hops --add      and keep the better of it and the recorded run, way by way
python -m tests.benchmarks.hops bpf calls  measure these parts only (PARTS); the others stay as they are recorded

The part "bpf" needs root: nobody else may load programs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
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
from tests.benchmarks import bpf

WORLDS = (
    ("flannel", "iptables"),
    ("flannel", "nftables"),
    ("flannel-host-gw", "iptables"),
    ("calico", "iptables"),
    ("calico-vxlan", "iptables"),
)
SERVICES = {"iptables": (10, 1000, 5000, 10_000), "nftables": (10, 200, 1000, 5000)}
"""Numbers of Services."""
PROGRAMS = ((1, 1), (1, 8), (4, 1), (4, 8))
"""BPF programs at each of the four places a ping and its answer pass, and decisions in each."""
PINGS, TRIES = 400, 3
STREAMS, STREAM_S = 9, 0.7

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
TAKE = r"""
import socket, time
c, _who = socket.create_server(("0.0.0.0", 9998)).accept()
got, begin, room = 0, None, bytearray(1 << 18)
while n := c.recv_into(room):
    end = time.perf_counter()
    if begin is None: begin = end
    else: got += n
print(got * 8 / (end - begin) / 1e6)
"""
GIVE = r"""
import socket, sys, time
s = socket.create_connection((sys.argv[1], 9998)); data = bytes(1 << 18)
stop = time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < stop: s.sendall(data)
s.close()
"""
SMALL = r"""
import array, fcntl, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for command in 0x1F, 0x24, 0x2C:  # ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO
    value = array.array("B", struct.pack("II", command, 0))
    fcntl.ioctl(s, 0x8946, struct.pack("16sP", b"eth0", value.buffer_info()[0]))  # SIOCETHTOOL
"""
"""`ethtool -K eth0 tso off gso off gro off`."""


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


def worlds() -> Iterator[cost.Measured]:
    """Ping along nine ways in each world, in the kernel and in the model."""
    for cni, proxy in WORLDS:
        world = scenarios.shop(cni=cni, proxy=proxy)
        with world.twin() as twin:
            for way, (ns, address) in ways(world).items():
                yield from measured(cni, proxy, way, twin, ns, address)


def services() -> Iterator[cost.Measured]:
    """Ping past many Services."""
    for proxy, numbers in SERVICES.items():
        for number in numbers:
            with Twin(alone(proxy, number)) as twin:
                yield from measured("none", proxy, "node to itself", twin, "node-1", "127.0.0.1", number)


def programs() -> Iterator[cost.Measured]:
    """Ping a neighbour, past BPF programs at both ports of the bridge, for what comes in and what goes out."""
    for number, decisions in PROGRAMS:
        world = scenarios.shop()
        own, near = world.pod("frontend").ips[0], backend_on(world, "node-1")
        wanted = {"default/frontend", f"default/{near.name}"}
        ports = [
            link.name
            for link in world.network.ns("node-1").links.values()
            if link.peer is not None and link.peer.netns in wanted
        ]
        with world.twin() as twin:
            program = bpf.program(decisions, own, near.ips[0])
            for port in ports:
                for side in ("ingress", "egress"):
                    for priority in range(1, number + 1):
                        bpf.attach(twin, "node-1", port, program, side, priority)
            title = f"pod to pod, same node, {number} x {decisions}"
            for row in measured("bpf", "iptables", title, twin, "default/frontend", near.ips[0]):
                more = {"program": 4 * number, "bpf": 4 * number * decisions}
                yield replace(row, steps={**row.steps, **more})
            os.close(program)


def calls() -> list[cost.Call]:
    """Call a program in another pod, which has to be woken to answer: the quietest of three medians."""
    out = []
    for cni in ("flannel", "flannel-host-gw"):
        world = scenarios.shop(cni=cni)
        with world.twin() as twin, ThreadPoolExecutor(1) as pool:
            for way, node in NODES.items():
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


def stream(twin: Twin, pod: str, address: str, seconds: float = STREAM_S) -> float:
    """Send one TCP stream from frontend to a pod and return what arrived, Mbit/s."""
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(probe.python, twin, pod, TAKE)
        twin.run(pod, "until ss -tln | grep -q :9998; do sleep 0.02; done")
        probe.python(twin, "default/frontend", GIVE, address, str(seconds))
        return taking.result()[0]


def streams() -> list[cost.Stream]:
    """One TCP stream to a pod on each node, in segments as large as they get and in single packets."""
    out = []
    for cni in ("flannel", "flannel-host-gw"):
        for large in (True, False):
            world = scenarios.shop(cni=cni)
            pods = {way: backend_on(world, node) for way, node in NODES.items()}
            with world.twin() as twin:
                if not large:
                    for name in ("frontend", *(pod.name for pod in pods.values())):
                        probe.python(twin, f"default/{name}", SMALL)
                found: dict[str, list[float]] = {way: [] for way in pods}
                for _ in range(STREAMS):
                    for way, pod in pods.items():
                        found[way].append(stream(twin, f"default/{pod.name}", pod.ips[0]))
            out += [
                cost.Stream(cni, way, round(statistics.median(tried)), large) for way, tried in found.items()
            ]
    return out


NODES = {"same node": "node-1", "other node": "node-2"}


def recorded_us(row: cost.Measured) -> float:
    """The recorded time of the same way, infinite where there is none."""
    same = [r.us for r in cost.run() if replace(r, us=0, steps={}) == replace(row, us=0, steps={})]
    return min(same, default=float("inf"))


PARTS = {"worlds": worlds, "services": services, "bpf": programs}
"""What rows of round trips are measured by."""


def part_of(row: cost.Measured) -> str:
    """The part that measures a row."""
    return "bpf" if row.network == "bpf" else "services" if row.services else "worlds"


def main() -> None:
    """Print the prices beside the recorded ones, and each way beside what they make of it."""
    words = {word for word in sys.argv[1:] if not word.startswith("-")}
    chosen = words or {*PARTS, "calls", "streams"}
    rows: list[cost.Measured] = []
    for part, measure in PARTS.items():
        rows += measure() if part in chosen else [row for row in cost.run() if part_of(row) == part]
    waited = calls() if "calls" in chosen else list(cost.calls())
    sent = streams() if "streams" in chosen else list(cost.streams())
    if "--add" in sys.argv:
        rows = [replace(row, us=min(row.us, recorded_us(row))) for row in rows]
    about = (
        f"Linux {platform.release().split('-')[0]}, network namespaces, best of {TRIES * PINGS} pings a way"
    )
    prices = cost.fit(rows, about)
    before = cost.recorded()
    if {"--record", "--add"} & set(sys.argv):
        document = {
            "about": about,
            "rows": [to_builtins(row) for row in rows],
            "calls": [to_builtins(call) for call in waited],
            "streams": [to_builtins(one) for one in sent],
        }
        cost.RUN.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("us a step          here  recorded\n")
    for kind, us in prices.us.items():
        sys.stdout.write(f"  {kind:14} {us:8.3f}  {before.us.get(kind, float('nan')):8.3f}\n")
    sys.stdout.write(
        f"  half of the ways explained within {prices.usual:.0%}, the worst off by {prices.worst:.0%}\n"
    )
    for row in rows:
        made = sum(prices.us[kind] * n for kind, n in row.steps.items())
        name = f"{row.way}, {row.services} Services" if row.services else row.way
        sys.stdout.write(
            f"  {row.network:16} {row.proxy:9} {name:30} {row.packet:6} {row.us:7.1f} us  priced {made:7.1f} us\n"
        )
    for what in (*waited, *sent):
        sys.stdout.write(f"  {what}\n")


if __name__ == "__main__":
    main()
