"""A dump of a running cluster (`kubectl get -A -o json`) becomes the same world: addresses, nodes, state."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab import Cluster, scenarios
from kubenet_lab.errors import Invalid
from kubenet_lab.objects import EndpointSlice, Pod

KINDS = ["Namespace", "Node", "ConfigMap", "Deployment", "ReplicaSet", "Pod", "Service", "EndpointSlice"]


def dumped(cluster: Cluster, kinds: Iterable[str] = KINDS) -> list[dict[str, Any]]:
    return [obj.to_manifest() for kind in kinds for obj in cluster.store.list(kind)]


def write(objects: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "dump.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    return path


def pods(cluster: Cluster) -> dict[str, tuple[str, tuple[str, ...], bool]]:
    return {
        f"{pod.namespace}/{pod.name}": (pod.spec.node_name, pod.ips, pod.ready)
        for pod in cluster.store.list(Pod)
    }


def endpoints(cluster: Cluster) -> dict[str, list[tuple[str, ...]]]:
    return {
        f"{s.namespace}/{s.name}": sorted(e.addresses for e in s.endpoints)
        for s in cluster.store.list(EndpointSlice)
    }


def odd_addresses(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As after weeks of coming and going: every pod's last number is another one."""
    text = json.dumps(objects)
    for node in range(3):
        for low in (2, 3, 4, 5):
            text = text.replace(f'"10.244.{node}.{low}"', f'"10.244.{node}.{201 - 7 * low}"')
    changed: list[dict[str, Any]] = json.loads(text)
    assert changed != objects
    return changed


@pytest.mark.parametrize(
    "kinds", [KINDS, ["Node", "Pod", "Service"]], ids=["everything", "pods and Services"]
)
def test_pods_keep_their_nodes_and_addresses(kinds: list[str], tmp_path: Path) -> None:
    objects = odd_addresses(dumped(scenarios.shop(), kinds))
    again = Cluster.from_files(write(objects, tmp_path))
    wished = {
        f"{o['metadata']['namespace']}/{o['metadata']['name']}": (
            o["spec"]["nodeName"],
            tuple(ip["ip"] for ip in o["status"]["podIPs"]),
            True,
        )
        for o in objects
        if o["kind"] == "Pod"
    }
    assert pods(again) == wished
    for name, (_, ips, _) in wished.items():
        assert [a.local for a in again.network.ns(name).addrs("eth0") if a.scope == "global"] == list(ips)
    trip = again.connect("frontend", "http://backend")
    assert trip.delivered, trip.text()
    assert trip.source_seen == wished["default/frontend"][1][0]


def test_slices_of_the_dump_are_found_true_and_left_alone(tmp_path: Path) -> None:
    shop = scenarios.shop()
    again = Cluster.from_files(write(dumped(shop), tmp_path))
    assert endpoints(again) == endpoints(shop)
    assert pods(again) == pods(shop)


def test_owners_that_were_not_dumped_do_not_count_as_deleted(tmp_path: Path) -> None:
    shop = scenarios.shop()
    again = Cluster.from_files(write(dumped(shop, ("Node", "Pod", "Service", "EndpointSlice")), tmp_path))
    assert pods(again) == pods(shop)
    assert endpoints(again) == endpoints(shop)


def test_new_pods_get_none_of_the_addresses_that_are_taken(tmp_path: Path) -> None:
    """A pod written by hand stands first in the file, and still takes no address of a dumped one."""
    fresh = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "fresh"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
    }
    shop = scenarios.shop()
    again = Cluster.from_files(write([fresh, *dumped(shop)], tmp_path))
    known = pods(shop)
    assert {name: what for name, what in pods(again).items() if name in known} == known
    (address,) = pods(again)["default/fresh"][1]
    assert address.startswith("10.244.0.")
    assert address not in [ip for _, ips, _ in known.values() for ip in ips]


@pytest.mark.parametrize("address", ["10.99.0.7", "10.244.0.1", "10.244.0.0", "10.244.0.255", "10.244.1.9"])
def test_an_address_its_node_cannot_give_is_replaced(address: str, tmp_path: Path) -> None:
    objects = dumped(scenarios.shop())
    (pod,) = [o for o in objects if o["kind"] == "Pod" and o["metadata"]["name"] == "frontend"]
    pod["status"] |= {"podIP": address, "podIPs": [{"ip": address}]}
    again = Cluster.from_files(write(objects, tmp_path))
    _, (given,), ready = pods(again)["default/frontend"]
    assert given != address
    assert given.startswith("10.244.0.")
    assert ready
    assert again.connect("frontend", "http://backend").delivered


def test_a_pod_that_was_not_ready_stays_out_of_its_service(tmp_path: Path) -> None:
    objects = dumped(scenarios.shop())
    (pod, *_) = [o for o in objects if o["kind"] == "Pod" and o["metadata"]["name"].startswith("backend-")]
    for condition in pod["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = "False"
    again = Cluster.from_files(write(objects, tmp_path))
    name = f"default/{pod['metadata']['name']}"
    assert pods(again)[name][2] is False
    rules = again.node("node-1").iptables_save()
    assert f"--to-destination {pod['status']['podIP']}:8080" not in rules
    assert rules.count(":8080\n") == 2


def test_coredns_without_its_config_map_gets_kubeadms(tmp_path: Path) -> None:
    again = Cluster.from_files(write(dumped(scenarios.shop(), ("Node", "Pod", "Service")), tmp_path))
    assert again.connect("frontend", "http://backend").delivered


def test_names_are_asked_of_kube_dns_wherever_its_address_is(tmp_path: Path) -> None:
    text = json.dumps(dumped(scenarios.shop())).replace('"10.96.0.10"', '"10.96.0.53"')
    again = Cluster.from_files(write(json.loads(text), tmp_path))
    trip = again.connect("frontend", "http://backend")
    assert trip.delivered, trip.text()
    assert {query.server for query in trip.queries} == {"10.96.0.53"}


def test_other_ranges_are_read_off_the_dump(tmp_path: Path) -> None:
    text = json.dumps(dumped(scenarios.shop()))
    for ours, theirs in (("10.96.", "10.43."), ("10.244.", "10.42."), ("192.168.1.", "172.18.0.")):
        text = text.replace(ours, theirs)
    again = Cluster.from_files(write(json.loads(text), tmp_path))
    assert again.settings.cluster_cidr == ("10.42.0.0/16",)
    assert again.settings.service_cluster_ip_range == ("10.43.0.0/16",)
    trip = again.connect("frontend", "http://backend")
    assert trip.delivered, trip.text()
    assert trip.source_seen == "10.42.0.2"
    rules = again.node("node-1").iptables_save()
    assert "-A FLANNEL-FWD -s 10.42.0.0/16" in rules
    assert "! -s 10.42.0.0/16 -d 10.43.0.100/32" in rules


def test_a_service_that_asks_for_an_address_outside_the_range_is_still_refused(tmp_path: Path) -> None:
    wish = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.97.0.5", "ports": [{"port": 80}]},
    }
    with pytest.raises(Invalid, match="not in the valid range"):
        Cluster.from_files(write([wish], tmp_path))
