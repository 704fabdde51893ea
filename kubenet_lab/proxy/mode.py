"""What a Service data plane is to the cluster: one object a node that programs that node's kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import Named, ServiceTracker

Changed = Mapping[int, set[Named]]
"""By IP family (4, 6): the Services that are not as they were at the last sync."""


class NodeProxy(Protocol):
    """kube-proxy (in one mode) or its replacement on one node. *When* it syncs is not its concern."""

    node: ProxyNode
    config: KubeProxyConfig

    def start(self, space: Netns, tracker: ServiceTracker) -> None:
        """Set sysctls and do the first full sync. It may be left to the first look at the node's rules."""

    def follow(self, space: Netns, tracker: ServiceTracker, changed: Changed) -> None:
        """Do one sync: bring the node's kernel to `tracker.maps`. Every change must be told to every node."""


class MakeProxy(Protocol):
    """The form of a mode's class."""

    def __call__(self, node: ProxyNode, config: KubeProxyConfig) -> NodeProxy:
        """Make one node's proxy."""
