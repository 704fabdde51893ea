"""A call through kube-proxy's nftables rules, told in nftables' words."""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.trip import Trip
from kubenet_lab.views import words
from kubenet_lab.views.needs import needed
from kubenet_lab.views.nft_words import CHAINS, chain_meaning
from kubenet_lab.views.trip_steps import StepRow, rows_of
from kubenet_lab.walk.nft import NftHit
from tests.flows.services_worlds import AFFINITY, I_LOCAL, LB, NP, node_port, service


@cache
def cluster() -> Cluster:
    services = (
        service("sticky", "10.96.2.3", NP + AFFINITY, node_port(30303), "backend")
        + service("inside", "10.96.2.4", I_LOCAL, app="database")
        + service("nobody", "10.96.2.6", app="nobody")
        + service(
            "far", "10.96.4.4", f"{LB}, loadBalancerSourceRanges: [10.0.0.0/8]", node_port(30404), "backend",
            "{ip: 198.51.100.4}",
        )
    )  # fmt: skip
    return Cluster.from_files(MANIFEST, services, proxy="nftables")


@cache
def call(source: str, target: str) -> Trip:
    return cluster().connect(source, target)


def story(source: str, target: str) -> list[StepRow]:
    """The rules that tell the story of the request."""
    exchange = call(source, target).exchange
    assert exchange is not None
    rows = rows_of(exchange.request, cluster().names())
    return [row for row in rows if row.kind == "rule" and row.main]


def test_a_service_is_found_in_a_map_and_its_backend_drawn() -> None:
    found, drawn = story("frontend", "http://backend")
    assert (found.title, drawn.title) == ("Service recognised", "Backend drawn")
    assert "10.96.0.100 . tcp . 80 is in its map @service-ips: go on in chain service-" in found.sentence
    assert found.command == "nft get element ip kube-proxy service-ips '{ 10.96.0.100 . tcp . 80 }'"
    assert found.entry.splitlines()[0] == "ip daddr . meta l4proto . th dport vmap @service-ips"
    assert found.entry.splitlines()[1].startswith("10.96.0.100 . tcp . 80 : goto service-")
    assert "of 0 to 2 (numgen random; each as likely as the others): send it to 10.244." in drawn.sentence
    assert ", pod backend-" in drawn.sentence
    assert drawn.command.startswith("nft list chain ip kube-proxy service-")


def test_the_rewrite_shows_the_rule_that_asked_for_it() -> None:
    exchange = call("frontend", "http://backend").exchange
    assert exchange is not None
    (nat,) = [row for row in rows_of(exchange.request, cluster().names()) if row.kind == "nat"]
    assert "dnat ip to numgen random mod 3 map" in nat.entry


def test_affinity_is_drawn_once_and_then_remembered() -> None:
    first = cluster().connect("database", "http://10.96.2.3")
    again = cluster().connect("database", "http://10.96.2.3")
    assert first.server == again.server
    titles = []
    for trip in (first, again):
        assert trip.exchange is not None
        rows = rows_of(trip.exchange.request, cluster().names())
        titles.append([row.title for row in rows if row.kind == "rule" and row.main])
        remember = [row for row in rows if "remember it in set @affinity-" in row.sentence]
        assert len(remember) == 1
        assert remember[0].entry.startswith("update @affinity-")
    assert titles == [["Service recognised", "Backend drawn"], ["Service recognised", "Backend remembered"]]


@pytest.mark.parametrize(
    ("source", "target", "title", "sentence", "lacked"),
    [
        ("frontend", "http://10.96.2.4", "Rule says drop", "is in its map @no-endpoint-services: drop it",
         "a ready pod behind the Service on node-1: its traffic policy is Local"),
        ("frontend", "http://10.96.2.6", "Rule says reject", "refuse it and send an error back (reject)",
         "a ready pod behind the Service"),
        ("frontend", "http://10.96.2.3:81", "Rule says reject", "10.96.2.3 is in its set @cluster-ips: refuse it",
         "a Service port 10.96.2.3:81/tcp"),
        ("node/node-1", "http://198.51.100.4", "Rule says drop", "drop it without a word (drop)",
         "a source range of the load balancer with 192.168.1.10 in it (loadBalancerSourceRanges)"),
    ],
)  # fmt: skip
def test_a_lost_call_names_what_it_lacked(
    source: str, target: str, title: str, sentence: str, lacked: str
) -> None:
    last = story(source, target)[-1]
    assert last.title == title
    assert sentence in last.sentence
    assert needed(call(source, target), cluster().names()) == lacked


def test_nothing_is_told_in_the_words_of_iptables() -> None:
    exchange = call("203.0.113.10", "http://192.168.1.30:30303").exchange
    assert exchange is not None
    rows = rows_of(exchange.request, cluster().names())
    nft = [row for row in rows if row.kind == "rule" and "kube-proxy" in row.command]
    assert len(nft) > 5
    for row in nft:
        assert not row.entry.startswith("-A")
        assert "iptables" not in row.command
        assert "DNAT" not in row.sentence


def test_the_element_that_was_found_is_kept_in_the_trace() -> None:
    exchange = call("frontend", "http://backend").exchange
    assert exchange is not None
    hits = [s.entry for hop in exchange.request.hops for s in hop.steps if isinstance(s.entry, NftHit)]
    assert [hit.within for hit in hits[:2]] == ["service-ips", ""]
    assert str(hits[0]).endswith(f"(@service-ips has {hits[0].element_text})")


def test_every_chain_of_kube_proxy_has_a_meaning() -> None:
    ruleset = cluster().node("node-1").ns.nftables
    for table in ruleset.tables.values():
        for name in table.chains:
            assert chain_meaning(name), name
            assert words.chain_meaning(name) == chain_meaning(name)
    assert len({start for start, _words in CHAINS}) == len(CHAINS)


def test_an_sctp_packet_says_what_it_asks() -> None:
    from kubenet_lab.packet.packet import SCTP, SCTP_INIT, Packet, describe, sctp_chunk

    ask = Packet("10.244.0.2", "10.96.2.1", SCTP, 4000, 9000, payload=sctp_chunk(SCTP_INIT))
    assert words.segment(ask) == "an SCTP INIT"
    assert describe(ask) == "10.244.0.2:4000 > 10.96.2.1:9000 SCTP INIT"
