"""One BIRD: the protocols kernel, direct and static, a BGP session a peer, and the table between them.

Routes are worked on in batches: messages of one moment only note which prefixes they touched, and `flush` then picks
the best paths, tells the peers and programs the kernel. Peers that are treated alike form a group, whose routes are
worked out once (BIRD 1.6 does it a peer; what the peers hear is the same).

Source: BIRD 1.6.8 and 2.0.12, `nest/rt-table.c`, `sysdep/unix/krt.c`, `proto/bgp/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kubenet_lab.bgp.config import Config, Peer
from kubenet_lab.bgp.fabric import PORT, Fabric, Timer
from kubenet_lab.bgp.filters import Filters, decide, refused, sent
from kubenet_lab.bgp.message import CEASE, END_OF_RIB, Attributes, Notification, Update
from kubenet_lab.bgp.path import Path, in_order
from kubenet_lab.bgp.session import Session
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN, NextHop, Route
from kubenet_lab.kernel.socket import UNIX, Socket
from kubenet_lab.packet.ip import IP_INT, prefix
from kubenet_lab.packet.packet import TCP

if TYPE_CHECKING:
    from kubenet_lab.bgp.control import Answer

NOT_DIRECT = ("cali", "kube-ipvs", "lo")
"""Links whose networks `protocol direct` leaves out (the template's `interface -"cali*", -"kube-ipvs*", "*"`)."""
PROTO = "bird"
PROCESS = "bird"
DEFAULT_LOCAL_PREF = 100
"""Of what another AS sends (`default bgp_local_pref`). Calico's filter makes a kernel metric of it: 2147483547."""


class Group:
    """Peers that get the same routes: what was told to them, by (prefix, path number)."""

    __slots__ = ("cache", "members", "out", "peer")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.members: dict[str, Session] = {}
        self.out: dict[str, dict[int, tuple[Attributes, Session | None]]] = {}
        self.cache: dict[Path, Attributes | None] = {}


class Bird:
    """BIRD in one network namespace.

    Attributes:
        table: Prefix -> its paths, the best first (BIRD's master table, both families).
        sessions: By protocol name.
        installed: Prefix -> the route this daemon has put into the kernel.
        alive: False after `kill` and `shutdown`.
    """

    def __init__(self, fabric: Fabric, name: str, config: Config) -> None:
        self.fabric = fabric
        self.name = name
        self.config = config
        self.filters = Filters(config)
        self._plain = _plain(config)
        self.alive = False
        self.started = 0.0
        self.seen = -1
        self.table: dict[str, tuple[Path, ...]] = {}
        self.sessions: dict[str, Session] = {}
        self.installed: dict[str, Route] = {}
        self.log: list[tuple[float, str]] = []
        self._groups: dict[tuple[object, ...], Group] = {}
        self._dirty: dict[str, None] = {}
        self._unflushed: dict[str, None] = {}
        self._paths: dict[tuple[int, Attributes, int], Path] = {}
        self._own: dict[str, tuple[Path, ...]] = {}
        self._pairs: dict[tuple[Path, Path], tuple[Path, ...]] = {}
        """Two paths in order, for the many prefixes that have just these."""
        self._scan: Timer | None = None
        self._sockets: dict[tuple[int, str], Socket] = {}
        self._hops: dict[str, tuple[tuple[str, str] | None, int | None]] = {}
        self._igp: list[tuple[int, int, int, int, Path]] = []
        fabric.add(self)

    def __repr__(self) -> str:
        up = sum(session.up for session in self.sessions.values())
        return f"<BIRD on {self.name}: {up} of {len(self.sessions)} sessions, {len(self.table)} prefixes>"

    @property
    def ns(self) -> Netns:
        """The namespace the daemon runs in."""
        return self.fabric.network.ns(self.name)

    # -- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """`bird -c bird.conf`: listen, read the kernel, begin every session.

        Routes of an earlier run that are no longer known are removed by the first scan; sessions bring them again.
        """
        if self.alive:
            return
        self.alive = True
        self.started = self.fabric.now
        self._hear()
        self._listen()
        for peer in self.config.peers:
            self._begin(peer)
        self._read_own()
        self._sync_kernel(first=True)
        self.fabric.touch(self)

    def _listen(self) -> None:
        """Open port 179 on the addresses of each family that has sessions, and the control sockets of `birdc`."""
        ns = self.ns
        wanted = [Socket(TCP, "0.0.0.0", PORT, PROCESS)]
        mine = {self.config.source_of(peer) for peer in self.config.peers if peer.family == 6}
        wanted += [Socket(TCP, address, PORT, PROCESS) for address in sorted(mine)]
        for family, path in control_paths(self.config).items():
            wanted.append(Socket(UNIX, path, 0, PROCESS, handler=partial(_answer, self, family)))
        for socket in wanted:
            key = (socket.proto, socket.address)
            if key not in self._sockets:
                self._sockets[key] = ns.listen(socket)

    def _hear(self) -> None:
        self.seen = self.ns.generation

    def kill(self) -> None:
        """`kill -9`: the kernel closes its connections; its routes stay."""
        self._end(None)

    def shutdown(self, *, persist: bool = True) -> None:
        """`kill -TERM`: tell the peers; with `persist` (Calico) the kernel keeps the routes."""
        if not self.alive:
            return
        self._end(Notification(CEASE, 2))
        if not persist:
            self._program(dict.fromkeys(self.installed))

    def _end(self, notification: Notification | None) -> None:
        if not self.alive:
            return
        self.alive = False
        for session in list(self.sessions.values()):
            session.stop(notification)
        if self._scan is not None:
            self._scan.cancel()
            self._scan = None
        if self.name in self.fabric.network.netns:
            for socket in self._sockets.values():
                if socket in self.ns.sockets.get((socket.proto, socket.port), ()):
                    self.ns.close(socket)
        self._sockets.clear()
        self.sessions.clear()
        self.table.clear()
        self._groups.clear()
        self._own.clear()
        self._paths.clear()
        self._pairs.clear()
        self._dirty.clear()

    def configure(self, config: Config) -> None:
        """`birdc configure`: what did not change goes on; changed peers start anew."""
        if config == self.config:
            return
        old, self.config = self.config, config
        self.filters = Filters(config)
        self._plain = _plain(config)
        if not self.alive:
            return
        fresh = (old.asn, old.router_id, old.hold_time, old.graceful_restart, old.restart_time) != (
            config.asn, config.router_id, config.hold_time, config.graceful_restart, config.restart_time,
        )  # fmt: skip
        wanted = {peer.name: peer for peer in config.peers}
        for name, session in list(self.sessions.items()):
            if fresh or wanted.get(name) != session.peer:
                session.stop(Notification(CEASE, 3))
                self._leave(session)
                del self.sessions[name]
        for group in self._groups.values():
            group.cache.clear()
        self._listen()
        for name, peer in wanted.items():
            if name not in self.sessions:
                self._begin(peer)
        self._read_own()
        if _told_by(old) != _told_by(config):
            for path in self._paths.values():
                self._point(path)
            self._dirty.update(dict.fromkeys(self.table))
        self.fabric.touch(self)

    def _begin(self, peer: Peer) -> None:
        session = self.sessions[peer.name] = Session(self, peer)
        session.start()

    def session_with(self, address: str, own: str) -> Session | None:
        """Return the session configured for a neighbour that calls on one of our addresses."""
        for session in self.sessions.values():
            if session.peer.address == address and session.local == own:
                return session
        return None

    # -- the protocols static, direct and kernel ----------------------------------------------------------------

    def kernel_changed(self) -> None:
        """Somebody else changed links, addresses or routes: netlink tells at once, a scan repairs later."""
        self._hear()
        self._read_own()
        self._sync_kernel(first=False)
        self.fabric.touch(self)

    def settled(
        self, heard: Iterable[tuple[str, Attributes]], kernel: Mapping[int, Iterable[Route]]
    ) -> list[Route]:
        """Return what the kernel has in the end when neighbours have said this; for a daemon that is not started.

        `heard` is of different prefixes, `kernel` other people's routes by family.
        """
        self._read_own(kernel)
        paths: dict[Attributes, Path] = {}
        for dst, attributes in heard:
            path = paths.get(attributes)
            if path is None:
                path = paths[attributes] = Path("bgp", "mesh", attributes=attributes)
                self._point(path)
            if dst not in self._own:
                self._set(dst, path.alone)
        return [route for dst in self.table if (route := self._route(dst)) is not None]

    def _read_own(self, kernel: Mapping[int, Iterable[Route]] | None = None) -> None:
        """Take up what this node has itself: its blocks, connected networks and other people's routes."""
        found: dict[str, list[Path]] = {}
        for block in (*self.config.blocks, *self.config.static):
            found.setdefault(prefix(block).text, []).append(Path("static", self._name("static", block)))
        ns = self.ns
        for entries in ns.addresses.values():
            for address in entries:
                link = ns.links[address.dev]
                if link.up and not link.name.startswith(NOT_DIRECT) and address.scope == "global":
                    found.setdefault(str(address.network), []).append(
                        Path("direct", self._name("direct", str(address.network)), dev=address.dev)
                    )
        for fam in (4, 6):
            for route in ns.routes.get((fam, TABLE_MAIN), {}).values() if kernel is None else kernel[fam]:
                if route.proto in ("kernel", PROTO, "redirect") or route.type != "unicast" or route.nexthops:
                    continue
                found.setdefault(route.dst, []).append(
                    Path(
                        "kernel",
                        self._name("kernel", route.dst),
                        metric=route.metric,
                        via=route.via,
                        dev=route.dev,
                    )
                )
        old, new = self._own, {}
        for dst, paths in found.items():
            before = old.get(dst, ())
            # A path that is as before stays the same object: what was told of it still holds.
            new[dst] = tuple(next((p for p in before if _same(p, path)), path) for path in paths)
        changed = [dst for dst in {**old, **new} if old.get(dst, ()) != new.get(dst, ())]
        self._own = new
        for dst in changed:
            learned = tuple(p for p in self.table.get(dst, ()) if p.source == "bgp")
            self._set(dst, new.get(dst, ()) + learned)
        self._resolve()

    def _name(self, kind: str, dst: str) -> str:
        if self.config.version == 1:
            return f"{kind}1"
        fam = 6 if ":" in dst else 4
        return {"static": f"s{fam}", "kernel": f"k{fam}", "direct": "direct1" if fam == 4 else "d6"}[kind]

    def _resolve(self) -> None:
        """Find the next hop of every BGP path anew (`gateway recursive`)."""
        self._igp = self._index()
        before, self._hops = self._hops, {}
        moved = {hop for hop, found in before.items() if self._hop(hop) != found}
        if not moved:
            return
        for path in self._paths.values():
            assert path.attributes is not None
            if path.attributes.next_hop in moved:
                self._point(path)
        for dst, paths in self.table.items():
            if any(p.attributes is not None and p.attributes.next_hop in moved for p in paths):
                self._set(dst, paths)

    def _index(self) -> list[tuple[int, int, int, int, Path]]:
        out = []
        for dst, paths in self._own.items():
            best = in_order(paths)[0] if len(paths) > 1 else paths[0]
            if best.source != "static":
                block = prefix(dst)
                out.append((block.length, block.net, block.mask, block.family, best))
        return sorted(out, key=lambda row: -row[0])

    def _hop(self, address: str) -> tuple[tuple[str, str] | None, int | None]:
        """Resolve a next hop: ((gateway, link) or None, distance: 0 when connected)."""
        found = self._hops.get(address)
        if found is None:
            number, fam = IP_INT[address], 6 if ":" in address else 4
            found = (None, None)
            for _length, net, mask, family, path in self._igp:
                if family == fam and number & mask == net:
                    found = ((path.via or address, path.dev), 0 if path.source == "direct" else None)
                    break
            self._hops[address] = found
        return found

    def _point(self, path: Path) -> None:
        assert path.attributes is not None
        path.resolved, path.igp_metric = self._hop(path.attributes.next_hop)
        path.order = None
        path.routes = None
        self._pairs.clear()
        if path.resolved is not None and self._plain:
            via, dev = path.resolved
            path.routes = _shared(via, dev, self.filters.kernel_metric(path))

    # -- the table ----------------------------------------------------------------------------------------------

    def _set(self, dst: str, paths: tuple[Path, ...]) -> None:
        if paths:
            self.table[dst] = in_order(paths) if len(paths) > 1 else paths
        else:
            self.table.pop(dst, None)
        self._dirty[dst] = None

    def learn(self, session: Session, update: Update) -> None:
        """Take an UPDATE of a neighbour into the table."""
        table, dirty = self.table, self._dirty
        if update.end_of_rib:
            session.end_of_rib()
            return
        self.fabric.touch(self)
        number = update.path
        for dst in update.withdrawn:
            paths = table.get(dst, ())
            kept = tuple(p for p in paths if p.session is not session or p.number != number)
            if len(kept) != len(paths):
                self._set(dst, kept)
        attributes = update.attributes
        if attributes is None:
            return
        if attributes.local_pref is None:
            attributes = replace(attributes, local_pref=DEFAULT_LOCAL_PREF)
        why = refused(attributes, session.peer, self.config)
        path = None if why else self._path(session, attributes, number)
        alone = path.alone if path is not None else ()
        rules = session.peer.imports
        pairs = self._pairs
        for dst in update.prefixes:
            before = table.get(dst)
            if before is None and path is not None and not rules:
                table[dst] = alone
                dirty[dst] = None
                continue
            if before is None:
                others: tuple[Path, ...] = ()
            elif path is not None and path in before:
                continue
            elif len(before) == 1 and before[0].session is not session:
                if path is not None and not rules:
                    pair = pairs.get((before[0], path))
                    if pair is None:
                        pair = pairs[before[0], path] = in_order((before[0], path))
                    table[dst] = pair
                    dirty[dst] = None
                    continue
                others = before
            else:
                others = tuple(p for p in before if p.session is not session or p.number != number)
            taken = path is not None and (not rules or decide(rules, dst) is not False)
            self._set(dst, (*others, path) if taken and path is not None else others)

    def _path(self, session: Session, attributes: Attributes, number: int) -> Path:
        key = (id(session), attributes, number)
        path = self._paths.get(key)
        if path is None or path.stale:
            path = Path(
                "bgp",
                session.peer.name,
                attributes=attributes,
                session=session,
                preference=self.filters.preference(attributes, session.peer),
                number=number,
            )
            self._paths[key] = path
            self._point(path)
        return path

    def mark_stale(self, session: Session) -> None:
        """Keep a neighbour's routes while it restarts, but remember that they are old."""
        self._leave(session)
        for path in self._paths.values():
            if path.session is session:
                path.stale = True

    def forget(self, session: Session, *, stale_only: bool = False) -> None:
        """Take a neighbour's routes (or those it did not send again) out of the table."""
        if not stale_only:
            self._leave(session)
        if not self.alive:
            return
        for key, path in list(self._paths.items()):
            if path.session is session and (path.stale or not stale_only):
                del self._paths[key]
                self._pairs.clear()
                for group in self._groups.values():
                    group.cache.pop(path, None)
        for dst, paths in list(self.table.items()):
            kept = tuple(p for p in paths if p.session is not session or (stale_only and not p.stale))
            if len(kept) != len(paths):
                self._set(dst, kept)
        self.fabric.touch(self)

    # -- telling the peers --------------------------------------------------------------------------------------

    def _group(self, session: Session) -> Group:
        peer = session.peer
        key = (
            peer.family, peer.asn, session.local, peer.rr_client, peer.cluster_id, peer.next_hop_self,
            peer.next_hop_keep, peer.exports, session.add_paths,
        )  # fmt: skip
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(peer)
            for dst in self.table:
                self._export(group, dst, session.add_paths)
        return group

    def _join(self, session: Session) -> Group:
        group = self._group(session)
        group.members[session.peer.name] = session
        return group

    def _leave(self, session: Session) -> None:
        for group in self._groups.values():
            group.members.pop(session.peer.name, None)

    def feed(self, session: Session) -> None:
        """A session is established: send all it may have, then the End-of-RIB marker."""
        self._publish()
        group = self._join(session)
        bundles: dict[tuple[Attributes, int], list[str]] = {}
        for dst, ways in group.out.items():
            for number, (attributes, source) in ways.items():
                if source is not session:
                    bundles.setdefault((attributes, number), []).append(dst)
        for (attributes, number), prefixes in bundles.items():
            session.send(Update(attributes, tuple(prefixes), path=number))
        if self.config.graceful_restart or bundles:
            session.send(END_OF_RIB)

    def _wished(self, group: Group, dst: str, several: bool) -> dict[int, tuple[Attributes, Session | None]]:
        paths = self.table.get(dst, ())
        if not paths or (":" in dst) != (group.peer.family == 6):
            return {}
        out: dict[int, tuple[Attributes, Session | None]] = {}
        numbers = 0
        for path in paths if several and len(paths) > 1 else paths[:1]:
            if path.source == "bgp":
                # Whether BGP lets a path go on is the same for all prefixes that share it.
                if path not in group.cache:
                    group.cache[path] = sent(path, group.peer, self.config, self.filters)
                attributes = group.cache[path]
            else:
                attributes = sent(path, group.peer, self.config, self.filters)
            if attributes is not None and self.filters.exports(path, dst, group.peer):
                out[numbers] = (attributes, path.session)
                numbers += 1
        return out

    def _export(
        self, group: Group, dst: str, several: bool
    ) -> tuple[dict[int, tuple[Attributes, Session | None]], dict[int, tuple[Attributes, Session | None]]]:
        old = group.out.get(dst, {})
        new = self._wished(group, dst, several)
        if new:
            group.out[dst] = new
        elif old:
            del group.out[dst]
        return old, new

    def _publish(self) -> None:
        """Tell every group what changed for it."""
        dirty, self._dirty = self._dirty, {}
        self._unflushed.update(dirty)
        for key, group in self._groups.items():
            several = bool(key[-1])
            news: dict[tuple[Attributes, int, Session | None], list[str]] = {}
            gone: dict[tuple[int, Session | None], list[str]] = {}
            cache, out = group.cache, group.out
            for dst in dirty:
                paths = self.table.get(dst)
                if (
                    paths is not None
                    and dst not in out
                    and cache.get(paths[0], self) is None
                    and (
                        len(paths) == 1
                        or (
                            cache.get(paths[1], self) is None
                            and (len(paths) == 2 or all(cache.get(path, self) is None for path in paths))
                        )
                    )
                ):
                    continue  # most of what came from inside: it does not go on inside
                old, new = self._export(group, dst, several)
                if old == new:
                    continue
                for number, (attributes, source) in new.items():
                    if old.get(number) != (attributes, source):
                        news.setdefault((attributes, number, source), []).append(dst)
                        before = old.get(number)
                        if before is not None and before[1] is not source and source is not None:
                            # The new source is not told its own route, but must lose the old one.
                            source.send(Update(withdrawn=(dst,), path=number))
                for number, (_attributes, source) in old.items():
                    if number not in new:
                        gone.setdefault((number, source), []).append(dst)
            for (number, source), prefixes in gone.items():
                update = Update(withdrawn=tuple(prefixes), path=number)
                for member in list(group.members.values()):
                    if member is not source:
                        member.send(update)
            for (attributes, number, source), prefixes in news.items():
                update = Update(attributes, tuple(prefixes), path=number)
                for member in list(group.members.values()):
                    if member is not source:
                        member.send(update)

    # -- the kernel ---------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Tell the peers and the kernel about all prefixes that changed."""
        if not self.alive:
            return
        self._publish()
        changed, self._unflushed = self._unflushed, {}
        table, wished = self.table, {}
        for dst in changed:
            paths = table.get(dst)
            if (
                paths is not None
                and (known := paths[0].routes) is not None
                and dst in known
                and (
                    len(paths) == 1
                    or (
                        paths[1].resolved == paths[0].resolved
                        and (len(paths) == 2 or all(p.resolved == paths[0].resolved for p in paths))
                    )
                )
            ):
                wished[dst] = known[dst]
            else:
                wished[dst] = self._route(dst)
        self._program(wished)

    def _route(self, dst: str) -> Route | None:
        """Return what the kernel should have for a prefix (the export to `protocol kernel`)."""
        paths = self.table.get(dst)
        if not paths:
            return None
        best = paths[0]
        if self.filters.rejected(dst):
            return None
        if best.source == "static":
            return _blackhole(dst, self.config.kernel_metric)
        if best.source != "bgp":
            return None  # the kernel had it before us
        tunnel = self.filters.tunnel(best, dst)
        if tunnel is None:
            return None
        metric = self.filters.kernel_metric(best)
        if best.resolved is None:
            return Route(dst, dev="lo" if ":" in dst else "", type="unreachable", proto=PROTO, metric=metric)
        if tunnel:
            assert best.attributes is not None
            return Route(
                dst, dev=tunnel, via=best.attributes.next_hop, proto=PROTO, metric=metric, onlink=True
            )
        legs = {best.resolved, *(p.resolved for p in paths[1:] if best.equal_cost(p))} - {None}
        if len(legs) > 1:
            hops = tuple(NextHop(via, dev) for via, dev in sorted(leg for leg in legs if leg is not None))
            return Route(dst, proto=PROTO, metric=metric, nexthops=hops)
        via, dev = best.resolved
        known = _shared(via, dev, metric)
        if dst not in known:
            known[dst] = Route(
                dst, dev=dev, via=via, proto=PROTO, metric=metric or (1024 if ":" in dst else 0)
            )
        return known[dst]

    def _program(self, wished: dict[str, Route | None]) -> None:
        """Bring the kernel's routes in line, all in one go; a route of somebody else is never touched."""
        installed = self.installed
        gone: list[Route] = []
        new: list[Route] = []
        for dst, route in wished.items():
            old = installed.get(dst)
            if old == route:
                continue
            if old is not None:
                gone.append(old)
                del installed[dst]
            if route is not None:
                new.append(route)
                installed[dst] = route
        if not gone and not new:
            return
        for route, fault in self.ns.program_routes(gone, new):
            del installed[route.dst]
            self.log.append((self.fabric.now, f"Netlink: {fault}"))
            self._scan_later()
        self.fabric.programmed(wished)
        self._hear()

    def _sync_kernel(self, *, first: bool) -> None:
        """Compare with the kernel: at the start remove our old routes, later let a scan put lost ones back."""
        ns = self.ns
        if first:
            self.installed = {
                route.dst: route
                for fam in (4, 6)
                for route in ns.routes.get((fam, TABLE_MAIN), {}).values()
                if route.proto == PROTO
            }
            self._program({dst: self._route(dst) for dst in self.installed})
            return
        # A link that goes takes its routes along; what is wished instead comes with the flush.
        lost = self._lost()
        if lost:
            self._scan_later()

    def _lost(self) -> list[str]:
        ns = self.ns
        return [
            dst
            for dst, route in self.installed.items()
            if ns.routes.get((route.family, TABLE_MAIN), {}).get(route.key) != route
        ]

    def _scan_later(self) -> None:
        if self._scan is not None:
            return
        period = self.config.scan_time
        passed = (self.fabric.now - self.started) % period
        self._scan = self.fabric.after(period - passed or period, self._scanned)

    def _scanned(self) -> None:
        """The kernel scan: what is missing is put back."""
        self._scan = None
        for dst in self._lost():
            del self.installed[dst]
            self._dirty[dst] = None
        for dst in self.table:
            if dst not in self.installed:
                self._dirty[dst] = None
        self.fabric.touch(self)

    def awaited(self) -> list[float]:
        """Return the moments, in s, at which this daemon's routes or sessions may change by themselves."""
        if not self.alive:
            return []
        out = [moment for session in self.sessions.values() if (moment := session.awaited) is not None]
        if self._scan is not None:
            out.append(self._scan.due)
        return out

    # -- looking ------------------------------------------------------------------------------------------------

    def told(self, session: Session) -> dict[str, tuple[Attributes, ...]]:
        """Return what a neighbour was told, prefix -> attributes of the paths, the best first; {} before it is up."""
        for group in self._groups.values():
            if session.peer.name in group.members:
                ways = {
                    dst: tuple(attributes for attributes, source in known.values() if source is not session)
                    for dst, known in group.out.items()
                }
                return {dst: paths for dst, paths in ways.items() if paths}
        return {}

    def heard(self, session: Session) -> list[str]:
        """Return the prefixes the table has from a neighbour, those kept while it restarts included."""
        return [dst for dst, paths in self.table.items() if any(path.session is session for path in paths)]

    def bgp_sessions(self) -> Iterable[Session]:
        """Return the sessions in the configuration's order."""
        return self.sessions.values()


def control_paths(config: Config) -> dict[int, str]:
    """Return where `birdc` finds the daemon, by family: Calico's image has its own place, and a program a family."""
    if config.version == 1:
        return {4: "/var/run/calico/bird.ctl", 6: "/var/run/calico/bird6.ctl"}
    return {4: "/run/bird/bird.ctl"}


def _answer(bird: Bird, family: int, words: Sequence[str]) -> Answer:
    from kubenet_lab.bgp.control import answer

    return answer(bird, words, family)


_ROUTES: dict[tuple[str, str, int], dict[str, Route]] = {}
"""Routes that nodes of one network share: a thousand nodes have the same one to a block.

(gateway, link, metric) -> destination -> route.
"""


def _shared(via: str, dev: str, metric: int) -> dict[str, Route]:
    if len(_ROUTES) > 1 << 16:
        _ROUTES.clear()
    return _ROUTES.setdefault((via, dev, metric), {})


def _blackhole(dst: str, metric: int) -> Route:
    six = ":" in dst
    return Route(
        dst, dev="lo" if six else "", type="blackhole", proto=PROTO, metric=metric or (1024 if six else 0)
    )


def _plain(config: Config) -> bool:
    """True when every BGP route goes to the kernel as it is."""
    return not config.rejects and not any(pool.tunnel or pool.by_felix for pool in config.pools)


def _told_by(config: Config) -> tuple[object, ...]:
    """What decides, beside the routes themselves, what goes to the peers and into the kernel."""
    lists = (config.blocks, config.static, config.rejects, config.reflected)
    return (config.pools, config.filters, config.local_subnet, *map(frozenset, lists))


def _same(a: Path, b: Path) -> bool:
    return (a.source, a.via, a.dev, a.metric) == (b.source, b.via, b.dev, b.metric)
