"""Pod networks without a daemon: a conflist a node, as by hand, and nobody who brings routes between the nodes.

Every node has a conflist with its own pod subnets, written by whoever set the machine up (Kubernetes The Hard Way,
`10-bridge.conf`). Pods of one node reach each other and the outside; pods of other nodes only once somebody writes the
static routes (`write_routes`). https://github.com/kelseyhightower/kubernetes-the-hard-way
"""

from __future__ import annotations

import json
from typing import Any

from kubenet_lab.cni.plugin import CONF_DIR
from kubenet_lab.daemon import World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import files_now
from kubenet_lab.objects.node import Node
from kubenet_lab.packet.ip import family

CONF_FILE = f"{CONF_DIR}/10-bridge.conflist"


class StaticNetwork:
    """A conflist a node, and no daemon. Subclasses say what the plugin chain is (`plugin`)."""

    next = None

    def __init__(self, world: World) -> None:
        self.world = world

    def plugin(self, subnets: tuple[str, ...]) -> dict[str, Any]:
        """Return the first plugin of the chain for a node's pod subnets."""
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": subnet}] for subnet in subnets],
            "routes": [{"dst": "0.0.0.0/0" if family(subnet) == 4 else "::/0"} for subnet in subnets],
        }
        return {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": ipam,
        }

    def conflist(self, subnets: tuple[str, ...]) -> str:
        """Return the text of a node's conflist."""
        chain = [
            self.plugin(subnets),
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ]
        name = str(chain[0]["type"])
        return json.dumps({"cniVersion": "1.0.0", "name": name, "plugins": chain}, indent=2) + "\n"

    def prepare(self, node: Node, space: Netns) -> None:
        """Do nothing yet: the conflist names the node's pod subnets, which it may not have."""

    def reconcile(self) -> bool:
        """Write the conflist of nodes that have got their pod subnets and never had one."""
        changed = False
        for node in self.world.store.list(Node):
            subnets = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
            space = self.world.network.ns(node.name)
            # Written once: one that somebody took away or changed is not written again.
            if subnets and files_now(space).get("/etc/cni/written-for") != " ".join(subnets):
                space.files["/etc/cni/written-for"] = " ".join(subnets)
                space.files[CONF_FILE] = self.conflist(subnets)
                changed = True
        return changed

    def write_routes(self) -> None:
        """`ip route add 10.244.1.0/24 via 192.168.1.20` on every node for every other one, as an administrator would.

        Nodes that are not on the same link are left out: the kernel refuses such a gateway.
        """
        nodes = self.world.store.list(Node)
        for node in nodes:
            space = self.world.network.ns(node.name)
            for other in nodes:
                if other is node:
                    continue
                for subnet in other.spec.pod_cidrs or (other.spec.pod_cidr,):
                    fam = family(subnet)
                    way = next((ip for ip in other.internal_ips if family(ip) == fam), "")
                    if way and any(way in a.network for a in space.addrs("eth0", fam)):
                        space.add_route(subnet, via=way, dev="eth0", replace_existing=True)

    def forget(self, node: str) -> None:
        """Have no daemon to end."""

    def restart(self) -> None:
        """Have nothing in memory."""

    def last_words(self, node: str) -> str:
        """Have no daemon that could end."""
        return ""
