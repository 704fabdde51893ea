"""What the cells of 03_a_pod_is_born call."""

from __future__ import annotations

import json
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import BIN_DIR, CONF_DIR, MISSING, Runtime
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb03 import (
    CONFLIST,
    NODE,
    complaints,
    failed_add,
    live,
    new_pod,
    one_node,
    sick,
    with_typo,
)
from kubenet_lab.course.exercises.nb05 import no_ways
from kubenet_lab.course.lesson import Texts
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import ip_addr, ip_route
from kubenet_lab.scenarios import shop
from kubenet_lab.views.cni_steps import Birth, cni_state_svg, slots_of
from kubenet_lab.views.theme import Picture

__all__ = [
    "birth",
    "check",
    "conflist",
    "death",
    "failed_add",
    "half_done",
    "leak",
    "newborn",
    "other_devices",
    "sick",
    "symptoms",
    "three_networks",
    "two_switches",
]


def _stepper(born: Birth, step: int = 0) -> Any:
    from kubenet_lab.widgets.cni_stepper import CniStepper

    return CniStepper(born.steps, born.headline, step)


def newborn() -> Picture:
    """Return a node and a new pod, as they stand when the pod runs."""
    steps = live().birth("").steps
    state = steps[-1].state
    return Picture(cni_state_svg(state, None, slots_of([state])), "a node and its new pod")


def birth() -> Any:
    """Return how a pod gets its network, to step through."""
    return _stepper(live().birth("A pod is born on node-1"))


def death() -> Any:
    """Return how a pod loses its network, to step through."""
    return _stepper(live(until_death=True).birth("The pod is stopped"))


def half_done() -> Any:
    """Return an ADD that fails at its last plugin, and what the runtime does then, to step through."""
    born = live(with_typo()).birth("ADD fails half-way: tuning cannot set what it is told to set")
    failed = next((number for number, one in enumerate(born.steps) if one.failed), 0)
    return _stepper(born, failed)


def conflist() -> str:
    """Return the node's conflist."""
    return one_node().network.ns(NODE).files[CONFLIST]


# -- addresses and devices ---------------------------------------------------------------------------------------------


def three_networks() -> Texts:
    """Return what the same pod's `ip addr` and `ip route` say under three pod networks."""
    parts = {}
    for cni in ("flannel", "calico", "cilium"):
        ns = shop(cni=cni).network.ns("default/frontend")
        address = [
            line.strip() for line in ip_addr.show(ns).splitlines() if "inet " in line and "127." not in line
        ]
        parts[f"{cni}: ip addr; ip route"] = "\n".join([*address, "", ip_route.show(ns)])
    return Texts(parts)


def _of_type(kind: str) -> str:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}
    first: dict[str, Any] = {"type": kind, "ipam": ipam}
    if kind in ("macvlan", "ipvlan"):
        first["master"] = "eth0"
    if kind == "bridge":
        first |= {"bridge": "cni0", "isGateway": True}
    return json.dumps({"cniVersion": "1.0.0", "name": kind, "plugins": [first]})


def other_devices() -> Table:
    """Start the same pod with four plugins and return which devices pod and node have got."""
    rows = []
    for kind in ("bridge", "ptp", "macvlan", "ipvlan"):
        world = one_node(_of_type(kind))
        before = set(world.network.ns(NODE).links)
        life = live(world)
        pod = world.network.ns("default/newborn")
        new = [link for link in world.network.ns(NODE).links.values() if link.name not in before]
        on_node = ", ".join(f"{link.name} ({link.kind})" for link in new) or "nothing"
        rows.append((kind, f"eth0 ({pod.link('eth0').kind})", life.pod.ips[0], on_node))
    guest = live(pod=new_pod("guest", host_network=True))
    rows.append(("none: hostNetwork", "the node's own", guest.pod.ips[0], "nothing"))
    return Table(("plugin", "the pod's device", "address", "new on the node"), tuple(rows))


# -- plugin and agent --------------------------------------------------------------------------------------------------

NEW = """
apiVersion: v1
kind: Pod
metadata: {name: newborn}
spec:
  nodeName: node-1
  containers: [{name: app, image: shop/app:1.0}]
"""


def two_switches() -> Table:
    """Return what works with and without the plugin's executable, and with and without the agent's routes."""
    rows = []
    for plugin in (True, False):
        for agent in (True, False):
            world = shop() if agent else no_ways()
            if not plugin:
                world.network.ns(NODE).files[MISSING] = f"{BIN_DIR}/flannel\n"
            world.apply(NEW)
            born = world.pod("newborn")
            target = {node: f"tcp://{backend_on(world, node).ips[0]}:8080" for node in ("node-1", "node-2")}
            rows.append(
                (
                    "there" if plugin else "missing",
                    "at work" if agent else "never ran",
                    f"runs, {born.ips[0]}" if born.ips else "ContainerCreating",
                    *(_verdict(world, "newborn", target[node]) if born.ips else "-" for node in target),
                    _verdict(world, "frontend", target["node-2"]),
                )
            )
    head = (
        "plugin",
        "agent",
        "a new pod on node-1",
        "it calls a neighbour",
        "it calls a pod on node-2",
        "an old pod calls node-2",
    )
    return Table(head, tuple(rows))


def _verdict(world: Cluster, source: str, target: str) -> str:
    return world.connect(source, target).verdict


# -- CHECK, and what happens without DEL -------------------------------------------------------------------------------


def check() -> Texts:
    """Return what CHECK says of a healthy pod, and after somebody deleted its default route."""
    world = live().cluster
    runtime = Runtime(world.network, NODE)
    conf = runtime.node_network()
    identity = next(
        json.loads(text)["containerId"]
        for path, text in runtime.node.files.items()
        if path.startswith("/var/lib/cni/res")
    )
    [path] = [p for p, name in runtime.node.files.items() if name == "default/newborn"]

    def said() -> str:
        try:
            runtime.check(conf, identity, path)
        except CniError as fault:
            return f"exit status 1: {fault}"
        return "exit status 0"

    parts = {"CHECK, a healthy pod": said()}
    world.network.ns("default/newborn").delete_route("0.0.0.0/0")
    parts["in the pod: ip route del default; CHECK again"] = said()
    return Texts(parts)


def leak(size: str = "10.244.0.0/29") -> Texts:
    """Let sandboxes vanish without DEL until ADD fails; then let the runtime collect, and try again."""
    world = one_node(_of_type("bridge").replace("10.244.0.0/24", size))
    runtime = Runtime(world.network, NODE)
    conf = runtime.node_network()
    log: list[str] = []
    for number in range(1, 20):
        identity = f"{number:064x}"
        path = runtime.make_sandbox(f"default/pod-{number}", identity)
        try:
            ip = runtime.add(conf, identity, path).ips[0].address
            log.append(f"pod-{number} born: {ip}. Its sandbox vanishes, and nobody runs DEL.")
        except CniError as fault:
            log.append(f"pod-{number}: {fault}")
            runtime.remove_sandbox(path)
            break
        runtime.remove_sandbox(path)
    failed = runtime.collect(conf, ())
    after = [f"GC with no valid attachments: {len(failed)} failures"]
    identity = "f" * 64
    path = runtime.make_sandbox("default/again", identity)
    after.append(f"a new pod: {runtime.add(conf, identity, path).ips[0].address}")
    return Texts({f"a node with the range {size}": "\n".join(log), "then GC": "\n".join(after)})


# -- cni plugin not initialized ----------------------------------------------------------------------------------------


def symptoms(world: Cluster) -> Texts:
    """Return what node, runtime and pod say, and the files the runtime looked at."""
    files = world.network.ns(NODE).files
    listed = {f"cat {path}": text for path, text in sorted(files.items()) if path.startswith(CONF_DIR)}
    return Texts(
        complaints(world) | {f"ls {CONF_DIR}": "\n".join(p.removeprefix("cat ") for p in listed)} | listed
    )
