"""What the cells of 03_a_pod_is_born call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cluster import Cluster
from kubenet_lab.cni.plugin import VERSIONS, CniError
from kubenet_lab.cni.runtime import BIN_DIR, CONF_DIR, MISSING, NetworkConf, Runtime, parse
from kubenet_lab.control import kubelet
from kubenet_lab.control.machine import build_node
from kubenet_lab.course.answers import PASSED
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb03 import (
    CONFLIST,
    NODE,
    WRITE,
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
from kubenet_lab.course.sheet import progress_file
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import ip_addr, ip_route
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Node
from kubenet_lab.scenarios import shop
from kubenet_lab.twin import Twin, executables, unavailable
from kubenet_lab.views.cni_steps import Birth, cni_state_svg, slots_of
from kubenet_lab.views.theme import Picture

__all__ = [
    "asked",
    "birth",
    "check",
    "conflist",
    "death",
    "failed_add",
    "half_done",
    "leak",
    "newborn",
    "other_devices",
    "really",
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


# -- STATUS ------------------------------------------------------------------------------------------------------------


def _conflist_of(world: Cluster, version: str) -> None:
    """Give the node's conflist another protocol version; a world without one is left alone."""
    files = world.network.ns(NODE).files
    for path in [path for path in files if path.startswith(CONF_DIR)]:
        files[path] = json.dumps({**json.loads(files[path]), "cniVersion": version})


def _full() -> Cluster:
    """The node's range has one address for pods, and a pod has it."""
    world = one_node(_of_type("bridge").replace("10.244.0.0/24", "10.244.0.0/30"))
    live(world)
    return world


def _no_ipam() -> Cluster:
    world = one_node()
    world.network.ns(NODE).files[MISSING] = f"{BIN_DIR}/host-local\n"
    return world


def _no_lease() -> Cluster:
    world = Cluster(cni="flannel", nodes=1)
    del world.network.ns(NODE).files["/run/flannel/subnet.env"]
    return world


def _no_cilium_agent() -> Cluster:
    world = Cluster(cni="cilium", nodes=1)
    del world.network.ns(NODE).files["/var/run/cilium/cilium.sock"]
    return world


ASKED: tuple[tuple[str, Callable[[], Cluster], str], ...] = (
    ("nothing", one_node, "1.1.0"),
    ("bridge: no address left", _full, "1.1.0"),
    ("flannel: no subnet.env, flanneld has not run", _no_lease, "1.1.0"),
    ("bridge: the executable host-local is missing", _no_ipam, "1.1.0"),
    ("cilium: the agent is down", _no_cilium_agent, "1.1.0"),
    ("the same, with the list's version as Cilium writes it", _no_cilium_agent, "0.3.1"),
)
"""What is wrong, the world in which it is, and the version of the node's conflist."""


def asked() -> Table:
    """Return what STATUS says of nodes with which something is wrong, and what becomes of the node and a new pod."""
    rows = []
    for words, make, version in ASKED:
        world = make()
        _conflist_of(world, version)
        runtime = Runtime(world.network, NODE)
        said = "ready"
        try:
            runtime.status(runtime.node_network())
        except CniError as fault:
            said = f"error {fault.code}: {_short(fault)}"
        node = kubelet.node_condition(world.store.get(Node, NODE), world.network)
        [ready] = [c for c in node.status.conditions if c.type == "Ready"]
        started = live(world, new_pod("next")).started
        event = started.events[-1] if started.events else None
        rows.append(
            (
                words,
                version,
                said if version == "1.1.0" else "not asked",
                "Ready" if ready.status == "True" else "NotReady",
                "runs" if event is None else event.reason,
            )
        )
    return Table(("what is wrong", "cniVersion", "STATUS", "the node", "a new pod"), tuple(rows))


def _short(fault: CniError) -> str:
    """The message without the long path of reasons that some put behind it."""
    return f"{fault.msg} ({fault.details.partition(':')[0]})" if fault.details else fault.msg


# -- the real executables ----------------------------------------------------------------------------------------------


class Said(Struct, frozen=True):
    """A sentence."""

    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.text)}</p>"


KINDS = {
    "link": "interfaces",
    "address": "addresses",
    "route": "routes",
    "rule": "ip rules",
    "rules": "iptables rules",
}
"""First word of a fact (`twin.executables`) -> what it is a fact of; others are lines of nftables."""


def really(conflist: str = "") -> Table | Said:
    """Run a conflist through the real plugins in this machine's kernel, and compare with what the model's leave.

    Without one it is the learner's own of exercise 03-conflist, or the node's where there is none yet. Where the
    machine cannot, the sentence says why.
    """
    answer = progress_file().entry(WRITE.id)
    mine = answer.answer if answer.status == PASSED and isinstance(answer.answer, str) else ""
    text = conflist or mine or one_node().network.ns(NODE).files[CONFLIST]
    whose = (
        "The conflist you gave" if conflist else "Your conflist" if mine else "The conflist of this notebook"
    )
    try:
        conf = parse(text)
    except CniError as fault:
        return Said(f"Not run: {fault}")
    types = executables.types_of(conf.plugins)
    folder = executables.folder_of(types)
    reason = unavailable()
    if strange := [name for name in types if name not in executables.HARMLESS]:
        reason = f"{strange[0]} is none of the plugins that write only into the namespaces they are run in"
    elif not reason and folder is None:
        reason = "the executables of the CNI project (Debian's containernetworking-plugins) are not installed"
    if reason or folder is None:
        return Said(f"Not run here: {reason}.")
    plugins = tuple(executables.contained(body) for body in conf.plugins)
    with Twin(_plain_node()) as twin:
        chain = executables.RealChain(
            twin, plugins, folder=folder, container=POD, name=conf.name, capabilities=PORTS
        )
        spoken = chain.versions()
        chain.version = conf.version
        if conf.version in VERSIONS and conf.version not in spoken:
            chain.version = spoken[-1]
        conf = replace(conf, plugins=plugins, version=chain.version)
        return _beside(twin, chain, conf, whose)


POD = "default/web"
PORTS: dict[str, Any] = {"portMappings": [{"hostPort": 8080, "containerPort": 8080, "protocol": "tcp"}]}


def _plain_node() -> Network:
    """A node nobody has configured, and the namespace of a pod that is to be connected."""
    network = Network()
    build_node(network, NODE)
    network.add_netns(POD, NODE)
    return network


def _beside(twin: Twin, chain: executables.RealChain, conf: NetworkConf, whose: str) -> Table | Said:
    """ADD and DEL on both sides, and a row for each kind of thing that was compared."""
    network = _plain_node()
    network.ns(NODE).files[chain.netns] = POD
    runtime = Runtime(network, NODE)
    error, ours, fault = chain.add(), None, ""
    try:
        ours = runtime.add(conf, POD.replace("/", "_"), chain.netns, capabilities=PORTS).to_json(conf.version)
    except CniError as raised:
        fault = str(raised.__cause__ or raised)
    if error is not None or ours is None or chain.result is None:
        real = "made the network"
        if error is not None:
            real = f"said “{CniError(error['msg'], error['code'], error.get('details', ''))}”"
        lacks = " (this kernel was built without it)" if "operation not supported" in real else ""
        return Said(
            f"The real plugins {real}{lacks}; the model's {f'said “{fault}”' if fault else 'made it'}."
        )
    names = executables.renamed(chain.result, ours)
    same = executables.mapped(chain.result, names) == ours
    addresses = ", ".join(ip["address"] for ip in ours["ips"])
    rows = [("the result that was printed", f"address {addresses}", "the same" if same else "different")]
    for ns in (POD, NODE):
        rows += _compared(
            ns, executables.of_kernel(twin.read(ns), names), executables.of_model(network.ns(ns))
        )
    rows.append(_ping(twin, ours))
    chain.delete()
    runtime.delete(conf, POD.replace("/", "_"), chain.netns)
    for ns in (POD, NODE):
        real_left = executables.of_kernel(twin.read(ns), names)
        left = executables.of_model(network.ns(ns))
        words = "the same" if real_left == left else _difference(real_left, left)
        rows.append((f"{ns.removeprefix('default/')}, after DEL", _count(len(left), "things"), words))
    types = ", ".join(executables.types_of(conf.plugins))
    return Table(
        ("compared", "found", "real plugins and model"),
        tuple(rows),
        f"{whose}, run through the real {types} in this machine's kernel",
        f"The executables of {chain.folder}, by version {chain.version} of the protocol. The model's follow release "
        "1.9.1 of the project; an older one may not know every key. Plugins draw names of veths and MAC addresses at "
        "random: before comparing, one side's were put in place of the other's.",
    )


def _compared(ns: str, real: list[str], ours: list[str]) -> list[tuple[str, str, str]]:
    """Return a row for each kind of fact that either side has."""
    rows = []
    for word, words in (*KINDS.items(), ("", "lines of nftables")):
        mine = [f for f in ours if f and _is(f, word)]
        theirs = [f for f in real if f and _is(f, word)]
        if mine or theirs:
            if word == "address":
                found = ", ".join(re.findall(r"[\da-f.:]+/\d+", " ".join(theirs)))
            elif word == "link":
                found = ", ".join(f.split()[1] for f in theirs)
            else:
                found = _count(len(theirs), words)
            same = "the same" if theirs == mine else _difference(theirs, mine)
            rows.append((f"{ns.removeprefix('default/')}: {words}", found, same))
    return rows


def _is(fact: str, word: str) -> bool:
    first = fact.partition(" ")[0]
    return first == word if word else first not in KINDS


def _count(number: int, words: str) -> str:
    return f"{number} {words if number != 1 else words.removesuffix('s')}"


def _difference(real: list[str], ours: list[str]) -> str:
    """Say the first thing that only one side has."""
    only = [("real plugins", f) for f in real if f not in ours] + [
        ("model", f) for f in ours if f not in real
    ]
    only = [(who, fact) for who, fact in only if fact]
    return f"different; only with the {only[0][0]}: {only[0][1]}" if only else "in another order"


def _ping(twin: Twin, result: dict[str, Any]) -> tuple[str, str, str]:
    """Ping the gateway from the pod, through what the real plugins made."""
    gateway = next((ip["gateway"] for ip in result["ips"] if ip.get("gateway")), "")
    if not gateway:
        return ("a ping to the gateway", "there is none", "-")
    answered = twin.run(POD, f"ping -c 1 -W 1 {gateway}").exit_code == 0
    return ("a ping from web to its gateway", gateway, "answered" if answered else "not answered")
