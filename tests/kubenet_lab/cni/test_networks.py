"""Pod networks without a daemon, no network at all, and what goes wrong with one: texts, events, and the state left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import CONF_DIR, MISSING, node_network, parse
from kubenet_lab.control import Settings
from kubenet_lab.control.machine import build_node
from kubenet_lab.errors import Invalid
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Container, Node, ObjectMeta, Pod, PodSpec

from .recorded import Recording, sandbox, state

FLANNEL = f"{CONF_DIR}/10-flannel.conflist"
SANDBOX = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox "
)


def pod(name: str, node: str = "node-1") -> Pod:
    spec = PodSpec(node_name=node, containers=(Container(name="main", image="x"),))
    return Pod(metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"), spec=spec)


def told(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    return [(event.reason, event.message) for who, event in cluster.events if who == f"default/{name}"]


# -- networks -----------------------------------------------------------------------------------------------------


def test_bridge_reaches_other_nodes_once_routes_are_written() -> None:
    """Same node and outside at once; other nodes after `ip route add`, with the node's address as source (ipMasq)."""
    shop = scenarios.shop(cni="bridge")
    assert all(node.ready for node in shop.store.list(Node))
    assert shop.ping("frontend", "10.244.0.3").verdict == "answered"
    assert shop.ping("frontend", "203.0.113.10").verdict == "answered"
    assert shop.ping("frontend", "10.244.1.2").verdict != "answered"
    shop.pod_network.write_routes()
    across = shop.ping("frontend", "10.244.1.2")
    assert across.verdict == "answered"
    assert shop.connect("frontend", "http://backend").verdict == "connected"
    assert [str(r) for r in shop.network.ns("node-1").route_list() if r.dst == "10.244.1.0/24"] == [
        "10.244.1.0/24 via 192.168.1.20 dev eth0"
    ]


def test_the_sample_plugin_makes_a_network_of_pairs() -> None:
    """Every container is a network of two; pods reach each other everywhere, but nobody outside."""
    shop = scenarios.shop(cni="sample")
    shop.pod_network.write_routes()
    assert shop.connect("frontend", "http://backend").verdict == "connected"
    assert shop.ping("frontend", "203.0.113.10").verdict == "timed out"
    inside = shop.network.ns("default/frontend")
    assert [str(r) for r in inside.route_list()] == [
        "default via 169.254.1.1 dev eth0",
        "169.254.1.1/32 dev eth0",
    ]
    links = set(shop.network.ns("node-1").links)
    shop.delete("Pod", "frontend")
    assert len(links - set(shop.network.ns("node-1").links)) == 1
    assert not [r for r in shop.network.ns("node-1").route_list() if r.dst == "10.244.0.2/32"]


def test_without_a_network_nodes_are_not_ready_and_pods_wait() -> None:
    shop = scenarios.shop(cni="none")
    [ready] = {c.message for n in shop.store.list(Node) for c in n.status.conditions if c.type == "Ready"}
    assert ready == (
        "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin returns error: cni plugin not initialized"
    )
    assert told(shop, "frontend")[0] == ("NetworkNotReady", f"network is not ready: {ready}")
    assert {p.status.phase for p in shop.store.list(Pod)} == {"Pending"}
    assert not [name for name in shop.network.netns if "/" in name]


def test_a_network_that_comes_later_starts_the_pods() -> None:
    cluster = Cluster([pod("web")], nodes=1, cni="none")
    ipam = {"type": "host-local", "subnet": "10.5.0.0/24"}
    plugins = [{"type": "bridge", "isDefaultGateway": True, "ipam": ipam}]
    text = json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": plugins})
    cluster.network.ns("node-1").files[f"{CONF_DIR}/10-mine.conflist"] = text
    cluster.advance(11)
    assert cluster.pod("web").ips == ("10.5.0.2",)
    assert cluster.store.get(Node, "node-1").ready


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({FLANNEL: "{"}, "cni plugin not initialized"),
        ({f"{CONF_DIR}/05-a.conflist": '{"name": "a", "plugins": [{}]}'}, "cni plugin not initialized"),
        ({f"{CONF_DIR}/05-a.conf": '{"name": "a"}'}, "cni plugin not initialized"),
    ],
)
def test_a_conflist_broken_under_a_running_node(files: dict[str, str], says: str) -> None:
    """The node is not ready from then on, new pods wait, old ones go on."""
    cluster = Cluster([pod("old"), pod("other")], nodes=1)
    space = cluster.network.ns("node-1")
    before = state(space)
    space.files.update(files)
    cluster.apply_objects([pod("new")])
    assert not cluster.store.get(Node, "node-1").ready
    assert [(reason, message.endswith(says)) for reason, message in told(cluster, "new")] == [
        ("NetworkNotReady", True)
    ]
    assert cluster.ping("old", cluster.pod("other").ips[0]).verdict == "answered"
    after = state(space)
    assert {k: v for k, v in after.items() if k != "neigh"} == {
        k: v for k, v in before.items() if k != "neigh"
    }


def test_two_conflists_the_first_by_name_is_the_nodes_network() -> None:
    cluster = Cluster([pod("old")], nodes=1)
    ipam = {"type": "host-local", "subnet": "10.7.0.0/24"}
    text = json.dumps({"cniVersion": "1.0.0", "name": "mine", "plugins": [{"type": "ptp", "ipam": ipam}]})
    cluster.network.ns("node-1").files[f"{CONF_DIR}/05-mine.conflist"] = text
    cluster.apply_objects([pod("new")])
    assert node_network(cluster.network.ns("node-1")).name == "mine"
    assert (cluster.pod("old").ips, cluster.pod("new").ips) == (("10.244.0.2",), ("10.7.0.2",))


def _take(path: str) -> Any:
    return lambda files: files.pop(path)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (
            _take("/run/flannel/subnet.env"),
            "plugin type=\"flannel\" failed (add): failed to load flannel 'subnet.env' file: "
            "open /run/flannel/subnet.env: no such file or directory. Check the flannel pod log for this node.",
        ),
        (
            lambda files: files.update({MISSING: "/opt/cni/bin/bridge\n"}),
            'plugin type="flannel" failed (add): failed to find plugin "bridge" in path [/opt/cni/bin]',
        ),
        (
            lambda files: files.update({MISSING: "/opt/cni/bin/portmap\n"}),
            'plugin type="portmap" failed (add): failed to find plugin "portmap" in path [/opt/cni/bin]',
        ),
        (
            lambda files: files.update({FLANNEL: files[FLANNEL].replace("0.3.1", "0.9.9")}),
            'plugin type="flannel" failed (add): incompatible CNI versions; config is "0.9.9", plugin supports',
        ),
        (
            lambda files: files.update({"/run/flannel/subnet.env": "FLANNEL_NETWORK=10.244.0.0/16\n"}),
            'plugin type="flannel" failed (add): /run/flannel/subnet.env is missing FLANNEL_MTU, FLANNEL_IPMASQ',
        ),
    ],
)
def test_an_add_that_fails_is_told_and_tried_again(breaks: Any, says: str) -> None:
    """The event is containerd's text; when the cause is gone the pod starts, and nothing is left over."""
    cluster = Cluster([pod("old")], nodes=1)
    space = cluster.network.ns("node-1")
    whole = dict(space.files)
    links = set(space.links)
    breaks(space.files)
    cluster.apply_objects([pod("new")])
    [(reason, message)] = told(cluster, "new")
    assert reason == "FailedCreatePodSandBox"
    assert message.startswith(SANDBOX)
    assert says in message
    assert cluster.pod("new").status.phase == "Pending"
    assert cluster.pod("new").ips == ()
    for path in (FLANNEL, "/run/flannel/subnet.env"):
        space.files[path] = whole[path]
    space.files.pop(MISSING, None)
    cluster.advance(11)
    assert cluster.pod("new").status.phase == "Running"
    assert len(set(space.links) - links) == 1
    leases = [p for p in space.files if p.startswith("/var/lib/cni/networks/cbr0/10.")]
    assert sorted(p.rpartition("/")[2] for p in leases) == sorted(
        [cluster.pod("old").ips[0], cluster.pod("new").ips[0]]
    )


def test_a_node_subnet_with_no_address_left() -> None:
    """/29: five pods; the sixth waits with host-local's words, and gets the address that is given back."""
    cluster = Cluster(
        [pod(f"p{n}") for n in range(6)],
        nodes=1,
        settings=Settings(cluster_cidr=("10.244.0.0/24",), node_cidr_mask_size_ipv4=29),
    )
    [(reason, message)] = told(cluster, "p5")
    assert reason == "FailedCreatePodSandBox"
    assert message.endswith(
        "failed to allocate for range 0: no IP addresses available in range set: 10.244.0.1-10.244.0.6"
    )
    assert len([name for name in cluster.network.ns("node-1").links if name.startswith("veth")]) == 5
    cluster.delete("Pod", "p2")
    cluster.advance(40)
    assert cluster.pod("p5").ips == ("10.244.0.4",)


def test_a_cluster_range_with_no_subnet_left_for_a_node() -> None:
    with pytest.raises(Invalid, match=r"no share of 10\.244\.0\.0/24 is left for this node"):
        Cluster(nodes=2, settings=Settings(cluster_cidr=("10.244.0.0/24",)))


def test_nodes_whose_pod_subnets_overlap() -> None:
    """flanneld takes what the Node says: both nodes have the address, and only one is reached."""
    nodes = [node.with_pod_cidrs(("10.244.0.0/24",)) for node in Cluster(nodes=2).store.list(Node)]
    cluster = Cluster([*nodes, pod("a", "node-1"), pod("b", "node-2")])
    assert cluster.pod("a").ips == cluster.pod("b").ips == ("10.244.0.2",)
    routes = [str(r) for r in cluster.network.ns("node-1").route_list() if r.dst == "10.244.0.0/24"]
    assert len(routes) >= 1
    assert cluster.ping("node/node-1", "10.244.0.2").verdict in ("answered", "timed out", "unreachable")


BRIDGE: dict[str, Any] = {
    "type": "bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]]},
}


@pytest.mark.parametrize(
    ("plugin", "says", "left"),
    [
        ({**BRIDGE, "mtu": 20}, 'failed to create bridge "cni0": could not add "cni0": invalid argument', []),
        (
            {**BRIDGE, "mtu": 70000},
            'failed to create bridge "cni0": could not add "cni0": invalid argument',
            [],
        ),
        ({**BRIDGE, "mtu": "big"}, "failed to load netconf", []),
        ({**BRIDGE, "vlan": 5000}, "invalid VLAN ID 5000 (must be between 0 and 4094)", []),
        ({**BRIDGE, "ipMasq": True, "ipMasqBackend": "pf"}, 'unknown ipmasq backend "pf"', ["eth0"]),
        (
            {"type": "macvlan", "master": "eth0", "mtu": 9000},
            "invalid MTU 9000, must be [0, master MTU(1500)]",
            [],
        ),
        ({"type": "macvlan", "master": "nope0"}, "Link not found", []),
        ({"type": "macvlan", "master": "eth0", "mode": "tree"}, 'unknown macvlan mode: "tree"', []),
        ({"type": "ipvlan", "master": "eth0", "mode": "l4"}, 'unknown ipvlan mode: "l4"', []),
        ({"type": "vlan", "vlanId": 5}, '"master" field is required', []),
        ({"type": "vlan", "master": "eth0", "vlanId": 4095}, "invalid VLAN ID 4095", []),
        (
            {"type": "ptp", "ipam": {"type": "nosuch"}},
            'failed to find plugin "nosuch" in path [/opt/cni/bin]',
            [],
        ),
        ({"type": "ptp", "ipam": {"type": "dhcp"}}, "error dialing DHCP daemon", []),
        ({"type": "dummy"}, "dummy interface requires an IPAM configuration", []),
        ({"type": "portmap"}, "must be called as chained plugin", []),
        ({"type": "firewall"}, "missing prevResult from earlier plugin", []),
        ({"type": "tuning"}, "Required prevResult missing", []),
        ({"type": "vrf"}, "configuration is expected to have a valid vrf name", []),
    ],
)
def test_a_plugin_says_what_is_wrong_and_leaves_what_the_real_one_leaves(
    plugin: dict[str, Any], says: str, left: list[str]
) -> None:
    network = Network()
    node = build_node(network, "node-1")
    runtime = Recording(network, "node-1")
    conf = parse(json.dumps({"cniVersion": "1.0.0", "name": "net1", "plugins": [plugin]}))
    before = state(node)
    path = sandbox(network, "node-1", "c1")
    with pytest.raises(CniError) as caught:
        runtime.add(conf, "c1", path)
    assert says in caught.value.msg
    assert [name for name in network.ns("c1").links if name != "lo"] == left
    if not left:
        assert state(node)["link"] == before["link"]
        assert not [p for p in node.files if p.startswith("/var/lib/cni/networks/net1/10")]


def test_two_static_addresses_that_are_one() -> None:
    """static keeps no store: the second ADD succeeds, and two containers have one address."""
    network = Network()
    build_node(network, "node-1")
    runtime = Recording(network, "node-1")
    ipam = {"type": "static", "addresses": [{"address": "10.22.0.9/24"}]}
    conf = parse(json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{**BRIDGE, "ipam": ipam}]}))
    for name in ("c1", "c2"):
        runtime.add(conf, name, sandbox(network, "node-1", name))
        assert network.ns(name).is_local("10.22.0.9")


def test_the_same_address_asked_for_twice() -> None:
    network = Network()
    build_node(network, "node-1")
    runtime = Recording(network, "node-1")
    conf = parse(json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [BRIDGE]}))
    args = "IgnoreUnknown=1;IP=10.22.0.9"
    runtime.add(conf, "c1", sandbox(network, "node-1", "c1"), args=args)
    with pytest.raises(CniError) as caught:
        runtime.add(conf, "c2", sandbox(network, "node-1", "c2"), args=args)
    assert caught.value.msg.endswith(
        "failed to allocate for range 0: requested IP address 10.22.0.9 is not available in range set "
        "10.22.0.1-10.22.0.254"
    )
