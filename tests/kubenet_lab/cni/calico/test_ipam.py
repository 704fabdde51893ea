"""calico-ipam: pools, blocks, affinities, borrowing, exhaustion."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.calico.ipam import POOLS, Asked, Ipam, IpamError, block_name
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import TCP


def ipam(*pools: dict[str, Any], **config: Any) -> Ipam:
    """An Ipam over a network with an API server and these pools' specs, called a, b, ..."""
    network = Network()
    network.add_netns("cp").listen(Socket(TCP, "0.0.0.0", 6443, process="kube-apiserver"))
    made = Ipam(network)
    items = [
        {"metadata": {"name": name}, "spec": {"cidr": "10.0.0.0/24", "blockSize": 30} | spec}
        for name, spec in zip("abcdef", pools or ({},), strict=False)
    ]
    made.store.put(POOLS, "all", {"items": items})
    if config:
        made.store.put("ipamconfigs", "default", config)
    return made


def ask(node: str, pod: str, **more: Any) -> Asked:
    return Asked(node=node, handle=f"k8s.{pod}", **more)


def test_a_node_fills_its_block_before_it_takes_another() -> None:
    made = ipam()
    got = [made.assign(ask("n1", f"p{number}")) for number in range(6)]
    first, second = made.blocks_of("n1")
    assert [a.rsplit(".", 1)[0] for a in got] == ["10.0.0"] * 6
    start = int(first.split("/")[0].rsplit(".", 1)[1])
    assert [int(a.rsplit(".", 1)[1]) for a in got[:4]] == [start + n for n in range(4)]
    assert made.block(second)["affinity"] == "host:n1"  # type: ignore[index]


def test_the_first_block_is_decided_by_the_nodes_name() -> None:
    assert ipam().assign(ask("n1", "p")) == ipam().assign(ask("n1", "p"))
    blocks = {ipam().assign(ask(f"n{number}", "p")) for number in range(20)}
    assert len(blocks) > 10, "nodes seldom meet"


def test_a_released_address_is_given_again_last() -> None:
    made = ipam()
    got = [made.assign(ask("n1", f"p{number}")) for number in range(3)]
    assert made.release("k8s.p0") == [got[0]]
    assert made.release("k8s.p0") == []
    fourth, again = made.assign(ask("n1", "p3")), made.assign(ask("n1", "p4"))
    assert fourth not in got
    assert again == got[0]


def test_without_a_free_block_an_address_is_borrowed() -> None:
    made = ipam({"cidr": "10.0.0.0/29"})
    for node in ("n1", "n2"):
        made.assign(ask(node, f"{node}-0"))
    for number in range(1, 4):
        made.assign(ask("n1", f"n1-{number}"))
    address = made.assign(ask("n1", "n1-4"))
    (lender,) = made.blocks_of("n2")
    block = made.block(lender)
    assert block is not None
    assert address.rsplit(".", 1)[0] == "10.0.0"
    assert {entry["node"] for entry in block["allocations"].values()} == {"n1", "n2"}
    assert made.blocks_of("n1") != [lender]


def test_strict_affinity_borrows_nothing() -> None:
    made = ipam({"cidr": "10.0.0.0/29"}, strictAffinity=True)
    made.assign(ask("n2", "other"))
    for number in range(4):
        made.assign(ask("n1", f"p{number}"))
    with pytest.raises(IpamError) as told:
        made.assign(ask("n1", "late"))
    assert str(told.value) == (
        "failed to request IPv4 addresses: Assigned 0 out of 1 requested IPv4 addresses; "
        "No more free affine blocks and strict affinity enabled"
    )


def test_an_exhausted_pool_says_so() -> None:
    made = ipam({"cidr": "10.0.0.0/30"})
    for number in range(4):
        made.assign(ask("n1", f"p{number}"))
    with pytest.raises(IpamError, match=r"No IPs available in pools: \[10\.0\.0\.0/30\]"):
        made.assign(ask("n2", "late"))


def test_a_node_has_only_so_many_blocks() -> None:
    made = ipam({}, maxBlocksPerHost=1, strictAffinity=True)
    for number in range(4):
        made.assign(ask("n1", f"p{number}"))
    with pytest.raises(IpamError, match="limit of 1 blocks reached for this node"):
        made.assign(ask("n1", "late"))


@pytest.mark.parametrize(
    ("asked", "inside"),
    [
        (ask("n1", "p", node_labels={"zone": "east"}), "10.1."),
        (ask("n1", "p", namespace_labels={"team": "blue"}), "10.2."),
        (ask("n1", "p", pools=("d",)), "10.3."),
        (ask("n1", "p", pools=("10.3.0.0/24",)), "10.3."),
        (ask("n1", "p", use="Tunnel"), "10.4."),
    ],
    ids=["node", "namespace", "named", "by-prefix", "use"],
)
def test_pools_are_selected(asked: Asked, inside: str) -> None:
    made = ipam(
        {"disabled": True},
        {"cidr": "10.1.0.0/24", "nodeSelector": "zone == 'east'", "allowedUses": ["Workload"]},
        {"cidr": "10.2.0.0/24", "namespaceSelector": "team == 'blue'", "allowedUses": ["Workload"]},
        {"cidr": "10.3.0.0/24", "namespaceSelector": "never == 'so'"},
        {"cidr": "10.4.0.0/24", "allowedUses": ["Tunnel"]},
    )
    assert made.assign(asked).startswith(inside)


def test_no_pool_for_a_node_is_named() -> None:
    with pytest.raises(IpamError, match="no configured Calico pools for node n1"):
        ipam({"nodeSelector": "zone == 'west'"}).assign(ask("n1", "p"))
    with pytest.raises(IpamError, match=r"the given pool [(]nowhere[)] does not exist, or is not enabled"):
        ipam().assign(ask("n1", "p", pools=("nowhere",)))


def test_one_certain_address() -> None:
    made = ipam()
    made.assign_address("10.0.0.77", ask("n1", "p"))
    assert made.blocks_of("n1") == ["10.0.0.76/30"]
    assert made.addresses_of("k8s.p") == ["10.0.0.77"]
    with pytest.raises(IpamError, match=r"address already in use: 10\.0\.0\.77"):
        made.assign_address("10.0.0.77", ask("n2", "q"))
    with pytest.raises(IpamError, match="is not in a configured pool"):
        made.assign_address("10.9.0.1", ask("n2", "q"))


def test_ipv6_blocks() -> None:
    made = ipam({"cidr": "fd00::/64", "blockSize": 122})
    address = made.assign(ask("n1", "p"), 6)
    assert address.startswith("fd00::")
    (block,) = made.blocks_of("n1")
    assert block.endswith("/122")


def test_a_node_that_is_gone_leaves_nothing_of_its_own() -> None:
    made = ipam({"cidr": "10.0.0.0/29"})
    made.assign(ask("n2", "n2-0"))
    for number in range(5):
        made.assign(ask("n1", f"n1-{number}"))
    (lender,) = made.blocks_of("n2")
    made.release_node("n2")
    left = made.block(lender)
    assert left is not None, "a borrowed address keeps the block"
    assert left["affinity"] == ""
    assert [entry["node"] for entry in left["allocations"].values()] == ["n1"]
    made.release_node("n1")
    assert not made.all_blocks()
    assert not made.store.has("ipamblocks", block_name(lender))
