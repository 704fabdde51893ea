"""The objects CoreDNS watches: what an update changes, typed objects beside manifests, and size."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.dns.records import Query, Response
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.objects.meta import ObjectMeta
from kubenet_lab.objects.namespace import Namespace


def service(name: str, ip: str, namespace: str = "shop") -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports},
    }


def slice_of(name: str, *addresses: str, ready: bool | None = True) -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-abc",
            "namespace": "shop",
            "labels": {"kubernetes.io/service-name": name},
        },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], "conditions": {"ready": ready}} for ip in addresses],
    }


@pytest.fixture
def running() -> CoreDNS:
    view = ServiceView.from_objects([{"kind": "Namespace", "metadata": {"name": "shop"}}], now=1000)
    return CoreDNS(KUBEADM, view)


def ask(server: CoreDNS, name: str, kind: str = "A") -> Response:
    answer = server.answer(Query(name, kind))
    assert answer is not None
    return answer


def test_names_come_and_go_with_their_objects(running: CoreDNS) -> None:
    name, view = "web.shop.svc.cluster.local.", running.view
    assert ask(running, name).rcode == "NXDOMAIN"
    view.apply(service("web", "10.96.1.1"), now=1010)
    assert ask(running, name).addresses == ("10.96.1.1",)
    assert " 1010 " in str(ask(running, "cluster.local.", "SOA").answer[0])
    view.apply(service("web", "10.96.1.2"))
    assert ask(running, name).addresses == ("10.96.1.2",)
    assert ask(running, "1.1.96.10.in-addr.arpa.", "PTR").answer == ()
    assert ask(running, "2.1.96.10.in-addr.arpa.", "PTR").answer[0].target == name
    view.delete("Service", "shop", "web")
    assert ask(running, name).rcode == "NXDOMAIN"


def test_a_headless_service_follows_its_slices(running: CoreDNS) -> None:
    name, view = "db.shop.svc.cluster.local.", running.view
    view.apply(service("db", "None"))
    assert ask(running, name).rcode == "NXDOMAIN"
    view.apply(slice_of("db", "10.244.1.5", "10.244.2.5"))
    assert sorted(ask(running, name).addresses) == ["10.244.1.5", "10.244.2.5"]
    assert ask(running, "10-244-1-5." + name).addresses == ("10.244.1.5",)
    view.apply(slice_of("db", "10.244.1.5", ready=False))
    assert ask(running, name).rcode == "NXDOMAIN"
    view.apply(slice_of("db", "10.244.1.5", ready=None))
    assert ask(running, name).addresses == ("10.244.1.5",)
    view.delete("EndpointSlice", "shop", "db-abc")
    assert ask(running, name).rcode == "NXDOMAIN"


def test_typed_objects_are_as_good_as_manifests() -> None:
    view = ServiceView.from_objects(
        [Namespace(metadata=ObjectMeta(name="shop")), service("web", "10.96.1.1")]
    )
    assert ask(CoreDNS(KUBEADM, view), "web.shop.svc.cluster.local.").addresses == ("10.96.1.1",)


def test_before_the_first_list_cluster_names_fail_and_the_server_is_not_ready(running: CoreDNS) -> None:
    running.view.synced = False
    answer = ask(running, "web.shop.svc.cluster.local.")
    assert (answer.rcode, answer.aa, answer.authority[0].ttl) == ("SERVFAIL", True, 5)
    assert ask(running, "dns-version.cluster.local.", "TXT").answer[0].data == '"1.1.0"'
    assert running.ready() == ("kubernetes",)
    running.view.synced = True
    assert running.ready() == ()


def test_an_update_among_ten_thousand_services_touches_its_own_names(running: CoreDNS) -> None:
    view = running.view
    for number in range(10_000):
        view.apply(service(f"s{number}", f"10.97.{number >> 8}.{number & 255}"))
    others = dict(view.services)
    view.apply(service("s77", "10.98.0.1"))
    assert ask(running, "s77.shop.svc.cluster.local.").addresses == ("10.98.0.1",)
    assert ask(running, "s9999.shop.svc.cluster.local.").addresses == ("10.97.39.15",)
    changed = {key for key, entry in view.services.items() if others[key] is not entry}
    assert changed == {"s77.shop"}
