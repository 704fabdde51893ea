"""`kubenet-lab reach`: who reaches whom, what changed, and what is odd about the policies."""

from __future__ import annotations

import csv
import io
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.cli.policy import FILE, objects_of, to_json, world_of
from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenet_lab.policy.world import World
    from kubenet_lab.reach.listing import Change, Connection, Listing


class Form(StrEnum):
    """Lines, data, a table, or a page."""

    text = "text"
    json = "json"
    csv = "csv"
    html = "html"


DIFF_HELP = "Files of another world, or policies to add: print what changes."
FROM_HELP = "A pod that was taken over: print how far one gets from it, hop by hop."


def reach(
    file: Annotated[list[str] | None, FILE] = None,
    diff: Annotated[list[str] | None, typer.Option("--diff", metavar="PATH", help=DIFF_HELP)] = None,
    taken: Annotated[str, typer.Option("--from", metavar="POD", help=FROM_HELP)] = "",
    form: Annotated[Form, typer.Option("-o", help="Lines, one object, rows, or a page.")] = Form.text,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """List what policies allow between workloads and with the outside, and what is odd about the policies.

    kubenet-lab reach -f shop/ --diff shop-locked/

    What is not listed is denied. Pods of one workload count as one; a range of addresses stands for all outside
    addresses that no policy tells apart. Where the files of --diff hold no workload, they are applied to the first
    world.

    Exit status 0, or 2 on bad input.
    """
    files = file or []
    faults: list[Fault] = []
    world.collect(faults, lambda: world.need_files(files))
    inputs = world.Inputs(files, lenient=lenient)
    objects = world.collect(faults, lambda: objects_of(inputs)) if files else None
    others = (
        world.collect(faults, lambda: objects_of(world.Inputs(diff or (), lenient=lenient))) if diff else None
    )
    if faults or objects is None:
        raise InputError(faults)
    from kubenet_lab.objects import Namespace, Pod

    found = world_of(objects, (), seed)
    if others is not None:
        if not any(
            isinstance(obj, Pod | Namespace) or hasattr(getattr(obj, "spec", None), "template")
            for obj in others
        ):
            new = {(obj.kind, obj.namespace, obj.name) for obj in others}
            others = [*(obj for obj in objects if (obj.kind, obj.namespace, obj.name) not in new), *others]
        _changes(found, world_of(others, (), seed), form, output)
        return
    if taken:
        _attack(found, taken, form, output)
        return
    from msgspec import structs

    from kubenet_lab.cli.places import Places
    from kubenet_lab.reach import Reach
    from kubenet_lab.reach.exposure import exposure
    from kubenet_lab.reach.findings import findings, inert
    from kubenet_lab.reach.listing import listing

    listed = listing(found)
    if form is Form.csv:
        rows = ((item.source, item.destination, item.what, item.partly) for item in listed.connections)
        out.write(_csv(("source", "destination", "connections", "partly"), rows), output)
        return
    odd = findings(Reach(found))
    places = Places(inputs)
    policies = {_title(policy): policy for policy in found.policies}
    told = []
    for item in odd:
        policy = policies.get(item.policy)
        told.append((item, places(policy, item.field) if policy is not None else ""))
    open_to = exposure(found)
    notes = inert(objects)
    if form is Form.json:
        value = {
            "workloads": [{"name": node.name, "pods": node.pods} for node in listed.nodes if not node.outside],
            "connections": [_connection(item) for item in listed.connections],
            "exposure": [
                {"workload": e.workload, "direction": e.direction, "whom": e.whom, "ports": [str(s) for s in e.ports]}
                for e in open_to
            ],
            "findings": [{**structs.asdict(item), "place": place} for item, place in told],
            "notes": notes,
        }  # fmt: skip
        out.write(to_json(value), output)
        return
    lines = [("Findings", [_finding(item.text, place, item.help) for item, place in told] or ["none"])]
    lines.append(("Open to newcomers", [str(item) for item in open_to] or ["nothing"]))
    if notes:
        lines.append(("Notes", notes))
    if form is Form.html:
        out.write(_page(found, listed, lines), output)
        return
    text = listed.text() or "no connection is allowed\n"
    out.write(
        text + "".join(f"\n{title}:\n" + "".join(f"  {line}\n" for line in some) for title, some in lines),
        output,
    )


def _title(policy: Any) -> str:
    from kubenet_lab.policy.words import title

    return title(policy)


def _finding(text: str, place: str, help: str) -> str:
    where = f"{place}: " if place else ""
    return f"{where}{text}" + (f"\n    help: {help}" if help else "")


def _connection(item: Connection) -> dict[str, Any]:
    return {
        "source": item.source,
        "destination": item.destination,
        "connections": item.what,
        "ports": [str(span) for span in item.ports],
        "partly": item.partly,
    }


def _csv(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return stream.getvalue()


def _changes(before: World, after: World, form: Form, output: Path | None) -> None:
    from kubenet_lab.reach.listing import diff, ports_text

    changes = diff(before, after)

    def kind(item: Change) -> str:
        return "added" if not item.before else "removed" if not item.after else "changed"

    rows = [(kind(c), c.source, c.destination, ports_text(c.before), ports_text(c.after)) for c in changes]
    head = ("change", "source", "destination", "before", "after")
    if form is Form.json:
        out.write(to_json({"changes": [dict(zip(head, row, strict=True)) for row in rows]}), output)
    elif form is Form.csv:
        out.write(_csv(head, rows), output)
    elif form is Form.html:
        out.write(out.page("What changes", _table(head, rows)), output)
    else:
        out.write("".join(f"{change}\n" for change in changes) or "nothing changes\n", output)


def _attack(found: World, name: str, form: Form, output: Path | None) -> None:
    from kubenet_lab.cli.explain import endpoints_of
    from kubenet_lab.reach.attack import attack

    start = endpoints_of(found, name, "--from")[0]
    if not start.is_pod:
        raise InputError([Fault(f"{name!r} is no pod", "--from", help="write NAMESPACE/POD")])
    got = attack(found, start.name)
    head = ("pod", "hops", "way")
    rows = [(pod, len(hops), " ".join(map(str, hops))) for pod, hops in got.paths.items()]
    if form is Form.json:
        paths = {pod: [str(hop) for hop in hops] for pod, hops in got.paths.items()}
        out.write(to_json({"start": got.start, "paths": paths, "safe": got.safe}), output)
    elif form is Form.csv:
        out.write(_csv(head, rows), output)
    elif form is Form.html:
        out.write(out.page(f"From {got.start}", _table(head, rows)), output)
    else:
        out.write(got.text(), output)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    from html import escape

    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>{body}</table>"


def _page(found: World, listed: Listing, lines: list[tuple[str, list[str]]]) -> str:
    from html import escape

    from kubenet_lab.views.reach_matrix import matrix

    parts = [matrix(found, listed).html()]
    for title, some in lines:
        items = "".join(f"<li>{escape(line)}</li>" for line in some)
        parts.append(f"<h2>{escape(title)}</h2><ul>{items}</ul>")
    return out.page("Who reaches whom", "".join(parts))
