"""`kubenet-lab cni`: our CNI plugins on a model host, called by the protocol as a container runtime calls real ones."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubenet_lab.errors import Fault, InputError

if TYPE_CHECKING:
    from kubenet_lab.cni.plugin import CniError
    from kubenet_lab.cni.runtime import NetworkConf, Runtime
    from kubenet_lab.kernel.network import Network

HOST = "node-1"
STATE_FILE = "network.json"


class Action(StrEnum):
    """What CNI_COMMAND says."""

    add = "add"
    delete = "del"
    check = "check"
    gc = "gc"
    status = "status"
    version = "version"


def cni(
    action: Annotated[Action, typer.Argument(help="CNI_COMMAND.")],
    conflist: Annotated[
        str, typer.Option("--conflist", metavar="FILE", help="A .conflist or .conf; - for standard input.")
    ],
    container: Annotated[
        list[str] | None,
        typer.Option(
            "--container", metavar="ID", help="CNI_CONTAINERID. With gc: one that still exists; may repeat."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="A folder that keeps the model host between calls. Without it every call gets a new one."
        ),
    ] = None,
    ifname: Annotated[str, typer.Option(help="CNI_IFNAME.")] = "eth0",
    netns: Annotated[
        str,
        typer.Option(metavar="NAME", help="The container's network namespace; made by add. Default: its ID."),
    ] = "",
    args: Annotated[str, typer.Option(metavar="K=V;K=V", help="CNI_ARGS.")] = "",
    capabilities: Annotated[
        str, typer.Option("--capability-args", metavar="JSON", help='CAP_ARGS: {"portMappings": [...]}.')
    ] = "",
    put: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH=FILE", help="Put a file on the host first: /run/flannel/subnet.env=mine.env."
        ),
    ] = None,
) -> None:
    """Run a plugin chain by the CNI protocol on a model host (192.168.1.10 behind a router).

    Prints what the last plugin prints, or the error of the one that failed, and ends with its status (0 or 1). The host
    is kept in --state as JSON (`kubenet_lab.kernel.dump`), also after a failure: what a failed ADD leaves is there.
    """
    from kubenet_lab.cni.plugin import CniError
    from kubenet_lab.cni.process import printed
    from kubenet_lab.cni.runtime import Runtime, parse

    ids = list(container or ())
    if action in (Action.add, Action.delete, Action.check) and len(ids) != 1:
        raise InputError(
            [Fault(f"{action} is about one container", "--container", help="write --container ID")]
        )
    text = _read(conflist)
    given = _json(capabilities)
    network = _load(state)
    for item in put or ():
        path, sign, file = item.partition("=")
        if not sign:
            raise InputError([Fault(f"{item!r} is no PATH=FILE", "--put")])
        network.ns(HOST).files[path] = _read(file)
    status = 0
    try:
        conf = parse(text, conflist)
        said = _run(Runtime(network, HOST), conf, action, ids, ifname, netns, args, given)
    except CniError as fault:
        cause = fault.__cause__ if isinstance(fault.__cause__, CniError) else fault
        typer.echo(str(fault), err=True)
        said, status = printed(cause.to_json()), 1
    if said:
        typer.echo(said)
    _save(network, state)
    raise typer.Exit(status)


def _run(
    runtime: Runtime,
    conf: NetworkConf,
    action: Action,
    ids: list[str],
    ifname: str,
    netns: str,
    args: str,
    given: dict[str, Any],
) -> str:
    """Do what was asked and return what is to be printed. Raises CniError."""
    from kubenet_lab.cni.plugin import VERSIONS
    from kubenet_lab.cni.process import printed, result_text

    if action is Action.status:
        runtime.status(conf)
        return ""
    if action is Action.version:
        known = [runtime.plugins[name] for body in conf.plugins if (name := body["type"]) in runtime.plugins]
        return "\n".join(
            printed({"cniVersion": VERSIONS[-1], "supportedVersions": list(plugin.versions)})
            for plugin in known
        )
    if action is Action.gc:
        failed: list[CniError] = runtime.collect(conf, tuple((one, ifname) for one in ids))
        if failed:
            raise failed[0]
        return ""
    [container] = ids
    name = netns or container
    path = f"/var/run/netns/{name}"
    if action is Action.add and path not in runtime.node.files:
        if name in runtime.network.netns:
            said = f"{name!r} is a machine of the model host, and no container's namespace"
            raise InputError([Fault(said, "--netns" if netns else "--container")])
        runtime.network.add_netns(name, HOST).set_link("lo", up=False)
        runtime.node.files[path] = name
    if action is Action.add:
        result = runtime.add(conf, container, path, ifname=ifname, args=args, capabilities=given)
        return result_text(result, conf.version)
    if action is Action.delete:
        runtime.delete(conf, container, path, ifname=ifname, args=args)
    else:
        runtime.check(conf, container, path, ifname=ifname, args=args)
    return ""


def _read(file: str) -> str:
    if file == "-":
        return typer.get_text_stream("stdin").read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError([Fault(f"cannot be read: {fault}", file=file)]) from fault


def _json(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text) if text else {}
    except ValueError as fault:
        raise InputError([Fault(f"no JSON: {fault}", "--capability-args")]) from fault
    if not isinstance(body, dict):
        raise InputError([Fault("a JSON object was expected", "--capability-args")])
    return body


def _load(state: Path | None) -> Network:
    """The model host as the last call left it, or a new one."""
    from kubenet_lab.control.machine import build_node
    from kubenet_lab.kernel import dump
    from kubenet_lab.kernel.network import Network

    if state is not None and (state / STATE_FILE).is_file():
        file = state / STATE_FILE
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as fault:
            raise InputError([Fault(f"no JSON: {fault}", file=str(file))]) from fault
        return dump.load(document, file=str(file))
    network = Network()
    build_node(network, HOST, "192.168.1.10/24", sysctls={})
    return network


def _save(network: Network, state: Path | None) -> None:
    from kubenet_lab.kernel import dump

    if state is not None:
        text = json.dumps(dump.dump(network), indent=1)
        try:
            state.mkdir(parents=True, exist_ok=True)
            (state / STATE_FILE).write_text(text + "\n", encoding="utf-8")
        except OSError as fault:
            said = fault.strerror or str(fault)
            raise InputError([Fault(f"cannot be kept there: {said}", file=str(state))]) from fault
