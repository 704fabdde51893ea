"""kube-proxy in nftables mode: the rows of the table end as in iptables mode, and so do Services of every type.

Where they really differ the row says so: see `DIFFERENT` and `DIFFERENT_SERVICE`.
"""

from __future__ import annotations

from functools import cache

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.twin.compare import model_outcomes
from kubenet_lab.twin.flow import Flow
from tests.flows.flows import ROWS, Row, address, flow, place
from tests.flows.worlds import EXTRA, SHOP

DIFFERENT = {
    "Service, wrong port": "refused",
    "ping a Service": "refused",
}
"""The chain cluster-ips-check rejects what no port of a cluster IP takes; in iptables mode it is routed on."""


@cache
def shop() -> Network:
    return Cluster.from_files(MANIFEST, EXTRA, proxy="nftables").network


@pytest.mark.parametrize("row", [row for row in ROWS if row.world == SHOP], ids=lambda row: row.name)
def test_row(row: Row) -> None:
    network = shop()
    outcomes, trace = model_outcomes(network, flow(row, network))
    if row.name in DIFFERENT:
        assert {o.end for o in outcomes} == {DIFFERENT[row.name]} != {row.end}, trace
        return
    assert {o.end for o in outcomes} == {row.end}, trace
    assert {o.server for o in outcomes if o.server} == {place(network, name) for name in row.servers}, trace
    assert {o.source_seen for o in outcomes if o.source_seen} == {address(network, s) for s in row.sources}, (
        trace
    )


def service(
    name: str, ip: str, spec: str = "", app: str = "backend", node_port: int = 0, status: str = ""
) -> str:
    port = f"port: 80, targetPort: {5432 if app == 'database' else 8080}"
    if node_port:
        port += f", nodePort: {node_port}"
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{clusterIP: {ip}, selector: {{app: {app}}}, ports: [{{{port}}}]{spec}}}\n{status}---\n"
    )


LOCAL = ", externalTrafficPolicy: Local"
VIP = "status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}\n"
SERVICES = (
    service("node-port", "10.96.1.1", ", type: NodePort", node_port=30001)
    + service("node-port-local", "10.96.1.2", f", type: NodePort{LOCAL}", node_port=30002)
    + service("external", "10.96.1.3", ", externalIPs: [198.51.100.7]")
    + service("affinity", "10.96.1.4", ", sessionAffinity: ClientIP")
    + service("inside-local", "10.96.1.5", ", internalTrafficPolicy: Local")
    + service("one-inside-local", "10.96.1.6", ", internalTrafficPolicy: Local", "database")
    + service("one-outside-local", "10.96.1.7", f", type: NodePort{LOCAL}", "database", 30007)
    + service("nobody", "10.96.1.8", ", type: NodePort, externalIPs: [198.51.100.8]", "nobody", 30008)
    + service(
        "balanced",
        "10.96.1.9",
        ", type: LoadBalancer, loadBalancerSourceRanges: [10.0.0.0/8]",
        "backend",
        30009,
        VIP,
    )
)
SOURCES = ("frontend", "backend@node-2", "database", "node-1", "node-3", "outside")
TARGETS = (
    *((f"10.96.1.{i}", 80) for i in range(1, 10)),
    ("198.51.100.7", 80),
    ("198.51.100.8", 80),
    ("203.0.113.9", 80),
    ("127.0.0.1", 30001),
    *((f"192.168.1.{node}0", port) for node in (1, 2, 3) for port in (30001, 30002, 30007, 30008, 30009)),
)
DIFFERENT_SERVICE = {
    ("node-1", "198.51.100.8"): ("unreachable", "refused"),
    ("node-3", "198.51.100.8"): ("unreachable", "refused"),
    ("node-1", "127.0.0.1"): ("connected", "refused"),
    ("node-3", "127.0.0.1"): ("connected", "refused"),
}
"""(source, target) -> how it ends in iptables and in nftables mode.

Node ports answer on localhost in iptables mode only (KEP-3866).
A node's own packet for an external IP without endpoints: the chain KUBE-EXTERNAL-SERVICES is not asked at OUTPUT,
service-endpoints-check is.
"""


@cache
def services(mode: str) -> Network:
    return Cluster.from_files(MANIFEST, SERVICES, proxy=mode).network


@pytest.mark.parametrize("source", SOURCES)
def test_services_end_alike_in_both_modes(source: str) -> None:
    ends = set()
    for target, port in TARGETS:
        seen = {}
        for mode in ("iptables", "nftables"):
            network = services(mode)
            outcomes, _ = model_outcomes(network, Flow(ns=place(network, source), dst=target, port=port))
            seen[mode] = {(o.end, o.server, o.source_seen) for o in outcomes}
        ends |= {end for end, _, _ in seen["nftables"]}
        if (source, target) in DIFFERENT_SERVICE:
            one, two = DIFFERENT_SERVICE[source, target]
            assert ({end for end, _, _ in seen["iptables"]}, {end for end, _, _ in seen["nftables"]}) == (
                {one},
                {two},
            )
        else:
            assert seen["iptables"] == seen["nftables"], (target, port)
    assert {"connected", "refused"} <= ends
