"""Gives each node its share of the pod address range (kube-controller-manager's node IPAM, range allocator).

https://github.com/kubernetes/kubernetes/tree/master/pkg/controller/nodeipam
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.errors import Invalid
from kubenet_lab.objects import Node
from kubenet_lab.store import Store


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Shares for the nodes that have none, in the order the nodes came.

    A share that a node has stays its own.

    Raises:
        Invalid: The range has no share left, or a node's own `podCIDR` is not a prefix.
    """
    nodes = store.list(Node)
    if all(node.spec.pod_cidrs or node.spec.pod_cidr for node in nodes):
        return []
    taken = [
        _network(node, cidr)
        for node in nodes
        for cidr in (node.spec.pod_cidrs or (node.spec.pod_cidr,))
        if cidr
    ]
    shares = [_free(cidr, settings, taken) for cidr in settings.cluster_cidr]
    changes = []
    for node in nodes:
        if node.spec.pod_cidrs or node.spec.pod_cidr:
            continue
        cidrs = []
        for cidr, free in zip(settings.cluster_cidr, shares, strict=True):
            share = next(free, None)
            if share is None:
                raise Invalid("Node", node.name, "spec.podCIDR", f"no share of {cidr} is left for this node")
            cidrs.append(share)
        changes.append(
            Change("update", node.with_pod_cidrs(tuple(cidrs)), "the node has no pod address range")
        )
    return changes


def _network(node: Node, cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(cidr)
    except ValueError:
        example = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        raise Invalid("Node", node.name, "spec.podCIDRs[0]", f'Invalid value: "{cidr}": {example}') from None


def _free(
    cidr: str, settings: Settings, taken: list[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> Iterator[str]:
    """The shares of a range nobody has, from its start; a generator, because an IPv6 range has very many."""
    whole = ipaddress.ip_network(cidr)
    size = settings.node_cidr_mask_size_ipv4 if whole.version == 4 else settings.node_cidr_mask_size_ipv6
    same = [item for item in taken if item.version == whole.version]
    exact = {item for item in same if item.prefixlen == size}
    odd = [item for item in same if item.prefixlen != size]
    for share in whole.subnets(new_prefix=size):
        if share not in exact and not any(share.overlaps(item) for item in odd):
            yield str(share)
