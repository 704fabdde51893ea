"""Whatever happens in whatever order: what the loops made of the changes is what they make of the outcome alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.control import DUAL_STACK, settle
from kubenet_lab.control.slices import slices_of
from kubenet_lab.objects import EndpointSlice, Node, Pod, Service, default_nodes
from kubenet_lab.objects.endpoints import Endpoints
from kubenet_lab.store import Store
from tests.kubenet_lab.control.test_endpoints import pod, service

APPS = ("a", "b", "c")
HAPPENINGS = [
    "pod",
    "pod",
    "pod",
    "kill",
    "ready",
    "ready",
    "relabel",
    "end",
    "going",
    "service",
    "unserve",
    "select",
    "publish",
    "prefer",
    "zone",
    "node",
    "slice",
    "wipe",
    "undo",
]


class World:
    """A store that random things happen to."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store(seed)
        self.number = 0
        for node in default_nodes(4):
            self.store.create(node)

    def step(self) -> str:
        """Let one thing happen and say what."""
        kind = self.random.choice(HAPPENINGS)
        getattr(self, f"_{kind}")()
        return kind

    def _one(self, kind: Any) -> Any:
        found = [o for o in self.store.list(kind) if o.name != "kubernetes"]
        return self.random.choice(found) if found else None

    def _pod(self) -> None:
        self.number += 1
        made = pod(self.number, ready=self.random.random() < 0.7, app=self.random.choice(APPS))
        made = made.with_metadata(labels={**made.metadata.labels, "tier": self.random.choice("xy")})
        self.store.create(
            replace(made, spec=replace(made.spec, node_name=f"node-{self.random.randint(1, 5)}"))
        )

    def _kill(self) -> None:
        if victim := self._one(Pod):
            self.store.delete(Pod, victim.name, victim.namespace)

    def _ready(self) -> None:
        if victim := self._one(Pod):
            self.store.update(victim.with_status(ready=not victim.ready))

    def _relabel(self) -> None:
        if victim := self._one(Pod):
            self.store.update(victim.with_metadata(labels={"app": self.random.choice(APPS)}))

    def _end(self) -> None:
        if victim := self._one(Pod):
            self.store.update(victim.with_status(phase="Succeeded", ready=False))

    def _going(self) -> None:
        victim = self._one(Pod)
        if victim and not victim.terminating:
            stamp = {"deletion_timestamp": "2026-01-01T01:00:00Z", "deletion_grace_period_seconds": 3600}
            # A finalizer keeps it: nobody has to run out of patience here.
            self.store.update(victim.with_metadata(**stamp, finalizers=("example.com/keep",)))

    def _service(self) -> None:
        name = f"s{self.random.randint(0, 5)}"
        if self.store.find(Service, name) is None:
            families = self.random.choice(["SingleStack", "PreferDualStack"])
            self.store.create(
                service(name, ipFamilyPolicy=families, selector={"app": self.random.choice(APPS)})
            )

    def _unserve(self) -> None:
        if victim := self._one(Service):
            self.store.delete(Service, victim.name, victim.namespace)

    def _spec(self, **changes: Any) -> None:
        if victim := self._one(Service):
            self.store.update(replace(victim, spec=replace(victim.spec, **changes)))

    def _select(self) -> None:
        extra = {"tier": "x"} if self.random.random() < 0.5 else {}
        self._spec(selector={"app": self.random.choice(APPS), **extra})

    def _publish(self) -> None:
        self._spec(publish_not_ready_addresses=self.random.random() < 0.5)

    def _prefer(self) -> None:
        self._spec(traffic_distribution=self.random.choice([None, "PreferSameZone", "PreferSameNode"]))

    def _zone(self) -> None:
        node = self._one(Node)
        if node is not None:
            zone = {"topology.kubernetes.io/zone": self.random.choice("pqr")}
            self.store.update(node.with_metadata(labels={**node.metadata.labels, **zone}))

    def _node(self) -> None:
        name = f"node-{self.random.randint(1, 4)}"
        if self.store.find(Node, name) is not None:
            self.store.delete(Node, name)
        else:
            self.store.create(default_nodes(4)[int(name[-1]) - 1])

    def _slice(self) -> None:
        victim = self._one(EndpointSlice)
        if victim is not None and victim.endpoints:
            self.store.update(replace(victim, endpoints=victim.endpoints[1:]))

    def _wipe(self) -> None:
        if victim := self._one(EndpointSlice):
            self.store.delete(EndpointSlice, victim.name, victim.namespace)

    def _undo(self) -> None:
        """Several things happen, are acted on, and are all taken back."""
        before = self.store.snapshot()
        for _ in range(3):
            self._kill()
            self._service()
            self._pod()
        if self.random.random() < 0.5:
            settle(self.store, DUAL_STACK)
        self.store.restore(before)


def shown(items: list[EndpointSlice]) -> dict[Any, list[Any]]:
    """Endpoints by Service, family and ports, however they are packed.

    A not ready endpoint may keep an old hint that a fresh one never had.
    """
    found: dict[Any, list[Any]] = {}
    for item in items:
        if item.service_name == "kubernetes":
            continue
        ends = [replace(e, hints=e.hints if e.ready else None) for e in item.endpoints]
        ports = item.ports if ends else ()
        if ends or (item.service_name, item.address_type) not in found:
            found.setdefault((item.service_name, item.address_type, ports), []).extend(ends)
    full = {(name, family) for (name, family, ports), ends in found.items() if ends}
    found = {key: ends for key, ends in found.items() if ends or key[:2] not in full}
    return {key: sorted(ends, key=lambda e: (e.addresses, e.target_ref.name)) for key, ends in found.items()}


@pytest.mark.parametrize("seed", range(12))
def test_slices_and_endpoints_are_those_of_the_outcome(seed: int) -> None:
    world = World(seed)
    history: list[str] = []
    for _ in range(60):
        for _ in range(world.random.choice([1, 1, 2, 5])):
            history.append(world.step())
        settle(world.store, DUAL_STACK)
        assert settle(world.store, DUAL_STACK) == []
        rest = [o for kind in (Node, Service, Pod) for o in world.store.list(kind)]
        fresh = slices_of(rest, DUAL_STACK)
        assert shown(world.store.list(EndpointSlice)) == shown(fresh), history
        assert all(len(item.endpoints) <= 100 for item in world.store.list(EndpointSlice))
        again = Store()
        for obj in rest:
            again.create(obj)
        settle(again, DUAL_STACK)
        subsets = {item.name: item.subsets for item in world.store.list(Endpoints)}
        assert subsets == {item.name: item.subsets for item in again.list(Endpoints)}, history
