"""What kube-proxy sees of Services and EndpointSlices, and which endpoints it chooses."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.objects import from_manifest
from kubenet_lab.proxy.services import PortKey, ServiceTracker, categorize, from_objects
from tests.oracles import open_case

ZONE = "topology.kubernetes.io/zone"


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    whole = {
        "clusterIP": "10.96.0.100",
        "clusterIPs": ["10.96.0.100"],
        "type": "ClusterIP",
        "ports": [{"protocol": "TCP", "port": 80}],
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": whole,
    }


def endpoint_slice(
    *endpoints: dict[str, Any], name: str = "web-1", service: str = "web", **rest: Any
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": "", "protocol": "TCP", "port": 8080}],
        **rest,
    }


def _recorded_objects(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the objects that a case of kube-proxy-categorize describes in short."""
    given = case["service"]
    names = ("type", "internalTrafficPolicy", "externalTrafficPolicy", "externalIPs", "trafficDistribution")
    spec = {name: given[name] for name in names if name in given}
    made = service(ports=[{"port": 80, "protocol": "TCP", "nodePort": given.get("nodePort", 0)}], **spec)
    ingress = [{"ip": ip} for ip in given.get("loadBalancerIPs", ())]
    made["status"] = {"loadBalancer": {"ingress": ingress}}
    endpoints = [
        {
            "addresses": [e["address"]],
            "conditions": {name: e.get(name) for name in ("ready", "serving", "terminating")},
            "nodeName": e.get("nodeName"),
            "hints": {
                "forZones": [{"name": zone} for zone in e.get("forZones") or ()],
                "forNodes": [{"name": node} for node in e.get("forNodes") or ()],
            },
        }
        for e in case["endpoints"]
    ]
    return made, endpoint_slice(*endpoints)


@pytest.mark.parametrize("prefix", ["clusterip", "nodeport", "lb", "externalip", "random"])
def test_endpoints_chosen_as_recorded(prefix: str) -> None:
    recorded = [c for c in open_case("kube-proxy-categorize", "cases") if c["name"].startswith(prefix)]
    assert recorded
    for case in recorded:
        one, its_slice = _recorded_objects(case)
        node = case["nodeName"]
        services = from_objects([one], [its_slice])[4]
        (port,) = services.ports.values()
        endpoints = services.endpoints.get(port.key, ())
        choice = categorize(port, endpoints, node, case["topologyLabels"].get(ZONE, ""))
        ours = {
            "externalPolicyLocal": port.external_local,
            "internalPolicyLocal": port.internal_local,
            "externallyAccessible": port.externally_accessible,
            "usesClusterEndpoints": port.uses_cluster_endpoints,
            "usesLocalEndpoints": port.uses_local_endpoints,
            "endpointsSeen": [
                {
                    "endpoint": e.text,
                    "isLocal": e.node == node,
                    "ready": e.ready,
                    "serving": e.serving,
                    "terminating": e.terminating,
                    **({"zoneHints": list(e.zone_hints)} if e.zone_hints else {}),
                    **({"nodeHints": list(e.node_hints)} if e.node_hints else {}),
                }
                for e in endpoints
            ],
            "clusterEndpoints": choice.cluster and [e.text for e in choice.cluster],
            "localEndpoints": choice.local and [e.text for e in choice.local],
            "allReachableEndpoints": choice.reachable and [e.text for e in choice.reachable],
            "hasAnyEndpoints": choice.any,
            "localReadyEndpoints": sum(e.ready and e.node == node for e in endpoints),
        }
        # An empty choice is () here and [] there, and both differ from None.
        ours = {name: [] if value == () else value for name, value in ours.items()}
        assert ours == {name: case[name] for name in ours}, case["name"]


def test_every_recorded_case_is_in_a_row_above() -> None:
    kinds = {c["name"].split("/")[0].split("-")[0] for c in open_case("kube-proxy-categorize", "cases")}
    marks = test_endpoints_chosen_as_recorded.pytestmark  # type: ignore[attr-defined]
    rows = next(mark.args[1] for mark in marks if mark.name == "parametrize")
    assert all(kind.startswith(tuple(rows)) for kind in kinds), kinds


@pytest.mark.parametrize(
    "change",
    [
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"type": "ExternalName", "externalName": "db.example.com"},
        {"clusterIP": "", "clusterIPs": []},
    ],
)
def test_services_without_rules(change: dict[str, Any]) -> None:
    assert from_objects([service(**change)], [])[4].ports == {}


@pytest.mark.parametrize(
    "label", ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"]
)
def test_a_label_hands_a_service_to_somebody_else(label: str) -> None:
    one = service()
    one["metadata"]["labels"] = {label: "other"}
    assert from_objects([one], [])[4].ports == {}


def test_a_service_has_ports_in_its_own_families_only() -> None:
    six = service(
        clusterIP="fd00:10:96::64", clusterIPs=["fd00:10:96::64"], externalIPs=["198.51.100.7", "2001:db8::7"]
    )
    maps = from_objects([six], [])
    assert not maps[4].ports
    (port,) = maps[6].ports.values()
    assert port.external_ips == ("2001:db8::7",)


def test_addresses_are_written_in_one_form() -> None:
    one = service(
        clusterIP="fd00:10:96:0::0064",
        clusterIPs=["fd00:10:96:0::0064"],
        loadBalancerSourceRanges=[" 2001:DB8::1/32"],
    )
    (port,) = from_objects([one], [])[6].ports.values()
    assert port.cluster_ip == "fd00:10:96::64"
    assert port.source_ranges == ("2001:db8::/32",)


def test_endpoints_are_sorted_as_text_and_merged() -> None:
    a, b = ({"addresses": [ip]} for ip in ("10.244.0.9", "10.244.0.10"))
    merged = from_objects([], [endpoint_slice(a, b), endpoint_slice(a, name="web-2")])[4].endpoints
    assert [e.text for e in merged[PortKey("default", "web", "", "TCP")]] == [
        "10.244.0.10:8080",
        "10.244.0.9:8080",
    ]


def test_ports_without_a_number_and_slices_without_a_service_are_passed_over() -> None:
    there = {"addresses": ["10.244.0.9"]}
    nameless = endpoint_slice(there)
    nameless["metadata"]["labels"] = {}
    portless = endpoint_slice(there, name="web-2", ports=[{"name": "", "protocol": "TCP"}])
    assert from_objects([], [nameless, portless])[4].endpoints == {}


def test_tracker_tells_which_services_changed() -> None:
    tracker = ServiceTracker()
    there, elsewhere = {"addresses": ["10.244.0.9"]}, {"addresses": ["10.244.1.9"]}
    web, api = (from_manifest(service(name)) for name in ("web", "api"))
    old = from_manifest(endpoint_slice(there))
    # One Service has one address here: two would be refused by an API server, the tracker does not care.
    assert tracker.update([web, api], [old]) == {4: {("default", "web"), ("default", "api")}, 6: set()}  # type: ignore[list-item]
    assert tracker.update([web, api], [old]) == {4: set(), 6: set()}  # type: ignore[list-item]
    same = from_manifest(endpoint_slice(there))
    assert tracker.update([web, api], [same]) == {4: set(), 6: set()}  # type: ignore[list-item]
    new = from_manifest(endpoint_slice(there, elsewhere))
    assert tracker.update([web, api], [new])[4] == {("default", "web")}  # type: ignore[list-item]
    assert [e.address for e in tracker.maps[4].endpoints[PortKey("default", "web", "", "TCP")]] == [
        "10.244.0.9",
        "10.244.1.9",
    ]
    assert tracker.update([web], [new])[4] == {("default", "api")}  # type: ignore[list-item]
    assert tracker.update([web], [])[4] == {("default", "web")}  # type: ignore[list-item]
    assert tracker.maps[4].endpoints == {}


def test_a_wrong_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="EndpointSlice 'web-1' given where a Service belongs"):
        from_objects([endpoint_slice()], [])
