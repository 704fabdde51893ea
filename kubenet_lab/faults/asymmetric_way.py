"""Packets come in where the way back does not go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.kernel.route import TABLE_MAIN, Route
from kubenet_lab.kernel.sysctl import conf
from kubenet_lab.objects.node import Node

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class AsymmetricWay(Fault, frozen=True):
    """A node sends a peer's pods their packets around the tunnel, and the peer checks the reverse path strictly.

    Symptom: pods of the node do not reach pods of the peer; those of other nodes do.
    Where it lives: routes of the node through eth0 instead of the tunnel; `net.ipv4.conf.eth0.rp_filter = 1` on the
    peer, whose way back goes through the tunnel.
    Which tool shows it: `ip route get POD` on the node says eth0, `ip route get SENDER` on the peer says the tunnel,
    and `sysctl net.ipv4.conf.eth0.rp_filter` there says 1; `tcpdump -i eth0` on the peer shows packets that `tcpdump`
    in the pod never does. (A real node also counts TcpExtIPReversePathFilter, and logs martians where told to.)
    Cure: make both directions take one way, or set rp_filter to 2 (loose).
    """

    NAME: ClassVar[str] = "rp-filter-asymmetry"
    TITLE: ClassVar[str] = "packets come in where the way back does not go out"

    node: str = "node-1"
    peer: str = "node-2"

    def inject(self, cluster: Cluster) -> Undo:
        """Lead the node's routes past the tunnel. Raises NotFound where none goes through one."""
        space, far = cluster.node(self.node).ns, cluster.node(self.peer).ns
        address = cluster.store.get(Node, self.peer).internal_ips[0]
        ends = {a.local for a in far.addrs(None, 4)} | {address}
        kinds = ("vxlan", "ipip", "geneve")
        led: list[Route] = [
            route
            for route in space.routes.get((4, TABLE_MAIN), {}).values()
            if route.dev in space.links
            and space.link(route.dev).kind in kinds
            and (route.via in ends or route.dst.partition("/")[0] in ends)
        ]
        if not led:
            raise NotFound("route through a tunnel", f"from {self.node} to {self.peer}")
        key = conf(4, "eth0", "rp_filter")
        was = {k: v for k, v in far.sysctls.items() if ".conf.eth0." in k}
        for route in led:
            space.delete_route(route.dst, dev=route.dev)
            space.add_route(route.dst, via=address, dev="eth0")
        far.set_sysctl(key, 1)

        def undo() -> None:
            for route in led:
                space.delete_route(route.dst, via=address)
                fields = {name: getattr(route, name) for name in route.__struct_fields__ if name != "dst"}
                space.add_route(route.dst, **fields)
            far.forget_sysctls("eth0")
            for name, value in was.items():
                far.set_sysctl(name, value)

        return undo
