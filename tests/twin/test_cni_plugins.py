"""Debian's CNI executables in a namespace of the kernel leave the state, and say the words, of the model's plugins.

The same chain runs on both sides: the real one as processes (environment, standard input), each getting the result of
the one before, on a twin of the model's machine. Real veth names and MACs are random; the results say which of ours
they are. Where this kernel lacks a link kind, both sides must refuse it alike.

`KUBENET_CNI_ALL=1` runs every case; by default a sample of them does, one a plugin.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import Runtime, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.course.lessons import nb03
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.twin import Twin
from kubenet_lab.twin.executables import STORE, RealChain, mapped, of_kernel, of_model, renamed
from kubenet_lab.twin.plan import file_name
from kubenet_lab.twin.readback import State
from tests.kubenet_lab.cni.recorded import qdiscs, recorded_qdiscs
from tests.kubenet_lab.cni.test_fields import ROWS, bridge

BIN = Path("/usr/lib/cni")

Json = dict[str, Any]


def ipam(*subnets: str, routes: bool = True, **more: Any) -> Json:
    found: Json = {"type": "host-local", "dataDir": STORE, "ranges": [[{"subnet": s}] for s in subnets]}
    if routes:
        found["routes"] = [{"dst": "::/0" if ":" in s else "0.0.0.0/0"} for s in subnets]
    return found | more


BRIDGE: Json = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam("10.22.0.0/24")}
PORTS = [
    {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
    {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
]
STATIC = {
    "type": "static",
    "addresses": [{"address": "10.22.0.50/24", "gateway": "10.22.0.1"}],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.50.0/24", "gw": "10.22.0.9"}],
}

BOTH = ("10.22.0.0/24", "fd00:22::/64")
MACVLAN: Json = {"type": "macvlan", "master": "eth0", "ipam": ipam("192.168.1.0/24")}
TUNING: Json = {
    "type": "tuning",
    "sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "2"},
    "mtu": 1300,
    "mac": "02:00:00:00:00:77",
}
BANDWIDTH: Json = {
    "type": "bandwidth",
    "ingressRate": 1_000_000,
    "ingressBurst": 80_000,
    "egressRate": 2_000_000,
    "egressBurst": 160_000,
}

CASES: dict[str, tuple[list[Json], Json]] = {
    "bridge": ([BRIDGE], {}),
    "bridge, masquerade and hairpin": ([{**BRIDGE, "ipMasq": True, "hairpinMode": True}], {}),
    "bridge, no gateway": ([{**BRIDGE, "isGateway": False}], {}),
    "bridge, no IPAM": ([{"type": "bridge", "bridge": "cni0", "ipam": {}}], {}),
    "bridge, promiscuous, small MTU": ([{**BRIDGE, "promiscMode": True, "mtu": 1400}], {}),
    "bridge, default gateway, both families": (
        [{**BRIDGE, "isDefaultGateway": True, "ipMasq": True, "ipam": ipam(*BOTH, routes=False)}],
        {},
    ),
    "bridge, hairpin and promiscuous": ([{**BRIDGE, "hairpinMode": True, "promiscMode": True}], {}),
    "bridge, static": ([{**BRIDGE, "ipam": STATIC}], {}),
    "bridge, VLAN": ([{**BRIDGE, "vlan": 100}], {}),
    "bridge, unknown IPAM": ([{**BRIDGE, "ipam": {"type": "nosuch"}}], {}),
    "bridge, range too small": ([{**BRIDGE, "ipam": ipam("10.22.0.0/31")}], {}),
    "ptp": ([{"type": "ptp", "ipMasq": True, "ipam": ipam("10.22.0.0/24")}], {}),
    "ptp, both families": ([{"type": "ptp", "mtu": 1400, "ipam": ipam("10.22.0.0/24", "fd00:22::/64")}], {}),
    "portmap": ([BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}], {"portMappings": PORTS}),
    "portmap, both families": (
        [
            {**BRIDGE, "ipam": ipam("10.22.0.0/24", "fd00:22::/64")},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
        {"portMappings": PORTS},
    ),
    "firewall": ([BRIDGE, {"type": "firewall", "backend": "iptables"}], {}),
    "firewall, same bridge only": (
        [BRIDGE, {"type": "firewall", "backend": "iptables", "ingressPolicy": "same-bridge"}],
        {},
    ),
    "tuning": (
        [BRIDGE, TUNING],
        {},
    ),
    "tuning, unknown sysctl": ([BRIDGE, {"type": "tuning", "sysctl": {"net.nope.x": "1"}}], {}),
    "bandwidth": (
        [BRIDGE, BANDWIDTH],
        {},
    ),
    "bandwidth, no burst": ([BRIDGE, {"type": "bandwidth", "ingressRate": 1000}], {}),
    "source based routing": ([{"type": "ptp", "ipam": ipam("10.22.0.0/24")}, {"type": "sbr"}], {}),
    "macvlan": ([MACVLAN], {}),
    "macvlan, private": ([{**MACVLAN, "mode": "private"}], {}),
    "macvlan, no master": ([{**MACVLAN, "master": "nope0"}], {}),
    "macvlan, MTU above the wire's": ([{**MACVLAN, "mtu": 9000}], {}),
    "ipvlan": ([{"type": "ipvlan", "master": "eth0", "ipam": ipam("10.22.0.0/24")}], {}),
    "vlan": ([{"type": "vlan", "master": "eth0", "vlanId": 5, "ipam": ipam("10.22.0.0/24")}], {}),
    "vrf": ([BRIDGE, {"type": "vrf", "vrfname": "blue"}], {}),
    "host-device": ([{"type": "host-device", "device": "spare0", "ipam": ipam("10.22.0.0/24")}], {}),
    "host-device, missing": ([{"type": "host-device", "device": "nope0", "ipam": ipam("10.22.0.0/24")}], {}),
    "loopback": ([{"type": "loopback"}], {}),
}  # fmt: skip


STRICTER_DEL = ("macvlan, no master", "macvlan, MTU above the wire's")
"""Debian's version (1.1.1) looks at the master for DEL as well and fails; ours is 1.9.1."""


def machine() -> Network:
    """A node with a spare veth pair, and an empty container."""
    network = Network()
    node = build_node(network, "node-1")
    network.add_veth(
        "node-1",
        "spare0",
        "node-1",
        "spare1",
        mac_a=mac_from("node-1", "spare0"),
        mac_b=mac_from("node-1", "spare1"),
    )
    network.add_netns("c1", "node-1")
    node.files[f"/run/netns/{file_name('c1')}"] = "c1"
    return network


@pytest.fixture(scope="module")
def executables(kernel: None) -> None:
    if not (BIN / "bridge").exists():
        pytest.skip("Debian's containernetworking-plugins are not installed")


SAMPLE = (
    "bridge, masquerade and hairpin",
    "bridge, default gateway, both families",
    "bridge, unknown IPAM",
    "ptp",
    "portmap, both families",
    "firewall",
    "tuning",
    "bandwidth",
    "source based routing",
    "macvlan",
    "vlan",
    "host-device",
    "loopback",
)


@pytest.mark.parametrize("name", CASES if os.environ.get("KUBENET_CNI_ALL") == "1" else SAMPLE)
def test_the_real_plugins_leave_what_ours_leave(name: str, executables: None) -> None:
    """ADD, then DEL: results, errors, and everything both namespaces hold."""
    plugins, capabilities = CASES[name]
    network = machine()
    path = f"/run/netns/{file_name('c1')}"
    with Twin(machine()) as twin:
        real = RealChain(
            twin,
            plugins,
            folder=BIN,
            ifname="lo" if plugins[0]["type"] == "loopback" else "eth0",
            capabilities=capabilities,
        )
        error = real.add()
        if error is not None and "operation not supported" in error["msg"]:
            network.lacks = frozenset({"ipvlan", "vlan", "vrf", "vlan_filtering"})
        runtime = Runtime(network, "node-1")
        conf = parse(json.dumps({"cniVersion": "1.0.0", "name": "net1", "plugins": plugins}))
        ours: Json | None = None
        said: Json | None = None
        fault: BaseException | None = None
        try:
            ours = runtime.add(conf, "c1", path, ifname=real.ifname, capabilities=capabilities).to_json(
                "1.0.0"
            )
        except CniError as raised:
            fault = raised.__cause__
        if isinstance(fault, CniError):
            said = json.loads(json.dumps(fault.to_json()).replace("/opt/cni/bin", str(BIN)))
        assert (error and {**error, "msg": error["msg"].rstrip(".")}) == said
        names: dict[str, str] = {}
        if ours is not None and real.result is not None:
            names = renamed(real.result, ours)
            assert mapped(real.result, names) == ours
        elif error is not None:
            names = _by_order(twin.read("node-1"), network.ns("node-1")) | _by_order(
                twin.read("c1"), network.ns("c1")
            )
        for ns in ("node-1", "c1"):
            assert of_kernel(twin.read(ns), names) == of_model(network.ns(ns)), ns
        if "bandwidth" in name and ours is not None:
            shown = json.loads(twin.run("node-1", "tc -j qdisc").stdout)
            assert mapped(recorded_qdiscs(shown), names) == qdiscs(network.ns("node-1"))
        status = real.delete()
        failed = 0
        try:
            runtime.delete(conf, "c1", path, ifname=real.ifname)
        except CniError:
            failed = 1
        assert status == (1 if name in STRICTER_DEL else failed)
        for ns in ("node-1", "c1"):
            assert of_kernel(twin.read(ns), names) == of_model(network.ns(ns)), f"{ns} after DEL"


def test_what_the_real_plugins_say_of_values_of_the_wrong_kind(executables: None) -> None:
    with Twin(machine()) as twin:
        for body, said in ROWS:
            chain = RealChain(twin, [body], folder=BIN)
            assert chain.call("ADD", body) == (1, {"code": 999, "msg": said})
            chain.call("DEL", LEFT)


LEFT = bridge()
"""What clears what a failed ADD of bridge left."""
SOLVED = Path(__file__).parents[1] / "kubenet_lab" / "course" / "solved.json"


@pytest.mark.parametrize("whose", ["The conflist of this notebook", "Your conflist"])
def test_the_notebook_runs_the_real_plugins(
    whose: str, executables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cell of notebook 03 really executes them, and both sides left the same."""
    monkeypatch.setenv("KUBENET_PROGRESS", "off" if "notebook" in whose else str(SOLVED))
    found = nb03.really()
    assert isinstance(found, Table), found
    assert (
        found.title == f"{whose}, run through the real bridge, host-local, portmap in this machine's kernel"
    )
    said = {row[0]: row[1:] for row in found.rows}
    assert said.pop("a ping from web to its gateway") == ("10.244.0.1", "answered")
    assert said["web: addresses"][0] == "10.244.0.2/24"
    assert {"web: routes", "node-1: interfaces", "node-1: iptables rules", "node-1, after DEL"} <= said.keys()
    assert {same for _found, same in said.values()} == {"the same"}


def test_the_notebook_shows_what_the_real_plugins_did_otherwise(executables: None) -> None:
    """Debian's bridge does not know ipMasqBackend; and where an ADD fails, both errors are shown."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}

    def run(**more: Any) -> Any:
        plugins = [{"type": "bridge", "ipam": ipam, **more}]
        return nb03.really(json.dumps({"cniVersion": "1.1.0", "name": "mine", "plugins": plugins}))

    other = {row[0]: row[2] for row in run(ipMasq=True, ipMasqBackend="nftables").rows}
    assert other["node-1: iptables rules"].startswith(
        "different; only with the real plugins: rules 4 -A CNI-"
    )
    assert other["node-1: lines of nftables"].startswith("different; only with the model: ")
    assert str(run(type="macvlan", master="nope0")) == (
        "The real plugins said “Link not found”; the model's said “Link not found”."
    )


def _by_order(state: State, ns: Netns) -> dict[str, str]:
    """Names of what a failed ADD left: the new links of both sides, in order."""
    out = {}
    for real, ours in zip(state.links, ns.links.values(), strict=True):
        if real.name != ours.name:
            out[real.name] = ours.name
        out[real.mac] = ours.mac
    return out
