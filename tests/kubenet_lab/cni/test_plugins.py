"""bridge, host-local, portmap, loopback: results, errors and state equal the real plugins'."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.plugin import VERSIONS, CniError, add_lines, decode
from kubenet_lab.cni.runtime import parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.network import Network
from tests.oracles import cases, open_case

from .recorded import Masks, Recording, added, compare, files_of, outcome, recorded_state, sandbox, state

NOT_MODELLED = {
    "bridge-ipmasq-nftables": 'ipMasqBackend "nftables" is not modelled',
    "bridge-macspoofchk": "macspoofchk is not modelled",
    "bridge-vlan": "vlan is not modelled",
    "portmap-dual-stack-nft": "backend nftables is not modelled",
}
"""Recorded cases the plugins refuse, with what they say."""


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
}
"""Port mappings of the recorded cases, read off their rules."""

ARGS = {"host-local-cni-args-ip": "IgnoreUnknown=1;IP=10.22.0.88"}
CASES = [
    name
    for prefix in ("bridge-", "host-local-", "portmap-", "loopback")
    for name in cases("cni-plugins", prefix)
]


def _host(case: dict[str, Any]) -> tuple[Network, Recording]:
    network = Network()
    node = build_node(network, "node-1", "192.168.1.10/24", sysctls={})
    if "dns" in json.dumps(case["pods"]):
        node.files["/run/rc"] = "nameserver 1.2.3.4\nsearch a.b c.d\ndomain d.e\noptions ndots:5\n"
    if "KUBE-MARK-MASQ" in json.dumps(case["conflist"]):
        add_lines(
            node, 4, "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\nCOMMIT\n"
        )
    return network, Recording(network, "node-1")


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_MODELLED])
def test_add_check_and_del_equal_the_recording(name: str) -> None:
    """Every pod of a case in order; then CHECK of the first, DEL, and DEL again."""
    case = open_case("cni-plugins", name)
    network, runtime = _host(case)
    node, masks, conf = runtime.node, Masks(), parse(json.dumps(case["conflist"]))
    given: dict[str, Any] = {}
    for number, (pod, body) in enumerate(case["pods"].items(), 1):
        path, before, files = sandbox(network, "node-1", pod), state(node), files_of(node)
        given[pod] = dict(body["stdin_first"].get("runtimeConfig", {}))
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
        diff = {key: value["+"] for key, value in body["host_diff"].items() if key != "neigh"}
        new = added(before, state(node))
        for key, value in new.items():
            assert not value or key in diff, f"{pod}: {key} changed to {value}, the real one left it alone"
        compare(masks, recorded_state(diff), new, f"{pod}.host")
        changed = {path: text for path, text in files_of(node).items() if files.get(path) != text}
        if name != "loopback":
            masks.match(body["files"], changed, f"{pod}.files")
    for key, (_, value) in case["sysctl_changed"].items():
        assert node.sysctl(key) == value
    masks.check_distinct()
    _check_and_delete(name, case, runtime, masks, next(iter(given.values())))


def _check_and_delete(
    name: str, case: dict[str, Any], runtime: Recording, masks: Masks, given: dict[str, Any]
) -> None:
    conf, node = parse(json.dumps(case["conflist"])), runtime.node
    pod = next(iter(case["pods"]))
    failed = [step["stdout"]["msg"] for step in case["CHECK"] if step["exit"]]
    if failed:
        with pytest.raises(CniError) as caught:
            runtime.check(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
        assert [caught.value.msg] == failed
    else:
        runtime.check(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
    before = state(node)
    runtime.delete(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
    runtime.delete(conf, pod, f"/run/netns/{pod}", args=ARGS.get(name, ""))
    assert [link.name for link in runtime.network.ns(pod).links.values()] == [
        i["ifname"] for i in case["netns_after_DEL"]
    ]
    masks.match(case["files_after_DEL"], files_of(node), "files after DEL")
    gone = added(state(node), before)
    recorded = {key: value["-"] for key, value in case["DEL_host_diff"].items() if key != "neigh"}
    # The bridge's own route is in the recording when `linkdown` was already noticed; it depends on the
    # moment.
    recorded["route6"] = [item for item in recorded.get("route6", []) if item["dev"] != "cni0"]
    for key in ("fdb", "route6", "iptables_save"):
        masks.match(recorded_state({key: recorded.get(key, [])})[key], gone[key], f"gone {key}")


@pytest.mark.parametrize("name", NOT_MODELLED)
def test_what_is_not_modelled_says_so(name: str) -> None:
    """A key that is not modelled fails the ADD; it is never ignored."""
    case = open_case("cni-plugins", name)
    network, runtime = _host(case)
    with pytest.raises(CniError, match=NOT_MODELLED[name]):
        runtime.add(
            parse(json.dumps(case["conflist"])),
            "pod-1",
            sandbox(network, "node-1", "pod-1"),
            capabilities={"portMappings": _two(1)},
        )


def test_every_recorded_case_is_covered() -> None:
    """A case that loses its recording, or a refused one that is gone, is noticed."""
    assert set(NOT_MODELLED) <= set(CASES)
    assert set(PORTS) <= set(CASES)


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


ERROR_PLUGINS = ("bridge", "host-local", "flannel", "loopback", "portmap")


def test_errors_equal_the_recording() -> None:
    """Every recorded call in order, on one host: exit status and text, and what a failed ADD left behind."""
    recorded = open_case("cni-plugins", "errors")
    network = Network()
    node = build_node(network, "node-1", sysctls={})
    runtime, masks = Recording(network, "node-1"), Masks()
    for name in ("e1", "e2"):
        sandbox(network, "node-1", name)
    run = 0
    for name, row in recorded.items():
        if not isinstance(row, dict) or row.get("plugin") not in ERROR_PLUGINS or name in SKIPPED:
            continue
        env = row["env"]
        path = env["CNI_NETNS"] or ""
        if path.startswith("/run/netns/x") and path not in node.files:
            sandbox(network, "node-1", path.rpartition("/")[2])
        _by_hand(name, network)
        if isinstance(row["stdin"], str):
            with pytest.raises(CniError) as caught:
                decode(row["stdin"])
            assert caught.value.code == row["stdout"]["code"]
            continue
        len(node.links)
        status, answer = outcome(
            runtime,
            row["command"],
            row["plugin"],
            container_id=env["CNI_CONTAINERID"] or "",
            netns=path,
            ifname=env["CNI_IFNAME"] or "",
            args=CNI_ARGS.get(name, ""),
            conf=masks.fill(row["stdin"]),
        )
        if row["command"] != "VERSION":
            assert status == row["exit"], f"{name}: {answer}"
            if name in OWN_WORDS:
                answer = {**row["stdout"], "code": answer["code"]} if isinstance(answer, dict) else answer
            masks.match(row["stdout"], answer, name)
        if row.get("left_in_netns") is not None:
            inside = [dev for dev in network.ns(node.files[path]).links if dev != "lo"]
            assert inside == row["left_in_netns"], name
        run += 1
    assert run > 90
    assert recorded["VERSION bridge"]["stdout"]["supportedVersions"] == list(VERSIONS)


SKIPPED = {
    "no command": "prints its help on standard error; a Call always has a command",
    "static bad address": "the static plugin is not there yet",
    "static no mask": "the static plugin is not there yet",
    "static empty": "the static plugin is not there yet",
    "unset all": "names CNI_PATH, which a Call has no need of",
}
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
