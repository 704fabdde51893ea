"""Debian's CNI executables in a namespace of the kernel leave the state, and say the words, of the model's plugins.

The same chain runs on both sides: the real one as processes (environment, standard input), each getting the result of
the one before, on a twin of the model's machine. Real veth names and MACs are random; the results say which of ours
they are. Where this kernel lacks a link kind, both sides must refuse it alike.

`KUBENET_CNI_ALL=1` runs every case; by default a sample of them does, one a plugin.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import Runtime, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.dialects import iptables, nft
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import TABLE_LOCAL, Route
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.twin import Twin
from kubenet_lab.twin.plan import file_name
from kubenet_lab.twin.readback import State
from tests.kubenet_lab.cni.recorded import qdiscs, recorded_qdiscs

BIN = Path("/usr/lib/cni")
DATA = "/run/cni/networks"

Json = dict[str, Any]


def ipam(*subnets: str, routes: bool = True, **more: Any) -> Json:
    found: Json = {"type": "host-local", "dataDir": DATA, "ranges": [[{"subnet": s}] for s in subnets]}
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


class Real:
    """The chain as processes in the twin."""

    def __init__(self, twin: Twin, plugins: list[Json], capabilities: Json) -> None:
        self.twin, self.plugins, self.capabilities = twin, plugins, capabilities
        self.result: Json | None = None

    def call(self, command: str, body: Json, *, told: bool) -> tuple[int, Any]:
        given = {**body, "name": "net1", "cniVersion": "1.0.0"}
        wanted = given.pop("capabilities", {})
        chosen = {key: value for key, value in self.capabilities.items() if wanted.get(key)}
        if chosen:
            given["runtimeConfig"] = chosen
        if told and self.result is not None:
            given["prevResult"] = self.result
        words = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": "c1",
            "CNI_NETNS": f"/run/netns/{file_name('c1')}",
            "CNI_IFNAME": "lo" if body["type"] == "loopback" else "eth0",
            "CNI_PATH": str(BIN),
        }
        line = " ".join(f"{key}={value}" for key, value in words.items())
        # A plugin opens /proc/self/task/N/ns/net, and the twin's /proc is that of the world outside.
        plugin = BIN / str(body["type"])
        script = f"mount -t proc proc /proc; mkdir -p {DATA}; env {line} {plugin}"
        done = self.twin.run("node-1", f"unshare --mount sh -c '{script}'", stdin=json.dumps(given))
        return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else done.stderr or None

    def add(self) -> Json | None:
        """ADD of every plugin; returns the error of the one that failed."""
        for body in self.plugins:
            status, said = self.call("ADD", body, told=True)
            if status:
                error: Json = said
                return error
            self.result = said
        return None

    def delete(self) -> int:
        """DEL of every plugin, the last one first; stops at the first that fails."""
        return next((1 for body in reversed(self.plugins) if self.call("DEL", body, told=True)[0]), 0)


def facts(
    links: Iterable[Link],
    addresses: Iterable[Any],
    routes: Iterable[Route],
    rules: dict[int, Any],
    tables: dict[int, Any],
    nftables: Any,
) -> list[str]:
    """What is compared, as text. Link-local addresses follow the MACs, and the kernel's own routes the addresses."""
    out = []
    for link in links:
        bits = [link.name, link.kind if link.kind != "physical" else "veth", link.mac, str(link.mtu)]
        bits += ["up"] if link.up else []
        bits += [f"master {link.master}"] if link.master else []
        bits += [f"hairpin {link.port.hairpin}"] if link.port is not None else []
        bits += [f"mode {link.macvlan.mode}"] if link.macvlan is not None else []
        bits += ["promisc"] if link.promiscuous else []
        out.append("link " + " ".join(bits))
    out += [f"address {a}" for a in addresses if a.scope != "link" and a.local not in ("127.0.0.1", "::1")]
    out += [
        f"route {r} proto {r.proto}"
        for r in routes
        if r.table != TABLE_LOCAL
        and not r.dst.startswith(("fe80:", "ff00:"))
        and r.type != "anycast"
        and r.dst != "::1/128"
    ]
    out += [f"rule {fam} {rule}" for fam in (4, 6) for rule in rules[fam]]
    for fam in (4, 6):
        out += [
            f"rules {fam} {line}" for line in iptables.save(tables[fam]).splitlines() if line.startswith("-A")
        ]
    # The comments of later versions name more.
    out = [re.sub(r"\(ingressPolicy: [^)]*\)", "(ingressPolicy)", line) for line in out]
    return sorted(out) + nft.list_ruleset(nftables).splitlines()


def of_model(ns: Netns) -> list[str]:
    routes = [route for table in ns.routes.values() for route in table.values()]
    addresses = [a for entries in ns.addresses.values() for a in entries]
    return facts(ns.links.values(), addresses, routes, ns.rules, ns.iptables, ns.nftables)


def of_kernel(state: State, names: dict[str, str]) -> list[str]:
    found = facts(state.links, state.addresses, state.routes, state.rules, state.iptables, state.nftables)
    pattern = "|".join(re.escape(name) for name in names) or "(?!)"
    return sorted(re.sub(pattern, lambda hit: names[hit[0]], line) for line in found)


def renamed(real: Json, ours: Json) -> dict[str, str]:
    """Which of our names and MACs the real ones are: interfaces of two results, in order."""
    out = {}
    for one, other in zip(real.get("interfaces", []), ours.get("interfaces", []), strict=True):
        if one["name"].startswith("veth"):
            out[one["name"]] = other["name"]
        if one.get("mac"):
            out[one["mac"]] = other["mac"]
    return out


def mapped(value: Any, names: dict[str, str]) -> Any:
    # Debian's version (1.1.1) still prints an empty `dns`.
    text = json.dumps(
        {k: v for k, v in value.items() if (k, v) != ("dns", {})} if isinstance(value, dict) else value
    )
    for real, ours in names.items():
        text = text.replace(f'"{real}"', f'"{ours}"')
    return json.loads(text)


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
        real = Real(twin, plugins, capabilities)
        error = real.add()
        if error is not None and "operation not supported" in error["msg"]:
            network.lacks = frozenset({"ipvlan", "vlan", "vrf", "vlan_filtering"})
        runtime = Runtime(network, "node-1")
        conf = parse(json.dumps({"cniVersion": "1.0.0", "name": "net1", "plugins": plugins}))
        ifname = "lo" if plugins[0]["type"] == "loopback" else "eth0"
        ours: Json | None = None
        said: Json | None = None
        fault: BaseException | None = None
        try:
            ours = runtime.add(conf, "c1", path, ifname=ifname, capabilities=capabilities).to_json("1.0.0")
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
            assert of_kernel(twin.read(ns), names) == sorted(of_model(network.ns(ns))), ns
        if "bandwidth" in name and ours is not None:
            shown = json.loads(twin.run("node-1", "tc -j qdisc").stdout)
            assert mapped(recorded_qdiscs(shown), names) == qdiscs(network.ns("node-1"))
        status = real.delete()
        failed = 0
        try:
            runtime.delete(conf, "c1", path, ifname=ifname)
        except CniError:
            failed = 1
        assert status == (1 if name in STRICTER_DEL else failed)
        for ns in ("node-1", "c1"):
            assert of_kernel(twin.read(ns), names) == sorted(of_model(network.ns(ns))), f"{ns} after DEL"


def _by_order(state: State, ns: Netns) -> dict[str, str]:
    """Names of what a failed ADD left: the new links of both sides, in order."""
    out = {}
    for real, ours in zip(state.links, ns.links.values(), strict=True):
        if real.name != ours.name:
            out[real.name] = ours.name
        out[real.mac] = ours.mac
    return out
