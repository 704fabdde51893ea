"""The command line, `kubenet-lab`: one file a command.

Standard output carries what was asked for and nothing else; faults and warnings go to standard error. Exit
status: 0 when the question was answered, whatever the answer; 1 when this machine cannot do it; 2 on bad
input. `twin` ends with the status of the command it ran; `validate`, whose answer the faults are, with 1 when
there are any.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from kubenet_lab.cli.arguments import spread
from kubenet_lab.cli.cni import cni
from kubenet_lab.cli.coredns import coredns
from kubenet_lab.cli.course import course
from kubenet_lab.cli.explain import explain
from kubenet_lab.cli.map import map_
from kubenet_lab.cli.policy import policy
from kubenet_lab.cli.reach import reach
from kubenet_lab.cli.resolve import resolve
from kubenet_lab.cli.rules import rules
from kubenet_lab.cli.slices import slices
from kubenet_lab.cli.trace import trace
from kubenet_lab.cli.twin import twin
from kubenet_lab.cli.validate import validate
from kubenet_lab.errors import InputError, KubenetLabError

app = typer.Typer(
    name="kubenet-lab",
    help="Kubernetes networking that you can run, break and see inside. Without a command: open the course.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback(invoke_without_command=True)(course)
app.command("trace")(trace)
app.command("rules")(rules)
app.command("validate")(validate)
app.command("slices")(slices)
app.command("twin")(twin)
app.command("map")(map_)
app.command("policy")(policy)
app.command("explain")(explain)
app.command("reach")(reach)
app.command("cni")(cni)
app.command("resolve")(resolve)
app.command("coredns")(coredns)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` is without the program's name. Always ends with SystemExit."""
    command = typer.main.get_command(app)
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        command.main(args=spread(command, given), prog_name="kubenet-lab")
    except InputError as error:
        for fault in error.faults:
            where = fault.file != "<text>" or fault.line
            typer.echo(f"error: {fault if where else fault.message}", err=True)
        sys.exit(2)
    except KubenetLabError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1 if _is_twin_error(error) else 2)


def _is_twin_error(error: KubenetLabError) -> bool:
    """Whether this machine is at fault and not the input; the twin is not imported to find out."""
    module = sys.modules.get("kubenet_lab.twin.twin")
    return module is not None and isinstance(error, module.TwinError)


__all__ = ["app", "main"]
