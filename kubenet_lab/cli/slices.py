"""`kubenet-lab slices`: the EndpointSlices that the controllers would write for Services and pods."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.cli.validate import RANGE, RANGE_HELP, usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kubenet_lab.objects import AnyObject, EndpointSlice


class Form(StrEnum):
    """As kubectl prints objects."""

    yaml = "yaml"
    json = "json"


def slices(
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
    form: Annotated[Form, typer.Option("-o", help="Documents (yaml), or one List (json).")] = Form.yaml,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    service_range: Annotated[str, typer.Option("--service-cluster-ip-range", help=RANGE_HELP)] = RANGE,
    seed: Annotated[int, typer.Option("--seed", help="Decides the ends of the slices' names.")] = 0,
) -> None:
    """Print the EndpointSlices that the controllers would write for Services, pods and Endpoints.

    kubenet-lab slices -f dump.json -o json

    Pods are taken as they stand: one without an address (status.podIPs) is in no slice.

    Slices in the files are kept, corrected or deleted. Without any Node, each pod's node is taken to be there.

    Exit status 0, or 2 on bad input.
    """
    paths = [*(path or []), *(file or [])]
    settings = usage(paths, service_range, paths)
    from kubenet_lab import manifests
    from kubenet_lab.control.slices import slices_of
    from kubenet_lab.errors import Invalid

    inputs = world.Inputs(paths, lenient=lenient)
    objects = inputs.objects()
    try:
        found = slices_of(objects, settings, seed)
    except Invalid as error:
        raise inputs.refused(error) from error
    text = manifests.dump(_printed(found, objects), form.value)
    out.write(text or "apiVersion: v1\nitems: []\nkind: List\n", output)


def _printed(found: Iterable[EndpointSlice], objects: Iterable[AnyObject]) -> list[EndpointSlice]:
    """Slices without the marks of the store they were made in, which say nothing about a cluster."""
    from msgspec.structs import replace

    given = {obj.metadata.uid for obj in objects}
    printed = []
    for item in found:
        meta = item.metadata
        owners = tuple(
            owner if owner.uid in given else replace(owner, uid="") for owner in meta.owner_references
        )
        if meta.uid not in given or not meta.uid:
            meta = replace(meta, uid="", creation_timestamp="", resource_version="", generation=0)
        printed.append(replace(item, metadata=replace(meta, owner_references=owners)))
    return printed
