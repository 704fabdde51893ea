"""The shop: three nodes, a frontend, three backends behind a Service, a database, and CoreDNS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import DUAL_STACK
from kubenet_lab.objects import AnyObject, Service

MANIFEST = Path(__file__).with_name("shop.yaml")


def shop(
    *, cni: str = "flannel", proxy: str = "iptables", nodes: int = 3, dual_stack: bool = False, **options: Any
) -> Cluster:
    """Build the shop, running and at rest.

    node-1..3 are 192.168.1.10/20/30; pods live in 10.244.0.0/16, a /24 a node. `frontend` calls the Service `backend`
    (10.96.0.100:80, three pods on 8080), which calls `database` (10.96.0.200:5432).

    With `dual_stack` nodes (fd00:192:168:1::10/20/30), pods (fd00:10:244::/56, a /64 a node) and the host outside
    (2001:db8:113::10) have an IPv6 address as well, and the Services `backend` and `database` ask for both families
    (`ipFamilyPolicy: PreferDualStack`; second addresses from fd00:10:96::/112).
    """
    if not dual_stack:
        return Cluster.from_files(MANIFEST, nodes=nodes, cni=cni, proxy=proxy, **options)
    options.setdefault("settings", DUAL_STACK)
    both = [_both(obj) for obj in manifests.load(MANIFEST)]
    return Cluster.from_objects(both, nodes=nodes, cni=cni, proxy=proxy, **options)


def _both(obj: AnyObject) -> AnyObject:
    """A Service that takes both families where the cluster has them; any other object as it is."""
    if not isinstance(obj, Service):
        return obj
    return replace(obj, spec=replace(obj.spec, ip_family_policy="PreferDualStack"))
