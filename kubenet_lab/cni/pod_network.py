"""What a pod network is to the cluster: its daemons on all nodes, and the files its installer brings."""

from __future__ import annotations

from typing import Protocol

from kubenet_lab.daemon import Daemon, World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects.node import Node


class PodNetwork(Daemon, Protocol):
    """The daemons of one pod network, made once a cluster."""

    def prepare(self, node: Node, space: Netns) -> None:
        """Put the network's files on a machine that was just built, such as its conflist in /etc/cni/net.d."""

    def last_words(self, node: str) -> str:
        """Return how the log of a node's daemon that has ended by itself ends; "" while it runs, or there is none."""


class MakePodNetwork(Protocol):
    """The form of a pod network's class."""

    def __call__(self, world: World) -> PodNetwork:
        """Make the network of a cluster whose machines are not built yet."""
