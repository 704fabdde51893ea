"""A plugin as the process it is: environment and standard input go in; exit status and two streams come out.

`plugin.execute` is what a plugin does; this is how that looks from outside, byte for byte: results and errors as
indented JSON, the help text of a call without a command. Source: `github.com/containernetworking/cni/pkg/skel`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from msgspec import Struct

from kubenet_lab.cni.plugin import (
    INVALID_ENVIRONMENT,
    VERSIONS,
    Call,
    CniError,
    Json,
    Plugin,
    Result,
    decode,
    execute,
)
from kubenet_lab.kernel.network import Network

_NEEDED = {
    "CNI_CONTAINERID": ("ADD", "CHECK", "DEL"),
    "CNI_NETNS": ("ADD", "CHECK"),
    "CNI_IFNAME": ("ADD", "CHECK", "DEL"),
    "CNI_PATH": ("ADD", "CHECK", "DEL", "GC", "STATUS"),
}
"""Which variables a command must have, in the order in which they are missed."""


class Finished(Struct, frozen=True):
    """What came of a process: exit status and what it wrote."""

    exit: int
    stdout: str = ""
    stderr: str = ""


def printed(body: Json) -> str:
    """Return JSON as a plugin prints it: four spaces, members of a result in alphabetical order."""
    return json.dumps(body, indent=4, ensure_ascii=False)


def result_text(result: Result, version: str) -> str:
    """Return a result as ADD prints it. From 1.0.0 on its members are sorted; before, they have a fixed order."""
    body = result.to_json(version or "0.1.0")
    return json.dumps(
        body, indent=4, ensure_ascii=False, sort_keys=not version.startswith("0.") and bool(version)
    )


def run_process(
    plugin: Plugin,
    environment: Mapping[str, str],
    stdin: str,
    *,
    network: Network,
    host: str,
    run: Callable[[str, Call], Result | None],
    now: float = 0.0,
) -> Finished:
    """Execute a plugin: `CNI_COMMAND=ADD CNI_CONTAINERID=... PLUGIN < conf.json`.

    Args:
        plugin: The executable.
        environment: CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_ARGS, CNI_PATH.
        stdin: The configuration.
        network: The world, in which `host` names the node's namespace.
        host: Where the process runs.
        run: Executes what this plugin delegates to.
        now: Simulated time in s.
    """
    command = environment.get("CNI_COMMAND", "")
    if not command:
        about = plugin.about or f"CNI {plugin.name} plugin v1.9.1"
        return Finished(0, "", f"{about}\nCNI protocol versions supported: {', '.join(plugin.versions)}\n")
    try:
        missing = [name for name, users in _NEEDED.items() if command in users and not environment.get(name)]
        if missing:
            raise CniError(f"required env variables [{','.join(missing)}] missing", INVALID_ENVIRONMENT)
        conf = decode(stdin) if command != "VERSION" else {}
        call = Call(
            command=command,
            network=network,
            host=host,
            container_id=environment.get("CNI_CONTAINERID", ""),
            netns=environment.get("CNI_NETNS", ""),
            ifname=environment.get("CNI_IFNAME", ""),
            args=environment.get("CNI_ARGS", ""),
            conf=conf,
            now=now,
            run=run,
        )
        result = execute(plugin, call)
    except CniError as fault:
        return Finished(1, printed(fault.to_json()))
    if command == "VERSION":
        return Finished(0, printed({"cniVersion": VERSIONS[-1], "supportedVersions": list(plugin.versions)}))
    return Finished(0, "" if result is None else result_text(result, str(conf.get("cniVersion") or "")))
