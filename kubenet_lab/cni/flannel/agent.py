"""flanneld: the daemon on each node that tells the others about its pod subnets and routes to theirs.

It keeps a lease a node in that Node's annotations, makes its backend's device, and for each other lease what that
backend needs: with vxlan one route, one permanent neighbour and one FDB entry, so that no broadcast ever crosses the
tunnel. Like the real one it acts on lease events only: what is deleted by hand stays deleted until the daemon restarts
(a new `Agent`) or the lease changes; only its rules are looked at again every few seconds. Source:
https://github.com/flannel-io/flannel (v0.28): `main.go`, `pkg/backend`, `pkg/trafficmngr`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.cni.flannel import rules
from kubenet_lab.cni.flannel.config import BACKENDS, Flags, NetConf
from kubenet_lab.cni.flannel.lease import PREFIX, Half, Lease, pod_cidr, with_lease
from kubenet_lab.cni.flannel.plugin import SUBNET_FILE
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import TunnelOptions, VxlanOptions, WireguardOptions, WireguardPeer
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.objects.node import Node, NodeCondition
from kubenet_lab.packet.ip import ip_text, mac_from, prefix

__all__ = ["PREFIX", "Agent", "Lease"]

OVERHEAD = {"vxlan": {4: 50, 6: 70}, "wireguard": {4: 80, 6: 80}, "ipip": {4: 20}, "udp": {4: 28}}
"""Bytes that a backend's outer headers take from the link's MTU."""
DEFAULT_VXLAN_PORT = 8472
UP = NodeCondition(
    type="NetworkUnavailable",
    status="False",
    reason="FlannelIsUp",
    message="Flannel is running on this node",
)


class _Exit(Exception):
    """flanneld gives up; the message is what it logs."""


SMALLEST_MTU, LARGEST_MTU = 68, 65535


class Agent:
    """flanneld on one node.

    Attributes:
        leases: The leases it has programmed, by node name.
        log: What it logged, in the form of its own lines without the time.
        exited: Its exit status, None while it runs.
    """

    def __init__(
        self,
        network: Network,
        node: str,
        conf: NetConf | None = None,
        flags: Flags | None = None,
    ) -> None:
        self.network = network
        self.node = node
        self.conf = conf or NetConf()
        self.flags = flags or Flags()
        self.leases: dict[str, Lease] = {}
        self.log: list[str] = []
        self.exited: int | None = None
        self.subnets: dict[int, str] = {}
        """The node's own pod subnets by family; empty until it has its lease."""
        self._addresses: dict[int, str] = {}
        self._read: dict[str, tuple[Node, Lease | None]] = {}

    @property
    def netns(self) -> Netns:
        """The node's own network namespace, which the daemon shares."""
        return self.network.ns(self.node)

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.conf.backend.type

    def device(self, fam: int) -> str:
        """Name of the link that packets to other nodes leave by."""
        vni = self.conf.backend.vni
        names = {
            "vxlan": {4: f"flannel.{vni}", 6: f"flannel-v6.{vni}"},
            "wireguard": {4: "flannel-wg", 6: "flannel-wg-v6"},
            "ipip": {4: "flannel.ipip"},
            "udp": {4: "flannel0"},
        }
        return names.get(self.backend, {}).get(fam, self.flags.iface)

    def mtu(self, fam: int = 4) -> int:
        """The MTU of the backend's device: the link's, less the outer headers. `FLANNEL_MTU` is always IPv4's."""
        mtu = (self.conf.backend.mtu if self.backend in ("vxlan", "wireguard") else 0) or self.netns.link(
            self.flags.iface
        ).mtu
        return mtu - OVERHEAD.get(self.backend, {}).get(fam, 0)

    def say(self, level: str, text: str) -> None:
        """Log a line: level (I, W or E) and text."""
        self.log.append(f"{level} {text}")

    def reconcile(self, nodes: Iterable[Node]) -> list[Node]:
        """Bring this node's state in line with the leases of `nodes`; return the own Node if it changed.

        Does nothing while the own Node is not there, and nothing once the daemon has exited.
        """
        all_nodes = {node.name: node for node in nodes}
        changed = self.announce(all_nodes.get(self.node))
        if not self.subnets:
            return changed
        self.follow(
            {name: lease for name, node in all_nodes.items() if (lease := self._lease(node)) is not None}
        )
        return changed

    def announce(self, own: Node | None) -> list[Node]:
        """Start if it has not yet, keep its device, and return the own Node where its lease has to be written."""
        if self.exited is not None:
            return []
        if own is not None and not self.subnets:
            try:
                written = self._start(own)
            except _Exit as fault:
                self.say("E", str(fault))
                if self._addresses:
                    self.say("I", "main.go:519] Stopping shutdownHandler...")
                self.exited = 1
                return self._half_written(own)
            return [written] if written != own else []
        if self.subnets and self.backend == "vxlan" and 4 in self.conf.families:
            self._watch_device(own)
        if own is None:
            return []
        written = self._with_lease(own)
        return [written] if written is not own else []

    def _watch_device(self, own: Node | None) -> None:
        """Make the tunnel again when it was deleted under the daemon; routes and entries only come with a lease event.

        Only IPv4's device is watched; IPv6's comes back along with it.
        """
        if self.device(4) in peek(self.netns, "links"):
            return
        self.say("I", f"vxlan_network.go:172] Interface {self.device(4)} deleted")
        self.say("I", "vxlan_network.go:102] vxlan device missing, attempting to recreate...")
        for fam in self.conf.families:
            self._make_vxlan(own, fam)
            self._address(fam)
            name = self.device(fam)
            self.say("I", f"vxlan.go:199] Interface {name} mac address set to: {self.netns.link(name).mac}")
            self.say("I", f"vxlan_network.go:308] VXLAN device {name} recreated successfully")

    def follow(self, leases: dict[str, Lease]) -> None:
        """Forget and learn what differs from what is programmed."""
        kind = "" if self.backend in ("udp", "alloc") else self.backend
        wanted = {
            name: lease for name, lease in leases.items() if name != self.node and lease.backend_type == kind
        }
        gone = [lease for name, lease in self.leases.items() if lease != wanted.get(name)]
        for lease in gone:
            del self.leases[lease.node]
        new = [lease for name, lease in wanted.items() if name not in self.leases]
        self.leases.update({lease.node: lease for lease in new})
        if self.backend == "wireguard":
            if gone or new:
                self._change_peers(gone, new)
            return
        for lease in gone:
            self.forget(lease)
        for lease in new:
            self.learn(lease)

    def _lease(self, node: Node) -> Lease | None:
        """A Node's lease, read again only when the Node changed."""
        seen = self._read.get(node.name)
        if seen is None or seen[0] is not node:
            seen = self._read[node.name] = (node, Lease.of(node))
        return seen[1]

    # -- starting --------------------------------------------------------------------------------------------------

    def _start(self, own: Node) -> Node:
        """flanneld's main: link, backend, lease, rules, subnet.env. Raises _Exit where it gives up."""
        conf = self.conf
        self.say("I", f"main.go:254] Created subnet manager: Kubernetes Subnet Manager - {self.node}")
        self.say("I", f"main.go:539] Found network config - Backend type: {self.backend}")
        if not conf.families:
            raise _Exit("main.go:283] none defined stack")
        self._find_link()
        if self.backend not in BACKENDS:
            raise _Exit(f"main.go:375] Error fetching backend: unknown backend type: {self.backend}")
        before = "main.go:383] Error registering network: "
        self._describe_backend()
        self._half: dict[int, Any] = {}
        try:
            # ipip asks for its lease before it makes its device, the others after.
            if self.backend == "ipip":
                self._half = dict.fromkeys(conf.families)
            for fam in conf.families:
                self._make_device(own, fam)
            self._half = self._data()
            subnets = {fam: self._acquire(own, fam) for fam in conf.families}
        except KernelError as fault:
            what = "could not create wireguard interface: " if self.backend == "wireguard" else ""
            raise _Exit(f"{before}{what}{fault.strerror}") from fault
        except _Exit as fault:
            raise _Exit(f"{before}{fault}") from None
        self.subnets = subnets
        for fam in conf.families:
            self._address(fam)
        self._write_rules()
        if self.flags.blackhole_route:
            for subnet in subnets.values():
                self.netns.add_route(subnet, type="blackhole", replace_existing=True)
        self.netns.files[SUBNET_FILE] = self.subnet_env()
        self.say("I", f"main.go:480] Wrote subnet file to {SUBNET_FILE}")
        self.say("I", "main.go:483] flannel is ready")
        self.say("I", "main.go:487] Running backend.")
        if self.backend == "vxlan" and 4 not in conf.families:
            self.say("E", "vxlan_network.go:128] vxlan device is nil, cannot watch for events")
        return self._with_lease(own)

    def _find_link(self) -> None:
        ns, dev = self.netns, self.flags.iface
        if dev not in ns.links:
            said = f"error looking up interface {dev}: route ip+net: no such network interface"
            raise _Exit(f"main.go:357] Failed to find any valid interface to use: {said}")
        for fam in self.conf.families:
            found = [a.local for a in ns.addrs(dev, fam) if a.scope == "global"]
            if not found:
                said = f"failed to find IPv{fam} address for interface {dev}"
                raise _Exit(f"main.go:357] Failed to find any valid interface to use: {said}")
            self._addresses[fam] = found[0]
            v6, at = ("v6 ", 304) if fam == 6 else ("", 291)
            self.say(
                "I",
                f"match.go:{269 if fam == 4 else 272}] Using interface with name {dev} and {v6}address {found[0]}",
            )
            self.say("I", f"match.go:{at}] Defaulting external {v6}address to interface address ({found[0]})")

    def _describe_backend(self) -> None:
        b = self.conf.backend
        word = {True: "true", False: "false"}
        if b.type == "vxlan":
            self.say(
                "I",
                f"vxlan.go:128] VXLAN config: VNI={b.vni} Port={b.port} GBP={word[b.gbp]} "
                f"Learning={word[b.learning]} DirectRouting={word[b.direct_routing]}",
            )
        elif b.type == "ipip":
            self.say("I", f"ipip.go:68] IPIP config: DirectRouting={word[b.direct_routing]}")

    def _acquire(self, own: Node, fam: int) -> str:
        """The node's subnet of a family. Raises _Exit: it has none, or one outside the range."""
        subnet, network = pod_cidr(own, fam), self.conf.range(fam)
        if not subnet:
            raise _Exit(f'failed to acquire lease: node "{self.node}" pod cidr not assigned')
        inside, whole = prefix(subnet), prefix(network) if network else None
        if whole is None or whole.length > inside.length or ip_text(inside.net, fam) not in whole:
            raise _Exit(
                f'failed to acquire lease: subnet "{network}" specified in the flannel net config doesn\'t contain '
                f'"{subnet}" PodCIDR of the "{self.node}" node'
            )
        return subnet

    def _half_written(self, own: Node) -> list[Node]:
        """What a daemon that gave up had already told the API server: the lease, where it had come so far."""
        half = getattr(self, "_half", {})
        if not half:
            return []
        notes = with_lease(own.metadata.annotations, self.backend, self._addresses, half)
        return [own.with_metadata(annotations=notes)] if notes != own.metadata.annotations else []

    def _write_rules(self) -> None:
        conf, ns = self.conf, self.netns
        self.say("I", "main.go:391] Cleaning-up unused traffic manager rules")
        if conf.enable_nftables:
            self.say("I", "nftables.go:43] Starting flannel in nftables mode...")
            rules.ensure_nftables(
                ns,
                [
                    rules.nftables_text(
                        conf.range(fam) if fam in conf.families else "",
                        self.subnets.get(fam, ""),
                        fam,
                        self.flags,
                    )
                    for fam in (4, 6)
                ],
            )
            return
        self.say("I", "iptables.go:50] Starting flannel in iptables mode...")
        self.resync()

    def resync(self) -> None:
        """Write the iptables rules that are missing, as the daemon does every few seconds."""
        if self.conf.enable_nftables:
            return
        for fam in (4, 6):
            # IPv4's rules are written even where IPv4 is off, as recorded.
            if fam in self.conf.families or fam == 4:
                own = self.subnets.get(fam, "")
                rules.ensure_iptables(self.netns, self.conf.range(fam), own, fam, self.flags)

    @property
    def rules_missing(self) -> bool:
        """Whether somebody took its iptables rules away; `resync` brings them back."""
        if self.conf.enable_nftables or not self.subnets or self.exited is not None:
            return False
        return any(rules.iptables_missing(self.netns, fam, self.flags) for fam in self.conf.families)

    def stop(self) -> None:
        """SIGTERM: the daemon goes with exit status 0 and leaves its state; tun and WireGuard devices vanish."""
        if self.exited is None and self.backend in ("udp", "wireguard"):
            for fam in self.conf.families:
                if self.device(fam) in self.netns.links:
                    self.netns.delete_link(self.device(fam))
        self.say("I", "main.go:523] shutdownHandler sent cancel signal...")
        self.say("I", "main.go:511] Exiting cleanly...")
        self.exited = 0 if self.exited is None else self.exited

    # -- the node's own part ---------------------------------------------------------------------------------------

    def _make_device(self, own: Node | None, fam: int) -> None:
        if self.backend == "vxlan":
            self._make_vxlan(own, fam)
        elif self.backend == "wireguard":
            name = self.device(fam)
            if name in self.netns.links:
                self.netns.delete_link(name)
            port = self.conf.backend.listen_port if fam == 4 else self.conf.backend.listen_port_v6
            options = WireguardOptions(self.public_key, port)
            self.netns.add_link(name, "wireguard", mac="", mtu=self.mtu(fam), wireguard=options)
        elif self.backend in ("ipip", "udp") and fam == 6:
            raise _Exit(f"{self.backend} backend does not support IPv6")
        elif self.backend == "ipip":
            options_ = TunnelOptions(local=self._addresses[4])
            present = self.netns.links.get(self.device(4))
            if present is not None and present.tunnel != options_:
                self.netns.delete_link(present.name)
                present = None
            if present is None:
                self.netns.add_link(self.device(4), "ipip", mac="", mtu=self.mtu(), tunnel=options_)
        elif self.backend == "udp" and self.device(4) not in self.netns.links:
            self.netns.add_link(self.device(4), "tun", mac="", mtu=self.mtu(), txqlen=500)

    @property
    def public_key(self) -> str:
        """The WireGuard key: random in reality, and kept in /run/flannel/wgkey; derived here so that worlds repeat."""
        return base64.b64encode(hashlib.sha256(f"{self.node}/wgkey".encode()).digest()).decode()

    def _make_vxlan(self, own: Node | None, fam: int) -> None:
        """`ip link add flannel.1 type vxlan id 1 local IP dev eth0 dstport 8472 nolearning`.

        A device of that name with other options is made anew.
        """
        ns, backend, name = self.netns, self.conf.backend, self.device(fam)
        lease = Lease.of(own) if own is not None else None
        half = lease.half(fam) if lease is not None else None
        # Random at first, then taken from the annotation, so that a restart keeps it.
        mac = (half.mac if half else "") or mac_from(self.node, name, first=0x02)
        options = VxlanOptions(
            vni=backend.vni,
            local=self._addresses[fam],
            link=self.flags.iface,
            port=backend.port or DEFAULT_VXLAN_PORT,
            learning=backend.learning,
        )
        present = ns.links.get(name)
        if present is not None and present.vxlan != options:
            self.say(
                "W",
                f'vxlan device: "{name}" already exists with incompatible configuration; recreating device',
            )
            ns.delete_link(name)
            present = None
        if present is None:
            ns.add_link(name, "vxlan", mac=mac, mtu=self._vxlan_mtu(fam), vxlan=options)

    def _vxlan_mtu(self, fam: int) -> int:
        """The MTU that the kernel gives the device: what is asked for, but no more than fits into the link under it.

        subnet.env has what was asked for all the same. Raises KernelError: EINVAL, and ERANGE for the VNI.
        """
        most = self.netns.link(self.flags.iface).mtu - OVERHEAD["vxlan"][fam]
        asked = self.mtu(fam)
        if asked > 0 and not SMALLEST_MTU <= asked <= LARGEST_MTU:
            raise KernelError("EINVAL", self.device(fam))
        if not 0 <= self.conf.backend.vni < 1 << 24 or len(self.device(fam)) > 15:
            raise KernelError("ERANGE", self.device(fam))
        return min(asked, most) if asked > 0 else most

    def _address(self, fam: int) -> None:
        """Put the own subnet's first address on the device and set it up; udp and wireguard have one route for all."""
        ns, name = self.netns, self.device(fam)
        if name == self.flags.iface:
            return
        network = self.subnets[fam].partition("/")[0]
        address = f"{network}/{32 if fam == 4 else 128}"
        present = [f"{a.local}/{a.length}" for a in ns.addrs(name, fam) if a.scope == "global"]
        for old in present:
            if old != address:
                ns.delete_address(name, old)
        if address not in present:
            ns.add_address(name, address)
        if not ns.link(name).up:
            ns.set_link(name, up=True)
        if self.backend == "udp":
            ns.add_route(self.conf.network, dev=name, scope="global", replace_existing=True)
        elif self.backend == "wireguard":
            scope: dict[str, str] = {"scope": "link"} if fam == 4 else {}
            ns.add_route(self.conf.range(fam), dev=name, replace_existing=True, **scope)

    def _data(self) -> dict[int, Any]:
        """What the backend says about this node in the lease, by family."""
        out: dict[int, Any] = dict.fromkeys(self.conf.families)
        for fam in self.conf.families:
            if self.backend == "vxlan":
                mac = peek(self.netns, "links")[self.device(fam)].mac
                out[fam] = {"VNI": self.conf.backend.vni, "VtepMAC": mac}
            elif self.backend == "wireguard":
                out[fam] = {"PublicKey": self.public_key, "Port": self._wireguard(fam).port}
        return out

    def _wireguard(self, fam: int) -> WireguardOptions:
        options = self.netns.link(self.device(fam)).wireguard
        assert options is not None
        return options

    def _with_lease(self, own: Node) -> Node:
        """The own Node with the lease in its annotations and NetworkUnavailable cleared; itself when it has both."""
        kind = "" if self.backend in ("udp", "alloc") else self.backend
        notes = with_lease(own.metadata.annotations, kind, self._addresses, self._data())
        if UP not in own.status.conditions:
            conditions = tuple(c for c in own.status.conditions if c.type != UP.type)
            own = replace(own, status=replace(own.status, conditions=(*conditions, UP)))
        return own.with_metadata(annotations=notes) if notes != own.metadata.annotations else own

    def subnet_env(self) -> str:
        """Text of /run/flannel/subnet.env, for the CNI plugin. FLANNEL_SUBNET holds the bridge's address."""
        lines = []
        for fam, subnet in self.subnets.items():
            block, six = prefix(subnet), "_IPV6" if fam == 6 else ""
            lines.append(f"FLANNEL{six}_NETWORK={self.conf.range(fam)}")
            lines.append(f"FLANNEL{six}_SUBNET={ip_text(block.net + 1, fam)}/{block.length}")
        lines.append(f"FLANNEL_MTU={self.mtu()}")
        lines.append(f"FLANNEL_IPMASQ={'true' if self.flags.ip_masq else 'false'}")
        return "\n".join(lines) + "\n"

    # -- the other nodes -------------------------------------------------------------------------------------------

    def direct(self, public_ip: str) -> bool:
        """True when the other node is on our link, so that no tunnel is needed (DirectRouting)."""
        if not self.conf.backend.direct_routing:
            return False
        way = self.netns.lookup(public_ip)
        return way is not None and not way.via

    def learn(self, lease: Lease) -> None:
        """A lease came: program the way to its subnets. What the kernel refuses is logged, and the daemon goes on."""
        for fam in self.conf.families:
            half = lease.half(fam)
            if half is None:
                continue
            try:
                self._learn(lease, fam, half)
            except KernelError as fault:
                # "network is unreachable" for a host-gw peer in another subnet, for one.
                index = self.netns.link(self.flags.iface).index
                route = (
                    f"{{Ifindex: {index} Dst: {half.subnet} Src: <nil> Gw: {half.public_ip} "
                    "Flags: [] Table: 0 Realm: 0}"
                )
                self.say("E", f"route_network.go:168] Error adding route to {route}: {fault.strerror}")

    def _learn(self, lease: Lease, fam: int, half: Half) -> None:
        ns, dev = self.netns, self.device(fam)
        if self.backend == "host-gw":
            self.say(
                "I",
                f"route_network.go:{93 if fam == 4 else 100}] Subnet added: {half.subnet} via {half.public_ip}",
            )
            ns.add_route(half.subnet, via=half.public_ip, dev=self.flags.iface, replace_existing=True)
        elif self.backend == "vxlan":
            if fam == self.conf.families[0]:
                self.say(
                    "I",
                    f"vxlan_network.go:340] Received Subnet Event with VxLan: {_event(lease, self.conf.backend.vni)}",
                )
            if self.direct(half.public_ip):
                ns.add_route(half.subnet, via=half.public_ip, dev=self.flags.iface, replace_existing=True)
                return
            ns.set_neighbour(dev, half.network_address, half.mac)
            entry = FdbEntry(dev, half.mac, dst=half.public_ip, state="permanent")
            ns.add_fdb(entry, replace_existing=True)
            ns.add_route(half.subnet, via=half.network_address, dev=dev, onlink=True, replace_existing=True)
        elif self.backend == "ipip":
            self.say("I", f"route_network.go:93] Subnet added: {half.subnet} via {half.public_ip}")
            link = self.flags.iface if self.direct(half.public_ip) else dev
            ns.add_route(half.subnet, via=half.public_ip, dev=link, onlink=True, replace_existing=True)
        elif self.backend == "udp":
            self.say("I", f"udp_network_amd64.go:205] Subnet added: {half.subnet}")

    def _change_peers(self, gone: Iterable[Lease], new: Iterable[Lease]) -> None:
        """`wg set flannel-wg peer KEY remove`, and `peer KEY endpoint ... allowed-ips ...`, for many at once."""
        for fam in self.conf.families:
            if self.device(fam) not in self.netns.links:
                self.say("E", f"failed to setup peers of {self.device(fam)}: file does not exist")
                continue
            options = self._wireguard(fam)
            peers = {peer.public_key: peer for peer in options.peers}
            for half in filter(None, (lease.half(fam) for lease in gone)):
                peers.pop(half.key, None)
            for half in filter(None, (lease.half(fam) for lease in new)):
                address = half.public_ip if fam == 4 else f"[{half.public_ip}]"
                endpoint = f"{address}:{half.port}"
                self.say("I", f"wireguard_network.go:175] Subnet added: {half.subnet} via {endpoint}")
                keepalive = self.conf.backend.persistent_keepalive_interval
                peers.pop(half.key, None)
                peers[half.key] = WireguardPeer(half.key, endpoint, (half.subnet,), keepalive)
            if tuple(peers.values()) != options.peers:
                self.netns.set_link(self.device(fam), wireguard=replace(options, peers=tuple(peers.values())))

    def forget(self, lease: Lease) -> None:
        """A lease is gone: take back what it brought; what is not there any more is logged."""
        for fam in self.conf.families:
            half = lease.half(fam)
            for step in self._undo(fam, half) if half is not None else ():
                try:
                    step()
                except KernelError as fault:
                    self.say("E", f"failed to remove {half.subnet if half else ''}: {fault.strerror}")

    def _undo(self, fam: int, half: Half) -> list[Callable[[], object]]:
        ns, dev = self.netns, self.device(fam)
        direct = self.backend == "host-gw" or (
            self.backend in ("vxlan", "ipip") and self.direct(half.public_ip)
        )
        if direct or self.backend == "ipip":
            return [lambda: ns.delete_route(half.subnet, via=half.public_ip)]
        if self.backend == "vxlan":
            return [
                lambda: ns.delete_neighbour(dev, half.network_address),
                lambda: ns.delete_fdb(dev, half.mac, half.public_ip),
                lambda: ns.delete_route(half.subnet, via=half.network_address),
            ]
        return []


def _event(lease: Lease, vni: int) -> str:
    """How a vxlan backend logs a lease."""
    v4, v6 = lease.half(4), lease.half(6)

    def data(half: Half | None) -> str:
        return f'{{"VNI":{vni},"VtepMAC":"{half.mac}"}}' if half is not None else "(nil)"

    address = v4.public_ip if v4 is not None else "0.0.0.0"
    return (
        f"BackendType: {lease.backend_type}, PublicIP: {address}, PublicIPv6: {v6.public_ip if v6 else '(nil)'}, "
        f"BackendData: {data(v4)}, BackendV6Data: {data(v6)}"
    )
