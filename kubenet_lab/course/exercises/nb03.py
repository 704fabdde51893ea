"""Exercises of 03_a_pod_is_born."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from kubenet_lab import manifests
from kubenet_lab.cluster import CLUSTER_DOMAIN, Cluster
from kubenet_lab.cni.plugin import CONF_DIR, CniError, Result
from kubenet_lab.cni.runtime import BIN_DIR, MISSING, NotInitialized, Runtime, node_network
from kubenet_lab.control import kubelet
from kubenet_lab.control.recording import Moment, Recorder
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.errors import InputError
from kubenet_lab.objects import Node, Pod
from kubenet_lab.views.cni_steps import Birth, cni_steps

NODE, CONFLIST = "node-1", f"{CONF_DIR}/10-bridge.conflist"
OUTSIDE = "203.0.113.10"


class Life(Struct, frozen=True):
    """What came of starting (and perhaps stopping) a pod under a recorder."""

    cluster: Cluster
    pod: Pod
    started: kubelet.Started
    moments: tuple[Moment, ...]

    def birth(self, headline: str) -> Birth:
        """Return the recording to show."""
        return Birth(headline, tuple(cni_steps(self.moments)))


def new_pod(name: str = "newborn", *, host_network: bool = False, host_port: int = 0) -> Pod:
    """Return a pod that the scheduler has put on node-1."""
    port: dict[str, Any] = {"containerPort": 8080}
    if host_port:
        port["hostPort"] = host_port
    [pod] = manifests.load(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default", "uid": f"uid-of-{name}"},
                "spec": {
                    "nodeName": NODE,
                    "hostNetwork": host_network,
                    "containers": [{"name": "app", "image": "shop/app:1.0", "ports": [port]}],
                },
            }
        )
    )
    assert isinstance(pod, Pod)
    return pod


def one_node(conflist: str = "") -> Cluster:
    """Return a cluster of one node on a bridge, and no pod yet; `conflist` replaces the node's own file."""
    world = Cluster(cni="bridge", nodes=1)
    if conflist:
        world.network.ns(NODE).files[CONFLIST] = conflist
    return world


def files_of(world: Cluster) -> Callable[[Pod], Mapping[str, str]]:
    """Return what the kubelet of the node puts into a pod: /etc/resolv.conf and /etc/hosts."""
    from kubenet_lab.dns.resolvconf import RESOLV_CONF, KubeletDns, hosts_text, pod_dns

    host = world.network.ns(NODE).files.get(RESOLV_CONF, "")

    def files(pod: Pod) -> Mapping[str, str]:
        dns = pod_dns(pod, KubeletDns((world.cluster_dns,), CLUSTER_DOMAIN, host))
        return {RESOLV_CONF: dns.text(host), "/etc/hosts": hosts_text(pod, pod.ips, CLUSTER_DOMAIN)}

    return files


def live(world: Cluster | None = None, pod: Pod | None = None, *, until_death: bool = False) -> Life:
    """Start a pod as the node's kubelet does, and record it; with `until_death` record how it is stopped instead."""
    world = world or one_node()
    pod = pod or new_pod()
    node = world.store.get(Node, NODE)
    recorder = Recorder(world.network, NODE, kubelet.netns_name(pod))
    with recorder.watching():
        started = kubelet.start_pod(world.network, pod, node, files=files_of(world), runtime=recorder.runtime)
    if until_death:
        recorder.moments.clear()
        with recorder.watching():
            kubelet.stop_pod(world.network, started.pod, runtime=recorder.runtime)
    return Life(world, started.pod, started, tuple(recorder.moments))


# -- do: who acts, in which order --------------------------------------------------------------------------------------

LINES = {
    "the kubelet asks the runtime for a sandbox": "Ask for a sandbox",
    "the runtime makes a network namespace": "Make a network namespace",
    "the runtime executes the plugin bridge": "Run bridge (ADD)",
    "bridge makes the veth pair": "Make a veth pair",
    "bridge executes the plugin host-local": "Run host-local (ADD)",
    "host-local reserves an address": "Reserve an address",
    "bridge gives the pod its address": "Give the pod its address",
    "the pod gets its /etc/resolv.conf": "Decide on /etc/resolv.conf",
    "the containers start": "Start the containers",
}
"""A line of the exercise -> the title of the step it stands for."""

FREE = {frozenset({"bridge makes the veth pair", other}) for other in LINES if "host-local" in other}
"""Pairs for which another plugin could well choose the other order."""

_SHUFFLED = (
    "bridge gives the pod its address",
    "the runtime makes a network namespace",
    "the pod gets its /etc/resolv.conf",
    "bridge executes the plugin host-local",
    "the kubelet asks the runtime for a sandbox",
    "the containers start",
    "bridge makes the veth pair",
    "host-local reserves an address",
    "the runtime executes the plugin bridge",
)


def _judge_order(answer: Any) -> Finding:
    given = [line.lstrip(" -.0123456789\t").rstrip() for line in answer.splitlines() if line.strip()]
    unknown = [line for line in given if line not in LINES]
    if unknown:
        raise InputError(
            f"{unknown[0]!r} is none of the lines; move lines, and leave their words as they are"
        )
    missing = [line for line in LINES if line not in given]
    if missing or len(given) != len(LINES):
        return Finding(False, f"Each line once: “{(missing or given)[0]}” is missing or there twice.")
    born = live().birth("a pod is born")
    titles = [step.title for step in born.steps]
    place = {line: titles.index(title) for line, title in LINES.items()}
    for at, line in enumerate(given):
        for later in given[at + 1 :]:
            if place[later] < place[line] and frozenset({line, later}) not in FREE:
                return Finding(False, f"When “{line}”, this has happened already: “{later}”.")
    return Finding(True, "In this order it happens, as the recording shows.", born)


ORDER = Exercise(
    id="03-order",
    kind=DO,
    title="Who does what, and when?",
    task="A pod starts. Here are nine things that happen, mixed up. Put the lines in order: the first at the top.",
    judge=_judge_order,
    template="\n".join(_SHUFFLED) + "\n",
    hints=(
        "Nobody can give an address to an interface that is not there, or put an interface into a namespace that is "
        "not there.",
        "The kubelet speaks only to the container runtime. The runtime speaks to plugins. A plugin may run "
        "another one.",
        "The containers come last: they join a namespace that is finished.",
    ),
)

# -- predict: no namespace ---------------------------------------------------------------------------------------------


def _no_netns() -> Outcome:
    world = one_node()
    runtime = Runtime(world.network, NODE)
    before = set(world.network.netns)
    try:
        runtime.add(runtime.node_network(), "a" * 64, "/var/run/netns/nobody-made-this")
    except CniError as fault:
        return Outcome("fails", f"The plugin says: `{fault}`. To make the namespace is the runtime's job.")
    new = set(world.network.netns) - before
    return Outcome("makes" if new else "node", f"New namespaces: {', '.join(new) or 'none'}.")


NETNS = predict(
    "03-netns",
    "Who makes the namespace?",
    "The document says that the plugin's first step is to create the network namespace. We execute the "
    "plugin `bridge` with ADD, and `CNI_NETNS` is a path that does not exist yet. What will it do?",
    {
        "makes": "Create the namespace at that path",
        "fails": "End with an error",
        "node": "Work in the node's own namespace",
    },
    _no_netns,
    {
        "makes": "Then two plugins of one chain would each have to make it. Somebody does it before either runs.",
        "node": "That would put a pod's address on the node. The plugin is told a path, and takes it at its word.",
    },
    (
        "Look at steps 2 and 4 of the recording above: who acted?",
        "`CNI_NETNS` is an input of the plugin. What does a program do when an input file is missing?",
        "The specification: “The container runtime must create a new network namespace before invoking any plugins.”",
    ),
)

# -- predict: the dns field --------------------------------------------------------------------------------------------


def with_dns(server: str = "198.51.100.53") -> str:
    """Return the node's conflist with a name server of the plugin's own."""
    body = json.loads(one_node().network.ns(NODE).files[CONFLIST])
    body["plugins"][0]["dns"] = {"nameservers": [server]}
    return json.dumps(body, indent=2) + "\n"


def _dns() -> Outcome:
    life = live(one_node(with_dns()))
    text = life.cluster.network.ns("default/newborn").files.get("/etc/resolv.conf", "")
    told = life.started.result or Result()
    keys = {"198.51.100.53": "plugin", life.cluster.cluster_dns: "cluster", "192.168.1.1": "node"}
    found = [key for server, key in keys.items() if f"nameserver {server}\n" in text]
    return Outcome(
        found[0] if len(found) == 1 else "both",
        f"The plugin did return `dns: {json.dumps(told.dns)}`. The pod's file says:\n`{text.strip()}`\nThe kubelet "
        "worked that out from the pod's dnsPolicy, its own settings and the node's file. Nobody asked the plugin.",
        life.birth("a pod is born on a node whose plugin names a name server"),
    )


DNS = predict(
    "03-dns",
    "Whose name server?",
    "The document says that CNI writes /etc/resolv.conf. Our node's conflist gets a line "
    '`"dns": {"nameservers": ["198.51.100.53"]}`, and the plugin returns it in its result. The cluster\'s name server '
    "is 10.96.0.10; the node itself uses 192.168.1.1. Which one is in the new pod's /etc/resolv.conf?",
    {
        "plugin": "198.51.100.53, the plugin's",
        "cluster": "10.96.0.10, the cluster's",
        "node": "192.168.1.1, the node's",
        "both": "The plugin's first, then the cluster's",
    },
    _dns,
    {
        "plugin": "The protocol has the field, and Kubernetes does not use it.",
        "node": "A pod with `dnsPolicy: Default` would get that one. Ours has none set, and that means ClusterFirst.",
        "both": "Nobody merges the two. One side decides alone.",
    },
    (
        "Which step of the recording wrote the file, and who acted in it?",
        "Every pod of the cluster should find Services by name, whatever network it has.",
        "The kubelet has a setting `clusterDNS`.",
    ),
)

# -- predict: half an ADD ----------------------------------------------------------------------------------------------


def with_typo() -> Cluster:
    """Return the node with a third plugin that is to set a kernel parameter, whose name somebody misspelt."""
    body = json.loads(one_node().network.ns(NODE).files[CONFLIST])
    body["plugins"].append({"type": "tuning", "sysctl": {"net.ipv4.tcp_syncokies": "1"}})
    return one_node(json.dumps(body, indent=2) + "\n")


def failed_add() -> tuple[str, dict[str, int]]:
    """Let ADD fail in its last plugin, with nobody to clean up; return the error, and what is left, counted."""
    world = with_typo()
    runtime = Runtime(world.network, NODE)
    path = runtime.make_sandbox("default/newborn", "b" * 64)
    said = ""
    try:
        runtime.add(runtime.node_network(), "b" * 64, path)
    except CniError as fault:
        said = str(fault)
    node, pod = world.network.ns(NODE), world.network.ns("default/newborn")
    left = {
        "interfaces of the pod": len([name for name in pod.links if name != "lo"]),
        "ports of the bridge": len(node.ports("cni0")),
        "reserved addresses": len(
            [f for f in node.files if f.startswith("/var/lib/cni/networks/bridge/10.")]
        ),
        "routes in the pod": len(pod.route_list()),
    }
    return said, left


def _half() -> Outcome:
    said, left = failed_add()
    counts = ", ".join(f"{what}: {number}" for what, number in left.items())
    key = "none" if not any(left.values()) else "all" if all(left.values()) else "some"
    return Outcome(
        key,
        f"ADD said `{said}`. Still there, {counts}. A chain undoes nothing. The runtime "
        "runs DEL after an ADD that failed.",
    )


HALF = predict(
    "03-half",
    "Half an ADD",
    "A node's conflist names `bridge`, `portmap` and, last, `tuning`, which is to set a kernel parameter in the pod. "
    "Somebody misspelt the parameter: `net.ipv4.tcp_syncokies`. `bridge` does its work and ends well; "
    "portmap too; then tuning fails, and with it the ADD. Right after that, before anybody cleans up: what is left "
    "of bridge's work?",
    {
        "none": "Nothing: an ADD happens whole or not at all",
        "some": "The address stays reserved; interfaces and routes are gone",
        "all": "Everything: interfaces, address and routes",
    },
    _half,
    {
        "none": "That would need somebody who undoes it. bridge has ended long ago, and tuning knows nothing "
        "of bridges.",
        "some": "Why should one be undone and the other not? Nobody has undone anything.",
    },
    (
        "Plugins are programs that run one after the other. Is the first one still there when the second one fails?",
        "The protocol has a command for cleaning up. Who sends it, and when?",
        "The question is about the moment *before* that.",
    ),
)

# -- do: a conflist ----------------------------------------------------------------------------------------------------

TEMPLATE = """\
{
  "cniVersion": "1.0.0",
  "name": "mine",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "192.168.1.0/24"}]]
      }
    }
  ]
}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080, hostPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: client, image: client}]}
"""


def bare_node() -> Cluster:
    """Return one node (192.168.1.10, podCIDR 10.244.0.0/24) that nobody has given a conflist."""
    return Cluster(cni="none", nodes=1)


def _judge_conflist(answer: Any) -> Finding:
    world = bare_node()
    node = world.network.ns(NODE)
    node.files[f"{CONF_DIR}/10-mine.conflist"] = answer
    try:
        node_network(node)
    except NotInitialized as fault:
        return Finding(False, f"containerd's log: `{fault.log}`. The node stays NotReady.")
    world.apply(PODS)
    cidr = world.store.get(Node, NODE).spec.pod_cidr
    for name in ("web", "client"):
        pod = world.pod(name)
        if not pod.ips:
            said = [e.message for key, e in world.events if key == f"default/{name}"]
            return Finding(False, f"{name} has no address. Its last event: `{said[-1] if said else 'none'}`")
        if not pod.ips[0].startswith("10.244.0."):
            return Finding(
                False, f"{name} got {pod.ips[0]}. The pods of this node are to have addresses of {cidr}."
            )
    web = world.pod("web").ips[0]
    calls = (
        ("client to web", "client", f"tcp://{web}:8080"),
        ("node-1 itself to web", "node/node-1", f"tcp://{web}:8080"),
        ("client to a server outside", "client", f"tcp://{OUTSIDE}:80"),
        ("somebody outside to the node's port 8080", OUTSIDE, "tcp://192.168.1.10:8080"),
    )
    for label, source, target in calls:
        trip = world.connect(source, target)
        if not trip.delivered:
            return Finding(False, f"The pods run. But {label}: {trip.verdict}. {trip.why}.", trip)
    return Finding(
        True, "Pods have addresses, reach each other, their node and the world, and can be reached.", trip
    )


WRITE = Exercise(
    id="03-conflist",
    kind=DO,
    title="Write a conflist",
    task="node-1 (192.168.1.10, pods of 10.244.0.0/24) has no pod network. Complete the file, so that two new pods, "
    "`client` and `web`, start with addresses of the right range; so that client, and the node itself, reach web on "
    "8080; that client reaches a server outside the cluster; and that web's `hostPort: 8080` is open to the outside.",
    judge=_judge_conflist,
    template=TEMPLATE,
    hints=(
        "One thing after the other: the judge names the first that does not work. Which plugin does host ports?",
        "A pod that is to leave its subnet needs a default route, and a gateway that holds that address. Look which "
        "keys the conflist at the top of this notebook has, and what each did in the recording.",
        "bridge takes `isDefaultGateway`, and a key that lends the node's address to the world outside. portmap is a "
        "second plugin of the list; the runtime tells it the ports only if its `capabilities` ask for them.",
    ),
    world=bare_node,
)

# -- find: cni plugin not initialized ----------------------------------------------------------------------------------


def _broken_first(world: Cluster) -> None:
    world.network.ns(NODE).files[f"{CONF_DIR}/05-old.conflist"] = (
        '{"cniVersion": "1.0.0", "name": "old", "plugins": [\n'
    )


def _no_file(world: Cluster) -> None:
    del world.network.ns(NODE).files[CONFLIST]


def _no_plugin(world: Cluster) -> None:
    world.network.ns(NODE).files[MISSING] = f"{BIN_DIR}/bridge\n"


def _no_agent(world: Cluster) -> None:
    space = world.network.ns(NODE)
    for route in [r for r in space.route_list() if r.via and r.dst != "0.0.0.0/0"]:
        space.delete_route(route.dst)


CAUSES: dict[str, Callable[[Cluster], None]] = {
    "none": _no_file,
    "first": _broken_first,
    "binary": _no_plugin,
    "agent": _no_agent,
}


def sick(cause: Callable[[Cluster], None] = _broken_first) -> Cluster:
    """Return the node after something happened to it, and after somebody tried to start the pod `late`."""
    world = one_node()
    cause(world)
    world.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late}\nspec: {containers: [{name: app, image: app}]}\n"
    )
    return world


def complaints(world: Cluster) -> dict[str, str]:
    """Return what a node and its new pod say: the node's condition, containerd's log, the pod's events."""
    [ready] = [c for c in world.store.get(Node, NODE).status.conditions if c.type == "Ready"]
    log = "loaded"
    try:
        node_network(world.network.ns(NODE))
    except NotInitialized as fault:
        log = fault.log
    events = [f"{event.reason}: {event.message}" for key, event in world.events if key == "default/late"]
    return {
        "kubectl describe node node-1": f"Ready={ready.status}: {ready.message}",
        "journalctl -u containerd": log,
        "kubectl describe pod late": events[-1] if events else "no events",
    }


def clear(world: Cluster, text: str) -> None:
    """Run `rm FILE` and `mv FILE FILE` on node-1. Raises InputError for what is no such line, or names no file."""
    files = world.network.ns(NODE).files
    for raw in text.splitlines():
        words = raw.strip().removeprefix("$ ").removeprefix("sudo ").split()
        if not words or words[0].startswith("#") or words[:2] == ["on", NODE]:
            continue
        if (words[0], len(words)) not in (("rm", 2), ("mv", 3)):
            raise InputError(f"{raw.strip()!r} is not understood here; write `rm FILE` or `mv FILE FILE`")
        if words[1] not in files:
            raise InputError(f"{words[0]}: cannot find '{words[1]}': No such file or directory")
        gone = files.pop(words[1])
        if words[0] == "mv":
            files[words[2]] = gone


def _judge_find(answer: Any) -> Finding:
    seen, would = complaints(sick()), complaints(sick(CAUSES[answer["choice"]]))
    for tool, text in seen.items():
        if would[tool] != text:
            return Finding(
                False, f"With that cause, `{tool}` would say: `{would[tool]}`. Compare with what it says."
            )
    world = sick()
    clear(world, answer["text"])
    life = live(world, new_pod("later"))
    if not life.pod.ips:
        said = life.started.events[-1].message if life.started.events else ""
        return Finding(False, f"The cause is found, and the remedy does not help yet. A new pod: `{said}`")
    return Finding(
        True,
        "Found and mended. Files are taken by name, and only the first counts: a broken 05-old.conflist hides a good "
        "10-bridge.conflist. Pods that ran already went on as if nothing were.",
        life.birth("a new pod, after the remedy"),
    )


FIND_IT = Exercise(
    id="03-find",
    kind=FIND,
    title="cni plugin not initialized",
    task="node-1 is NotReady, and the new pod `late` does not start. The cells above show what node, "
    "runtime and pod say, and what lies in /etc/cni/net.d. What is wrong? And which `rm` or `mv` on node-1 mends it?",
    judge=_judge_find,
    hints=(
        "The kubelet's words are the same for two of these causes. Whose log says more?",
        "containerd takes the first file of /etc/cni/net.d by name, and never a second one.",
        "Is that first file JSON, to its last bracket? It has to go, or to come later in the alphabet.",
    ),
    choices=(
        Choice("none", "There is no conflist on the node"),
        Choice("first", "The first conflist by name cannot be read, and hides the good one"),
        Choice("binary", "The plugin's executable is missing in /opt/cni/bin"),
        Choice("agent", "The agent that writes the routes has not run"),
    ),
    template="on node-1\n# rm or mv\n",
    world=sick,
)

# -- recall (02): a pod without a network of its own -------------------------------------------------------------------


def _guest() -> Outcome:
    life = live(pod=new_pod("guest", host_network=True))
    runs = [m for m in life.moments if m.verb == "runs"]
    made = "default/guest" in life.cluster.network.netns
    key = "none" if not runs and not made else "add" if runs else "space"
    ip = life.pod.ips[0] if life.pod.ips else "none"
    return Outcome(
        key,
        f"{len(runs)} plugins were run. guest has the address {ip}: its node's. That is also why such pods "
        "start on a node that has no pod network yet: the network's own agents are among them.",
    )


RECALL = predict(
    "03-recall",
    "Once more, from notebook 02: a guest on its node",
    "Notebook 02 had pods with `hostNetwork: true`. How much of this notebook's recording happens for such a pod?",
    {
        "add": "All of it, with the node's address instead of an own one",
        "space": "A network namespace is made, and no plugin is run",
        "none": "None of it: no network namespace, no plugin",
    },
    _guest,
    {
        "add": "What would host-local reserve? The pod has no address of its own.",
        "space": "A new namespace would be empty: it has no address, and nobody to give it one.",
    },
    (
        "Whose address had such a pod in notebook 02?",
        "A network namespace is what separates a pod's network from its node's. Does this pod want that?",
        "CNI is the protocol for connecting a *separate* namespace.",
    ),
)

EXERCISES = (ORDER, NETNS, DNS, HALF, WRITE, FIND_IT, RECALL)
