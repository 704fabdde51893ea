"""Announcers: pools and elections as MetalLB decides them, and what the router holds while nodes come and go."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest

from kubenet_lab import scenarios
from kubenet_lab.announce.border_gateway import BgpAnnouncer
from kubenet_lab.announce.config import pools
from kubenet_lab.announce.layer2 import Layer2Announcer, ranking
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import DUAL_STACK, Settings
from kubenet_lab.control.cloud_lb import EXCLUDED
from kubenet_lab.course import commands
from kubenet_lab.errors import InputError
from kubenet_lab.objects import Service

CLIENT = "203.0.113.77"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web%s}
spec:
  type: LoadBalancer
  externalTrafficPolicy: %s
  selector: {app: backend}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
POOL = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: %s, namespace: metallb-system}
spec: %s
---
"""
ADVERT = """
apiVersion: metallb.io/v1beta1
kind: %s
metadata: {name: all, namespace: metallb-system}
spec: %s
---
"""
PEER = """
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.168.1.1%s}
"""
LAN, PUBLIC = (
    "{addresses: [192.168.1.241-192.168.1.249]}",
    "{addresses: [198.51.100.0/24], avoidBuggyIPs: true}",
)


def layer2(policy: str = "Cluster", advert: str = "{}", **options: object) -> tuple[Cluster, Layer2Announcer]:
    cluster = scenarios.shop(load_balancer="l2", **options)
    cluster.apply(POOL % ("lan", LAN) + ADVERT % ("L2Advertisement", advert) + SERVICE % ("", policy))
    assert isinstance(cluster.load_balancer, Layer2Announcer)
    return cluster, cluster.load_balancer


def gateway(policy: str = "Cluster", advert: str = "{}", peer: str = "") -> tuple[Cluster, BgpAnnouncer]:
    cluster = scenarios.shop(load_balancer="bgp")
    peering = PEER % peer
    cluster.apply(
        POOL % ("public", PUBLIC)
        + ADVERT % ("BGPAdvertisement", advert)
        + peering
        + "---"
        + SERVICE % ("", policy)
    )
    assert isinstance(cluster.load_balancer, BgpAnnouncer)
    return cluster, cluster.load_balancer


def address(cluster: Cluster, name: str = "web") -> str:
    listed = (cluster.store.get(Service, name, "default").status.load_balancer or {}).get("ingress") or [{}]
    return str(listed[0].get("ip", ""))


def verdicts(cluster: Cluster, ip: str, count: int = 12) -> Counter[str]:
    return Counter(cluster.connect(CLIENT, f"http://{ip}").verdict for _ in range(count))


def mac_of(cluster: Cluster, node: str) -> str:
    return cluster.network.ns(node).links["eth0"].mac


def cut(cluster: Cluster, node: str) -> None:
    cluster.network.ns(node).set_link("eth0", up=False)


def mend(cluster: Cluster, node: str) -> None:
    space = cluster.network.ns(node)
    space.set_link("eth0", up=True)
    space.add_route("default", via="192.168.1.1", dev="eth0", replace_existing=True)


def cordon(cluster: Cluster, node: str, **labels: str) -> None:
    found = cluster.store.get("Node", node)
    cluster.apply_objects([found.with_metadata(labels={**found.metadata.labels, **labels})])


# -- the controller


def test_it_stays_pending_without_a_pool_and_says_why() -> None:
    cluster = scenarios.shop(load_balancer="l2")
    cluster.apply(SERVICE % ("", "Cluster"))
    assert address(cluster) == ""
    assert isinstance(cluster.load_balancer, Layer2Announcer)
    assert cluster.load_balancer.pending == {("default", "web"): "there is no IPAddressPool"}


@pytest.mark.parametrize(
    ("pool", "annotation", "gets", "why"),
    [
        (LAN, "", "192.168.1.241", ""),
        ("{addresses: [192.168.1.240/30]}", "", "192.168.1.240", ""),
        ("{addresses: [192.168.1.0/29], avoidBuggyIPs: true}", "", "192.168.1.1", ""),
        ("{addresses: [192.168.1.241-192.168.1.249], autoAssign: false}", "", "", "no available IPs"),
        (LAN, "metallb.io/loadBalancerIPs: 192.168.1.245", "192.168.1.245", ""),
        (LAN, "metallb.io/loadBalancerIPs: 10.0.0.1", "", '"10.0.0.1" is not allowed in config'),
        (
            "{addresses: [192.168.1.241-192.168.1.249], autoAssign: false}",
            "metallb.io/address-pool: lan",
            "192.168.1.241",
            "",
        ),
        (LAN, "metallb.io/address-pool: wan", "", 'unknown pool "wan"'),
        (
            LAN,
            "metallb.io/loadBalancerIPs: '192.168.1.245, soon'",
            "",
            'invalid metallb.io/loadBalancerIPs: "192.168.1.245, soon"',
        ),
        (
            "{addresses: [192.168.1.241-192.168.1.249], serviceAllocation: {namespaces: [other]}}",
            "",
            "",
            "no available IPs",
        ),
    ],
)
def test_what_a_pool_gives(pool: str, annotation: str, gets: str, why: str) -> None:
    cluster = scenarios.shop(load_balancer="l2")
    text = SERVICE % ("", "Cluster")
    text = (
        text.replace("{name: web}", f"{{name: web, annotations: {{{annotation}}}}}") if annotation else text
    )
    cluster.apply(POOL % ("lan", pool) + text)
    assert address(cluster) == gets
    assert isinstance(cluster.load_balancer, Layer2Announcer)
    assert cluster.load_balancer.pending.get(("default", "web"), "") == why


def test_pools_with_a_priority_come_first_and_an_address_stays() -> None:
    cluster = scenarios.shop(load_balancer="l2")
    cluster.apply(
        POOL % ("a", "{addresses: [192.168.1.241/32]}")
        + POOL % ("b", "{addresses: [192.168.1.242-192.168.1.243], serviceAllocation: {priority: 10}}")
        + SERVICE % ("", "Cluster")
    )
    assert address(cluster) == "192.168.1.242"
    cluster.apply(SERVICE % ("-2", "Cluster"))
    cluster.apply(SERVICE % ("-3", "Cluster"))
    assert [address(cluster, n) for n in ("web", "web-2", "web-3")] == [
        "192.168.1.242",
        "192.168.1.243",
        "192.168.1.241",
    ]
    cluster.delete("IPAddressPool.metallb.io", "a", "metallb-system")
    assert address(cluster, "web-3") == ""


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (POOL % ("bad", "{addresses: [192.168.1.9-192.168.1.2]}"), "the wrong way round"),
        (POOL % ("bad", "{addresses: [192.168.1.240/20]}"), "neither a prefix nor a range"),
        (POOL % ("bad", "{addresses: 192.168.1.240/28}"), "has to be a list"),
        (POOL % ("bad", "{addresses: [192.168.1.245/32]}"), "overlap with those of pool lan"),
        (PEER.replace("192.168.1.1", "router") % "", "spec.peerAddress 'router' is no IP address"),
        (
            POOL % ("bad", "{addresses: [10.9.0.0/24], serviceAllocation: {priority: high}}"),
            "serviceAllocation.priority has to be a whole number, not text",
        ),
        (POOL % ("bad", "[10.9.0.0/24]"), "spec has to be a map, not a list"),
        (PEER.replace("64500", "sixty") % "", "spec.myASN has to be a whole number, not text"),
        (PEER % ", holdTime: forever", "spec.holdTime 'forever' is not a duration"),
        (
            ADVERT % ("BGPAdvertisement", "{aggregationLength: 99}"),
            "spec.aggregationLength has to be a whole number <= 32",
        ),
        (
            ADVERT
            % ("BGPAdvertisement", "{nodeSelectors: [{matchExpressions: [{key: zone, operator: Inn}]}]}"),
            r"spec.nodeSelectors\[0\].matchExpressions\[0\].operator 'Inn' is none of In, NotIn",
        ),
    ],
)
def test_what_the_announcer_cannot_read_is_refused_and_nothing_changes(bad: str, says: str) -> None:
    cluster = scenarios.shop(load_balancer="bgp")
    cluster.apply(POOL % ("lan", LAN) + SERVICE % ("", "Cluster"))
    with pytest.raises(InputError, match=says):
        cluster.apply(bad)
    assert address(cluster) == "192.168.1.241"
    assert [pool.name for pool in pools(cluster.store)] == ["lan"]


# -- layer 2


def test_one_node_answers_and_the_router_knows_its_mac() -> None:
    cluster, speakers = layer2()
    ip = address(cluster)
    winner = ranking(["node-1", "node-2", "node-3"], ip)[0]
    assert speakers.announcer_of(ip) == winner
    assert verdicts(cluster, ip) == {"connected": 12}
    entry = cluster.network.ns("router").neighbours["eth0", ip]
    assert entry.mac == mac_of(cluster, winner)
    assert not any(cluster.network.ns(n).is_local(ip) for n in ("node-1", "node-2", "node-3"))


def test_the_ranking_is_that_of_sha256_over_node_and_address() -> None:
    nodes = ["node-1", "node-2", "node-3", "worker-a", "worker-b"]
    sums = {
        node: subprocess.run(
            ["sha256sum"], input=f"{node}#192.168.1.241".encode(), capture_output=True, check=True
        ).stdout
        for node in nodes
    }
    assert ranking(nodes, "192.168.1.241") == sorted(nodes, key=sums.__getitem__)


def test_without_an_advertisement_nobody_answers() -> None:
    cluster, speakers = layer2(advert="{ipAddressPools: [other]}")
    assert address(cluster) == "192.168.1.241"
    assert speakers.announcer_of("192.168.1.241") == ""
    assert verdicts(cluster, "192.168.1.241", 3) == {"unreachable": 3}


def test_node_selectors_labels_and_local_endpoints_decide_who_may() -> None:
    selector = "{nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-3}}]}"
    assert layer2(advert=selector)[1].announcer_of("192.168.1.241") == "node-3"
    cluster, speakers = layer2()
    for node in ranking(["node-1", "node-2", "node-3"], "192.168.1.241")[:2]:
        assert speakers.announcer_of("192.168.1.241") == node
        cordon(cluster, node, **{EXCLUDED: ""})
    assert speakers.announcer_of("192.168.1.241") not in ("", node)
    local, speakers = layer2("Local")
    first = speakers.announcer_of("192.168.1.241")
    name = next(
        p.name
        for p in local.store.list("Pod", "default")
        if p.spec.node_name == first and p.metadata.labels.get("app") == "backend"
    )
    pod = local.store.get("Pod", name, "default")
    local.apply_objects([pod.with_metadata(labels={"app": "debug"})])
    deployment_pods = {
        p.spec.node_name for p in local.store.list("Pod", "default") if p.metadata.labels["app"] == "backend"
    }
    assert speakers.announcer_of("192.168.1.241") in deployment_pods
    assert verdicts(local, "192.168.1.241") == {"connected": 12}


def test_local_keeps_the_clients_address_and_one_nodes_pods_do_all_the_work() -> None:
    cluster, speakers = layer2("Local")
    trips = [cluster.connect(CLIENT, "http://192.168.1.241") for _ in range(10)]
    assert {t.source_seen for t in trips} == {CLIENT}
    nodes = {cluster.pod(str(t.server)).spec.node_name for t in trips}
    assert nodes == {speakers.announcer_of("192.168.1.241")}


def test_failover_takes_as_long_as_memberlist_needs_and_gratuitous_arp_turns_the_router() -> None:
    cluster, speakers = layer2("Local")
    ip = address(cluster)
    first, second = ranking(["node-1", "node-2", "node-3"], ip)[:2]
    assert verdicts(cluster, ip) == {"connected": 12}
    cut(cluster, first)
    cluster.advance(4)
    assert verdicts(cluster, ip, 4) == {"timed out": 4}
    cluster.advance(1)
    assert speakers.announcer_of(ip) == second
    assert cluster.network.ns("router").neighbours["eth0", ip].mac == mac_of(cluster, second)
    assert verdicts(cluster, ip) == {"connected": 12}
    mend(cluster, first)
    cluster.advance(2)
    assert speakers.announcer_of(ip) == first
    assert cluster.network.ns("router").neighbours["eth0", ip].mac == mac_of(cluster, first)
    assert verdicts(cluster, ip) == {"connected": 12}
    assert [(node, verb) for _at, node, _ip, verb in speakers.log] == [
        (first, "announces"),
        (second, "announces"),
        (second, "withdraws"),
    ]


def test_gratuitous_arp_makes_no_entry_where_there_was_none() -> None:
    cluster, _speakers = layer2()
    assert ("eth0", "192.168.1.241") not in cluster.network.ns("router").neighbours
    assert ("eth0", "192.168.1.241") not in cluster.network.ns("node-2").neighbours


def test_no_endpoints_no_announcement() -> None:
    cluster, speakers = layer2()
    cluster.delete("Deployment", "backend")
    assert speakers.announcer_of("192.168.1.241") == ""


# -- BGP


def legs(cluster: Cluster, dst: str) -> set[str]:
    routes = [r for r in cluster.network.ns("router").route_list() if r.dst == dst]
    return {hop.via for r in routes for hop in r.nexthops} | {r.via for r in routes if r.via}


def test_every_node_is_a_way_and_flows_spread_by_their_ports() -> None:
    cluster, speakers = gateway("Local")
    ip = address(cluster)
    assert ip == "198.51.100.1"
    assert legs(cluster, f"{ip}/32") == {"192.168.1.10", "192.168.1.20", "192.168.1.30"}
    assert {s.state for s in speakers.sessions.values()} == {"Established"}
    trips = [cluster.connect(CLIENT, f"http://{ip}") for _ in range(60)]
    assert {t.source_seen for t in trips} == {CLIENT}
    assert min(Counter(t.server for t in trips).values()) > 8


def test_local_announces_only_from_nodes_with_a_pod() -> None:
    cluster, _speakers = gateway("Local")
    pod = next(
        p
        for p in cluster.store.list("Pod", "default")
        if p.spec.node_name == "node-2" and p.metadata.labels.get("app") == "backend"
    )
    cluster.apply_objects([pod.with_metadata(labels={"app": "debug"})])
    with_pods = {
        cluster.store.get("Node", p.spec.node_name).internal_ips[0]
        for p in cluster.store.list("Pod", "default")
        if p.metadata.labels["app"] == "backend"
    }
    assert legs(cluster, "198.51.100.1/32") == with_pods
    cluster.delete("Deployment", "backend")
    assert legs(cluster, "198.51.100.1/32") == set()
    assert verdicts(cluster, "198.51.100.1", 2) == {"unreachable": 2}


def test_a_dead_node_is_believed_in_for_the_hold_time() -> None:
    cluster, speakers = gateway(peer=", holdTime: 30s, keepaliveTime: 10s")
    cut(cluster, "node-1")
    cluster.advance(29)
    assert "192.168.1.10" in legs(cluster, "198.51.100.1/32")
    assert verdicts(cluster, "198.51.100.1", 30)["timed out"] > 3
    cluster.advance(1)
    assert legs(cluster, "198.51.100.1/32") == {"192.168.1.20", "192.168.1.30"}
    assert speakers.log[-1] == (30.0, "node-1", "hold timer expired")
    mend(cluster, "node-1")
    cluster.advance(10)
    assert "192.168.1.10" in legs(cluster, "198.51.100.1/32")


def test_a_deleted_node_goes_when_its_hold_time_is_over() -> None:
    cluster, speakers = gateway()
    cluster.delete("Node", "node-3")
    assert "192.168.1.30" in legs(cluster, "198.51.100.1/32")
    cluster.advance(90)
    assert legs(cluster, "198.51.100.1/32") == {"192.168.1.10", "192.168.1.20"}
    assert {node for node, _peer in speakers.sessions} == {"node-1", "node-2"}


def test_aggregation_and_preference() -> None:
    cluster, _ = gateway(advert="{aggregationLength: 24}")
    assert legs(cluster, "198.51.100.0/24") == {"192.168.1.10", "192.168.1.20", "192.168.1.30"}
    selector = "{localPref: 200, nodeSelectors: [{matchExpressions: [%s]}]}"
    selector %= "{key: kubernetes.io/hostname, operator: In, values: [node-2]}"
    cluster.apply(ADVERT.replace("name: all", "name: better") % ("BGPAdvertisement", selector))
    assert legs(cluster, "198.51.100.1/32") == {"192.168.1.20"}


def test_without_a_peer_or_an_advertisement_the_router_knows_nothing() -> None:
    cluster, speakers = gateway(peer=", nodeSelectors: [{matchLabels: {nobody: here}}]")
    assert speakers.sessions == {}
    assert legs(cluster, "198.51.100.1/32") == set()
    assert legs(gateway(advert="{ipAddressPools: [other]}")[0], "198.51.100.1/32") == set()


def test_a_session_that_a_firewall_cuts_is_lost() -> None:
    cluster, _speakers = gateway(peer=", holdTime: 9s")
    commands.apply(cluster.network, "iptables -A INPUT -p tcp --dport 179 -s 192.168.1.20 -j DROP", "router")
    cluster.advance(12)
    assert legs(cluster, "198.51.100.1/32") == {"192.168.1.10", "192.168.1.30"}


# -- two families

BOTH = "{addresses: [192.168.1.241-192.168.1.249, 'fd00:192:168:1::f1-fd00:192:168:1::f9']}"
BOTH_PUBLIC = "{addresses: [198.51.100.1-198.51.100.9, '2001:db8:51::1-2001:db8:51::9']}"
CLIENT6 = "2001:db8:113::77"


@pytest.mark.parametrize(("balancer", "pool"), [("l2", BOTH), ("bgp", BOTH_PUBLIC)])
def test_addresses_of_both_families_are_reached(balancer: str, pool: str) -> None:
    kind = "L2Advertisement" if balancer == "l2" else "BGPAdvertisement"
    cluster = scenarios.shop(load_balancer=balancer, settings=DUAL_STACK)
    service = (SERVICE % ("", "Local")).replace("selector:", "ipFamilyPolicy: RequireDualStack\n  selector:")
    cluster.apply(POOL % ("both", pool) + ADVERT % (kind, "{}") + PEER % "" + "---" + service)
    listed = (cluster.store.get(Service, "web", "default").status.load_balancer or {})["ingress"]
    four, six = (item["ip"] for item in listed)
    assert ":" in six
    assert ":" not in four
    for client, target in ((CLIENT, f"tcp://{four}:80"), (CLIENT6, f"tcp://[{six}]:80")):
        for _ in range(8):
            trip = cluster.connect(client, target)
            assert trip.delivered, trip.text()
            assert trip.source_seen == client
    if balancer == "l2":
        assert cluster.network.ns("router").neighbours["eth0", six].mac in {
            mac_of(cluster, node) for node in ("node-1", "node-2", "node-3")
        }
    else:
        (route,) = [r for r in cluster.network.ns("router").route_list(6) if r.dst == f"{six}/128"]
        assert {hop.via for hop in route.nexthops} == {f"fd00:192:168:1::{n}" for n in (10, 20, 30)}


# -- who else answers

STRICT = "--ipvs-strict-arp"


@pytest.mark.parametrize(("flags", "right"), [((), False), ((STRICT,), True)])
def test_ipvs_mode_lets_every_node_answer_unless_it_is_strict(flags: tuple[str, ...], right: bool) -> None:
    """kube-ipvs0 has the address on every node, and Linux answers ARP for any address of its host.

    MetalLB's installation notes ask for strictARP for that reason: of several answers the first one counts.
    """
    only = "{nodeSelectors: [{matchLabels: {kubernetes.io/hostname: node-3}}]}"
    cluster, speakers = layer2("Local", only, proxy="ipvs", settings=Settings(kube_proxy=flags))
    ip = address(cluster)
    assert speakers.announcer_of(ip) == "node-3"
    cluster.connect(CLIENT, f"http://{ip}")
    found = cluster.network.ns("router").neighbours["eth0", ip].mac
    assert (found == mac_of(cluster, "node-3")) == right
    if not right:
        assert found == mac_of(cluster, "node-1"), "the first on the wire"
