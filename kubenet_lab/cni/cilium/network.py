"""Cilium in a cluster: the operator gives every node a block, an agent on every node makes devices, routes and maps.

    cilium_host, cilium_net   a pair in the host: what the host's stack sends to pods leaves by cilium_host
    cilium_vxlan              one tunnel device for all nodes (or cilium_geneve); native routing has none
    lxc...                    a pod's end on the host

What an agent writes into the maps (endpoints, ipcache, policies) is made when a packet or a person first looks at the
node, and anew when pods, nodes or policies have changed since. Source: daemon/, pkg/datapath, operator/pkg/ipam.
"""

from __future__ import annotations

import json
from functools import partial

from msgspec import Struct

from kubenet_lab.cni.cilium import ciliumpolicy, iptables
from kubenet_lab.cni.cilium.identity import Identities, labels_of, text_of
from kubenet_lab.cni.cilium.networkpolicy import entries_of
from kubenet_lab.cni.cilium.plugin import IPAM, SOCKET
from kubenet_lab.cni.cilium.policymap import NamedPorts, Redirects, blocks_of, policy_map
from kubenet_lab.cni.cilium.rules import PolicyEntry
from kubenet_lab.cni.runtime import CONF_DIR
from kubenet_lab.daemon import World
from kubenet_lab.kernel.bpf import (
    HOST,
    KUBE_APISERVER,
    REMOTE_NODE,
    WORLD,
    BpfState,
    Datapath,
    EndpointEntry,
    IpcacheEntry,
)
from kubenet_lab.kernel.late import LateDict
from kubenet_lab.kernel.link import VxlanOptions
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek, waits
from kubenet_lab.kernel.route import TABLE_MAIN, Route
from kubenet_lab.objects import EndpointSlice, NetworkPolicy, Node, Pod, Service
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.packet.ip import family, ip_text, mac_from, prefix
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.ebpf import EbpfOptions, ProxyEbpf, native_devices
from kubenet_lab.proxy.services import ServiceTracker

CONFLIST = """{
  "cniVersion": "0.3.1",
  "name": "cilium",
  "plugins": [
    {
       "type": "cilium-cni",
       "enable-debug": false,
       "log-file": "/var/run/cilium/cilium-cni.log"
    }
  ]
}
"""
"""/etc/cni/net.d/05-cilium.conflist as the agent's pod writes it."""

MASK = 24
"""clusterPoolIPv4MaskSize."""
TUNNEL_PORTS = {"vxlan": 8472, "geneve": 6081}
OVERHEAD = 50
"""Bytes that VXLAN (and Geneve without options) add over IPv4."""


class CiliumOptions(Struct, frozen=True):
    """Cilium's ConfigMap, as far as it is modelled."""

    routing: str = "tunnel"
    """routing-mode: "tunnel" or "native" (with auto-direct-node-routes)."""
    tunnel: str = "vxlan"
    """tunnel-protocol: "vxlan" or "geneve"."""
    masquerade: str = "iptables"
    """"iptables", "bpf" (enable-bpf-masquerade), or "" for none."""
    cluster: str = "default"
    """cluster-name."""


class CiliumNode(Struct, frozen=True):
    """A node as the operator and the other agents know it (the object CiliumNode)."""

    name: str
    ip: str
    block: str
    router: str
    """cilium_host's address, the pods' next hop."""


class Cilium:
    """The pod network: operator and agents."""

    def __init__(self, world: World, options: CiliumOptions | None = None) -> None:
        self.world = world
        self.options = options or CiliumOptions()
        self.nodes: dict[str, CiliumNode] = {}
        self._at: dict[str, CiliumNode] = {}
        """Block -> its node."""
        self._waiting: set[str] = set()
        """Nodes whose routes nobody has looked at."""
        self.identities = Identities()
        self.redirects = Redirects()
        self.revision = 0
        """Grows when pods, nodes, namespaces or policies changed; what maps were made of is keyed by it."""
        self._made: tuple[int, _Seen] | None = None
        self._watch = world.store.watch()
        self._tracker = ServiceTracker()
        self._balancers: dict[str, ProxyEbpf] = {}

    next: float | None = None

    # -- PodNetwork ---------------------------------------------------------------------------------------------------

    def prepare(self, node: Node, space: Netns) -> None:
        """Write 05-cilium.conflist; load the programs of a node that has no pods yet."""
        space.files[f"{CONF_DIR}/05-cilium.conflist"] = CONFLIST

    def reconcile(self) -> bool:
        """Give new nodes a block and set them up; tell the others the way there; note what changed."""
        store = self.world.store
        if any(event.object.kind in _KINDS for event in self._watch.poll()):
            self.revision += 1
        for node in store.list(Node):
            if node.name not in self.nodes and node.name in self.world.network.netns:
                self._join(node)
                self.revision += 1
        self._cluster_ips()
        return False

    def forget(self, node: str) -> None:
        """A node left: the others lose their route to its block."""
        gone = self.nodes.pop(node, None)
        self._balancers.pop(node, None)
        self._waiting.discard(node)
        self.revision += 1
        if gone is None:
            return
        del self._at[gone.block]
        for name in self.nodes.keys() - self._waiting:
            self.world.network.ns(name).program_routes([self._route_to(self.nodes[name], gone)], [])

    def restart(self) -> None:
        """Start every agent anew; addresses that pods have are in the hosts' files, identities with the operator."""
        self._watch.poll()
        self._tracker = ServiceTracker()
        self._balancers.clear()
        self._made = None
        self.revision += 1
        machines = self.world.network.netns
        self.nodes = {
            node.name: self._known(node, machines[node.name])
            for node in self.world.store.list(Node)
            if node.name in machines and IPAM in machines[node.name].files
        }
        self._at = {node.block: node for node in self.nodes.values()}
        self._waiting = {
            name for name in self.nodes if isinstance(machines[name].routes.get((4, TABLE_MAIN)), LateDict)
        }
        # At once: maps that nobody looked at yet would be made of what was taken back.
        self._cluster_ips()

    def last_words(self, node: str) -> str:
        """Have agents that run on whatever they find."""
        return ""

    # -- a node -------------------------------------------------------------------------------------------------------

    def _join(self, node: Node) -> None:
        space = self.world.network.ns(node.name)
        made = self._known(node, space)
        if "cilium_host" not in space.links:
            self._set_up(space, made)
        self.nodes[node.name] = made
        self._at[made.block] = made
        for name in self.nodes.keys() - self._waiting:
            if name != node.name:
                self.world.network.ns(name).program_routes([], [self._route_to(self.nodes[name], made)])
        self._promise(space, made)

    def _known(self, node: Node, space: Netns) -> CiliumNode:
        ip = next((one for one in node.internal_ips if family(one) == 4), "")
        block = self._block(space)
        return CiliumNode(node.name, ip, block, ip_text(prefix(block).net + 1, 4))

    def _promise(self, space: Netns, node: CiliumNode) -> None:
        """Routes to the other nodes' blocks are made when somebody looks at this node's."""
        table = space.routes.setdefault((4, TABLE_MAIN), {})
        own = dict(dict.items(table)) if isinstance(table, LateDict) else table
        self._waiting.add(node.name)

        def kept() -> None:
            self._waiting.discard(node.name)

        space.routes[4, TABLE_MAIN] = LateDict.over(own, _Routes(self, node), kept)

    def _block(self, space: Netns) -> str:
        """The operator: the first free /24 of the pool (ipam: cluster-pool); a machine keeps the one it has."""
        known = space.files.get(IPAM)
        if known is not None:
            return str(json.loads(known)["pool"])
        pool = prefix(next(c for c in self.world.cluster_cidrs if family(c) == 4))
        size = 1 << (32 - MASK)
        for number in range(1 << max(0, MASK - pool.length)):
            block = f"{ip_text(pool.net + number * size, 4)}/{MASK}"
            if block not in self._at:
                return block
        raise ValueError(f"the pool {pool} has no /{MASK} left for another node")

    def _set_up(self, space: Netns, node: CiliumNode) -> None:
        options, network = self.options, self.world.network
        tunnel = options.tunnel if options.routing == "tunnel" else ""
        network.add_veth(
            space.name, "cilium_net", space.name, "cilium_host",
            mac_a=mac_from(space.name, "cilium_net"), mac_b=mac_from(space.name, "cilium_host"),
        )  # fmt: skip
        for dev in ("cilium_net", "cilium_host"):
            space.set_link(dev, up=True, noarp=True)
            space.set_sysctl(f"net.ipv4.conf.{dev}.rp_filter", 0)
        space.add_address("cilium_host", f"{node.router}/32")
        dev = f"cilium_{tunnel}" if tunnel else ""
        if tunnel:
            settings = VxlanOptions(vni=0, port=TUNNEL_PORTS[tunnel], external=True)
            space.add_link(dev, tunnel, mac=mac_from(space.name, dev), vxlan=settings)
            space.set_link(dev, up=True)
        space.program_routes(
            [],
            [
                Route(f"{node.router}/32", "cilium_host", proto="kernel", scope="link"),
                Route(node.block, "cilium_host", node.router, proto="kernel", prefsrc=node.router),
            ],
        )
        mtu = 1500 - OVERHEAD if tunnel else 1500
        space.files[IPAM] = json.dumps({"pool": node.block, "allocated": {node.router: "router"}})
        space.files[SOCKET] = json.dumps({"router": node.router, "deviceMTU": 1500, "routeMTU": mtu})
        self._rules(space, node)
        state = space.bpf or BpfState()
        space.bpf = state
        state.datapath = Datapath(
            socket_lb="",
            node_port=False,
            tunnel=tunnel,
            tunnel_dev=dev,
            masquerade=options.masquerade == "bpf",
            native_cidrs={4: node.block if tunnel else self._pool},
            direct={4: node.ip},
            gateway={4: node.router},
            enforcement=True,
        )
        state.attach("tcx/egress", "cil_from_host", "cilium_host")
        state.attach("tcx/ingress", "cil_to_host", "cilium_net")
        if tunnel:
            state.attach("tcx/ingress", "cil_from_overlay", dev)
        for own in native_devices(space, (node.ip,)):
            state.attach("tcx/ingress", "cil_from_netdev", own)
            state.attach("tcx/egress", "cil_to_netdev", own)
        state.watch(self._version, partial(self._fill, node.name))

    @property
    def _pool(self) -> str:
        return next(c for c in self.world.cluster_cidrs if family(c) == 4)

    def _version(self) -> object:
        return (self.world.network.population, self.revision)

    def _rules(self, space: Netns, node: CiliumNode) -> None:
        iptables.install(
            space,
            block=node.block,
            native=node.block if self.options.routing == "tunnel" else self._pool,
            router=node.router,
            masquerade=self.options.masquerade == "iptables",
        )

    def _route_to(self, node: CiliumNode, other: CiliumNode) -> Route:
        if self.options.routing == "native":
            return Route(other.block, "eth0", other.ip)
        return Route(
            other.block, "cilium_host", node.router, proto="kernel", prefsrc=node.router, mtu=1500 - OVERHEAD
        )

    def _cluster_ips(self) -> None:
        """Beside kube-proxy the agents still serve cluster IPs to pods, packet by packet."""
        store = self.world.store
        changed = None
        for name in self.nodes:
            space = self.world.network.ns(name)
            state: BpfState | None = peek(space, "bpf")
            if state is None:
                continue
            if ("", "cgroup") in state.attachments:
                self._balancers.pop(name, None)
                continue
            if changed is None:
                changed = self._tracker.update(store.list(Service), store.list(EndpointSlice))
            balancer = self._balancers.get(name)
            if balancer is None:
                node = ProxyNode.from_node(store.get(Node, name))
                balancer = self._balancers[name] = ProxyEbpf(
                    node, KubeProxyConfig(), EbpfOptions(socket_lb="", beside_kube_proxy=True)
                )
                balancer.start(space, self._tracker)
            elif not (waits(space) and state.deferred):
                balancer.follow(space, self._tracker, changed)

    # -- maps ---------------------------------------------------------------------------------------------------------

    def _seen(self) -> _Seen:
        """What every agent knows of pods, addresses and policies, worked out once a revision."""
        if self._made is not None and self._made[0] == self.revision:
            return self._made[1]
        store = self.world.store
        namespaces = {one.name: one for one in store.list(Namespace)}
        seen = _Seen()
        for policy in store.list(NetworkPolicy):
            seen.policies += entries_of(policy, self.options.cluster)
        for kind in ciliumpolicy.KINDS:
            for own in store.list(kind):
                seen.policies += ciliumpolicy.entries_of(own, self.options.cluster)
        for block in blocks_of(seen.policies):
            seen.blocks[block] = self.identities.block(block)
        all_ports: dict[tuple[str, str], set[int]] = {}
        for pod in store.list(Pod):
            if not pod.ips or pod.spec.host_network or pod.finished:
                continue
            labels = labels_of(pod, namespaces.get(pod.namespace or "default"), self.options.cluster)
            seen.pods[f"{pod.namespace or 'default'}/{pod.name}"] = (
                pod,
                self.identities.number(labels),
                labels,
            )
            for name, number in _named(pod):
                all_ports.setdefault(name, set()).add(number)
        seen.ports = {name: frozenset(numbers) for name, numbers in all_ports.items()}
        found = store.find(Service, "kubernetes", "default")
        for one in store.list(EndpointSlice):
            if found is not None and one.service_name == "kubernetes" and one.namespace == "default":
                seen.api_servers |= {address for end in one.endpoints for address in end.addresses}
        self._made = (self.revision, seen)
        return seen

    def _fill(self, name: str, state: BpfState) -> None:
        """One agent writes its node's endpoints, ipcache, policy maps and attachments."""
        node = self.nodes.get(name)
        if node is None:
            return
        seen, space = self._seen(), self.world.network.ns(name)
        tunnel = self.options.routing == "tunnel"
        self._fill_ipcache(state, node, seen, tunnel)
        state.endpoints.clear()
        for address in space.addrs(fam=4):
            if address.scope == "global":
                state.endpoints[address.local] = EndpointEntry(host=True)
        for dev, hook in [key for key in state.attachments if key[0].startswith("lxc")]:
            del state.attachments[dev, hook]
        state.policies.clear()
        number = 0
        for key, (pod, identity, labels) in seen.pods.items():
            sandbox = self.world.network.netns.get(key)
            if pod.spec.node_name != name or sandbox is None or "eth0" not in sandbox.links:
                continue
            peer = sandbox.links["eth0"].peer
            if peer is None or peer.netns != name:
                continue
            number += 1
            ours = space.links[peer.link]
            for address in sandbox.addrs("eth0", 4):
                state.endpoints[address.local] = EndpointEntry(
                    number, ours.index, ours.name, sandbox.links["eth0"].mac, ours.mac, identity
                )
            state.attach("tcx/ingress", "cil_from_container", ours.name)
            own = _gathered(_named(pod))
            state.policies[number] = policy_map(
                labels, seen.policies, self.identities, own, seen.ports, self.redirects
            )
        state.labels = {one: text_of(labels) for one, labels in self.identities.labels.items() if one >= 256}
        state.proxies = {
            port: partial(ciliumpolicy.refusal, rules) for port, rules in self.redirects.rules.items()
        }

    def _fill_ipcache(self, state: BpfState, node: CiliumNode, seen: _Seen, tunnel: bool) -> None:
        state.ipcache.clear()
        state.set_ipcache("0.0.0.0/0", IpcacheEntry(WORLD))
        for block, identity in seen.blocks.items():
            state.set_ipcache(block, IpcacheEntry(identity))
        for address in seen.api_servers:
            if family(address) == 4:
                state.set_ipcache(f"{address}/32", IpcacheEntry(KUBE_APISERVER))
        for other in self.nodes.values():
            here = other.name == node.name
            way = other.ip if tunnel and not here else ""
            state.set_ipcache(f"{other.ip}/32", IpcacheEntry(HOST if here else REMOTE_NODE))
            state.set_ipcache(f"{other.router}/32", IpcacheEntry(HOST if here else REMOTE_NODE, way))
            if not here:
                state.set_ipcache(other.block, IpcacheEntry(WORLD, way))
        for pod, identity, _labels in seen.pods.values():
            host = self.nodes.get(pod.spec.node_name or "")
            if host is None:
                continue
            way = host.ip if tunnel and host.name != node.name else ""
            for address in pod.ips:
                if family(address) == 4:
                    state.set_ipcache(f"{address}/32", IpcacheEntry(identity, way))


class _Routes:
    """What a node will have routes to: the blocks of all the others."""

    def __init__(self, network: Cilium, node: CiliumNode) -> None:
        self.network, self.node = network, node

    def get(self, key: tuple[str, int, str]) -> Route | None:
        """Return the promised route of a key."""
        other = self.network._at.get(key[0])
        if other is None or other.name == self.node.name:
            return None
        route = self.network._route_to(self.node, other)
        return route if route.key == key else None

    def items(self) -> list[tuple[tuple[str, int, str], Route]]:
        """Return all promised routes."""
        others = (one for one in self.network.nodes.values() if one.name != self.node.name)
        routes = [self.network._route_to(self.node, other) for other in others]
        return [(route.key, route) for route in routes]


class _Seen:
    """What all agents have in common at one revision."""

    def __init__(self) -> None:
        self.pods: dict[str, tuple[Pod, int, dict[str, str]]] = {}
        self.policies: list[PolicyEntry] = []
        self.blocks: dict[str, int] = {}
        self.ports: NamedPorts = {}
        self.api_servers: set[str] = set()


_KINDS = frozenset(
    {
        "Pod",
        "Node",
        "Namespace",
        "NetworkPolicy",
        "CiliumNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
        "EndpointSlice",
    }
)


def _named(pod: Pod) -> list[tuple[tuple[str, str], int]]:
    return [
        ((port.name, port.protocol or "TCP"), port.container_port)
        for container in pod.spec.containers
        for port in container.ports
        if port.name
    ]


def _gathered(pairs: list[tuple[tuple[str, str], int]]) -> NamedPorts:
    found: dict[tuple[str, str], set[int]] = {}
    for name, number in pairs:
        found.setdefault(name, set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


class CiliumNative(Cilium):
    """Cilium without a tunnel: a route to every node's block (auto-direct-node-routes), and masquerading in BPF."""

    def __init__(self, world: World) -> None:
        super().__init__(world, CiliumOptions(routing="native", masquerade="bpf"))
