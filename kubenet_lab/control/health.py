"""Health checks over simulated time: who asks whom how often, and how many answers in a row change the verdict."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.http import Request, Response
from kubenet_lab.packet.packet import ACK, PSH, SYN, TCP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange


class Check(Struct, frozen=True):
    """One question: `GET http://ADDRESS:PORT/PATH`, where the address is a node's."""

    node: str
    address: str
    port: int
    path: str


class Standing(Struct, frozen=True):
    """How a check stands. `up` is None before the first answer; `streak` counts answers that contradict `up`."""

    up: bool | None = None
    streak: int = 0
    due: float = 0.0
    told: str = ""
    """The last answer in words: "200 OK", "503 Service Unavailable", "refused", "timed out"."""


class Checks:
    """The checks that one machine makes.

    Args:
        network: Where the packets go.
        source: The namespace they come from.
    """

    def __init__(self, network: Network, source: str) -> None:
        self.network = network
        self.source = source
        self.standings: dict[Check, Standing] = {}
        self.log: list[tuple[float, Check, str]] = []
        """Every change of a verdict: (second, check, "healthy" or "unhealthy: WHY")."""
        self._interval, self._unhealthy, self._healthy = 8.0, 3, 1

    def want(
        self, checks: Iterable[Check], now: float, interval: float, unhealthy: int, healthy: int
    ) -> None:
        """Make these checks and no others; a new one is due at once."""
        self._interval, self._unhealthy, self._healthy = interval, unhealthy, healthy
        self.standings = {check: self.standings.get(check, Standing(due=now)) for check in checks}

    @property
    def next(self) -> float | None:
        """When the first of them is due, None without any."""
        return min((standing.due for standing in self.standings.values()), default=None)

    def up(self, check: Check) -> bool:
        """Whether its target counts as healthy; one that was not asked yet does not."""
        standing = self.standings.get(check)
        return standing is not None and standing.up is True

    def run(self, now: float) -> None:
        """Ask whatever is due."""
        if self.source not in self.network.netns:
            return
        for check, standing in self.standings.items():
            if standing.due <= now:
                told = ask(self.network, self.source, check, now)
                self.standings[check] = self._judge(check, standing, told, now)

    def _judge(self, check: Check, old: Standing, told: str, now: float) -> Standing:
        good = told.startswith("2")
        due = now + self._interval
        if old.up is None:
            self._tell(now, check, good, told)
            return Standing(good, 0, due, told)
        if good == old.up:
            return replace(old, streak=0, due=due, told=told)
        streak = old.streak + 1
        if streak < (self._healthy if good else self._unhealthy):
            return replace(old, streak=streak, due=due, told=told)
        self._tell(now, check, good, told)
        return Standing(good, 0, due, told)

    def _tell(self, now: float, check: Check, good: bool, told: str) -> None:
        self.log.append((now, check, "healthy" if good else f"unhealthy: {told}"))


def ask(network: Network, source: str, check: Check, now: float) -> str:
    """`curl http://ADDRESS:PORT/PATH` from a namespace: the status line of the answer, or how the connection fails.

    The connection is walked. A server without a program of its own behind its socket answers "200 OK".
    """
    walk = Walk(network, now=now)
    done = exchange(walk, source, Packet("", check.address, TCP, 0, check.port, flags=SYN, mss=1460))
    if not done.ok:
        return done.verdict
    seen = done.request.delivered_as
    assert seen is not None
    socket = network.ns(done.server_ns).socket_for(TCP, seen.dst, seen.dport)
    if socket is None or socket.handler is None:
        return "200 OK"
    request = Request(path=check.path, fields={"host": f"{check.address}:{check.port}"})
    answer = socket.handler(replace(seen, flags=PSH | ACK, payload=request.to_bytes(), mss=0), now)
    response = Response.from_bytes(answer.payload) if answer is not None else None
    return "timed out" if response is None else response.line.partition(" ")[2]
