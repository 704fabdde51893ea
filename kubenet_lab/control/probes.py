"""Probes: packets a kubelet sends from its node to the pod's address, and what it makes of the answers.

`httpGet`, `tcpSocket` and `grpc` open a TCP connection through the modelled network; a program that takes it is taken
to answer well, since nothing in a manifest says what it would say. CoreDNS is known: its own answer is judged.
`exec` is not modelled: a command is taken to
succeed while its container runs, except one that can only fail (`false`, `exit 1`).
Source: `pkg/kubelet/prober/{prober,worker}.go`, `pkg/probe/{http,tcp,grpc}`;
https://kubernetes.io/docs/concepts/workloads/pods/probes/
"""

from __future__ import annotations

import errno
import math
import os
import re

from msgspec import Struct, structs
from msgspec.structs import replace

from kubenet_lab.kernel.network import Network
from kubenet_lab.objects import Container, Json, Pod
from kubenet_lab.objects.pod import ListeningPort, listening_ports
from kubenet_lab.packet.http import Request
from kubenet_lab.packet.packet import ACK, FIN, SYN, TCP, Packet, endpoint
from kubenet_lab.trace import NOT_MODELLED
from kubenet_lab.walk.deliver import own_mss
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import TIMED_OUT, Exchange, exchange
from kubenet_lab.walk.http import ask

STARTUP, READINESS, LIVENESS = "Startup", "Readiness", "Liveness"
KINDS = (STARTUP, READINESS, LIVENESS)
"""In the order in which they are looked at when they fall on one moment."""
SUCCESS, FAILURE, UNKNOWN = "success", "failure", "unknown"

_FIELDS = {STARTUP: "startup_probe", READINESS: "readiness_probe", LIVENESS: "liveness_probe"}
_ACTIONS = ("httpGet", "tcpSocket", "grpc", "exec")
_FAILS = re.compile(r"^\s*(?:\S*/)?(?:false|exit\s+[1-9]\d*)\s*$")


class Probe(Struct, frozen=True):
    """One probe of a container, its defaults filled in; times in s.

    Attributes:
        kind: Startup, Readiness or Liveness.
        action: httpGet, tcpSocket, grpc or exec.
        port: Its number, 0 when a name is no port of the container (`error` says so) and for exec.
        host: Where it goes instead of the pod's address, usually "".
        path: With its slash; `scheme` is http or https.
        command: What exec runs.
        grace: `terminationGracePeriodSeconds` of the probe, None for the pod's.
        error: Why it cannot be sent, in the kubelet's words.
    """

    kind: str
    action: str
    port: int = 0
    host: str = ""
    path: str = "/"
    scheme: str = "http"
    command: tuple[str, ...] = ()
    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    grace: int | None = None
    error: str = ""


class Outcome(Struct, frozen=True):
    """What one probe came to: `result` is success, failure or unknown, `seconds` how long that took to be known."""

    result: str
    output: str = ""
    seconds: float = 0.0


def probes_of(container: Container) -> tuple[Probe, ...]:
    """The container's probes: startup, readiness, liveness."""
    found = ((kind, getattr(container, _FIELDS[kind])) for kind in KINDS)
    return tuple(_probe(kind, body, container) for kind, body in found if body)


def probed(pod: Pod) -> bool:
    """Whether any container that runs while the pod serves has a probe."""
    return any(c.readiness_probe or c.liveness_probe or c.startup_probe for c in pod.serving_containers)


def _probe(kind: str, body: Json, container: Container) -> Probe:
    action = next((name for name in _ACTIONS if name in body), "exec")
    wished: Json = body.get(action) or {}
    port, error = _port(wished.get("port", 0), container)
    path = str(wished.get("path") or "/")
    return Probe(
        kind,
        action,
        port,
        str(wished.get("host") or ""),
        path if path.startswith("/") else f"/{path}",
        str(wished.get("scheme") or "HTTP").lower(),
        tuple(map(str, wished.get("command") or ())),
        float(body.get("initialDelaySeconds") or 0),
        float(body.get("periodSeconds") or 10),
        float(body.get("timeoutSeconds") or 1),
        body.get("successThreshold") or 1,
        body.get("failureThreshold") or 3,
        body.get("terminationGracePeriodSeconds"),
        error,
    )


def _port(given: object, container: Container) -> tuple[int, str]:
    """(number, error): a port's name is looked up among the container's own (`probe.ResolveContainerPort`)."""
    if isinstance(given, int):
        return given, ""
    text = str(given)
    named = next((p.container_port for p in container.ports if p.name == text), 0)
    if named:
        return named, ""
    if text.isdecimal():
        return int(text), ""
    return 0, f'strconv.Atoi: parsing "{text}": invalid syntax'


def probed_ports(pod: Pod) -> tuple[ListeningPort, ...]:
    """TCP ports that containers are taken to listen on since they are probed there, and declare none at all.

    Declaring ports is optional, so a manifest that only says where its program is probed says where it listens.
    Where ports are declared they are taken to be all, and a probe of another one is refused, as a typing mistake is.
    A pod that was dumped as ready listens where it is probed, whatever it declares. CoreDNS is known to answer at its
    `health` and `ready` plugins' ports, which old manifests do not declare.
    """
    taken = {(p.port, p.protocol) for p in listening_ports(pod)}
    out = []
    for container in pod.serving_containers:
        declared = any((p.protocol or "TCP") == "TCP" for p in container.ports)
        if declared and not pod.ready and "coredns" not in container.image:
            continue
        for probe in probes_of(container):
            if probe.port and (probe.port, "TCP") not in taken:
                taken.add((probe.port, "TCP"))
                out.append(ListeningPort(probe.port, "TCP", "", container.name))
    return tuple(out)


# -- sending --------------------------------------------------------------------------------------------------------


def send(network: Network, pod: Pod, probe: Probe, *, now: float = 0.0, seed: int = 0) -> Outcome:
    """Probe a container once: `curl -m TIMEOUT http://POD-IP:PORT/PATH` or `nc -zw TIMEOUT POD-IP PORT` on its node."""
    if probe.action == "exec":
        return _exec(probe)
    if probe.error:
        return Outcome(UNKNOWN, probe.error)
    address, node = probe.host or pod.status.pod_ip, pod.spec.node_name
    if not _is_address(address):
        return Outcome(UNKNOWN, f"not modelled: a probe's host that is a name ({address})")
    request = Packet("", address, TCP, 0, probe.port, flags=SYN, mss=own_mss(network.ns(node), address, ""))
    walk = Walk(network, now=now, seed=seed)
    done = exchange(walk, node, request, patience=probe.timeout)
    if done.ok and probe.action == "httpGet" and probe.scheme == "http":
        asked = Request("GET", probe.path, {"host": endpoint(address, probe.port)}).to_bytes()
        said = ask(walk, done, asked)
        _close(walk, node, done)
        if said is None and _speaks(walk, done):
            return Outcome(
                FAILURE, f'Get "{probe.scheme}://{endpoint(address, probe.port)}{probe.path}": EOF'
            )
        if said is not None and not 200 <= said.status < 400:
            return Outcome(FAILURE, f"HTTP probe failed with statuscode: {said.status}")
        return Outcome(SUCCESS)
    if done.ok:
        _close(walk, node, done)
        return Outcome(SUCCESS)
    if done.verdict == NOT_MODELLED:
        return Outcome(UNKNOWN, f"not modelled: {done.decided_by}")
    late = done.verdict == TIMED_OUT or done.seconds >= probe.timeout
    words = _words(probe, endpoint(address, probe.port), "" if late else done.errno)
    # gRPC dials again and again until its time is over.
    waited = probe.timeout if late or probe.action == "grpc" else done.seconds
    return Outcome(FAILURE, words, waited)


def _speaks(walk: Walk, done: Exchange) -> bool:
    """Whether it is known what the program behind a connection says."""
    seen = done.request.delivered_as
    if seen is None:
        return False
    listener = walk.network.ns(done.server_ns).socket_for(TCP, seen.dst, seen.dport)
    return listener is not None and listener.handler is not None


def _close(walk: Walk, node: str, done: Exchange) -> None:
    """Both ends close, so that the nodes' connection tracking forgets the probe after its TIME_WAIT."""
    answer = done.answer
    taken = done.request.delivered_as
    if answer is None or taken is None:
        return
    mine = Packet(answer.dst, answer.src, TCP, answer.dport, answer.sport, flags=FIN | ACK, seq=1, ack=1)
    other = Packet(taken.dst, taken.src, TCP, taken.dport, taken.sport, flags=FIN | ACK, seq=1, ack=2)
    walk.send(node, mine, role="data")
    walk.send(done.server_ns, other, role="data")
    walk.send(node, structs.replace(mine, flags=ACK, seq=2, ack=2), role="data")


def _words(probe: Probe, where: str, error: str) -> str:
    """What the kubelet's event says after "probe failed: "; `error` is "" where nothing came back in time."""
    if probe.action == "grpc":
        limit = f"{probe.timeout:g}s"
        return f'timeout: failed to connect service "{where}" within {limit}: context deadline exceeded'
    dialled = f"dial tcp {where}: " + (f"connect: {_strerror(error)}" if error else "i/o timeout")
    if probe.action == "tcpSocket":
        return dialled
    url = f'Get "{probe.scheme}://{where}{probe.path}": '
    late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    return url + (dialled if error else late)


def _strerror(name: str) -> str:
    number = getattr(errno, name, None)
    return os.strerror(number).lower() if number is not None else name


def _exec(probe: Probe) -> Outcome:
    command = probe.command
    if len(command) == 3 and command[1] == "-c":
        command = command[2:]
    failed = _FAILS.match(" ".join(command)) is not None
    return Outcome(FAILURE) if failed else Outcome(SUCCESS, "not modelled: what the command says")


def _is_address(text: str) -> bool:
    return ":" in text or bool(re.fullmatch(r"\d+(\.\d+){3}", text))


# -- the worker of one probe ----------------------------------------------------------------------------------------


class Worker(Struct, frozen=True):
    """What the kubelet remembers of one probe of one container.

    Attributes:
        tick: When its ticker fires next, in simulated s.
        result: What holds of the container: changes only after as many equal outcomes as its threshold says.
        last: The outcome before, and `run` how often it came in a row.
        on_hold: It caused the container's end and waits for the next one.
        pending: A failure that will only be known at `known_at`, after the timeout.
    """

    probe: Probe
    tick: float
    result: str
    last: str = ""
    run: int = 0
    on_hold: bool = False
    pending: Outcome | None = None
    known_at: float = math.inf

    @property
    def due(self) -> float:
        """When it has something to do next."""
        if self.pending is not None:
            return self.known_at
        return math.inf if self.on_hold else self.tick


INITIAL = {STARTUP: UNKNOWN, READINESS: FAILURE, LIVENESS: SUCCESS}
"""What holds of a container that has not been probed."""


def fresh(probe: Probe, now: float) -> Worker:
    """The worker of a container that starts now."""
    return Worker(probe, _not_before(now, probe.period, now + probe.initial_delay), INITIAL[probe.kind])


def passed(probe: Probe, now: float) -> Worker:
    """The worker of a container that has run for long, and whose last probe succeeded just now."""
    return Worker(probe, now + probe.period, SUCCESS, SUCCESS, 1, on_hold=probe.kind == STARTUP)


def restarted(worker: Worker, now: float) -> Worker:
    """Its container has been started anew. A readiness probe is sent at once, the others keep their ticks."""
    probe = worker.probe
    tick = now if probe.kind == READINESS else _after(worker.tick, probe.period, now)
    return replace(
        worker,
        tick=_not_before(tick, probe.period, now + probe.initial_delay),
        result=INITIAL[probe.kind],
        on_hold=False,
        pending=None,
        known_at=math.inf,
    )


def released(worker: Worker, now: float, started: float) -> Worker:
    """The startup probe of its container has succeeded: readiness is probed at once, liveness at its next tick."""
    probe = worker.probe
    tick = now if probe.kind == READINESS else _after(worker.tick, probe.period, now)
    return replace(worker, tick=_not_before(tick, probe.period, started + probe.initial_delay))


def ticked(worker: Worker, sent: float, known: float) -> Worker:
    """Its next tick; one that fired while an answer was awaited is not lost, a second one is."""
    following = worker.tick + worker.probe.period
    if following <= known and known > sent:
        following += math.floor((known - following) / worker.probe.period) * worker.probe.period
    return replace(worker, tick=max(following, known) if known > sent else following)


def judged(worker: Worker, outcome: Outcome) -> Worker:
    """What an outcome makes of the result: nothing until it came often enough (`worker.go`, doProbe)."""
    worker = replace(worker, pending=None, known_at=math.inf)
    if outcome.result == UNKNOWN:
        return worker
    run = worker.run + 1 if worker.last == outcome.result else 1
    worker = replace(worker, last=outcome.result, run=run)
    probe = worker.probe
    needed = probe.success_threshold if outcome.result == SUCCESS else probe.failure_threshold
    if run < needed:
        return worker
    if outcome.result == FAILURE and probe.kind != READINESS:
        # The container is killed for it; counting begins again with the next one.
        return replace(worker, result=FAILURE, on_hold=True, run=0)
    return replace(worker, result=outcome.result, on_hold=probe.kind == STARTUP)


def _not_before(tick: float, period: float, moment: float) -> float:
    """The first tick from `tick` on that is not before a moment."""
    return tick if tick >= moment else tick + math.ceil((moment - tick) / period) * period


def _after(tick: float, period: float, moment: float) -> float:
    """The first tick from `tick` on that is after a moment."""
    return tick if tick > moment else tick + (math.floor((moment - tick) / period) + 1) * period
