"""`kubenet-lab` alone: copy the course to a folder of the learner's and open it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _version(wanted: bool) -> None:
    if wanted:
        from kubenet_lab import __version__

        typer.echo(f"kubenet-lab {__version__}")
        raise typer.Exit


def course(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Option(
            "--dir", help="The learner's folder.", envvar="KUBENET_COURSE", show_default="~/kubenet-course"
        ),
    ] = Path("~/kubenet-course"),
    port: Annotated[
        int, typer.Option("--port", help="The next free one is taken where it is in use.")
    ] = 8888,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address; open no browser.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Kubernetes networking that you can run, break and see inside.

    Without a command: copy the course to the learner's folder, never over what they changed, and open
    JupyterLab there.
    """
    if ctx.invoked_subcommand is not None:
        return
    from kubenet_lab.course.launcher import launch, sync

    target = folder.expanduser().resolve()
    for line in sync(target).lines():
        typer.echo(line)
    raise typer.Exit(launch(target, port=port, browser=not no_browser))
