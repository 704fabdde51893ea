"""Addresses of Services over BGP: what each node announces, what a router learns, and whether packets come in."""

from __future__ import annotations

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.bgp.config import Config, Peer
from kubenet_lab.cni.calico.advertise import EXCLUDED, Ranges, static_routes
from kubenet_lab.cni.calico.network import Calico
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Service
from kubenet_lab.objects.node import Node

OUTSIDE = "203.0.113.5"
API = "apiVersion: projectcalico.org/v3\n"


def configuration(*, mesh: bool = True, **ranges: str) -> str:
    listed = "".join(f"  {key}: [{{cidr: {cidr}}}]\n" for key, cidr in ranges.items())
    off = "" if mesh else "  nodeToNodeMeshEnabled: false\n"
    return f"{API}kind: BGPConfiguration\nmetadata: {{name: default}}\nspec:\n{off}{listed}"


def service(policy: str = "", kind: str = "ClusterIP", more: str = "") -> str:
    outer = f"  externalTrafficPolicy: {policy}\n" if policy else ""
    return (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default}\nspec:\n"
        f"  type: {kind}\n  clusterIP: 10.96.7.7\n{outer}{more}"
        "  selector: {app: database}\n  ports: [{port: 5432}]\n"
    )


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- {addresses: [10.244.1.2], nodeName: here, conditions: {ready: true}}
- {addresses: [10.244.2.2], nodeName: there, conditions: {ready: false}}
ports: [{port: 5432}]
"""
CLUSTER, EXTERNAL, BALANCER = "10.96.0.0/16", "198.51.100.0/24", "192.0.2.0/24"
NAMES = {
    "cluster": "serviceClusterIPs",
    "external": "serviceExternalIPs",
    "balancer": "serviceLoadBalancerIPs",
}
OUTER = "  externalIPs: [198.51.100.7, 8.8.8.8]\n"
GIVEN = "status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}\n"

CASES: tuple[tuple[str, dict[str, str], str, str, tuple[str, ...]], ...] = (
    ("nothing is announced unless asked", {}, service("Local", "NodePort"), "here", ()),
    ("the range goes out whole", {"cluster": CLUSTER}, service(), "there", (CLUSTER,)),
    ("policy Cluster needs no more", {"cluster": CLUSTER}, service("Cluster", "NodePort"), "here", (CLUSTER,)),
    ("Local: where it has a ready endpoint", {"cluster": CLUSTER}, service("Local", "NodePort"), "here",
     (CLUSTER, "10.96.7.7/32")),
    ("Local: not where it is not ready", {"cluster": CLUSTER}, service("Local", "NodePort"), "there", (CLUSTER,)),
    ("outer addresses of the range only", {"external": EXTERNAL}, service("Local", "NodePort", OUTER), "here",
     (EXTERNAL, "198.51.100.7/32")),
    ("Local takes the cluster address along", {"cluster": CLUSTER, "external": EXTERNAL},
     service("Local", "NodePort", OUTER), "here", (CLUSTER, EXTERNAL, "10.96.7.7/32", "198.51.100.7/32")),
    ("a range of one address goes out where a Service has it", {"external": "198.51.100.7/32"},
     service("Cluster", "NodePort", OUTER), "there", ("198.51.100.7/32",)),
    ("and not where none has", {"external": "198.51.100.8/32"}, service("Cluster", "NodePort", OUTER), "there", ()),
    ("a load balancer's address", {"balancer": BALANCER}, service("Local", "LoadBalancer") + GIVEN, "here",
     (BALANCER, "192.0.2.9/32")),
    ("one of a range of one", {"balancer": "192.0.2.9/32"}, service("Cluster", "LoadBalancer") + GIVEN, "there",
     ("192.0.2.9/32",)),
    ("headless Services have none", {"cluster": CLUSTER}, service().replace("10.96.7.7", "None"), "here", (CLUSTER,)),
)  # fmt: skip


@pytest.mark.parametrize(("title", "ranges", "manifest", "node", "wanted"), CASES, ids=[c[0] for c in CASES])
def test_static_routes(
    title: str, ranges: dict[str, str], manifest: str, node: str, wanted: tuple[str, ...]
) -> None:
    (made,) = (one for one in load(manifest) if isinstance(one, Service))
    (part,) = (one for one in load(SLICE) if isinstance(one, EndpointSlice))
    spec = {NAMES[key]: [{"cidr": cidr}] for key, cidr in ranges.items()}
    allowed = Ranges.of({"spec": spec})
    assert static_routes(node, {}, allowed, [made], {("default", "web"): [part]}) == wanted, title
    assert static_routes(node, {EXCLUDED: "true"}, allowed, [made], {("default", "web"): [part]}) == ()


def test_without_aggregation() -> None:
    """`serviceLoadBalancerAggregation: Disabled`: no range, but each Service that has endpoints, from every node."""
    (made,) = (one for one in load(service("Cluster", "LoadBalancer") + GIVEN) if isinstance(one, Service))
    (part,) = (one for one in load(SLICE) if isinstance(one, EndpointSlice))
    spec = {"serviceLoadBalancerIPs": [{"cidr": BALANCER}], "serviceLoadBalancerAggregation": "Disabled"}
    allowed = Ranges.of({"spec": spec})
    assert static_routes("there", {}, allowed, [made], {("default", "web"): [part]}) == ("192.0.2.9/32",)
    assert static_routes("there", {}, allowed, [made], {}) == ()


def world(spec: str, *, keep: bool = False) -> Cluster:
    """The shop, whose nodes tell the rack's router (AS 65001) what they have."""
    made = scenarios.shop(cni="calico")
    network = made.pod_network
    assert isinstance(network, Calico)
    original = ", keepOriginalNextHop: true" if keep else ""
    made.apply(
        f"{spec}---\n{API}kind: BGPPeer\nmetadata: {{name: rack}}\n"
        f"spec: {{peerIP: 192.168.1.1, asNumber: 65001{original}}}\n"
        f"---\n{service('Local', 'NodePort', OUTER)}"
    )
    nodes = [node.internal_ips[0] for node in made.store.list(Node)]
    peers = tuple(Peer(f"node_{n}", address, 64512) for n, address in enumerate(nodes, 1))
    network.add_router("router", Config("192.168.1.1", asn=65001, filters="static", version=2, peers=peers))
    made.advance(10)
    return made


def ways(made: Cluster, dst: str) -> set[str]:
    """Next hops of the router for a prefix."""
    for route in made.network.ns("router").route_list(4):
        if route.dst == dst:
            return {hop.via for hop in route.nexthops} or {route.via}
    return set()


EVERY = {"192.168.1.10", "192.168.1.20", "192.168.1.30"}
HAS_IT = {"192.168.1.30"}
"""node-3 has the database."""


def test_a_router_learns_the_ranges_and_packets_come_in() -> None:
    made = world(configuration(serviceClusterIPs=CLUSTER, serviceExternalIPs=EXTERNAL), keep=True)
    assert ways(made, CLUSTER) == EVERY
    assert ways(made, EXTERNAL) == EVERY
    assert ways(made, "10.96.7.7/32") == HAS_IT
    assert ways(made, "198.51.100.7/32") == HAS_IT
    trip = made.connect(OUTSIDE, "http://10.96.0.100")
    assert trip.delivered, trip.text()
    trip = made.connect(OUTSIDE, "tcp://198.51.100.7:5432")
    assert trip.delivered, trip.text()
    assert trip.source_seen == OUTSIDE, "Local keeps the caller's address"


def test_no_node_has_the_routes_itself() -> None:
    made = world(configuration(serviceClusterIPs=CLUSTER, serviceExternalIPs=EXTERNAL))
    for node in ("node-1", "node-2", "node-3"):
        found = [
            r.dst for r in made.network.ns(node).route_list(4) if r.dst.startswith(("10.96.", "198.51."))
        ]
        assert found == []
    bird = made.pod_network.bird("node-3")  # type: ignore[attr-defined]
    assert {"10.96.0.0/16", "10.96.7.7/32", EXTERNAL, "198.51.100.7/32"} <= bird.table.keys()


def test_without_the_original_next_hop_every_node_offers_itself() -> None:
    """What the mesh brought goes on to the router with the own address: https://github.com/projectcalico/calico/issues/5235."""
    made = world(configuration(serviceClusterIPs=CLUSTER, serviceExternalIPs=EXTERNAL))
    assert ways(made, "198.51.100.7/32") == EVERY
    lost = [made.connect(OUTSIDE, "tcp://198.51.100.7:5432", choose=None) for _ in range(6)]
    assert any(not trip.delivered for trip in lost), "a node without the pod drops it (policy Local)"


def test_without_a_mesh_only_who_has_it() -> None:
    made = world(configuration(mesh=False, serviceExternalIPs=EXTERNAL))
    assert ways(made, "198.51.100.7/32") == HAS_IT
    assert made.connect(OUTSIDE, "tcp://198.51.100.7:5432").delivered


def test_it_follows_endpoints_and_configuration() -> None:
    made = world(configuration(serviceExternalIPs=EXTERNAL), keep=True)
    made.delete("Pod", next(p.name for p in made.store.list("Pod") if p.name.startswith("database")))
    made.settle()
    assert ways(made, "198.51.100.7/32") == set()
    assert ways(made, EXTERNAL) == EVERY
    made.apply(configuration())
    made.settle()
    assert ways(made, EXTERNAL) == set()


def test_a_node_that_is_excluded() -> None:
    made = world(configuration(serviceExternalIPs=EXTERNAL), keep=True)
    node = made.store.get(Node, "node-3")
    made.store.update(node.with_metadata(labels={**node.metadata.labels, EXCLUDED: "true"}))
    made.settle()
    assert ways(made, "198.51.100.7/32") == set()
    assert ways(made, EXTERNAL) == EVERY - HAS_IT
