"""Values of the API: selectors, ports, status."""

from __future__ import annotations

import pytest

from kubenet_lab.manifests import load
from kubenet_lab.objects import LabelSelector, LabelSelectorRequirement, Pod, default_nodes, listening_ports
from kubenet_lab.objects.meta import camel

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("key", "operator", "values", "matches"),
    [
        ("app", "In", ("web", "api"), True),
        ("app", "In", ("api",), False),
        ("zone", "In", ("a",), False),
        ("app", "NotIn", ("web",), False),
        ("zone", "NotIn", ("a",), True),
        ("app", "Exists", (), True),
        ("zone", "Exists", (), False),
        ("app", "DoesNotExist", (), False),
        ("zone", "DoesNotExist", (), True),
    ],
)
def test_expressions(key: str, operator: str, values: tuple[str, ...], matches: bool) -> None:
    requirement = LabelSelectorRequirement(key=key, operator=operator, values=values)
    selector = LabelSelector(match_labels={"tier": "front"}, match_expressions=(requirement,))
    assert selector.matches(LABELS) is matches
    assert not selector.matches({**LABELS, "tier": "back"})


def test_an_empty_selector_means_everything_and_a_wrong_operator_is_told() -> None:
    assert LabelSelector().matches({})
    with pytest.raises(ValueError, match="'in' is not a valid label selector operator"):
        LabelSelectorRequirement(key="a", operator="in").matches(LABELS)


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("pod_cidrs", "podCIDRs"),
        ("cluster_ip", "clusterIP"),
        ("host_network", "hostNetwork"),
        ("ip_family_policy", "ipFamilyPolicy"),
        ("set_hostname_as_fqdn", "setHostnameAsFQDN"),
        ("load_balancer_ip", "loadBalancerIP"),
    ],
)
def test_field_names(name: str, spelled: str) -> None:
    assert camel(name) == spelled


def pod() -> Pod:
    (obj,) = load("""
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  initContainers:
  - {name: setup, image: x, ports: [{containerPort: 1}]}
  - {name: side, image: x, restartPolicy: Always, ports: [{containerPort: 15001, name: mesh}]}
  containers:
  - {name: web, image: x, ports: [{containerPort: 8080, name: http}, {containerPort: 53, protocol: UDP}]}
  - {name: quiet, image: x}
""")
    assert isinstance(obj, Pod)
    return obj


def test_listening_ports_are_those_of_the_containers_that_stay() -> None:
    """An init container that ends does not listen while the pod serves; a sidecar does."""
    found = [(port.port, port.protocol, port.name, port.container) for port in listening_ports(pod())]
    assert found == [(15001, "TCP", "mesh", "side"), (8080, "TCP", "http", "web"), (53, "UDP", "", "web")]


def test_status_as_a_kubelet_writes_it() -> None:
    up = pod().with_status(
        phase="Running", ips=("10.244.0.5", "fd00::5"), host_ips=("192.168.1.10",), ready=True
    )
    assert (up.ips, up.ready, up.finished, up.status.pod_ip) == (
        ("10.244.0.5", "fd00::5"),
        True,
        False,
        "10.244.0.5",
    )
    assert {item.type: item.status for item in up.status.conditions} == {
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    down = up.with_status(ready=False)
    assert (down.ready, down.ips) == (False, up.ips)
    assert [item.ready for item in down.status.container_statuses] == [False, False]
    assert len(down.status.conditions) == 3
    assert down.with_status(ready=False) is down


def test_default_nodes() -> None:
    nodes = default_nodes(3, dual_stack=True)
    assert [(node.name, node.internal_ips, node.zone) for node in nodes] == [
        ("node-1", ("192.168.1.10", "fd00:192:168:1::10"), "zone-a"),
        ("node-2", ("192.168.1.20", "fd00:192:168:1::20"), "zone-b"),
        ("node-3", ("192.168.1.30", "fd00:192:168:1::30"), "zone-c"),
    ]
    assert all(node.ready for node in nodes)
    assert len({node.internal_ips for node in default_nodes(100)}) == 100
    with pytest.raises(ValueError, match="not 0"):
        default_nodes(0)
