"""The rules of one node as text, straight from objects: what `kubenet-lab rules` prints.

No cluster is built: Services and EndpointSlices go in as they are, no slice is made and no address allocated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from kubenet_lab.errors import NotFound
from kubenet_lab.objects import AnyObject, EndpointSlice, Json, Node, Service, default_nodes, from_manifest
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.iptables import KubeProxyIptables, Written

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
"""Where pods' addresses come from unless a flag says otherwise, one block a family."""

As = Literal["written", "saved"]

RESTORE = {4: "iptables-restore", 6: "ip6tables-restore"}
SAVE = {4: "iptables-save", 6: "ip6tables-save"}


def lab_nodes(count: int = 3) -> list[Node]:
    """Return the nodes of a world that names none, in both families, each with its pod blocks (a /24 and a /64)."""
    return [
        node.with_pod_cidrs((f"10.244.{i}.0/24", f"fd00:10:244:{i:x}::/64" if i else "fd00:10:244::/64"))
        for i, node in enumerate(default_nodes(count, dual_stack=True))
    ]


def _typed(objects: Iterable[AnyObject | Json]) -> list[AnyObject]:
    return [from_manifest(given) if isinstance(given, dict) else given for given in objects]


def proxy_node(objects: Iterable[AnyObject | Json], name: str) -> ProxyNode:
    """Return the node called `name` among the objects, or of the three lab nodes if there is no Node at all.

    Raises NotFound.
    """
    nodes = [given for given in _typed(objects) if isinstance(given, Node)] or lab_nodes()
    for node in nodes:
        if node.name == name:
            return ProxyNode.from_node(node)
    raise NotFound("Node", name, resource="nodes", nearest=nodes[0].name if len(nodes) == 1 else "")


def first_sync(objects: Iterable[AnyObject | Json], node: str, flags: Iterable[str] = ()) -> Written:
    """Return what kube-proxy writes when it starts on `node`. Raises NotFound for the node, InputError for flags."""
    everything = _typed(objects)
    config = KubeProxyConfig.from_flags(flags, cluster_cidrs=CLUSTER_CIDRS)
    return KubeProxyIptables(proxy_node(everything, node), config).sync(
        [given for given in everything if isinstance(given, Service)],
        [given for given in everything if isinstance(given, EndpointSlice)],
    )
