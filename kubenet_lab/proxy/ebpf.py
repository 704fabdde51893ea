"""kube-proxy replacement: Services as entries of BPF maps (Cilium's agent, pkg/loadbalancer).

    a Service's port -> frontends (cluster IP, node port, external IP, load balancer's address)
    a frontend       -> slot 0 with kind, flags and count; slots 1..count with backends' ids; a reverse NAT entry

The node's programs do the rest, `kubenet_lab.walk.bpf`. Works beside any pod network that gives pods a link on the
host, as Cilium does when it is chained behind another CNI plugin: sockets translate what pods and the node call, the
node's link what callers outside send. Docs: https://docs.cilium.io/en/stable/network/kubernetes/kubeproxy-free/

Differences to kube-proxy, all Cilium's own:

- A Service without backends fails connect() with EHOSTUNREACH; packets from outside get ICMP port unreachable, also
  where only externalTrafficPolicy: Local leaves a node without (--service-no-backend-response=reject).
- A backend on the node that was called sees the client's address, whatever the policy is.
- Cluster IPs do not serve callers outside (--bpf-lb-external-clusterip); external IPs do not serve pods and nodes,
  unless they are the node's own (--bpf-lb-disable-external-ip-mitigation).
- Source ranges bind callers outside alone, and load balancer addresses alone (--bpf-lb-source-range-all-types).
- Hints for zones are not looked at (--enable-service-topology). SCTP is off (--enable-sctp).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.bpf import (
    EXTERNAL,
    HOST,
    INTERNAL,
    REMOTE_NODE,
    WORLD,
    BpfState,
    EndpointEntry,
    FamilyMaps,
    IpcacheEntry,
    LbBackend,
    LbKey,
    LbService,
    RevNat,
    SourceRange,
    slot_of,
)
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN
from kubenet_lab.packet.ip import family
from kubenet_lab.packet.packet import PROTO_NUMBERS
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import (
    Choice,
    Endpoint,
    Named,
    PortKey,
    ServiceMap,
    ServicePort,
    ServiceTracker,
    categorize,
)


class EbpfOptions(Struct, frozen=True):
    """Cilium's settings for Services, as its ConfigMap has them; the defaults are the program's."""

    mode: str = "snat"
    """bpf-lb-mode: "snat", "dsr" or "hybrid"."""
    dispatch: str = "opt"
    """bpf-lb-dsr-dispatch: "opt", or "geneve" where pods' packets travel in Geneve."""
    algorithm: str = "random"
    """bpf-lb-algorithm: "random" or "maglev"; for packets, not for sockets."""
    socket_lb: str = "full"
    """"full", or "host-only" (bpf-lb-sock-hostns-only)."""
    no_backend: str = "reject"
    """service-no-backend-response: "reject" or "drop"."""
    external_cluster_ip: bool = False
    """bpf-lb-external-clusterip."""
    topology: bool = False
    """enable-service-topology."""
    sctp: bool = False
    """enable-sctp."""
    beside_kube_proxy: bool = False
    """kube-proxy-replacement=false: only cluster IPs, only for pods' packets; the rest is kube-proxy's."""


class Frontend(Struct, frozen=True):
    """One address, port and scope at which a Service is called."""

    address: str
    port: int
    proto: int
    kind: str
    scope: int = EXTERNAL
    routable: bool = True

    @property
    def key(self) -> LbKey:
        """Its slot 0."""
        return LbKey(self.address, self.port, self.proto, 0, self.scope)


class ProxyEbpf:
    """The Services' part of Cilium's agent on one node."""

    def __init__(self, node: ProxyNode, config: KubeProxyConfig, options: EbpfOptions | None = None) -> None:
        self.node = node
        self.config = config
        self.options = options or EbpfOptions()
        self._ids: dict[LbKey, int] = {}
        self._backends: dict[tuple[str, int, int], int] = {}
        self._next = 1
        self._next_backend = 1
        self._owned: dict[int, dict[Named, list[LbKey]]] = {4: {}, 6: {}}
        self._users: dict[int, int] = {}
        """Backend id -> how many slots name it."""
        self._written: BpfState | None = None

    # -- NodeProxy ----------------------------------------------------------------------------------------------------

    def start(self, space: Netns, tracker: ServiceTracker) -> None:
        """Load and attach the programs; fill the maps when somebody first looks (`NodeProxy.start`).

        Raises InputError when the pod network has a tunnel that the mode cannot do with.
        """
        state = space.bpf
        if state is None:
            state = space.bpf = BpfState()
        o = self.options
        state.datapath = replace(
            state.datapath,
            socket_lb=o.socket_lb,
            node_port=not o.beside_kube_proxy,
            mode=o.mode,
            dispatch=o.dispatch,
            no_backend=o.no_backend,
            sctp=o.sctp,
            direct={f: ip for f in (4, 6) if (ip := self.node.ip(f))},
        )
        if state.datapath.unfit:
            raise InputError(state.datapath.unfit)
        if not o.beside_kube_proxy:
            self._attach(state, space)
        self._written = None
        state.defer(lambda filled: self._fill(filled, tracker.maps))

    def _attach(self, state: BpfState, space: Netns) -> None:
        state.attach("cgroup", "cil_sock")
        for dev in native_devices(space, self.node.ips):
            state.attach("tcx/ingress", "cil_from_netdev", dev)
            state.attach("tcx/egress", "cil_to_netdev", dev)
        network = space.network
        if not state.datapath.enforcement and network is not None:
            state.watch(lambda: network.population, lambda seen: self._hosts(seen, space))

    def follow(self, space: Netns, tracker: ServiceTracker, changed: Mapping[int, set[Named]]) -> None:
        """Write what changed (`NodeProxy.follow`); maps that nobody has looked at are left to the first look."""
        state = space.bpf
        if state is None:
            self.start(space, tracker)
            return
        if state.deferred:
            state.defer(lambda filled: self._fill(filled, tracker.maps))
        elif state is not self._written:
            self._fill(state, tracker.maps)
        else:
            for fam in (4, 6):
                for named in sorted(changed[fam]):
                    self._write(state, fam, named, tracker.maps[fam])

    # -- maps ---------------------------------------------------------------------------------------------------------

    def _fill(self, state: BpfState, maps: Mapping[int, ServiceMap]) -> None:
        """Write everything anew; connections, affinities and translations that live stay."""
        self._owned = {4: {}, 6: {}}
        self._users = {}
        self._written = state
        for fam in (4, 6):
            own = state.maps(fam)
            for table in (own.services, own.backends, own.rev_nat, own.maglev, own.source_ranges):
                table.clear()
            own.affinity_match.clear()
            seen: dict[Named, None] = dict.fromkeys(key[:2] for key in maps[fam].ports)
            by_name: dict[Named, list[PortKey]] = {named: [] for named in seen}
            for key in maps[fam].ports:
                by_name[key[:2]].append(key)
            for named, keys in by_name.items():
                self._write_ports(state, fam, named, keys, maps[fam])

    def _write(self, state: BpfState, fam: int, named: Named, maps: ServiceMap) -> None:
        own = state.maps(fam)
        old = self._owned[fam].pop(named, [])
        keys = [key for key in maps.ports if key[:2] == named]
        self._owned[fam][named] = []
        self._write_ports(state, fam, named, keys, maps, frozenset(old))
        present = set(self._owned[fam][named])
        for key in old:
            if key not in present:
                self._delete(own, key)

    def _write_ports(
        self,
        state: BpfState,
        fam: int,
        named: Named,
        keys: list[PortKey],
        maps: ServiceMap,
        had: frozenset[LbKey] = frozenset(),
    ) -> None:
        own = state.maps(fam)
        written = self._owned[fam].setdefault(named, [])
        for key in keys:
            if key.protocol == "SCTP" and not self.options.sctp:
                continue
            port = maps.ports[key]
            choice = self._choose(port, maps.endpoints.get(key, ()))
            for front in self._frontends(fam, port):
                if front.key in own.services and front.key not in had:
                    continue  # two Services with one address: the first keeps it
                self._write_frontend(own, front, port, self._backends_for(front, port, choice))
                written.append(front.key)

    def _choose(self, port: ServicePort, endpoints: tuple[Endpoint, ...]) -> Choice:
        if not self.options.topology and any(e.zone_hints or e.node_hints for e in endpoints):
            endpoints = tuple(replace(e, zone_hints=(), node_hints=()) for e in endpoints)
        return categorize(port, endpoints, self.node.name, self.node.zone)

    def _frontends(self, fam: int, port: ServicePort) -> Iterator[Frontend]:
        proto = PROTO_NUMBERS[port.key.protocol.lower()]
        yield Frontend(
            port.cluster_ip, port.port, proto, "ClusterIP", routable=self.options.external_cluster_ip
        )
        if self.options.beside_kube_proxy:
            return
        scopes = [EXTERNAL]
        if port.external_local != port.internal_local:
            scopes.append(INTERNAL)
        for scope in scopes:
            if port.node_port:
                for address in (ip for ip in self.node.ips if family(ip) == fam):
                    yield Frontend(address, port.node_port, proto, "NodePort", scope)
                anywhere = "::" if fam == 6 else "0.0.0.0"
                yield Frontend(anywhere, port.node_port, proto, "NodePort", scope, False)
            for address in port.load_balancer_ips:
                yield Frontend(address, port.port, proto, "LoadBalancer", scope)
            for address in port.external_ips:
                yield Frontend(address, port.port, proto, "ExternalIPs", scope)

    def _backends_for(self, front: Frontend, port: ServicePort, choice: Choice) -> tuple[Endpoint, ...]:
        inside = front.kind == "ClusterIP" or (
            front.scope == INTERNAL if port.external_local != port.internal_local else port.internal_local
        )
        only_local = port.internal_local if inside else port.external_local
        return (choice.local if only_local else choice.cluster) or ()

    def _write_frontend(
        self, own: FamilyMaps, front: Frontend, port: ServicePort, endpoints: tuple[Endpoint, ...]
    ) -> None:
        key = front.key
        number = self._ids.get(key)
        if number is None:
            number = self._ids[key] = self._next
            self._next += 1
        flags = set()
        if port.external_local and front.kind != "ClusterIP":
            flags.add("Local")
        if port.internal_local:
            flags.add("InternalLocal")
        if port.external_local != port.internal_local and front.kind != "ClusterIP":
            flags.add("two-scopes")
        if port.affinity_seconds:
            flags.add("sessionAffinity")
        if port.source_ranges and front.kind == "LoadBalancer":
            flags.add("check source-range")
        if self.options.mode == "dsr" and front.kind != "ClusterIP":
            flags.add("dsr")
        old = own.services.get(key)
        ids = [self._backend(own, e, front.proto) for e in endpoints]
        services = own.services
        services[key] = LbService(
            count=len(ids),
            rev_nat=number,
            kind=front.kind,
            flags=frozenset(flags),
            routable=front.routable,
            affinity_seconds=port.affinity_seconds,
            algorithm=self.options.algorithm,
        )
        had = old.count if old is not None else 0
        released = [services[slot_of(key, n)].backend for n in range(1, had + 1)]
        users, kind = self._users, front.kind
        for slot, backend in enumerate(ids, 1):
            services[LbKey(front.address, front.port, front.proto, slot, front.scope)] = LbService(
                0, backend, number, kind
            )
            users[backend] = users.get(backend, 0) + 1
        for slot in range(len(ids) + 1, had + 1):
            del services[slot_of(key, slot)]
        self._release(own, released)
        own.rev_nat[number] = RevNat(front.address, front.port)
        own.maglev.pop(number, None)
        if own.affinity_match:
            own.affinity_match -= {pair for pair in own.affinity_match if pair[0] == number}
        if port.affinity_seconds:
            own.affinity_match |= {(number, backend) for backend in ids}
        for known in [k for k in own.source_ranges if k.rev_nat == number]:
            del own.source_ranges[known]
        if "check source-range" in flags:
            for block in port.source_ranges:
                own.source_ranges[SourceRange(number, block)] = True

    def _backend(self, own: FamilyMaps, endpoint: Endpoint, proto: int) -> int:
        plain = (endpoint.address, endpoint.port, proto)
        number = self._backends.get(plain)
        if number is None:
            number = self._backends[plain] = self._next_backend
            self._next_backend += 1
        state = "terminating" if endpoint.terminating else "active"
        known = own.backends.get(number)
        if known is None or known.state != state:
            own.backends[number] = LbBackend(*plain, state)
        return number

    def _release(self, own: FamilyMaps, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._users[number] -= 1
            if not self._users[number]:
                del self._users[number], own.backends[number]

    def _delete(self, own: FamilyMaps, key: LbKey) -> None:
        service = own.services.pop(key)
        numbers = [own.services.pop(slot_of(key, n)).backend for n in range(1, service.count + 1)]
        self._release(own, numbers)
        own.rev_nat.pop(service.rev_nat, None)
        own.maglev.pop(service.rev_nat, None)
        own.affinity_match -= {pair for pair in own.affinity_match if pair[0] == service.rev_nat}
        for known in [k for k in own.source_ranges if k.rev_nat == service.rev_nat]:
            del own.source_ranges[known]

    # -- who is where, beside another pod network ---------------------------------------------------------------------

    def _hosts(self, state: BpfState, space: Netns) -> None:
        """Endpoints of this node, and the addresses of all nodes whose agents run."""
        network = space.network
        assert network is not None
        state.ipcache.clear()
        state.endpoints.clear()
        for fam in (4, 6):
            state.set_ipcache("::/0" if fam == 6 else "0.0.0.0/0", IpcacheEntry(WORLD))
        number = 0
        for other in network.netns.values():
            if other.bpf is not None:
                own = other is space
                outer = {dev for dev, hook in other.bpf.attachments if hook == "tcx/ingress"}
                for address in other.addrs():
                    if address.scope != "global" or not (own or address.dev in outer):
                        continue
                    full = f"{address.local}/{128 if address.family == 6 else 32}"
                    state.set_ipcache(full, IpcacheEntry(HOST if own else REMOTE_NODE))
                    if own:
                        state.endpoints[address.local] = EndpointEntry(host=True)
            elif other.host == space.name:
                number += 1
                self._endpoint(state, space, other, number)

    def _endpoint(self, state: BpfState, space: Netns, pod: Netns, number: int) -> None:
        for address in pod.addrs():
            peer = pod.links[address.dev].peer
            if address.scope != "global" or peer is None or peer.netns != space.name:
                continue
            ours = space.links[peer.link]
            state.endpoints[address.local] = EndpointEntry(
                number, ours.index, ours.name, pod.links[address.dev].mac, ours.mac
            )


def native_devices(space: Netns, ips: Iterable[str]) -> list[str]:
    """Return the links the programs are attached to: those with the node's address or a default route (--devices)."""
    wanted = set(ips)
    out = [a.dev for a in space.addrs() if a.local in wanted]
    for fam in (4, 6):
        # Routes to other nodes may only be promised; the default route is the node's own.
        own = dict.values(space.routes.get((fam, TABLE_MAIN), {}))
        out += [route.dev for route in own if route.dst in ("0.0.0.0/0", "::/0") and route.dev]
    return list(dict.fromkeys(dev for dev in out if dev in space.links))


def cleanup(space: Netns) -> None:
    """`cilium-dbg post-uninstall-cleanup`, its part for Services: programs detached, maps unpinned."""
    if space.bpf is None:
        return
    if not space.bpf.datapath.enforcement:
        space.bpf = None
        return
    state = space.bpf.look()
    state.attachments.pop(("", "cgroup"), None)
    state.datapath = replace(state.datapath, socket_lb="", node_port=False)
    for fam in (4, 6):
        own = state.maps(fam)
        for table in (own.services, own.backends, own.rev_nat, own.maglev, own.source_ranges, own.affinity):
            table.clear()
    # Other maps now, which an agent that goes on serving pods beside kube-proxy fills.
    space.bpf = state.snapshot()
