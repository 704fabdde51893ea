"""What the cells of 17_names call."""

from __future__ import annotations

from functools import partial
from html import escape

from msgspec import Struct

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.lesson import Texts
from kubenet_lab.dns.records import Query
from kubenet_lab.scenarios.names import grid, names, resolv_conf, steps
from kubenet_lab.views.dns_steps import TITLES, DnsSteps
from kubenet_lab.widgets.dns_stepper import DnsStepper

__all__ = ["costs", "file", "grid", "look_up", "names", "records", "resolvers", "stepper"]

DOMAIN = "production.svc.cluster.local."


def stepper(world: Cluster, name: str = "backend") -> DnsStepper:
    """Return the lookup under one's hands."""
    return DnsStepper(partial(steps, world), name)


def look_up(world: Cluster, name: str, namespace: str = "default", libc: str = "glibc") -> DnsSteps:
    """Return one lookup's queries."""
    return steps(world, name, namespace=namespace, libc=libc)


def file(world: Cluster) -> Texts:
    """Return the file that rules a pod's lookups, and the node's own beside it."""
    return Texts(
        {
            "pod in default: cat /etc/resolv.conf": resolv_conf(world, "default"),
            "pod in production: cat /etc/resolv.conf": resolv_conf(world, "production"),
            "node-1: cat /etc/resolv.conf": world.network.ns("node-1").files.get("/etc/resolv.conf", ""),
        }
    )


class Costs(Struct, frozen=True):
    """Queries by name: (name, dots, queries, what came out)."""

    rows: tuple[tuple[str, int, int, str], ...]

    def __repr__(self) -> str:
        return "\n".join(
            f"{name:38} {dots} dots: {count} queries, {got}" for name, dots, count, got in self.rows
        )

    def _repr_html_(self) -> str:
        cell = 'style="text-align:left;padding:4px 12px"'
        head = "".join(f"<th {cell}>{word}</th>" for word in ("name", "dots", "queries", "the program gets"))
        body = "".join(
            f"<tr><td {cell}><code>{escape(name)}</code></td><td {cell}>{dots}</td><td {cell}><b>{count}</b> "
            f"{'▪' * count}</td><td {cell}>{escape(got)}</td></tr>"
            for name, dots, count, got in self.rows
        )
        return f'<table style="border-collapse:collapse"><tr>{head}</tr>{body}</table>'


def costs(world: Cluster, *asked: str) -> Costs:
    """Look each name up once from namespace default and count."""
    found = [steps(world, name) for name in asked]
    return Costs(tuple((one.name, one.name.count("."), len(one.queries), one.result) for one in found))


RECORDS = (
    ("a Service", f"database.{DOMAIN}", "A"),
    ("a headless Service", f"db.{DOMAIN}", "A"),
    ("a pod of a StatefulSet", f"db-0.db.{DOMAIN}", "A"),
    ("a named port", f"_sql._tcp.database.{DOMAIN}", "SRV"),
    ("an alias (ExternalName)", f"partner.{DOMAIN}", "A"),
    ("an address backwards", "201.0.96.10.in-addr.arpa.", "PTR"),
    ("a pod by its address", "10-244-0-2.default.pod.cluster.local.", "A"),
    ("the rules' version", "dns-version.cluster.local.", "TXT"),
    ("an IPv6 address nobody has", f"database.{DOMAIN}", "AAAA"),
    ("a name that is not there", f"nosuch.{DOMAIN}", "A"),
)


def records(world: Cluster) -> Texts:
    """Return what CoreDNS says to each kind of name it knows, as `dig +noall +answer` prints it."""
    server = world.dns[min(world.dns)]
    parts = {}
    for what, name, kind in RECORDS:
        answer = server.answer(Query(name, kind), "10.244.0.2", world.now)
        assert answer is not None
        lines = sorted(str(record) for record in answer.answer)
        told = "\n".join(lines) or (
            answer.rcode if answer.rcode != "NOERROR" else "NOERROR, and no record: NODATA"
        )
        parts[f"{what}: dig {name} {kind}"] = told
    return Texts(parts)


def resolvers(world: Cluster, name: str, ndots: int) -> Texts:
    """Return what three resolvers ask for the same name, and what their programs get."""
    parts = {}
    for libc, title in TITLES.items():
        found = steps(world, name, libc=libc, ndots=ndots)
        tried = "\n".join(found.candidates)
        parts[f"{title}, ndots {ndots}: {len(found.queries)} queries"] = f"{tried}\n= {found.result}"
    return Texts(parts)
