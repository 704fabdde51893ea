"""A cluster nobody gave a pod network: nodes stay NotReady, pods stay in ContainerCreating."""

from __future__ import annotations

from kubenet_lab.daemon import World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects.node import Node


class NoNetwork:
    """No conflist, no daemon. The kubelets say `cni plugin not initialized`."""

    next = None

    def __init__(self, world: World) -> None:
        self.world = world

    def prepare(self, node: Node, space: Netns) -> None:
        """Put nothing in /etc/cni/net.d."""

    def reconcile(self) -> bool:
        """Do nothing."""
        return False

    def forget(self, node: str) -> None:
        """Know of no node."""

    def restart(self) -> None:
        """Have nothing to forget."""

    def last_words(self, node: str) -> str:
        """Have no daemon that could end."""
        return ""
