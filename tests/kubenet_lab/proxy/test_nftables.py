"""What kube-proxy writes in nftables mode, against the recorded program."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.nftables import Ruleset
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.nftables import BASE_CHAINS, Existing, KubeProxyNftables, cleanup, existing
from kubenet_lab.proxy.services import ServiceTracker
from tests.oracles import cases, nft_text, open_case
from tests.oracles.nft_text import difference, listed_difference

CLUSTER_CIDR = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
NODES = {
    f"node-{i}": ProxyNode(
        f"node-{i}",
        (f"192.168.1.{i}0", f"fd00:192:168:1::{i}0"),
        (f"10.244.{i - 1}.0/24", "fd00:10:244::/64" if i == 1 else f"fd00:10:244:{i - 1}::/64"),
        f"zone-{' abc'[i]}",
        ("127.0.0.1", "::1", f"192.168.1.{i}0", f"fd00:192:168:1::{i}0"),
    )
    for i in (1, 2, 3)
}


def proxy(case: dict[str, Any]) -> KubeProxyNftables:
    config = KubeProxyConfig.from_flags([CLUSTER_CIDR, *case["flags"]], service_cidrs=SERVICE_CIDRS)
    return KubeProxyNftables(NODES[case["node"]], config)


@pytest.mark.parametrize("name", cases("kube-proxy"))
def test_first_sync_is_the_recorded_transaction(name: str) -> None:
    case = open_case("kube-proxy", name)
    written = proxy(case).sync(case["services"], case["endpointSlices"])
    assert difference(written.nft, case["nftables"]["written"]["nft"]) == ""
    assert len(written.ip) == len(written.ip6) == 1


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_second_sync_is_partial_as_recorded(name: str) -> None:
    case = open_case("kube-proxy", name)
    one = proxy(case)
    one.sync(case["services"], case["endpointSlices"])
    written = one.sync(case["after"]["services"], case["after"]["endpointSlices"])
    assert difference(written.nft, case["nftables"]["after"]["written"]["nft"]) == ""


def test_nothing_new_writes_nothing() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    one = proxy(case)
    one.sync(case["services"], case["endpointSlices"])
    assert one.sync(case["services"], case["endpointSlices"]).nft == []


def test_another_full_sync_writes_chains_again_and_leaves_elements_and_hooks_alone() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    one = proxy(case)
    (first,) = one.sync(case["services"], case["endpointSlices"]).ip
    (again,) = one.sync(case["services"], case["endpointSlices"], full=True).ip
    assert [line for line in first if line not in again and not line.startswith("add element")] == [
        line
        for line in first
        if line.startswith(
            ("add chain ip kube-proxy filter-", "add chain ip kube-proxy nat-", "delete chain")
        )
        and "{" not in line
        and "localhost" not in line
    ]
    assert [line for line in again if line.startswith("add element")] == [
        "add element ip kube-proxy nodeport-ips { 192.168.1.10 }"
    ]


def test_an_emptied_chain_is_deleted_before_the_next_sync() -> None:
    case = open_case("kube-proxy", "change-all-gone")
    one = proxy(case)
    one.sync(case["services"], case["endpointSlices"])
    one.sync(case["after"]["services"], case["after"]["endpointSlices"])
    deleted, written = one.sync(case["services"], case["endpointSlices"]).ip
    chain = "service-PFISGYVC-default/web/tcp/"
    assert deleted == [f"delete chain ip kube-proxy {chain}", ""]
    assert written[1:3] == [f"add chain ip kube-proxy {chain}", f"flush chain ip kube-proxy {chain}"]
    assert written[-3:] == [
        f"add rule ip kube-proxy {chain} meta l4proto tcp dnat to 10.244.0.5:8080",
        "delete element ip kube-proxy no-endpoint-services { 10.96.0.100 . tcp . 80 }",
        "",
    ]


def test_a_new_proxy_keeps_elements_that_are_right_and_takes_away_what_the_last_one_left() -> None:
    case = open_case("kube-proxy", "clusterip-one")
    left = Existing(
        chains=frozenset(
            {"services", "service-AAAAAAAA-default/gone/tcp/", "endpoint-AAAAAAAA-default/gone/tcp/__1/2"}
        ),
        sets=frozenset({"cluster-ips", "affinity-AAAAAAAA-default/gone/tcp/__1/2"}),
        elements={
            ("cluster-ips", "10.96.0.100"): "",
            ("cluster-ips", "10.96.0.9"): "",
            ("nodeport-ips", "1.1.1.1"): "",
        },
    )
    (text,) = proxy(case).sync(case["services"], case["endpointSlices"], existing={4: left}).ip
    assert "add element ip kube-proxy cluster-ips { 10.96.0.100 }" not in text
    assert text[-5:] == [
        "flush chain ip kube-proxy endpoint-AAAAAAAA-default/gone/tcp/__1/2",
        "flush chain ip kube-proxy service-AAAAAAAA-default/gone/tcp/",
        "delete set ip kube-proxy affinity-AAAAAAAA-default/gone/tcp/__1/2",
        "delete element ip kube-proxy cluster-ips { 10.96.0.9 }",
        "",
    ]


def test_two_services_with_one_external_ip_take_it_from_each_other() -> None:
    case = open_case("kube-proxy", "external-ips")
    (web,) = (s for s in case["services"] if s["metadata"]["name"] == "web")
    (endpoints,) = (
        s for s in case["endpointSlices"] if s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    )
    twin = {
        **web,
        "metadata": {**web["metadata"], "name": "twin"},
        "spec": {**web["spec"], "clusterIP": "10.96.0.200", "clusterIPs": ["10.96.0.200"]},
    }
    labels = {**endpoints["metadata"]["labels"], "kubernetes.io/service-name": "twin"}
    more = {**endpoints, "metadata": {**endpoints["metadata"], "name": "twin-1", "labels": labels}}
    one = proxy(case)
    (text,) = one.sync([web, twin], [endpoints, more]).ip
    first, delete, second = (line for line in text if "198.51.100.7" in line)
    assert first.endswith("{ 198.51.100.7 . tcp . 80 : goto external-PFISGYVC-default/web/tcp/ }")
    assert delete == "delete element ip kube-proxy service-ips { 198.51.100.7 . tcp . 80 }"
    assert second.endswith("-default/twin/tcp/ }")
    (text,) = one.sync([web], [endpoints]).ip
    assert [line for line in text if "198.51.100.7" in line] == [delete, first]
    late = proxy(case)
    late.sync([{**web, "spec": {**web["spec"], "externalIPs": []}}, twin], [endpoints, more])
    (text,) = late.sync([web, twin], [endpoints, more]).ip
    assert [line for line in text if "198.51.100.7" in line] == [delete, first, delete, second]


@pytest.mark.parametrize(
    ("addresses", "node", "check", "services"),
    [
        (
            "0.0.0.0/0",
            NODES["node-1"],
            "ip daddr != 127.0.0.0/8 meta",
            "fib daddr type local ip daddr != 127.0.0.0/8 meta",
        ),
        ("127.0.0.0/8", NODES["node-1"], "ip daddr @nodeport-ips meta", "ip daddr @nodeport-ips meta"),
        (
            "primary",
            replace(NODES["node-1"], ips=("fd00:192:168:1::10",)),
            "ip daddr != 127.0.0.0/8 meta",
            "fib daddr type local ip daddr != 127.0.0.0/8 meta",
        ),
    ],
)
def test_where_node_ports_answer(addresses: str, node: ProxyNode, check: str, services: str) -> None:
    config = KubeProxyConfig.from_flags([f"--nodeport-addresses={addresses}"])
    (text,) = KubeProxyNftables(node, config).sync([], []).ip
    end = " l4proto . th dport vmap"
    assert f"add rule ip kube-proxy nodeport-endpoints-check {check}{end} @no-endpoint-nodeports" in text
    assert f"add rule ip kube-proxy services {services}{end} @service-nodeports" in text
    assert not [line for line in text if line.startswith("add element")]


def test_without_a_cluster_cidr_or_service_cidr_two_rules_are_missing() -> None:
    (text,) = KubeProxyNftables(NODES["node-1"]).sync([], []).ip
    (full,) = proxy({"node": "node-1", "flags": []}).sync([], []).ip
    assert [line.rpartition(" comment ")[2] for line in full if line not in text] == [
        '"Drop traffic to unallocated ClusterIPs"',
        '"masquerade clusterIP traffic from outside cluster"',
    ]
    assert [line for line in text if line not in full] == []


class TestDifference:
    """The comparison itself must be able to fail."""

    TEXT = open_case("kube-proxy", "affinity-local")["nftables"]["written"]["nft"][0]

    def test_the_same_text(self) -> None:
        assert difference([list(self.TEXT)], [self.TEXT]) == ""

    def test_any_line_left_out_or_changed(self) -> None:
        for number, line in enumerate(self.TEXT):
            if line:
                assert difference([self.TEXT[:number] + self.TEXT[number + 1 :]], [self.TEXT]), line
                changed = [*self.TEXT[:number], line + "x", *self.TEXT[number + 1 :]]
                assert difference([changed], [self.TEXT]), line

    def test_rules_of_one_chain_keep_their_order(self) -> None:
        first = next(
            i for i, line in enumerate(self.TEXT) if line.startswith("add rule ip kube-proxy external-")
        )
        swapped = list(self.TEXT)
        swapped[first], swapped[first + 1] = swapped[first + 1], swapped[first]
        assert "other order" in difference([swapped], [self.TEXT])

    def test_fixed_rules_keep_their_place(self) -> None:
        swapped = list(self.TEXT)
        i = next(i for i, line in enumerate(swapped) if "vmap @service-ips" in line)
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
        assert "other order" in difference([swapped], [self.TEXT])

    def test_a_missing_transaction(self) -> None:
        assert difference([], [self.TEXT])
        assert difference([], [""]) == ""


def listed(ruleset: Ruleset) -> list[str]:
    return "".join(nft.list_table(ruleset, ip, "kube-proxy") for ip in ("ip", "ip6")).split("\n")


def in_any_order(lines: list[str]) -> dict[str, list[str]]:
    """What is listed, whatever the order: a restarted kube-proxy makes its chains at hooks anew, so they come last."""
    return {key: some for key, some in nft_text.listed(lines).items() if key != "fixed"}


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_the_kernel_after_a_second_sync(name: str) -> None:
    case = open_case("kube-proxy", name)
    one = proxy(case)
    first = one.reconcile(Ruleset(), case["services"], case["endpointSlices"])
    after = case["after"]["services"], case["after"]["endpointSlices"]
    second = one.reconcile(first, *after)
    recorded = case["nftables"]["after"]["saved"]["nft list ruleset"]
    assert listed_difference(listed(second), recorded) == ""
    assert one.reconcile(second, *after) is second
    assert in_any_order(listed(proxy(case).reconcile(second, *after))) == in_any_order(recorded)


@pytest.mark.parametrize("name", [name for name in cases("kube-proxy") if "change" not in name])
def test_a_restart_finds_everything_as_it_should_be(name: str) -> None:
    case = open_case("kube-proxy", name)
    objects = case["services"], case["endpointSlices"]
    first = proxy(case).reconcile(Ruleset(), *objects)
    again = proxy(case).sync(*objects, existing={f: existing(first, f) for f in (4, 6)})
    touched = [
        line for text in again.nft for line in text if line.startswith(("add element", "delete element"))
    ]
    assert [line for line in touched if "nodeport-ips" not in line] == []


def test_a_restart_takes_away_what_went_meanwhile() -> None:
    case = open_case("kube-proxy", "change-service-deleted")
    before = proxy(case).reconcile(Ruleset(), case["services"], case["endpointSlices"])
    after = proxy(case).reconcile(before, case["after"]["services"], case["after"]["endpointSlices"])
    recorded = case["nftables"]["after"]["saved"]["nft list ruleset"]
    assert in_any_order(listed(after)) == in_any_order(recorded)
    assert list(after.tables["ip", "kube-proxy"].chains)[-8:] == list(BASE_CHAINS)


def test_a_flush_is_noticed_when_the_next_transaction_fails() -> None:
    case = open_case("kube-proxy", "change-endpoint-gone")
    one = proxy(case)
    one.reconcile(Ruleset(), case["services"], case["endpointSlices"])
    flushed = Ruleset()
    assert one.reconcile(flushed, case["services"], case["endpointSlices"]) is flushed
    mended = one.reconcile(flushed, case["after"]["services"], case["after"]["endpointSlices"])
    assert list(mended.tables) == [("ip", "kube-proxy")], (
        "nothing changed in IPv6, so nothing was tried there"
    )
    ours = in_any_order(nft.list_table(mended, "ip", "kube-proxy").split("\n"))
    recorded = in_any_order(case["nftables"]["after"]["saved"]["nft list ruleset"])
    assert ours == {key: lines for key, lines in recorded.items() if key.startswith("table ip ")}


def test_a_stale_chain_that_somebody_else_leads_to_stays() -> None:
    case = open_case("kube-proxy", "change-service-deleted")
    one = proxy(case)
    after = one.reconcile(
        one.reconcile(Ruleset(), case["services"], case["endpointSlices"]),
        case["after"]["services"],
        case["after"]["endpointSlices"],
    )
    held = nft.apply(after, "add rule ip kube-proxy services jump service-PFISGYVC-default/web/tcp/")
    again = one.reconcile(held, case["services"], case["endpointSlices"])
    assert "service-PFISGYVC-default/web/tcp/" in again.tables["ip", "kube-proxy"].chains


def test_cleanup_leaves_what_others_made() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    other = nft.load("table ip mine {\n\tchain input {\n\t\taccept\n\t}\n}\n")
    full = proxy(case).reconcile(other, case["services"], case["endpointSlices"])
    assert list(full.tables) == [("ip", "mine"), ("ip", "kube-proxy"), ("ip6", "kube-proxy")]
    assert cleanup(full) == other
    assert cleanup(other) == other


@pytest.mark.parametrize("seed", range(12))
def test_many_changes_end_where_a_fresh_start_does(seed: int) -> None:
    rng = random.Random(seed)
    names = cases("kube-proxy")
    one, shared = KubeProxyNftables(NODES["node-1"]), ServiceTracker()
    ruleset = Ruleset()
    objects: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(8):
        some = [open_case("kube-proxy", name) for name in rng.sample(names, 3)]
        kept = [[o for o in old if rng.random() < 0.5] for old in objects]
        # Two cases may use one name, one address or one node port: that is the point.
        objects = tuple(
            list({o["metadata"]["namespace"] + "/" + o["metadata"]["name"]: o for o in (*old, *new)}.values())
            for old, new in zip(
                kept,
                ([s for c in some for s in c["services"]], [s for c in some for s in c["endpointSlices"]]),
                strict=True,
            )
        )  # type: ignore[assignment]
        changed = shared.update(*objects)
        ruleset = one.apply(ruleset, shared.maps, changed)
    # One more change, so that the chains that were emptied last are deleted.
    touch = {4: {("default", "none")}, 6: {("default", "none")}}
    ruleset = one.apply(ruleset, shared.maps, touch)
    fresh = KubeProxyNftables(NODES["node-1"]).reconcile(Ruleset(), *objects)
    assert in_any_order(listed(ruleset)) == in_any_order(listed(fresh))
