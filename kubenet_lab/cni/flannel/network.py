"""Flannel in a cluster: its conflist on every machine, a flanneld on every node."""

from __future__ import annotations

from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.flannel.config import Backend, NetConf
from kubenet_lab.cni.runtime import CONF_DIR, FLANNEL_CONFLIST
from kubenet_lab.daemon import World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects.node import Node


class Flannel:
    """flanneld announces its node's lease in the Node's annotations and programs the leases of the others."""

    next = None

    def __init__(self, world: World, backend: str = "vxlan") -> None:
        self.world = world
        self.backend = backend
        self.agents: dict[str, Agent] = {}

    def prepare(self, node: Node, space: Netns) -> None:
        """Write /etc/cni/net.d/10-flannel.conflist."""
        space.files[f"{CONF_DIR}/10-flannel.conflist"] = FLANNEL_CONFLIST

    def reconcile(self) -> bool:
        """Let every flanneld look at all Nodes."""
        store = self.world.store
        nodes = store.list(Node)
        changed = False
        for node in nodes:
            agent = self.agents.get(node.name)
            if agent is None:
                conf = NetConf(network=self.world.cluster_cidrs[0], backend=Backend(type=self.backend))
                agent = self.agents[node.name] = Agent(self.world.network, node.name, conf)
            for wished in agent.reconcile(nodes):
                store.update(wished)
                changed = True
        return changed

    def forget(self, node: str) -> None:
        """Let the daemon of a machine that is gone go too; the others hear of it from the API."""
        self.agents.pop(node, None)

    def restart(self) -> None:
        """Start every flanneld anew."""
        self.agents.clear()
