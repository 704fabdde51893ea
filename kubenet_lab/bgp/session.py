"""One BGP session as one side sees it: the state machine of RFC 4271 section 8, with BIRD's timers.

    Idle -> Passive | Active -> Connect -> OpenSent -> OpenConfirm -> Established

BIRD's own rules (`proto/bgp/bgp.c`): a protocol waits `connect delay` before its first attempt; an error makes it
wait `error wait`, doubled each time; a connection that breaks without a word is a graceful restart where both sides
have agreed on it (RFC 4724), any NOTIFICATION is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenet_lab.bgp.config import Peer
from kubenet_lab.bgp.fabric import RETRANSMIT, Connection, Timer
from kubenet_lab.bgp.message import (
    CEASE,
    HOLD_TIMER_EXPIRED,
    KEEPALIVE,
    OPEN_ERROR,
    Keepalive,
    Message,
    Notification,
    Open,
    Update,
)

if TYPE_CHECKING:
    from kubenet_lab.bgp.daemon import Bird

IDLE, PASSIVE, ACTIVE, CONNECT = "Idle", "Passive", "Active", "Connect"
OPENSENT, OPENCONFIRM, ESTABLISHED = "OpenSent", "OpenConfirm", "Established"
OPEN_HOLD = 240.0
"""Seconds to wait for the OPEN and its answer (RFC 4271 section 8.2.2: a large value, 4 minutes)."""
AMNESIA = 300.0
"""Seconds after which an error no longer doubles the wait (`error forget time`)."""


class Session:
    """One `protocol bgp` of a daemon.

    Attributes:
        state: One of the names of RFC 4271, or "Passive".
        since: When the protocol last went up or down, in s.
        last_error: As `birdc show protocols` prints it.
        restarting: True while the routes of a peer that went away are kept (graceful restart).
    """

    def __init__(self, bird: Bird, peer: Peer) -> None:
        self.bird = bird
        self.peer = peer
        self.local = bird.config.source_of(peer)
        self.external = peer.asn != bird.config.asn
        self.state = IDLE
        self.since = bird.fabric.now
        self.last_error = ""
        self.connection: Connection | None = None
        self.neighbour: Open | None = None
        self.hold_time = bird.config.hold_time
        self.restarting = False
        self.feeding = False
        self.log: list[tuple[float, str]] = []
        self._heard = 0.0
        self._wait = 0.0
        self._failed_at = -AMNESIA
        self._limit = OPEN_HOLD
        self._again = 0
        self._tries = 0
        self._beats = 0
        self._timers: dict[str, Timer] = {}

    def __repr__(self) -> str:
        return f"<Session {self.peer.name} of {self.bird.name}: {self.state}>"

    @property
    def up(self) -> bool:
        """True while routes are exchanged."""
        return self.state == ESTABLISHED

    @property
    def neighbour_id(self) -> str:
        """Router id the neighbour sent in its OPEN, "" before."""
        return self.neighbour.router_id if self.neighbour is not None else ""

    @property
    def keepalive_time(self) -> float:
        """Seconds between KEEPALIVEs: a third of the agreed hold time."""
        return self.hold_time / 3

    @property
    def add_paths(self) -> bool:
        """True when both sides agreed to send several paths of a prefix."""
        return self.peer.add_paths and self.neighbour is not None and self.neighbour.add_paths

    @property
    def hold_left(self) -> float:
        """Seconds until the session is given up if nothing is heard; 0 without a hold timer."""
        timer = self._timers.get("hold")
        return max(0.0, self._heard + self._limit - self.bird.fabric.now) if timer is not None else 0.0

    @property
    def keepalive_left(self) -> float:
        """Seconds until the next KEEPALIVE is sent."""
        return self._left("keepalive")

    @property
    def connect_left(self) -> float:
        """Seconds until the neighbour is called again, or the wait after an error is over; 0 while neither waits."""
        return max(self._left(name) for name in ("begin", "connect", "resend"))

    @property
    def error_wait(self) -> float:
        """Seconds the session waits, or last waited, after an error."""
        return self._wait

    @property
    def restart_left(self) -> float:
        """Seconds for which the routes of a neighbour that restarts are still kept."""
        return self._left("restart_over")

    def _left(self, name: str) -> float:
        timer = self._timers.get(name)
        waits = timer is not None and timer.call is not None
        return max(0.0, timer.due - self.bird.fabric.now) if timer is not None and waits else 0.0

    @property
    def awaited(self) -> float | None:
        """When the session's state may change, in s; None while it is up and packets get through."""
        if self.state == ESTABLISHED:
            if not self.hold_time or self.bird.fabric.passes(self.local, self.peer.address):
                return None
            return max(self._heard + self._limit, self.bird.fabric.now)
        waiting = (t for name, t in self._timers.items() if name != "keepalive" and t.call is not None)
        due = [timer.due for timer in waiting]
        return min(due, default=None)

    # -- timers -------------------------------------------------------------------------------------------------

    def _arm(self, name: str, seconds: float) -> None:
        self._disarm(name)
        call = getattr(self, f"_{name}")
        self._timers[name] = self.bird.fabric.after(seconds, call)

    def _disarm(self, *names: str) -> None:
        for name in names:
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()

    def _spread(self, seconds: float, kind: str) -> float:
        self._tries += 1
        return self.bird.fabric.spread(seconds, self.bird.name, self.peer.name, kind, str(self._tries))

    # -- start and stop -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: after an error only when its wait is over."""
        self.state = IDLE
        if self._wait:
            self._arm("begin", self._wait)
        else:
            self._begin()

    def _begin(self) -> None:
        if self.peer.passive:
            self.state = PASSIVE
            return
        self.state = ACTIVE
        self._arm("connect", max(1.0, self._spread(self.bird.config.connect_delay, "connect delay")))

    def _connect(self) -> None:
        """The time to call the neighbour has come; a SYN that is lost is sent again."""
        self.state = CONNECT
        self._disarm("resend")
        self._attempt(0)

    def _attempt(self, number: int) -> None:
        fabric = self.bird.fabric
        if not fabric.passes(self.local, self.peer.address):
            silent = fabric.dropped(self.local, self.peer.address)
            if silent and number == 0:
                # Nothing comes back, not even an error: BIRD calls anew, and says no more than it said before.
                self._arm("connect", self._spread(self.bird.config.connect_retry, "connect retry"))
            if number < len(RETRANSMIT):
                self._again = number + 1
                self._arm("resend", RETRANSMIT[number])
            elif not silent:
                self._retry("Socket: No route to host")
            return
        far = fabric.speaker_at(self.peer.address)
        if far is None:
            self._retry("Socket: Connection refused")
            return
        other = far.session_with(self.local, self.peer.address)
        if other is None or not other.accepts():
            self._retry("Socket: Connection closed")
            return
        connection = Connection(fabric, self, other)
        other.accept(connection)
        self._use(connection)

    def _resend(self) -> None:
        self._attempt(self._again)

    def _retry(self, error: str) -> None:
        self.last_error = error
        self.state = ACTIVE
        self._arm("connect", self._spread(self.bird.config.connect_retry, "connect retry"))

    def accepts(self) -> bool:
        """Say whether a connection from the neighbour is taken now: not while waiting after an error."""
        if self.state == ESTABLISHED:
            return self._graceful()
        return self.state in (PASSIVE, ACTIVE, CONNECT)

    def accept(self, connection: Connection) -> None:
        """The neighbour has connected. While established that means it was restarted, unnoticed."""
        if self.state == ESTABLISHED:
            self._lose("Socket: Connection closed", graceful=True)
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        self._disarm("connect", "resend")
        self.connection = connection
        self.state = OPENSENT
        config = self.bird.config
        self._send(
            Open(
                config.asn,
                config.router_id,
                config.hold_time,
                self.peer.family,
                config.restart_time if config.graceful_restart and self.peer.graceful else None,
                self.peer.add_paths,
                config.graceful_restart,
            )
        )
        self._heard = self.bird.fabric.now
        self._limit = OPEN_HOLD
        self._arm("hold", OPEN_HOLD)

    def stop(self, notification: Notification | None = None) -> None:
        """End for good: the configuration says so, or the daemon ends."""
        if self.connection is not None:
            if notification is not None:
                self._send(notification)
            connection, self.connection = self.connection, None
            connection.close(self)
        self._disarm(*list(self._timers))
        self.restarting = False
        self.bird.forget(self)
        self.state = IDLE

    # -- messages -----------------------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if self.connection is not None:
            self.connection.send(self, message)

    def send(self, message: Update) -> None:
        """Send routes on an established session."""
        self._send(message)

    def receive(self, message: Message) -> None:
        """Take a message of the neighbour."""
        self._heard = self.bird.fabric.now
        if isinstance(message, Update):
            if self.state == ESTABLISHED:
                self.bird.learn(self, message)
        elif isinstance(message, Open):
            self._on_open(message)
        elif isinstance(message, Keepalive):
            if self.state == OPENCONFIRM:
                self._establish()
        else:
            self._on_notification(message)

    def _on_open(self, message: Open) -> None:
        if message.asn != self.peer.asn:
            self._error(Notification(OPEN_ERROR, 2), f"BGP Error: Bad peer AS: {message.asn}")
            return
        if message.router_id == self.bird.config.router_id and not self.external:
            self._error(Notification(OPEN_ERROR, 3), "BGP Error: Bad BGP identifier")
            return
        self.neighbour = message
        self.hold_time = min(self.bird.config.hold_time, message.hold_time)
        self.state = OPENCONFIRM
        self._send(KEEPALIVE)
        self._arm_hold()
        self._beat()

    def _on_notification(self, message: Notification) -> None:
        self._lose(f"Received: {message}", graceful=False, wait=message.code != CEASE)

    def _establish(self) -> None:
        self.state = ESTABLISHED
        self.since = self.bird.fabric.now
        self.last_error = ""
        self._disarm("restart_over")
        if self.restarting and (self.neighbour is None or self.neighbour.restart_time is None):
            self.restarting = False
            self.bird.forget(self)
        self._log("State changed to up")
        self.bird.feed(self)

    def end_of_rib(self) -> None:
        """The neighbour has sent all it has: what it did not send again is gone."""
        if self.restarting:
            self.restarting = False
            self.bird.forget(self, stale_only=True)

    # -- still there? -------------------------------------------------------------------------------------------

    def _arm_hold(self) -> None:
        if self.hold_time:
            self._limit = self._spread(self.hold_time, "hold")
            self._arm("hold", self._limit)

    def _hold(self) -> None:
        """The hold time is over, unless a message came meanwhile."""
        due = self._heard + self._limit
        now = self.bird.fabric.now
        if now < due:
            self._arm("hold", due - now)
            return
        self._error(Notification(HOLD_TIMER_EXPIRED), "BGP Error: Hold timer expired")

    def _beat(self) -> None:
        if not self.hold_time:
            return
        self._beats += 1
        seconds = self.bird.fabric.spread(
            self.keepalive_time, self.bird.name, self.peer.name, str(self._beats)
        )
        self._arm("keepalive", seconds)

    def _keepalive(self) -> None:
        self._send(KEEPALIVE)
        self._beat()

    # -- the end of a connection --------------------------------------------------------------------------------

    def _graceful(self) -> bool:
        return (
            self.bird.config.graceful_restart
            and self.peer.graceful
            and self.neighbour is not None
            and self.neighbour.restart_time is not None
        )

    def closed(self, why: str) -> None:
        """The connection broke without a NOTIFICATION: the neighbour's process died, or a reset came."""
        self._lose(why, graceful=self.state == ESTABLISHED and self._graceful())

    def _error(self, notification: Notification, text: str) -> None:
        """Something is wrong on this side's view: tell the neighbour, close, and wait before the next attempt."""
        self._send(notification)
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close(self)
        self._down(text, wait=True)

    def _lose(self, why: str, *, graceful: bool, wait: bool = False) -> None:
        self.connection = None
        if not graceful:
            self._down(why, wait=wait)
            return
        assert self.neighbour is not None
        assert self.neighbour.restart_time is not None
        self.last_error = why
        self.since = self.bird.fabric.now
        self.restarting = True
        self.bird.mark_stale(self)
        self._disarm("hold", "keepalive", "connect")
        self._arm("restart_over", float(self.neighbour.restart_time))
        self._log("State changed to start")
        self._begin()

    def _restart_over(self) -> None:
        """The neighbour did not come back in time: its routes go now."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close(self)
        self._down(self.last_error, wait=False)

    def _down(self, why: str, *, wait: bool) -> None:
        fabric = self.bird.fabric
        self._disarm(*list(self._timers))
        self.last_error = why
        if self.state == ESTABLISHED or self.restarting:
            self.since = fabric.now
        self._log(why)
        self.restarting = False
        self.bird.forget(self)
        if wait:
            least, most = self.bird.config.error_wait
            recent = fabric.now - self._failed_at < AMNESIA
            self._wait = min(self._wait * 2, most) if recent and self._wait else least
            self._failed_at = fabric.now
        else:
            self._wait = 0.0
        self.start()

    def _log(self, text: str) -> None:
        self.log.append((self.bird.fabric.now, f"{self.peer.name}: {text}"))
