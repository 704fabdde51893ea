"""CoreDNS as a process: it starts, waits for the API, answers DNS and HTTP, reads its Corefile again, and ends.

    start -> API reachable, or 5 s over -> listens on :53
    Corefile changed -> seen at the next look of `reload` -> new configuration, or the old one and an error
    SIGTERM -> `lameduck`: still answers DNS, no longer `ready` -> exit 0

Source: plugins kubernetes, health, ready, reload, loop of CoreDNS 1.15 (https://coredns.io/plugins/).
"""

from __future__ import annotations

import math
import random
from typing import Any

from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.loop import LoopDetected
from kubenet_lab.dns.server.plugin import Upstream
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.packet.http import Request, Response
from kubenet_lab.packet.packet import Packet

API_PATIENCE = 5.0
"""Seconds CoreDNS waits for its first lists before it serves without them (plugin/kubernetes)."""
WAITING = "[INFO] plugin/kubernetes: waiting for Kubernetes API before starting server"
UNSYNCED = "[WARNING] plugin/kubernetes: starting server with unsynced Kubernetes API"
PATHS = {"health": "/health", "ready": "/ready", "prometheus": "/metrics"}


class Process:
    """One run of the program, from start to exit.

    Args:
        corefile: The text of its Corefile.
        view: The objects it watches; `view.synced` False means that the API has not been reached yet.
        upstream: How it asks others (`plugin.Upstream`).
        started: When it is started, in s.
        seed: Of the shuffles and of the spread of its looks at the Corefile.
        options: Passed on to `CoreDNS`.

    Attributes:
        server: The server; raises CorefileError at once for a Corefile it refuses.
        log: What it printed.
        file: The Corefile on its disk, None while there is none.
        ended, exit_code: When and how it ended; None while it runs.
        draining: Since when it has been told to end, None before.
    """

    def __init__(
        self,
        corefile: str,
        view: ServiceView,
        upstream: Upstream,
        *,
        started: float = 0.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.server = CoreDNS(corefile, view, upstream, seed=seed, **options)
        self.log = self.server.log
        self.log.clear()
        self.file: str | None = corefile
        self.started = started
        self.ended: float | None = None
        self.exit_code: int | None = None
        self.draining: float | None = None
        self.queries = 0
        """Questions that arrived since the start."""
        self._rng = random.Random(seed)
        self._listens: float | None = None
        self._looks = math.inf
        self._tried = self.server.words_of(corefile)
        """What the Corefile said that was tried last: a wrong one is not tried twice."""
        self._told_unready = ""
        if not self._api_missing():
            self._listen(started)
        else:
            self.log.append(WAITING)

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def next(self) -> float | None:
        """When something happens to it by itself next; None: never."""
        if self.ended is not None:
            return None
        if self.draining is not None:
            return self.draining + self.server.lameduck
        due = self.started + API_PATIENCE if self._listens is None else self._looks
        return None if due == math.inf else due

    def advance(self, now: float) -> None:
        """Do what is due until `now`."""
        while self.ended is None:
            if self._listens is None and not self._api_missing():
                self._listen(now)
            due = self.next
            if due is None or due > now:
                return
            if self.draining is not None:
                self._exit(due, 0)
            elif self._listens is None:
                self.log.append(UNSYNCED)
                self._listen(due)
            else:
                self._looks = due + self._interval()
                self.look(due)

    def write(self, corefile: str | None) -> None:
        """The Corefile on its disk is now this, or gone. Nothing else happens yet."""
        self.file = corefile

    def look(self, now: float) -> None:
        """What `reload` does at its interval: read the Corefile; take it if it says something else."""
        if self.file is None:
            return
        try:
            words = self.server.words_of(self.file)
        except CorefileError as error:
            self.log.append(f"[WARNING] plugin/reload: Corefile parse failed: {error}")
            return
        if words == self._tried:
            return
        self._tried = words
        self._take(now, "plugin/reload: Corefile changed but reload failed")

    def usr1(self, now: float) -> None:
        """`kill -USR1`: read the Corefile and take it, whether it changed or not."""
        self.log.append("[INFO] SIGUSR1: Reloading")
        if self.file is not None:
            self._take(now, "SIGUSR1")

    def terminate(self, now: float, signal: str = "SIGTERM") -> None:
        """`kill`, or Ctrl-C with "SIGINT": lameduck, then the end."""
        if self.ended is not None or self.draining is not None:
            return
        what = "Shutting down servers then terminating" if signal == "SIGTERM" else "Shutting down"
        self.log.append(f"[INFO] {signal}: {what}")
        self.draining = now
        if self.server.lameduck:
            self.log.append(f"[INFO] plugin/health: Going into lameduck mode for {self.server.lameduck:g}s")
        self.advance(now)

    def kill(self, now: float) -> None:
        """`kill -9`."""
        self._exit(now, 137)

    def _take(self, now: float, failing: str) -> None:
        assert self.file is not None
        if self.server.reload(self.file):
            self._tried = self.server.words_of(self.file)
            self._looks = now + self._interval()
            self._probe(now)
        else:
            error = self.log[-1].removeprefix("[ERROR] Restart failed: ")
            self.log.append(f"[ERROR] {failing}: starting with listener file descriptors: {error}")

    def _interval(self) -> float:
        """Seconds until the next look: the interval, spread by half the jitter to either side."""
        if self.server.reloads is None:
            return math.inf
        interval, jitter = self.server.reloads
        return interval + jitter * (self._rng.random() - 0.5)

    def _api_missing(self) -> bool:
        return bool(self.server.ready())

    def _listen(self, now: float) -> None:
        self._listens = now
        self.log.extend(self.server.banner)
        self._looks = now + self._interval()
        self._probe(now)

    def _probe(self, now: float) -> None:
        """`loop` sends its query; the process dies of it when it comes back."""
        try:
            self.server.probe_loop(now)
        except LoopDetected as error:
            self.log.append(str(error))
            self._exit(now, 1)

    def _exit(self, now: float, code: int) -> None:
        self.ended, self.exit_code = now, code

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self.ended is None

    @property
    def serving(self) -> bool:
        """Whether it listens on port 53."""
        return self.running and self._listens is not None

    def handle(self, packet: Packet, now: float) -> Packet | None:
        """The handler of its DNS sockets."""
        if not self.serving:
            return None
        self.queries += 1
        return self.server.handle(packet, now)

    def open_ports(self) -> dict[int, str]:
        """Its HTTP ports that are open, and whose they are: plugin by port."""
        if not self.running:
            return {}
        shut = {"ready"} if self.draining is not None else set()
        return {port: name for name, port in self.server.http.items() if name not in shut}

    def get(self, plugin: str, path: str) -> Response:
        """What an HTTP server of it answers: `curl POD:PORT/PATH`."""
        if path.partition("?")[0] != PATHS[plugin]:
            return _text(404, "404 page not found\n")
        if plugin == "health":
            return _text(200, "OK")
        if plugin == "prometheus":
            return _text(200, self.server.metrics())
        missing = ",".join(self.server.ready())
        if missing:
            if missing != self._told_unready:
                self.log.append(f'[INFO] plugin/ready: Plugins not ready: "{missing}"')
            self._told_unready = missing
            return _text(503, missing)
        self._told_unready = ""
        return _text(200, "OK")

    def http(self, packet: Packet, now: float) -> Packet | None:
        """The handler of its HTTP sockets: a request's bytes in, the response's bytes out."""
        plugin = self.open_ports().get(packet.dport)
        request = Request.from_bytes(packet.payload)
        if plugin is None or request is None:
            return None
        return packet.replace(payload=self.get(plugin, request.path).to_bytes())


def _text(status: int, body: str) -> Response:
    fields = (("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))))
    return Response(status, fields, body)
