"""`kubenet-lab rules`: what kube-proxy writes on a node, or what the kernel's tool prints there afterwards."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubenet_lab.objects import AnyObject

MODES = ("iptables", "nftables", "ipvs")
"""As in `kubenet_lab.proxy.render`, which is only imported when it is needed."""


class Form(StrEnum):
    """Text as a tool takes or prints it, or one JSON document with all texts."""

    text = "text"
    json = "json"


class How(StrEnum):
    """`written`: fed to iptables-restore, nft, ipset or ipvsadm. `saved`: printed by iptables-save, nft list, ..."""

    written = "written"
    saved = "saved"


class Family(StrEnum):
    """Which of a node's two rule sets."""

    ipv4 = "ipv4"
    ipv6 = "ipv6"


def rules(
    node: Annotated[str, typer.Option("--node", help="The node whose rules these are.")],
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE...", help="Manifests: files, folders, - for standard input."
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            "--mode", help="kube-proxy's --proxy-mode: iptables, nftables, ipvs, or several with commas."
        ),
    ] = "iptables",
    family: Annotated[Family, typer.Option("--family")] = Family.ipv4,
    how: Annotated[
        How,
        typer.Option("--as", help="As kube-proxy writes them, or as iptables-save or nft prints them then."),
    ] = How.written,
    changed_from: Annotated[
        list[str] | None,
        typer.Option(
            "--changed-from",
            metavar="FILE",
            help="Manifests of an earlier state; may repeat. What is printed is what the second sync writes.",
        ),
    ] = None,
    active: Annotated[
        int,
        typer.Option(
            "--active-connections",
            min=0,
            metavar="N",
            help="With --changed-from, in ipvs mode: connections every real server has when the second sync comes.",
        ),
    ] = 0,
    flag: Annotated[
        list[str] | None,
        typer.Option("--kube-proxy-flag", metavar="FLAG", help="A flag kube-proxy runs with; may repeat."),
    ] = None,
    form: Annotated[Form, typer.Option("-o", help="json prints all texts of the modes.")] = Form.text,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=6000, help=world.NODES_HELP)] = 3,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
) -> None:
    """Print kube-proxy's rules on one node, and nothing else.

    kubenet-lab rules -f services.yaml --node node-1 --as saved

    EndpointSlices in the files are taken as they are. Where the files hold none but have pods, or Services
    without an address, the cluster of `kubenet-lab trace` is built first and its Services and slices are used.

    Several modes follow each other, each after a line that names it. In ipvs mode there is a part for each of ipset,
    ip, ipvsadm and iptables. With --changed-from kube-proxy has synced
    those objects before: it writes only what differs, and nothing if nothing does.
    """
    from kubenet_lab.proxy import render

    faults: list[Fault] = []
    flags = flag or []
    modes = [name.strip() for name in mode.split(",")]
    faults += [world.not_modelled("--mode", name, MODES) for name in modes if name not in MODES]
    faults += _flag_faults(flags, modes)
    if active and not (changed_from and "ipvs" in modes):
        help = "add --changed-from FILE and --mode ipvs, or leave it out"
        faults.append(Fault("there is no earlier sync in ipvs mode", "--active-connections", help=help))
    world.collect(faults, lambda: world.need_files(file or []))
    if "-" in (file or []) and "-" in (changed_from or []):
        faults.append(Fault("standard input can be read once only", "--changed-from", help="give a file"))
    given = _read(faults, file or [], nodes, lenient, told=True)
    before = _read(faults, changed_from, nodes, lenient) if changed_from else None
    if faults:
        raise InputError(faults)
    if form is Form.json:
        out.write(
            out.json_text(render.rules_document(given, node, flags, modes, before, active=active)), output
        )
        return
    wanted = 4 if family is Family.ipv4 else 6
    texts = []
    for name in modes:
        lines = render.rules(given, node, flags, wanted, how.value, mode=name, before=before, active=active)
        texts.append("\n".join([f"# {name}", *(lines or [""])] if len(modes) > 1 else lines))
    out.write("".join(texts), output)


def _flag_faults(flags: Sequence[str], modes: Sequence[str]) -> list[Fault]:
    """What is wrong with kube-proxy's flags, those that leave its rules as they are included."""
    from kubenet_lab.proxy.config import KubeProxyConfig
    from kubenet_lab.proxy.timing import Timing

    faults: list[Fault] = []
    world.collect(faults, lambda: KubeProxyConfig.from_flags(flags))
    for name in modes:
        world.collect(faults, partial(Timing.from_flags, flags, name))
    for flag in flags:
        key, _, value = flag.partition("=")
        if key == "--proxy-mode" and modes != [value]:
            message = f"{flag} contradicts --mode {','.join(modes)}"
            faults.append(Fault(message, "--kube-proxy-flag", help=f"write --mode {value} instead"))
    return list(dict.fromkeys(faults))


def _read(
    faults: list[Fault], files: list[str], nodes: int, lenient: bool, told: bool = False
) -> list[AnyObject]:
    """Return what kube-proxy reads of some files, [] after faults; contradictions among them may be told."""
    inputs = world.Inputs(files, lenient=lenient)
    objects = world.collect(faults, inputs.objects) if files else None
    if faults or objects is None:
        return []
    if told:
        inputs.warn_of(objects)
    return completed(objects, inputs, nodes)


def completed(objects: Sequence[AnyObject], inputs: world.Inputs, nodes: int) -> list[AnyObject]:
    """Return the objects kube-proxy reads: those given, or those of a cluster that was made of them."""
    from kubenet_lab.objects import EndpointSlice, Node, Service

    services = [obj for obj in objects if isinstance(obj, Service)]
    slices = [obj for obj in objects if isinstance(obj, EndpointSlice)]
    addressed = all(service.external or service.addresses or service.headless for service in services)
    runs = any(obj.kind in ("Pod", "Deployment", "ReplicaSet") for obj in objects)
    if addressed and (slices or not runs):
        given_nodes = [obj for obj in objects if isinstance(obj, Node)]
        if not given_nodes and nodes != 3:
            from kubenet_lab.proxy.render import lab_nodes

            return [*objects, *lab_nodes(nodes)]
        return list(objects)
    cluster = inputs.build(objects, nodes)
    store = cluster.store
    return [*store.list(Node), *store.list(Service), *store.list(EndpointSlice)]
