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
from kubenet_lab.kernel.put_off import peek


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
        self.stacks: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
        """What sits on a link: (namespace, link) -> the macvlan, ipvlan and VLAN devices on it, in their order."""
        self.wireguards: dict[str, tuple[tuple[str, str], ...]] = {}
        """Namespace -> the WireGuard devices whose UDP sockets are in it."""
        self.stacking: dict[str, None] = {}
        """Namespaces that have, or once had, a device for one of these two tables, in the order they got it."""
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
            stacked = link.lower is not None or (name, link.name) in self.stacks
            if (link.peer is not None or stacked) and link.name in gone.links:
                gone.delete_link(link.name)
        del self.netns[name]
        self.population += 1
        if name in self.stacking:
            self.restack()

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

    # -- devices on other links -----------------------------------------------------------------------------------

    def add_upper(
        self,
        ns: str,
        name: str,
        options: MacvlanOptions | IpvlanOptions | VlanOptions,
        *,
        mac: str = "",
        mtu: int = 0,
        index: int = 0,
    ) -> Link:
        """`ip link add link LOWER name NAME netns NS type macvlan|ipvlan|vlan ...`: a device on another's link.

        It begins down, with the lower link's MTU, and its MAC too where the kind has none of its own (`mac` is for
        macvlan and vlan). A macvlan on a macvlan, or an ipvlan on an ipvlan, sits on the link below both.

        Raises:
            KernelError: EEXIST (the name, or the VLAN id on that link), ENODEV, EOPNOTSUPP, EBUSY (the lower link is
                a bridge port, or macvlan and ipvlan meet), EINVAL (an MTU above the lower link's; passthru takes the
                lower link alone; lo carries nothing).
        """
        below = self.ns(options.lower.netns)
        lower = below.link(options.lower.link)
        beneath = lower.macvlan if isinstance(options, MacvlanOptions) else lower.ipvlan
        if beneath is not None and not isinstance(options, VlanOptions):
            options = replace(options, lower=beneath.lower)
            below = self.ns(options.lower.netns)
            lower = below.link(options.lower.link)
        if mtu > lower.mtu:
            raise KernelError("EINVAL", f"mtu {mtu} is more than the {lower.mtu} of {lower.name}")
        present = [link for _, link in self.uppers(below.name, lower.name)]
        fields: dict[str, Any] = {
            "mac": mac or lower.mac,
            "mac_set": bool(mac),
            "mtu": mtu or lower.mtu,
            "carrier": lower.running,
            "index": index,
        }
        if isinstance(options, VlanOptions):
            if any(link.vlan is not None and link.vlan.id == options.id for link in present):
                raise KernelError("EEXIST", f"VLAN {options.id} on {lower.name}")
            return self.ns(ns).add_link(name, "vlan", vlan=options, **fields)
        _refuse_upper(lower, present, options)
        if isinstance(options, MacvlanOptions):
            if options.mode == "passthru":
                fields |= {"mac": lower.mac, "mac_set": False}
            return self.ns(ns).add_link(name, "macvlan", macvlan=options, **fields)
        # Mode and flag belong to the port: the latest device sets them for all (`ipvlan_set_port_mode`).
        fields |= {"mac": lower.mac, "mac_set": False, "noarp": options.mode != "l2"}
        made = self.ns(ns).add_link(name, "ipvlan", ipvlan=options, **fields)
        for other, link in self.uppers(below.name, lower.name):
            if link.ipvlan is not None and link.ipvlan != options:
                other.set_link(link.name, ipvlan=options, noarp=options.mode != "l2")
        return made

    def uppers(self, ns: str, name: str) -> list[tuple[Netns, Link]]:
        """Return the devices that sit on a link, in whatever namespace they are."""
        return [
            (self.netns[other], self.netns[other].links[link])
            for other, link in self.stacks.get((ns, name), ())
        ]

    def below(self, link: Link) -> tuple[Netns, Link] | None:
        """Return the link that a device sits on and its namespace; None when there is none, or no longer."""
        lower = link.lower
        home = self.netns.get(lower.netns) if lower is not None else None
        if lower is None or home is None or lower.link not in home.links:
            return None
        return home, home.links[lower.link]

    def restack(self) -> None:
        """Work out anew which devices sit on which link, and whose sockets WireGuard uses."""
        stacks: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {}
        wireguards: dict[str, tuple[tuple[str, str], ...]] = {}
        for ns in [self.netns[name] for name in self.stacking if name in self.netns]:
            for link in peek(ns, "links").values():
                if link.lower is not None:
                    key = (link.lower.netns, link.lower.link)
                    stacks[key] = (*stacks.get(key, ()), (ns.name, link.name))
                elif link.wireguard is not None:
                    home = link.wireguard.home or ns.name
                    wireguards[home] = (*wireguards.get(home, ()), (ns.name, link.name))
        self.stacks, self.wireguards = stacks, wireguards

    def stacked(self, ns: str) -> None:
        """A namespace has got a device that sits on another link, or one of WireGuard's."""
        self.stacking[ns] = None
        self.restack()

    def upper_switched(self, ns: str, link: Link) -> None:
        """A macvlan or VLAN device went up or down: the link below hears its MAC too, or no longer does.

        Raises KernelError ENETDOWN for a VLAN device whose link is down.
        """
        found = self.below(link)
        if found is None:
            return
        below, under = found
        if link.vlan is not None and link.up and not under.up:
            raise KernelError("ENETDOWN", f"{link.name}: {under.name} is down")
        own = link.mac == under.mac or link.ipvlan is not None
        if own or (link.macvlan is not None and link.macvlan.mode == "passthru"):
            return
        if link.up:
            below.add_fdb(FdbEntry(under.name, link.mac, state="permanent"), replace_existing=True)
        elif (under.name, link.mac) in below.fdb:
            below.delete_fdb(under.name, link.mac)

    def check_mac(self, ns: str, link: Link) -> None:
        """A macvlan has a MAC of its own. Raises KernelError EADDRINUSE: the link below or a sibling has it."""
        found = self.below(link)
        if found is None:
            return
        below, under = found
        taken = [under.mac]
        for home, other in self.uppers(below.name, under.name):
            if other.up and other.macvlan is not None and (home.name, other.name) != (ns, link.name):
                taken.append(other.mac)
        if link.mac in taken:
            raise KernelError("EADDRINUSE", f"{link.mac} on {under.name}")

    def check_mtu(self, link: Link) -> None:
        """A macvlan or VLAN device takes no larger MTU than the link below has. Raises KernelError EINVAL, ERANGE."""
        found = self.below(link)
        if found is not None and link.mtu > found[1].mtu:
            raise KernelError(
                "ERANGE" if link.vlan is not None else "EINVAL", f"mtu {link.mtu} of {link.name}"
            )

    def lower_changed(self, ns: str, old: Link, new: Link) -> None:
        """A link changed: what sits on it follows in carrier, MTU and MAC, VLAN devices also up and down.

        `vlan_device_event`, `macvlan_device_event` and `ipvlan_device_event`.
        """
        for other, upper in self.uppers(ns, new.name):
            fields: dict[str, Any] = {}
            if upper.vlan is not None and old.up != new.up and upper.up != new.up:
                fields["up"] = new.up
            if new.mtu != old.mtu and (upper.mtu > new.mtu or upper.ipvlan is not None):
                fields["mtu"] = new.mtu
            if new.mac != old.mac and upper.mac == old.mac and not upper.mac_set:
                fields["mac"] = new.mac
            if fields:
                other.set_link(upper.name, **fields)
            if "mac" in fields:
                other.links[upper.name] = replace(other.links[upper.name], mac_set=False)
            other.set_carrier(upper.name, new.running)

    def unstack(self, ns: str, link: Link) -> None:
        """A link is gone: so are the devices on it, and what the link below kept for it."""
        for other, upper in self.uppers(ns, link.name):
            other.delete_link(upper.name)
        if link.lower is not None and link.up:
            self.upper_switched(ns, replace(link, up=False))

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
            link, peer=None, wire="", macvlan=None, ipvlan=None, vlan=None, wireguard=None, kind="moved"
        )
        above = self.stacks.pop((ns, name), ())
        home.delete_link(name)
        if link.lower is not None or link.wireguard is not None:
            self.restack()
        kept = {
            field: getattr(link, field)
            for field in link.__struct_fields__
            if field not in ("name", "index", "kind", "master", "port", "up", "wire", "qdiscs", "activated")
        }
        if link.wireguard is not None and not link.wireguard.home:
            # Its UDP sockets stay where it was made: that is how a container gets nothing but a tunnel.
            kept["wireguard"] = replace(link.wireguard, home=ns)
        made = target.add_link(new_name, link.kind, **kept)
        for upper_ns, upper in above:
            at = self.netns[upper_ns].links
            at[upper] = _on(at[upper], Peer(to, new_name))
        if above:
            self.restack()
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
        self.restack()

    def find_address(self, address: str) -> Netns | None:
        """Return the namespace that owns an address (not loopback), or None."""
        from kubenet_lab.kernel.put_off import addresses_of

        for ns in self.netns.values():
            if address in addresses_of(ns):
                return ns
        return None


def _refuse_upper(lower: Link, present: list[Link], options: MacvlanOptions | IpvlanOptions) -> None:
    """What `macvlan_common_newlink` and `ipvlan_link_new` refuse. Raises KernelError."""
    if lower.kind == "loopback":
        raise KernelError(
            "EINVAL", f"{lower.name} carries no {type(options).__name__.removesuffix('Options').lower()}"
        )
    macvlans = [link.macvlan for link in present if link.macvlan is not None]
    ipvlans = [link.ipvlan for link in present if link.ipvlan is not None]
    if lower.master or (ipvlans if isinstance(options, MacvlanOptions) else macvlans):
        raise KernelError("EBUSY", f"{lower.name} is another's already")
    if isinstance(options, MacvlanOptions) and macvlans:
        modes = [options.mode, *(one.mode for one in macvlans)]
        if "passthru" in modes:
            raise KernelError("EINVAL", f"passthru takes {lower.name} alone")


def _on(link: Link, lower: Peer) -> Link:
    """The same device, on a link that is elsewhere now."""
    kind = "macvlan" if link.macvlan else "ipvlan" if link.ipvlan else "vlan"
    return replace(link, **{kind: replace(getattr(link, kind), lower=lower)})
