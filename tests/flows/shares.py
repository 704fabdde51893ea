"""Load shares: one node, one client, up to seven servers, and a Service over the first n of them."""

from __future__ import annotations

import os
from collections import Counter

from kubenet_lab.cluster import PROXIES
from kubenet_lab.kernel.link import BridgeOptions, BridgePort
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Service
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.packet.packet import UDP
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import ServiceTracker
from kubenet_lab.views.service_rules import Spread

SIZES = (1, 2, 3, 7)
"""How many endpoints are tried."""
FULL = int(os.environ.get("KUBENET_SHARES", "0"))
"""Connections of each case; 0 leaves the small number. Full: `KUBENET_SHARES=30000 pytest tests -k shares`."""
CLIENT = "10.244.0.2"
PORT = 53


def server(number: int) -> str:
    """Return a server's address."""
    return f"10.244.0.{10 + number}"


def service_ip(size: int) -> str:
    """Return the address of the Service over so many endpoints."""
    return f"10.96.9.{size}"


def _objects() -> str:
    text = ""
    for size in SIZES:
        endpoints = ", ".join(
            f"{{addresses: [{server(n)}], nodeName: node-1, conditions: {{ready: true}}}}"
            for n in range(size)
        )
        text += (
            f"apiVersion: v1\nkind: Service\nmetadata: {{name: over-{size}}}\n"
            f"spec: {{clusterIP: {service_ip(size)}, "
            f"ports: [{{name: a, port: {PORT}, targetPort: 5353, protocol: UDP}}]}}\n"
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
            f"metadata: {{name: over-{size}-1, labels: {{kubernetes.io/service-name: over-{size}}}}}\n"
            f"endpoints: [{endpoints}]\nports: [{{name: a, port: 5353, protocol: UDP}}]\n---\n"
        )
    return text


def world(proxy: str) -> Network:
    """The node, its pods and its rules. The servers listen and say nothing."""
    net = Network()
    node = net.add_netns("node-1")
    node.set_sysctl("net.ipv4.ip_forward", 1)
    node.add_link("cni0", "bridge", mac=mac_from("node-1", "cni0"), bridge=BridgeOptions())
    node.set_link("cni0", up=True)
    node.add_address("cni0", "10.244.0.1/24")
    node.add_route("default", dev="cni0")
    for name, address in (("client", CLIENT), *((f"server-{n}", server(n)) for n in range(max(SIZES)))):
        pod = net.add_netns(f"default/{name}", "node-1")
        net.add_veth(
            "node-1", f"veth-{name}", pod.name, "eth0", mac_a=mac_from(name, "host"), mac_b=mac_from(name)
        )
        node.set_link(f"veth-{name}", up=True, master="cni0", port=BridgePort(hairpin=True))
        pod.set_link("eth0", up=True)
        pod.add_address("eth0", f"{address}/24")
        pod.add_route("default", via="10.244.0.1", dev="eth0")
        if name != "client":
            pod.listen(Socket(UDP, "::", 5353, "server"))
    tracker, objects = ServiceTracker(), load(_objects())
    tracker.update(
        [one for one in objects if isinstance(one, Service)],
        [one for one in objects if isinstance(one, EndpointSlice)],
    )
    config = KubeProxyConfig(cluster_cidrs=("10.244.0.0/16",), service_cidrs=("10.96.0.0/16",))
    PROXIES[proxy](ProxyNode("node-1", ("10.244.0.1",)), config).start(node, tracker)
    return net


def spread(counts: Counter[str], size: int) -> Spread:
    """Return what was counted beside what equal shares would give."""
    return Spread({server(n): counts[server(n)] for n in range(size)}, {})


def judge(counts: Counter[str], size: int, total: int, least: float) -> str:
    """Fail where something else was counted, or where chance gives such shares less often than `least`."""
    assert set(counts) <= {server(n) for n in range(size)}, counts
    assert counts.total() == total
    found = spread(counts, size)
    line = f"{total} over {size}: chi-square {found.chi_square:.2f}, p {found.by_chance:.4f}, {dict(found.counts)}"
    print(line)
    assert found.by_chance >= least, line
    return line
