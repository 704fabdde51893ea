"""What the two kinds of speaker share: addresses in force, and who may announce them."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kubenet_lab.announce import config, pools
from kubenet_lab.announce.config import Advertisement
from kubenet_lab.control import machine
from kubenet_lab.control.cloud_lb import EXCLUDED, addresses, handles
from kubenet_lab.control.loop import apply
from kubenet_lab.daemon import World
from kubenet_lab.objects import EndpointSlice, Node, Service
from kubenet_lab.store import Key


class Announced(Struct, frozen=True):
    """One address of a Service, the advertisements that mean its pool, and the nodes with endpoints behind it.

    `local` says that only nodes with an endpoint of their own may announce it (externalTrafficPolicy Local).
    """

    service: Key
    address: str
    advertisements: tuple[Advertisement, ...]
    endpoint_nodes: frozenset[str]
    local: bool

    def by(self, node: Node) -> list[Advertisement]:
        """The advertisements by which a node may announce it; none where the node may not.

        A node that is labelled out of external load balancers, or whose network is unavailable, may not.
        """
        if not self.endpoint_nodes or (self.local and node.name not in self.endpoint_nodes):
            return []
        if EXCLUDED in node.metadata.labels:
            return []
        if any(c.type == "NetworkUnavailable" and c.status == "True" for c in node.status.conditions):
            return []
        return [one for one in self.advertisements if one.from_node(node)]


class Announcer:
    """A controller, and speakers on all nodes; subclasses are the speakers (`settled`, `next`).

    Attributes:
        pending: Why Services have no address: (namespace, name) -> reason.
    """

    kind = ""
    """The kind of its advertisements."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: dict[Key, str] = {}
        self._seen: object = None
        self._keep: object = None

    def reconcile(self) -> bool:
        """Give Services addresses; see `daemon.Daemon.reconcile`."""
        store = self.world.store
        services = store.list(Service)
        offers = [
            o for k in ("IPAddressPool", "BGPPeer", self.kind) for o in store.list(f"{k}.{config.GROUP}")
        ]
        seen = ([*map(id, services)], [*map(id, offers)])
        if seen == self._seen or machine.ROUTER not in self.world.network.netns:
            return False
        config.peers(store)  # what is wrong with them is said now, before anything is changed
        config.advertisements(store, self.kind)
        changes, self.pending = pools.wish(store, config.pools(store))
        apply(store, changes)
        if not changes:
            self._seen = seen
            self._keep = (services, offers)  # so that no other object is ever given these ids
        return bool(changes)

    def restart(self) -> None:
        """Read everything anew."""
        self._seen = None

    def why_pending(self, service: Service) -> str:
        """Why a Service has no address, "" when it has one or is none of ours."""
        return self.pending.get((service.namespace, service.name), "")

    def announced(self) -> list[Announced]:
        """Every address in force, in the order of the Services."""
        store = self.world.store
        offers, adverts = config.pools(store), config.advertisements(store, self.kind)
        slices: dict[Key, list[EndpointSlice]] = {}
        for one in store.list(EndpointSlice):
            slices.setdefault((one.namespace, one.service_name), []).append(one)
        found = []
        for service in store.list(Service):
            key = (service.namespace, service.name)
            for ip in addresses(service) if handles(service) else ():
                pool = next((p for p in offers if p.holds(ip)), None)
                means = tuple(one for one in adverts if pool is not None and one.means(pool))
                nodes = frozenset(_serving(slices.get(key, ()), ip))
                found.append(
                    Announced(key, ip, means, nodes, service.spec.external_traffic_policy == "Local")
                )
        return found


def _serving(slices: list[EndpointSlice] | tuple[()], address: str) -> Iterator[str]:
    """The nodes of endpoints that serve, of the address's own family (MetalLB's `nodesWithEndpoint`)."""
    wanted = "IPv6" if ":" in address else "IPv4"
    for one in slices:
        if one.address_type != wanted:
            continue
        for endpoint in one.endpoints:
            serving = endpoint.conditions.serving
            if endpoint.node_name and (
                endpoint.conditions.ready is not False if serving is None else serving
            ):
                yield endpoint.node_name
