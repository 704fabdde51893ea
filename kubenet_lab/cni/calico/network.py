"""Calico in a cluster: pools and tunnels, a Felix and a BIRD on every node, and what confd and kube-controllers do.

One object for all nodes' daemons. Time: the daemons are taken to have run for a minute when the world begins, so that
sessions are established; what happens later takes the time it takes (`next`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.bgp.config import Config
from kubenet_lab.bgp.daemon import PROCESS, Bird
from kubenet_lab.bgp.fabric import PORT, Fabric
from kubenet_lab.cni.calico.advertise import Ranges, static_routes
from kubenet_lab.cni.calico.chains import FelixConfig
from kubenet_lab.cni.calico.confd import BgpNode, BgpObjects, bird_config
from kubenet_lab.cni.calico.convert import Json
from kubenet_lab.cni.calico.datastore import Datastore
from kubenet_lab.cni.calico.felix import (
    IPIP_DEVICE,
    VXLAN6_DEVICE,
    VXLAN_DEVICE,
    Felix,
    Programmed,
    Vtep,
)
from kubenet_lab.cni.calico.graph import World as Objects
from kubenet_lab.cni.calico.graph import endpoint_of
from kubenet_lab.cni.calico.ipam import AFFINITIES, POOLS, Asked, Ipam, IpamError, IpPool
from kubenet_lab.cni.calico.mesh import MOST_PLAYED, SAYS, Mesh
from kubenet_lab.cni.calico.plugin import MTU_FILE
from kubenet_lab.cni.calico.refusals import refuse
from kubenet_lab.daemon import World
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.link import TunnelOptions, VxlanOptions
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import host_addresses, later, peek, put_off
from kubenet_lab.kernel.socket import UNIX
from kubenet_lab.objects import AnyObject, EndpointSlice, Generic, Service
from kubenet_lab.objects.meta import ObjectMeta
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.objects.node import Node, NodeCondition
from kubenet_lab.objects.pod import Pod
from kubenet_lab.packet.ip import mac_from, prefix
from kubenet_lab.packet.packet import TCP

CONFLIST = "/etc/cni/net.d/10-calico.conflist"
NOTES = "projectcalico.org/"
CONTENT = """\
{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "log_level": "info",
      "datastore_type": "kubernetes",
      "nodename": "%s",
      "mtu": 0,
      "ipam": {
        "type": "calico-ipam"%s
      },
      "policy": {
        "type": "k8s"
      },
      "kubernetes": {
        "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"
      }
    },
    {
      "type": "portmap",
      "snat": true,
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"""
"""`10-calico.conflist` as calico-node's install-cni writes it."""

BOTH_FAMILIES = ',\n        "assign_ipv4": "true",\n        "assign_ipv6": "true"'
"""What a dual-stack cluster's administrator adds to the ipam part."""
API = ("projectcalico.org", "crd.projectcalico.org")
KUBERNETES = ("Namespace", "ServiceAccount", "Pod", "NetworkPolicy", "ClusterNetworkPolicy")
CALICO = (
    "NetworkPolicy", "GlobalNetworkPolicy", "Tier", "Profile", "HostEndpoint", "NetworkSet", "GlobalNetworkSet",
)  # fmt: skip
"""Kinds that Felix computes from, of either API."""
WATCHED = frozenset(
    [
        *KUBERNETES, *CALICO, "IPPool", "BGPPeer", "BGPConfiguration", "BGPFilter", "Node", "IPAMConfig",
        "FelixConfiguration",
    ]
)  # fmt: skip
"""Kinds whose changes mean work."""
SERVED = frozenset(["Service", "EndpointSlice"])
"""Kinds whose changes matter where addresses of Services are announced."""
NOT_MODELLED = {
    "bpfEnabled": "the eBPF data plane",
    "wireguardEnabled": "encryption with WireGuard",
    "wireguardEnabledV6": "encryption with WireGuard",
}
"""Switches of FelixConfiguration that nobody may turn on here."""
RUNNING = 60.0
"""Seconds the daemons have run when the world begins."""
REFRESH = 90.0
"""Seconds between two checks of the rules (Felix's IptablesRefreshInterval)."""
OVERHEAD = {"ipip": 20, "vxlan": 50}
"""Bytes that a tunnel's headers take from the MTU."""
IPV6_MORE = 20
"""Bytes that an outer IPv6 header is longer than an IPv4 one."""
MAC_NOTES = {4: "VXLANTunnelMACAddr", 6: "VXLANTunnelMACAddrV6"}
"""Annotations with the MACs of vxlan.calico and vxlan-v6.calico."""


class Calico:
    """Calico's daemons on all nodes. `encapsulation` is that of the pool made at installation: none, ipip or vxlan."""

    def __init__(self, world: World, encapsulation: str = "none") -> None:
        self.world = world
        self.encapsulation = encapsulation
        self.felix: dict[str, Felix] = {}
        self.routers: dict[str, Config] = {}
        self.fabric = self._new_fabric()
        self.mesh = Mesh(world.network)
        self._watch = world.store.watch()
        self._seen: dict[int, tuple[AnyObject, Json]] = {}
        self._endpoints: dict[int, tuple[Json, Json | None]] = {}
        self._objects = Objects(())
        self._nodes: dict[str, BgpNode] = {}
        self._affinities: dict[str, str] = {}
        self._ranges = Ranges()
        self._refresh_at = world.now + REFRESH
        self._dirty = True

    def _new_fabric(self) -> Fabric:
        return Fabric(self.world.network, seed=self.world.seed, now=self.world.now - RUNNING)

    @property
    def store(self) -> Datastore:
        """Calico's own documents."""
        return Datastore(self.world.network)

    @property
    def ipam(self) -> Ipam:
        """Blocks and addresses."""
        return Ipam(self.world.network)

    @property
    def next(self) -> float | None:
        """When BGP has something to do by itself; None while all is quiet."""
        due = self.fabric.wake
        return None if due is None else max(due, self.world.now)

    def bird(self, node: str) -> Bird:
        """Return a node's BIRD. Raises KeyError where there is none (VXLAN needs none), InputError in a huge mesh."""
        if self.mesh.stands_for_bird:
            raise InputError(f"bird: {SAYS}")
        return self.fabric.daemons[node]

    def add_router(self, name: str, config: Config) -> Bird:
        """Let a machine outside the cluster speak BGP with the nodes; BGPPeers make the nodes' side of it.

        Args:
            name: Its network namespace, "router".
            config: Its whole BIRD; `filters="static"` for one that announces `blocks` and takes all it hears.
        """
        if self.mesh.stands_for_bird:
            raise InputError(f"bird on {name}: {SAYS}")
        self.routers[name] = config
        bird = self.fabric.daemons.get(name)
        if bird is None:
            bird = Bird(self.fabric, name, config)
            bird.start()
        else:
            bird.configure(config)
        self.fabric.settle()
        return bird

    # -- the daemon's verbs -------------------------------------------------------------------------------------

    def prepare(self, node: Node, space: Netns) -> None:
        """Write 10-calico.conflist, and the MTU pods get."""
        dual = any(":" in cidr for cidr in self.world.cluster_cidrs)
        space.files[CONFLIST] = CONTENT % (node.name, BOTH_FAMILIES if dual else "")
        mtu = min((link.mtu for link in space.links.values() if link.kind == "physical"), default=1500)
        space.files[MTU_FILE] = str(mtu - self._overhead())

    def _overhead(self) -> int:
        """Bytes that pods leave free: of the longest header any pool uses, be it between subnets only."""
        used = [
            OVERHEAD[kind] + (IPV6_MORE if pool.family == 6 else 0)
            for pool in self.pools()
            for kind in OVERHEAD
            if getattr(pool, kind) != "Never"
        ]
        six = self.encapsulation == "vxlan" and any(":" in cidr for cidr in self.world.cluster_cidrs)
        return max(used, default=OVERHEAD.get(self.encapsulation, 0) + IPV6_MORE * six)

    def reconcile(self) -> bool:
        """Let pools, nodes, BIRDs and Felixes follow the API and the kernel."""
        changed = self._install()
        news = [event.object.kind for event in self._watch.poll()]
        heard = any(kind in WATCHED for kind in news)
        served = bool(self._ranges) and any(kind in SERVED for kind in news)
        if heard or self._dirty:
            self._share()
        nodes = self.world.store.list(Node)
        for node in nodes:
            changed |= self._node(node)
        nodes = self.world.store.list(Node)
        moved = self._look_at_blocks(node.name for node in nodes)
        if heard or moved or self._dirty:
            self._dirty = False
            self._configure_bgp(nodes)
            self._program(nodes)
        elif served:
            self._configure_bgp(nodes)
        self.fabric.run(self.world.now)
        if self.world.now >= self._refresh_at:
            self._refresh_at = self.world.now + REFRESH
            for felix in self.felix.values():
                later(felix.ns, felix.refresh, about="refresh")
        return changed

    def forget(self, node: str) -> None:
        """A node is gone: kube-controllers take its addresses and blocks back, the others' BIRDs lose it."""
        if node in self.fabric.daemons:
            self.fabric.remove(node)
        self.mesh.forget(node)
        self.felix.pop(node, None)
        self._nodes.pop(node, None)
        self._affinities.pop(node, None)
        self.ipam.release_node(node)
        self._dirty = True

    def restart(self) -> None:
        """Start every daemon anew, as they were a minute ago."""
        for bird in self.fabric.daemons.values():
            bird.kill()
        for name in (*(node.name for node in self.world.store.list(Node)), *self.routers):
            # A world that was set back has the socket of a BIRD that has left the fabric since.
            space = self.world.network.netns.get(name)
            if space is not None:
                open_there = (*space.sockets.get((TCP, PORT), ()), *space.sockets.get((UNIX, 0), ()))
                for socket in [one for one in open_there if one.process == PROCESS]:
                    space.close(socket)
        self.fabric = self._new_fabric()
        self.mesh.restart()
        self.felix.clear()
        self._nodes.clear()
        self._affinities.clear()
        self._watch.poll()
        self._dirty = True

    def last_words(self, node: str) -> str:
        """Have daemons that run on whatever they find."""
        return ""

    # -- pools and nodes ----------------------------------------------------------------------------------------

    def _install(self) -> bool:
        """calico-node's startup makes the first pool, of the pods' range."""
        if self._manifests("IPPool") or self.store.get(POOLS, "all"):
            return False
        for cidr in self.world.cluster_cidrs:
            fam = 6 if ":" in cidr else 4
            spec: Json = {
                "cidr": str(prefix(cidr)),
                "blockSize": 122 if fam == 6 else 26,
                "ipipMode": "Always" if self.encapsulation == "ipip" and fam == 4 else "Never",
                "vxlanMode": "Always" if self.encapsulation == "vxlan" else "Never",
                "natOutgoing": fam == 4,
                "nodeSelector": "all()",
                "allowedUses": ["Workload", "Tunnel"],
            }
            self.world.store.create(
                Generic(
                    api_version="projectcalico.org/v3",
                    kind="IPPool",
                    metadata=ObjectMeta(name=f"default-ipv{fam}-ippool", namespace=""),
                    content={"spec": spec},
                    namespaced=False,
                    resource="ippools",
                )
            )
        return True

    def _manifests(self, kind: str) -> list[Json]:
        """Return the objects of one of Calico's kinds; the store keeps them apart from others of that name.

        Raises InputError for one that cannot be used.
        """
        return [self._manifest(obj) for group in API for obj in self.world.store.list(f"{kind}.{group}")]

    def _manifest(self, obj: AnyObject) -> Json:
        """Return an object as a manifest, written once while it does not change."""
        key = id(obj)
        known = self._seen.get(key)
        if known is None or known[0] is not obj:
            if len(self._seen) > 200_000:
                self._seen.clear()
            manifest = obj.to_manifest()
            refuse(manifest)
            known = self._seen[key] = (obj, manifest)
        return known[1]

    def _endpoint(self, pod: Json) -> Json | None:
        """Return a pod's endpoint, worked out once while its manifest does not change."""
        known = self._endpoints.get(id(pod))
        if known is None or known[0] is not pod:
            if len(self._endpoints) > 200_000:
                self._endpoints.clear()
            known = self._endpoints[id(pod)] = (pod, endpoint_of(pod))
        return known[1]

    def _share(self) -> None:
        """Put what the plugins read into the documents they see."""
        store = self.store
        pools = {"items": self._manifests("IPPool")}
        if store.get(POOLS, "all") != pools:
            store.put(POOLS, "all", pools)
        for config in self._manifests("IPAMConfig"):
            spec = {k: v for k, v in (config.get("spec") or {}).items() if v is not None}
            store.put("ipamconfigs", "default", spec)
        for space in self.world.store.list(Namespace):
            self._document(store, "namespaces", space.name, space)
        for node in self.world.store.list(Node):
            self._document(store, "nodes", node.name, node)
        for pod in self.world.store.list(Pod):
            if any(key.startswith("cni.projectcalico.org/") for key in pod.metadata.annotations):
                self._document(store, "pods", f"{pod.namespace}.{pod.name}", pod)

    @staticmethod
    def _document(store: Datastore, kind: str, name: str, obj: AnyObject) -> None:
        document = {"labels": dict(obj.metadata.labels), "annotations": dict(obj.metadata.annotations)}
        if store.get(kind, name) != document:
            store.put(kind, name, document)

    def pools(self) -> list[IpPool]:
        """Return the pools, by name."""
        return [IpPool.of(manifest) for manifest in self._manifests("IPPool")]

    def _node(self, node: Node) -> bool:
        """calico-node's startup on one node: its BGP address and tunnel in the Node's annotations, condition, link."""
        ns = self.world.network.ns(node.name)
        # What is put off on a node is for its pods, and changes neither its wire nor its tunnels.
        assigned = peek(ns, "addresses").get("eth0", ())
        address = next((a for a in assigned if a.family == 4 and a.scope == "global"), None)
        if address is None:
            return False
        notes = dict(node.metadata.annotations)
        notes[f"{NOTES}IPv4Address"] = f"{address.local}/{address.length}"
        six = next((a for a in assigned if a.family == 6 and a.scope == "global"), None)
        if six is not None:  # IP6=autodetect
            notes[f"{NOTES}IPv6Address"] = f"{six.local}/{six.length}"
        pools = self.pools()
        for kind, key, device, own in (
            ("ipip", "IPv4IPIPTunnelAddr", IPIP_DEVICE, address),
            ("vxlan", "IPv4VXLANTunnelAddr", VXLAN_DEVICE, address),
            ("vxlan", "IPv6VXLANTunnelAddr", VXLAN6_DEVICE, six),
        ):
            if own is None:
                continue
            if any(getattr(pool, kind) != "Never" and pool.family == own.family for pool in pools):
                tunnel = notes.get(NOTES + key) or self._tunnel_address(node, kind, own.family)
                if not tunnel:
                    continue
                notes[NOTES + key] = tunnel
                if kind == "vxlan":
                    note = MAC_NOTES[own.family]
                    notes[NOTES + note] = mac_from(node.name, device, first=0x66)
                self._device(ns, device, own.local, tunnel)
        up = NodeCondition(
            type="NetworkUnavailable",
            status="False",
            reason="CalicoIsUp",
            message="Calico is running on this node",
        )
        wished = node
        if up not in node.status.conditions:
            others = tuple(c for c in node.status.conditions if c.type != up.type)
            wished = replace(node, status=replace(node.status, conditions=(*others, up)))
        if notes != node.metadata.annotations:
            wished = wished.with_metadata(annotations=notes)
        if wished is node:
            return False
        self.world.store.update(wished)
        return True

    def _tunnel_address(self, node: Node, kind: str, family: int) -> str:
        """Give the tunnel's link an address of one of the node's own blocks."""
        six = family == 6
        handle = f"{kind}{'-v6' if six else ''}-tunnel-addr-{node.name}"
        ipam = self.ipam
        held = ipam.addresses_of(handle)
        if held:
            return held[0]
        asked = Asked(
            node=node.name,
            handle=handle,
            attributes={"type": f"{kind}{'V6' if six else ''}TunnelAddress"},
            node_labels=dict(node.metadata.labels),
            use="Tunnel",
        )
        try:
            return ipam.assign(asked, family)
        except IpamError:
            return ""

    def _device(self, ns: Netns, device: str, local: str, address: str) -> None:
        """Felix makes tunl0 or vxlan.calico, with its address."""
        there = peek(ns, "links").get(device)
        if (
            there is not None
            and there.up
            and any(a.local == address for a in peek(ns, "addresses").get(device, ()))
        ):
            return
        mtu = min((link.mtu for link in ns.links.values() if link.kind == "physical"), default=1500)
        if device not in ns.links:
            if device == IPIP_DEVICE:
                ns.add_link(
                    device,
                    "ipip",
                    mtu=mtu - OVERHEAD["ipip"],
                    noarp=True,
                    tunnel=TunnelOptions(pmtudisc=False),
                )
            else:
                options = VxlanOptions(vni=4096, local=local, link="eth0", port=4789)
                mac = mac_from(ns.name, device, first=0x66)
                outer = OVERHEAD["vxlan"] + (IPV6_MORE if ":" in local else 0)
                ns.add_link(device, "vxlan", mac=mac, mtu=mtu - outer, vxlan=options)
        if not any(a.local == address for a in ns.addrs(device, None)):
            ns.add_address(device, f"{address}/{128 if ':' in address else 32}")
        if not ns.link(device).up:
            ns.set_link(device, up=True)

    # -- BGP ----------------------------------------------------------------------------------------------------

    def _look_at_blocks(self, nodes: Iterable[str]) -> bool:
        """confd's watch on blocks: whether any node has other ones than before."""
        files = self.store.home.files
        moved = False
        for name in nodes:
            text = files.get(f"/registry/crd.projectcalico.org/{AFFINITIES}/{name}", "")
            if self._affinities.get(name) != text:
                self._affinities[name] = text
                moved = True
        return moved

    def _blocks(self, node: str) -> tuple[str, ...]:
        text = self._affinities.get(node, "")
        return tuple(json.loads(text)["blocks"]) if text else ()

    def bgp_objects(self) -> BgpObjects:
        """Return BGPConfiguration default and all BGPPeers and BGPFilters."""
        configurations = {m["metadata"]["name"]: m for m in self._manifests("BGPConfiguration")}
        return BgpObjects(
            configuration=configurations.get("default", {}),
            peers=tuple(self._manifests("BGPPeer")),
            filters={m["metadata"]["name"]: m for m in self._manifests("BGPFilter")},
        )

    def _services(self) -> tuple[list[Service], dict[tuple[str, str], list[EndpointSlice]]]:
        """Return all Services, and the EndpointSlices of each."""
        slices: dict[tuple[str, str], list[EndpointSlice]] = {}
        for part in self.world.store.list(EndpointSlice):
            slices.setdefault((part.namespace, part.service_name), []).append(part)
        return self.world.store.list(Service), slices

    def _configure_bgp(self, nodes: Iterable[Node]) -> None:
        pools, objects = self.pools(), self.bgp_objects()
        self._ranges = Ranges.of(objects.configuration)
        services, slices = self._services() if self._ranges else ([], {})
        known: list[BgpNode] = []
        for node in nodes:
            notes = node.metadata.annotations
            address = notes.get(f"{NOTES}IPv4Address")
            if address:
                known.append(
                    BgpNode(
                        name=node.name,
                        address=address,
                        address6=notes.get(f"{NOTES}IPv6Address", ""),
                        blocks=self._blocks(node.name),
                        labels=node.metadata.labels,
                        asn=int(notes.get(f"{NOTES}ASNumber") or 0),
                        cluster_id=notes.get(f"{NOTES}RouteReflectorClusterID", ""),
                        static=static_routes(node.name, node.metadata.labels, self._ranges, services, slices),
                    )
                )
        self._nodes = {node.name: node for node in known}
        if all(pool.vxlan != "Never" for pool in pools):
            return  # calico_backend vxlan: no BIRD is started
        if self.mesh.stands_for_bird or (
            len(known) > MOST_PLAYED and objects.mesh and not self.fabric.daemons and not self.routers
        ):
            self.mesh.follow(known, pools, objects)
            self.mesh.update()
            return
        for own in known:
            config = bird_config(own, known, pools, objects)
            bird = self.fabric.daemons.get(own.name)
            if bird is None:
                bird = Bird(self.fabric, own.name, config)
                bird.start()
            else:
                bird.configure(config)
        for name, config in self.routers.items():
            if name not in self.fabric.daemons and name in self.world.network.netns:
                Bird(self.fabric, name, config).start()

    # -- Felix --------------------------------------------------------------------------------------------------

    def objects(self) -> list[Json]:
        """Return all that Felix computes from, as manifests."""
        out = [self._manifest(obj) for kind in KUBERNETES for obj in self.world.store.list(kind)]
        return out + [manifest for kind in CALICO for manifest in self._manifests(kind)]

    def _config(self, pools: Iterable[IpPool], node: Node, ipvs: bool) -> FelixConfig:
        notes = node.metadata.annotations
        told = {m["metadata"]["name"]: m.get("spec") or {} for m in self._manifests("FelixConfiguration")}
        spec = told.get("default", {}) | told.get(f"node.{node.name}", {})
        for key, what in NOT_MODELLED.items():
            if spec.get(key):
                raise InputError(f"FelixConfiguration: {key} ({what}) is not modelled")
        # Calico's manifests let pods speak to their own host (Felix's own default is Drop).
        config = FelixConfig(
            endpoint_to_host=str(spec.get("defaultEndpointToHostAction") or "Accept").upper(),
            vxlan=any(p.vxlan != "Never" and p.family == 4 for p in pools),
            vxlan6=any(p.vxlan != "Never" and p.family == 6 for p in pools),
            vxlan_address6=notes.get(f"{NOTES}IPv6VXLANTunnelAddr", ""),
            nft=spec.get("nftablesMode") == "Enabled",
            vxlan_address=notes.get(f"{NOTES}IPv4VXLANTunnelAddr", ""),
            ipip=any(p.ipip != "Never" for p in pools),
            ipip_address=notes.get(f"{NOTES}IPv4IPIPTunnelAddr", ""),
            ipvs=ipvs,
        )
        if spec.get("natOutgoingAddress"):
            config = replace(config, nat_address=spec["natOutgoingAddress"])
        if spec.get("natPortRange"):
            config = replace(config, nat_ports=str(spec["natPortRange"]))
        if spec.get("iptablesFilterDenyAction"):
            config = replace(config, filter_deny=str(spec["iptablesFilterDenyAction"]).upper())
        return config

    def _program(self, nodes: Iterable[Node]) -> None:
        listed = list(nodes)
        pools = self.pools()
        self._objects = Objects(self.objects(), self._endpoint)
        hosts = tuple(node.ip for node in self._nodes.values())
        vteps = tuple(
            Vtep(
                node.name,
                notes[f"{NOTES}IPv{fam}VXLANTunnelAddr"],
                notes[NOTES + MAC_NOTES[fam]],
                self._nodes[node.name].at(fam),
            )
            for node in listed
            for fam in (4, 6)
            if (notes := node.metadata.annotations).get(f"{NOTES}IPv{fam}VXLANTunnelAddr")
            and node.name in self._nodes
        )
        blocks, borrowed = self._felix_blocks(pools) if vteps else ((), ())
        for node in listed:
            felix = self.felix.get(node.name)
            if felix is None:
                felix = self.felix[node.name] = Felix(self.world.network, node.name)
            ns = self.world.network.ns(node.name)
            own = tuple(a.local for a in host_addresses(ns) if a.scope in ("global", "host"))
            known = self._nodes.get(node.name)
            subnets = known.subnets if known is not None else ()
            config = self._config(pools, node, "kube-ipvs0" in peek(ns, "links"))

            def program(
                felix: Felix = felix,
                objects: Objects = self._objects,
                config: FelixConfig = config,
                own: tuple[str, ...] = own,
                subnets: tuple[str, ...] = subnets,
            ) -> None:
                picture = objects.picture(felix.node)
                felix.program(
                    Programmed(picture, config, tuple(pools), hosts, own, vteps, blocks, borrowed, subnets)
                )

            if felix.wanted is None:
                put_off(ns, program, about=felix)
            else:
                later(ns, program, about=felix)

    def _felix_blocks(
        self, pools: Iterable[IpPool]
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """Return the blocks of VXLAN pools with their nodes, and single addresses that other nodes borrowed."""
        from kubenet_lab.packet.ip import ip_text

        blocks, borrowed = [], []
        ranges = [prefix(pool.cidr) for pool in pools if pool.vxlan != "Never"]
        for block in self.ipam.all_blocks():
            whole = prefix(block["cidr"])
            if not any(whole.net & r.mask == r.net and whole.family == r.family for r in ranges):
                continue
            owner = block["affinity"].removeprefix("host:")
            if owner:
                blocks.append((block["cidr"], owner))
            for number, entry in block["allocations"].items():
                if entry["node"] != owner:
                    borrowed.append((ip_text(whole.net + int(number), whole.family), entry["node"]))
        return tuple(blocks), tuple(borrowed)


class CalicoIpip(Calico):
    """Calico whose first pool tunnels in IPIP."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "ipip")


class CalicoVxlan(Calico):
    """Calico whose first pool tunnels in VXLAN; no BGP is spoken."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "vxlan")
