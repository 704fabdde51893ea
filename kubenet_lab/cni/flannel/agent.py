"""flanneld: the daemon on each node that tells the others about its pod subnet and routes to theirs.

It keeps a lease a node in that Node's annotations, makes `flannel.<VNI>`, and for each other lease one
route, one permanent neighbour and one FDB entry, so that no broadcast ever crosses the tunnel. Like the
real one it acts on lease events only: what is deleted by hand stays deleted until the daemon restarts (a
new `Agent`) or the lease changes. Source: https://github.com/flannel-io/flannel (v0.28):
`pkg/backend/vxlan`, `pkg/backend/hostgw`, `pkg/trafficmngr/iptables`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni.flannel.config import NetConf
from kubenet_lab.cni.flannel.plugin import SUBNET_FILE
from kubenet_lab.cni.plugin import add_lines, chain_lines
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import VxlanOptions
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects.node import Node, NodeCondition
from kubenet_lab.packet.ip import ip_text, mac_from, prefix

PREFIX = "flannel.alpha.coreos.com/"
VXLAN_OVERHEAD = 50
"""Bytes that outer Ethernet, IPv4, UDP and VXLAN headers take from the link's MTU."""


class Lease(Struct, frozen=True):
    """What one node offers: its pod subnet, and how to reach it (the Node's annotations, read)."""

    node: str
    subnet: str
    public_ip: str
    backend_type: str
    vtep_mac: str = ""

    @property
    def network_address(self) -> str:
        """First address of the subnet: the VTEP's own address, and next hop of the route."""
        return self.subnet.partition("/")[0]

    @classmethod
    def of(cls, node: Node) -> Lease | None:
        """Read a Node's lease; None while its flanneld has not written one."""
        notes = node.metadata.annotations
        if notes.get(PREFIX + "kube-subnet-manager") != "true" or not _pod_cidr(node):
            return None
        data = json.loads(notes.get(PREFIX + "backend-data") or "null") or {}
        return cls(
            node.name,
            _pod_cidr(node),
            notes.get(PREFIX + "public-ip", ""),
            notes.get(PREFIX + "backend-type", ""),
            data.get("VtepMAC", ""),
        )


def _pod_cidr(node: Node) -> str:
    cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    return next((str(prefix(c)) for c in cidrs if ":" not in c), "")


class Agent:
    """flanneld on one node. `leases` are those it has programmed, by node name."""

    def __init__(
        self,
        network: Network,
        node: str,
        conf: NetConf | None = None,
        *,
        iface: str = "eth0",
        ip_masq: bool = True,
    ) -> None:
        self.network = network
        self.node = node
        self.conf = conf or NetConf()
        self.iface = iface
        self.ip_masq = ip_masq
        self.leases: dict[str, Lease] = {}
        self.log: list[str] = []
        self._subnet = ""
        self._read: dict[str, tuple[Node, Lease | None]] = {}

    @property
    def netns(self) -> Netns:
        """The node's own network namespace, which the daemon shares."""
        return self.network.ns(self.node)

    @property
    def device(self) -> str:
        """Name of the tunnel's link."""
        return f"flannel.{self.conf.backend.vni}"

    @property
    def mtu(self) -> int:
        """What pods get: the link's MTU, less the tunnel's headers."""
        mtu = self.conf.backend.mtu or self.netns.link(self.iface).mtu
        return mtu - VXLAN_OVERHEAD if self.conf.backend.type == "vxlan" else mtu

    def reconcile(self, nodes: Iterable[Node]) -> list[Node]:
        """Bring this node's routes in line with the leases of `nodes`; return the own Node if it changed.

        Does nothing, and returns nothing, while the own Node is not there. Raises InputError when it has no
        pod CIDR (the real daemon exits with that message).
        """
        all_nodes = {node.name: node for node in nodes}
        own = all_nodes.get(self.node)
        changed: list[Node] = []
        if own is not None:
            subnet = _pod_cidr(own)
            if not subnet:
                raise InputError(f'failed to acquire lease: node "{self.node}" pod cidr not assigned')
            if not self._subnet:
                self._start(own, subnet)
        if self._subnet and self.conf.backend.type == "vxlan" and self.device not in self.netns.links:
            # Deleted under the daemon: it makes it again, but routes and entries only come with a lease
            # event.
            self._make_device(own)
        if own is not None:
            if (wished := self._announce(own)) != own:
                changed.append(wished)
        if not self._subnet:
            return changed
        wanted = {
            name: lease
            for name, node in all_nodes.items()
            if name != self.node
            and (lease := self._lease(node)) is not None
            and lease.backend_type == self.conf.backend.type
        }
        for name in [name for name in self.leases if self.leases[name] != wanted.get(name)]:
            self._forget(self.leases.pop(name))
        for name, lease in wanted.items():
            if name not in self.leases:
                self._learn(lease)
                self.leases[name] = lease
        return changed

    def _lease(self, node: Node) -> Lease | None:
        """A Node's lease, read again only when the Node changed."""
        seen = self._read.get(node.name)
        if seen is None or seen[0] is not node:
            seen = self._read[node.name] = (node, Lease.of(node))
        return seen[1]

    # -- the node's own part -------------------------------------------------------------------------------

    def _start(self, own: Node, subnet: str) -> None:
        self._subnet = subnet
        if self.conf.backend.type == "vxlan":
            self._make_device(own)
        for table, builtin, text in (
            ("nat", "POSTROUTING", self._masquerading()),
            ("filter", "FORWARD", self._forwarding()),
        ):
            # Rules of an earlier run stay when flanneld stops; only what is missing is added.
            present = set(chain_lines(self.netns, 4, table, builtin))
            lines = [line for line in text.splitlines() if line not in present]
            add_lines(self.netns, 4, "\n".join(lines) + "\n") if text else None
        self.netns.files[SUBNET_FILE] = self.subnet_env()

    def _make_device(self, own: Node | None) -> None:
        """`ip link add flannel.1 type vxlan id 1 local IP dev eth0 dstport 8472 nolearning`; its address."""
        ns, backend = self.netns, self.conf.backend
        lease = Lease.of(own) if own is not None else None
        # Random at first, then taken from the annotation, so that a restart keeps it.
        mac = (lease.vtep_mac if lease else "") or mac_from(self.node, self.device, first=0x02)
        if self.device not in ns.links:
            options = VxlanOptions(
                vni=backend.vni,
                local=self._own_address(),
                link=self.iface,
                port=backend.port,
                learning=backend.learning,
            )
            ns.add_link(self.device, "vxlan", mac=mac, mtu=self.mtu, vxlan=options)
        address = f"{self._subnet.partition('/')[0]}/32"
        if not any(f"{a.local}/{a.length}" == address for a in ns.addrs(self.device, 4)):
            ns.add_address(self.device, address)
        if not ns.link(self.device).up:
            ns.set_link(self.device, up=True)

    def _own_address(self) -> str:
        found = [a.local for a in self.netns.addrs(self.iface, 4) if a.scope == "global"]
        if not found:
            raise InputError(f"failed to find IPv4 address for interface {self.iface}")
        return found[0]

    def _announce(self, own: Node) -> Node:
        """The own Node with the lease in its annotations and NetworkUnavailable cleared."""
        notes = dict(own.metadata.annotations)
        backend = self.conf.backend
        data = (
            {"VNI": backend.vni, "VtepMAC": self.netns.link(self.device).mac}
            if backend.type == "vxlan"
            else None
        )
        notes[PREFIX + "backend-data"] = json.dumps(data, separators=(",", ":"))
        notes[PREFIX + "backend-type"] = backend.type
        notes[PREFIX + "kube-subnet-manager"] = "true"
        notes[PREFIX + "public-ip"] = notes.get(PREFIX + "public-ip-overwrite") or self._own_address()
        up = NodeCondition(
            type="NetworkUnavailable",
            status="False",
            reason="FlannelIsUp",
            message="Flannel is running on this node",
        )
        conditions = tuple(c for c in own.status.conditions if c.type != up.type)
        if up not in own.status.conditions:
            own = replace(own, status=replace(own.status, conditions=(*conditions, up)))
        changed: Node = own.with_metadata(annotations=notes) if notes != own.metadata.annotations else own
        return changed

    def subnet_env(self) -> str:
        """Text of /run/flannel/subnet.env, for the CNI plugin. FLANNEL_SUBNET holds the bridge's address."""
        block = prefix(self._subnet)
        return (
            f"FLANNEL_NETWORK={self.conf.network}\n"
            f"FLANNEL_SUBNET={ip_text(block.net + 1, 4)}/{block.length}\n"
            f"FLANNEL_MTU={self.mtu}\n"
            f"FLANNEL_IPMASQ={'true' if self.ip_masq else 'false'}\n"
        )

    def _forwarding(self) -> str:
        net, comment = self.conf.network, '-m comment --comment "flanneld forward"'
        return (
            "*filter\n:FLANNEL-FWD - [0:0]\n"
            f"-A FORWARD {comment} -j FLANNEL-FWD\n"
            f"-A FLANNEL-FWD -s {net} {comment} -j ACCEPT\n"
            f"-A FLANNEL-FWD -d {net} {comment} -j ACCEPT\nCOMMIT\n"
        )

    def _masquerading(self) -> str:
        """What leaves the pod network gets the node's address; 0x4000 is kube-proxy's own mark."""
        if not self.ip_masq:
            return ""
        net, own, comment = self.conf.network, self._subnet, '-m comment --comment "flanneld masq"'
        return (
            "*nat\n:FLANNEL-POSTRTG - [0:0]\n"
            f"-A POSTROUTING {comment} -j FLANNEL-POSTRTG\n"
            f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {comment} -j RETURN\n"
            f"-A FLANNEL-POSTRTG -s {own} -d {net} {comment} -j RETURN\n"
            f"-A FLANNEL-POSTRTG -s {net} -d {own} {comment} -j RETURN\n"
            f"-A FLANNEL-POSTRTG ! -s {net} -d {own} {comment} -j RETURN\n"
            f"-A FLANNEL-POSTRTG -s {net} ! -d 224.0.0.0/4 {comment} -j MASQUERADE --random-fully\n"
            f"-A FLANNEL-POSTRTG ! -s {net} -d {net} {comment} -j MASQUERADE --random-fully\nCOMMIT\n"
        )

    # -- the other nodes -----------------------------------------------------------------------------------

    def _direct(self, lease: Lease) -> bool:
        """True when the other node is on our link, so that no tunnel is needed (DirectRouting)."""
        if not self.conf.backend.direct_routing:
            return False
        way = self.netns.lookup(lease.public_ip)
        return way is not None and not way.via

    def _learn(self, lease: Lease) -> None:
        ns, dev = self.netns, self.device
        self.log.append(
            f"Received Subnet Event: BackendType: {lease.backend_type}, PublicIP: {lease.public_ip}"
        )
        try:
            if self.conf.backend.type == "host-gw" or self._direct(lease):
                ns.add_route(lease.subnet, via=lease.public_ip, dev=self.iface, replace_existing=True)
                return
            ns.set_neighbour(dev, lease.network_address, lease.vtep_mac)
            entry = FdbEntry(dev, lease.vtep_mac, dst=lease.public_ip, state="permanent")
            ns.add_fdb(entry, replace_existing=True)
            ns.add_route(lease.subnet, via=lease.network_address, dev=dev, onlink=True, replace_existing=True)
        except KernelError as fault:
            # "network is unreachable" for a host-gw peer in another subnet: logged, and the daemon goes on
            # without it.
            self.log.append(f"failed to add route to {lease.subnet}: {fault}")

    def _forget(self, lease: Lease) -> None:
        ns, dev = self.netns, self.device
        if self.conf.backend.type == "host-gw" or self._direct(lease):
            steps: list[Callable[[], object]] = [lambda: ns.delete_route(lease.subnet, via=lease.public_ip)]
        else:
            steps = [
                lambda: ns.delete_neighbour(dev, lease.network_address),
                lambda: ns.delete_fdb(dev, lease.vtep_mac, lease.public_ip),
                lambda: ns.delete_route(lease.subnet, via=lease.network_address),
            ]
        for step in steps:
            try:
                step()
            except KernelError as fault:
                self.log.append(f"failed to remove {lease.subnet}: {fault}")
