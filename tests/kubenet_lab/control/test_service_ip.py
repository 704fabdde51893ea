"""Node ports, and the addresses of two families."""

from __future__ import annotations

import pytest

from kubenet_lab.control import DUAL_STACK, Settings, apply, service_ip
from kubenet_lab.control.service_ip import NODE_PORT_BAND, NODE_PORTS
from kubenet_lab.errors import Invalid
from kubenet_lab.manifests import load
from kubenet_lab.objects import Service
from kubenet_lab.store import Store


def service(name: str, spec: str, ports: str = "[{name: http, port: 80}]") -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: {ports}, {spec}}}\n"
    )


def allocated(text: str, seed: int = 0, settings: Settings = DUAL_STACK) -> Store:
    store = Store(seed)
    store.apply_all(load(text))
    apply(store, service_ip.reconcile(store, settings))
    assert service_ip.reconcile(store, settings) == []
    return store


def ports(store: Store, name: str) -> list[int]:
    return [port.node_port for port in store.get(Service, name).spec.ports]


def test_node_ports_are_drawn_above_the_static_band_and_repeat() -> None:
    text = "".join(service(f"s{number}", "type: NodePort") for number in range(200))
    store = allocated(text)
    drawn = [ports(store, f"s{number}")[0] for number in range(200)]
    assert len(set(drawn)) == 200
    assert all(NODE_PORTS[0] + NODE_PORT_BAND <= port <= NODE_PORTS[1] for port in drawn)
    backwards = "".join(service(f"s{number}", "type: NodePort") for number in reversed(range(50)))
    again = allocated(backwards)
    # In another order most Services get the same; two that drew alike may swap.
    assert sum(ports(again, f"s{number}")[0] == drawn[number] for number in range(50)) >= 47
    other = allocated(text, seed=1)
    assert [ports(other, f"s{number}")[0] for number in range(200)] != drawn


def test_one_port_number_over_two_protocols_shares_a_node_port() -> None:
    both = "[{name: udp, port: 53, protocol: UDP}, {name: tcp, port: 53}, {name: http, port: 80}]"
    first, second, third = ports(allocated(service("dns", "type: NodePort", both)), "dns")
    assert first == second != third
    asked = both.replace("protocol: UDP", "protocol: UDP, nodePort: 30053")
    assert ports(allocated(service("dns", "type: NodePort", asked)), "dns")[:2] == [30053, 30053]


def test_a_load_balancer_may_do_without_node_ports_and_needs_a_health_check_of_its_own() -> None:
    local = "type: LoadBalancer, externalTrafficPolicy: Local"
    store = allocated(
        service("with", local) + service("without", f"{local}, allocateLoadBalancerNodePorts: false")
    )
    (port,) = ports(store, "with")
    checked = store.get(Service, "with").spec.health_check_node_port
    assert port != checked
    assert checked >= NODE_PORTS[0] + NODE_PORT_BAND
    assert ports(store, "without") == [0]
    assert store.get(Service, "without").spec.health_check_node_port not in (0, checked)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            service("a", "type: NodePort", "[{port: 80, nodePort: 29999}]"),
            r"spec\.ports\[0\]\.nodePort: Invalid value: 29999: provided port is not in the valid range",
        ),
        (
            service("a", "type: NodePort", "[{port: 80, nodePort: 31000}]")
            + service("b", "type: NodePort", "[{port: 80, nodePort: 31000}]"),
            r'"b" is invalid: spec\.ports\[0\]\.nodePort: Invalid value: 31000: provided port is already allocated',
        ),
        (
            service("a", "type: NodePort", "[{port: 80, nodePort: 31000}]")
            + service("b", "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000"),
            "failed to allocate requested HealthCheck NodePort 31000: provided port is already allocated",
        ),
    ],
)
def test_ports_that_cannot_be_had(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        allocated(text)


def test_a_full_range_falls_back_to_the_static_band_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_ip, "NODE_PORTS", (30000, 30099))
    store = allocated("".join(service(f"s{number}", "type: NodePort") for number in range(100)))
    assert {ports(store, f"s{number}")[0] for number in range(100)} == set(range(30000, 30100))
    with pytest.raises(Invalid, match="failed to allocate a nodePort: range is full"):
        allocated("".join(service(f"s{number}", "type: NodePort") for number in range(101)))


@pytest.mark.parametrize(
    ("spec", "settings", "families", "policy"),
    [
        ("type: ClusterIP", DUAL_STACK, ("IPv4",), "SingleStack"),
        ("ipFamilyPolicy: PreferDualStack", DUAL_STACK, ("IPv4", "IPv6"), "PreferDualStack"),
        ("ipFamilyPolicy: PreferDualStack", Settings(), ("IPv4",), "PreferDualStack"),
        (
            "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6]",
            DUAL_STACK,
            ("IPv6", "IPv4"),
            "RequireDualStack",
        ),
        ("clusterIP: 'fd00:10:96::7'", DUAL_STACK, ("IPv6",), "SingleStack"),
        ("clusterIP: None", Settings(), ("IPv4", "IPv6"), "RequireDualStack"),
        ("clusterIP: None, selector: {a: b}", Settings(), ("IPv4",), "SingleStack"),
    ],
)
def test_families(spec: str, settings: Settings, families: tuple[str, ...], policy: str) -> None:
    found = allocated(service("a", spec), settings=settings).get(Service, "a").spec
    assert (found.ip_families, found.ip_family_policy) == (families, policy)
    assert found.cluster_ips[0] == found.cluster_ip
    if found.cluster_ip != "None":
        assert tuple("IPv6" if ":" in address else "IPv4" for address in found.cluster_ips) == families


def test_a_policy_that_is_raised_gets_the_second_address() -> None:
    store = allocated(service("a", "type: ClusterIP"))
    (first,) = store.get(Service, "a").spec.cluster_ips
    store.apply_all(load(service("a", "ipFamilyPolicy: RequireDualStack")))
    apply(store, service_ip.reconcile(store, DUAL_STACK))
    assert store.get(Service, "a").spec.cluster_ips[0] == first
    assert len(store.get(Service, "a").spec.cluster_ips) == 2
    store.apply_all(load(service("a", "ipFamilyPolicy: SingleStack")))
    assert store.get(Service, "a").spec.cluster_ips == (first,)
    with pytest.raises(Invalid, match="this cluster is not configured for dual-stack services"):
        allocated(service("a", "ipFamilyPolicy: RequireDualStack"), settings=Settings())
