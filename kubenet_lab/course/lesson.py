"""What the notebooks' cells call: one call, then its picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb00 import across, backend_on
from kubenet_lab.course.exercises.nb05 import no_ways
from kubenet_lab.course.exercises.nb10 import (
    HOOK,
    PROBE,
    addresses,
    busy_shop,
    crashed,
    deleted,
    grown,
    left_behind,
    relabelled,
    rolled,
    shared,
    silent,
)
from kubenet_lab.course.exercises.nb12 import (
    address_of,
    count,
    literal,
    rules_of,
    scaled,
    to_itself,
    without_hairpin_mark,
)
from kubenet_lab.course.steer import toward
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dump import dump
from kubenet_lab.proxy.names import iptables_chain
from kubenet_lab.scenarios import shop
from kubenet_lab.trace import RuleRef
from kubenet_lab.trip import Trip
from kubenet_lab.views.timeline import TimeLine
from kubenet_lab.views.words import chain_meaning, short

__all__ = [
    "HOOK",
    "PROBE",
    "Texts",
    "across",
    "address_of",
    "addresses",
    "backend_on",
    "break_it",
    "busy_shop",
    "calls_to_itself",
    "chain_name",
    "clock",
    "count",
    "crashed",
    "deleted",
    "diff",
    "fate",
    "grown",
    "hooks",
    "left_behind",
    "literal",
    "no_ways",
    "relabelled",
    "rolled",
    "rules_of",
    "scaled",
    "shared",
    "shop",
    "silent",
    "slider",
    "step",
    "to_itself",
    "toward",
    "without_cni",
    "without_hairpin_mark",
]


def step(trip: Trip, cluster: Cluster, at: str = "") -> Any:
    """Return a trip to step through; `at` is the kind of step to begin with ("encapsulate")."""
    from kubenet_lab.widgets import TripStepper

    made = TripStepper(trip, cluster)
    if at:
        kinds = [found.kind for _trace, _hop, found in trip.steps()]
        made.step = kinds.index(at) if at in kinds else made.step
    return made


def clock(line: TimeLine, second: int | None = None) -> Any:
    """Return a Service's seconds with a clock to move; `second` is the one to begin with."""
    from kubenet_lab.widgets.timeline import TimelineClock

    return TimelineClock(line, second)


def break_it(cluster: Cluster) -> Any:
    """Return a panel that breaks the shop in three ways, one click each, and makes the same call again."""
    from kubenet_lab.widgets.fault_panel import FaultPanel

    target = backend_on(cluster, "node-2").name
    faults: dict[str, tuple[str, Mapping[str, Any]]] = {
        "a forwarding entry is missing": ("fdb-entry-missing", {"node": "node-1", "peer": "node-2"}),
        "the backend does not listen": ("pod-not-listening", {"pod": target}),
        "the DNS rules are missing": ("kube-dns-rules-missing", {"node": "node-1"}),
    }
    return FaultPanel(cluster, lambda: across(cluster), faults)


def slider(cluster: Cluster) -> Any:
    """Return the Service's rules with a slider for the number of pods behind it."""
    from kubenet_lab.widgets.service_rules import RulesExplorer

    return RulesExplorer(cluster)


def diff(before: Cluster, after: Cluster, labels: tuple[str, str] = ("before", "after")) -> Any:
    """Return what differs between two worlds' kernels, as commands and tables."""
    from kubenet_lab.widgets import StateDiff

    return StateDiff([(labels[0], dump(before.network)), (labels[1], dump(after.network))])


_WRAPPED = "margin:4px 0 0;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere"
"""A long line breaks between words; only one that is too long by itself breaks inside."""


class Texts(Struct, frozen=True):
    """Several tools' outputs side by side: title -> text."""

    parts: dict[str, str]

    def __repr__(self) -> str:
        return "\n".join(f"{title}\n{text.rstrip()}\n" for title, text in self.parts.items()).rstrip()

    def _repr_html_(self) -> str:
        boxes = "".join(
            f'<div style="border:1px solid #8a94a0;border-radius:6px;padding:6px 10px;margin:4px 0">'
            f"<b>{escape(title)}</b>"
            f'<pre style="{_WRAPPED}">{escape(text.rstrip())}</pre></div>'
            for title, text in self.parts.items()
        )
        return f'<div style="max-width:980px">{boxes}</div>'


_MEANING = {
    "PREROUTING": "every packet that comes in",
    "INPUT": "packets for this node itself",
    "FORWARD": "packets that pass through",
    "OUTPUT": "packets made on this node",
    "POSTROUTING": "every packet about to leave",
}
"""What a built-in chain is asked about; the others are explained by the views."""


def hooks(trip: Trip) -> Table:
    """Return every rule the call's first packet met, in order."""
    assert trip.exchange is not None
    rows = []
    for hop in trip.exchange.request.hops:
        for found in hop.steps:
            if found.kind == "rule" and isinstance(found.entry, RuleRef):
                ref = found.entry
                meaning = chain_meaning(ref.chain) or _MEANING.get(ref.chain, "")
                rows.append((hop.netns, ref.table, ref.chain, meaning, found.note))
    heads = ("where", "table", "chain", "what the chain is for", "what came of it")
    return Table(heads, tuple(rows), f"The rules that the first packet met, {trip.source} to {trip.address}")


def chain_name(service_port: str, protocol: str = "tcp") -> str:
    """Return kube-proxy's chain for a Service port: "default/backend:http" -> "KUBE-SVC-..."."""
    return iptables_chain("cluster", service_port, protocol)


class Calls(Struct, frozen=True):
    """Many calls counted by what the caller saw."""

    counts: dict[str, int]
    sources: tuple[str, ...]

    def __repr__(self) -> str:
        total = sum(self.counts.values())
        seen = ", ".join(f"{n} {verdict}" for verdict, n in sorted(self.counts.items()))
        return f"{total} calls: {seen}\nas whom the pods saw the caller: {', '.join(self.sources)}"


def calls_to_itself(cluster: Cluster, calls: int = 60) -> Calls:
    """Let the backend on node-1 call its own Service so many times; chance picks among all backends."""
    pod = backend_on(cluster, "node-1")
    trips = [cluster.connect(pod.name, f"http://{address_of(cluster)}") for _ in range(calls)]
    names = cluster.names()
    seen = {t.source_seen: short(names.get(t.source_seen, "")) for t in trips if t.source_seen}
    return Calls(
        dict(Counter(t.verdict for t in trips)), tuple(f"{a} ({n})" for a, n in sorted(seen.items()))
    )


def fate(cluster: Cluster, pod: str) -> str:
    """Return how a pod is, and the last thing its kubelet said: "Pending: ... cni plugin not initialized"."""
    found = cluster.pod(pod)
    said = [event.message for name, event in cluster.events if name == f"{found.namespace}/{found.name}"]
    return f"{found.status.phase}: {said[-1].rpartition(': ')[2]}" if said else str(found.status.phase)


def without_cni(cluster: Cluster) -> Cluster:
    """Remove the CNI configuration from every node of a cluster, as an uninstall would; what runs stays as it is."""
    for node in cluster.store.list("Node"):
        files = cluster.network.ns(node.name).files
        for path in [path for path in files if path.startswith("/etc/cni/net.d/")]:
            del files[path]
    return cluster
