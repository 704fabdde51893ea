"""The same call in every Service data plane: one cluster a mode of the same objects, and what grows with Services."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kubenet_lab.cluster import PROXIES, Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import EndpointSlice, Service, from_manifest
from kubenet_lab.packet.packet import SYN, TCP, Packet, endpoint
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import ServiceTracker
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.views.planes import Planes, planes
from kubenet_lab.walk.engine import Walk

COUNTS = (10, 100, 1000)
"""Numbers of Services at which the cost is measured."""


class FourPlanes:
    """One cluster a data plane, all of the same objects.

    Args:
        manifests: What the clusters run; the shop by default.
        modes: Names in `cluster.PROXIES`.
        counts: Numbers of Services for the curve of costs; () leaves it out.
        cni: The pod network of all of them.
    """

    def __init__(
        self,
        manifests: Iterable[str | Path] = (MANIFEST,),
        modes: Iterable[str] = tuple(PROXIES),
        counts: Iterable[int] = COUNTS,
        cni: str = "flannel",
    ) -> None:
        files, sizes = tuple(manifests), tuple(counts)
        self.clusters = {mode: Cluster.from_files(*files, proxy=mode, cni=cni) for mode in modes}
        self.growth = (
            {mode: tuple((n, cost(mode, n)) for n in sizes) for mode in self.clusters} if sizes else {}
        )

    def __repr__(self) -> str:
        return f"<the same cluster with {', '.join(self.clusters)}>"

    def connect(self, source: str = "frontend", target: str = "http://backend") -> Planes:
        """Make one call in each cluster (`Cluster.connect`) and compare. Raises ValueError for an unknown name."""
        calls, called = {}, target
        for mode, cluster in self.clusters.items():
            trip = cluster.connect(source, target)
            if trip.exchange is None:
                raise ValueError(f"{target} has no address: {trip.why}")
            called = endpoint(trip.address, trip.port) if trip.port else trip.address
            calls[mode] = trip.exchange
        return planes(calls, called=called, title=f"{source} calls {target}", growth=self.growth)


def cost(mode: str, services: int) -> int:
    """Return how many entries a linear kernel compares for a node's packet to the last of some Services.

    Each has one endpoint. The node is alone: no pod network, so that nothing else is counted.
    """
    packet = Packet("", _address(services - 1), TCP, 0, 80, flags=SYN)
    return Walk(alone(mode, services)).send("node-1", packet).rules_tried


def alone(mode: str, services: int) -> Network:
    """Return the network of one node, node-1, that a data plane programmed for so many Services and nothing else."""
    network = Network()
    node = network.add_netns("node-1")
    network.add_wire("wire")
    node.add_link("eth0", "physical", mac="0a:00:00:00:00:01")
    network.plug("wire", "node-1", "eth0")
    node.set_link("eth0", up=True)
    node.add_address("eth0", "192.168.1.10/24")
    node.add_route("default", via="192.168.1.1", dev="eth0")
    tracker = ServiceTracker()
    tracker.update(*_many(services))
    config = KubeProxyConfig(cluster_cidrs=("10.244.0.0/16",), service_cidrs=("10.96.0.0/12",))
    addresses = ("127.0.0.1", "192.168.1.10")
    PROXIES[mode](ProxyNode("node-1", ("192.168.1.10",), interface_addresses=addresses), config).start(
        node, tracker
    )
    return network


def _address(number: int) -> str:
    return f"10.{96 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def _many(count: int) -> tuple[list[Service], list[EndpointSlice]]:
    services, slices = [], []
    for n in range(count):
        name = f"many-{n:06}"
        service = from_manifest({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": _address(n), "clusterIPs": [_address(n)], "ipFamilies": ["IPv4"],
                     "ports": [{"port": 80, "protocol": "TCP"}]},
        })  # fmt: skip
        one = from_manifest({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{name}-1", "namespace": "default",
                         "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [f"10.244.{n // 250 % 250}.{n % 250 + 1}"], "nodeName": "node-2",
                           "conditions": {"ready": True}}],
            "ports": [{"port": 8080, "protocol": "TCP"}],
        })  # fmt: skip
        assert isinstance(service, Service)
        assert isinstance(one, EndpointSlice)
        services.append(service)
        slices.append(one)
    return services, slices
