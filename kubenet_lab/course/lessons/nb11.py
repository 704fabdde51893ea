"""What the cells of 11_cluster_ip call."""

from __future__ import annotations

from collections import Counter
from html import escape

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.exercises.nb11 import ADDRESS, knock
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import ip_addr, ip_route
from kubenet_lab.kernel.dump import dump
from kubenet_lab.scenarios import shop
from kubenet_lab.trip import Trip
from kubenet_lab.views.state_diff import state_changes
from kubenet_lab.views.words import short

__all__ = ["cells", "knock", "owners", "shares", "shop", "step", "with_service", "world_of"]

NODES = ("node-1", "node-2", "node-3")
MODES = ("iptables", "nftables", "ipvs", "ebpf")
TITLES = {"iptables": "iptables", "nftables": "nftables", "ipvs": "IPVS", "ebpf": "eBPF (Cilium)"}
KNOCKS = {"ping": "ping", "80": "port 80", "81": "port 81"}


def world_of(mode: str) -> Cluster:
    """Return the shop with one data plane."""
    return shop(proxy=mode)


def owners(mode: str = "iptables") -> Texts:
    """Return what node-1 itself says about the Service's address."""
    node = world_of(mode).network.ns("node-1")
    way = node.lookup(ADDRESS)
    lines = [line.strip() for line in ip_addr.show(node).splitlines() if ADDRESS in line]
    found = "\n".join(lines) or "(nothing)"
    return Texts(
        {
            f"node-1 ({TITLES[mode]}): ip addr | grep {ADDRESS}": found,
            f"node-1 ({TITLES[mode]}): ip route get {ADDRESS}": ip_route.show_lookup(node, way, ADDRESS)
            if way is not None
            else "(no way)",
        }
    )


class Cells(Struct, frozen=True):
    """What a caller sees: (mode, knock) -> the trip."""

    trips: dict[tuple[str, str], Trip]

    def rows(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return (mode's title, [(verdict, why) for each knock])."""
        return [
            (
                TITLES[mode],
                [(self.trips[mode, what].verdict, _why(self.trips[mode, what])) for what in KNOCKS],
            )
            for mode in dict.fromkeys(mode for mode, _what in self.trips)
        ]

    def __repr__(self) -> str:
        lines = [f"frontend knocks at {ADDRESS}"]
        for title, cells in self.rows():
            for word, (verdict, why) in zip(KNOCKS.values(), cells, strict=True):
                lines.append(f"  {title:14} {word:8} {verdict} ({why})")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;vertical-align:top;padding:6px 12px"'
        head = "".join(f"<th {cell}>{escape(word)}</th>" for word in ("", *KNOCKS.values()))
        body = ""
        for title, cells in self.rows():
            body += f"<tr><th {cell}>{escape(title)}</th>"
            for verdict, why in cells:
                mark = "✓" if verdict in ("connected", "answered") else "✗"
                body += f"<td {cell}><b>{mark} {escape(verdict)}</b><br><small>{escape(why)}</small></td>"
            body += "</tr>"
        return (
            f"<p><b>frontend knocks at {ADDRESS}</b></p>"
            f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'
        )


def _why(trip: Trip) -> str:
    return (
        f"{short('pod ' + str(trip.server))} answered"
        if trip.delivered
        else f"{trip.why}, at {trip.place.netns}"
    )


def cells(*modes: str) -> Cells:
    """Knock three times in each mode; without arguments in all four."""
    trips: dict[tuple[str, str], Trip] = {}
    for mode in modes or MODES:
        world = world_of(mode)
        trips |= {(mode, what): knock(world, what) for what in KNOCKS}
    return Cells(trips)


def shares(*calls: int) -> Table:
    """Make so many calls from frontend and count the pods that answered, for several numbers of calls."""
    world = shop()
    found = {
        number: Counter(str(knock(world, "80").server).removeprefix("default/") for _ in range(number))
        for number in calls
    }
    pods = sorted(set().union(*found.values()))
    rows = []
    for number, met in found.items():
        told = [f"{met[pod]} ({met[pod] / number:.1%})" for pod in pods]
        spread = max(met[pod] for pod in pods) - min(met[pod] for pod in pods)
        rows.append((str(number), *told, f"{spread / number:.1%} of all"))
    return Table(("calls", *pods, "least to most"), tuple(rows), numbers=True)


MORE = """
apiVersion: v1
kind: Service
metadata: {name: accounts}
spec:
  clusterIP: 10.96.0.150
  selector: {app: backend}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""


def with_service() -> Texts:
    """Return what one new Service changed in the kernels of all machines: node-1's lines, the others in numbers."""
    world = shop()
    for node in NODES:
        _ = world.network.ns(node).iptables
    before = dump(world.network)
    world.apply(MORE)
    found = state_changes(before, dump(world.network))
    first = [change.what for change in found if change.where == NODES[0] and change.kind == "iptables rule"]
    parts = {f"{NODES[0]}, new rules": "\n".join(first)}
    kinds = Counter((change.where, change.kind) for change in found)
    for node in NODES:
        told = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for (where, kind), n in kinds.items() if where == node)
        parts[f"{node}, all that changed"] = told or "nothing"
    rest = sorted({change.where for change in found} - set(NODES))
    parts["every pod, the router, every interface and route"] = ", ".join(rest) or "nothing"
    return Texts(parts)
