"""BGP: every node tells the router that it takes an address's packets; the router spreads flows over all that did.

Each speaker keeps a session with each BGPPeer that means its node. The session is a TCP connection to port 179 that
is tried every keep-alive interval; when nothing has come through for the hold time (90 s by default) the router gives
the session up and with it all it learned there (RFC 4271, 6.5). What is announced over a session that is up changes at
once. The router installs, per prefix, one route with a leg for each node of the highest local preference, and
chooses a leg by a hash of addresses and ports (`fib_multipath_hash_policy=1`).

Only what decides packets is here: sessions, prefixes, preference. Messages, paths and communities are *not modelled*.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.announce import config
from kubenet_lab.announce.announcer import Announced, Announcer
from kubenet_lab.announce.config import Peer
from kubenet_lab.control import machine
from kubenet_lab.daemon import World
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import NextHop, Route
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Node
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import SYN, TCP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

BGP_PORT = 179
ESTABLISHED, ACTIVE = "Established", "Active"


class Session(Struct, frozen=True):
    """One node's session with one peer. `address` is the node's, `address6` its IPv6 one or ""; times in s.

    Attributes:
        heard: When something last came through.
        due: When it is tried next.
        told: What the peer has been told: (prefix, local preference).
    """

    node: str
    peer: Peer
    address: str
    address6: str = ""
    state: str = ACTIVE
    heard: float = 0.0
    due: float = 0.0
    told: frozenset[tuple[str, int]] = frozenset()


class BgpAnnouncer(Announcer):
    """Speakers with BGP sessions to the router (a `LoadBalancer`).

    Attributes:
        sessions: (node, peer's name) -> session.
        log: What happened: (second, node, "Established", "hold timer expired", "announces P" or "withdraws P").
    """

    kind = "BGPAdvertisement"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.sessions: dict[tuple[str, str], Session] = {}
        self.log: list[tuple[float, str, str]] = []
        self._routed: object = None

    def forget(self, node: str) -> None:
        """A machine was switched off: the router finds out when the hold time is over."""

    def restart(self) -> None:
        """Read everything anew. Sessions stay with machines there are, and with those whose routes the router holds."""
        super().restart()
        self._routed = None
        network = self.world.network
        if machine.ROUTER not in network.netns:
            return
        routes = [
            r for family in (4, 6) for r in network.ns(machine.ROUTER).route_list(family) if r.proto == "bgp"
        ]
        ways = {leg.via for r in routes for leg in r.nexthops} | {r.via for r in routes if r.via}
        self.sessions = {
            key: session
            for key, session in self.sessions.items()
            if session.node in network.netns or ways & {session.address, session.address6}
        }

    @property
    def next(self) -> float | None:
        """When the next keep-alive is due, or a hold time is over."""
        return min((s.due for s in self.sessions.values()), default=None)

    def settled(self) -> None:
        """Keep the sessions, say over them what changed, and let the router draw its routes."""
        network = self.world.network
        if machine.ROUTER not in network.netns:
            return
        router = network.ns(machine.ROUTER)
        nodes = {n.name: n for n in self.world.store.list(Node) if n.name in network.netns}
        self._configure(router, nodes)
        wished = self.announced()
        for key, session in list(self.sessions.items()):
            kept = self._keep_alive(session, alive=session.node in nodes)
            if kept is None:
                del self.sessions[key]
                continue
            if kept.state == ESTABLISHED and session.node in nodes:
                kept = self._tell(kept, nodes[session.node], wished)
            self.sessions[key] = kept
        self._route(router)

    def _configure(self, router: Netns, nodes: dict[str, Node]) -> None:
        """Sessions for every node and peer that are meant for each other; the router listens."""
        peers = config.peers(self.world.store)
        own = {a.local for a in router.addrs(fam=4)}
        if any(p.address in own for p in peers) and not router.sockets.get((TCP, BGP_PORT)):
            router.listen(Socket(TCP, "::", BGP_PORT, "bgpd"))
            for family in (4, 6):
                router.set_sysctl(f"net.ipv{family}.fib_multipath_hash_policy", 1)
        for peer in peers:
            for node in nodes.values():
                if not peer.from_node(node):
                    continue
                address = next((ip for ip in node.internal_ips if ":" not in ip), "")
                present = self.sessions.get((node.name, peer.name))
                if present is None:
                    six = next((ip for ip in node.internal_ips if ":" in ip), "")
                    made = Session(node.name, peer, address, six, due=self.world.now)
                    self.sessions[node.name, peer.name] = made
                elif present.peer != peer:
                    self.sessions[node.name, peer.name] = replace(present, peer=peer, due=self.world.now)
        known = {peer.name for peer in peers}
        for key in [key for key in self.sessions if key[1] not in known]:
            del self.sessions[key]

    def _keep_alive(self, session: Session, alive: bool) -> Session | None:
        """Try a session that is due; None for one of a machine that is gone and whose hold time is over."""
        now = self.world.now
        if now < session.due:
            return session
        peer = session.peer
        if alive and self._reaches(session):
            if session.state != ESTABLISHED:
                self.log.append((now, session.node, ESTABLISHED))
            return replace(session, state=ESTABLISHED, heard=now, due=now + peer.keepalive)
        over = session.heard + peer.hold
        if session.state == ESTABLISHED and now >= over:
            self.log.append((now, session.node, "hold timer expired"))
            session = replace(session, state=ACTIVE, told=frozenset())
        if session.state != ESTABLISHED and not alive:
            return None
        later = now + peer.keepalive
        return replace(session, due=min(later, over) if session.state == ESTABLISHED else later)

    def _reaches(self, session: Session) -> bool:
        walk = Walk(self.world.network, now=self.world.now)
        syn = Packet("", session.peer.address, TCP, 0, session.peer.port, flags=SYN, mss=1460)
        return exchange(walk, session.node, syn).ok

    def _tell(self, session: Session, node: Node, wished: list[Announced]) -> Session:
        """Announce and withdraw, if the peer can be reached to hear of it."""
        says = frozenset(
            (
                str(prefix(f"{one.address}/{advert.length6 if ':' in one.address else advert.length}")),
                advert.local_pref,
            )
            for one in wished
            if ":" not in one.address or session.address6
            for advert in one.by(node)
            if not advert.peers or session.peer.name in advert.peers
        )
        if says == session.told or not self._reaches(session):
            return session
        for verb, changed in (("withdraws", session.told - says), ("announces", says - session.told)):
            self.log += [(self.world.now, session.node, f"{verb} {what}") for what, _pref in sorted(changed)]
        return replace(session, told=says)

    def _route(self, router: Netns) -> None:
        own = {a.local for a in router.addrs(fam=4)}
        learned: dict[str, dict[str, int]] = {}
        for session in self.sessions.values():
            if session.state == ESTABLISHED and session.peer.address in own:
                for what, pref in session.told:
                    way = session.address6 if ":" in what else session.address
                    best = learned.setdefault(what, {})
                    best[way] = max(pref, best.get(way, 0))
        if learned == self._routed:
            return
        present = {r.dst: r for family in (4, 6) for r in router.route_list(family) if r.proto == "bgp"}
        for dst in present.keys() - learned.keys():
            router.delete_route(dst)
        for dst, ways in learned.items():
            most = max(ways.values())
            via = sorted((ip for ip, pref in ways.items() if pref == most), key=lambda ip: prefix(ip).net)
            route = self._multipath(router, dst, via)
            if present.get(dst) != route:
                fields = {"via": route.via, "dev": route.dev, "nexthops": route.nexthops}
                router.add_route(dst, replace_existing=True, proto="bgp", **fields)
        self._routed = learned

    def _multipath(self, router: Netns, dst: str, via: list[str]) -> Route:
        ways = [(ip, router.lookup(ip)) for ip in via]
        legs = tuple(NextHop(ip, way.dev) for ip, way in ways if way is not None)
        if len(legs) == 1:
            return Route(dst, via=legs[0].via, dev=legs[0].dev, proto="bgp")
        return Route(dst, proto="bgp", nexthops=legs)
