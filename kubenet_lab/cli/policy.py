"""`kubenet-lab policy`: the truth table of network policies."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubenet_lab.objects import AnyObject
    from kubenet_lab.policy.world import Conventions, World

PORTS_HELP = "Ports to ask about, PORT/PROTOCOL with commas between them; by default those that are declared."
EXTERNAL_HELP = "Addresses outside to ask about, with commas between them."
FILE = typer.Option(
    "--file", "-f", metavar="PATH...", help="Manifests: files, folders, - for standard input."
)
LEGEND = ". allowed   I denied by the destination's ingress   E denied by the source's egress   B by both   - not asked"


class Form(StrEnum):
    """A drawing, or data."""

    text = "text"
    json = "json"


def policy(
    file: Annotated[list[str] | None, FILE] = None,
    ports: Annotated[str, typer.Option("--ports", metavar="80/TCP,...", help=PORTS_HELP)] = "",
    external: Annotated[str, typer.Option("--external", metavar="IP,...", help=EXTERNAL_HELP)] = "",
    form: Annotated[Form, typer.Option("-o", help="A drawing (text), or one object (json).")] = Form.text,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """Say for every pair of pods whether policies let the one reach the other.

    kubenet-lab policy -f shop/ --ports 80/TCP,53/UDP --external 203.0.113.7 -o json

    Pods first, sorted, then the outside addresses; a row a source. It is the policies alone that are asked:
    nothing needs to listen on a port. A pod and itself are asked like any other pair, and a node's address is one
    like any other (`kubenet-lab explain` tells what a cluster does there).

    Workloads without pods in the files get those a cluster would make.

    Exit status 0, or 2 on bad input.
    """
    files = file or []
    faults: list[Fault] = []
    world.collect(faults, lambda: world.need_files(files))
    probes = world.collect(faults, lambda: read_ports(ports))
    addresses = world.collect(faults, lambda: read_addresses(external))
    objects = None
    if files:
        objects = world.collect(faults, lambda: objects_of(world.Inputs(files, lenient=lenient)))
    if faults or objects is None or probes is None or addresses is None:
        raise InputError(faults)
    from kubenet_lab.reach import Reach

    found = world_of(objects, addresses, seed)
    probes = probes or declared(found)
    tables = Reach(found).table(probes)
    order = [endpoint.name for endpoint in found.endpoints]
    if form is Form.json:
        out.write(to_json({"order": order, "tables": tables}), output)
    else:
        out.write(drawing(order, tables), output)


def objects_of(inputs: world.Inputs) -> list[AnyObject]:
    """The objects of the files. Raises InputError; a policy's faults say what they mean for traffic."""
    from kubenet_lab.policy.mistakes import with_meanings

    try:
        return inputs.objects()
    except InputError as error:
        raise InputError(with_meanings(error.faults)) from error


def world_of(
    objects: Sequence[AnyObject],
    external: Sequence[str] = (),
    seed: int = 0,
    conventions: Conventions | None = None,
) -> World:
    """Pods, policies and all that a verdict depends on."""
    from kubenet_lab.policy.workloads import with_pods
    from kubenet_lab.policy.world import TABLE, World

    return World.from_objects(with_pods(objects, seed), external, conventions or TABLE)


def read_ports(text: str) -> list[str]:
    """`80/TCP,81` as a list of probes. Raises InputError for the malformed ones."""
    from kubenet_lab.policy.evaluate import parse_port

    probes, faults = [], []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            number, protocol = parse_port(part)
            probes.append(f"{number}/{protocol}")
        except ValueError as error:
            faults.append(Fault(str(error), "--ports", help="write for example 80/TCP,53/UDP"))
    if faults:
        raise InputError(faults)
    return list(dict.fromkeys(probes))


def read_addresses(text: str) -> list[str]:
    """`203.0.113.7,2001:db8::1` as a list of canonical addresses. Raises InputError for the malformed ones."""
    from kubenet_lab.packet.ip import canonical

    addresses, faults = [], []
    for part in filter(None, (item.strip() for item in text.split(","))):
        try:
            addresses.append(canonical(part))
        except ValueError:
            message = f"{part!r} is not an IP address"
            faults.append(Fault(message, "--external", help="write for example 203.0.113.7"))
    if faults:
        raise InputError(faults)
    return list(dict.fromkeys(addresses))


def declared(found: World) -> list[str]:
    """The ports that containers declare, as probes in order; 80/TCP where none does."""
    ports = {(port.number, port.protocol) for endpoint in found.endpoints for port in endpoint.ports}
    return [f"{number}/{protocol}" for number, protocol in sorted(ports)] or ["80/TCP"]


def to_json(value: object) -> str:
    """One line of JSON."""
    import msgspec

    return msgspec.json.encode(value).decode() + "\n"


def drawing(order: Sequence[str], tables: dict[str, list[str]]) -> str:
    """The tables as text, columns numbered as the rows are."""
    if not order:
        return "there is no pod\n"
    width = max(map(len, order))
    step = len(str(len(order))) + 1
    lines = [LEGEND, "A row is a source, a column the destination of that number.", ""]
    for probe, rows in tables.items():
        head = "".join(f"{number:>{step}}" for number in range(1, len(order) + 1))
        lines.append(f"{probe:<{width + step + 1}}{head}")
        for number, (name, row) in enumerate(zip(order, rows, strict=True), start=1):
            lines.append(f"{number:>{step}} {name:<{width}}" + "".join(f"{cell:>{step}}" for cell in row))
        lines.append("")
    return "\n".join(lines)
