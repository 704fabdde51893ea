"""The full mesh of a cluster that is too big to play it: what BGP comes to, without the sessions.

Every node of a full mesh has a session with every other: a thousand nodes have half a million, and a million routes
cross them. (Calico's own advice is route reflectors, beyond a hundred nodes.) Above `MOST_PLAYED` nodes no BIRD is
started here: each node's kernel has what BIRD would have put there once all sessions were up, and has it at once. A
node's routes are worked out when somebody looks at them. Sessions, and what needs them, are *not modelled* then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kubenet_lab.bgp.config import Config, Peer
from kubenet_lab.bgp.control import NOT_MODELLED, Answer
from kubenet_lab.bgp.daemon import PROCESS, PROTO, Bird, control_paths
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.bgp.filters import Filters, sent
from kubenet_lab.bgp.message import Attributes
from kubenet_lab.bgp.path import Path
from kubenet_lab.cni.calico.confd import BgpNode, BgpObjects, bird_config
from kubenet_lab.cni.calico.ipam import IpPool
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.late import LateDict
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import later
from kubenet_lab.kernel.route import TABLE_MAIN, Route
from kubenet_lab.kernel.socket import UNIX, Socket

MOST_PLAYED = 200
"""Nodes of a full mesh up to which every session is played."""
SAYS = f"the sessions of a full mesh of more than {MOST_PLAYED} nodes are not modelled, only the routes they come to"

Tables = dict[int, dict[tuple[str, int, str], Route]]


class Mesh:
    """What a full mesh tells every node, and the promises of routes made of it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.revision = 0
        """Grows when nodes, blocks or pools change."""
        self._nodes: dict[str, BgpNode] = {}
        self._pools: Sequence[IpPool] = ()
        self._objects = BgpObjects()
        self._heard: dict[str, tuple[tuple[str, Attributes], ...]] = {}
        """Node -> what it tells all the others."""
        self._made: dict[str, tuple[int, Tables]] = {}
        self._promised: set[str] = set()

    @property
    def stands_for_bird(self) -> bool:
        """Whether nodes have their routes from here."""
        return bool(self._nodes)

    def follow(self, nodes: Sequence[BgpNode], pools: Sequence[IpPool], objects: BgpObjects) -> None:
        """Take in nodes, their blocks and the pools; nodes that somebody has looked at get the news at once.

        Raises InputError for what needs sessions.
        """
        if objects.peers or objects.filters or not objects.mesh or any(node.cluster_id for node in nodes):
            what = "BGPPeers, BGPFilters, route reflectors and a mesh that is switched off need sessions"
            cure = f"build the cluster with at most {MOST_PLAYED} nodes, or with VXLAN (`--cni calico-vxlan`)"
            raise InputError((Fault(f"{what}; {SAYS}", help=cure),))
        known = {node.name: node for node in nodes}
        if known != self._nodes or list(pools) != list(self._pools) or objects != self._objects:
            self._nodes, self._pools, self._objects = known, list(pools), objects
            self.revision += 1
            self._heard = {
                node.name: tuple(_told(node, bird_config(node, (node,), pools, objects))) for node in nodes
            }
        for name in known:
            space = self.network.ns(name)
            if name not in self._promised:
                self._promised.add(name)
                later(space, lambda space=space: self._promise(space))  # type: ignore[misc]

    def forget(self, node: str) -> None:
        """A machine is gone; the others hear of it with what is followed next."""
        self._promised.discard(node)
        self._made.pop(node, None)

    def restart(self) -> None:
        """A world was set back: everything is worked out anew from what is followed next."""
        self._nodes, self._promised, self._made = {}, set(), {}
        self.revision += 1

    def tables(self, space: Netns) -> Tables:
        """Return what a node's kernel has of BIRD's routes, by family."""
        made = self._made.get(space.name)
        if made is not None and made[0] == self.revision:
            return made[1]
        tables: Tables = {4: {}, 6: {}}
        node = self._nodes.get(space.name)
        if node is not None:
            own = {fam: _others(space, fam) for fam in (4, 6)}
            heard = (one for name, told in self._heard.items() if name != node.name for one in told)
            bird = Bird(
                Fabric(self.network), node.name, bird_config(node, (node,), self._pools, self._objects)
            )
            for route in bird.settled(heard, own):
                tables[route.family][route.key] = route
        self._made[space.name] = (self.revision, tables)
        return tables

    def _promise(self, space: Netns) -> None:
        """Promise a node BIRD's routes; one whose routes somebody has looked at is kept up to date from then on."""
        for fam in (4, 6):
            table = space.routes.setdefault((fam, TABLE_MAIN), {})
            own = {k: r for k, r in dict.items(table) if r.proto != PROTO}
            space.routes[fam, TABLE_MAIN] = LateDict.over(own, _Promise(self, space, fam), None)
        for fam, path in control_paths(Config("")).items():
            if not any(s.address == path for s in space.sockets.get((UNIX, 0), ())):
                space.listen(Socket(UNIX, path, 0, PROCESS, handler=_not_modelled(fam)))

    def update(self) -> None:
        """Bring nodes that somebody has looked at to what the mesh says now."""
        for name in self._nodes:
            space = self.network.ns(name)
            if name in self._made and self._made[name][0] != self.revision:
                later(space, lambda space=space: self._write(space), about=self)  # type: ignore[misc]

    def _write(self, space: Netns) -> None:
        for fam in (4, 6):
            table = space.routes.get((fam, TABLE_MAIN), {})
            if isinstance(table, LateDict):
                continue
            wished = self.tables(space)[fam]
            there = {k: r for k, r in table.items() if r.proto == PROTO}
            space.program_routes(
                [r for k, r in there.items() if wished.get(k) != r],
                [r for k, r in wished.items() if there.get(k) != r],
            )


class _Promise:
    """One node's routes of one family."""

    def __init__(self, mesh: Mesh, space: Netns, fam: int) -> None:
        self.mesh, self.space, self.fam = mesh, space, fam

    def get(self, key: Any) -> Any | None:
        """Return the promised route of a key."""
        return self.mesh.tables(self.space)[self.fam].get(key)

    def items(self) -> list[tuple[Any, Any]]:
        """Return all promised routes."""
        return list(self.mesh.tables(self.space)[self.fam].items())


def _others(space: Netns, fam: int) -> list[Route]:
    """Return a node's own routes, without keeping what is promised."""
    return [r for r in dict.values(space.routes.get((fam, TABLE_MAIN), {})) if r.proto != PROTO]


def _told(node: BgpNode, config: Config) -> Iterable[tuple[str, Attributes]]:
    """Return what a node tells its peers: its blocks and the Services it announces."""
    filters, path = Filters(config), Path("static", "static1")
    for fam in (4, 6):
        own = node.at(fam)
        if not own:
            continue
        peer = Peer("mesh", own, config.asn, own)
        attributes = sent(path, peer, config, filters)
        assert attributes is not None, "what a node has itself BGP always lets it tell"
        for dst in (*node.blocks, *node.static):
            if (":" in dst) == (fam == 6) and filters.exports(path, dst, peer):
                yield dst, attributes


def _not_modelled(family: int) -> Callable[..., Answer]:
    def answer(*_: object) -> Answer:
        return Answer(f"{SAYS}\n", NOT_MODELLED)

    return answer
