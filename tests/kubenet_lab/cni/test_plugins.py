"""bridge, host-local, portmap, loopback: results, errors and state equal the real plugins'."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.plugin import CniError, Interface, Ip, Result, RouteEntry, add_lines
from kubenet_lab.cni.process import run_process
from kubenet_lab.cni.runtime import parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import mac_from
from tests.oracles import cases, open_case

from .recorded import (
    Masks,
    Recording,
    added,
    compare,
    files_of,
    outcome,
    qdiscs,
    recorded_qdiscs,
    recorded_state,
    sandbox,
    state,
)

LACKS = frozenset({"vlan_filtering", "dummy", "ipvlan", "vlan", "vrf"})
"""What the recorded machine's kernel was built without."""


def _two(number: int) -> list[dict[str, Any]]:
    return [
        {"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5300 + number, "containerPort": 53, "protocol": "udp"},
    ]


def _limited(number: int) -> list[dict[str, Any]]:
    return [
        {"hostPort": 81, "containerPort": 80, "protocol": "tcp", "hostIP": "192.168.1.10"},
        {"hostPort": 82, "containerPort": 80, "protocol": "sctp"},
        {"hostPort": 83, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
    ]


PORTS = {
    "portmap-iptables": _two,
    "portmap-default-backend": _two,
    "portmap-nosnat": _two,
    "portmap-markbit-conditions": _two,
    "portmap-external-chain": _two,
    "portmap-hostip-sctp": _limited,
    "portmap-dual-stack": _two,
    "portmap-dual-stack-nft": _two,
    "chain-full": _two,
}
"""Port mappings of the recorded cases, read off their rules."""

GIVEN: dict[str, dict[str, Any]] = {
    "bandwidth-capability": {"bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 80_000}},
    "tuning-mac-capability": {"mac": "02:00:00:00:00:77"},
}
"""Capability arguments of recorded cases, read off what they did."""

ARGS = {"host-local-cni-args-ip": "IgnoreUnknown=1;IP=10.22.0.88"}
CASES = [name for name in cases("cni-plugins") if name != "errors"]


def _host(case: dict[str, Any]) -> tuple[Network, Recording]:
    network = Network()
    network.lacks = LACKS
    node = build_node(network, "node-1", "192.168.1.10/24", sysctls={})
    if "veth-hd" in case.get("pre", ""):
        macs = {f"mac_{side}": mac_from("node-1", f"veth-{side}") for side in "ab"}
        network.add_veth("node-1", "veth-hd", "node-1", "veth-hp", **macs)
        node.set_link("veth-hp", up=True)
    if "dns" in json.dumps(case["pods"]):
        node.files["/run/rc"] = "nameserver 1.2.3.4\nsearch a.b c.d\ndomain d.e\noptions ndots:5\n"
    if "KUBE-MARK-MASQ" in json.dumps(case["conflist"]):
        add_lines(
            node, 4, "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\nCOMMIT\n"
        )
    return network, Recording(network, "node-1")


@pytest.mark.parametrize("name", CASES)
def test_add_check_and_del_equal_the_recording(name: str) -> None:
    """Every pod of a case in order; then CHECK of the first, DEL, and DEL again."""
    case = open_case("cni-plugins", name)
    network, runtime = _host(case)
    node, masks = runtime.node, Masks()
    if name == "tuning":
        masks.bound["<MAC4>"] = "02:00:00:00:00:77"
    conf = parse(json.dumps(masks.fill(case["conflist"])))
    given: dict[str, Any] = {}
    for number, (pod, body) in enumerate(case["pods"].items(), 1):
        path, before, files = sandbox(network, "node-1", pod), state(node), files_of(node)
        given[pod] = dict(body["stdin_first"].get("runtimeConfig", {})) | GIVEN.get(name, {})
        if name in PORTS:
            given[pod]["portMappings"] = PORTS[name](number)
        last = body["ADD"][-1]
        try:
            result = runtime.add(conf, pod, path, args=ARGS.get(name, ""), capabilities=given[pod])
            said: Any = result.to_json(conf.version)
        except CniError as fault:
            cause = fault.__cause__
            assert isinstance(cause, CniError)
            said = cause.to_json()
        masks.match(last["stdout"], said, f"{pod}.ADD")
        inside = recorded_state(body["netns"])
        compare(masks, inside, {**state(network.ns(pod)), "fdb": inside.get("fdb", [])}, pod)
        done = [step["stdout"] for step in body["ADD"] if not step["exit"]]
        if last["exit"] and done:  # the recording went on to CHECK with what the plugins before had said
            masks.match(
                done[-1]["ips"], [{"address": "10.22.0.2/24", "gateway": "10.22.0.1", "interface": 2}], pod
            )
            runtime.remember(conf, pod, "eth0", _bridged(node, network.ns(pod)))
        diff = {key: value["+"] for key, value in body["host_diff"].items() if key != "neigh"}
        if name.startswith("macvlan"):
            _cable_only(body["host_diff"])
        new = added(before, state(node))
        for key, value in new.items():
            assert not value or key in diff, f"{pod}: {key} changed to {value}, the real one left it alone"
        compare(masks, recorded_state(diff), new, f"{pod}.host")
        changed = {path: text for path, text in files_of(node).items() if files.get(path) != text}
        masks.match(recorded_qdiscs(body["host_qdisc"]), qdiscs(node), f"{pod}.qdisc")
        if name != "loopback":
            masks.match(body["files"], changed, f"{pod}.files")
    for key, (_, value) in case["sysctl_changed"].items():
        assert node.sysctl(key) == value
    masks.check_distinct()
    _check_and_delete(name, case, runtime, masks, next(iter(given.values())))


def _bridged(node: Netns, inside: Netns) -> Result:
    """The result of the bridge plugin, read off the state it left."""
    [port] = node.ports("cni0")
    links = (
        Interface("cni0", node.link("cni0").mac),
        Interface(port.name, port.mac),
        Interface("eth0", inside.link("eth0").mac, f"/run/netns/{inside.name}"),
    )
    return Result(links, (Ip("10.22.0.2/24", "10.22.0.1", 2),), (RouteEntry("0.0.0.0/0"),))


def _cable_only(diff: dict[str, Any]) -> None:
    """Forget that the cable's promiscuity counter went up: it was a veth there, which cannot filter MACs itself."""
    links = diff.get("link", {"+": [], "-": []})
    for one in links["+"]:
        [before] = [item for item in links["-"] if item["ifname"] == one["ifname"]]
        assert {k: v for k, v in one.items() if k != "promiscuity"} == {
            k: v for k, v in before.items() if k != "promiscuity"
        }
        assert one["promiscuity"] == before["promiscuity"] + 1
    links["+"].clear()


def _check_and_delete(
    name: str, case: dict[str, Any], runtime: Recording, masks: Masks, given: dict[str, Any]
) -> None:
    conf, node = parse(json.dumps(masks.fill(case["conflist"]))), runtime.node
    pod = next(iter(case["pods"]))
    failed = [step["stdout"]["msg"] for step in case["CHECK"] if step["exit"]]
    if conf.version == "0.3.1":  # the runtime does not even ask
        assert failed == ["config version does not allow CHECK"]
        failed = ['configuration version "0.3.1" does not support CHECK command']
    if failed:
        with pytest.raises(CniError) as caught:
            runtime.check(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
        assert [caught.value.msg] == failed
    else:
        runtime.check(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
    before = state(node)
    for command in ("DEL", "DEL_again"):
        failed = [step["stdout"]["msg"] for step in case[command] if step["exit"]]
        said = None
        try:
            runtime.delete(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
        except CniError as fault:
            said = fault.__cause__
        assert [said.msg] == failed if isinstance(said, CniError) else failed == []
    assert [link.name for link in runtime.network.ns(pod).links.values()] == [
        i["ifname"] for i in case["netns_after_DEL"]
    ]
    masks.match(case["files_after_DEL"], files_of(node), "files after DEL")
    gone = added(state(node), before)
    recorded = {key: value["-"] for key, value in case["DEL_host_diff"].items() if key != "neigh"}
    # The bridge's own route is in the recording when `linkdown` was already noticed; it depends on the
    # moment.
    recorded["route6"] = [
        item for item in recorded.get("route6", []) if item["dev"] not in ("cni0", "veth-hp")
    ]
    for key in ("fdb", "route6", "iptables_save", "ip6tables_save", "nft"):
        masks.match(recorded_state({key: recorded.get(key, [])})[key], gone[key], f"gone {key}")


def test_every_recorded_case_is_covered() -> None:
    """A case that loses its recording is noticed."""
    assert set(PORTS) <= set(CASES)
    assert len(CASES) == 56


def test_host_local_hands_out_addresses_in_the_recorded_order() -> None:
    """Round robin from the last reserved address; a freed one waits until the range has wrapped."""
    case = open_case("cni-plugins", "errors")["host-local /29 sequence"]
    network = Network()
    build_node(network, "node-1")
    runtime = Recording(network, "node-1")
    conf = {
        "cniVersion": "1.0.0",
        "name": "net1",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": case["subnet"]}]]},
    }
    for command, container, code, said in case["steps [cmd, id, exit, address or error]"]:
        status, answer = outcome(
            runtime,
            command,
            "host-local",
            container_id=container,
            netns="/run/netns/x",
            ifname="eth0",
            conf=conf,
        )
        address = answer["ips"][0]["address"] if isinstance(answer, dict) and "ips" in answer else answer
        assert (status, address) == (code, said), container
    assert files_of(runtime.node) == case["files"]


def test_errors_equal_the_recording() -> None:
    """Every recorded process in order, on one host: exit status and output, and what a failed ADD left behind."""
    recorded = open_case("cni-plugins", "errors")
    network = Network()
    network.lacks = LACKS
    node = build_node(network, "node-1", "192.168.1.10/24", sysctls={})
    runtime, masks = Recording(network, "node-1"), Masks()
    for name in ("e1", "e2"):
        sandbox(network, "node-1", name)
    run = 0
    for name, row in recorded.items():
        if not isinstance(row, dict) or "plugin" not in row:
            continue
        path = row["env"].get("CNI_NETNS") or ""
        if path.startswith("/run/netns/x") and path not in node.files:
            sandbox(network, "node-1", path.rpartition("/")[2])
        _by_hand(name, network)
        environment = {key: value for key, value in row["env"].items() if value is not None}
        environment["CNI_COMMAND"] = row["command"]
        environment["CNI_ARGS"] = CNI_ARGS.get(name, "")
        if name != "unset all":
            environment["CNI_PATH"] = "/opt/cni/bin"
        stdin = row["stdin"] if isinstance(row["stdin"], str) else json.dumps(masks.fill(row["stdin"]))
        done = run_process(
            runtime.plugins[row["plugin"]],
            environment,
            stdin,
            network=network,
            host="node-1",
            run=runtime.run,
        )
        assert done.exit == row["exit"], f"{name}: {done}"
        answer = json.loads(done.stdout) if done.stdout else ""
        if name in OWN_WORDS:
            answer = {**row["stdout"], "code": answer["code"]}
        masks.match(row["stdout"], answer, name)
        if name == "no command":
            assert done.stderr.strip() == row["stderr"]
        if row.get("left_in_netns") is not None:
            inside = [dev for dev in network.ns(node.files[path]).links if dev != "lo"]
            assert inside == row["left_in_netns"], name
        run += 1
    assert run == len(recorded) - 1


CNI_ARGS = {
    "requested IP outside": "IgnoreUnknown=1;IP=10.99.0.1",
    "requested IP bad": "IgnoreUnknown=1;IP=foo",
    "requested IP is gateway": "IgnoreUnknown=1;IP=10.22.0.1",
    "CNI_ARGS IP without IgnoreUnknown": "IP=10.22.0.88",
    "unknown CNI_ARGS": "FOO=bar",
    "malformed CNI_ARGS": "FOO",
}
"""CNI_ARGS of those rows that had some; the recording keeps their answers only."""
OWN_WORDS = ("portmap bad protocol", "portmap port 70000")
"""Refused by the iptables program there and by our reader here: the same end in other words."""


def _by_hand(name: str, network: Network) -> None:
    """Do what was done on the recorded machine between two calls."""
    if name == "CHECK address removed by hand":
        network.ns("e1").delete_address("eth0", "10.22.0.12/24")
    if name == "CHECK link removed by hand":
        network.ns("e1").delete_link("eth0")
