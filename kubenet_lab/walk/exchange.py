"""A request and what came of it, judged as the caller sees it.

A caller sees no drops and no rules: it gets an answer, an error, or silence until its patience ends. The verdicts are
those, and each names the packet and the entry that caused it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.packet.packet import ICMP, ICMP6_TOO_BIG, ICMPV6, RST, SCTP, SCTP_ABORT, SYN, TCP, Packet
from kubenet_lab.trace import DELIVERED, NOT_MODELLED, Place, Trace
from kubenet_lab.walk.engine import Walk

CONNECTED, ANSWERED, REFUSED, UNREACHABLE = "connected", "answered", "refused", "unreachable"
RESET = "reset"
"""A proxy took the connection, could not reach a server and closed it (ECONNRESET)."""
TOO_LONG, TTL_EXCEEDED, TIMED_OUT, NOT_PERMITTED = (
    "message too long",
    "ttl exceeded",
    "timed out",
    "not permitted",
)

NEIGHBOUR_PATIENCE = 3.1
"""Seconds until three ARP requests have gone unanswered."""

LOCAL_ERRORS = {
    "no-route": (UNREACHABLE, "ENETUNREACH"),
    "bpf-no-backend": (UNREACHABLE, "EHOSTUNREACH"),
    "route-unreachable": (UNREACHABLE, "EHOSTUNREACH"),
    "route-prohibit": (UNREACHABLE, "EACCES"),
    "route-blackhole": (UNREACHABLE, "EINVAL"),
    "neighbour-failed": (UNREACHABLE, "EHOSTUNREACH"),
    "no-source": (UNREACHABLE, "EADDRNOTAVAIL"),
    "wireguard-no-peer": (UNREACHABLE, "ENOKEY"),
    "wireguard-no-endpoint": (UNREACHABLE, "EDESTADDRREQ"),
    "too-big": (TOO_LONG, "EMSGSIZE"),
}
"""What a local sender is told, by the reason its packet ended with in its own namespace."""


class Exchange(Struct):
    """One request, its answer if any, and the verdict of the caller."""

    request: Trace
    traces: list[Trace]
    """Every packet, in the order they were sent."""
    verdict: str
    reason: str
    """Why, as one of `trace.REASONS`; for success "socket" or "raw-socket"."""
    decided_by: Any
    place: Place
    errno: str = ""
    """What a local sender's system call returns, by name: ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT..."""
    server_ns: str = ""
    """The namespace that took the request, "" if none did."""
    source_seen: str = ""
    """The source address the receiver saw."""
    answer: Packet | None = None
    """The answer as the caller got it: data, SYN-ACK, RST or an ICMP error."""
    seconds: float = 0.0
    """Simulated seconds until the caller knew, where only time told it."""
    onward: Exchange | None = None
    """Where a proxy took the connection: the one it opened in turn. `server_ns` and `source_seen` are then those of
    the server behind it, and a server it cannot reach makes the verdict "reset"."""

    @property
    def ok(self) -> bool:
        """True when the caller got what it wanted."""
        return self.verdict in (CONNECTED, ANSWERED)


def exchange(walk: Walk, ns: str, packet: Packet, *, patience: float = 5.0, **asked: Any) -> Exchange:
    """Send a request from a socket in `ns` and say what the caller sees.

    Args:
        walk: The walk to send through.
        ns: The caller's namespace.
        packet: A TCP SYN, an SCTP INIT, a UDP datagram or an ICMP echo request.
        patience: Seconds after which the caller gives up.
        asked: Passed on to `Walk.send`.
    """
    return judge(walk.send(ns, packet, **asked), ns, patience)


def flatten(trace: Trace) -> list[Trace]:
    """Return a trace and all it caused, parents first."""
    out = [trace]
    for child in trace.caused:
        out += flatten(child)
    return out


def _answers(trace: Trace, request: Packet, ns: str) -> bool:
    """True when a packet reached the caller's own socket: another socket of its namespace may have got it."""
    if trace.verdict != DELIVERED or trace.place.netns != ns or trace.delivered_as is None:
        return False
    got = trace.delivered_as
    return got.quoted is not None or not request.sport or got.dport == request.sport


def judge(request: Trace, ns: str, patience: float = 5.0) -> Exchange:
    """Derive the caller's verdict from a walked request."""
    traces = flatten(request)
    verdict, errno, seconds = TIMED_OUT, "ETIMEDOUT", patience
    decider: Trace = request
    answer: Packet | None = None
    for trace in traces[1:]:
        if trace.role in ("reply", "error") and _answers(trace, request.packet, ns):
            answer = trace.delivered_as
            assert answer is not None
            verdict, errno = _meaning(request.packet, answer)
            if verdict:
                seconds = NEIGHBOUR_PATIENCE if request.reason == "neighbour-failed" else 0.0
                decider = (
                    request if request.verdict != DELIVERED or verdict in (CONNECTED, ANSWERED) else trace
                )
                if (
                    request.reason in ("rule-reject", "ipvs-no-server")
                    and request.packet.proto not in (TCP, SCTP)
                    and _unsent(request)
                ):
                    # The hook's own verdict comes back from sendto(2) first; the ICMP error waits in the queue.
                    verdict, errno = NOT_PERMITTED, "EPERM"
                if (
                    request.reason in ("wireguard-no-peer", "wireguard-no-endpoint")
                    and request.packet.proto not in (TCP, SCTP)
                    and len(request.hops) == 1
                ):
                    # So does what the device's own transmit function says.
                    verdict, errno = LOCAL_ERRORS[request.reason]
                break
            verdict, errno, answer = TIMED_OUT, "ETIMEDOUT", None
    else:
        missing = next((t for t in traces if t.verdict == NOT_MODELLED), None)
        if missing is not None:
            verdict, errno, decider, seconds = NOT_MODELLED, "", missing, 0.0
        elif request.verdict != DELIVERED:
            local = request.place.netns == ns and all(hop.netns == ns for hop in request.hops)
            if local and request.reason in LOCAL_ERRORS:
                verdict, errno = LOCAL_ERRORS[request.reason]
                seconds = NEIGHBOUR_PATIENCE if request.reason == "neighbour-failed" else 0.0
            elif (
                local
                and request.packet.proto not in (TCP, SCTP)
                and request.reason in ("rule-drop", "policy-drop", "rule-reject")
            ):
                verdict, errno, seconds = NOT_PERMITTED, "EPERM", 0.0
        else:
            failed = next(
                (t for t in traces[1:] if t.role in ("reply", "error") and t.verdict != DELIVERED), None
            )
            if failed is not None:
                decider = failed
    seen = request.delivered_as
    seen_first = Exchange(
        request,
        traces,
        verdict,
        decider.reason if verdict != TIMED_OUT or decider.verdict != DELIVERED else "no-answer",
        decider.decided_by,
        decider.place,
        errno,
        request.place.netns if request.verdict == DELIVERED else "",
        seen.src if seen is not None else "",
        answer,
        seconds,
    )
    second = next((t for t in request.caused if t.role == "onward"), None)
    return seen_first if second is None else _behind(seen_first, second, patience)


def _behind(first: Exchange, second: Trace, patience: float) -> Exchange:
    """What the caller of a proxy sees in the end: its own connection, and the one behind it."""
    onward = judge(second, first.server_ns, patience)
    if not first.ok:
        return first
    done = replace(first, onward=onward, server_ns=onward.server_ns, source_seen=onward.source_seen)
    if onward.ok:
        return done
    return replace(
        done,
        verdict=onward.verdict if onward.verdict == NOT_MODELLED else RESET,
        errno="ECONNRESET",
        reason=onward.reason,
        decided_by=onward.decided_by,
        place=onward.place,
        seconds=first.seconds + onward.seconds,
    )


def _unsent(request: Trace) -> bool:
    """True for a packet that ended on its way out of the namespace that sent it, before any device had it."""
    return len(request.hops) == 1 and not any(step.kind == "transmit" for step in request.hops[0].steps)


def _meaning(request: Packet, answer: Packet) -> tuple[str, str]:
    """Return (verdict, errno) of an answer as the socket that sent `request` reads it (man 7 tcp, udp, icmp)."""
    if answer.quoted is None:
        if answer.proto == TCP:
            if answer.flags & RST:
                return REFUSED, "ECONNREFUSED"
            return (CONNECTED, "") if answer.flags & SYN else (ANSWERED, "")
        if answer.proto == SCTP:
            return (REFUSED, "ECONNREFUSED") if answer.payload[:1] == bytes([SCTP_ABORT]) else (CONNECTED, "")
        return ANSWERED, ""
    kind, code = answer.icmp_type, answer.icmp_code
    if answer.proto == ICMP:
        if kind == 11:
            return TTL_EXCEEDED, "EHOSTUNREACH"
        if kind == 3 and code == 4:
            return TOO_LONG, "EMSGSIZE"
        if kind == 3:
            errno = _UNREACHABLE4.get(code, "EHOSTUNREACH")
            return (REFUSED if errno == "ECONNREFUSED" else UNREACHABLE), errno
    elif answer.proto == ICMPV6:
        if kind == ICMP6_TOO_BIG:
            return TOO_LONG, "EMSGSIZE"
        if kind == 3:
            return TTL_EXCEEDED, "EHOSTUNREACH"
        if kind == 1:
            errno = _UNREACHABLE6.get(code, "EHOSTUNREACH")
            return (REFUSED if errno == "ECONNREFUSED" else UNREACHABLE), errno
    return "", ""


# icmp_err_convert[] of net/ipv4/icmp.c and tab_unreach[] of net/ipv6/icmp.c.
_UNREACHABLE4 = {
    0: "ENETUNREACH",
    1: "EHOSTUNREACH",
    2: "ENOPROTOOPT",
    3: "ECONNREFUSED",
    5: "EOPNOTSUPP",
    6: "ENETUNREACH",
    7: "EHOSTDOWN",
    8: "ENONET",
    9: "ENETUNREACH",
    10: "EHOSTUNREACH",
    11: "ENETUNREACH",
    12: "EHOSTUNREACH",
    13: "EHOSTUNREACH",
    14: "EHOSTUNREACH",
    15: "EHOSTUNREACH",
}
_UNREACHABLE6 = {
    0: "ENETUNREACH",
    1: "EACCES",
    2: "EHOSTUNREACH",
    3: "EHOSTUNREACH",
    4: "ECONNREFUSED",
    5: "EACCES",
    6: "EACCES",
}
