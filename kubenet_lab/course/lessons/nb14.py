"""What notebook 14's cells call: doors and who comes in by them, load balancers and what they do when a node dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubenet_lab.announce.layer2 import Layer2Announcer
from kubenet_lab.cluster import Cluster
from kubenet_lab.control.cloud_lb import CloudSettings, addresses
from kubenet_lab.control.cloud_lb_machine import NAME, CloudLoadBalancer
from kubenet_lab.course.table import Table
from kubenet_lab.objects import Service
from kubenet_lab.scenarios.outside import CLIENT, MANIFEST, calls, outside
from kubenet_lab.views.failover import Failover, Moment
from kubenet_lab.views.outside_matrix import outside_matrix

POOL = """
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [%s]}
---
apiVersion: metallb.io/v1beta1
kind: %s
metadata: {name: all, namespace: metallb-system}
"""
PEER = """
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.168.1.1}
"""
LAYER2 = POOL % ("192.168.1.241-192.168.1.249", "L2Advertisement")
BGP = POOL % ("198.51.100.1-198.51.100.9", "BGPAdvertisement") + PEER


def doors(world: Cluster, *words: str, open: tuple[str, str] | None = None) -> Any:
    """Return the matrix of who is reached through which door, alive; `words` keep the rows with one of them.

    `open` is the cell (door, place) whose call is shown at first.
    """
    from kubenet_lab.widgets.outside_matrix import OutsideMatrixPanel

    found = calls(world)
    return OutsideMatrixPanel(found.only(*words) if words else found, world, open)


def bare_metal(load_balancer: str) -> Cluster:
    """Return the two Services with an announcer, "l2" or "bgp", and a pool for it."""
    world = Cluster.from_files(MANIFEST, load_balancer=load_balancer)
    world.apply(LAYER2 if load_balancer == "l2" else BGP)
    world.advance(60)
    return world


def address_of(world: Cluster, name: str = "nearby") -> str:
    """Return the address a Service has from its load balancer. Raises IndexError while it has none."""
    return addresses(world.store.get(Service, name, "default"))[0]


# -- the ways a call can come in
# ---------------------------------------------------------------------------------------


def without_node_ports() -> Cluster:
    """Return the two Services with `allocateLoadBalancerNodePorts: false`."""
    text = MANIFEST.read_text()
    for port in (30110, 30120):
        text = text.replace(f", nodePort: {port}", "")
    text = text.replace("type: LoadBalancer", "type: LoadBalancer\n  allocateLoadBalancerNodePorts: false")
    world = Cluster.from_files(text, load_balancer="cloud")
    world.advance(60)
    return world


def ways() -> Table:
    """Return, for each kind of load balancer, the way of a call from outside and how often it is rewritten."""
    worlds: dict[str, Callable[[], Cluster]] = {
        "passes on (ipMode VIP)": lambda: outside(load_balancer="cloud"),
        "passes on, no node ports": without_node_ports,
        "connects anew (ipMode Proxy)": lambda: outside(load_balancer="cloud-proxy"),
    }
    rows = []
    for kind, build in worlds.items():
        world = build()
        for name, policy in (("anywhere", "Cluster"), ("nearby", "Local")):
            trips = [world.connect(CLIENT, f"tcp://{address_of(world, name)}:80") for _ in range(12)]
            cell = outside_matrix({("door", "client"): trips})["door", "client"]
            longest = max(cell.ways, key=lambda way: (way.count("→"), way))
            low, high = cell.translations
            rows.append(
                (kind, policy, longest, str(low) if low == high else f"{low} or {high}", ", ".join(cell.seen))
            )
    heads = ("the load balancer", "policy", "a way", "rewrites", "whom the pod sees")
    return Table(heads, tuple(rows))


def statuses() -> Table:
    """Return what different clouds write into the status, what node-1 makes of it, and where a pod's call goes."""
    kinds = {
        "an address, ipMode VIP": CloudSettings(),
        "an address, ipMode Proxy": CloudSettings(ip_mode="Proxy"),
        "a host name": CloudSettings(ip_mode="Proxy", domain="lb.example.net"),
        "an internal address": CloudSettings(pool=("10.200.0.0/24",)),
    }
    rows = []
    for kind, settings in kinds.items():
        world = Cluster.from_objects([], load_balancer="cloud")
        assert isinstance(world.load_balancer, CloudLoadBalancer)
        world.load_balancer.settings = settings
        world.apply(MANIFEST)
        world.advance(60)
        (listed,) = (world.store.get(Service, "anywhere", "default").status.load_balancer or {})["ingress"]
        text = world.node("node-1").iptables_save()
        target = listed.get("hostname") or listed["ip"]
        named = sum(f"-d {target}/32" in line for line in text.splitlines())
        trip = world.connect("client-1", f"http://{target}")
        cell = outside_matrix({("door", "client"): [trip]})["door", "client"]
        shown = ", ".join(f"{key}: {value}" for key, value in listed.items())
        rows.append((kind, shown, str(named), cell.ways[0] if trip.delivered else trip.verdict))
    heads = (
        "what the cloud gives",
        "status.loadBalancer.ingress",
        "rules of node-1 with it",
        "a pod's own call",
    )
    return Table(heads, tuple(rows))


# -- when a node dies
# --------------------------------------------------------------------------------------------------


def leads_to(world: Cluster, address: str) -> tuple[str, ...]:
    """Return the nodes that packets for an address are brought to, read off the kernels on the way."""
    router = world.network.ns("router")
    macs = {world.network.ns(n.name).links["eth0"].mac: n.name for n in world.store.list("Node")}
    ips = {n.internal_ips[0]: n.name for n in world.store.list("Node")}
    if isinstance(world.load_balancer, Layer2Announcer):
        entry = router.neighbours.get(("eth0", address))
        return (macs.get(entry.mac, "nobody"),) if entry is not None and entry.usable else ()
    space = world.network.ns(NAME) if isinstance(world.load_balancer, CloudLoadBalancer) else router
    for route in space.route_list():
        if route.dst == f"{address}/32":
            return tuple(ips[leg.via] for leg in route.nexthops) or ((ips[route.via],) if route.via else ())
    return ()


def node_dies(
    load_balancer: str,
    *,
    step: float = 4,
    until: float = 40,
    back: float = 28,
    made: int = 24,
) -> Failover:
    """Watch callers outside of `nearby`: at the second step a node that gets calls loses its cable, later it is back.

    `load_balancer` is the cluster's; "none" has everybody call node-2's own node port.
    """
    cloudy = load_balancer == "none" or load_balancer.startswith("cloud")
    world = outside(load_balancer=load_balancer) if cloudy else bare_metal(load_balancer)
    address = "" if load_balancer == "none" else address_of(world)
    target = f"tcp://{address}:80" if address else "tcp://192.168.1.20:30120"
    world.connect(CLIENT, target)  # so that the router has met the address
    victim = _leads_to(world, address)[0]
    moments = []
    second = 0.0
    while second <= until:
        did = ""
        if second in (step, back):
            did = f"{victim} {'loses its cable' if second == step else 'has its cable again'}"
            cable(world, victim, plugged=second == back)
        trips = [world.connect(CLIENT, target) for _ in range(made)]
        good = sum(trip.delivered for trip in trips)
        moments.append(Moment(second, did, good, made, _leads_to(world, address)))
        world.advance(step)
        second += step
    return Failover(
        f"Calls from outside to {target.partition('//')[2]}, {TITLES[load_balancer]}", tuple(moments)
    )


def _leads_to(world: Cluster, address: str) -> tuple[str, ...]:
    return leads_to(world, address) if address else ("node-2",)


TITLES = {
    "none": "one node's own port",
    "cloud": "the cloud's load balancer with a health check every 8 s",
    "cloud-proxy": "the cloud's proxy with a health check every 8 s",
    "l2": "announced by ARP from one node",
    "bgp": "announced by BGP from every node",
}


def cable(world: Cluster, node: str, *, plugged: bool) -> None:
    """Pull or plug a node's cable; its default route comes back with the link, as its network manager sees to."""
    space = world.network.ns(node)
    space.set_link("eth0", up=plugged)
    if plugged:
        space.add_route("default", via="192.168.1.1", dev="eth0", replace_existing=True)
