"""What the cells of 08_cilium call."""

from __future__ import annotations

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb08 import (
    STARTED,
    STATIONS,
    WANTED,
    ask,
    cilium,
    fate,
    guarded,
    stations,
)
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.bpf import BpfState
from kubenet_lab.kernel.dialects import cilium as dialect
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.views.bpf_words import where

__all__ = [
    "by_address",
    "call",
    "cilium",
    "floors",
    "maps",
    "programs",
    "requests",
    "rules_left",
    "step",
    "ways",
]

ADDRESS = "10.96.0.100"


def call(world: Cluster) -> Trip:
    """Return frontend's call to the Service backend, by its address."""
    return world.connect("frontend", f"http://{ADDRESS}")


def _state(world: Cluster, node: str) -> BpfState:
    state = world.network.ns(node).bpf
    assert state is not None
    return state.look()


def programs(node: str = "node-1") -> Table:
    """Return which programs hang on a node, and where: `bpftool net show`, `bpftool cgroup tree`."""
    found: dict[str, list[str]] = {}
    for line in dialect.attachments(_state(cilium(), node)).splitlines():
        place, hook, name = line.split()
        found.setdefault(name, []).append(f"{place} ({hook})")
    rows = [(name, ", ".join(places), where(name)) for name, places in found.items()]
    return Table(("program", "at", "it..."), tuple(rows))


def maps(node: str = "node-1") -> Texts:
    """Return three of a node's maps, the lines that calls of the Service need."""
    world = cilium()
    state = _state(world, node)
    backends = [pod.ips[0] for pod in world.store.list("Pod", "default") if pod.name.startswith("backend")]

    def lines(text: str, *words: str) -> str:
        head, *rest = text.splitlines()
        return "\n".join([head, *(line for line in rest if any(word in line for word in words))])

    return Texts(
        {
            "cilium-dbg bpf lb list (which pods are behind an address?)": lines(
                dialect.lb_list(state), ADDRESS
            ),
            "cilium-dbg bpf ipcache list (whose address is it, and behind which node?)": lines(
                dialect.ipcache_list(state), "10.244.0.2/32", *(f"{pod}/32" for pod in backends), "0.0.0.0/0"
            ),
            "cilium-dbg bpf endpoint list (who lives here, and behind which cable?)": lines(
                dialect.endpoint_list(state), "10.244.0."
            ),
        }
    )


WORLDS = (
    ("Flannel, kube-proxy", "flannel", "iptables"),
    ("Cilium, kube-proxy kept", "cilium", "iptables"),
    ("Cilium in kube-proxy's place", "cilium", "ebpf"),
    ("the same, native routing", "cilium-native", "ebpf"),
)


def ways() -> Table:
    """Return what the first packet meets on node-1, in four clusters: calls of the Service, by a backend far away."""
    rows = []
    for title, cni, proxy in WORLDS:
        world = shop(cni=cni, proxy=proxy)
        trip = next(trip for trip in (call(world) for _ in range(40)) if _far(trip))
        met = stations(trip)
        rows.append((title, *(str(met[kind]) for kind in STATIONS)))
    return Table(("node-1 does for a first packet", *STATIONS.values()), tuple(rows))


def _far(trip: Trip) -> bool:
    assert trip.exchange is not None
    return any(hop.netns == "node-2" for hop in trip.exchange.request.hops)


def by_address(trip: Trip) -> Texts:
    """Return what the program called, and what was on the wire."""
    assert trip.exchange is not None
    wire = trip.exchange.request.packet
    peer = next(step for _t, _h, step in trip.steps() if "reverse_sk" in str(step.entry))
    return Texts(
        {
            "the program says": f"connect({ADDRESS}:80)",
            "the first packet that leaves the pod": str(wire),
            "and if the program asks with whom it speaks": f"getpeername() = {peer.entry.value}",
        }
    )


def rules_left(node: str = "node-1") -> Texts:
    """Return all iptables rules of Cilium's node, and how many there are in the shop with kube-proxy."""
    text = iptables.save(cilium().network.ns(node).iptables[4])
    rules = [line for line in text.splitlines() if line.startswith("-A CILIUM")]
    plain = iptables.save(shop().network.ns(node).iptables[4])
    many = sum(line.startswith("-A") for line in plain.splitlines())
    return Texts(
        {
            f"{node}: iptables-save | grep CILIUM (with Flannel and kube-proxy it has {many} rules)": "\n".join(
                rules
            )
        }
    )


def requests(policy: str = STARTED) -> Table:
    """Return what becomes of each request under a policy."""
    world = guarded(policy)
    rows = [(who, f"{method} {path}", fate(ask(world, who, method, path))) for who, method, path, _ in WANTED]
    return Table(("who", "request", "what becomes of it"), tuple(rows))


FLOORS = (("1.14", (4, 19, 57)), ("1.17", (5, 4, 0)), ("1.18 and later", (5, 10, 0)))
"""Cilium release -> the oldest kernel its system requirements name. https://docs.cilium.io/en/stable/operations/
system_requirements/ (each release's own page); RHEL's 4.18 with backports counts as 5.4 up to 1.17."""


def floors(*kernels: str) -> Table:
    """Return which kernels are new enough for which release of Cilium."""
    rows = []
    for kernel in kernels:
        number = tuple(int(part) for part in (kernel + ".0.0").split(".")[:3])
        rows.append((f"Linux {kernel}", *("yes" if number >= floor else "no" for _release, floor in FLOORS)))
    heads = (f"Cilium {release} (needs {'.'.join(map(str, floor))})" for release, floor in FLOORS)
    return Table(("kernel", *heads), tuple(rows))
