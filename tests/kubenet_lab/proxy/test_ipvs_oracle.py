"""IPVS mode against what kube-proxy 1.37.2 programmed: every recorded case, both families, first and second state."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, duration_text
from kubenet_lab.proxy.ipvs import JUMPS, KubeProxyIpvs, state_document, sysctl_path
from tests.oracles import cases, open_case

FOLDER = "kube-proxy-ipvs"
NAMES = [name for name in cases(FOLDER) if name != "jumps"]


def node_of(case: dict[str, Any]) -> ProxyNode:
    """The node of a recorded world."""
    number = int(case["node"].rpartition("-")[2]) - 1
    cidrs = (f"10.244.{number}.0/24", f"fd00:10:244:{number or ''}::/64".replace("244:::", "244::"))
    return ProxyNode(case["node"], tuple(case["nodeIPs"]), cidrs, case["zone"])


def space_of(case: dict[str, Any]) -> Netns:
    """The kernel of that node, before kube-proxy."""
    space = Netns(case["node"])
    space.add_link("eth0", "physical", mac="02:00:00:00:00:01", up=True)
    for address in case["nodeIPs"]:
        space.add_address("eth0", f"{address}/{64 if ':' in address else 24}")
    return space


def comparable(text: str) -> str:
    """Rules of KUBE-IPVS-OUT-FILTER come in no fixed order and are recorded sorted."""
    lines = text.split("\n")
    ordered = iter(sorted(line for line in lines if line.startswith("-A KUBE-IPVS-OUT-FILTER")))
    return "\n".join(next(ordered) if line.startswith("-A KUBE-IPVS-OUT-FILTER") else line for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_case(name: str) -> None:
    """What a node is programmed with is what kube-proxy programmed."""
    case = open_case(FOLDER, name)
    config = KubeProxyConfig.from_flags(case["flags"], cluster_cidrs=("10.244.0.0/16", "fd00:10:244::/56"))
    proxy, space = KubeProxyIpvs(node_of(case), config), space_of(case)
    assert {sysctl_path(key): value for key, value in proxy.sysctls.items()} == case["sysctls"]
    if "ipvsTimeouts" in case:
        assert [duration_text(seconds) for seconds in config.ipvs_timeouts] == case["ipvsTimeouts"]
    texts: dict[int, list[str]] = {}
    for state in [case, *([case["after"]] if "after" in case else [])]:
        if state is not case:
            for key, reals in space.ipvs.reals.items():
                for server in reals:
                    space.ipvs.counts[key, server] = [case.get("activeConnections", 0), 0, 0]
        texts.update(proxy.sync(space, state["services"] or [], state["endpointSlices"] or []))
        for member, made in state_document(space).items():
            assert made == state[member], member
        for fam in (4, 6):
            assert comparable("\n".join(texts[fam])) == state["iptables"][f"IPv{fam}"]
        checks = [
            {"service": c.service, "port": c.port, "localEndpoints": c.local_endpoints}
            for c in proxy.health_checks()
        ]
        assert checks == state["healthCheckNodePorts"]
        assert proxy.terminating == state.get("terminatingRealServers", [])


def test_the_jumps_stand_in_the_recorded_order() -> None:
    """Each is put first in its chain: the last that is ensured is met first."""
    recorded = [row for row in open_case(FOLDER, "jumps") if row["family"] == "IPv4"]
    for table, chain in dict.fromkeys((row["table"], row["chain"]) for row in recorded):
        wanted = [row["rule"] for row in recorded if (row["table"], row["chain"]) == (table, chain)]
        ours = [jump for jump in reversed(JUMPS) if (jump.table, jump.source) == (table, chain)]
        assert [
            f"-A {jump.source} -m comment --comment {jump.comment} -j {jump.target}" for jump in ours
        ] == wanted
    assert len(recorded) == len(JUMPS)


def test_two_families_have_the_same_jumps() -> None:
    """IPv6's are recorded too."""
    recorded = open_case(FOLDER, "jumps")
    rows = {
        fam: [(row["table"], row["rule"]) for row in recorded if row["family"] == fam]
        for fam in ("IPv4", "IPv6")
    }
    assert rows["IPv4"] == rows["IPv6"]
