"""`kubenet-lab trace`: one call through the world of some manifests."""

from __future__ import annotations

from enum import StrEnum
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.errors import Fault, InputError, NotFound, NotRunning

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip


class Form(StrEnum):
    """What a trip is printed as."""

    text = "text"
    json = "json"
    html = "html"
    pcap = "pcap"
    svg = "svg"


def trace(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="namespace/pod, pod, node/NAME, or an address outside the cluster."
        ),
    ],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="A URL, host:port, or an address (which is pinged).")
    ],
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE...", help="Manifests: files, folders, - for standard input."
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option("-o", help="By default what --output's name says, or else text.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=6000, help=world.NODES_HELP)] = 3,
    cni: world.Cni = "flannel",
    proxy: world.Proxy = "iptables",
    load_balancer: world.Balancer = "none",
    policy: world.PolicyAgent = "none",
    cost: Annotated[
        bool, typer.Option("--cost", help="Say where its microseconds go (with -o text or json).")
    ] = False,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """Send one call from SRC to DST and show every hop, and what decided its end.

    kubenet-lab trace -f shop.yaml frontend http://backend

    Exit status 0 whether it was delivered or not, 2 on bad input.
    """
    from kubenet_lab.target import parse_target

    chosen = form or _by_name(output)
    faults: list[Fault] = []
    if chosen is Form.pcap and output is None and out.is_terminal():
        faults.append(Fault("a capture file is no text for a terminal", "-o", help="add --output trip.pcap"))
    if cost and chosen not in (Form.text, Form.json):
        faults.append(Fault(f"-o {chosen} has no place for it", "--cost", help="use -o text or -o json"))
    world.collect(faults, lambda: world.need_files(file or []))
    world.collect(faults, lambda: parse_target(target))
    inputs = world.Inputs(file or [], lenient=lenient)
    cluster = (
        world.collect(
            faults,
            lambda: inputs.cluster(
                nodes, seed, told=True, cni=cni, proxy=proxy, load_balancer=load_balancer, policy=policy
            ),
        )
        if file
        else None
    )
    if cluster is not None:
        try:
            world.collect(faults, lambda: cluster.namespace_of(source))
        except (NotFound, NotRunning) as error:
            faults.append(
                Fault(
                    str(error),
                    "SRC",
                    help="write namespace/pod, pod (in default), node/NAME, or an address outside"
                    if isinstance(error, NotFound)
                    else "",
                )
            )
    if faults or cluster is None:
        raise InputError(faults)
    for note in cluster.unenforced:
        typer.echo(f"warning: {note}", err=True)
    trip = cluster.connect(source, target)
    out.write(_render(trip, chosen, cost), output)


def _by_name(output: Path | None) -> Form:
    suffix = output.suffix.removeprefix(".").lower() if output is not None else ""
    return Form(suffix) if suffix in Form.__members__ else Form.html if suffix == "htm" else Form.text


def _render(trip: Trip, form: Form, cost: bool) -> str | bytes:
    if form is Form.json:
        return out.json_text(trip.to_json() | ({"cost": trip.cost().to_json()} if cost else {}))
    if form is Form.pcap:
        from kubenet_lab.packet.wire import pcap_bytes

        return pcap_bytes(trip.captures())
    if form is Form.svg:
        from kubenet_lab.views import trip_svg

        return trip_svg(trip)
    if form is Form.html:
        whole = f"<details><summary>Every step</summary><pre>{escape(trip.text())}</pre></details>"
        return out.page(f"{trip.source} calls {trip.target}", trip._repr_html_() + whole)
    return trip.text() + (f"\n\nwhat it costs\n{trip.cost()}" if cost else "") + "\n"
