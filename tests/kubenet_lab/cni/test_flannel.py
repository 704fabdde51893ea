"""Flannel with VXLAN and host-gw: every table of every node equals what the real one left."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.flannel.agent import PREFIX, Agent
from kubenet_lab.cni.flannel.config import load, load_flags
from kubenet_lab.cni.plugin import Result
from kubenet_lab.cni.runtime import FLANNEL_CONFLIST, Runtime, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Node, default_nodes
from kubenet_lab.packet.packet import ICMP, ICMPV6, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange
from tests.oracles import cases, open_case

from .recorded import Masks, Recording, compare, files_of, recorded_state, sandbox, state

LACKS = frozenset({"ipip", "wireguard"})
"""What the recorded machine's kernel was built without."""


CONFLIST = FLANNEL_CONFLIST.replace("0.3.1", "1.0.0")


class World:
    """Three nodes as the recording's, with flanneld on each."""

    def __init__(
        self,
        net_conf: Any,
        flags: str = "--ip-masq --iface=eth0",
        cidrs: dict[str, str] | None = None,
        far: bool = False,
    ) -> None:
        self.network = Network()
        self.network.lacks = LACKS
        self.nodes: dict[str, Node] = {}
        for index, node in enumerate(default_nodes(3, dual_stack=True)):
            v4, v6 = node.internal_ips
            v4 = "192.168.2.30" if far and index == 2 else v4
            ns = build_node(self.network, node.name, f"{v4}/24", sysctls={})
            ns.add_address("eth0", f"{v6}/64")
            ns.add_route("::/0", via="fd00:192:168:1::1", dev="eth0")
            third = (cidrs or {}).get(node.name, str(index))
            six = "" if third == "0" else third
            pods = (f"10.244.{third}.0/24", f"fd00:10:244:{six}::/64" if six else "fd00:10:244::/64")
            self.nodes[node.name] = node.with_pod_cidrs(pods)
        self.conf = load(net_conf)
        self.flags = load_flags(flags)
        self.agents = {name: Agent(self.network, name, self.conf, self.flags) for name in self.nodes}
        self.settle()

    def settle(self) -> int:
        """Run the daemons until nothing changes; return how many writes it took."""
        writes = 0
        while True:
            changed = [
                node for agent in self.agents.values() for node in agent.reconcile(self.nodes.values())
            ]
            if not changed:
                return writes
            writes += len(changed)
            self.nodes |= {node.name: node for node in changed if node.name in self.nodes}

    def tunnel(self, name: str) -> list[str]:
        """Return what a node knows about the tunnel, as text."""
        ns = self.network.ns(name)
        rows = [str(r) for r in ns.route_list() if r.dev == "flannel.1"]
        rows += [str(n) for n in ns.neighbours.values() if n.dev == "flannel.1"]
        return sorted(rows + [str(e) for entries in ns.fdb.values() for e in entries if e.dev == "flannel.1"])


STARTS = [
    name
    for name in cases("cni-flannel")
    if "." not in name and name != "dynamic-vxlan" and not name.startswith(("far-", "bad-network"))
]
WITH_PODS = [
    name.removesuffix(".pods")
    for name in cases("cni-flannel")
    if name.endswith(".pods") and "black" not in name
]


def _cidrs(start: Any) -> dict[str, str]:
    """The third part of each node's pod subnet; a Node that was made again got another one."""
    return {name: body["node"]["podCIDR"].split(".")[2] for name, body in start["state"].items()}


def _masked(masks: Masks, body: dict[str, Any], ours: dict[str, Any]) -> None:
    """A tun device has no MAC, and a random link-local address."""
    for link in body.get("link", []):
        if link["ifname"] == "flannel0":
            link["address"] = ""
    for one in body.get("addr", []):
        for item in one["addr_info"]:
            if item["local"].startswith("<LL"):
                one["addr_info"] = [i for i in one["addr_info"] if i is not item]
    if any(link["ifname"] == "flannel0" for link in body.get("link", [])):
        body["route6"] = [r for r in body["route6"] if r["dev"] != "flannel0"]
        ours["route6"] = [r for r in ours["route6"] if r["dev"] != "flannel0"]


def _compare(masks: Masks, body: dict[str, Any], ns: Netns, path: str) -> None:
    recorded, ours = recorded_state(body), state(ns)
    _masked(masks, recorded, ours)
    compare(masks, recorded, ours, path)


def _started(case: str) -> tuple[Any, World, Masks]:
    start = open_case("cni-flannel", case)
    return start, World(start["net-conf.json"], start["flags"], _cidrs(start)), Masks()


@pytest.mark.parametrize("case", STARTS)
def test_nodes_equal_the_recording(case: str) -> None:
    """Links, addresses, routes, neighbours, FDB, rules in both forms, annotations, subnet.env, exit status, log."""
    start, world, masks = _started(case)
    for name, body in start["state"].items():
        ns, node, agent = world.network.ns(name), world.nodes[name], world.agents[name]
        if name == "node-3" and len(body["link"]) > 2 + len(ns.links):
            continue
        _compare(masks, body, ns, name)
        env = ns.files.get("/run/flannel/subnet.env", "").splitlines()
        masks.match(body["subnet_env"], env, f"{name}.subnet_env")
        masks.match(body["node"]["annotations"], node.metadata.annotations, f"{name}.annotations")
        assert body["node"]["conditions"] == [
            {"type": c.type, "status": c.status, "reason": c.reason, "message": c.message}
            for c in node.status.conditions
            if c.type == "NetworkUnavailable"
        ]
        assert agent.exited == start["exited"].get(name)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            assert ns.sysctl(key) == body["sysctl"][key]
    recorded = [masks.fill(line) for line in start["log_node-1"]]
    assert [line for line in world.agents["node-1"].log if line not in recorded] == []
    errors = [line for line in recorded if line.startswith("E ")]
    assert [line for line in world.agents["node-1"].log if line.startswith("E ")] == errors


@pytest.mark.parametrize("case", WITH_PODS)
def test_pods_equal_the_recording(case: str) -> None:
    """The chain flannel -> portmap: what each plugin got and said, pods, nodes with pods; CHECK; then SIGTERM."""
    start, world, masks = _started(case)
    pods = open_case("cni-flannel", f"{case}.pods")
    for name, body in start["state"].items():
        _compare(masks, body, world.network.ns(name), name)
    conf = parse(json.dumps(pods["conflist"]))
    runtimes = {name: Recording(world.network, name) for name in world.nodes}
    paths: dict[str, str] = {}
    for pod, body in pods["pods"].items():
        host = f"node-{pod[4]}"
        runtime = runtimes[host]
        paths[pod] = sandbox(world.network, host, pod)
        runtime.inputs.clear()
        given = body["steps"][-1]["stdin"].get("runtimeConfig")
        result = runtime.add(conf, pod, paths[pod], capabilities=given)
        masks.match(body["steps"][-1]["stdout"], result.to_json("1.0.0"), f"{pod}.result")
        assert [name for name, _ in runtime.inputs] == [step["plugin"] for step in body["steps"]]
        for step, (_, conf_given) in zip(body["steps"], runtime.inputs, strict=True):
            masks.match(step["stdin"], conf_given, f"{pod}.{step['plugin']}.stdin")
        compare(masks, recorded_state({**body["netns"], "fdb": []}), state(world.network.ns(pod)), pod)
        masks.match(body["files"], files_of(runtime.node), f"{pod}.files")
    for name, body in pods["node_state_with_pods"].items():
        _compare(masks, body, world.network.ns(name), f"{name} with pods")
    for key, value in pods["sysctl"]["node-1"].items():
        if key != "net.ipv6.conf.cni0.accept_dad":
            assert world.network.ns("node-1").sysctl(key) == value, key
    runtimes["node-1"].check(conf, "pod-11", paths["pod-11"])
    masks.check_distinct()


STOPPED = [
    name.removesuffix(".after-sigterm") for name in cases("cni-flannel") if name.endswith(".after-sigterm")
]


@pytest.mark.parametrize("case", STOPPED)
def test_sigterm_leaves_what_the_real_one_leaves(case: str) -> None:
    """Exit status 0; only a tun device goes. Pods of the recording are not there, so cni0 and theirs are left out."""
    _, world, masks = _started(case)
    after = open_case("cni-flannel", f"{case}.after-sigterm")
    for agent in world.agents.values():
        agent.stop()
    assert {name: agent.exited for name, agent in world.agents.items()} == after["exit"]
    body, ns = after["node-1"], world.network.ns("node-1")
    mine = {"lo", "eth0", *(name for name in ns.links if name.startswith("flannel"))}
    recorded, ours = recorded_state(body), state(ns)
    assert [link["ifname"] for link in recorded["link"] if link["ifname"].startswith("flannel")] == [
        link["ifname"] for link in ours["link"] if link["ifname"].startswith("flannel")
    ]
    for key, field in (
        ("link", "ifname"),
        ("addr", "ifname"),
        ("route", "dev"),
        ("route6", "dev"),
        ("fdb", "ifname"),
    ):
        if key in recorded:
            recorded[key] = [item for item in recorded[key] if item[field] in mine or item.get("type")]
    for key in ("iptables_save", "ip6tables_save", "nft", "rule", "route_other_tables"):
        recorded.pop(key, None)
    compare(masks, recorded, ours, "node-1")
    flannel = [line for line in body["iptables_save"] if "FLANNEL" in line]
    assert flannel == [line for line in ours["iptables_save"] if "FLANNEL" in line]
    masks.match(after["subnet_env"], ns.files["/run/flannel/subnet.env"].splitlines(), "subnet.env")
    masks.match(after["node"]["annotations"], world.nodes["node-1"].metadata.annotations, "annotations")


DELETED = [name.removesuffix(".del") for name in cases("cni-flannel") if name.endswith(".del")]


@pytest.mark.parametrize("case", DELETED)
def test_del_leaves_what_the_real_one_leaves(case: str) -> None:
    """DEL, DEL again, DEL without a namespace: silent; only the bridge and shared chains stay."""
    _, world, _ = _started(case)
    pods, gone = open_case("cni-flannel", f"{case}.pods"), open_case("cni-flannel", f"{case}.del")
    conf, runtime = parse(json.dumps(pods["conflist"])), Recording(world.network, "node-1")
    links = list(runtime.node.links)
    for pod in ("pod-11", "pod-12"):
        given = pods["pods"][pod]["steps"][-1]["stdin"].get("runtimeConfig")
        runtime.add(conf, pod, sandbox(world.network, "node-1", pod), capabilities=given)
    before = state(runtime.node)
    runtime.inputs.clear()
    runtime.delete(conf, "pod-11", "/run/netns/pod-11")
    assert [name for name, _ in runtime.inputs] == [step["plugin"] for step in gone["DEL pod-11"]]
    runtime.delete(conf, "pod-11", "/run/netns/pod-11")
    runtime.remove_sandbox("/run/netns/pod-12")
    runtime.delete(conf, "pod-12", "/run/netns/pod-12")
    assert files_of(runtime.node) == gone["files_after"]
    node = runtime.node
    assert list(node.links) == [*links, "cni0"]
    after = state(node)
    for key in ("iptables_save", "ip6tables_save", "nft"):
        lost = [
            line for line in gone["node_diff"].get(key, {"-": []})["-"] if "pod-1" in line or "CNI-DN" in line
        ]
        assert lost == [line for line in before[key] if line not in after[key]], key
    bridge = next(link for link in gone["node_diff"]["link"]["+"] if link["ifname"] == "cni0")
    assert (node.link("cni0").mtu, node.link("cni0").carrier) == (
        bridge["mtu"],
        "LOWER_UP" in bridge["flags"],
    )


def ping(world: World, command: str) -> int:
    """Send what a recorded ping sent (`[netns] pod-11 ping -M do -c1 -s 1300 10.244.1.2`); return its exit status."""
    words = command.removeprefix("[netns] ").split()
    size = int(words[words.index("-s") + 1]) if "-s" in words else 56
    target = words[-1]
    kind = (ICMPV6, 128) if ":" in target else (ICMP, 8)
    packet = Packet("", target, kind[0], icmp_type=kind[1], icmp_seq=1, payload_size=size)
    done = exchange(Walk(world.network), words[0], packet, pmtudisc="do" if "do" in words else "want")
    return 0 if done.verdict == "answered" else 1


def _pings(body: Any) -> list[tuple[str, int]]:
    """Every recorded ping of a document, in order."""
    if isinstance(body, dict):
        if "ping " in str(body.get("cmd", "")) and "exit" in body:
            return [(body["cmd"], body["exit"])]
        return [found for value in body.values() for found in _pings(value)]
    return [found for item in body for found in _pings(item)] if isinstance(body, list) else []


def _with_pods(world: World, conflist: str) -> None:
    """The recording's pods: two on node-1, one on each other node; the router answers too."""
    router = world.network.ns("router")
    router.add_address("eth0", "fd00:192:168:1::1/64")
    router.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    for pod in ("pod-11", "pod-12", "pod-21", "pod-31"):
        host = f"node-{pod[4]}"
        Runtime(world.network, host).add(parse(conflist), pod, sandbox(world.network, host, pod))


TRAFFIC = [name.removesuffix(".traffic") for name in cases("cni-flannel") if name.endswith(".traffic")]


@pytest.mark.parametrize("case", TRAFFIC)
def test_pings_end_as_the_real_ones(case: str) -> None:
    """Same node, other node, node to pod, nobody's address, too big with and without fragments, both families."""
    _, world, _ = _started(case)
    _with_pods(world, json.dumps(open_case("cni-flannel", f"{case}.pods")["conflist"]))
    sent = _pings(open_case("cni-flannel", f"{case}.traffic"))
    assert len(sent) > 8
    assert [(command, ping(world, command)) for command, _ in sent] == sent


@pytest.mark.parametrize("case", ["far-hostgw", "far-vxlan"])
def test_a_node_behind_the_router(case: str) -> None:
    """host-gw cannot reach it, logs that, and goes on; vxlan can."""
    far = open_case("cni-flannel", case)
    world = World(far["net-conf.json"], cidrs={"node-1": "0", "node-2": "1", "node-3": "4"}, far=True)
    _with_pods(world, CONFLIST)
    masks = Masks()
    for name, routes in far["routes"].items():
        ours = [item for item in state(world.network.ns(name))["route"] if item["dst"]]
        masks.match(recorded_state({"route": routes})["route"], ours, name)
    for name, lines in far["subnet_env"].items():
        assert world.network.ns(name).files["/run/flannel/subnet.env"].splitlines() == lines
    errors = [line for line in far["log_node-1"] if line.startswith("E ") and "route" in line]
    ours = [line for line in world.agents["node-1"].log if line.startswith("E ")]
    assert ours == list(dict.fromkeys(errors))
    sent = _pings(far)
    assert [(command, ping(world, command)) for command, _ in sent] == sent


def test_a_node_that_joins_costs_the_others_three_entries() -> None:
    """One route, one neighbour, one FDB entry a node, and they go when the Node goes; its own state stays."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    three = world.tunnel("node-1")
    assert len(three) == 6
    left = world.nodes.pop("node-3")
    own = world.tunnel("node-3")
    world.settle()
    assert len(world.tunnel("node-1")) == 3
    assert world.tunnel("node-3") == own
    world.nodes["node-3"] = left
    world.settle()
    assert world.tunnel("node-1") == three


def test_what_is_deleted_by_hand_stays_deleted_until_a_restart() -> None:
    """As recorded in vxlan: only a restart, or a lease event, writes routes and entries again."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    whole, ns = world.tunnel("node-1"), world.network.ns("node-1")
    rules = state(ns)["iptables_save"]
    ns.delete_route("10.244.1.0/24")
    ns.delete_fdb("flannel.1", next(e.mac for es in ns.fdb.values() for e in es if e.dst == "192.168.1.20"))
    world.settle()
    assert len(world.tunnel("node-1")) == 4
    mac = ns.link("flannel.1").mac
    ns.delete_link("flannel.1")
    world.settle()
    assert ns.link("flannel.1").mac == mac
    assert world.tunnel("node-1") == []
    world.agents["node-1"] = Agent(world.network, "node-1", world.conf)
    world.settle()
    assert world.tunnel("node-1") == whole
    assert state(ns)["iptables_save"] == rules


def test_setting_the_tunnel_down_and_up_loses_routes_and_keeps_fdb() -> None:
    """`ip link set flannel.1 down; ip link set flannel.1 up`, as recorded."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    ns = world.network.ns("node-1")
    ns.set_link("flannel.1", up=False)
    ns.set_link("flannel.1", up=True)
    world.settle()
    assert [row.split()[1] for row in world.tunnel("node-1")] == ["dev", "dev"]
    assert len([e for entries in ns.fdb.values() for e in entries if e.dst]) == 2


def test_public_ip_overwrite_moves_the_other_nodes_entries() -> None:
    """The annotation wins over the interface's address after that node's daemon restarts."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    node = world.nodes["node-2"]
    notes = {**node.metadata.annotations, PREFIX + "public-ip-overwrite": "192.168.1.99"}
    world.nodes["node-2"] = node.with_metadata(annotations=notes)
    world.agents["node-2"] = Agent(world.network, "node-2", world.conf)
    world.settle()
    ns = world.network.ns("node-1")
    assert sorted(e.dst for entries in ns.fdb.values() for e in entries if e.dev == "flannel.1") == [
        "192.168.1.30",
        "192.168.1.99",
    ]


def test_a_settled_world_writes_nothing() -> None:
    """Reconciling is idempotent."""
    world = World({"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}})
    assert world.settle() == 0


PARSING = "Failed to create SubnetManager: error parsing subnet config: "


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ("{", f"{PARSING}unexpected end of JSON input"),
        ("[]", f"{PARSING}json: cannot unmarshal array into Go value of type subnet.Config"),
        ({"Network": "10.244.0.0/99"}, f"{PARSING}invalid CIDR address: 10.244.0.0/99"),
        ({"Network": 5}, f"{PARSING}invalid CIDR address: 5"),
        ({"IPv6Network": "fd00::/129"}, f"{PARSING}invalid CIDR address: fd00::/129"),
        (
            {"EnableIPv4": "no"},
            f"{PARSING}json: cannot unmarshal string into Go struct field Config.EnableIPv4 of type bool",
        ),
        (
            {"Backend": "vxlan"},
            f"{PARSING}error decoding Backend property of config: json: cannot unmarshal string into Go value "
            "of type struct { Type string }",
        ),
        (
            {"Backend": {"Type": "vxlan", "VNI": "one"}},
            "Error registering network: error decoding VXLAN backend config: json: cannot unmarshal string into Go "
            "struct field .VNI of type int",
        ),
    ],
)
def test_a_bad_net_conf_is_refused(conf: Any, says: str) -> None:
    """In flanneld's words, which name the value."""
    with pytest.raises(InputError) as fault:
        load(conf)
    assert str(fault.value) == says


def test_without_a_backend_it_is_udp() -> None:
    assert load("{}").backend.type == load("null").backend.type == "udp"
    assert load({"Backend": {"VNI": 5}}).backend.type == ""


def test_a_node_without_pod_cidr_ends_the_daemon() -> None:
    """It logs why, exits with 1, and has announced its VTEP by then."""
    network = Network()
    node = default_nodes(1)[0]
    build_node(network, node.name, "192.168.1.10/24")
    agent = Agent(network, "node-1")
    [half] = agent.reconcile([node])
    assert agent.exited == 1
    assert agent.log[-2] == (
        'E main.go:383] Error registering network: failed to acquire lease: node "node-1" pod cidr not assigned'
    )
    assert half.metadata.annotations[PREFIX + "backend-type"] == "vxlan"
    assert "/run/flannel/subnet.env" not in network.ns("node-1").files
    assert agent.reconcile([node.with_pod_cidrs(("10.244.0.0/24",))]) == []


def test_results_read_back() -> None:
    """`Result.from_json` and `to_json` are inverse for every version that has interfaces."""
    body = open_case("cni-flannel", "vxlan-ipv4.pods")["pods"]["pod-11"]["steps"][0]["stdout"]
    for version in ("0.3.1", "0.4.0", "1.0.0", "1.1.0"):
        text = Result.from_json(body).to_json(version)
        assert Result.from_json(text) == Result.from_json(body)
