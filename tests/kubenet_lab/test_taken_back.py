"""A change that is taken back leaves nothing behind: a call that worked before it works at once, and goes on to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab import scenarios
from kubenet_lab.cluster import CNIS, LOAD_BALANCERS, POLICY_AGENTS, PROXIES, Cluster
from kubenet_lab.errors import InputError
from kubenet_lab.objects import ConfigMap, Pod, Service
from kubenet_lab.objects.node import default_nodes

NODELOCAL = Path(scenarios.__file__).with_name("nodelocaldns.yaml")
CLIENT = "203.0.113.77"
DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""
BALANCED = """
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: LoadBalancer
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080}]
"""
POOL = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: all, namespace: metallb-system}
spec: {addresses: [%s]}
---
apiVersion: metallb.io/v1beta1
kind: %sAdvertisement
metadata: {name: all, namespace: metallb-system}
---
"""
PEER = """
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.168.1.1}
---
"""
BEFORE = {
    "l2": POOL % ("192.168.1.241-192.168.1.249", "L2"),
    "bgp": POOL % ("198.51.100.0/24", "BGP") + PEER,
}


def joins(cluster: Cluster) -> None:
    cluster.apply_objects([default_nodes(4)[3]])


def leaves(cluster: Cluster) -> None:
    cluster.delete("Node", "node-2")


def reboots(cluster: Cluster) -> None:
    cluster.reboot("node-2")


def is_cut_off(cluster: Cluster) -> None:
    cluster.apply(DENY)


def loses_its_dns(cluster: Cluster) -> None:
    for pod in cluster.store.list(Pod, "kube-system"):
        cluster.delete("Pod", pod.name, "kube-system")


def loses_its_pods(cluster: Cluster) -> None:
    for pod in cluster.store.list(Pod, "default"):
        cluster.delete("Pod", pod.name)


def loses_its_service(cluster: Cluster) -> None:
    for service in cluster.store.list(Service, "default"):
        cluster.delete("Service", service.name)


CHANGES = [joins, leaves, reboots, is_cut_off, loses_its_dns, loses_its_pods, loses_its_service]


def calls(cluster: Cluster) -> dict[tuple[str, str], str]:
    """Each call's verdict: by name, by address, on a node and across nodes, from outside; the first way is taken."""
    pods = [pod for pod in cluster.store.list(Pod, "default") if pod.ips]
    targets = ["http://backend", "https://kubernetes.default", *(f"tcp://{pod.ips[0]}:8080" for pod in pods)]
    pairs = [(who, to) for who in (*(pod.name for pod in pods), "node/node-1") for to in targets]
    front = cluster.store.find(Service, "front", "default")
    if front is not None:
        listed = (front.status.load_balancer or {}).get("ingress") or ()
        pairs += [(CLIENT, f"http://{item['ip']}") for item in listed]
    return {
        (who, to): cluster.connect(who, to, choose=lambda _rule, _chance: True).verdict for who, to in pairs
    }


def take_back(cluster: Cluster, change: Callable[[Cluster], None]) -> None:
    def fail() -> None:
        with cluster.transaction():
            change(cluster)
            raise InputError("refused at the end")

    with pytest.raises(InputError, match="refused at the end"):
        fail()


def world(options: dict[str, str]) -> Cluster:
    named: dict[str, Any] = {k: v for k, v in options.items() if k != "dns"}
    cluster = scenarios.shop(**named)
    if "dns" in options:
        cluster.apply(NODELOCAL)
    if "load_balancer" in options:
        cluster.apply(BEFORE.get(options["load_balancer"], "") + BALANCED)
        cluster.advance(30)
    return cluster


WORLDS: list[Any] = [
    *({"cni": name} for name in CNIS),
    *({"proxy": name, "cni": "cilium" if name == "ebpf" else "flannel"} for name in PROXIES),
    *({"policy": name} for name in POLICY_AGENTS),
    *({"load_balancer": name} for name in LOAD_BALANCERS),
    {"dns": "nodelocal"},
]


@pytest.mark.parametrize("options", WORLDS, ids=lambda options: "-".join(options.values()))
def test_a_call_that_worked_still_works(options: dict[str, str]) -> None:
    cluster = world(options)
    worked = {call for call, verdict in calls(cluster).items() if verdict == "connected"}
    assert worked or options.get("cni") == "none"
    assert "load_balancer" not in options or CLIENT in {who for who, _to in worked}

    def broken() -> dict[tuple[str, str], str | None]:
        now = calls(cluster)
        return {call: now.get(call) for call in worked if now.get(call) != "connected"}

    for change in CHANGES:
        take_back(cluster, change)
        assert broken() == {}, f"at once after one that {change.__name__}"
        cluster.settle()
    cluster.advance(120)
    assert broken() == {}, "two minutes later"


def test_a_corefile_that_is_taken_back_is_never_read() -> None:
    cluster = scenarios.shop()

    def breaks(cluster: Cluster) -> None:
        found = cluster.store.get(ConfigMap, "coredns", "kube-system")
        cluster.apply_objects([replace(found, data={"Corefile": ".:53 {\n    refuse_all\n}\n"})])

    take_back(cluster, breaks)
    cluster.advance(300)
    assert {server.process.file for server in cluster.core_dns.running.values() if server.process} == {
        cluster.store.get(ConfigMap, "coredns", "kube-system").data["Corefile"]
    }


@pytest.mark.parametrize("cni", ["flannel", "cilium"])
def test_a_node_that_joins_later_is_known_to_those_that_were_looked_at(cni: str) -> None:
    """Which tables still wait is read off the kernel, not remembered from before."""
    cluster = scenarios.shop(cni=cni)
    take_back(cluster, leaves)
    before = {route.dst for route in cluster.network.ns("node-1").route_list()}
    joins(cluster)
    assert len({route.dst for route in cluster.network.ns("node-1").route_list()} - before) == 1
