"""What serves Services of type LoadBalancer is to the cluster: a daemon that also looks at the nodes from outside."""

from __future__ import annotations

from typing import Protocol

from kubenet_lab.daemon import Daemon, World


class LoadBalancer(Daemon, Protocol):
    """Gives such Services their addresses, and brings packets for these to the nodes."""

    def settled(self) -> None:
        """Everything else is at rest at this moment: send the health checks that are due, and heed them."""


class MakeLoadBalancer(Protocol):
    """The form of a load balancer's class."""

    def __call__(self, world: World) -> LoadBalancer:
        """Make the load balancer of a cluster whose machines are not built yet."""
