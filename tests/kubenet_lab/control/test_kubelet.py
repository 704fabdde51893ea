"""A pod's way into the network: who does what in which order, and what is left when it fails or goes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import CONF_DIR, FLANNEL_CONFLIST, NotInitialized, Runtime, node_network
from kubenet_lab.control import kubelet, machine
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Container, ContainerPort, Node, ObjectMeta, Pod, PodSpec, default_nodes
from kubenet_lab.packet.packet import TCP

CONFLIST = CONF_DIR + "/10-flannel.conflist"


def pod(
    name: str, node: str = "node-1", *, port: int = 8080, host_port: int = 0, host_network: bool = False
) -> Pod:
    """A pod with one container that declares one port."""
    ports = (ContainerPort(container_port=port, host_port=host_port, protocol="TCP"),)
    spec = PodSpec(
        node_name=node, host_network=host_network, containers=(Container(name="main", ports=ports),)
    )
    return Pod(metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"), spec=spec)


def cluster(count: int = 3, conflist: str = FLANNEL_CONFLIST) -> tuple[Network, dict[str, Node]]:
    """Nodes with Flannel, as after its DaemonSet ran."""
    network = Network()
    nodes = {n.name: n.with_pod_cidrs((f"10.244.{i}.0/24",)) for i, n in enumerate(default_nodes(count))}
    for node in nodes.values():
        machine.build_node(network, node.name, f"{node.internal_ips[0]}/24")
        if conflist:
            network.ns(node.name).files[CONFLIST] = conflist
    agents = [Agent(network, name) for name in nodes]
    for _ in range(2):
        for agent in agents:
            nodes |= {node.name: node for node in agent.reconcile(nodes.values())}
    return network, nodes


def test_a_pod_starts_in_the_real_order() -> None:
    """Sandbox, `lo` and the chain by the runtime; files, containers and status by the kubelet."""
    network, nodes = cluster()
    texts = {"/etc/resolv.conf": "nameserver 10.96.0.10\n"}
    seen: list[tuple[str, ...]] = []

    def files(started: Pod) -> dict[str, str]:
        seen.append(started.ips)
        return texts | {"/etc/hosts": f"{started.ips[0]}\tweb\n"}

    started = kubelet.start_pod(
        network, pod("web"), nodes["node-1"], files=files, start_time="2026-01-01T00:00:00Z"
    )
    assert started.ok
    assert [step.actor for step in started.steps] == ["runtime"] * 4 + ["kubelet"] * 3
    assert [step.action for step in started.steps[1:]] == [
        "CNI ADD loopback: ip link set lo up",
        "CNI ADD flannel",
        "CNI ADD portmap",
        "write /etc/resolv.conf",
        "write /etc/hosts",
        "start main: listens on TCP 8080",
    ]
    assert seen == [("10.244.0.2",)]
    inside = network.ns("default/web")
    assert (inside.host, inside.files["/etc/hosts"]) == ("node-1", "10.244.0.2\tweb\n")
    assert inside.socket_for(TCP, "10.244.0.2", 8080) is not None
    status = started.pod.status
    assert (status.phase, status.pod_ip, status.host_ip, started.pod.ready) == (
        "Running",
        "10.244.0.2",
        "192.168.1.10",
        True,
    )


def test_a_host_network_pod_shares_the_node() -> None:
    """No sandbox, no CNI; the node's addresses; a port that is taken ends the container."""
    network, nodes = cluster()
    first = kubelet.start_pod(network, pod("proxy", host_network=True, port=9100), nodes["node-1"])
    assert first.ok
    assert first.result is None
    assert first.pod.ips == ("192.168.1.10",)
    assert "default/proxy" not in network.netns
    second = kubelet.start_pod(network, pod("other", host_network=True, port=9100), nodes["node-1"])
    assert not second.ok
    assert "Address already in use" in second.events[0].message
    assert not second.pod.ready
    kubelet.stop_pod(network, first.pod)
    assert network.ns("node-1").socket_for(TCP, "192.168.1.10", 9100) is None


def test_stopping_undoes_starting_and_may_be_repeated() -> None:
    """Links, FDB, lease, rules and namespace go; what every pod shares stays."""
    network, nodes = cluster()
    kept = kubelet.start_pod(network, pod("kept", host_port=81), nodes["node-1"]).pod
    node = network.ns("node-1")
    before = (
        dict(node.links),
        dict(node.fdb),
        {k: v for k, v in node.files.items() if "last_reserved" not in k},
        node.iptables[4],
    )
    gone = kubelet.start_pod(network, pod("gone", host_port=82), nodes["node-1"]).pod
    assert kubelet.stop_pod(network, gone) == ()
    after = (
        dict(node.links),
        dict(node.fdb),
        {k: v for k, v in node.files.items() if "last_reserved" not in k},
        node.iptables[4],
    )
    assert after == before
    assert kubelet.stop_pod(network, gone) == ()
    assert list(network.netns).count("default/gone") == 0
    assert kept.ips == ("10.244.0.2",)
    assert kubelet.start_pod(network, pod("next"), nodes["node-1"]).pod.ips == ("10.244.0.4",)


NOT_READY = (
    "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: "
)
SANDBOX = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
)


@pytest.mark.parametrize(
    ("conflist", "reason", "before", "says"),
    [
        ("", "NetworkNotReady", NOT_READY, "cni plugin not initialized"),
        ("{broken", "NetworkNotReady", NOT_READY, "cni plugin not initialized"),
        ('{"name": "n", "plugins": []}', "NetworkNotReady", NOT_READY, "cni plugin not initialized"),
        (
            '{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "nosuch"}]}',
            "FailedCreatePodSandBox",
            SANDBOX,
            'plugin type="nosuch" failed (add): failed to find plugin "nosuch" in path [/opt/cni/bin]',
        ),
        (
            '{"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "nosuch"}]}',
            "NetworkNotReady",
            NOT_READY,
            'failed to find plugin "nosuch" in path [/opt/cni/bin]',
        ),
        (
            '{"cniVersion": "1.2.0", "name": "n", "plugins": [{"type": "ptp"}]}',
            "NetworkNotReady",
            NOT_READY,
            'incompatible CNI versions; config is "1.2.0", plugin supports ["0.1.0" "0.2.0"',
        ),
    ],
)
def test_a_node_without_a_working_network_says_why(
    conflist: str, reason: str, before: str, says: str
) -> None:
    """The event is in the components' words; the pod stays Pending and is started later."""
    network, nodes = cluster(1, conflist)
    started = kubelet.start_pod(network, pod("web"), nodes["node-1"])
    assert not started.ok
    [event] = started.events
    assert (event.type, event.reason) == ("Warning", reason)
    assert event.message.startswith(before)
    assert says in event.message
    assert started.pod == pod("web")
    # DEL fails like ADD where there is no plugin, and the namespace is left over.
    assert ("default/web" in network.netns) == (reason == "FailedCreatePodSandBox")
    judged = kubelet.node_condition(nodes["node-1"], network)
    assert judged.ready == (reason == "FailedCreatePodSandBox")
    network.ns("node-1").files[CONFLIST] = FLANNEL_CONFLIST
    assert kubelet.start_pod(network, pod("web"), nodes["node-1"]).ok


def test_an_add_that_dies_half_way_is_taken_back_by_the_runtime() -> None:
    """The addresses run out after the veth pair was made: the plugin leaves the pair, containerd's DEL removes it."""
    network, nodes = cluster(1)
    ipam = '{"type": "host-local", "subnet": "10.9.0.0/30"}'
    bridge = f'{{"type": "bridge", "isGateway": true, "ipam": {ipam}}}'
    small = f'{{"cniVersion": "1.0.0", "name": "n", "plugins": [{bridge}]}}'
    node = network.ns("node-1")
    node.files[CONFLIST] = small
    assert kubelet.start_pod(network, pod("first"), nodes["node-1"]).ok
    links = set(node.links)
    failed = kubelet.start_pod(network, pod("second"), nodes["node-1"])
    assert "no IP addresses available in range set: 10.9.0.1-10.9.0.2" in failed.events[0].message
    assert [step.action.partition(":")[0] for step in failed.steps[-2:]] == [
        "CNI DEL bridge",
        failed.steps[-1].action,
    ]
    assert failed.steps[-1].action.startswith("ip netns del cni-")
    assert set(node.links) == links
    assert "default/second" not in network.netns
    runtime = Runtime(network, "node-1")
    path = runtime.make_sandbox("by-hand", "by-hand")
    with pytest.raises(CniError):
        runtime.add(node_network(node), "by-hand", path)
    assert len(set(node.links) - links) == 1
    assert list(network.ns("by-hand").links) == ["lo", "eth0"]


def test_the_first_file_by_name_is_the_nodes_network() -> None:
    """Two configurations: the name decides, and a broken first one is not passed over."""
    network, _ = cluster(1)
    node = network.ns("node-1")
    node.files[CONF_DIR + "/05-mine.conflist"] = (
        '{"name": "mine", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}'
    )
    assert node_network(node).name == "mine"
    node.files[CONF_DIR + "/05-mine.conflist"] = "{"
    with pytest.raises(NotInitialized) as caught:
        node_network(node)
    assert caught.value.log == (
        "cni config load failed: failed to load CNI config list file /etc/cni/net.d/05-mine.conflist: "
        "error parsing configuration list: unexpected end of JSON input: invalid cni config: failed to load cni config"
    )
    del node.files[CONF_DIR + "/05-mine.conflist"]
    assert node_network(node).name == "cbr0"


def test_node_condition_follows_the_network() -> None:
    """Ready is False, with the kubelet's text, until there is a CNI configuration."""
    network, nodes = cluster(1, "")
    waiting = kubelet.node_condition(nodes["node-1"], network)
    [ready] = [c for c in waiting.status.conditions if c.type == "Ready"]
    assert (ready.status, ready.message.rpartition(": ")[2]) == ("False", "cni plugin not initialized")
    network.ns("node-1").files[CONFLIST] = FLANNEL_CONFLIST
    assert kubelet.node_condition(waiting, network).ready


def test_a_world_repeats() -> None:
    """Names, MACs and addresses come out the same each time."""

    def build() -> list[object]:
        network, nodes = cluster()
        for number in range(6):
            node = f"node-{number % 3 + 1}"
            kubelet.start_pod(network, pod(f"p{number}", node), nodes[node])
        return [(ns.name, ns.links, ns.fdb, ns.files) for ns in network.netns.values()]

    assert build() == build()


def test_a_node_in_another_subnet_stands_behind_the_router() -> None:
    """It gets its own wire, and goes with its pods."""
    network, nodes = cluster(2)
    far = replace(default_nodes(25)[24].with_pod_cidrs(("10.244.9.0/24",)))
    machine.build_node(network, far.name, f"{far.internal_ips[0]}/24").files[CONFLIST] = FLANNEL_CONFLIST
    nodes[far.name] = far
    agents = [Agent(network, name) for name in nodes]
    for _ in range(2):
        for agent in agents:
            nodes |= {node.name: node for node in agent.reconcile(nodes.values())}
    assert network.ns(far.name).link("eth0").wire != machine.UNDERLAY
    for name, node in (("a", "node-1"), ("far", far.name)):
        assert kubelet.start_pod(network, pod(name, node), nodes[node]).ok
    machine.remove_node(network, far.name)
    assert not [name for name, ns in network.netns.items() if ns.host == far.name]


def test_a_runtime_can_have_other_plugins() -> None:
    """What is installed is an argument: without bridge, Flannel's delegate is missing."""
    network, nodes = cluster(1)
    runtime = Runtime(
        network,
        "node-1",
        plugins=tuple(p for p in Runtime(network, "node-1").plugins.values() if p.name != "bridge"),
    )
    started = kubelet.start_pod(network, pod("web"), nodes["node-1"], runtime=runtime)
    assert 'failed to find plugin "bridge" in path [/opt/cni/bin]' in started.events[0].message


def test_the_kubelet_port_is_taken() -> None:
    """The machine's own daemons listen: a host-network pod cannot have 10250."""
    network, _ = cluster(1)
    assert network.ns("node-1").socket_for(TCP, "192.168.1.10", machine.KUBELET_PORT) == Socket(
        TCP, "::", 10250, "kubelet"
    )
