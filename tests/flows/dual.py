"""The table of flows once more over IPv6, in the dual-stack shop."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Service
from kubenet_lab.packet.packet import ICMPV6, UDP
from kubenet_lab.scenarios import shop
from kubenet_lab.twin import Flow
from tests.flows.flows import B1, B2, B3, BACKENDS, Row, place

OUTSIDE, ROUTER = "2001:db8:113::10", "fd00:192:168:1::1"

EXTRA = """
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: nobody}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  nodeName: node-2
  containers: [{name: alone, image: alone, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: alone}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: alone}
  ports: [{port: 80, targetPort: 8080}]
"""

ROWS: tuple[Row, ...] = (
    Row(name="pod to pod, same node", src="frontend", dst=B1, port=8080,
        end="connected", servers=(B1,), sources=("frontend",)),
    Row(name="pod to pod, across", src="frontend", dst=B2, port=8080,
        end="connected", servers=(B2,), sources=("frontend",)),
    Row(name="pod to itself", src="frontend", dst="frontend", port=8080,
        end="connected", servers=("frontend",), sources=("frontend",)),
    Row(name="Service", src="frontend", dst="svc/backend", port=80, count=12,
        end="connected", servers=BACKENDS, sources=("frontend",)),
    Row(name="Service, from another node", src="database", dst="svc/backend", port=80, count=12,
        end="connected", servers=BACKENDS, sources=("database",)),
    Row(name="Service, with one endpoint", src="frontend", dst="svc/database", port=5432,
        end="connected", servers=("database",), sources=("frontend",)),
    Row(name="Service, itself only (hairpin)", src="alone", dst="svc/alone", port=80,
        end="connected", servers=("alone",), sources=("fd00:10:244:1::1",)),
    Row(name="Service without endpoints", src="frontend", dst="svc/empty", port=80,
        end="refused", icmp=(1, 4, "fd00:10:244::1")),
    Row(name="refused, same node", src="frontend", dst=B1, port=81, end="refused"),
    Row(name="refused, across", src="frontend", dst=B2, port=81, end="refused"),
    Row(name="refused, UDP", src="frontend", dst=B2, port=81, proto=UDP, end="refused", icmp=(1, 4, B2)),
    Row(name="unknown address outside", src="frontend", dst="2001:db8:999::9", port=80,
        end="unreachable", icmp=(1, 0, ROUTER)),
    Row(name="node to its pod", src="node-1", dst="frontend", port=8080,
        end="connected", servers=("frontend",), sources=("fd00:10:244::1",)),
    Row(name="pod to its node", src="frontend", dst="node-1", port=10250,
        end="connected", servers=("node-1",), sources=("frontend",)),
    Row(name="pod to another node", src="frontend", dst="node-2", port=10250,
        end="connected", servers=("node-2",), sources=("node-1",)),
    Row(name="node to node", src="node-1", dst="node-3", port=10250,
        end="connected", servers=("node-3",), sources=("node-1",)),
    Row(name="pod to outside (masqueraded)", src="frontend", dst=OUTSIDE, port=80,
        end="connected", servers=("outside",), sources=("node-1",)),
    Row(name="outside to node", src="outside", dst="node-1", port=10250,
        end="connected", servers=("node-1",), sources=("outside",)),
    Row(name="ping, across", src="frontend", dst=B3, proto=ICMPV6, size=56,
        end="answered", servers=(B3,), sources=("frontend",)),
    Row(name="ping outside", src="frontend", dst=OUTSIDE, proto=ICMPV6, size=56,
        end="answered", servers=("outside",), sources=("node-1",)),
    Row(name="TTL 1", src="frontend", dst=B2, proto=ICMPV6, size=56, ttl=1,
        end="ttl exceeded", icmp=(3, 0, "fd00:10:244::1")),
    Row(name="TTL 3, across", src="frontend", dst=B2, proto=ICMPV6, size=56, ttl=3,
        end="answered", servers=(B2,), sources=("frontend",)),
)  # fmt: skip

INSTEAD: dict[str, dict[str, dict[str, Any]]] = {
    "ipvs": {"Service without endpoints": {"icmp": (1, 4, "svc/empty")}},
    "ebpf": {
        "Service, itself only (hairpin)": {"sources": ("alone",)},
        "Service without endpoints": {"end": "unreachable", "icmp": None},
    },
}
"""Mode -> row -> what is otherwise there; the reasons are those of the IPv4 table."""


def masquerades(cni: str) -> str:
    """Return Calico's IPv6 pool with the masquerading that its IPv4 one has from the start."""
    mode = "Always" if cni == "calico-vxlan" else "Never"
    return (
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: default-ipv6-ippool}\n"
        f"spec: {{cidr: 'fd00:10:244::/56', natOutgoing: true, vxlanMode: {mode}}}\n"
    )


OVER_CALICO: dict[str, dict[str, Any]] = {
    # An IPv6 pool has no natOutgoing unless one asks for it (calico-node's default), and the router has no way back.
    "pod to outside (masqueraded)": {"end": "timed out", "sources": ("frontend",)},
    "ping outside": {"end": "timed out", "sources": ("frontend",)},
    "unknown address outside": {"end": "timed out", "icmp": None},
    "pod to another node": {"sources": ("frontend",)},
}


def over_calico(row: Row, cni: str = "calico") -> Row:
    """Return a row as it ends over Calico: there is no cni0 whose address a node would take, so it takes its own.

    With a tunnel that is the tunnel's, which begins as the node's pods' do (RFC 6724, rule 8).
    """
    row = replace(row, **OVER_CALICO.get(row.name, {}))
    own = "tunnel@" if cni == "calico-vxlan" else ""
    nodes = {"fd00:10:244::1": f"{own}node-1", "fd00:10:244:1::1": f"{own}node-2"}
    sources = tuple(nodes.get(source, source) for source in row.sources)
    icmp = row.icmp and (row.icmp[0], row.icmp[1], nodes.get(row.icmp[2], row.icmp[2]))
    return replace(row, sources=sources, icmp=icmp)


def world(cni: str, proxy: str) -> Cluster:
    """The dual-stack shop with a Service that has no endpoints and one that calls itself."""
    built = shop(cni=cni, proxy=proxy, dual_stack=True)
    built.apply(EXTRA)
    if cni == "bridge":
        built.pod_network.write_routes()  # type: ignore[attr-defined]
    return built


def address(cluster: Cluster, name: str) -> str:
    """Return an IPv6 address as it is, or the one of a Service ("svc/backend") or a place."""
    if ":" in name:
        return name
    if name.startswith("svc/"):
        found = cluster.store.get(Service, name.removeprefix("svc/"), "default").addresses
        return next(ip for ip in found if ":" in ip)
    ns = cluster.network.ns(place(cluster.network, name.removeprefix("tunnel@")))
    device = "vxlan-v6.calico" if name.startswith("tunnel@") else "eth0"
    return next(a.local for a in ns.addrs(device, 6) if a.scope == "global")


def flow(row: Row, cluster: Cluster) -> Flow:
    """Return a row as something to try."""
    network: Network = cluster.network
    return Flow(
        name=row.name, ns=place(network, row.src), dst=address(cluster, row.dst), port=row.port, proto=row.proto,
        size=row.size, df=row.df, ttl=row.ttl, count=row.count, payload=row.payload,
    )  # fmt: skip
