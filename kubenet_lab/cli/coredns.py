"""`kubenet-lab coredns`: the model's CoreDNS on real sockets of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubenet_lab.errors import Fault, InputError


def coredns(
    corefile: Annotated[
        Path | None, typer.Option("--corefile", metavar="FILE", help="The Corefile.", show_default=False)
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH...",
            help="The cluster's objects: files, folders, - for standard input.",
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any.")] = 53,
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    local_ip: Annotated[
        list[str] | None,
        typer.Option(
            "--local-ip", metavar="ADDRESS", help="The server's own address, as EndpointSlices have it."
        ),
    ] = None,
) -> None:
    """Answer DNS queries over UDP and TCP as CoreDNS would in the cluster of some manifests.

    kubenet-lab coredns --corefile Corefile -f dump.json --port 0

    dig @127.0.0.1 -p PORT backend.default.svc.cluster.local

    The first line printed is `listening on 127.0.0.1:PORT`. It stops on Ctrl-C or SIGTERM.

    Exit status 0; 1 with CoreDNS's own words for a Corefile it refuses, or where the port is taken; 2 on bad input.
    """
    from kubenet_lab.dns.names import parse_ip
    from kubenet_lab.dns.server.live import main

    if corefile is None:
        raise InputError([Fault("no Corefile", "--corefile", help="write --corefile FILE")])
    if not corefile.exists():
        raise InputError([Fault("there is no such file", str(corefile), help="name a Corefile")])
    faults = [
        Fault(f"{each!r} is not an IP address", "--local-ip", help="write for example 10.244.0.2")
        for each in local_ip or ()
        if not parse_ip(each)
    ]
    if faults:
        raise InputError(faults)
    try:
        status = main(corefile, file or [], bind, port, tuple(local_ip or ()))
    except OSError as error:
        typer.echo(f"error: {bind}:{port}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(status)
