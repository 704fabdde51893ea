"""`kubenet-lab validate`: every fault of some manifests, or the objects as the API server would store them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from kubenet_lab.control.loop import Settings


class Form(StrEnum):
    """What is printed: lines to read, or one document."""

    text = "text"
    json = "json"
    yaml = "yaml"


RANGE = "10.96.0.0/16,fd00:10:96::/112"
RANGE_HELP = "Where Service addresses come from: one range, or one of each family with a comma."


def validate(
    path: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH...", help="Manifests: files, folders, - for standard input.", show_default=False
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="PATH...", help="The same, as kubectl takes them."),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("-o", help="By default text; yaml with --print-defaults.", show_default=False),
    ] = None,
    print_defaults: Annotated[
        bool, typer.Option("--print-defaults", help="Print the objects as the API server would store them.")
    ] = False,
    changed_from: Annotated[
        list[str] | None,
        typer.Option(
            "--changed-from",
            metavar="PATH",
            help="Manifests of objects the cluster has; may repeat. What may not change is refused.",
        ),
    ] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    service_range: Annotated[str, typer.Option("--service-cluster-ip-range", help=RANGE_HELP)] = RANGE,
    seed: Annotated[int, typer.Option("--seed", help="Decides the addresses and ports that are drawn.")] = 0,
) -> None:
    """Say everything that is wrong with manifests, in the API server's words and with its place.

    kubenet-lab validate shop.yaml

    Names, Service addresses and node ports that two objects ask for are faults too. Namespaces are taken to exist.

    -o json: a list of {file, line, column, document, kind, name, field, reason, message, help}.

    Warnings go to standard error; so do faults with --print-defaults, which prints objects.

    Exit status: 0 without faults; 1 with faults, a path that cannot be read included; 2 if used wrongly.
    """
    paths = [*(path or []), *(file or [])]
    settings = usage(paths, service_range, [*paths, *(changed_from or [])])
    if form is Form.yaml and not print_defaults:
        raise InputError([Fault("faults are printed as text or json", "-o", help="add --print-defaults")])
    if print_defaults and form is Form.text:
        raise InputError([Fault("objects are printed as yaml or json", "-o", help="write -o yaml")])
    from kubenet_lab import admission, manifests

    inputs = world.Inputs(paths, lenient=lenient)
    before = world.Inputs(changed_from, lenient=True).objects() if changed_from else []
    found = manifests.check(*paths, lenient=lenient, stdin=inputs.stdin(), changes=before)
    admitted = admission.admit(
        found.objects, settings, seed, refused=found.refused, stored=print_defaults, before=before
    )
    faults = manifests.placed(found, admitted.refusals, *paths, stdin=inputs.stdin())
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    from kubenet_lab.manifests.contradictions import contradictions

    refused = [(refusal.index, refusal.cause.field) for refusal in admitted.refusals]
    told = contradictions(obj for index, obj in enumerate(found.objects) if index not in found.refused)
    for warning in world.contradicted(told, found.objects, found, *paths, stdin=inputs.stdin(), but=refused):
        typer.echo(f"warning: {warning}", err=True)
    if print_defaults:
        if faults:
            typer.echo("".join(f"error: {fault}\n" for fault in faults), nl=False, err=True)
        else:
            one = len(admitted.objects) == 1
            shown = admitted.objects[0] if one else admitted.objects
            out.write(manifests.dump(shown, "json" if form is Form.json else "yaml"), None)
    elif form is Form.json:
        out.write(out.json_text([document(fault) for fault in faults]), None)
    elif faults:
        out.write("".join(f"{fault}\n" for fault in faults), None)
    if faults:
        raise typer.Exit(1)


def usage(paths: list[str], ranges: str, read: list[str]) -> Settings:
    """Return the cluster's settings. Raises InputError for what is wrong with the command itself."""
    from msgspec.structs import replace

    from kubenet_lab.control.loop import Settings
    from kubenet_lab.control.service_ip import Range

    faults: list[Fault] = []
    world.collect(faults, lambda: world.need_files(paths))
    if read.count("-") > 1:
        faults.append(Fault("standard input can be read once only", "-", help="give a file"))
    texts = tuple(text.strip() for text in ranges.split(","))
    option = "--service-cluster-ip-range"
    try:
        families = [Range.of(text).family for text in texts]
    except ValueError as error:
        faults.append(Fault(str(error), option, help="for example 10.96.0.0/16"))
    else:
        if len(set(families)) != len(families):
            faults.append(Fault("two ranges of one family", option, help="one IPv4 and one IPv6 range"))
    if faults:
        raise InputError(faults)
    return replace(Settings(), service_cluster_ip_range=texts)


def document(fault: Fault) -> dict[str, Any]:
    """A fault as the command prints it in JSON."""
    return {
        "file": fault.file,
        "line": fault.line,
        "column": fault.column,
        "document": fault.document,
        "kind": fault.kind,
        "name": fault.name,
        "field": fault.path,
        "reason": fault.reason,
        "message": fault.message,
        "help": fault.help,
    }
