"""kube-proxy as a process on every node: when it starts, syncs, tries again, looks for a flush, and answers HTTP.

What is written is a mode's concern (`proxy.mode.NodeProxy`), when it is written is this module's. A process that is
stopped leaves the kernel as it is: rules work on and grow old. Source: `pkg/proxy/runner`, `pkg/proxy/healthcheck`,
`pkg/util/iptables` (Monitor), `cmd/kube-proxy/app` of Kubernetes 1.37.

    change heard -> minimal time since the last sync is over -> partial sync -> refused by the kernel? full sync later
    start, canary chain gone, an hour since the last full one -> full sync
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.daemon import World
from kubenet_lab.errors import InputError, NotFound
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netfilter import NetfilterError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import host_addresses, later, peek, waits
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import EndpointSlice, Node, Pod, Service
from kubenet_lab.packet.http import Request, Response
from kubenet_lab.packet.packet import TCP, Packet
from kubenet_lab.proxy import ebpf, health, iptables, ipvs, nftables
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, nodeport_blocks, nodeport_ips
from kubenet_lab.proxy.conntrack import stale_flows, udp_changed
from kubenet_lab.proxy.mode import MakeProxy, NodeProxy
from kubenet_lab.proxy.services import Named, ServiceMap, ServiceTracker
from kubenet_lab.proxy.timing import FULL_SYNC_PERIOD, Timing

PROGRAM = "kube-proxy"
PROGRAMS = {"ebpf": "cilium-agent"}
"""Who does kube-proxy's work in a mode that is not kube-proxy's, as `ss -p` shows it."""
DAEMON_SET = ("kube-proxy", "kube-system")
"""The DaemonSet kubeadm installs: (name, namespace)."""

NOBODY: Mapping[int, frozenset[Named]] = MappingProxyType({4: frozenset(), 6: frozenset()})
EPSILON = 1e-6

Changes = Mapping[int, frozenset[Named]]
"""By IP family (4, 6): Services that are not as they were at the last sync."""


class Note(Struct, frozen=True):
    """A line of a kube-proxy's log."""

    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.at:g} s: {self.text}"


class Process(Struct, frozen=True):
    """One node's kube-proxy, or what was known of it when it stopped; times in simulated s.

    Attributes:
        began: When it was started, or stopped if it does not run.
        synced: When the kernel last took what it wrote, None if never.
        full: When that was everything, likewise.
        ran: When it last tried.
        changes: What it has heard of and not written.
        queued: Since when it has not written something it heard of.
        due: When it writes next.
        whole: The next sync writes everything.
        udp: IP families in which endpoints of UDP changed since the last sync.
        looked: How many looks for the canary chains it has taken.
        minutes: How many looks for real servers whose connections have ended (ipvs mode).
        fulls, partials: Syncs that worked.
        failures, partial_failures: Syncs that did not.
    """

    mode: str
    running: bool = True
    began: float = 0.0
    synced: float | None = None
    full: float | None = None
    ran: float = -math.inf
    changes: Changes = NOBODY
    queued: float | None = None
    due: float = math.inf
    whole: bool = False
    udp: frozenset[int] = frozenset()
    looked: int = 0
    minutes: int = 0
    fulls: int = 0
    partials: int = 0
    failures: int = 0
    partial_failures: int = 0
    log: tuple[Note, ...] = ()

    def note(self, at: float, text: str) -> Process:
        """Return it with one more line in its log, which keeps the last hundred."""
        return replace(self, log=(*self.log[-99:], Note(at, text)))

    @property
    def waiting(self) -> list[str]:
        """Services it has heard of and not written, "namespace/name", sorted."""
        return sorted({f"{one[0]}/{one[1]}" for names in self.changes.values() for one in names})


class KubeProxyView(Struct, frozen=True):
    """A node's kube-proxy at one moment."""

    node: str
    now: float
    process: Process
    healthy: bool
    canary_look: float | None
    """When it notices that its canary chains are gone; None while they are there."""

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self.process.running

    @property
    def stale(self) -> list[str]:
        """Services whose rules are not what the API says, as far as the process knows."""
        return self.process.waiting

    @property
    def log(self) -> tuple[Note, ...]:
        """What it wrote to its log."""
        return self.process.log

    def __str__(self) -> str:
        p, now = self.process, self.now
        state = "running" if p.running else "stopped"
        program = PROGRAMS.get(p.mode, PROGRAM)
        rows = [f"{program} on {self.node}: {state} for {now - p.began:g} s, mode {p.mode}"]
        if p.synced is not None:
            rows.append(
                f"  last sync {now - p.synced:g} s ago; {p.fulls} full, {p.partials} partial, {p.failures} failed"
            )
        if p.running and p.changes != NOBODY:
            rows.append(f"  waiting to be written at {p.due:g} s: {', '.join(p.waiting)}")
        elif p.running and p.due < math.inf:
            rows.append(f"  next sync ({'full' if p.whole else 'partial'}) at {p.due:g} s")
        if self.canary_look is not None:
            rows.append(f"  its canary chains are gone; it looks again at {self.canary_look:g} s")
        if p.running and not self.healthy:
            rows.append("  /healthz answers 503")
        return "\n".join(rows)

    __repr__ = __str__


class KubeProxies:
    """The kube-proxies of all nodes of a cluster.

    Args:
        world: The API and the machines.
        makers: Modes by name.
        mode: The mode nodes begin with.
        flags: kube-proxy's command line ("--masquerade-all", "--iptables-min-sync-period=1s").
        latency: Seconds from a change in the API until kube-proxy acts on it.
        start_seconds: Seconds from the program's start until it listens and writes its first rules. What a cluster
            begins with has been running.

    Raises:
        InputError: A flag is wrong.
    """

    def __init__(
        self,
        world: World,
        makers: Mapping[str, MakeProxy],
        mode: str,
        *,
        flags: Iterable[str] = (),
        latency: float = 0.0,
        start_seconds: float = 0.0,
    ) -> None:
        self.world = world
        self.mode = mode
        self.flags = tuple(flags)
        self.latency = latency
        self.start_seconds = start_seconds
        self._makers = makers
        self._config = KubeProxyConfig.from_flags(
            self.flags, cluster_cidrs=world.cluster_cidrs, service_cidrs=world.service_cidrs
        )
        self._timings = {name: Timing.from_flags(self.flags, name) for name in makers}
        self._tracker = ServiceTracker()
        self._processes: dict[str, Process] = {}
        self._programs: dict[str, NodeProxy] = {}
        self._seen: dict[str, ServiceTracker] = {}
        """What each node's rules were last made from; lazily built rules read it when somebody looks."""
        self._unstarted: set[str] = set()
        """Nodes whose first sync is put off with what else nobody has looked at there."""
        self._left: dict[str, tuple[object, ...]] = {}
        """The kernel's rules as each node's last sync left them."""
        self._health_ports: tuple[object, dict[Named, int]] = (None, {})
        self._by_daemon_set = False

    # -- the loop -----------------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Let every kube-proxy hear of what is new, and do what is due now."""
        now, store = self.world.now, self.world.store
        before = self._tracker.maps
        changed = self._tracker.update(store.list(Service), store.list(EndpointSlice))
        news = bool(changed[4] or changed[6])
        udp = udp_changed(before, self._tracker.maps, changed) if news else frozenset()
        nodes = store.list(Node)
        self._follow_daemon_set([node.name for node in nodes])
        for node in nodes:
            name, process = node.name, self._processes.get(node.name)
            if process is None:
                self._begin(name, Process(self.mode, began=now), first=True)
                continue
            if not process.running:
                continue
            if name not in self._programs:
                # One that is starting has written nothing and waits; the world of any other was set back.
                if process.synced is not None or process.due <= now:
                    self._begin(name, process, first=False)
                continue
            if news:
                process = self._queue(process, changed, udp, now)
            if self._programs[name].node.zone != node.zone and not process.whole:
                # Its node is in another zone: hints may mean others now.
                process = replace(process, whole=True, due=min(process.due, self._soonest(process, now)))
            process = self._look(name, process, now)
            if process.due <= now:
                process = self._sync(name, process, now)
            self._processes[name] = process

    def _queue(
        self, process: Process, changed: Mapping[int, set[Named]], udp: frozenset[int], now: float
    ) -> Process:
        """A watch brought changes: they are written when its least time between syncs is over."""
        changes = {f: process.changes[f] | changed[f] for f in (4, 6)}
        return replace(
            process,
            changes=changes,
            udp=process.udp | udp,
            queued=now if process.queued is None else process.queued,
            due=min(process.due, self._soonest(process, now)),
        )

    def _soonest(self, process: Process, now: float) -> float:
        """When something heard of now is written."""
        return max(now + self.latency, process.ran + self._timings[process.mode].min_sync_period)

    def _look(self, name: str, process: Process, now: float) -> Process:
        """Look for the canary chains, every sync period; and after an hour write everything again."""
        period = self._timings[process.mode].sync_period
        looks = math.floor((now - process.began) / period + EPSILON)
        if looks > process.looked:
            process = replace(process, looked=looks)
            if self._canary_gone(name, process):
                process = process.note(now, f"IPTables canary deleted table=mangle chain={iptables.CANARY}")
                process = process.note(now, "Reloading after iptables flush")
                # The monitor calls the sync itself, and does not wait for the least time between two.
                return replace(process, whole=True, due=now)
        if process.mode != "ipvs" and process.full is not None and process.full + FULL_SYNC_PERIOD <= now:
            if not self._touched(name):
                return replace(process, full=now)
            return replace(process, whole=True, due=now)
        if process.mode == "ipvs" and process.synced is not None and process.ran + period <= now:
            return replace(process, whole=True, due=now)
        minutes = math.floor((now - process.began) / ipvs.TERMINATION_CHECK + EPSILON)
        program = self._programs[name]
        if minutes > process.minutes and isinstance(program, ipvs.KubeProxyIpvs):
            program.end_terminating(self.world.network.ns(name), now)
            return replace(process, minutes=minutes)
        return process

    def _canary_gone(self, name: str, process: Process) -> bool:
        if process.mode != "iptables" or name not in self._programs:
            return False
        space = self.world.network.ns(name)
        if waits(space) or space.rules_deferred:
            return False
        tables = [space.iptables[f].tables.get("mangle") for f in (4, 6)]
        return any(table is None or iptables.CANARY not in table.chains for table in tables)

    def _touched(self, name: str) -> bool:
        """Whether the kernel's rules are other objects than those the last sync left: a full sync may change them."""
        space = self.world.network.ns(name)
        if waits(space) or space.rules_deferred:
            return False
        left = self._left.get(name, ())
        return not left or any(one is not other for one, other in zip(_rules(space), left, strict=True))

    def _sync(self, name: str, process: Process, now: float) -> Process:
        """One run of `syncProxyRules`: all of it, or what changed."""
        space, seen, whole = self.world.network.ns(name), self._seen[name], process.whole
        udp, changes = process.udp, {f: set(names) for f, names in process.changes.items()}
        seen.maps = self._tracker.maps
        process = replace(process, changes=NOBODY, ran=now, due=math.inf, udp=frozenset())
        try:
            if whole:
                self._write_all(name, process.mode, space)
            else:
                self._follow(name, process.mode, space, changes)
        except (NetfilterError, InputError, KernelError) as refused:
            period = self._timings[process.mode].sync_period
            process = process.note(now, f"Failed to execute {_tool(process.mode)}: {refused}")
            process = process.note(now, f"Sync failed retryingTime={period:g}s")
            return replace(
                process,
                whole=True,
                udp=udp,
                queued=now if process.queued is None else process.queued,
                due=now + period,
                failures=process.failures + 1,
                partial_failures=process.partial_failures + (not whole),
            )
        self._left[name] = () if waits(space) or space.rules_deferred else _rules(space)
        self._forget_flows(space, seen.maps, udp)
        self._serve_services(name, space)
        return replace(
            process,
            synced=now,
            full=now if whole else process.full,
            queued=None,
            whole=False,
            fulls=process.fulls + whole,
            partials=process.partials + (not whole),
        )

    def _write_all(self, name: str, mode: str, space: Netns) -> None:
        """A full sync: a program that remembers nothing writes everything, and deletes what it does not know.

        In ipvs mode it remembers the real servers that wait for their connections' end.
        """
        program = self._programs.get(name)
        same = program is not None and program.node.zone == self.world.store.get(Node, name).zone
        if same and isinstance(program, ipvs.KubeProxyIpvs):
            program.apply(space, self._seen[name].maps, {4: set(), 6: set()}, full=True)
            return
        self._make(name, mode, space)
        _look_at(space)

    def _follow(self, name: str, mode: str, space: Netns, changes: dict[int, set[Named]]) -> None:
        """A partial sync. Rules nobody has looked at yet are made of what the node has heard by then."""
        unseen = waits(space) and peek(space, "_build_rules") is not None
        if mode == "iptables" and (unseen or name in self._unstarted):
            return
        self._programs[name].follow(space, self._seen[name], changes)

    def _make(self, name: str, mode: str, space: Netns) -> None:
        node = self.world.store.get(Node, name)
        addresses = tuple(a.local for a in host_addresses(space) if a.scope != "link")
        program = self._makers[mode](ProxyNode.from_node(node, addresses), self._config)
        seen = self._seen.setdefault(name, ServiceTracker())
        seen.maps = self._tracker.maps
        self._programs[name] = program
        if mode != "iptables" or not waits(space):
            program.start(space, seen)
            return

        def start() -> None:
            self._unstarted.discard(name)
            program.start(space, seen)

        self._unstarted.add(name)
        later(space, start)

    def _forget_flows(self, space: Netns, maps: Mapping[int, ServiceMap], families: frozenset[int]) -> None:
        if not len(peek(space, "conntrack")):
            return
        for family in families:
            for flow in stale_flows(space.conntrack, maps[family]):
                space.conntrack.delete(flow)

    # -- its life -----------------------------------------------------------------------------------------------------

    def _begin(self, name: str, process: Process, *, first: bool) -> None:
        """The program starts: it lists Services and slices, then writes everything.

        On a machine that is new nothing is in its way, and nobody has looked: its rules are built when somebody does.
        """
        now, space = self.world.now, self.world.network.ns(name)
        process = process.note(now, f"Using {process.mode} Proxier")
        self._processes[name] = process = replace(
            process, changes=NOBODY, queued=None, due=math.inf, whole=False
        )
        if first:
            self._make(name, process.mode, space)
            self._left[name] = ()
            self._processes[name] = replace(process, synced=now, full=now, ran=now, fulls=1)
            self._serve_services(name, space)
            later(space, lambda: self._listen(name, space))
            return
        # nftables mode takes away what the other two left, and those two take away its tables, as at every start.
        others = ("nftables",) if process.mode in ("iptables", "ipvs") else ("iptables", "ipvs")
        process = self._clean(process, others, space)
        self._seen.setdefault(name, ServiceTracker())
        udp = frozenset(
            f for f, m in self._tracker.maps.items() if any(k.protocol == "UDP" for k in m.endpoints)
        )
        self._processes[name] = self._sync(name, replace(process, whole=True, udp=udp), now)
        self._listen(name, space)

    def stop(self, node: str = "") -> None:
        """The program ends on a node, or on all: its ports close, and the kernel keeps every rule it wrote.

        Raises NotFound.
        """
        for name in self._named(node):
            process = self._processes[name]
            if process.running:
                self._programs.pop(name, None)
                self._close(name)
                self._processes[name] = replace(
                    process, running=False, began=self.world.now, due=math.inf, changes=NOBODY, queued=None
                ).note(self.world.now, "stopped")

    def start(self, node: str = "", *, mode: str = "") -> None:
        """The program starts where it does not run, perhaps in another mode than before. Raises NotFound."""
        if mode and mode not in self._makers:
            raise InputError(f"proxy={mode!r} is not modelled; write one of: {', '.join(self._makers)}")
        now = self.world.now
        for name in self._named(node):
            process = self._processes[name]
            if process.running and (not mode or mode == process.mode):
                continue
            if process.running:
                self.stop(name)
            if process.mode == "ebpf" and mode not in ("", "ebpf"):
                # kube-proxy-replacement=false: Cilium's agent takes its own programs away
                ebpf.cleanup(self.world.network.ns(name))
            fresh = Process(mode or process.mode, began=now, log=process.log)
            if self.start_seconds:
                self._processes[name] = replace(fresh, due=now + self.start_seconds, whole=True)
            else:
                self._begin(name, fresh, first=False)

    def restart(self, node: str = "") -> None:
        """It ends and starts again, as after a crash or `kubectl rollout restart`. Raises NotFound."""
        for name in self._named(node):
            self.stop(name)
            self.start(name)

    def clean_up(self, node: str = "") -> None:
        """`kube-proxy --cleanup`: take away what any mode made. A running one does not notice. Raises NotFound."""
        for name in self._named(node):
            space = self.world.network.ns(name)
            self._processes[name] = self._clean(self._processes[name], CLEAN, space)

    def forget(self, node: str) -> None:
        """The machine is gone."""
        for known in (self._processes, self._programs, self._seen, self._left):
            known.pop(node, None)
        self._unstarted.discard(node)

    def snapshot(self) -> tuple[dict[str, Process], bool, dict[str, dict[int, ServiceMap]], set[str]]:
        """What `restore` needs."""
        return (
            dict(self._processes),
            self._by_daemon_set,
            {name: seen.maps for name, seen in self._seen.items()},
            set(self._unstarted),
        )

    def restore(
        self, saved: tuple[dict[str, Process], bool, dict[str, dict[int, ServiceMap]], set[str]]
    ) -> None:
        """Set the processes back, after the store and the network were; those that run read everything anew.

        What each had heard is set back too: rules and maps that nobody has looked at yet are made of it.
        """
        self._processes, self._by_daemon_set = dict(saved[0]), saved[1]
        for name in [name for name in self._seen if name not in saved[2]]:
            del self._seen[name]
        for name, maps in saved[2].items():
            self._seen.setdefault(name, ServiceTracker()).maps = maps
        self._unstarted = set(saved[3])
        self._tracker = ServiceTracker()
        self._programs.clear()

    def _follow_daemon_set(self, nodes: list[str]) -> None:
        """Where kube-proxy was installed as a DaemonSet, it runs where a pod of it does."""
        store = self.world.store
        if store.find("DaemonSet", *DAEMON_SET) is not None:
            self._by_daemon_set = True
        if not self._by_daemon_set:
            return
        pods = store.list(Pod, DAEMON_SET[1])
        on = {
            pod.spec.node_name for pod in pods if pod.metadata.labels.get("k8s-app") == PROGRAM and _runs(pod)
        }
        for name in nodes:
            process = self._processes.get(name)
            if process is None and name not in on:
                self._processes[name] = Process(self.mode, running=False, began=self.world.now)
            elif process is not None and process.running and name not in on:
                self.stop(name)
            elif process is not None and not process.running and name in on:
                self.start(name)

    def _clean(self, process: Process, modes: Iterable[str], space: Netns) -> Process:
        """Take away what modes made; where the kernel refuses, kube-proxy says so in its log and goes on."""
        for mode in modes:
            try:
                CLEAN[mode](space)
            except (NetfilterError, InputError, KernelError) as refused:
                process = process.note(self.world.now, f"Error cleaning up {mode} rules: {refused}")
        return process

    # -- when ---------------------------------------------------------------------------------------------------------

    @property
    def next(self) -> float | None:
        """The moment at which a kube-proxy does something by itself, None when none will."""
        moments = [
            moment for name, process in self._processes.items() for moment in self._moments(name, process)
        ]
        return min((moment for moment in moments if moment < math.inf), default=None)

    def _moments(self, name: str, process: Process) -> Iterator[float]:
        if not process.running:
            return
        yield process.due
        if name not in self._programs:
            return
        if process.mode == "ipvs":
            yield process.ran + self._timings[process.mode].sync_period
            program = self._programs[name]
            if isinstance(program, ipvs.KubeProxyIpvs) and program.terminating:
                yield process.began + (process.minutes + 1) * ipvs.TERMINATION_CHECK
        elif process.full is not None and self._touched(name):
            yield process.full + FULL_SYNC_PERIOD
        if self._canary_gone(name, process):
            yield self._next_look(process)

    def _next_look(self, process: Process) -> float:
        period = self._timings[process.mode].sync_period
        looks = math.floor((self.world.now - process.began) / period + EPSILON)
        return process.began + (max(looks, process.looked) + 1) * period

    # -- what it says -------------------------------------------------------------------------------------------------

    def view(self, node: str) -> KubeProxyView:
        """A node's kube-proxy now. Raises NotFound."""
        (name,) = self._named(node) if node else [""]
        process = self._processes[name]
        gone = process.running and self._canary_gone(name, process)
        return KubeProxyView(
            name, self.world.now, process, self.healthy(name), self._next_look(process) if gone else None
        )

    def healthy(self, node: str) -> bool:
        """Whether its rules are up to date, or not late yet: twice its sync period."""
        process = self._processes[node]
        late = 2 * self._timings[process.mode].sync_period
        return process.queued is None or self.world.now - process.queued < late

    def _eligible(self, node: str) -> bool:
        found = self.world.store.find(Node, node)
        if found is None or found.metadata.deletion_timestamp:
            return False
        return all(taint.key != health.TO_BE_DELETED for taint in found.spec.taints)

    def _listen(self, name: str, space: Netns) -> None:
        timing = self._timings[self._processes[name].mode]
        self._open(name, space, *timing.healthz, self._healthz)
        if self._processes[name].mode not in PROGRAMS:
            self._open(name, space, *timing.metrics, self._metrics)

    def _open(
        self, name: str, space: Netns, address: str, port: int, answer: Callable[[str, str], Response]
    ) -> bool:
        def handle(packet: Packet, now: float) -> Packet | None:
            request = Request.from_bytes(packet.payload)
            if request is None:
                return None
            told = answer(name, request.path.partition("?")[0])
            sent = told if request.method != "HEAD" else replace(told, body="")
            return Packet(packet.dst, packet.src, TCP, packet.dport, packet.sport, payload=sent.to_bytes())

        # Go listens on both families when it is told 0.0.0.0.
        bound = "::" if address in ("", "0.0.0.0", "::") else address
        try:
            space.listen(Socket(TCP, bound, port, self._program(name), handler=handle))
        except KernelError as refused:
            self._processes[name] = self._processes[name].note(
                self.world.now, f"listen tcp {address}:{port}: {refused}"
            )
            return False
        return True

    def _close(self, name: str, ports: Iterable[int] | None = None) -> None:
        space = self.world.network.ns(name)
        for sockets in list(space.sockets.values()):
            for socket in sockets:
                if socket.process == self._program(name) and (ports is None or socket.port in ports):
                    space.close(socket)

    def _program(self, node: str) -> str:
        return PROGRAMS.get(self._processes[node].mode, PROGRAM)

    def _healthz(self, node: str, path: str) -> Response:
        process, now = self._processes[node], self.world.now
        if path == "/healthz":
            return health.healthz(
                self.healthy(node), process.synced, process.began, now, self._eligible(node)
            )
        if path == "/livez":
            return health.livez(self.healthy(node), process.synced, process.began, now)
        return health.not_found(now)

    def _metrics(self, node: str, path: str) -> Response:
        process = self._processes[node]
        start = "kubeproxy_sync_proxy_rules"
        numbers: dict[str, float] = {
            f"{start}_duration_seconds_count": process.fulls + process.partials + process.failures,
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count": process.fulls,
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_count": process.partials,
            f"{start}_last_timestamp_seconds": _unix(process.synced),
            f"{start}_endpoint_changes_pending": len(process.waiting),
        }
        if process.mode == "iptables":
            numbers[f"{start}_iptables_restore_failures_total"] = process.failures
            numbers[f"{start}_iptables_partial_restore_failures_total"] = process.partial_failures
        elif process.mode == "nftables":
            numbers[f"{start}_nftables_sync_failures_total"] = process.failures
        return health.metrics_server(path, process.mode, numbers, self.world.now)

    # -- healthCheckNodePort ------------------------------------------------------------------------------------------

    def _serve_services(self, name: str, space: Netns) -> None:
        """Open the health check ports of the Services this node knows now, and close the others'."""
        timing = self._timings[self._processes[name].mode]
        wanted = self._checked(self._seen[name].maps)
        own = {timing.healthz[1], timing.metrics[1]}
        mine = self._program(name)
        sockets = peek(space, "sockets")
        there = {s.port for group in sockets.values() for s in group if s.process == mine} - own
        if there == set(wanted.values()):
            return
        self._close(name, there - set(wanted.values()))
        for service, port in wanted.items():
            if port in there:
                continue
            for address in self._health_addresses(name):
                self._open(name, space, address, port, self._service_health(service))

    def _health_addresses(self, name: str) -> list[str]:
        addresses = self._config.nodeport_addresses
        program = self._programs.get(name)
        if program is None or not addresses:
            return ["::"]
        blocks = [nodeport_blocks(program.node, addresses, f) for f in (4, 6)]
        if not any(blocks):
            return ["::"]
        return [
            ip for f, block in zip((4, 6), blocks, strict=True) for ip in nodeport_ips(program.node, block, f)
        ]

    def _checked(self, maps: Mapping[int, ServiceMap]) -> dict[Named, int]:
        if self._health_ports[0] is not maps:
            ports = [port for f in (6, 4) for port in maps[f].ports.values() if port.health_check_node_port]
            found: dict[Named, int] = {port.key[:2]: port.health_check_node_port for port in ports}
            self._health_ports = (maps, found)
        return self._health_ports[1]

    def _service_health(self, service: Named) -> Callable[[str, str], Response]:
        def answer(node: str, _path: str) -> Response:
            count = self._local_endpoints(node, service)
            return health.service_health(*service, count, self.healthy(node), self.world.now)

        return answer

    def _local_endpoints(self, node: str, service: Named) -> int:
        """How many addresses on this node are ready endpoints of a Service."""
        maps = self._seen[node].maps
        for family in (4, 6):
            keys = [key for key in maps[family].ports if key[:2] == service]
            if keys:
                ready = (e for key in keys for e in maps[family].endpoints.get(key, ()) if e.ready)
                return len({e.address for e in ready if e.node == node})
        return 0

    def _named(self, node: str) -> list[str]:
        known = [one.name for one in self.world.store.list(Node)]
        if node and node not in known:
            raise NotFound("Node", node, resource="nodes", known=known)
        return [node] if node else [name for name in known if name in self._processes]


def _look_at(space: Netns) -> None:
    """Have rules built whose building was left to the first look."""
    space.iptables  # noqa: B018
    if space.has_nftables:
        space.nftables  # noqa: B018


def _rules(space: Netns) -> tuple[object, ...]:
    tables = space.iptables
    return (tables[4], tables[6], space.nftables if space.has_nftables else None)


def _tool(mode: str) -> str:
    return "nft" if mode == "nftables" else "iptables-restore"


def _unix(seconds: float | None) -> float:
    from kubenet_lab.clock import START

    return 0.0 if seconds is None else START.timestamp() + seconds


def _runs(pod: Pod) -> bool:
    if pod.finished or not pod.ips or pod.status.phase != "Running":
        return False
    states = [status.state for status in pod.status.container_statuses]
    return all("running" in state or not state for state in states)


def _clean_iptables(space: Netns) -> None:
    for fam, ruleset in space.iptables.items():
        space.set_iptables(fam, iptables.cleanup(ruleset))


def _clean_nftables(space: Netns) -> None:
    if space.has_nftables:
        space.set_nftables(nftables.cleanup(space.nftables))


CLEAN: dict[str, Callable[[Netns], None]] = {
    "iptables": _clean_iptables,
    "ipvs": ipvs.cleanup,
    "nftables": _clean_nftables,
}
"""What `--cleanup`, and a start in another mode, take away of each mode's."""
