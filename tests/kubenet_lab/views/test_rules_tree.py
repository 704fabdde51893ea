"""A node's rules as a tree: chains under the rules that lead there, maps as maps, one packet's way through."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.cluster import PROXIES, Cluster
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.views.rules_tree import FORMS, Branch, RulesTree, lines_of, rules_tree, rules_tree_html

STICKY = """
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {clusterIP: 10.96.9.1, sessionAffinity: ClientIP, selector: {app: backend}, ports: [{port: 80, targetPort: 8080}]}
"""


@cache
def cluster(mode: str) -> Cluster:
    made = shop(proxy=mode)
    made.apply(STICKY)
    return made


@cache
def call(mode: str, target: str) -> Trip:
    return cluster(mode).connect("frontend", target)


def tree(mode: str, target: str = "http://backend") -> RulesTree:
    exchange = call(mode, target).exchange
    assert exchange is not None
    made = cluster(mode)
    return rules_tree(made.network.ns("node-1"), mode=mode, traces=[exchange.request], names=made.names())


def lines(found: RulesTree, kind: str = "") -> list[Branch]:
    return [one for _depth, one in found.branches() if not kind or one.kind == kind]


def test_every_rule_of_iptables_stands_once() -> None:
    rules = cluster("iptables").network.ns("node-1").iptables[4]
    written = [f"-A {chain.name}{rule.text(4)}" for _table, chain, _n, rule in rules]
    assert sorted(one.text for one in lines(tree("iptables"), "rule")) == sorted(written)


def test_every_rule_and_set_of_nftables_stands_once() -> None:
    ruleset = cluster("nftables").network.ns("node-1").nftables
    found = lines(tree("nftables"))
    table = ruleset.tables["ip", "kube-proxy"]
    assert sum(one.kind == "rule" for one in found) == sum(
        len(chain.rules) for chain in table.chains.values()
    )
    full = [one.text.split(":")[0].split("@")[1] for one in found if one.kind == "set" and not one.to]
    assert sorted(full) == sorted(table.sets)
    service_ips = next(one for one in found if one.kind == "set" and "@service-ips" in one.text)
    assert len(service_ips.below) == len(table.sets["service-ips"].elements)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("target", ["http://backend", "http://10.96.9.1"])
def test_three_backends_share_alike(mode: str, target: str) -> None:
    """1/3 of all, then 1/2 of what is left, then the rest: a third each. An nftables map says so at once."""
    found = [
        one
        for one in lines(tree(mode, target).path().find("10.96" if mode == "nftables" else "KUBE-SVC"))
        if one.share
    ]
    everything = [
        one
        for one in lines(tree(mode, target))
        if one.share is not None and "backend" in f"{one.text}{one.words}"
    ]
    assert len(everything) >= 3
    assert all(
        abs((one.share or 0) - 1 / 3) < 1e-6 for one in everything if "8080" in one.text or "SEP" in one.text
    )
    assert len(found) == 1
    assert found[0].met
    if mode == "iptables":
        chances = [one.chance for one in everything[:3]]
        assert [round(chance or 0, 4) for chance in chances] == [0.3333, 0.5, 1.0]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_the_packets_way_leads_to_the_pod_that_took_it(mode: str) -> None:
    trip = call(mode, "http://backend")
    path = tree(mode).path()
    text = path.text()
    (pod,) = cluster(mode).store.get("Pod", str(trip.server).partition("/")[2], "default").ips
    assert all(one.met for one in lines(path))
    assert f"{pod}:8080" in text or f"{pod} . 8080" in text
    others = [
        p.ips[0]
        for p in cluster(mode).store.list("Pod", "default")
        if p.name.startswith("backend") and p.ips[0] != pod
    ]
    assert not any(f"{address}:8080" in text or f"{address} . 8080" in text for address in others)
    assert text.splitlines()[0].startswith("▶ table ")


def test_hits_are_the_kernels_counters_or_the_packets_given() -> None:
    jump = next(one for one in lines(tree("iptables")) if one.text.startswith("-A PREROUTING"))
    counters = cluster("iptables").network.ns("node-1").iptables[4].counters["nat", "PREROUTING"]
    assert jump.hits == counters[1][0] > 0
    exchange = call("nftables", "http://backend").exchange
    assert exchange is not None
    made = cluster("nftables")
    twice = rules_tree(made.network.ns("node-1"), traces=[exchange.request] * 2)
    drawn = [one for one in lines(twice.path()) if one.kind == "element"]
    assert [one.hits for one in drawn] == [2, 2]
    counted = nft.load("table ip t {\n\tchain c {\n\t\tcounter packets 7 bytes 9 accept\n\t}\n}\n")
    network = shop(proxy="nftables").network
    network.ns("node-2").set_nftables(counted)
    assert [one.hits for one in lines(rules_tree(network.ns("node-2")), "rule")] == [7]


def test_a_search_keeps_what_is_above_and_below() -> None:
    found = tree("nftables").find("10.96.0.200 . TCP")
    texts = [one.text for one in lines(found)]
    assert texts[0] == "table ip kube-proxy"
    assert any(text.startswith("10.96.0.200 . tcp . 5432 : goto service-") for text in texts)
    assert "meta l4proto tcp dnat to 10.244.2.2:5432" in texts
    assert not any("10.96.0.100 . tcp" in text for text in texts)
    assert lines(tree("iptables").find("no such thing")) == []


def test_the_text_and_the_html_tell_the_same() -> None:
    found = tree("nftables")
    page = rules_tree_html(found)
    assert page.count("<code>") == len(lines(found)) == len(found.text().splitlines())
    assert "<script" not in page
    assert "and 60 lines more" in rules_tree_html(found, most=len(lines(found)) - 60)


def test_both_families_and_nothing_at_all() -> None:
    ns = cluster("nftables").network.ns("node-1")
    assert "table ip6 kube-proxy" in rules_tree(ns, 6).text()
    assert "table ip kube-proxy" not in rules_tree(ns, 6).text()
    pod = cluster("nftables").network.ns("default/frontend")
    assert rules_tree(pod).text() == "default/frontend has no rules of iptables for IPv4."


@pytest.mark.parametrize("mode", PROXIES)
def test_every_mode_has_a_form(mode: str) -> None:
    assert mode in FORMS
    text = rules_tree(cluster(mode).network.ns("node-1"), mode=mode).text()
    assert "10.96.0.100" in text, text
    assert "10.244." in text


def test_an_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="no tree of 'userspace': iptables"):
        rules_tree(cluster("iptables").network.ns("node-1"), mode="userspace")


def test_other_texts_hang_by_their_indentation() -> None:
    found = lines_of(
        "ipvsadm -Ln", "Head\nTCP  10.96.0.1:443 rr\n  -> 192.168.1.1:6443 Masq\n\nUDP  10.96.0.10:53 rr\n"
    )
    assert [(depth, one.text) for depth, one in found] == [
        (0, "ipvsadm -Ln"), (1, "Head"), (1, "TCP  10.96.0.1:443 rr"), (2, "-> 192.168.1.1:6443 Masq"),
        (1, "UDP  10.96.0.10:53 rr"),
    ]  # fmt: skip
