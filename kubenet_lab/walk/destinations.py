"""Where a new connection to an address would be sent, and with which chance: every branch of every random rule.

It asks the data plane itself, by walking a packet once for each outcome, so it is the same question for iptables,
nftables, IPVS and eBPF. The network is as before afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import waits
from kubenet_lab.packet.packet import SYN, TCP, Packet
from kubenet_lab.trace import Trace
from kubenet_lab.walk.engine import Walk

MOST = 4096
"""Outcomes after which no more are looked for."""
TURNS = 256
"""Connections after which destinations that do not repeat are taken as they came."""


def destinations(
    network: Network, ns: str, address: str, port: int, proto: int = TCP, *, now: float = 0.0
) -> Mapping[tuple[str, int], float]:
    """Return (address, port) -> chance of what a first packet from `ns` is translated to.

    Empty where nothing translates it: it is refused, dropped, or goes to the address itself. Chances add up to 1 where
    something always does. What a client's affinity says counts, as it does for the client.
    """
    host = network.netns.get(network.ns(ns).host)
    if host is not None:
        host.iptables  # noqa: B018 - built once, not once for each outcome
    packet = Packet("", address, proto, 0, port, flags=SYN if proto == TCP else 0)
    found: dict[tuple[str, int], float] = {}
    outcomes = list(_outcomes(network, ns, packet, now))
    if len(outcomes) == 1 and _translated(outcomes[0][0], address, port) is not None:
        outcomes = _in_turn(network, ns, packet, now)
    for trace, chance in outcomes:
        to = _translated(trace, address, port)
        if to is not None:
            found[to] = found.get(to, 0.0) + chance
    return dict(sorted(found.items()))


def _in_turn(network: Network, ns: str, packet: Packet, now: float) -> list[tuple[Trace, float]]:
    """Open connections one after another until their destinations repeat, as those of IPVS' round robin do."""
    before = _Before(network)
    try:
        walk = Walk(network, now=now)
        seen: list[tuple[str, int] | None] = []
        traces: list[Trace] = []
        while len(traces) < TURNS:
            traces.append(walk.send(ns, packet))
            seen.append(_translated(traces[-1], packet.dst, packet.dport))
            half, odd = divmod(len(seen), 2)
            if not odd and seen[:half] == seen[half:]:
                break
    finally:
        before.restore()
    return [(trace, 1 / len(traces)) for trace in traces]


def _outcomes(network: Network, ns: str, packet: Packet, now: float) -> Iterator[tuple[Trace, float]]:
    """Walk the packet once for each way that random rules can fall."""
    scripts: list[tuple[bool, ...]] = [()]
    for _ in range(MOST):
        if not scripts:
            return
        fate = _Fate(scripts.pop(), scripts)
        before = _Before(network)
        try:
            trace = Walk(network, now=now, choose=fate).send(ns, packet)
        finally:
            before.restore()
        for hop in trace.hops:
            network.netns[hop.netns].iptables  # noqa: B018
        yield trace, fate.chance


class _Before:
    """A network as it is now, to be set back to when a packet has passed."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._saved = network.snapshot()
        # What a walk makes of rules takes longer than the walk; it holds while rules are the same values.
        self._plans = {
            name: (ns.generation, dict(ns.plans))
            for name, ns in network.netns.items()
            if not waits(ns)
            and not (ns.rules_deferred or ns.has_nftables or ns.has_ipvs or ns.ipsets or ns.bpf is not None)
        }

    def restore(self) -> None:
        """Set everything back."""
        same = {
            name: plans
            for name, (generation, plans) in self._plans.items()
            if name in self._network.netns and self._network.netns[name].generation == generation
        }
        self._network.restore(self._saved)
        for name, plans in same.items():
            self._network.netns[name].plans.update(plans)


class _Fate:
    """A chooser that follows a script, then says yes, and leaves the other ways for later."""

    def __init__(self, script: tuple[bool, ...], later: list[tuple[bool, ...]]) -> None:
        self._script, self._later = script, later
        self._said: list[bool] = []
        self.chance = 1.0

    def __call__(self, _rule: Any, chance: float) -> bool:
        at = len(self._said)
        says = self._script[at] if at < len(self._script) else chance > 0.0
        if at >= len(self._script) and 0.0 < chance < 1.0:
            self._later.append((*self._said, False))
        self._said.append(says)
        self.chance *= chance if says else 1.0 - chance
        return says


def _translated(trace: Trace, address: str, port: int) -> tuple[str, int] | None:
    """The last step that gave the packet another destination than it was sent to."""
    to = (address, port)
    for hop in trace.hops:
        for step in hop.steps:
            before, after = step.before, step.after
            if before is None or after is None or before.proto != after.proto:
                continue
            if (before.dst, before.dport) == to and (after.dst, after.dport) != to:
                to = (after.dst, after.dport)
    return None if to == (address, port) else to
