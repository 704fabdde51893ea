"""What carries BGP between daemons: time, TCP connections to port 179, and whether packets get through just now.

Messages are values, not bytes; but each one takes the way the kernel state of the moment gives it. Nothing here reads
a clock: `run` is told how far to go, and random delays come from a hash of names, so that a world repeats.
"""

from __future__ import annotations

import heapq
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from kubenet_lab.bgp.message import Message
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import SYN, TCP, Packet

if TYPE_CHECKING:
    from kubenet_lab.bgp.daemon import Bird
    from kubenet_lab.bgp.session import Session

PORT = 179
MOST_HOPS = 32
RETRANSMIT = (1.0, 2.0, 4.0)
"""Seconds between the first SYNs of a connection (Linux: 1 s, doubled)."""


class Timer:
    """A call that is due at a moment, unless cancelled."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Let it never happen."""
        self.call = None


class Connection:
    """One TCP connection between two sessions; `ends` are both, `lost` keeps what waits for a way (retransmission)."""

    __slots__ = ("ends", "fabric", "lost", "open")

    def __init__(self, fabric: Fabric, active: Session, passive: Session) -> None:
        self.fabric = fabric
        self.ends: tuple[Session, Session] = (active, passive)
        self.lost: dict[int, list[Message]] = {}
        self.open = True

    def other(self, end: Session) -> Session:
        """Return the far end."""
        return self.ends[1] if self.ends[0] is end else self.ends[0]

    def send(self, end: Session, message: Message) -> None:
        """Send a message; while no packet gets through it waits, and goes with the next one that does."""
        far = self.other(end)
        waiting = self.lost.get(id(far))
        if not self.fabric.passes(end.local, far.local):
            self.lost.setdefault(id(far), []).append(message)
            return
        if waiting:
            for held in waiting:
                self.fabric.soon(lambda held=held: self._arrive(end, far, held))  # type: ignore[misc]
            del self.lost[id(far)]
        self.fabric.soon(lambda: self._arrive(end, far, message))

    def _arrive(self, end: Session, far: Session, message: Message) -> None:
        if far.connection is self:
            far.receive(message)
        elif end.connection is self:
            # The far end has closed: the kernel there answers with a reset.
            end.closed("Socket: Connection reset by peer")

    def close(self, end: Session) -> None:
        """Close this end: the far one hears of it (FIN or RST) if a packet gets through."""
        self.open = False
        far = self.other(end)
        if far.connection is self and self.fabric.passes(end.local, far.local):
            self.fabric.soon(lambda: self._end(far))

    def _end(self, far: Session) -> None:
        if far.connection is self:
            far.closed("Socket: Connection closed")


class Fabric:
    """All BGP speakers of a network, and their time in s. `seed` decides the random parts of delays."""

    def __init__(self, network: Network, *, seed: int = 0, now: float = 0.0) -> None:
        self.network = network
        self.seed = seed
        self.now = now
        self.daemons: dict[str, Bird] = {}
        self._heap: list[tuple[float, int, Timer]] = []
        self._soon: deque[Callable[[], object]] = deque()
        self._serial = 0
        self._dirty: dict[str, Bird] = {}
        self._owners: dict[str, str] = {}
        self._ports: dict[tuple[str, str], tuple[str, str]] = {}
        self._passes: dict[tuple[str, str], bool] = {}
        self._moment: dict[tuple[str, str], bool] = {}
        self._covers: dict[str, bool] = {}
        self._stamp: tuple[int, tuple[int, ...]] | None = None

    def __repr__(self) -> str:
        return f"<BGP of {len(self.daemons)} speakers at {self.now:g} s>"

    # -- time ---------------------------------------------------------------------------------------------------

    def soon(self, call: Callable[[], object]) -> None:
        """Call at this very moment, after what was asked for before."""
        self._soon.append(call)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call when `seconds` have passed."""
        timer = Timer(self.now + seconds, call)
        self._serial += 1
        heapq.heappush(self._heap, (timer.due, self._serial, timer))
        return timer

    def spread(self, seconds: float, *names: str) -> float:
        """Return 75 to 100 per cent of a time (RFC 4271 section 10), always the same for the same names."""
        number = zlib.crc32(f"{self.seed} {' '.join(names)}".encode())
        return seconds * (0.75 + 0.25 * number / 0xFFFFFFFF)

    @property
    def next(self) -> float | None:
        """When something is due next, in s; None when nothing is."""
        while self._heap and self._heap[0][2].call is None:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    @property
    def wake(self) -> float | None:
        """When something happens next that others notice, in s; None while all sessions only keep alive.

        Between two looks nothing is missed: `run` lets everything happen at its own moment. But who asks in between
        should know when a session comes up, is given up, or a lost route is put back.
        """
        self._observe_ways()
        due = [moment for daemon in self.daemons.values() for moment in daemon.awaited()]
        return min(due, default=None)

    def run(self, until: float) -> None:
        """Let time pass; what is due on the way happens at its moment."""
        self.observe()
        while True:
            self._settle()
            due = self.next
            if due is None or due > until:
                break
            timer = heapq.heappop(self._heap)[2]
            if timer.due > self.now:
                self.now = timer.due
                self._moment.clear()
            call, timer.call = timer.call, None
            if call is not None:
                call()
        if until > self.now:
            self.now = until
            self._moment.clear()

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        self.observe()
        self._settle()

    def _settle(self) -> None:
        soon = self._soon
        while soon or self._dirty:
            while soon:
                soon.popleft()()
            dirty, self._dirty = self._dirty, {}
            for daemon in dirty.values():
                daemon.flush()

    def touch(self, daemon: Bird) -> None:
        """Let a daemon work on its changed routes once all messages of this moment are read."""
        self._dirty[daemon.name] = daemon

    def observe(self) -> None:
        """Tell every daemon whose kernel was changed by others (netlink)."""
        self._observe_ways()
        for daemon in list(self.daemons.values()):
            if daemon.name not in self.network.netns:
                daemon.kill()
                continue
            if daemon.alive and daemon.seen != daemon.ns.generation:
                daemon.kernel_changed()

    def _observe_ways(self) -> None:
        """Forget which ways were open where anything changed that could have opened or closed one."""
        self._moment.clear()
        network = self.network
        grown = sum(ns.generation for name, ns in network.netns.items() if name == ns.host)
        stamp = (grown, tuple(map(id, network.wires.values())))
        if stamp != self._stamp:
            self._stamp = stamp
            self.ways_changed()
            self._covers.clear()

    # -- who is where -------------------------------------------------------------------------------------------

    def add(self, daemon: Bird) -> None:
        """Take a speaker in. Raises InputError when its namespace has one."""
        if daemon.name in self.daemons:
            raise InputError(f"bird: there is one on {daemon.name} already")
        self.daemons[daemon.name] = daemon

    def remove(self, name: str) -> None:
        """Forget a speaker whose machine is gone: its peers get no packet from it."""
        daemon = self.daemons.pop(name)
        daemon.kill()

    def speaker_at(self, address: str) -> Bird | None:
        """Return the running daemon that listens on an address."""
        name = self._owners.get(address)
        if name is None or not any(a.local == address for a in self._addresses(name)):
            owner = self.network.find_address(address)
            if owner is None:
                return None
            name = self._owners[address] = owner.name
        found = self.daemons.get(name)
        return found if found is not None and found.alive else None

    def _addresses(self, name: str) -> list[Address]:
        ns = self.network.netns.get(name)
        return [] if ns is None else [a for entries in ns.addresses.values() for a in entries]

    def passes(self, src: str, dst: str) -> bool:
        """Say whether packets of a session between two addresses get through at this moment, both ways.

        Where only routes and links decide, the answer holds until somebody changes them (`ways_changed`); where rules
        do, for this moment.
        """
        key = (src, dst)
        found = self._passes.get(key)
        if found is None:
            found = self._moment.get(key)
        if found is None:
            there, looked = self._way(src, dst)
            back, looked_back = self._way(dst, src) if there else (False, False)
            found = there and back
            known = self._moment if looked or looked_back else self._passes
            known[key] = known[dst, src] = found
        return found

    def dropped(self, src: str, dst: str) -> bool:
        """Say whether rules alone keep packets of a session from getting through: nobody tells the sender then."""
        return all(self._way(one, other, rules=False)[0] for one, other in ((src, dst), (dst, src)))

    def ways_changed(self) -> None:
        """Forget which ways were open: links, addresses or routes changed."""
        self._passes.clear()
        self._moment.clear()

    def programmed(self, prefixes: Iterable[str]) -> None:
        """A daemon has changed these routes of its kernel: that may matter to sessions whose ends they cover."""
        covers = self._covers
        for dst in prefixes:
            found = covers.get(dst)
            if found is None:
                block = prefix(dst)
                found = covers[dst] = any(address in block for address in self._owners)
            if found:
                self.ways_changed()
                return

    def _way(self, src: str, dst: str, *, rules: bool = True) -> tuple[bool, bool]:
        """Follow a packet by routes and links, and with `rules` through those: (it arrives, rules had a say).

        Rules count where somebody has looked at a node's rules: those nobody has looked at yet are the components' own,
        and they let BGP through.
        """
        name = self._owners.get(src)
        ns = self.network.netns.get(name or "") or self.network.find_address(src)
        looked = False
        if ns is None:
            return False, looked
        self._owners[src] = start = ns.name
        for _hop in range(MOST_HOPS):
            if rules:
                looked |= self._has_rules(ns)
            if ns.is_local(dst):
                return not looked or self._walks(start, src, dst), looked
            way = ns.lookup(dst, src=src)
            if way is None or way.route.type != "unicast":
                return False, looked
            ahead = self._neighbour(ns, way.dev, way.via or dst)
            if ahead is None:
                return False, looked
            ns = ahead
            forwards = "net.ipv6.conf.all.forwarding" if ":" in dst else "net.ipv4.ip_forward"
            if not ns.is_local(dst) and ns.sysctl(forwards) != "1":
                return False, looked
        return False, looked

    @staticmethod
    def _has_rules(ns: Netns) -> bool:
        """Say whether a node has rules that are built already: those that are not are the components' own."""
        if ns.nftables_built:
            return True
        return not ns.rules_deferred and any(bool(found.tables) for found in ns.iptables.values())

    def _neighbour(self, ns: Netns, dev: str, address: str) -> Netns | None:
        """Return the namespace with an address at the other end of a link, while both links run."""
        link = ns.links[dev]
        if not link.running:
            return None
        if link.peer is not None:
            far = self.network.netns.get(link.peer.netns)
            return far if far is not None and far.is_local(address) else None
        wire = self.network.wires.get(link.wire)
        if wire is None or not wire.up:
            return None
        known = self._ports.get((link.wire, address))
        if known is None or not self._has(known, address, link.wire):
            known = next((port for port in wire.ports if self._has(port, address, link.wire)), None)
            if known is None:
                return None
            self._ports[link.wire, address] = known
        far = self.network.netns[known[0]]
        return far if far.links[known[1]].running else None

    def _has(self, port: tuple[str, str], address: str, wire: str) -> bool:
        ns = self.network.netns.get(port[0])
        if ns is None or port[1] not in ns.links or ns.links[port[1]].wire != wire:
            return False
        return any(a.local == address for a in ns.addresses.get(port[1], ()))

    def _walks(self, start: str, src: str, dst: str) -> bool:
        """Send a SYN to port 179 through all rules; the connection it would open is not kept."""
        from kubenet_lab.walk.engine import Walk

        kept = {name: ns.conntrack for name, ns in self.network.netns.items()}
        for ns in self.network.netns.values():
            ns.conntrack = ns.conntrack.copy()
        try:
            trace = Walk(self.network, now=self.now, seed=self.seed).send(
                start, Packet(src, dst, TCP, PORT, PORT, flags=SYN)
            )
        finally:
            for name, table in kept.items():
                self.network.netns[name].conntrack = table
        return trace.verdict == "delivered"
