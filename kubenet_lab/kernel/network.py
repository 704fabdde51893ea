"""Hosts joined by wires: all namespaces of a world, and the edits that touch two of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import Link, Peer
from kubenet_lab.kernel.netns import Netns


class Wire(Struct, frozen=True):
    """A broadcast domain of physical links: a switch, or a cable. `mtu` in bytes; 0 does not limit.

    `ports` are (namespace, link) pairs.
    """

    name: str
    ports: tuple[tuple[str, str], ...] = ()
    mtu: int = 0
    up: bool = True


class Network:
    """Every namespace and wire of a world. The only mutable network state there is."""

    def __init__(self) -> None:
        self.netns: dict[str, Netns] = {}
        self.wires: dict[str, Wire] = {}

    def __repr__(self) -> str:
        return f"<Network of {len(self.netns)} namespaces, {len(self.wires)} wires>"

    def ns(self, name: str) -> Netns:
        """Return a namespace by name. Raises NotFound, naming the one that looks most alike."""
        try:
            return self.netns[name]
        except KeyError:
            near = get_close_matches(name, self.netns, 1)
            raise NotFound("network namespace", name, nearest=near[0] if near else "") from None

    def add_netns(self, name: str, host: str = "") -> Netns:
        """`ip netns add NAME`. Raises KernelError EEXIST."""
        if name in self.netns:
            raise KernelError("EEXIST", name)
        made = self.netns[name] = Netns(name, host)
        made.network = self
        return made

    def delete_netns(self, name: str) -> None:
        """`ip netns del NAME`: the far ends of its veth pairs vanish with it."""
        gone = self.ns(name)
        for link in list(gone.links.values()):
            if link.wire:
                self.unplug(name, link.name)
            if link.peer is not None:
                gone.delete_link(link.name)
        del self.netns[name]

    def add_veth(
        self, ns_a: str, name_a: str, ns_b: str, name_b: str, *, mac_a: str, mac_b: str, mtu: int = 1500
    ) -> tuple[Link, Link]:
        """`ip link add A netns NS_A type veth peer name B netns NS_B`. Both ends start down."""
        a, b = self.ns(ns_a), self.ns(ns_b)
        if name_b in b.links:
            raise KernelError("EEXIST", f"{name_b} in {ns_b}")
        first = a.add_link(name_a, "veth", mac=mac_a, mtu=mtu, carrier=False, peer=Peer(ns_b, name_b))
        second = b.add_link(name_b, "veth", mac=mac_b, mtu=mtu, carrier=False, peer=Peer(ns_a, name_a))
        return first, second

    def add_wire(self, name: str, mtu: int = 0) -> Wire:
        """Add a switch with no ports."""
        if name in self.wires:
            raise KernelError("EEXIST", name)
        made = self.wires[name] = Wire(name, mtu=mtu)
        return made

    def plug(self, wire: str, ns: str, link: str) -> None:
        """Plug a physical link into a wire."""
        old = self.wires[wire]
        self.ns(ns).set_link(link, wire=wire)
        self.wires[wire] = Wire(wire, (*old.ports, (ns, link)), old.mtu, old.up)

    def unplug(self, ns: str, link: str) -> None:
        """Pull a physical link's cable."""
        wire = self.wires[self.ns(ns).link(link).wire]
        self.wires[wire.name] = Wire(
            wire.name, tuple(p for p in wire.ports if p != (ns, link)), wire.mtu, wire.up
        )
        self.ns(ns).set_link(link, wire="")

    def hosts(self) -> list[str]:
        """Return the names of hosts, in order."""
        return list(dict.fromkeys(ns.host for ns in self.netns.values()))

    @contextmanager
    def transaction(self) -> Iterator[Network]:
        """Apply edits to any namespaces whole or not at all."""
        before = self.snapshot()
        try:
            yield self
        except BaseException:
            self.restore(before)
            raise

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "wires": dict(self.wires),
            "netns": {name: (ns, ns.snapshot()) for name, ns in self.netns.items()},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Bring back a state taken by `snapshot`."""
        self.wires = dict(saved["wires"])
        self.netns = {}
        for name, (ns, state) in saved["netns"].items():
            ns.restore(state)
            self.netns[name] = ns

    def find_address(self, address: str) -> Netns | None:
        """Return the namespace that owns an address (not loopback), or None."""
        for ns in self.netns.values():
            for entries in ns.addresses.values():
                if any(a.local == address for a in entries):
                    return ns
        return None
