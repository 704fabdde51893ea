"""`kubenet-lab explain`: why policies let a connection through, or do not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenet_lab.cli import output as out
from kubenet_lab.cli import world
from kubenet_lab.cli.policy import FILE, Form, objects_of, to_json, world_of
from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from kubenet_lab.objects import AnyObject
    from kubenet_lab.policy.explain import Explanation
    from kubenet_lab.policy.world import Endpoint, World


def explain(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A pod, NAMESPACE/POD, a workload, or an address.")
    ],
    destination: Annotated[str, typer.Argument(metavar="DST", help="The same, or a Service.")],
    port: Annotated[str, typer.Argument(metavar="PORT/PROTOCOL", help="For example 5432/TCP.")],
    file: Annotated[list[str] | None, FILE] = None,
    form: Annotated[Form, typer.Option("-o", help="Sentences (text), or one object (json).")] = Form.text,
    output: Annotated[Path | None, typer.Option("--output", help=world.OUTPUT_HELP)] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """Say why policies allow or deny a connection, and what single change would turn that.

    kubenet-lab explain -f shop/ frontend database 5432/TCP

    As in a cluster, a pod always reaches itself and its own node always reaches it. A Service stands for the pods
    behind it: policies see a packet after kube-proxy has chosen one of them.

    Exit status 0, or 2 on bad input.
    """
    files = file or []
    faults: list[Fault] = []
    world.collect(faults, lambda: world.need_files(files))
    wanted = world.collect(faults, lambda: _port(port))
    inputs = world.Inputs(files, lenient=lenient)
    objects = world.collect(faults, lambda: objects_of(inputs)) if files else None
    if faults or objects is None or wanted is None:
        raise InputError(faults)
    from kubenet_lab.cli.places import Places
    from kubenet_lab.policy.explain import explain as why
    from kubenet_lab.policy.world import CLUSTER
    from kubenet_lab.reach.findings import inert

    found = world_of(objects, (), seed, CLUSTER)
    starts = world.collect(faults, lambda: endpoints_of(found, source, "SRC"))
    ends = world.collect(faults, lambda: _destinations(found, objects, destination, wanted))
    if faults or starts is None or ends is None:
        raise InputError(faults)
    places = Places(inputs)
    told = [why(found, starts[0], end, number, wanted[1], places) for end, number in ends]
    if form is Form.json:
        out.write(to_json([_plain(item) for item in told] if len(told) > 1 else _plain(told[0])), output)
        return
    text = "\n".join(item.text() for item in told)
    out.write(text + "".join(f"\nNote: {note}\n" for note in inert(objects)), output)


def endpoints_of(found: World, name: str, what: str) -> list[Endpoint]:
    """The endpoints a name on the command line means: a pod, a workload's pods, an address. Raises InputError."""
    try:
        return [found.endpoint(name)]
    except KeyError:
        pass
    space, _, bare = name.rpartition("/")
    pods = [
        endpoint
        for endpoint in found.endpoints
        if bare and endpoint.owner.rpartition("/")[2] == bare and space in ("", endpoint.namespace)
    ]
    if pods:
        _only_one(name, [f"{endpoint.namespace}/{bare}" for endpoint in pods], what)
        return pods
    import difflib

    known = [endpoint.name for endpoint in found.endpoints if endpoint.is_pod]
    near = difflib.get_close_matches(name, [*known, *(item.rpartition("/")[2] for item in known)], 1, 0.5)
    same = [item for item in known if item.rpartition("/")[2] == bare]
    hint = f"did you mean {near[0]}?" if near else "write NAMESPACE/POD"
    if len(same) > 1:
        hint = f"write one of {', '.join(same)}"
    raise InputError([Fault(f"{name!r} is no pod, no workload and no address", what, help=hint)])


def _only_one(name: str, full: list[str], what: str) -> None:
    """Raise InputError where a bare name is one of several namespaces."""
    names = sorted(set(full))
    if len(names) > 1:
        message = f"{name!r} is in {len(names)} namespaces"
        raise InputError([Fault(message, what, help=f"write one of {', '.join(names)}")])


def _port(text: str) -> tuple[int, str]:
    from kubenet_lab.policy.evaluate import parse_port

    try:
        return parse_port(text)
    except ValueError as error:
        raise InputError([Fault(str(error), "PORT/PROTOCOL", help="write for example 5432/TCP")]) from error


def _destinations(
    found: World, objects: list[AnyObject], name: str, wanted: tuple[int, str]
) -> list[tuple[Endpoint, int]]:
    """The endpoints behind a destination, each with the port a packet arrives at."""
    from kubenet_lab.objects import Service, matches_map

    number, protocol = wanted
    try:
        return [(endpoint, number) for endpoint in endpoints_of(found, name, "DST")[:1]]
    except InputError:
        space, _, bare = name.rpartition("/")
        services = [
            obj
            for obj in objects
            if isinstance(obj, Service) and obj.name == bare and space in ("", obj.namespace)
        ]
        if not services:
            raise
    _only_one(name, [f"{each.namespace}/{each.name}" for each in services], "DST")
    service = services[0]
    title = f"Service {service.namespace}/{service.name}"
    if service.spec.type == "ExternalName" or not service.spec.selector:
        external = service.spec.external_name if service.spec.type == "ExternalName" else ""
        message = f"{title} is a name for {external}" if external else f"{title} has no selector"
        help = "policies see the address behind it: write that address"
        raise InputError([Fault(message, "DST", help=help)])
    selected = [
        endpoint
        for endpoint in found.endpoints
        if endpoint.namespace == service.namespace and matches_map(service.spec.selector, endpoint.labels)
    ]
    if not selected:
        message = f"no pod is behind {title}"
        raise InputError([Fault(message, "DST", help="compare its selector with the pods' labels")])
    if service.headless:
        # Its name is the pods' addresses: no port is translated.
        return [(endpoint, number) for endpoint in selected]
    ports = [
        port for port in service.spec.ports if port.port == number and (port.protocol or "TCP") == protocol
    ]
    if not ports:
        listed = ", ".join(f"{port.port}/{port.protocol or 'TCP'}" for port in service.spec.ports)
        message = f"{title} has no port {number}/{protocol}"
        raise InputError([Fault(message, "DST", help=f"it has {listed}")])
    target = ports[0].target_port or number
    if isinstance(target, int):
        return [(endpoint, target) for endpoint in selected]
    named = [
        (endpoint, port) for endpoint in selected for port in endpoint.ports if port.protocol == protocol
    ]
    behind = {
        endpoint.name: (endpoint, port.number) for endpoint, port in reversed(named) if port.name == target
    }
    if not behind:
        known = sorted({port.name for _, port in named if port.name})
        message = f"{title}: no pod behind it calls a {protocol} port {target!r}, its targetPort"
        help = (
            f"they have {', '.join(known)}"
            if known
            else f"name a containerPort {target}, or write its number"
        )
        raise InputError([Fault(message, "DST", help=help)])
    return [behind[endpoint.name] for endpoint in selected if endpoint.name in behind]


def _plain(told: Explanation) -> dict[str, Any]:
    judgement = told.judgement

    def side(name: str) -> dict[str, Any]:
        given, reasons = getattr(judgement, name), getattr(told, name)
        return {
            "allowed": given.allowed,
            "tier": given.tier,
            "why": given.why,
            "selectedBy": [policy.title for policy in given.selecting],
            "rules": [
                {
                    "policy": fit.policy.title,
                    "kind": fit.policy.kind,
                    "rule": fit.rule.index,
                    "action": fit.rule.action,
                }
                for fit in given.fits
            ],
            "reasons": [
                {"text": item.text, "policy": item.policy, "field": item.field, "place": item.place}
                for item in reasons
            ],
        }

    return {
        "source": judgement.source.name,
        "destination": judgement.destination.name,
        "port": f"{judgement.port}/{judgement.protocol}",
        "allowed": told.allowed,
        "summary": told.summary,
        "egress": side("egress"),
        "ingress": side("ingress"),
        "changes": [
            {"text": flip.text, "policy": flip.policy, "place": flip.place, "alone": flip.complete}
            for flip in told.flips
        ],
    }
