"""Layer 2: one node answers for an address, so all its packets come in there; when that node goes, another answers.

Who announces is decided without asking anybody: every speaker sorts the candidates by sha256 of "NODE#ADDRESS", and
the first one does. Speakers learn of each other's end from memberlist: each second one of the others is asked, and a
member that answers nobody is declared dead after 4 s (`ProbeInterval` 1 s, `SuspicionMult` 4, up to ten members). A
node that is cut off believes the same of all others, and goes on answering where nobody hears it.

On the node there is a packet socket that answers ARP (`walk.neighbours.responder`); the kernel knows nothing of the
address. On the router there is a neighbour entry. A new announcer sends gratuitous ARP, which changes that entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kubenet_lab.announce.announcer import Announced, Announcer
from kubenet_lab.daemon import World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Node
from kubenet_lab.packet.packet import ETH_ARP, UDP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange
from kubenet_lab.walk.neighbours import announce

MEMBERLIST_PORT = 7946
PROBE_INTERVAL = 1.0
SUSPICION = 4.0
"""Seconds from the first unanswered probe until a member is declared dead."""
INDIRECT = 3
"""How many others are asked to reach a member that did not answer."""
PROCESS = "speaker"


def ranking(nodes: Sequence[str], address: str) -> list[str]:
    """Node names in the order in which they come to announce an address: by sha256 of "NODE#ADDRESS"."""
    return sorted(nodes, key=lambda node: hashlib.sha256(f"{node}#{address}".encode()).digest())


class Layer2Announcer(Announcer):
    """Speakers that answer ARP and neighbour discovery (a `LoadBalancer`).

    Attributes:
        log: What happened: (second, node, address, "announces" or "withdraws").
    """

    kind = "L2Advertisement"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.log: list[tuple[float, str, str, str]] = []
        self._suspect: dict[str, float] = {}
        """Members that answered nobody, and since when."""
        self._dead: set[str] = set()
        self._back: set[str] = set()
        self._tick = 0.0

    def forget(self, node: str) -> None:
        """A machine was switched off: the others find out as from any other failure."""

    @property
    def next(self) -> float | None:
        """When members are asked again; without an address in force nobody cares."""
        return self._tick if self.announced() else None

    def settled(self) -> None:
        """Ask the members that are due, elect, and open or close the speakers' sockets."""
        network, now = self.world.network, self.world.now
        nodes = {n.name: n for n in self.world.store.list(Node) if n.name in network.netns}
        for name in nodes:
            _join(network.ns(name))
        if now >= self._tick:
            self._ask_members(list(nodes), now)
            self._tick = now + PROBE_INTERVAL
        wished = self.announced()
        alive = [name for name in nodes if name not in self._dead]
        for name in nodes:
            members = alive if name not in self._dead else [name]
            self._speak(name, {a.address for a in wished if _winner(a, members, nodes) == name}, now)
        self._back.clear()

    def announcer_of(self, address: str) -> str:
        """The node whose speaker answers for an address, as the others see it; "" where none does."""
        held = [
            name
            for name, ns in self.world.network.netns.items()
            if name == ns.host and name not in self._dead
            for s in peek(ns, "sockets").get((ETH_ARP, 0), ())
            if s.address == address
        ]
        return held[0] if held else ""

    def _ask_members(self, names: list[str], now: float) -> None:
        """One round of memberlist: every member is asked by another one, then by up to three more."""
        for gone in [name for name in (*self._suspect, *self._dead) if name not in names]:
            self._suspect.pop(gone, None)
            self._dead.discard(gone)
            self._back.discard(gone)
        for number, name in enumerate(names):
            others = [o for o in names[number + 1 :] + names[:number] if o not in self._dead]
            if not others or any(self._reaches(other, name) for other in others[: 1 + INDIRECT]):
                self._suspect.pop(name, None)
                if name in self._dead:
                    self._dead.discard(name)
                    self._back.add(name)
                continue
            since = self._suspect.setdefault(name, now)
            if now - since >= SUSPICION:
                self._dead.add(name)

    def _reaches(self, source: str, member: str) -> bool:
        address = next((a.local for a in self.world.network.ns(member).addrs("eth0", 4)), "")
        if not address:
            return False
        walk = Walk(self.world.network, now=self.world.now)
        return exchange(walk, source, Packet("", address, UDP, 0, MEMBERLIST_PORT, payload_size=30)).ok

    def _speak(self, name: str, wished: set[str], now: float) -> None:
        """Answer for these addresses and no others; whoever begins to says so unasked."""
        space = self.world.network.ns(name)
        present = {s.address: s for s in space.sockets.get((ETH_ARP, 0), ()) if s.process == PROCESS}
        for ip in sorted(present.keys() - wished):
            space.close(present[ip])
            self.log.append((now, name, ip, "withdraws"))
        for ip in sorted(wished):
            if ip not in present:
                space.listen(Socket(ETH_ARP, ip, 0, PROCESS))
                self.log.append((now, name, ip, "announces"))
            elif name not in self._back:
                continue
            # One that was cut off says it too. The real speaker does not: there the router's kernel asks again
            # within seconds (NUD_DELAY, NUD_PROBE), which the model's neighbour entries do not do.
            announce(Walk(self.world.network, now=now), space, "eth0", ip)


def _winner(one: Announced, members: Sequence[str], nodes: dict[str, Node]) -> str:
    candidates = [name for name in members if one.by(nodes[name])]
    return ranking(candidates, one.address)[0] if candidates else ""


def _join(space: Netns) -> None:
    if not space.sockets.get((UDP, MEMBERLIST_PORT)):
        space.listen(Socket(UDP, "::", MEMBERLIST_PORT, PROCESS, handler=_acknowledge))


def _acknowledge(packet: Packet, _now: float) -> Packet:
    return packet
