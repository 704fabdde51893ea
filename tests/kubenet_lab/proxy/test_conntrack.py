"""Which connections kube-proxy makes the kernel forget."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.conntrack import Flow, FlowTuple
from kubenet_lab.packet.packet import TCP, UDP
from kubenet_lab.proxy.conntrack import stale_flows
from kubenet_lab.proxy.services import Endpoint, PortKey, ServiceMap, ServicePort

KEY = PortKey("kube-system", "kube-dns", "dns", "UDP")
GONE = Endpoint("10.244.1.9", 53, ready=False, serving=False)
LEAVING = Endpoint("10.244.1.8", 53, ready=False, serving=True, terminating=True)
DNS = ServiceMap(
    4,
    {
        KEY: ServicePort(KEY, "10.96.0.10", 53, node_port=30053, external_ips=("198.51.100.7",)),
        KEY._replace(protocol="TCP"): ServicePort(KEY._replace(protocol="TCP"), "10.96.0.10", 53),
    },
    {KEY: (Endpoint("10.244.0.2", 53), GONE, LEAVING)},
)


def flow(protocol: int, to: str, port: int, answers: str, from_port: int = 53) -> Flow:
    orig: FlowTuple = (protocol, "10.244.2.5", to, 40000, port, 0)
    return Flow(orig=orig, reply=(protocol, answers, "10.244.2.5", from_port, 40000, 0))


@pytest.mark.parametrize(
    ("what", "found", "forgotten"),
    [
        ("an endpoint that serves", flow(UDP, "10.96.0.10", 53, "10.244.0.2"), False),
        ("an endpoint that leaves and still serves", flow(UDP, "10.96.0.10", 53, "10.244.1.8"), False),
        ("an endpoint that does not serve", flow(UDP, "10.96.0.10", 53, "10.244.1.9"), True),
        ("an endpoint nobody knows", flow(UDP, "10.96.0.10", 53, "10.244.2.2"), True),
        ("the right address, another port", flow(UDP, "10.96.0.10", 53, "10.244.0.2", 5353), True),
        ("no translation: there was no endpoint then", flow(UDP, "10.96.0.10", 53, "10.96.0.10"), True),
        ("an external address", flow(UDP, "198.51.100.7", 53, "10.244.1.9"), True),
        ("a node port", flow(UDP, "192.168.1.10", 30053, "10.244.1.9"), True),
        ("TCP", flow(TCP, "10.96.0.10", 53, "10.244.1.9"), False),
        ("a port of the address that is no Service's", flow(UDP, "10.96.0.10", 9153, "10.244.1.9"), False),
        ("an address that is no Service's", flow(UDP, "8.8.8.8", 53, "8.8.8.8"), False),
    ],
)
def test_stale(what: str, found: Flow, forgotten: bool) -> None:
    assert (stale_flows([found], DNS) == [found]) is forgotten, what
