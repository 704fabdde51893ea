"""A roll-out second by second: the pods, the endpoints in the slices, and a node's rules of one Service.

shop.apply(newer)
for moment in replay(shop, "web", node="node-1", seconds=60):
    print(moment)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from kubenet_lab.control.view import pods_of, view_of
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import EndpointSlice, Pod, Service
from kubenet_lab.packet.packet import PROTO_NUMBERS
from kubenet_lab.store import Store
from kubenet_lab.walk.destinations import destinations


class World(Protocol):
    """What is replayed: a `Cluster`."""

    store: Store
    network: Network

    @property
    def now(self) -> float:
        """Simulated time in s."""

    def advance(self, seconds: float) -> None:
        """Let time pass."""


class PodMoment(Struct, frozen=True):
    """A pod at one moment: `state` is Pending, Running, Terminating or another phase; `image` its first container's.

    `restarts` counts how often its containers were begun anew.
    """

    name: str
    state: str
    ready: bool
    node: str
    ip: str
    image: str
    restarts: int = 0


class EndpointMoment(Struct, frozen=True):
    """An endpoint at one moment, with the slice it stands in and its conditions."""

    slice: str
    address: str
    pod: str
    ready: bool
    serving: bool
    terminating: bool


class Moment(Struct, frozen=True):
    """One second of a roll-out.

    Attributes:
        second: Since the replay began.
        pods: The pods the Service's selector means, by name.
        endpoints: What its EndpointSlices say.
        rules: The lines of the node's iptables-save that belong to the Service.
        targets: (address, chance) of what a new connection from the node to the Service's first address and port is
            sent to, whatever the data plane; () where nothing is translated.
    """

    second: float
    pods: tuple[PodMoment, ...]
    endpoints: tuple[EndpointMoment, ...]
    rules: tuple[str, ...]
    targets: tuple[tuple[str, float], ...] = ()

    @property
    def ready(self) -> int:
        """How many endpoints take new connections."""
        return sum(endpoint.ready for endpoint in self.endpoints)

    def __str__(self) -> str:
        states = ", ".join(f"{pod.name} {pod.state}{' ready' if pod.ready else ''}" for pod in self.pods)
        return f"{self.second:g} s: {self.ready} ready of {len(self.endpoints)} endpoints; {states}"


def replay(
    world: World,
    service: str,
    namespace: str = "default",
    *,
    node: str,
    seconds: float,
    step: float = 1.0,
) -> list[Moment]:
    """Let time pass step by step and note what a Service's pods, slices and rules are at each of them.

    The first row is the present moment, before any time has passed.

    Raises:
        NotFound: There is no such Service.
        ValueError: `step` is not positive.
    """
    if step <= 0:
        raise ValueError(f"a step of a replay takes time, not {step} s")
    begin, rows = world.now, [moment(world, service, namespace, node=node)]
    while world.now + step <= begin + seconds + 1e-9:
        world.advance(step)
        rows.append(moment(world, service, namespace, node=node, since=begin))
    return rows


def moment(
    world: World, service: str, namespace: str = "default", *, node: str, since: float | None = None
) -> Moment:
    """Note what a Service's pods, slices and rules are now; its second counts from `since`. Raises NotFound."""
    found = world.store.get(Service, service, namespace)
    return _moment(world, found, node, 0.0 if since is None else world.now - since)


def changes_only(rows: list[Moment]) -> list[Moment]:
    """The moments at which something is other than a moment before."""

    def seen(row: Moment) -> object:
        return (row.pods, row.endpoints, row.rules, row.targets)

    return [row for index, row in enumerate(rows) if not index or seen(row) != seen(rows[index - 1])]


def _moment(world: World, service: Service, node: str, second: float) -> Moment:
    view = view_of(world.store)
    view.sync()
    pods = sorted(pods_of(view, service), key=lambda pod: pod.name)
    slices = view.slices_by_service.of((service.namespace, service.name))
    return Moment(
        second,
        tuple(map(_pod, pods)),
        tuple(
            endpoint
            for item in sorted(slices, key=lambda item: str(item.name))
            for endpoint in _endpoints(item)
        ),
        _rules(world.network, service, node),
        _targets(world, service, node),
    )


def _pod(pod: Pod) -> PodMoment:
    state = "Terminating" if pod.terminating else pod.status.phase
    image = pod.spec.containers[0].image if pod.spec.containers else ""
    restarts = max((item.restart_count for item in pod.status.container_statuses), default=0)
    return PodMoment(
        pod.name, state, pod.ready, pod.spec.node_name, pod.ips[0] if pod.ips else "", image, restarts
    )


def _endpoints(item: EndpointSlice) -> Iterator[EndpointMoment]:
    for endpoint in item.endpoints:
        target = endpoint.target_ref
        yield EndpointMoment(
            item.name,
            endpoint.addresses[0],
            target.name if target is not None else "",
            endpoint.ready,
            endpoint.serving,
            endpoint.terminating,
        )


def _targets(world: World, service: Service, node: str) -> tuple[tuple[str, float], ...]:
    if not service.addresses or not service.spec.ports:
        return ()
    port = service.spec.ports[0]
    proto = PROTO_NUMBERS[(port.protocol or "TCP").lower()]
    found = destinations(world.network, node, service.addresses[0], port.port, proto, now=world.now)
    chances: dict[str, float] = {}
    for (address, _), chance in found.items():
        chances[address] = chances.get(address, 0.0) + chance
    return tuple(sorted(chances.items()))


def _rules(network: Network, service: Service, node: str) -> tuple[str, ...]:
    """The lines whose comment names the Service ("default/web", "default/web:http")."""
    named = re.compile(rf'"{re.escape(service.namespace)}/{re.escape(service.name)}[" :]')
    return tuple(line for line in save(network.ns(node).iptables[4]).splitlines() if named.search(line))
