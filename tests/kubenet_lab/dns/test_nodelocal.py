"""NodeLocal DNSCache: what is on the node, who answers, what conntrack sees, and what is left when it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.dns.client import lookup

MANIFEST = Path(scenarios.__file__).with_name("nodelocaldns.yaml")
DNS, LOCAL = "10.96.0.10", "169.254.20.10"


@pytest.fixture(params=["iptables", "nftables"])
def shop(request: pytest.FixtureRequest) -> Cluster:
    made = scenarios.shop(proxy=request.param)
    made.apply(MANIFEST)
    return made


def ask(cluster: Cluster, name: str = "backend", pod: str = "default/frontend"):  # type: ignore[no-untyped-def]
    return lookup(cluster.walk(), cluster.network.ns(pod), name)


def test_the_address_of_kube_dns_is_on_every_node(shop: Cluster) -> None:
    for name in ("node-1", "node-2", "node-3"):
        node = shop.network.ns(name)
        assert [a.local for a in node.addrs("nodelocaldns", 4)] == [LOCAL, DNS]
        saved = shop.node(name).iptables_save()
        for line in (
            f'-A PREROUTING -d {DNS}/32 -p udp -m udp --dport 53 -m comment --comment "NodeLocal DNS Cache: skip '
            'conntrack" -j NOTRACK',
            f"-A OUTPUT -s {LOCAL}/32 -p tcp -m tcp --sport 8080",
            f"-A INPUT -d {DNS}/32 -p udp -m udp --dport 53",
        ):
            assert line in saved
        assert saved.count("NodeLocal DNS Cache") == 2 * 12


def test_a_pod_is_answered_by_its_own_node_and_leaves_no_connection(shop: Cluster) -> None:
    found = ask(shop)
    assert found.addresses == ("10.96.0.100",)
    for query in found.queries:
        first = query.traces[0]
        assert first.place.netns == "node-1"
        assert {hop.netns for hop in first.hops} == {"default/frontend", "node-1"}
    assert not any(flow.orig[2] in (DNS, LOCAL) for flow in shop.network.ns("node-1").conntrack)


def test_the_second_question_is_answered_from_the_cache(shop: Cluster) -> None:
    ask(shop)
    cache = shop.node_dns.servers["node-1"].plugin("cache", "cluster.local.")
    misses, hits = cache.misses, cache.hits
    assert ask(shop, pod="default/frontend").addresses == ("10.96.0.100",)
    assert (cache.misses, cache.hits) == (misses, hits + 2)
    assert shop.node_dns.servers["node-2"].plugin("cache", "cluster.local.").misses == 0


def test_it_asks_coredns_over_tcp_and_the_world_outside_itself(shop: Cluster) -> None:
    ask(shop)
    upstream = shop.store.get("Service", "kube-dns-upstream", "kube-system").addresses[0]
    asked = [flow for flow in shop.network.ns("node-1").conntrack if flow.orig[2] == upstream]
    assert {flow.orig[0] for flow in asked} == {6}
    assert ask(shop, "example.com.").addresses == ("203.0.113.10",)


def test_when_it_ends_coredns_answers_again(shop: Cluster) -> None:
    shop.delete("DaemonSet", "node-local-dns", "kube-system")
    shop.advance(60)
    node = shop.network.ns("node-1")
    assert "nodelocaldns" not in node.links
    assert "NodeLocal" not in shop.node("node-1").iptables_save()
    found = ask(shop)
    assert found.addresses == ("10.96.0.100",)
    assert all(query.traces[0].place.netns.startswith("kube-system/coredns") for query in found.queries)
