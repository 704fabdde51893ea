"""A flow to try in model and kernel, how it ended in each, and the two side by side."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.packet.packet import PROTO_NAMES, TCP, endpoint

ENDS = (
    "connected", "answered", "refused", "unreachable", "message too long", "ttl exceeded", "not permitted",
    "timed out", "not modelled",
)  # fmt: skip
"""How a caller sees a flow end; the words of `kubenet_lab.walk.exchange`."""


class Flow(Struct, frozen=True, kw_only=True):
    """One thing a program in a namespace may try.

    Attributes:
        ns: Source namespace ("default/frontend", "node-1").
        dst, port: Destination as the program writes it. For ICMP the port is 0.
        proto: 6 TCP connect, 17 UDP datagram, 1 or 58 ICMP echo.
        size: Bytes of UDP or ICMP payload.
        df: True sets don't-fragment and refuses what is too big (`ping -M do`).
        ttl: 0 leaves the default.
        count: How often to try; more than one samples which backends are chosen.
        payload: First bytes to send, for a server that wants a certain message (a DNS query: its ID is
        changed).
        name: For people.
    """

    ns: str
    dst: str
    port: int = 0
    proto: int = TCP
    size: int = 0
    df: bool = False
    ttl: int = 0
    mark: int = 0
    src: str = ""
    count: int = 1
    payload: bytes = b""
    name: str = ""

    def __str__(self) -> str:
        target = endpoint(self.dst, self.port) if self.port else self.dst
        extra = f" {self.size} bytes" if self.size else ""
        extra += " DF" if self.df else ""
        extra += f" TTL {self.ttl}" if self.ttl else ""
        label = f"{self.name}: " if self.name else ""
        return f"{label}{self.ns} -> {target} {PROTO_NAMES.get(self.proto, self.proto)}{extra}"


class Tracked(Struct, frozen=True, order=True):
    """A conntrack entry with what differs from run to run taken out: ephemeral ports are "*"."""

    ns: str
    orig: str
    reply: str
    replied: bool

    def __str__(self) -> str:
        return f"{self.ns}: {self.orig}{'' if self.replied else ' [UNREPLIED]'} {self.reply}"


class IcmpError(Struct, frozen=True, order=True):
    """An ICMP error as the caller got it."""

    type: int
    code: int
    sender: str
    mtu: int = 0

    def __str__(self) -> str:
        return f"type {self.type} code {self.code} from {self.sender}" + (
            f" mtu {self.mtu}" if self.mtu else ""
        )


class Outcome(Struct, frozen=True):
    """How one attempt ended. Two outcomes are equal when no observer can tell them apart."""

    end: str
    server: str = ""
    """Namespace whose server took it."""
    source_seen: str = ""
    """Source address that server saw."""
    icmp: IcmpError | None = None
    conntrack: tuple[Tracked, ...] = ()
    errno: str = ""
    """What the system call returned, by name ("ECONNREFUSED"), "" for success."""

    @property
    def key(self) -> tuple[object, ...]:
        """What is compared."""
        return (self.end, self.server, self.source_seen, self.icmp, self.conntrack, self.errno)


class Comparison(Struct, frozen=True):
    """A flow in model and kernel. `equal` when everything the kernel did is something the model allows."""

    flow: Flow
    model: tuple[Outcome, ...]
    """Every outcome the model allows (one a branch of its random rules)."""
    kernel: tuple[Outcome, ...]
    """What each attempt met."""
    trace: str = ""
    """The model's trace, as text, to read when the two differ."""

    @property
    def equal(self) -> bool:
        """True when every attempt ended as the model says one may, and at least one was made."""
        allowed = {outcome.key for outcome in self.model}
        return bool(self.kernel) and all(outcome.key in allowed for outcome in self.kernel)

    def text(self) -> str:
        """Return both sides, one aspect a line; lines that differ start with "!"."""
        out = [f"{'equal  ' if self.equal else 'DIFFERS'} {self.flow}"]
        rows = [
            (
                "end",
                *(
                    _values(side, lambda o: o.end + (f" ({o.errno})" if o.errno else ""))
                    for side in (self.model, self.kernel)
                ),
            ),
            ("server", *(_values(side, lambda o: o.server or "-") for side in (self.model, self.kernel))),
            (
                "source seen",
                *(_values(side, lambda o: o.source_seen or "-") for side in (self.model, self.kernel)),
            ),
            (
                "ICMP error",
                *(_values(side, lambda o: str(o.icmp or "-")) for side in (self.model, self.kernel)),
            ),
        ]
        for name, model, kernel in rows:
            out.append(f"    {name:12} model {model:50} kernel {kernel}")
        for title, side in (("model", self.model), ("kernel", self.kernel)):
            for line in sorted({str(entry) for outcome in side for entry in outcome.conntrack}):
                out.append(f"    conntrack    {title:6} {line}")
        if not self.equal and self.trace:
            out.append(self.trace)
        return "\n".join(out)

    def __str__(self) -> str:
        return self.text()


def _values(side: tuple[Outcome, ...], read: object) -> str:
    assert callable(read)
    return " | ".join(dict.fromkeys(str(read(outcome)) for outcome in side)) or "-"
