"""Hosts joined by wires: all namespaces of a world, and the edits that touch two of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import IpvlanOptions, Link, MacvlanOptions, Peer, VlanOptions
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
        self.population = 0
        """Grows whenever a namespace comes or goes."""
        self.lacks: frozenset[str] = frozenset()
        """Link kinds (and "vlan_filtering") that the machines' kernels were built without."""
        self.race = ""
        """What becomes of two UDP packets of one socket that are sent together and so start one connection twice: ""
        one is always through before the other comes; "drop": the second is lost (Linux before 5.0); "merge": it is lost
        where the two were translated differently (5.0 to 5.6); "insert": both go on (since 5.7).
        Linux ed07d9a021df, 4e35c1cb9460, 6a757c07e51f (nf_ct_resolve_clash)."""

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
        self.population += 1
        return made

    def delete_netns(self, name: str) -> None:
        """`ip netns del NAME`: the far ends of its veth pairs vanish with it."""
        gone = self.ns(name)
        for link in list(gone.links.values()):
            if link.wire:
                self.unplug(name, link.name)
            if link.peer is not None and link.name in gone.links:
                gone.delete_link(link.name)
        del self.netns[name]
        self.population += 1

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

    def add_upper(
        self,
        ns: str,
        name: str,
        options: MacvlanOptions | IpvlanOptions | VlanOptions,
        *,
        mac: str = "",
        mtu: int = 0,
    ) -> Link:
        """`ip link add link LOWER name NAME netns NS type macvlan|ipvlan|vlan ...`: a device on another's link.

        It begins down, with the lower link's MTU, and its MAC too where the kind has none of its own (`mac` is for
        macvlan). Raises KernelError: EEXIST, ENODEV, EOPNOTSUPP, EBUSY (passthru takes the lower link alone), EINVAL
        (an MTU above the lower link's).
        """
        below = self.ns(options.lower.netns)
        lower = below.link(options.lower.link)
        if mtu > lower.mtu:
            raise KernelError("EINVAL", f"mtu {mtu} is more than the {lower.mtu} of {lower.name}")
        fields: dict[str, Any] = {"mac": lower.mac, "mtu": mtu or lower.mtu, "carrier": lower.running}
        if isinstance(options, MacvlanOptions):
            others = [link.macvlan for _, link in self.uppers(below.name, lower.name)]
            if others and ("passthru" in (options.mode, *(o.mode for o in others if o is not None))):
                raise KernelError(
                    "EINVAL" if options.mode == "passthru" else "EBUSY", f"{lower.name} has another macvlan"
                )
            made = self.ns(ns).add_link(
                name, "macvlan", macvlan=options, **fields | ({"mac": mac} if mac else {})
            )
        elif isinstance(options, IpvlanOptions):
            made = self.ns(ns).add_link(name, "ipvlan", ipvlan=options, **fields)
        else:
            made = self.ns(ns).add_link(name, "vlan", vlan=options, **fields)
        return made

    def raise_upper(self, ns: str, name: str) -> Link:
        """`ip link set NAME up` for a macvlan: the lower link now takes frames for its MAC too."""
        link = self.ns(ns).set_link(name, up=True)
        if link.macvlan is not None:
            below = self.ns(link.macvlan.lower.netns)
            if link.macvlan.mode != "passthru":
                entry = FdbEntry(link.macvlan.lower.link, link.mac, state="permanent")
                below.add_fdb(entry, replace_existing=True)
        return link

    def uppers(self, ns: str, name: str) -> list[tuple[Netns, Link]]:
        """Return the devices that sit on a link, in whatever namespace they are."""
        lower = Peer(ns, name)
        return [
            (other, link)
            for other in self.netns.values()
            for link in other.links.values()
            if link.lower == lower
        ]

    def unstack(self, ns: str, link: Link) -> None:
        """A link is gone: so are the devices on it, and what the link below kept for it."""
        for other, upper in self.uppers(ns, link.name):
            other.delete_link(upper.name)
        if link.macvlan is not None:
            below = self.netns.get(link.macvlan.lower.netns)
            if below is not None and (link.macvlan.lower.link, link.mac) in below.fdb:
                below.delete_fdb(link.macvlan.lower.link, link.mac)

    def move_link(self, ns: str, name: str, to: str, new_name: str = "") -> Link:
        """`ip link set NAME netns TO name NEW_NAME`: the link arrives down, without addresses. Raises EEXIST, ENODEV.

        The far end of a veth pair and the wire of a physical link stay joined to it.
        """
        home, target = self.ns(ns), self.ns(to)
        link, new_name = home.link(name), new_name or name
        if new_name in target.links:
            raise KernelError("EEXIST", f"{new_name} in {to}")
        if link.up:
            link = home.set_link(name, up=False)
        # Its far end must not go with it, so the link is taken out as if it stood alone.
        home.links[name] = replace(
            link, peer=None, wire="", macvlan=None, ipvlan=None, vlan=None, kind="moved"
        )
        home.delete_link(name)
        kept = {
            field: getattr(link, field)
            for field in link.__struct_fields__
            if field not in ("name", "index", "kind", "master", "port", "up", "wire", "qdiscs", "activated")
        }
        made = target.add_link(new_name, link.kind, **kept)
        if link.wire:
            old = self.wires[link.wire]
            ports = tuple((to, new_name) if port == (ns, name) else port for port in old.ports)
            self.wires[link.wire] = Wire(old.name, ports, old.mtu, old.up)
            made = target.links[new_name] = replace(made, wire=link.wire)
        if link.peer is not None and link.peer.netns in self.netns:
            far = self.netns[link.peer.netns]
            if link.peer.link in far.links:
                far.links[link.peer.link] = replace(far.links[link.peer.link], peer=Peer(to, new_name))
        return made

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
        self.population += 1
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
