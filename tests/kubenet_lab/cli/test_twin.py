"""`kubenet-lab twin`: real commands in the real kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kubenet_lab.twin import unavailable
from tests.kubenet_lab.cli.run import run

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def twin_here() -> None:
    why = unavailable()
    if why:
        pytest.skip(why)


def program(*argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    code = "from kubenet_lab.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *argv], input=stdin, capture_output=True, text=True, check=False
    )


def test_a_command_runs_in_a_pod_and_its_status_is_ours() -> None:
    done = program("twin", "frontend", "--", "sh", "-c", "ip -o -4 address show eth0; exit 7")
    assert done.returncode == 7, done.stderr
    assert "10.244.0.2/24" in done.stdout


def test_lines_from_standard_input_name_the_pod() -> None:
    done = program(
        "twin",
        stdin="# a comment\nfrontend curl -s -o /dev/null -w '%{remote_ip}' http://backend\nnobody ls\n",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "10.96.0.100"
    assert 'network namespace "nobody" not found' in done.stderr
    assert "default/frontend" in done.stderr


def test_a_pod_that_does_not_exist_is_bad_input() -> None:
    ran = run("twin", "fronted", "--", "true")
    assert (ran.status, ran.out) == (2, b"")
    assert "did you mean 'frontend'" in ran.err
