"""A trip: one call as its caller lives it - name lookup, request, reply - with every packet it took.

`Trip` is a value. Its pictures, tables and files are made by `views` and `packet.wire` when somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.trace import REASONS, Capture, Hop, Place, Query, RuleRef, Step, Trace, captures
from kubenet_lab.walk.exchange import Exchange

if TYPE_CHECKING:
    from kubenet_lab.cost import Budget

REASONS_OF_NAMES = {
    "no-such-name": "the name does not exist",
    "no-address": "the name exists but has no address",
    "dns-timeout": "no name server answered in time",
    "dns-unreachable": "no name server could be reached: the network or the server's host said no",
    "dns-failure": "the name server answered with an error",
}
"""Why a trip ended before its first packet to the server."""


class Trip(Struct):
    """One call. `source` and `target` are what the caller typed, made whole ("default/frontend")."""

    source: str
    source_ns: str
    target: str
    host: str
    port: int
    protocol: str
    """"tcp", "udp" or "icmp"."""
    address: str
    """The address dialled, "" when the name did not resolve."""
    queries: list[Query]
    exchange: Exchange | None
    failure: str = ""
    """Key of REASONS_OF_NAMES when the name lookup failed."""
    names: Mapping[str, str] = {}
    """Address -> "pod default/backend-1", "Service default/backend", "node node-1"..."""
    server: str | None = None
    """`namespace/pod` that answered, or a node's name; None when nobody took the request."""

    @property
    def delivered(self) -> bool:
        """True when the caller got an answer from a server."""
        return self.exchange is not None and self.exchange.ok

    @property
    def verdict(self) -> str:
        """What the caller sees: connected, answered, refused, timed out, unreachable, could not resolve, ..."""
        return self.exchange.verdict if self.exchange is not None else "could not resolve"

    @property
    def reason(self) -> str:
        """Why, as a key of `trace.REASONS` or REASONS_OF_NAMES."""
        return self.exchange.reason if self.exchange is not None else self.failure

    @property
    def why(self) -> str:
        """Why, in a sentence."""
        return REASONS.get(self.reason) or REASONS_OF_NAMES.get(self.reason, self.reason)

    @property
    def decided_by(self) -> Any:
        """The rule, route or entry that decided."""
        if self.exchange is not None:
            return self.exchange.decided_by
        decisive = self.queries[-1].traces if self.queries else []
        failed = [trace for trace in decisive if not trace.delivered]
        return failed[0].decided_by if failed else (str(self.queries[-1]) if self.queries else "")

    @property
    def place(self) -> Place:
        """Where it was decided."""
        if self.exchange is not None:
            return self.exchange.place
        failed = [t for t in (self.queries[-1].traces if self.queries else []) if not t.delivered]
        return failed[0].place if failed else Place(self.source_ns, "resolver")

    @property
    def source_seen(self) -> str:
        """The source address the server saw, "" when nobody took the request."""
        return self.exchange.source_seen if self.exchange is not None else ""

    @property
    def seconds(self) -> float:
        """Simulated seconds the caller waited for time-outs; 0 when nothing timed out."""
        waited = sum(query.seconds for query in self.queries)
        return waited + (self.exchange.seconds if self.exchange is not None else 0.0)

    @property
    def traces(self) -> list[Trace]:
        """Every packet in the order it was sent, the name lookup's first."""
        out = [trace for query in self.queries for trace in query.traces]
        return out + (self.exchange.traces if self.exchange is not None else [])

    @property
    def hops(self) -> list[tuple[Trace, Hop]]:
        """Every hop of every packet, in order."""
        return [(trace, hop) for trace in self.traces for hop in trace.hops]

    def steps(self) -> list[tuple[Trace, Hop, Step]]:
        """Every step of every hop, in order."""
        return [(trace, hop, step) for trace, hop in self.hops for step in hop.steps]

    def captures(self) -> list[Capture]:
        """Return every frame on every link it crossed, as captures all over the cluster would have seen them."""
        return captures(self.traces)

    def __str__(self) -> str:
        server = f", answered by {self.server}" if self.server else ""
        return f"{self.source} -> {self.target}: {self.verdict} ({self.why}){server}"

    __repr__ = __str__

    def text(self) -> str:
        """Return the whole trip as text: queries, every packet, every hop and step."""
        lines = [str(self)]
        for query in self.queries:
            lines.append(f"\nlookup: {query}")
            lines += ["  " + line for trace in query.traces for line in trace.text().splitlines()]
        if self.exchange is not None:
            lines.append(f"\ncall to {self.address}:{self.port}/{self.protocol}")
            lines += ["  " + line for trace in self.exchange.traces for line in trace.text().splitlines()]
        return "\n".join(lines)

    def table(self) -> Any:
        """Return a pandas DataFrame, one row a step."""
        from kubenet_lab.views.tables import steps_frame

        return steps_frame(self)

    def cost(self) -> Budget:
        """Return where this call's time goes in the kernels, at best: `kubenet_lab.cost.of_trip`."""
        from kubenet_lab.cost import of_trip

        return of_trip(self)

    def to_pcap(self, path: str | Path) -> Path:
        """Write every frame to a pcap file (opens in Wireshark and `tcpdump -r`); encapsulated frames whole."""
        from kubenet_lab.packet.wire import write_pcap

        target = Path(path)
        write_pcap(target, self.captures())
        return target

    def _repr_html_(self) -> str:
        from kubenet_lab.views import trip_html

        return trip_html(self, self.names)

    def to_json(self) -> dict[str, Any]:
        """Return the trip as one JSON-ready document; its members are stable (`kubenet-lab trace -o json`)."""
        return {
            "source": self.source,
            "target": self.target,
            "address": self.address,
            "port": self.port,
            "protocol": self.protocol,
            "delivered": self.delivered,
            "verdict": self.verdict,
            "reason": self.reason,
            "why": self.why,
            "decided_by": decided_json(self.decided_by, self.place),
            "server": self.server,
            "source_seen": self.source_seen,
            "seconds": self.seconds,
            "queries": [
                {
                    "name": q.name,
                    "type": q.type,
                    "server": q.server,
                    "rcode": q.rcode,
                    "answers": q.answers,
                    "seconds": q.seconds,
                }
                for q in self.queries
            ],
            "hops": [
                {
                    "packet": str(trace.packet),
                    "role": trace.role,
                    "netns": hop.netns,
                    "host": hop.host,
                    "indev": hop.indev,
                    "outdev": hop.outdev,
                    "steps": [
                        {
                            "kind": step.kind,
                            "spot": step.spot,
                            "text": step.text,
                            "before": str(step.before) if step.before is not None else None,
                            "after": str(step.after) if step.after is not None else None,
                        }
                        for step in hop.steps
                    ],
                }
                for trace, hop in self.hops
            ],
        }


def decided_json(entry: Any, place: Place) -> dict[str, Any]:
    """Return what decided as a document: its kind, its text, and where it stands.

    `kind` is "rule", "route", "socket", ...; "" where nothing was there that could decide, and `text` says so.
    """
    named = entry is not None and not isinstance(entry, str)
    document: dict[str, Any] = {
        "kind": "rule" if isinstance(entry, RuleRef) else type(entry).__name__.lower() if named else "",
        "text": str(entry) if entry is not None else "",
        "netns": place.netns,
        "spot": place.spot,
    }
    if isinstance(entry, RuleRef):
        document |= {"table": entry.table, "chain": entry.chain, "number": entry.number}
    return document
