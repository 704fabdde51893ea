"""The walk: one packet, and all it gives rise to, through kernel state.

The files of this folder follow the packet: `routing` (made locally, received, forwarded), `hooks` (netfilter at each
hook, in the kernel's order), `conntracking` and `nat`, `neighbours` (ARP), `bridging`, `tunnel` (VXLAN), `ipip`,
`wireguard`, `links` (from one namespace to the next), `stacked` (devices on other links: VLANs, `macvlan`, `ipvlan`)
and `deliver` (sockets, ICMP errors). Each takes the `Walk`, which owns the trace in the making, the clock's reading and
the source of chance.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.trace import DELIVERED, Hop, Place, Step, Trace
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import NotModelled

Chooser = Callable[[Any, float], bool]
"""(rule, probability) -> take it? Decides every `-m statistic --mode random` a packet meets."""

MAX_PACKETS = 64
"""Packets one send may give rise to before the walk stops: a loop guard, far above any real conversation."""
MAX_DEPTH = 120
"""Namespaces, bridges and tunnels one packet may cross; TTL ends a routing loop long before."""

SOFT_ENDS = frozenset({"not-my-mac", "bridged-to-nobody", "hairpin-off", "not-for-anyone"})
"""Ends of a flooded copy, which another copy's end overrides."""


class Pending:
    """A packet a namespace is about to send, with what the sending socket asked for."""

    __slots__ = (
        "cause",
        "flow",
        "flow_reply",
        "gid",
        "mark",
        "ns",
        "oif",
        "packet",
        "pmtudisc",
        "raw",
        "role",
        "uid",
    )

    def __init__(
        self,
        ns: Netns,
        packet: Packet,
        role: str,
        cause: Trace | None,
        *,
        uid: int | None = None,
        gid: int | None = None,
        mark: int = 0,
        pmtudisc: str = "want",
        oif: str = "",
        flow: Flow | None = None,
        flow_reply: bool = False,
        raw: tuple[str, Frame] | None = None,
    ) -> None:
        self.raw = raw
        self.flow = flow
        self.flow_reply = flow_reply
        self.ns = ns
        self.packet = packet
        self.role = role
        self.cause = cause
        self.uid = uid
        self.gid = gid
        self.mark = mark
        self.pmtudisc = pmtudisc
        self.oif = oif


class Walk:
    """Packets through one network, at one simulated moment that the caller may advance.

    Args:
        network: The world; the walk changes what packets change there (conntrack, neighbours, FDB, counters).
        now: Simulated time in s.
        choose: Decides random rules, and whose turn it is in an IPVS scheduler that goes by turns or load; by default
            a generator seeded with `seed`, and the scheduler itself.
        seed: Seeds the default chooser and the ports of `--random-fully`.
    """

    def __init__(
        self, network: Network, *, now: float = 0.0, choose: Chooser | None = None, seed: int = 0
    ) -> None:
        self.network = network
        self.now = now
        self._seed = seed
        self._rng: random.Random | None = None
        self.choose: Chooser = choose or self._chance
        self.scripted = choose is not None
        """True where the caller chooses, so that every way can be tried."""
        self.clients: set[tuple[str, int, int]] = set()
        """Open client sockets: (namespace, protocol, port or ICMP id)."""
        self.peers: dict[tuple[str, int, int], tuple[str, int]] = {}
        """Whom a client socket has last written to, as it knows it: (address, port)."""
        self.connections: set[tuple[str, str, int, str, int]] = set()
        """TCP connections a listener accepted: (namespace, its address and port, the client's)."""
        self.trace: Trace = _NOWHERE
        self.hop: Hop = _NOHOP
        self.steps: list[Step] = _NOHOP.steps
        self.depth = 0
        self.tried = 0
        self.racing = ""
        """How a packet fares that was sent together with the one before it, which the kernel has not confirmed yet: ""
        if it comes after, else a value of `Network.race`."""
        self.program_mark = 0
        """The mark that a BPF program at ingress gave the packet it lets up the stack."""
        self._pending: deque[Pending] = deque()
        self._ident = 0

    @property
    def rng(self) -> random.Random:
        """The walk's source of chance, seeded when first needed."""
        if self._rng is None:
            self._rng = random.Random(self._seed)
        return self._rng

    def _chance(self, _rule: Any, probability: float) -> bool:
        return self.rng.random() < probability

    # -- what callers use -----------------------------------------------------------------------------------------

    def send(
        self,
        ns: str,
        packet: Packet,
        *,
        uid: int | None = 0,
        gid: int | None = 0,
        mark: int = 0,
        role: str = "request",
        pmtudisc: str = "want",
        oif: str = "",
    ) -> Trace:
        """Send a packet from a local socket and walk it and everything it gives rise to.

        Args:
            ns: Name of the sending namespace.
            packet: `src` "" lets the kernel choose the source, `sport` 0 an ephemeral port.
            uid: Owner of the socket, for `-m owner`; None for a packet no socket made.
            gid: Group of the socket.
            mark: SO_MARK of the socket.
            role: Role of the trace.
            pmtudisc: IP_MTU_DISCOVER: "want" fragments what is too big here, "do" refuses it (EMSGSIZE), "dont"
                never sets don't-fragment.
            oif: Device the socket is bound to (SO_BINDTODEVICE), or "".

        Returns:
            The packet's trace; answers and errors hang in `caused`, in the order they were sent.
        """
        from kubenet_lab.walk.routing import send_local

        space = self.network.ns(ns)
        self._pending.append(
            Pending(space, packet, role, None, uid=uid, gid=gid, mark=mark, pmtudisc=pmtudisc, oif=oif)
        )
        return self._drain(lambda item: send_local(self, item))

    def deliver(self, ns: str, dev: str, frame: Frame) -> Trace:
        """Let a frame arrive on a link from outside the network, as from a cable nobody modelled."""
        from kubenet_lab.walk.links import receive
        from kubenet_lab.walk.routing import send_local

        space = self.network.ns(ns)
        body = frame.body if isinstance(frame.body, Packet) else Packet("0.0.0.0", "0.0.0.0", 0)
        first = Pending(space, body, "request", None)
        self._pending.append(first)

        def act(item: Pending) -> None:
            if item is first:
                receive(self, space, dev, frame)
            else:
                send_local(self, item)

        return self._drain(act)

    def _drain(self, act: Callable[[Pending], None]) -> Trace:
        first: Trace | None = None
        count = 0
        while self._pending:
            item = self._pending.popleft()
            count += 1
            trace = Trace(item.packet, item.role, [], caused=[])
            if first is None:
                first = trace
            if item.cause is not None:
                item.cause.caused.append(trace)
            self.trace, self.depth, self.tried = trace, 0, 0
            if count > MAX_PACKETS:
                self._pending.clear()
                self.begin_hop(item.ns, "", item.packet)
                self.end("lost", "loop", item.ns, "")
                break
            try:
                act(item)
            except NotModelled as missing:
                self.end(
                    "not modelled", "not-modelled", item.ns, "netfilter", missing.entry, note=missing.what
                )
            if not trace.verdict:
                self.end("lost", "bridged-to-nobody", item.ns, "")
            trace.rules_tried = self.tried
        assert first is not None
        return first

    # -- what the files of this folder use ------------------------------------------------------------------------

    def begin_hop(self, ns: Netns, indev: str, packet: Packet, encapsulated: bool = False) -> Hop:
        """Start a new hop: the packet is now in `ns`."""
        hop = Hop(ns.name, ns.host, indev, packet, [], "", encapsulated)
        self.trace.hops.append(hop)
        self.hop = hop
        self.steps = hop.steps
        return hop

    def step(
        self,
        kind: str,
        spot: str,
        entry: Any = None,
        note: str = "",
        before: Packet | None = None,
        after: Packet | None = None,
    ) -> None:
        """Write one step of the present hop."""
        self.steps.append(Step(kind, spot, entry, note, before, after))

    def end(self, verdict: str, reason: str, ns: Netns, spot: str, entry: Any = None, note: str = "") -> None:
        """The packet ended here. A copy of a flooded frame that nobody wanted never hides a better end."""
        trace = self.trace
        self.steps.append(Step("end", reason, entry, note))
        if trace.verdict and trace.reason not in SOFT_ENDS:
            return
        if trace.verdict and reason in SOFT_ENDS:
            return
        trace.verdict = verdict
        trace.reason = reason
        trace.place = Place(ns.name, spot)
        trace.decided_by = entry if entry is not None else note

    def delivered(self, skb: Skb, reason: str, entry: Any, spot: str) -> None:
        """A receiver took the packet."""
        trace = self.trace
        self.steps.append(Step("deliver", spot, entry, reason))
        if trace.verdict and trace.reason not in SOFT_ENDS:
            return
        trace.verdict = DELIVERED
        trace.reason = reason
        trace.place = Place(skb.ns.name, spot)
        trace.decided_by = entry
        trace.delivered_as = skb.pkt

    def reply(self, ns: Netns, packet: Packet, role: str, **asked: Any) -> None:
        """Queue a packet this one gives rise to."""
        self._pending.append(Pending(ns, packet, role, self.trace, **asked))

    def ident(self) -> int:
        """Return the next IP identification number."""
        self._ident = (self._ident + 1) & 0xFFFF
        return self._ident


_NOWHERE = Trace(Packet("0.0.0.0", "0.0.0.0", 0), "none", [])
_NOHOP = Hop("", "", "", _NOWHERE.packet, [])
