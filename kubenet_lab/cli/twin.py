"""`kubenet-lab twin`: the world of some manifests in this machine's own kernel."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from kubenet_lab.cli import world
from kubenet_lab.errors import NotFound

if TYPE_CHECKING:
    from kubenet_lab.twin import Twin


def twin(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POD [-- COMMAND...]]", help="A pod (namespace/pod, or pod) or a node's name."
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "--file", "-f", metavar="FILE...", help="Manifests; without any, the shop of the course."
        ),
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=6000, help=world.NODES_HELP)] = 3,
    cni: world.Cni = "flannel",
    proxy: world.Proxy = "iptables",
    load_balancer: world.Balancer = "none",
    lenient: Annotated[bool, typer.Option("--lenient", help=world.LENIENT_HELP)] = False,
    seed: Annotated[int, typer.Option("--seed", help=world.SEED_HELP)] = 0,
) -> None:
    """Make the cluster in the real kernel, and run commands in its pods (Linux; no root needed).

    kubenet-lab twin -f shop.yaml frontend -- curl -s http://backend

    With a command: run it, and end with its exit status. With a pod alone: open a shell there. With neither:
    read lines "POD COMMAND" from standard input. When it ends, nothing of it is left.
    """
    if file:
        cluster = world.Inputs(file, lenient=lenient).cluster(
            nodes, seed, cni=cni, proxy=proxy, load_balancer=load_balancer
        )
    else:
        from kubenet_lab import scenarios

        world.check_options(cni, proxy)
        cluster = scenarios.shop(nodes=nodes, seed=seed, cni=cni, proxy=proxy)
    pod, command = (words[0], words[1:]) if words else ("", [])
    if pod:
        pod = cluster.namespace_of(pod)
    begin = time.perf_counter()
    with cluster.twin() as made:
        if command:
            raise typer.Exit(_exec(made, pod, command))
        typer.echo(
            f"ready in {time.perf_counter() - begin:.1f} s: {', '.join(sorted(made.network.netns))}", err=True
        )
        if pod:
            raise typer.Exit(_exec(made, pod, ["sh"]))
        _lines(made)


def _exec(made: Twin, pod: str, command: list[str]) -> int:
    """Run a command with this terminal; Ctrl-C is for the command, not for us."""
    try:
        return subprocess.run(made.argv(pod, command), check=False).returncode
    except KeyboardInterrupt:
        return 130


def _lines(made: Twin) -> None:
    """Run a line after the other: a pod, and the shell command for it."""
    prompt = "twin> " if sys.stdin.isatty() else ""
    while True:
        typer.echo(prompt, nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        pod, _, command = line.strip().partition(" ")
        if pod in ("exit", "quit"):
            return
        if not pod or pod.startswith("#"):
            continue
        try:
            done = made.run(pod, command.strip() or "ip -brief address")
        except NotFound as error:
            typer.echo(f"error: {error}; there are: {shlex.join(sorted(made.network.netns))}", err=True)
            continue
        typer.echo(done.stdout, nl=False)
        typer.echo(done.stderr, nl=False, err=True)
