"""The cloud's load balancer: one more machine beside the router, whose kernel forwards or whose proxy connects anew.

    client -- router --+-- underlay --+-- node-1
                       |              +-- node-2
                  cloud-lb .2         +-- node-3

The router sends packets for a Service's address (VIP) to `cloud-lb`. Then, by the cloud's `ip_mode`:

- VIP: a multipath route on cloud-lb, one leg a healthy node, chosen by a hash of addresses and ports. The packet
  arrives at the node as the client sent it, and the answer goes from there straight to the client: direct server
  return. Only the Service's ports pass (FORWARD chain).
- Proxy: cloud-lb has the address, accepts the connection and opens one of its own to a healthy node's node port, from
  its own address. The PROXY protocol, which would tell the server the client's address, is *not modelled*.

A node is healthy while it answers the health check: `healthCheckNodePort` where externalTrafficPolicy is Local, else
kube-proxy's `:10256/healthz`. Checks are packets from cloud-lb at their moments of simulated time. Where no node is
healthy, all are used, as most clouds do ("fail open").

`kubectl` sees none of this; `ip route`, `iptables-save` and `ss -lt` on cloud-lb do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.control import cloud_lb, machine
from kubenet_lab.control.cloud_lb import CloudSettings, Records
from kubenet_lab.control.health import Check, Checks
from kubenet_lab.control.loop import apply
from kubenet_lab.daemon import World
from kubenet_lab.dns.outside import OutsideNames
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import addresses_of
from kubenet_lab.kernel.route import NextHop, Route
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Node, Service
from kubenet_lab.objects.service import ServicePort
from kubenet_lab.packet.ip import ip_text, mac_from, prefix
from kubenet_lab.packet.packet import SYN, TCP, UDP, Packet
from kubenet_lab.store import Key

NAME = "cloud-lb"
HEALTHZ_PORT, HEALTHZ_PATH = 10256, "/healthz"
"""kube-proxy's own health, which stands for the node's (`--healthz-bind-address`)."""
PROCESS = "cloud-proxy"


class Frontend(Struct, frozen=True):
    """One address of one Service at the load balancer, and where its packets may go.

    `targets` are (node, its address); `check` is what each of them is asked.
    """

    service: Key
    address: str
    ports: tuple[ServicePort, ...]
    source_ranges: tuple[str, ...]
    targets: tuple[tuple[str, str], ...]
    check: tuple[int, str]

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4

    @property
    def prefix(self) -> str:
        """Its address as a route names it: "198.51.100.1/32"."""
        return _single(self.address)


class CloudLoadBalancer:
    """The service controller and the machine it commands (a `LoadBalancer`).

    Attributes:
        settings: What the cloud is like; may be replaced at any time.
        checks: The health of the nodes.
        frontends: What the machine serves at present.
    """

    def __init__(self, world: World, settings: CloudSettings | None = None) -> None:
        self.world = world
        self.settings = settings or CloudSettings()
        self.frontends: tuple[Frontend, ...] = ()
        self.checks = Checks(world.network, NAME)
        self._records: Records = {}
        self._seen: object = None
        self._programmed: object = None

    # -- the daemon's form ---------------------------------------------------------------------------------------

    def reconcile(self) -> bool:
        """Give Services their addresses and the machine its targets; see `daemon.Daemon.reconcile`."""
        store = self.world.store
        services, nodes = store.list(Service), store.list(Node)
        seen = ([*map(id, services)], [*map(id, nodes)], self.settings)
        if seen == self._seen or machine.ROUTER not in self.world.network.netns:
            return False
        changes = cloud_lb.wish(store, self.settings, self._records)
        apply(store, changes)
        if not changes:
            self._seen = seen
            self._keep = (services, nodes)  # so that no other object is ever given these ids
            self._take_up(services, nodes)
        return bool(changes)

    def settled(self) -> None:
        """Send the checks that are due and program the machine by what they found."""
        if not self.frontends and NAME not in self.world.network.netns:
            return
        balancer = self._machine()
        self.checks.run(self.world.now)
        self._program(balancer)

    def forget(self, node: str) -> None:
        """A machine is gone; its object is, too, so `reconcile` hears of it."""

    def restart(self) -> None:
        """Read everything anew."""
        self._seen = self._programmed = None

    @property
    def next(self) -> float | None:
        """When the next health check is due."""
        return self.checks.next

    def why_pending(self, service: Service) -> str:
        """Why a Service has no address, "" when it has one or is none of ours."""
        if not cloud_lb.handles(service) or cloud_lb.addresses(service) or cloud_lb.hostnames(service):
            return ""
        return cloud_lb.why_not(service, self.settings) or "the pool has no free address of its families"

    def healthy(self, frontend: Frontend) -> list[tuple[str, str]]:
        """The targets that answer their check; all of them where none does."""
        port, path = frontend.check
        good = [t for t in frontend.targets if self.checks.up(Check(t[0], t[1], port, path))]
        return good or [*frontend.targets]

    # -- what it is to serve -------------------------------------------------------------------------------------

    def _take_up(self, services: Iterable[Service], nodes: Iterable[Node]) -> None:
        good = cloud_lb.target_nodes(nodes)
        self.frontends = tuple(
            frontend
            for service in services
            for ip in self._records.get((service.namespace, service.name), ())
            for frontend in [_frontend(service, ip, good)]
        )
        wanted = [Check(name, ip, *f.check) for f in self.frontends for name, ip in f.targets]
        settings = self.settings
        self.checks.want(wanted, self.world.now, settings.interval, settings.unhealthy, settings.healthy)
        self._names(services)

    def _names(self, services: Iterable[Service]) -> None:
        """The world's name server knows the host names of load balancers."""
        known = dict(machine.OUTSIDE_NAMES)
        for service in services:
            for name in cloud_lb.hostnames(service):
                known[name.lower().rstrip(".") + "."] = self._records.get(
                    (service.namespace, service.name), ()
                )
        router = self.world.network.ns(machine.ROUTER)
        for socket in router.sockets.get((UDP, 53), ()):
            present = getattr(socket.handler, "__self__", None)
            if isinstance(present, OutsideNames) and present.names != known:
                router.close(socket)
                router.listen(replace(socket, handler=OutsideNames(known).handle))

    # -- the machine ---------------------------------------------------------------------------------------------

    def _program(self, balancer: Netns) -> None:
        wished = (self.settings.ip_mode, tuple((f, tuple(self.healthy(f))) for f in self.frontends))
        if wished == self._programmed:
            return
        router = self.world.network.ns(machine.ROUTER)
        proxying = self.settings.ip_mode == cloud_lb.PROXY
        _set_addresses(balancer, {f.address for f in self.frontends} if proxying else set())
        self._listen(balancer, proxying)
        for family in (4, 6):
            own = next((a.local for a in balancer.addrs("eth0", family) if a.scope == "global"), "")
            ours = [f for f in self.frontends if f.family == family] if own else []
            to_us = [Route(f.prefix, via=own, dev="eth0", proto="static") for f in ours]
            _set_routes(router, family, to_us, own)
            _set_routes(balancer, family, [] if proxying else [self._spread(f) for f in ours])
            balancer.set_iptables(family, iptables.load(_rules(ours, proxying), family))
        self._programmed = wished

    def _machine(self) -> Netns:
        network = self.world.network
        if NAME in network.netns:
            return network.ns(NAME)
        router = network.ns(machine.ROUTER)
        gate = next(a for a in router.addrs("eth0", 4))
        block = prefix(f"{gate.local}/{gate.length}")
        taken = {address for ns in network.netns.values() for address in addresses_of(ns)}
        taken |= {ip for node in self.world.store.list(Node) for ip in node.internal_ips}
        address = next(
            ip
            for ip in (ip_text(block.net + n, 4) for n in range(2, 1 << 32 - block.length))
            if ip not in taken
        )
        made = network.add_netns(NAME)
        made.add_link("eth0", "physical", mac=mac_from(NAME, "eth0", first=0x52), mtu=1500)
        network.plug(machine.UNDERLAY, NAME, "eth0")
        made.set_link("eth0", up=True)
        made.add_address("eth0", f"{address}/{gate.length}")
        made.add_route("default", via=gate.local, dev="eth0")
        six = next((a for a in router.addrs("eth0", 6) if a.scope == "global"), None)
        if six is not None:
            block = prefix(f"{six.local}/{six.length}")
            made.add_address("eth0", f"{ip_text(block.net + 2, 6)}/{six.length}")
            made.add_route("default", via=six.local, dev="eth0")
        for key, value in {
            "net.ipv4.ip_forward": "1",
            "net.ipv6.conf.all.forwarding": "1",
            "net.ipv4.fib_multipath_hash_policy": "1",
            "net.ipv6.fib_multipath_hash_policy": "1",
            "net.ipv4.conf.all.send_redirects": "0",
            "net.ipv4.conf.default.send_redirects": "0",
        }.items():
            made.set_sysctl(key, value)
        return made

    def _spread(self, frontend: Frontend) -> Route:
        legs = tuple(NextHop(ip, "eth0") for _node, ip in self.healthy(frontend))
        to = frontend.prefix
        if not legs:
            return Route(to, type="blackhole", proto="static")
        if len(legs) == 1:
            return Route(to, via=legs[0].via, dev="eth0", proto="static")
        return Route(to, proto="static", nexthops=legs)

    def _listen(self, balancer: Netns, proxying: bool) -> None:
        for socket in [s for group in balancer.sockets.values() for s in group if s.process == PROCESS]:
            balancer.close(socket)
        for frontend in self.frontends if proxying else ():
            for port in frontend.ports:
                upstream = _upstream(self, frontend, port.node_port)
                balancer.listen(Socket(TCP, frontend.address, port.port, PROCESS, upstream=upstream))


def _upstream(
    cloud: CloudLoadBalancer, frontend: Frontend, node_port: int
) -> Callable[[Packet, float], Packet | None]:
    """The proxy's choice for one connection: a healthy node by a hash of the client's address and port."""

    def choose(accepted: Packet, _now: float) -> Packet | None:
        good = cloud.healthy(frontend)
        if not good:
            return None
        _node, address = good[crc32(f"{accepted.src} {accepted.sport}".encode()) % len(good)]
        return Packet("", address, TCP, 0, node_port, flags=SYN, mss=1460)

    return choose


def _frontend(service: Service, ip: str, nodes: Iterable[Node]) -> Frontend:
    spec = service.spec
    local = spec.external_traffic_policy == "Local" and spec.health_check_node_port
    targets = (
        (node.name, next((a for a in node.internal_ips if (":" in a) == (":" in ip)), "")) for node in nodes
    )
    return Frontend(
        (service.namespace, service.name),
        ip,
        spec.ports,
        tuple(text.strip() for text in spec.load_balancer_source_ranges),
        tuple((name, address) for name, address in targets if address),
        # The path of a healthCheckNodePort is not looked at by kube-proxy's server; clouds ask for /healthz.
        (spec.health_check_node_port, HEALTHZ_PATH) if local else (HEALTHZ_PORT, HEALTHZ_PATH),
    )


def _set_routes(space: Netns, family: int, wished: Iterable[Route], via: str = "") -> None:
    """Bring the static routes (those by `via`, if given) to the wished ones."""
    listed = space.route_list(family)
    present = {r.dst: r for r in listed if r.proto == "static" and (not via or r.via == via)}
    for dst, route in present.items():
        if all(dst != w.dst for w in wished):
            space.delete_route(dst, via=route.via)
    for route in wished:
        if present.get(route.dst) != route:
            fields = {"via": route.via, "dev": route.dev, "type": route.type, "nexthops": route.nexthops}
            space.add_route(route.dst, replace_existing=True, proto="static", **fields)


def _set_addresses(balancer: Netns, wished: set[str]) -> None:
    present = {a.local for a in balancer.addrs("lo", None)} - {"127.0.0.1", "::1"}
    for ip in sorted(present - wished):
        balancer.delete_address("lo", _single(ip))
    for ip in sorted(wished - present):
        balancer.add_address("lo", _single(ip))


def _single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _rules(frontends: Iterable[Frontend], proxying: bool) -> str:
    """What passes the machine: the Services' ports, and when it proxies, the sources they allow.

    A pass-through load balancer leaves `loadBalancerSourceRanges` to kube-proxy, which still sees the client.
    """
    lines = ["*filter", ":INPUT ACCEPT [0:0]", f":FORWARD {'ACCEPT' if proxying else 'DROP'} [0:0]"]
    lines.append(":OUTPUT ACCEPT [0:0]")
    for frontend in frontends:
        six = frontend.family == 6
        for port in frontend.ports:
            proto = (port.protocol or "TCP").lower()
            match = f"-d {frontend.prefix} -p {proto} -m {proto} --dport {port.port}"
            if not proxying:
                lines.append(f"-A FORWARD {match} -j ACCEPT")
            elif frontend.source_ranges:
                allowed = [r for r in frontend.source_ranges if (":" in r) == six]
                lines += [f"-A INPUT -s {r} {match} -j ACCEPT" for r in allowed]
                lines.append(f"-A INPUT {match} -j DROP")
    return "\n".join([*lines, "COMMIT", ""])
