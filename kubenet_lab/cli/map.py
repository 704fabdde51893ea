"""`kubenet-lab map`: a picture of the world of some manifests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world


class Form(StrEnum):
    """A picture, or a page with it."""

    svg = "svg"
    html = "html"


def map_(
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE...", help="Manifests: files, folders, - for standard input."
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("-o", help="By default what --output's name says, or else svg.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=6000, help=world.NODES_HELP)] = 3,
    cni: world.Cni = "flannel",
    proxy: world.Proxy = "iptables",
    load_balancer: world.Balancer = "none",
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
) -> None:
    """Draw the cluster: nodes, pods, devices, Services.

    kubenet-lab map -f shop.yaml --output shop.svg
    """
    world.need_files(file or [])
    cluster = world.Inputs(file or [], lenient=lenient).cluster(
        nodes, cni=cni, proxy=proxy, load_balancer=load_balancer
    )
    if form is None:
        form = Form.html if output is not None and output.suffix.lower() in (".html", ".htm") else Form.svg
    picture = cluster.map()
    out.write(str(picture) if form is Form.svg else out.page("The cluster", cluster._repr_html_()), output)
