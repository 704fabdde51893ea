"""The graph of chains: every jump is an edge, drawn or in words, with the packets that took it."""

from __future__ import annotations

import re

from kubenet_lab import scenarios
from kubenet_lab.views.chains import chains_graph, chains_text


def test_every_jump_is_an_edge_and_hits_are_counted() -> None:
    shop = scenarios.shop()
    shop.connect("frontend", "http://backend")
    rules = shop.network.ns("node-1").iptables[4]
    text = chains_text(rules, "nat", "KUBE-SERVICES")
    jumps = [line for line in text.splitlines() if "-d 10.96.0.100/32" in line]
    assert len(jumps) == 1 + 1, text  # KUBE-SERVICES to the Service, the Service's masquerade mark
    assert "KUBE-SERVICES rule" in jumps[0]
    assert "(1 packets)" in jumps[0]
    picture = chains_graph(rules, "nat", "KUBE-SERVICES")
    svg = str(picture)
    assert len(re.findall(r'class="edge"', svg)) == len(text.splitlines())
    assert "10.96.0.100" in svg


def test_a_big_table_says_what_it_leaves_out() -> None:
    rules = scenarios.shop().network.ns("node-1").iptables[4]
    assert re.search(r"and \d+ chains more", chains_text(rules, "nat", limit=8))


def test_an_empty_table_is_empty() -> None:
    assert chains_text(scenarios.shop().network.ns("default/frontend").iptables[4]) == ""
