"""Felix's routes through VXLAN, from blocks and nodes, against what the calculation graph told in recorded cases."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.calico.chains import FelixConfig
from kubenet_lab.cni.calico.felix import Felix, Programmed, Vtep
from kubenet_lab.cni.calico.graph import World
from kubenet_lab.cni.calico.ipam import IpPool
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import prefix
from tests.oracles import open_case

CASES = {case["name"]: case for case in open_case("cni-calico", "felix-pools-routes")}


def told(case: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry[kind] for entry in case["result"]["other"] if kind in entry]


def programmed(case: dict[str, Any]) -> Programmed:
    """What node-1's Felix is to program, from the case's objects."""
    objects = case["objects"]
    of = {kind: [o for o in objects if o["kind"] == kind] for kind in ("IPPool", "IPAMBlock", "Node")}
    pools = [IpPool.of(pool) for pool in of["IPPool"]]
    vxlan = any(pool.vxlan != "Never" for pool in pools)
    addresses = {n["metadata"]["name"]: n["spec"]["bgp"]["ipv4Address"] for n in of["Node"]}
    blocks = tuple((b["CIDR"], b["Affinity"].removeprefix("host:")) for b in of["IPAMBlock"])
    borrowed = tuple(
        (address, node)
        for b in of["IPAMBlock"]
        for address, node in (b.get("Allocated") or {}).items()
        if b["Affinity"] != f"host:{node}"
    )
    vteps = tuple(
        Vtep(
            n["metadata"]["name"],
            n["spec"]["ipv4VXLANTunnelAddr"],
            n["spec"]["vxlanTunnelMACAddr"],
            addresses[n["metadata"]["name"]].partition("/")[0],
        )
        for n in of["Node"]
    )
    return Programmed(
        World(()).picture("node-1"),
        FelixConfig(),
        pools=tuple(pools),
        vteps=vteps if vxlan else (),
        blocks=blocks,
        borrowed=borrowed,
        subnets=(str(prefix(addresses["node-1"])),),
    )


@pytest.mark.parametrize("name", CASES)
def test_routes_are_what_the_graph_tells(name: str) -> None:
    case = CASES[name]
    wanted = programmed(case)
    network = Network()
    network.add_netns("node-1")
    routes = Felix(network, "node-1").wished_routes(wanted)
    ends = {v["node"]: v["ipv4Addr"] for v in told(case, "VXLANTunnelEndpointUpdate")}
    expected = {}
    for update in told(case, "RouteUpdate"):
        if update.get("ipPoolType") != "VXLAN":
            continue
        if update.get("types") == "REMOTE_WORKLOAD":
            near = bool(update.get("sameSubnet")) and "crosssubnet" in name
            way = (update["dstNodeIp"], "eth0") if near else (ends[update["dstNodeName"]], "vxlan.calico")
            expected[update["dst"]] = ("unicast", *way)
        elif update.get("types") == "LOCAL_WORKLOAD" and not update["dst"].endswith("/32"):
            expected[update["dst"]] = ("blackhole", "", "")
    assert {r.dst: (r.type, r.via, r.dev) for r in routes} == expected
    assert bool(expected) == ("vxlan" in name or name == "borrowed-ips")
    if wanted.vteps:
        assert {(v.node, v.address, v.mac, v.host) for v in wanted.vteps} == {
            (v["node"], v["ipv4Addr"], v["mac"], v["parentDeviceIp"])
            for v in told(case, "VXLANTunnelEndpointUpdate")
        }
