"""What the README says is run: set-up commands, the example and its output, the command lines, the picture."""

from __future__ import annotations

import io
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.kubenet_lab.cli.run import run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOP = "kubenet_lab/scenarios/shop.yaml"
PICTURE = "notebooks/images/trip.svg"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_set_up_is_two_commands_and_ci_runs_the_second() -> None:
    opens, tests = (block.strip() for block in blocks("sh")[:2])
    assert opens == "python -m pip install . && kubenet-lab"
    assert tests == 'python -m pip install -e ".[dev]" && python -m pytest'
    found = [line for line in README.splitlines() if line.endswith("&& python -m pytest")]
    assert found == [tests], ".ci/run takes the line that ends so"
    assert r"grep -m1 '&& python -m pytest$' README.md" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def example_output() -> str:
    (code,) = blocks("python")
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {})
    return out.getvalue()


def test_the_worked_example_prints_what_the_readme_says() -> None:
    (said,) = blocks("text")
    assert example_output() == said


@pytest.mark.parametrize("line", blocks("sh")[2].splitlines())
def test_the_command_lines_work(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *argv = shlex.split(line)
    assert program == "kubenet-lab"
    ran = run(*argv)
    assert (ran.status, ran.err) == (0, "")
    assert len(ran.out) > 500


def picture() -> bytes:
    return run("trace", "-f", str(ROOT / SHOP), "frontend", "http://backend", "-o", "svg").out


def test_the_picture_is_the_one_the_views_draw() -> None:
    assert README.startswith("# kubenet-lab\n\n![")
    assert f"]({PICTURE})" in README
    assert (ROOT / PICTURE).read_bytes() == picture(), "python -m tests.test_readme draws it anew"


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_reading_order_names_every_folder() -> None:
    told = set(
        re.findall(r"`([a-z_]+)(?:/|\.py)", (ROOT / "kubenet_lab/README.md").read_text(encoding="utf-8"))
    )
    parts = {path.parent.name for path in (ROOT / "kubenet_lab").glob("*/__init__.py")}
    parts |= {path.stem for path in (ROOT / "kubenet_lab").glob("*.py") if not path.stem.startswith("__")}
    assert parts - told == {"target"}, "target.py is a detail of cluster.py"


if __name__ == "__main__":
    (ROOT / PICTURE).write_bytes(picture())
    said = blocks("text")[0]
    new = README.replace(f"```text\n{said}```", f"```text\n{example_output()}```")
    (ROOT / "README.md").write_text(new, encoding="utf-8")
    sys.stdout.write("wrote the picture and the example's output\n")
