"""CoreDNS in the cluster: its pods' programs over time, and what they know of the API.

A CoreDNS pod's program starts and ends with its container, watches the API, looks at its ConfigMap, answers its
kubelet's probes over HTTP, serves on for a while when its pod is deleted, and is killed when it outgrows its limit.

    API reachable      the view follows the objects, `watch_seconds` behind
    API cut            the view stays as it is; names that come later are NXDOMAIN
    started meanwhile  no view: 5 s silent, then SERVFAIL for cluster names, and never ready
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from msgspec import Struct

from kubenet_lab.daemon import World
from kubenet_lab.dns.client import upstream_from
from kubenet_lab.dns.server import memory
from kubenet_lab.dns.server.autopath import AutoPath
from kubenet_lab.dns.server.coredns import CoreDNS, NotModelled
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.process import Process
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Pod
from kubenet_lab.objects.pod import Container, ListeningPort
from kubenet_lab.packet.packet import TCP, UDP, Packet

CONFIG = "coredns"
WHOAMI = ".:53 {\n    whoami\n    log\n}\n"
"""What CoreDNS serves without a Corefile."""
VOLUME_SECONDS = 60.0
"""A kubelet writes a changed ConfigMap into its pods within its sync period (`--sync-frequency`)."""
WATCHED = ("Namespace", "Service", "EndpointSlice", "Pod")
RATE_OVER = 10.0
"""Seconds over which queries are counted for a rate."""

Crash = Callable[[Pod, str, int, str], None]
"""(pod, container, exit code, reason): a container's program ends by itself; its kubelet sees to the rest."""


class Running(Struct):
    """A pod's CoreDNS: its process, and which start of its container that is."""

    pod: Pod
    container: str
    restarts: int
    process: Process | None = None
    """None when its Corefile was refused."""
    log: tuple[str, ...] = ()
    """What it printed before it ended, where it never came to serve."""
    counted: int = 0
    since: float = 0.0
    rate: float = 0.0
    """Queries a second, over the last `RATE_OVER` seconds."""


def is_coredns(container: Container) -> bool:
    """Whether a container runs CoreDNS, by its image."""
    return "coredns" in container.image


class ClusterDns:
    """Every CoreDNS pod's program.

    Args:
        world: What it can reach.
        crash: Ends a container.
        watch_seconds: How far the watch is behind the API.

    Attributes:
        running: By pod, "namespace/name".
        cut: Pods whose CoreDNS cannot reach the API; "*" is all of them.
        silent: Pods whose CoreDNS takes queries and never answers (it hangs, or its packets are lost on the way back).
        load: Queries a second by pod that nobody here sends, for the memory they need.
    """

    def __init__(self, world: World, crash: Crash, watch_seconds: float = 0.0) -> None:
        self.world = world
        self.crash = crash
        self.watch_seconds = watch_seconds
        self.running: dict[str, Running] = {}
        self.cut: set[str] = set()
        self.silent: set[str] = set()
        self.load: dict[str, float] = {}
        self._view = ServiceView()
        self._stale: dict[str, ServiceView] = {}
        self._waiting: deque[tuple[float, Any]] = deque()
        self._files: list[tuple[float, str, str | None]] = []
        self._pods: dict[str, Pod] = {}
        self._watch = world.store.watch()

    @property
    def servers(self) -> dict[str, CoreDNS]:
        """The servers that run, by pod."""
        return {key: r.process.server for key, r in self.running.items() if r.process is not None}

    # -- the daemon ---------------------------------------------------------------------------------------------------

    @property
    def next(self) -> float | None:
        """When something happens by itself next."""
        moments = [at for at, *_ in self._files]
        if "*" not in self.cut:
            moments += [at for at, _ in islice(self._waiting, 1)]
        moments += [
            due
            for r in self.running.values()
            if r.process is not None and (due := r.process.next) is not None
        ]
        return min(moments, default=None)

    def reconcile(self) -> bool:
        """Hear the API, start and end processes with their containers, let each do what is due."""
        self._hear()
        now = self.world.now
        changed = False
        for key in [key for key in self.running if key not in self._pods]:
            del self.running[key]
            self._stale.pop(key, None)
        for key, pod in self._pods.items():
            changed |= self._follow(key, pod, now)
        for file in [file for file in self._files if file[0] <= now]:
            self._files.remove(file)
            found = self.running.get(file[1])
            if found is not None and found.process is not None:
                found.process.write(file[2])
        for key, found in list(self.running.items()):
            if found.process is not None:
                changed |= self._turn(key, found, found.process, now)
        return changed

    def forget(self, node: str) -> None:
        """The machine is off: what ran there is gone."""
        for key in [key for key, r in self.running.items() if r.pod.spec.node_name == node]:
            del self.running[key]

    def restart(self) -> None:
        """Read the API anew. Programs whose containers are the ones they were in run on, and others start."""
        self._watch.poll()
        self._waiting.clear()
        self._view = ServiceView.from_objects(
            (obj for kind in WATCHED for obj in self.world.store.list(kind)), self.world.now
        )
        self._stale.clear()
        self._pods = {
            f"{pod.namespace}/{pod.name}": pod
            for pod in self.world.store.list(Pod)
            if _container(pod) is not None
        }
        for key, found in list(self.running.items()):
            pod = self._pods.get(key)
            process = found.process
            if pod is None or pod.metadata.uid != found.pod.metadata.uid or process is None:
                del self.running[key]
            elif process.draining is not None and not pod.terminating:
                del self.running[key]  # what told it to end was taken back, and a signal cannot be
        if self._files:
            # A Corefile that was taken back is not written; the one there is now is, at the kubelets' next syncs.
            self._files.clear()
            self._rewrite(self.world.store.find("ConfigMap", CONFIG, "kube-system"), self.world.now)
        self._give_views()
        self.reconcile()

    def handler(self, pod: Pod, port: ListeningPort) -> Callable[[Packet, float], Packet | None] | None:
        """The program behind a port of a pod: DNS on its DNS ports, HTTP elsewhere. None where it is not CoreDNS."""
        container = next((c for c in pod.spec.containers if c.name == port.container), None)
        if container is None or not is_coredns(container):
            return None
        key = f"{pod.namespace}/{pod.name}"
        dns = port.name.startswith("dns") or port.port == 53

        def answer(packet: Packet, now: float) -> Packet | None:
            found = self.running.get(key)
            if found is None or found.process is None or key in self.silent:
                return None
            return found.process.handle(packet, now) if dns else found.process.http(packet, now)

        return answer

    # -- the API ------------------------------------------------------------------------------------------------------

    def cut_off(self, pod: str = "*") -> None:
        """The API can no longer be reached by one CoreDNS pod, or by all."""
        if pod != "*":
            self._stale[pod] = self._view.copy()
        self.cut.add(pod)
        self._give_views()

    def reconnect(self, pod: str = "*") -> None:
        """It can again: what was missed is heard at once, and who had nothing gets everything."""
        self.cut.discard(pod)
        self._stale.pop(pod, None)
        if pod == "*":
            self._stale.clear()
        self._hear()
        self._give_views()
        self.reconcile()

    def reaches_api(self, pod: str) -> bool:
        """Whether a CoreDNS pod hears the API."""
        return not self.cut & {"*", pod}

    def memory(self, pod: str) -> float:
        """MB a CoreDNS pod uses now (`server.memory`). Raises KeyError."""
        found = self.running[pod]
        if found.process is None:
            return 0.0
        server = found.process.server
        view = server.view
        kept, room = server.cached()
        autopath = any(isinstance(p, AutoPath) for s in server.servers.values() for p in s.chain)
        pods = len(view.pods_by_ip) if view.synced else 0
        return memory.megabytes(
            pods,
            len(view.services) if view.synced else 0,
            cache_filled=kept / room if room else 0.0,
            queries_per_second=found.rate + self.load.get(pod, 0.0),
            autopath=autopath,
        )

    def _hear(self) -> None:
        now = self.world.now
        for event in self._watch.poll():
            obj = event.object
            if isinstance(obj, Pod):
                self._note(event.type, obj)
            elif obj.kind == "ConfigMap" and obj.metadata.name == CONFIG and self.running:
                self._rewrite(None if event.type == "DELETED" else obj, now)
            if obj.kind in WATCHED:
                self._waiting.append((now + self.watch_seconds, event))
        if "*" in self.cut:
            return
        while self._waiting and self._waiting[0][0] <= now:
            _, event = self._waiting.popleft()
            obj = event.object
            if event.type == "DELETED":
                self._view.delete(obj.kind, obj.metadata.namespace, obj.metadata.name, now)
            else:
                self._view.apply(obj, now)

    def _note(self, verb: str, pod: Pod) -> None:
        key = f"{pod.namespace}/{pod.name}"
        if verb == "DELETED":
            self._pods.pop(key, None)
        elif _container(pod) is not None:
            self._pods[key] = pod

    def _rewrite(self, conf: Any, now: float) -> None:
        """Each kubelet writes the ConfigMap's files at its next sync of the pod."""
        text = None if conf is None else conf.data.get("Corefile")
        for key, found in self.running.items():
            if found.pod.namespace == (conf.namespace if conf is not None else "kube-system"):
                spread = random.Random(f"{self.world.seed} {key} {now}").random()
                self._files.append((now + VOLUME_SECONDS * spread, key, text))

    def _give_views(self) -> None:
        for key, found in self.running.items():
            if found.process is None:
                continue
            server = found.process.server
            if self.reaches_api(key):
                _show(server, self._view)
            elif key in self._stale:
                _show(server, self._stale[key])

    # -- processes ----------------------------------------------------------------------------------------------------

    def _follow(self, key: str, pod: Pod, now: float) -> bool:
        """Start the program where its container runs and was not known to, end it where it does not."""
        container = _container(pod)
        assert container is not None
        space = self.world.network.netns.get(pod.spec.node_name if pod.spec.host_network else key)
        status = next((s for s in pod.status.container_statuses if s.name == container.name), None)
        alive = space is not None and bool(pod.ips) and not pod.finished and pod.status.phase == "Running"
        if status is not None and status.state and "running" not in status.state:
            alive = False
        found = self.running.get(key)
        if not alive or space is None:
            if found is not None and found.process is not None:
                found.log = tuple(found.process.log)
                found.process = None
            return False
        restarts = status.restart_count if status is not None else 0
        if found is not None and found.restarts == restarts and found.pod.metadata.uid == pod.metadata.uid:
            found.pod = pod
            return False
        self.running[key] = self._start(key, pod, container, restarts, space, now)
        return self.running[key].process is None

    def _start(
        self, key: str, pod: Pod, container: Container, restarts: int, space: Netns, now: float
    ) -> Running:
        conf = self.world.store.find("ConfigMap", CONFIG, pod.namespace)
        text = conf.data.get("Corefile", "") if conf is not None else ""
        view = self._view if self.reaches_api(key) else ServiceView(synced=False)
        self._stale.pop(key, None)
        if not view.synced:
            self._stale[key] = view
        made = Running(pod, container.name, restarts, since=now)
        try:
            made.process = Process(
                text or WHOAMI,
                view,
                upstream_from(self.world.network, space.name, lambda: self.world.now, self.world.seed),
                started=now,
                seed=self.world.seed,
                local_ips=pod.ips,
                files=dict(space.files),
                hostname=pod.name,
            )
        except NotModelled:
            raise
        except CorefileError as error:
            made.log = (str(error),)
            self.crash(pod, container.name, 1, "Error")
        return made

    def _turn(self, key: str, found: Running, process: Process, now: float) -> bool:
        """What a process does by itself up to now, and what comes of it. True if its container ended."""
        if found.pod.terminating and process.draining is None:
            process.terminate(now)
        process.advance(now)
        self._sockets(found, process)
        elapsed = now - found.since
        if elapsed >= RATE_OVER:
            found.rate = (process.queries - found.counted) / elapsed
            found.counted, found.since = process.queries, now
        limit = memory_limit(found)
        oom = process.running and bool(limit) and self.memory(key) * memory.MB > limit
        if oom:
            process.kill(now)
        if process.running or found.pod.terminating:
            return False
        found.log = tuple(process.log)
        found.process = None
        reason = "OOMKilled" if oom else "Error" if process.exit_code else "Completed"
        self.crash(found.pod, found.container, process.exit_code or 0, reason)
        return True

    def _sockets(self, found: Running, process: Process) -> None:
        """Close the sockets that the process does not hold (yet, or any more), and open those it does."""
        pod = found.pod
        space = self.world.network.netns.get(
            pod.spec.node_name if pod.spec.host_network else f"{pod.namespace}/{pod.name}"
        )
        if space is None:
            return
        name = f"{pod.namespace}/{pod.name}/{found.container}" if pod.spec.host_network else found.container
        mine = [s for group in space.sockets.values() for s in group if s.process == name]
        open_http = process.open_ports()
        http = set(process.server.http.values())
        for socket in mine:
            wanted = (
                process.serving if socket.port == 53 else socket.port not in http or socket.port in open_http
            )
            if not wanted:
                space.close(socket)
        present = {(s.proto, s.port) for s in mine}
        if process.serving and mine:
            for proto, number in ((UDP, 53), (TCP, 53)):
                if (proto, number) not in present:
                    port = ListeningPort(number, "UDP" if proto == UDP else "TCP", "dns", found.container)
                    space.listen(Socket(proto, "::", number, name, handler=self.handler(pod, port)))


def memory_limit(found: Running) -> float:
    """Octets of the container's memory limit, 0 for none."""
    container = next(c for c in found.pod.spec.containers if c.name == found.container)
    resources = container.resources or {}
    limits = resources.get("limits") or {}
    return memory.octets(str(limits.get("memory", "") or "0"))


def _container(pod: Pod) -> Container | None:
    return next((c for c in pod.spec.containers if is_coredns(c)), None)


def _show(server: CoreDNS, view: ServiceView) -> None:
    """Let a server answer from another view: every plugin that holds one."""
    server.view = view
    for each in server.servers.values():
        for plugin in each.chain:
            if hasattr(plugin, "view"):
                plugin.view = view
