"""The cloud's load balancer: addresses and finalizers, real packets through it, and health checks that move them."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import DUAL_STACK
from kubenet_lab.control.cloud_lb import EXCLUDED, FINALIZER, TO_BE_DELETED, CloudSettings
from kubenet_lab.control.cloud_lb_machine import NAME, CloudLoadBalancer
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.objects import Service
from kubenet_lab.objects.node import Taint
from kubenet_lab.views import story

CLIENT = "203.0.113.77"


def service(name: str = "web", more: str = "", port: str = "{name: http, port: 80, targetPort: 8080}") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n"
        f"  selector: {{app: backend}}\n  ports: [{port}]\n{more}"
    )


def world(load_balancer: str = "cloud", more: str = "", **options: object) -> Cluster:
    cluster = scenarios.shop(load_balancer=load_balancer, **options)
    cluster.apply(service(more=more))
    return cluster


def found(cluster: Cluster, name: str = "web") -> Service:
    return cluster.store.get(Service, name, "default")


def ingress(cluster: Cluster, name: str = "web") -> list[dict[str, str]]:
    return list((found(cluster, name).status.load_balancer or {}).get("ingress") or ())


def cloud(cluster: Cluster) -> CloudLoadBalancer:
    assert isinstance(cluster.load_balancer, CloudLoadBalancer)
    return cluster.load_balancer


def nexthops(cluster: Cluster, ip: str) -> set[str]:
    route = next(r for r in cluster.network.ns(NAME).route_list() if r.dst == f"{ip}/32")
    return {hop.via for hop in route.nexthops} or {route.via}


def calls(cluster: Cluster, target: str, count: int = 24) -> Counter[tuple[str, str]]:
    trips = [cluster.connect(CLIENT, target) for _ in range(count)]
    return Counter((trip.verdict, trip.source_seen) for trip in trips)


def without_pod_on(cluster: Cluster, node: str) -> None:
    """Keep backends off a node: cordon it, delete its pod."""
    there = cluster.store.get("Node", node)
    cluster.apply_objects([replace(there, spec=replace(there.spec, unschedulable=True))])
    for pod in cluster.store.list("Pod", "default"):
        if pod.spec.node_name == node and pod.metadata.labels.get("app") == "backend":
            cluster.delete("Pod", pod.name)


# -- what the API says


def test_without_a_controller_it_stays_pending() -> None:
    cluster = world("none")
    assert ingress(cluster) == []
    assert found(cluster).metadata.finalizers == ()
    assert NAME not in cluster.network.netns


def test_it_gets_an_address_and_a_finalizer_and_keeps_both() -> None:
    cluster = world()
    assert ingress(cluster) == [{"ip": "198.51.100.1", "ipMode": "VIP"}]
    assert found(cluster).metadata.finalizers == (FINALIZER,)
    cluster.apply(service("second"))
    assert ingress(cluster, "second")[0]["ip"] == "198.51.100.2"
    cluster.delete("Service", "web")
    assert cluster.store.find(Service, "web", "default") is None
    assert all(r.dst != "198.51.100.1/32" for r in cluster.network.ns("router").route_list())
    cluster.apply(service("third"))
    assert ingress(cluster, "second")[0]["ip"] == "198.51.100.2"
    assert ingress(cluster, "third")[0]["ip"] == "198.51.100.1"


def test_another_type_gives_address_and_finalizer_back() -> None:
    cluster = world()
    cluster.apply(service().replace("LoadBalancer", "ClusterIP"))
    assert ingress(cluster) == []
    assert found(cluster).metadata.finalizers == ()
    assert calls(cluster, "http://198.51.100.1", 2).keys() == {("unreachable", "")}


def test_a_class_is_somebody_elses() -> None:
    cluster = world(more="  loadBalancerClass: example.com/internal\n")
    assert ingress(cluster) == []
    assert found(cluster).metadata.finalizers == ()


def test_a_wished_address_is_given_if_the_pool_has_it() -> None:
    assert ingress(world(more="  loadBalancerIP: 198.51.100.50\n"))[0]["ip"] == "198.51.100.50"
    cluster = world(more="  loadBalancerIP: 8.8.8.8\n")
    assert ingress(cluster) == []
    assert "8.8.8.8 is not in the pool" in cloud(cluster).why_pending(found(cluster))
    cluster = world(more="  loadBalancerIP: soon\n")
    assert ingress(cluster) == []
    assert "'soon' is no IP address" in cloud(cluster).why_pending(found(cluster))


def test_a_name_in_place_of_an_address() -> None:
    cluster = scenarios.shop(load_balancer="cloud-proxy")
    cloud(cluster).settings = CloudSettings(ip_mode="Proxy", domain="elb.example.net")
    cluster.apply(service())
    assert ingress(cluster) == [{"hostname": "web-default.elb.example.net"}]
    for caller in (CLIENT, "frontend"):
        trip = cluster.connect(caller, "http://web-default.elb.example.net")
        assert trip.delivered, trip.text()
        assert trip.address == "198.51.100.1"


def test_a_proxy_takes_neither_udp_nor_a_service_without_node_ports() -> None:
    cluster = scenarios.shop(load_balancer="cloud-proxy")
    cluster.apply(service("dns", port="{name: dns, port: 53, protocol: UDP}"))
    cluster.apply(service("bare", more="  allocateLoadBalancerNodePorts: false\n"))
    assert ingress(cluster, "dns") == ingress(cluster, "bare") == []
    assert "only TCP ports" in cloud(cluster).why_pending(found(cluster, "dns"))
    assert "needs node ports" in cloud(cluster).why_pending(found(cluster, "bare"))


# -- what packets do

TRUTH = [
    # load balancer, policy, proxy: does every server see the client's own address?
    ("cloud", "Cluster", "iptables", False),
    ("cloud", "Local", "iptables", True),
    ("cloud", "Cluster", "nftables", False),
    ("cloud", "Local", "nftables", True),
    ("cloud-proxy", "Cluster", "iptables", False),
    ("cloud-proxy", "Local", "iptables", False),
    ("cloud-proxy", "Local", "nftables", False),
]


@pytest.mark.parametrize(("balancer", "policy", "proxy", "kept"), TRUTH)
def test_who_the_server_sees(balancer: str, policy: str, proxy: str, kept: bool) -> None:
    cluster = world(balancer, f"  externalTrafficPolicy: {policy}\n", proxy=proxy)
    seen = calls(cluster, "http://198.51.100.1")
    assert {verdict for verdict, _ in seen} == {"connected"}
    sources = {source for _, source in seen}
    if kept:
        assert sources == {CLIENT}
    elif balancer == "cloud-proxy" and policy == "Local":
        assert sources == {"192.168.1.2"}, "the load balancer's own address"
    else:
        assert CLIENT not in sources
        assert len(sources) > 1, "addresses of the nodes"


def test_a_pass_through_answer_does_not_come_back_through_it() -> None:
    trip = world(more="  externalTrafficPolicy: Local\n").connect(CLIENT, "http://198.51.100.1")
    assert trip.exchange is not None
    request, reply = trip.exchange.traces[:2]
    assert [hop.netns for hop in request.hops][:3] == ["outside", "router", NAME]
    assert request.hops[2].packet.dst == "198.51.100.1"
    assert [hop.netns for hop in reply.hops][-2:] == ["router", "outside"]
    assert NAME not in [hop.netns for hop in reply.hops], "direct server return"
    assert reply.delivered_as is not None
    assert reply.delivered_as.src == "198.51.100.1"


def test_a_proxy_makes_two_connections_of_one() -> None:
    cluster = world("cloud-proxy")
    trip = cluster.connect(CLIENT, "http://198.51.100.1")
    assert trip.exchange is not None
    assert trip.exchange.onward is not None
    assert trip.exchange.request.place.netns == NAME
    assert trip.exchange.onward.request.packet.src == "192.168.1.2"
    assert trip.exchange.onward.request.packet.dport == found(cluster).spec.ports[0].node_port
    assert "The proxy opens a connection of its own" in [leg.title for leg in story(trip, {}).legs]


def test_a_proxy_that_reaches_nobody_closes_the_connection() -> None:
    cluster = world("cloud-proxy")
    for node in ("node-1", "node-2", "node-3"):
        cluster.network.ns(node).set_link("eth0", up=False)
    trip = cluster.connect(CLIENT, "http://198.51.100.1")
    assert trip.verdict == "reset"
    assert not trip.delivered
    assert trip.place.netns == NAME


def test_only_the_services_ports_pass() -> None:
    cluster = world()
    assert cluster.connect(CLIENT, "tcp://198.51.100.1:81").verdict == "timed out"
    assert cluster.connect(CLIENT, "198.51.100.1").verdict == "timed out"
    proxied = world("cloud-proxy")
    assert proxied.connect(CLIENT, "tcp://198.51.100.1:81").verdict == "refused"


@pytest.mark.parametrize("balancer", ["cloud", "cloud-proxy"])
def test_source_ranges(balancer: str) -> None:
    cluster = world(balancer, "  loadBalancerSourceRanges: [198.18.0.0/15]\n  externalTrafficPolicy: Local\n")
    assert cluster.connect("198.18.0.7", "http://198.51.100.1").verdict == "connected"
    assert cluster.connect(CLIENT, "http://198.51.100.1").verdict == "timed out"
    # The range guards the load balancer's address, not the node port beside it.
    assert cluster.connect(CLIENT, f"tcp://192.168.1.10:{found(cluster).spec.ports[0].node_port}").delivered


def test_flows_spread_over_the_nodes_and_each_stays_with_its_own() -> None:
    cluster = world(more="  externalTrafficPolicy: Local\n")
    servers = Counter(cluster.connect(CLIENT, "http://198.51.100.1").server for _ in range(90))
    assert len(servers) == 3
    assert min(servers.values()) > 12


# -- health


def test_a_node_without_a_pod_is_taken_out_under_local() -> None:
    cluster = world(more="  externalTrafficPolicy: Local\n")
    without_pod_on(cluster, "node-2")
    assert "192.168.1.20" in nexthops(cluster, "198.51.100.1"), "nobody has asked yet"
    lost = Counter(verdict for verdict, _ in calls(cluster, "http://198.51.100.1").elements())
    assert lost["timed out"] > 0
    cluster.advance(8 * 3)
    assert nexthops(cluster, "198.51.100.1") == {"192.168.1.10", "192.168.1.30"}
    assert calls(cluster, "http://198.51.100.1").keys() == {("connected", CLIENT)}
    second, check, said = cloud(cluster).checks.log[-1]
    assert (second, check.node, said) == (24.0, "node-2", "unhealthy: 503 Service Unavailable")
    there = cluster.store.get("Node", "node-2")
    cluster.apply_objects([replace(there, spec=replace(there.spec, unschedulable=False))])
    deployment = cluster.store.get("Deployment", "backend", "default")
    cluster.apply_objects([replace(deployment, spec=replace(deployment.spec, replicas=6))])
    cluster.advance(8)
    assert "192.168.1.20" in nexthops(cluster, "198.51.100.1"), "one success is enough"


def test_a_dead_node_costs_calls_until_three_checks_have_failed() -> None:
    cluster = world()
    cluster.network.ns("node-3").set_link("eth0", up=False)
    cluster.advance(16)
    assert len(nexthops(cluster, "198.51.100.1")) == 3
    cluster.advance(8)
    assert nexthops(cluster, "198.51.100.1") == {"192.168.1.10", "192.168.1.20"}
    assert (
        cloud(cluster).checks.log[-1][2] == "unhealthy: timed out"
        or "unreachable" in cloud(cluster).checks.log[-1][2]
    )


def test_it_fails_open_when_no_node_is_well() -> None:
    cluster = world()
    cluster.stop_kube_proxy()
    cluster.advance(24)
    assert {check.node for _, check, said in cloud(cluster).checks.log if said.startswith("un")} == {
        "node-1",
        "node-2",
        "node-3",
    }
    assert len(nexthops(cluster, "198.51.100.1")) == 3
    assert calls(cluster, "http://198.51.100.1", 6).keys() != {("timed out", "")}


def test_label_and_taint_take_a_node_out_at_once() -> None:
    cluster = world()
    node = cluster.store.get("Node", "node-1")
    cluster.apply_objects([node.with_metadata(labels={**node.metadata.labels, EXCLUDED: ""})])
    assert nexthops(cluster, "198.51.100.1") == {"192.168.1.20", "192.168.1.30"}
    node = cluster.store.get("Node", "node-2")
    taint = Taint(key=TO_BE_DELETED, effect="NoSchedule")
    cluster.apply_objects([replace(node, spec=replace(node.spec, taints=(taint,)))])
    assert nexthops(cluster, "198.51.100.1") == {"192.168.1.30"}
    cluster.delete("Node", "node-3")
    assert ip_route.show(cluster.network.ns(NAME)).count("blackhole 198.51.100.1") == 1


def test_a_refused_change_leaves_machine_and_objects_as_they_were() -> None:
    cluster = world()
    before = ip_route.show(cluster.network.ns(NAME)), ingress(cluster)
    bad = service("other", more="  clusterIP: 10.96.0.10\n")
    with pytest.raises(Exception, match=r"10\.96\.0\.10"):
        cluster.apply(bad)
    assert (ip_route.show(cluster.network.ns(NAME)), ingress(cluster)) == before
    assert cluster.connect(CLIENT, "http://198.51.100.1").delivered


# -- two families


@pytest.mark.parametrize(
    ("balancer", "seen"), [("cloud", None), ("cloud-proxy", ("192.168.1.2", "fd00:192:168:1::2"))]
)
def test_addresses_of_both_families_are_reached(balancer: str, seen: tuple[str, str] | None) -> None:
    cluster = scenarios.shop(load_balancer=balancer, settings=DUAL_STACK)
    cluster.apply(service(more="  externalTrafficPolicy: Local\n  ipFamilyPolicy: RequireDualStack\n"))
    four, six = (item["ip"] for item in ingress(cluster))
    clients = (CLIENT, "2001:db8:113::77")
    for client, target, shown in zip(clients, (f"{four}:80", f"[{six}]:80"), seen or clients, strict=True):
        for _ in range(6):
            trip = cluster.connect(client, f"tcp://{target}")
            assert trip.delivered, trip.text()
            assert trip.source_seen == shown
