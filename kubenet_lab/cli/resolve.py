"""`kubenet-lab resolve`: every query a pod's lookup of a name sends, and what it comes to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.errors import Fault, InputError, NotFound, NotRunning

if TYPE_CHECKING:
    from kubenet_lab.dns.client import Lookup


class Form(StrEnum):
    """Lines to read, or one JSON document."""

    text = "text"
    json = "json"


class Libc(StrEnum):
    """Whose resolver the program has: Debian, Ubuntu and others (glibc), Alpine (musl), or Go's own (go)."""

    glibc = "glibc"
    musl = "musl"
    go = "go"


def resolve(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What a program looks up.")],
    source: Annotated[
        str,
        typer.Option("--from", metavar="POD", help="namespace/pod, pod, or node/NAME.", show_default=False),
    ],
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="PATH...", help="Manifests: files, folders, - for standard input."
        ),
    ] = None,
    libc: Annotated[Libc, typer.Option("--libc")] = Libc.glibc,
    form: Annotated[Form, typer.Option("-o")] = Form.text,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=6000, help=world.NODES_HELP)] = 3,
    cni: world.Cni = "flannel",
    proxy: world.Proxy = "iptables",
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """Look a name up as a program in POD does; print every query in order, who answered what, and the end.

    kubenet-lab resolve backend --from frontend -f shop.yaml

    Exit status 0 whether the name was found or not, 2 on bad input.
    """
    from kubenet_lab.dns.client import lookup

    faults: list[Fault] = []
    world.collect(faults, lambda: world.need_files(file or []))
    inputs = world.Inputs(file or [], lenient=lenient)
    cluster = (
        world.collect(faults, lambda: inputs.cluster(nodes, seed, cni=cni, proxy=proxy)) if file else None
    )
    ns = ""
    if cluster is not None:
        try:
            ns = world.collect(faults, lambda: cluster.namespace_of(source)) or ""
        except (NotFound, NotRunning) as error:
            help = (
                "write namespace/pod, pod (in default), or node/NAME" if isinstance(error, NotFound) else ""
            )
            faults.append(Fault(str(error), "--from", help=help))
    if faults or cluster is None:
        raise InputError(faults)
    found = lookup(cluster.walk(), cluster.network.ns(ns), name, libc=libc.value)
    if form is Form.json:
        out.write(out.json_text(_document(name, source, libc, found)), output)
    else:
        out.write(_text(name, source, libc, found), output)


def _document(name: str, source: str, libc: Libc, found: Lookup) -> dict[str, Any]:
    done = found.resolution
    sent = done.queries if done is not None else ()
    return {
        "name": name,
        "from": source,
        "libc": libc.value,
        "queries": [
            {
                "name": each.name,
                "type": each.type,
                "server": each.server,
                "protocol": each.protocol,
                "at": round(each.at, 6),
                "seconds": None if each.seconds is None else round(each.seconds, 6),
                "rcode": each.rcode,
                "addresses": list(each.addresses),
            }
            for each in sent
        ],
        "addresses": list(found.addresses),
        "source": "literal" if done is None else done.source,
        "error": "" if done is None else done.error,
        "message": "" if done is None else done.message,
        "seconds": 0.0 if done is None else round(done.seconds, 6),
    }


def _text(name: str, source: str, libc: Libc, found: Lookup) -> str:
    done = found.resolution
    sent = done.queries if done is not None else ()
    rows = [("at", "type", "name", "server", "answer", "took")]
    for each in sent:
        took = "" if each.seconds is None else f"{each.seconds:.4f} s"
        server = each.server + (" tcp" if each.protocol == "tcp" else "")
        rows.append((f"{each.at:.4f} s", each.type, each.name, server, each.outcome, took))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"{source} looks up {name} ({libc.value})"]
    if sent:
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    if done is None:
        lines.append(f"{name} is an address: nothing is asked")
    elif found.addresses:
        lines.append(
            f"{name} is {', '.join(found.addresses)} ({done.source}, {_queries(sent)}, {done.seconds:.4f} s)"
        )
    else:
        lines.append(f"{name}: {done.message} ({done.error}, {_queries(sent)}, {done.seconds:.4f} s)")
    return "\n".join(lines) + "\n"


def _queries(sent: tuple[Any, ...]) -> str:
    return "1 query" if len(sent) == 1 else f"{len(sent)} queries"
