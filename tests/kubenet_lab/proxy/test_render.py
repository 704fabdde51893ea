"""Rules of one node straight from objects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import kubenet_lab.proxy
from kubenet_lab.errors import NotFound
from kubenet_lab.proxy.render import lab_nodes, proxy_node, rules, rules_document, written
from tests.oracles import cases, open_case
from tests.oracles.nft_text import difference as nft_difference
from tests.oracles.nft_text import listed_difference
from tests.oracles.rule_text import difference


def objects(case: dict[str, Any]) -> list[Any]:
    return [*case["services"], *case["endpointSlices"]]


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="flags-"))
def test_a_world_without_nodes_gets_the_lab_nodes(name: str) -> None:
    case = open_case("kube-proxy", name)
    ours = written(objects(case), case["node"], case["flags"])
    assert difference(ours[4], case["iptables"]["written"]["iptables-restore"]) == ""
    assert difference(ours[6], case["iptables"]["written"]["ip6tables-restore"]) == ""


def test_lab_nodes_have_an_address_and_pod_blocks_in_each_family() -> None:
    second = proxy_node([], "node-2")
    assert second.ips == ("192.168.1.20", "fd00:192:168:1::20")
    assert second.pod_cidrs == ("10.244.1.0/24", "fd00:10:244:1::/64")
    assert second.zone == "zone-b"
    assert len(lab_nodes()) == 3


def test_given_nodes_replace_the_lab_nodes() -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "worker"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    }
    case = open_case("kube-proxy", "nodeport-cluster")
    text = rules([node, *objects(case)], "worker", ["--nodeport-addresses=primary"])
    assert [line for line in text if line.endswith("-d 172.18.0.2 -j KUBE-NODEPORTS")]
    with pytest.raises(NotFound, match='nodes "node-1" not found'):
        rules([node, *objects(case)], "node-1")


@pytest.mark.parametrize("name", cases("kube-proxy"))
def test_saved_is_what_the_kernel_printed(name: str) -> None:
    case = open_case("kube-proxy", name)
    document = rules_document(objects(case), case["node"], case["flags"], ("iptables", "nftables"))
    assert document.keys() == {"iptables", "nftables"}
    nftables = document["nftables"]
    assert nft_difference(nftables["written"]["nft"], case["nftables"]["written"]["nft"]) == ""
    ours, recorded = (one["saved"]["nft list ruleset"] for one in (nftables, case["nftables"]))
    assert listed_difference(ours, recorded) == ""
    for how in ("written", "saved"):
        ours, recorded = document["iptables"][how], case["iptables"][how]
        assert ours.keys() == recorded.keys()
        for tool, text in recorded.items():
            assert difference(ours[tool], text) == "", f"{how} {tool}"


def test_the_readmes_example_runs() -> None:
    readme = Path(kubenet_lab.proxy.__file__).with_name("README.md").read_text()
    case = open_case("kube-proxy", "clusterip-two")
    names = {"services": case["services"], "slices": case["endpointSlices"]}
    for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        exec(compile(code, "README.md", "exec"), names)
    assert names["first"].iptables_restore == rules(objects(case), "node-1")
    assert len(names["start"]) == 2
