"""The kubelet's part in a pod's network: what it does, in which order, and what it leaves to the runtime.

1. kubelet: writes the pod's resolv.conf and asks the runtime for a sandbox.
2. runtime: makes the network namespace, sets `lo` up (CNI loopback), runs the node's CNI chain (ADD).
3. kubelet: reads the pod's address from the sandbox, writes /etc/hosts, starts the containers, reports the
   status.

A pod with `hostNetwork` has none of 2: it lives in the node's namespace and has the node's addresses.
Source: `pkg/kubelet/kuberuntime/kuberuntime_sandbox.go`, `pkg/kubelet/kubelet_pods.go`, containerd
`sandbox_run.go`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni.plugin import VERSIONS, CniError, Json, Result
from kubenet_lab.cni.runtime import NetworkConf, Runtime, netns_path, node_network
from kubenet_lab.control.probes import probed, probed_ports
from kubenet_lab.control.readiness import became_ready
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import put_off as leave
from kubenet_lab.kernel.socket import Handler, Socket
from kubenet_lab.objects.node import Node, NodeCondition
from kubenet_lab.objects.pod import ListeningPort, Pod, listening_ports
from kubenet_lab.packet.ip import ip_int, prefix
from kubenet_lab.packet.packet import SCTP, TCP, UDP

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}

Files = Callable[[Pod], Mapping[str, str]]
"""(pod with its addresses in the status) -> path -> text: /etc/resolv.conf, /etc/hosts."""

Handlers = Callable[[Pod, ListeningPort], Handler | None]
"""Which program answers behind a port; with None TCP accepts and UDP stays silent."""


class Step(Struct, frozen=True):
    """One thing that was done, and by whom ("kubelet", "runtime")."""

    actor: str
    action: str


class Event(Struct, frozen=True):
    """What `kubectl describe pod` shows below "Events"; `at` is the simulated second."""

    type: str
    reason: str
    message: str
    at: float = 0.0


class Started(Struct, frozen=True):
    """What came of starting a pod: the pod to write back, the CNI result, the steps in order, and events.

    On failure `ok` is False and `events` says why. What the failed ADD left in the kernel the runtime's DEL has taken
    away again, unless DEL failed as well.
    """

    pod: Pod
    ok: bool
    result: Result | None = None
    steps: tuple[Step, ...] = ()
    events: tuple[Event, ...] = ()


def netns_name(pod: Pod) -> str:
    """Name of the namespace a pod is in: "namespace/pod", or the node's for a host-network pod."""
    return pod.spec.node_name if pod.spec.host_network else f"{pod.metadata.namespace}/{pod.metadata.name}"


def sandbox_id(pod: Pod) -> str:
    """The sandbox's id, 64 hex digits: random in reality, here derived so that a world repeats."""
    meta = pod.metadata
    return hashlib.sha256(f"{meta.namespace}/{meta.name}/{meta.uid}".encode()).hexdigest()


def sandbox_path(runtime: Runtime, pod: Pod) -> str:
    """Path the pod's network namespace is bound to on its node, "" when it has none."""
    name, path = netns_name(pod), netns_path(sandbox_id(pod))
    return path if runtime.node.files.get(path) == name else ""


def start_pod(
    network: Network,
    pod: Pod,
    node: Node | str,
    *,
    files: Files | None = None,
    handlers: Handlers | None = None,
    runtime: Runtime | None = None,
    now: float = 0.0,
    start_time: str | None = None,
    timed: bool = False,
    put_off: bool = False,
) -> Started:
    """Start a pod that is bound to a node: sandbox, CNI ADD, files, listening sockets, status.

    With `put_off` the runtime reserves the pod's addresses, and leaves what cannot fail to the first look at the node
    or the pod (`kernel.put_off`); `steps` and `result` are empty then.

    `node` is the Node (or its name; then hostIP is the address of its namespace's eth0). With `timed` a pod that has
    probes is not ready until they have been sent (`pod_workers`). Never raises for what goes wrong on the node:
    `Started.events` has it in the component's words.
    """
    host = node if isinstance(node, str) else node.name
    runtime = runtime or Runtime(network, host)
    host_ips = _host_ips(network.ns(host), node)
    steps: list[Step] = []
    result: Result | None = None
    if pod.spec.host_network:
        ips = host_ips
        space = network.ns(host)
    else:
        try:
            conf = _ready_network(runtime)
        except CniError as fault:
            # The kubelet does not even ask for a sandbox while its runtime has no network.
            said = f"network is not ready: {_NOT_READY}{fault}"
            return Started(pod, False, None, (), (Event("Warning", "NetworkNotReady", said, now),))
        known = _known_address(pod, node)
        answer = _reserve(runtime, conf, pod, known) if put_off else None
        if answer is not None:
            _leave(network, pod, runtime, conf, answer, known, host_ips, files, handlers, start_time, now)
            ips = _plain(answer)
            started = pod.with_status(phase="Running", ips=ips, host_ips=host_ips, start_time=start_time)
            return _ready_or_not(started, pod, None, (), (), timed, now)
        try:
            result = _run_sandbox(runtime, conf, pod, known, steps, now)
        except (CniError, KernelError) as fault:
            _give_up(runtime, conf, pod, steps, now)
            return Started(pod, False, None, tuple(steps), (_failed(pod, fault, now),))
        ips = _plain(result)
        space = network.ns(netns_name(pod))
        at = network.ns(host)
        at.served = (at.generation, at.served[1])
    started = pod.with_status(phase="Running", ips=ips, host_ips=host_ips, start_time=start_time)
    if not pod.spec.host_network:
        for path, text in (files(started) if files else {}).items():
            space.files[path] = text
            steps.append(Step("kubelet", f"write {path}"))
    events = _listen(space, started, handlers, steps, now)
    return _ready_or_not(started, pod, result, tuple(steps), tuple(events), timed, now)


def _ready_or_not(
    started: Pod,
    pod: Pod,
    result: Result | None,
    steps: tuple[Step, ...],
    events: tuple[Event, ...],
    timed: bool,
    now: float,
) -> Started:
    """The status of a pod that was started: ready at once, or when it has been probed."""
    ready = not events and not _known_unready(pod)
    if ready and timed and not pod.ready:
        if probed(pod):
            return Started(started.with_status(ready=False), True, result, steps)
        return Started(became_ready(started, now), True, result, steps)
    return Started(started.with_status(ready=ready), ready, result, steps, events)


def _plain(result: Result) -> tuple[str, ...]:
    return tuple(ip.address.partition("/")[0] for ip in result.ips)


def _reserve(runtime: Runtime, conf: NetworkConf, pod: Pod, address: str) -> Result | None:
    """The pod's addresses, where all that is left to do for it cannot fail; None where it has to be done now."""
    if netns_name(pod) in runtime.network.netns or _capabilities(pod):
        return None
    ports = [(port.protocol, port.port) for port in (*listening_ports(pod), *probed_ports(pod))]
    if len(set(ports)) < len(ports):
        return None  # one container takes the other's port
    identity = sandbox_id(pod)
    try:
        return runtime.plan(conf, identity, netns_path(identity), args=_cni_args(pod, identity, address))
    except CniError:
        return None  # doing it all now fails in the same way, and leaves what such a failure leaves


def _leave(
    network: Network,
    pod: Pod,
    runtime: Runtime,
    conf: NetworkConf,
    answer: Result,
    address: str,
    host_ips: tuple[str, ...],
    files: Files | None,
    handlers: Handlers | None,
    start_time: str | None,
    now: float,
) -> None:
    """Leave a pod's sandbox, files and sockets to the first look at its node."""
    host, name = runtime.host, netns_name(pod)

    def work() -> None:
        identity = sandbox_id(pod)
        path = netns_path(identity)
        network.ns(host).files[path] = name
        space = network.ns(name)
        for up in (False, True):
            space.set_link("lo", up=up)
        result = runtime.add(
            conf, identity, path, args=_cni_args(pod, identity, address), now=now, answer=answer
        )
        started = pod.with_status(
            phase="Running", ips=_plain(result), host_ips=host_ips, start_time=start_time
        )
        if files is not None:
            space.files.update(files(started))
        for _, socket in sockets_of(pod, handlers):
            space.listen(socket)

    leave(network.ns(host), work, pod=name, addresses=_plain(answer))


def _known_unready(pod: Pod) -> bool:
    """Whether the pod was running and not ready when it was dumped; nobody here can say what is wrong with it."""
    return pod.status.phase == "Running" and any(
        c.type == "Ready" and c.status == "False" for c in pod.status.conditions
    )


def _known_address(pod: Pod, node: Node | str) -> str:
    """The IPv4 address a pod had when it was dumped, if its node's CNI can give that again; else "".

    A kubelet never asks for an address. Bringing a running pod back into a model does, by the means CNI has for it:
    `IP=` in CNI_ARGS (https://www.cni.dev/docs/conventions/#cni_args).
    """
    if isinstance(node, str):
        return ""
    for cidr in node.spec.pod_cidrs or (node.spec.pod_cidr,):
        block = prefix(cidr) if cidr and ":" not in cidr else None
        for ip in pod.ips:
            # A block's first address is cni0's, and the network and broadcast addresses are nobody's.
            if (
                block is not None
                and ip in block
                and 1 < ip_int(ip) - block.net < (1 << 32 - block.length) - 1
            ):
                return ip
    return ""


_NOT_READY = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: "
)


def _ready_network(runtime: Runtime) -> NetworkConf:
    """The node's network, once its plugins say they can serve (STATUS). Raises CniError."""
    conf = runtime.node_network()
    runtime.status(conf)
    return conf


def _give_up(runtime: Runtime, conf: NetworkConf, pod: Pod, steps: list[Step], now: float) -> None:
    """What containerd does when ADD failed: DEL, and the namespace goes. A DEL that fails too leaves it standing."""
    path, identity = sandbox_path(runtime, pod), sandbox_id(pod)
    try:
        runtime.delete(conf, identity, path, args=_cni_args(pod, identity), now=now)
        steps += [Step("runtime", f"CNI DEL {body.get('type')}") for body in reversed(conf.plugins)]
    except CniError as fault:
        steps.append(Step("runtime", f"CNI DEL failed: {fault}"))
        return
    runtime.remove_sandbox(path)
    steps.append(Step("runtime", f"ip netns del {path.rpartition('/')[2]}"))


def _run_sandbox(
    runtime: Runtime, conf: NetworkConf, pod: Pod, address: str, steps: list[Step], now: float
) -> Result:
    """The runtime's RunPodSandbox: namespace, loopback, the node's network."""
    name, identity = netns_name(pod), sandbox_id(pod)
    path = sandbox_path(runtime, pod) or runtime.make_sandbox(name, identity)
    steps.append(Step("runtime", f"ip netns add {path.rpartition('/')[2]}"))
    runtime.network.ns(name).set_link("lo", up=True)
    steps.append(Step("runtime", "CNI ADD loopback: ip link set lo up"))
    result = runtime.add(
        conf, identity, path, args=_cni_args(pod, identity, address), capabilities=_capabilities(pod), now=now
    )
    steps += [Step("runtime", f"CNI ADD {body.get('type')}") for body in conf.plugins]
    return result


def _cni_args(pod: Pod, identity: str, address: str = "") -> str:
    meta = pod.metadata
    wish = f";IP={address}" if address else ""
    return (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={meta.namespace};K8S_POD_NAME={meta.name};"
        f"K8S_POD_INFRA_CONTAINER_ID={identity};K8S_POD_UID={meta.uid}{wish}"
    )


def _capabilities(pod: Pod) -> Json:
    mappings = [
        {
            "hostPort": p.host_port,
            "containerPort": p.container_port,
            "protocol": (p.protocol or "TCP").lower(),
            "hostIP": p.host_ip,
        }
        for container in pod.serving_containers
        for p in container.ports
        if p.host_port
    ]
    return {"portMappings": mappings} if mappings else {}


def _failed(pod: Pod, fault: Exception, now: float) -> Event:
    """The event of a sandbox that could not be made, as the kubelet records it."""
    return Event(
        "Warning",
        "FailedCreatePodSandBox",
        "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
        f'"{sandbox_id(pod)}": {fault}',
        now,
    )


def _host_ips(ns: Netns, node: Node | str) -> tuple[str, ...]:
    if isinstance(node, Node) and node.internal_ips:
        return node.internal_ips
    return tuple(a.local for a in ns.addrs("eth0") if a.scope == "global")[:2]


def _listen(space: Netns, pod: Pod, handlers: Handlers | None, steps: list[Step], now: float) -> list[Event]:
    """Open the containers' ports; one that is taken (host network) ends its container."""
    events: list[Event] = []
    for port, socket in sockets_of(pod, handlers):
        try:
            space.listen(socket)
        except KernelError as fault:
            events.append(
                Event(
                    "Warning",
                    "BackOff",
                    f"Back-off restarting failed container {port.container}: {fault}",
                    now,
                )
            )
            continue
        steps.append(Step("kubelet", f"start {port.container}: listens on {port.protocol} {port.port}"))
    return events


def sockets_of(pod: Pod, handlers: Handlers | None = None) -> list[tuple[ListeningPort, Socket]]:
    """The sockets its containers are taken to open: the ports they declare, and those they are probed at.

    See `objects.pod.listening_ports` and `probes.probed_ports`.
    """
    return [
        (
            port,
            Socket(
                PROTOCOLS[port.protocol],
                "::",
                port.port,
                process_name(pod, port.container),
                handler=handlers(pod, port) if handlers else None,
            ),
        )
        for port in (*listening_ports(pod), *probed_ports(pod))
    ]


def process_name(pod: Pod, container: str) -> str:
    """What `ss -p` calls a container's program; on a node's own network the pod has to be told as well."""
    if pod.spec.host_network:
        return f"{pod.metadata.namespace}/{pod.metadata.name}/{container}"
    return container


def close_container(network: Network, pod: Pod, container: str) -> tuple[Socket, ...]:
    """A container's program has ended: its sockets close. Returns them."""
    space = network.netns.get(netns_name(pod))
    if space is None:
        return ()
    own = process_name(pod, container)
    held = tuple(s for group in space.sockets.values() for s in group if s.process == own)
    for socket in held:
        space.close(socket)
    return held


def open_container(network: Network, pod: Pod, sockets: tuple[Socket, ...]) -> KernelError | None:
    """A container's program opens the sockets it had before; returns what the kernel refused, if anything.

    Its accept queues are empty again. A program that did not listen before does not listen now: it reads the same
    configuration again.
    """
    space = network.netns.get(netns_name(pod))
    if space is None:
        return None
    for socket in sockets:
        present = space.sockets.get((socket.proto, socket.port), ())
        if any(s.process == socket.process and s.address == socket.address for s in present):
            continue
        try:
            space.listen(replace(socket, backlog_full=False))
        except KernelError as fault:
            return fault
    return None


def stop_pod(
    network: Network, pod: Pod, *, runtime: Runtime | None = None, now: float = 0.0
) -> tuple[Event, ...]:
    """Stop a pod: its sockets close, CNI DEL runs, its namespace goes. Stopping twice is no error.

    A DEL that fails leaves the sandbox, and its event is returned, as the kubelet retries.
    """
    host = pod.spec.node_name
    if host not in network.netns:
        return ()
    runtime = runtime or Runtime(network, host)
    if pod.spec.host_network:
        for container in pod.serving_containers:
            close_container(network, pod, container.name)
        return ()
    path, identity = sandbox_path(runtime, pod), sandbox_id(pod)
    if not path and network.netns.get(netns_name(pod)) is None:
        return ()
    try:
        runtime.delete(node_network(runtime.node), identity, path, args=_cni_args(pod, identity), now=now)
    except CniError as fault:
        text = (
            f'failed to "KillPodSandbox" for "{pod.metadata.uid}": rpc error: code = Unknown desc = '
            f'failed to destroy network for sandbox "{identity}": {fault}'
        )
        return (Event("Warning", "FailedKillPod", f"error killing pod: {text}", now),)
    runtime.remove_sandbox(path)
    return ()


def node_condition(node: Node, network: Network) -> Node:
    """The Node with its Ready condition: not ready while the runtime has no CNI configuration.

    The text is the kubelet's: "container runtime network not ready: ... cni plugin not initialized".
    """
    try:
        conf = node_network(network.ns(node.name))
        if conf.version not in VERSIONS[:-1]:
            Runtime(network, node.name).status(conf)
        ready = NodeCondition(
            type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status"
        )
    except CniError as fault:
        ready = NodeCondition(
            type="Ready",
            status="False",
            reason="KubeletNotReady",
            message=f"{_NOT_READY}{fault}",
        )
    if ready in node.status.conditions:
        return node
    others = tuple(c for c in node.status.conditions if c.type != "Ready")
    return replace(node, status=replace(node.status, conditions=(*others, ready)))
