"""Flannel in a cluster: its conflist on every machine, a flanneld on every node.

What the daemons write for the other nodes grows with the square of their number. Here it is a promise
(`kernel.late`): the leases are kept once for all, and a node's routes, neighbours and FDB entries are made when
somebody looks at that node.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kubenet_lab.cni.flannel.agent import Agent
from kubenet_lab.cni.flannel.config import NOT_READ, Backend, NetConf, load
from kubenet_lab.cni.flannel.lease import Half, Lease
from kubenet_lab.cni.flannel.plugin import SUBNET_FILE
from kubenet_lab.cni.flannel.rules import RESYNC
from kubenet_lab.cni.runtime import CONF_DIR, FLANNEL_CONFLIST
from kubenet_lab.daemon import World
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.late import LateDict
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN, Route
from kubenet_lab.objects.configmap import ConfigMap
from kubenet_lab.objects.node import Node

Shared = dict[Any, tuple[str, str, Any]]
"""Key in a kernel table -> (the node whose lease it is, its address, the entry)."""


class _Tables:
    """What every node but the lease's own has for each lease: routes by family, neighbours, FDB entries."""

    def __init__(self) -> None:
        self.routes: dict[int, Shared] = {4: {}, 6: {}}
        self.neighbours: Shared = {}
        self.fdb: Shared = {}

    def add(self, agent: Agent, lease: Lease) -> None:
        """Put one lease in; any node's agent knows what the entries look like."""
        for fam in agent.conf.families:
            half = lease.half(fam)
            if half is not None:
                self._add(agent, lease.node, fam, half)

    def _add(self, agent: Agent, node: str, fam: int, half: Half) -> None:
        dev, metric = agent.device(fam), 1024 if fam == 6 else 0
        if agent.backend == "host-gw":
            route = Route(half.subnet, dev, half.public_ip, metric=metric)
        else:
            route = Route(half.subnet, dev, half.network_address, onlink=True, metric=metric)
            there = Neighbour(dev, half.network_address, half.mac, "PERMANENT", 0.0)
            self.neighbours[dev, half.network_address] = (node, half.public_ip, there)
            entry = FdbEntry(dev, half.mac, dst=half.public_ip, state="permanent")
            self.fdb[dev, half.mac] = (node, half.public_ip, (entry,))
        self.routes[fam][route.key] = (node, half.public_ip, route)


class _Promise:
    """One node's share of a table: everybody's entries but its own, and with host-gw only those of its neighbours."""

    def __init__(self, look: Callable[[], Shared], agent: Agent) -> None:
        self.look, self.agent = look, agent

    def _fits(self, entry: tuple[str, str, Any]) -> bool:
        if entry[0] == self.agent.node or not self.agent.subnets:
            return False
        if self.agent.backend != "host-gw":
            return True
        addresses = self.agent.netns.addresses.get(self.agent.flags.iface, ())
        return any(entry[1] in a.network for a in addresses if (":" in a.local) == (":" in entry[1]))

    def get(self, key: Any) -> Any | None:
        """Return the promised entry of a key."""
        entry = self.look().get(key)
        return entry[2] if entry is not None and self._fits(entry) else None

    def items(self) -> list[tuple[Any, Any]]:
        """Return all promised entries."""
        return [(key, entry[2]) for key, entry in self.look().items() if self._fits(entry)]


class Flannel:
    """flanneld announces its node's lease in the Node's annotations and programs the leases of the others."""

    def __init__(self, world: World, backend: str = "vxlan") -> None:
        self.world = world
        ranges = {6 if ":" in cidr else 4: cidr for cidr in world.cluster_cidrs}
        self._usual = NetConf(
            network=ranges.get(4, NetConf().network),
            ipv6_network=ranges.get(6, ""),
            enable_ipv4=4 in ranges,
            enable_ipv6=6 in ranges,
            backend=Backend(type=backend),
        )
        self.conf = self._usual
        """What the daemons that run have read: of the ConfigMap kube-flannel-cfg where there is one."""
        self._refused = ""
        self._map: ConfigMap | None = None
        self.agents: dict[str, Agent] = {}
        self.leases: dict[str, Lease] = {}
        self._tables = _Tables()
        self._read: dict[str, Node] = {}
        self._waiting: set[str] = set()
        self._at_exit: dict[str, Node] = {}
        self._resync: dict[str, float] = {}

    @property
    def next(self) -> float | None:
        """When a flanneld looks at its rules again and finds some missing; None while all are there."""
        return min(self._resync.values(), default=None)

    def prepare(self, node: Node, space: Netns) -> None:
        """Write /etc/cni/net.d/10-flannel.conflist: the ConfigMap's, where there is one."""
        found = self._config_map()
        text = FLANNEL_CONFLIST if found is None else found.data.get("cni-conf.json", FLANNEL_CONFLIST)
        space.files[f"{CONF_DIR}/10-flannel.conflist"] = text

    def _config_map(self) -> ConfigMap | None:
        found = (self.world.store.find("ConfigMap", CONFIG_MAP, name) for name in NAMESPACES)
        return next((one for one in found if isinstance(one, ConfigMap)), None)

    def _configure(self) -> None:
        """Read the ConfigMap as a flanneld does that starts: once, while none runs with what it said before."""
        self._map = found = self._config_map()
        self.conf, self._refused = self._usual, ""
        if found is None:
            return
        try:
            if NET_CONF not in found.data:
                said = f"open /etc/kube-flannel/{NET_CONF}: no such file or directory"
                raise InputError(f"{NOT_READ}failed to read net conf: {said}")
            self.conf = load(found.data[NET_CONF])
        except InputError as fault:
            self._refused = str(fault)

    def reconcile(self) -> bool:
        """Let every flanneld look at all Nodes."""
        store = self.world.store
        changed = False
        if self.agents and all(agent.exited for agent in self.agents.values()):
            if self._config_map() is not self._map:
                self._anew()  # each is started again by its kubelet, until what it reads is right
        for node in store.list(Node):
            for wished in self._agent(node).announce(node):
                store.update(wished)
                changed = True
        self._read_leases(store.list(Node))
        for name, agent in self.agents.items():
            if agent.subnets and name not in self._waiting:
                agent.follow(self.leases)
            self._look_at_rules(name, agent)
        return changed

    def _agent(self, node: Node) -> Agent:
        """A node's flanneld. One that gave up is started again by its kubelet once its Node is another."""
        agent = self.agents.get(node.name)
        if agent is not None and agent.exited:
            seen = self._at_exit.setdefault(node.name, node)
            if seen.spec != node.spec:
                del self._at_exit[node.name]
                agent = None
        if agent is None:
            if not self.agents:
                self._configure()
            agent = self.agents[node.name] = Agent(self.world.network, node.name, self.conf)
            if self._refused:
                agent.say("E", f"{_LINES.get(self._refused.partition(':')[0], '')}{self._refused}")
                agent.exited = 1
                return agent
            if agent.backend in ("vxlan", "host-gw") and not self.conf.backend.direct_routing:
                self._promise(agent)
        return agent

    def _promise(self, agent: Agent) -> None:
        space = agent.netns
        if SUBNET_FILE in space.files and not isinstance(space.neighbours, LateDict):
            return  # an earlier daemon's entries are there, and a new one writes over them
        self._waiting.add(agent.node)

        def kept() -> None:
            """Somebody looked at one of the tables: from now on this node's are written like any kernel's."""
            if agent.node not in self._waiting or self.agents.get(agent.node) is not agent:
                return
            self._waiting.discard(agent.node)
            agent.leases = {name: lease for name, lease in self.leases.items() if name != agent.node}
            for table in (*space.routes.values(), space.neighbours, space.fdb):
                if isinstance(table, LateDict):
                    table.keep()

        for fam in self.conf.families:
            table = space.routes.setdefault((fam, TABLE_MAIN), {})
            space.routes[fam, TABLE_MAIN] = _late(table, _Promise(partial(self._routes, fam), agent), kept)
        space.neighbours = _late(space.neighbours, _Promise(lambda: self._tables.neighbours, agent), kept)
        space.fdb = _late(space.fdb, _Promise(lambda: self._tables.fdb, agent), kept)

    def _routes(self, fam: int) -> Shared:
        return self._tables.routes[fam]

    def _read_leases(self, nodes: list[Node]) -> None:
        """Read the annotations of Nodes that changed."""
        leases = dict(self.leases)
        seen = set()
        for node in nodes:
            seen.add(node.name)
            if self._read.get(node.name) is node:
                continue
            self._read[node.name] = node
            lease = Lease.of(node)
            if lease is not None and lease.backend_type == self.conf.backend.type:
                leases[node.name] = lease
            else:
                leases.pop(node.name, None)
        for name in [name for name in self._read if name not in seen]:
            del self._read[name]
            leases.pop(name, None)
        if leases == self.leases:
            return
        self.leases = leases
        tables = _Tables()
        some = next(iter(self.agents.values()), None)
        if some is not None:
            for lease in leases.values():
                tables.add(some, lease)
        self._tables = tables

    def _anew(self) -> None:
        self.agents.clear()
        self._read.clear()
        self._waiting.clear()
        self._at_exit.clear()
        self._resync.clear()
        self.leases = {}
        self._tables = _Tables()

    def _look_at_rules(self, name: str, agent: Agent) -> None:
        if not agent.rules_missing:
            self._resync.pop(name, None)
        elif self._resync.setdefault(name, self.world.now + RESYNC) <= self.world.now:
            agent.resync()
            del self._resync[name]

    def last_words(self, node: str) -> str:
        """The error with which a node's flanneld ended, as it is in the log of its pod; "" while it runs."""
        agent = self.agents.get(node)
        if agent is None or not agent.exited:
            return ""
        said = next((line[2:] for line in reversed(agent.log) if line.startswith("E ")), "")
        return said and f"flanneld on {node} ended: {said}"

    def forget(self, node: str) -> None:
        """Let the daemon of a machine that is gone go too; the others hear of it from the API."""
        self.agents.pop(node, None)
        self._at_exit.pop(node, None)
        self._resync.pop(node, None)
        self._waiting.discard(node)

    def restart(self) -> None:
        """Start every flanneld anew, and let it read the leases: what the tables promise is said by these."""
        self._anew()
        if all(node.name in self.world.network.netns for node in self.world.store.list(Node)):
            self.reconcile()


CONFIG_MAP, NET_CONF = "kube-flannel-cfg", "net-conf.json"
NAMESPACES = ("kube-flannel", "kube-system")
"""Where kube-flannel.yml puts it, and where it did before 0.19."""
_LINES = {"Failed to create SubnetManager": "main.go:250] ", "Error registering network": "main.go:383] "}
"""The places in flanneld's source that its log names."""


def _late(table: dict[Any, Any], promise: _Promise, kept: Callable[[], None]) -> LateDict[Any, Any]:
    own = dict(dict.items(table)) if isinstance(table, LateDict) else table
    return LateDict.over(own, promise, kept)


class FlannelHostGw(Flannel):
    """Flannel with the backend host-gw: plain routes to nodes on the same link."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "host-gw")


class FlannelWireguard(Flannel):
    """Flannel with the backend wireguard: what leaves the node is sealed for the node it goes to."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "wireguard")
