"""`-f` takes several files, wherever it stands."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from kubenet_lab.cli import app
from kubenet_lab.cli.arguments import spread

COMMAND = typer.main.get_command(app)

ROWS = [
    ("", ""),
    ("--no-browser --dir here", "--no-browser --dir here"),
    ("trace -f a.yaml front http://back", "trace -f a.yaml front http://back"),
    ("trace -f a.yaml b.yaml front http://back", "trace -f a.yaml -f b.yaml front http://back"),
    ("trace front http://back -f a.yaml b.yaml", "trace -f a.yaml -f b.yaml front http://back"),
    ("trace front -f a.yaml b.yaml http://back", "trace -f a.yaml -f b.yaml front http://back"),
    ("trace -f a.yaml b.yaml -o json front back:80", "trace -o json -f a.yaml -f b.yaml front back:80"),
    ("trace -o json -f a.yaml --file b.yaml x y", "trace -o json -f a.yaml -f b.yaml x y"),
    ("trace -f - --seed 7 front back:80", "trace --seed 7 -f - front back:80"),
    ("trace -f a.yaml front", "trace -f a.yaml front"),
    ("rules -f a.yaml b.yaml --node node-1", "rules --node node-1 -f a.yaml -f b.yaml"),
    ("rules --node node-1 -f a.yaml - c.yaml", "rules --node node-1 -f a.yaml -f - -f c.yaml"),
    ("rules --kube-proxy-flag --x -f a b --node n", "rules --kube-proxy-flag --x --node n -f a -f b"),
    ("rules --output=x.txt -f a b --node=n", "rules --output=x.txt --node=n -f a -f b"),
    ("twin -- curl -f x", "twin -- curl -f x"),
    ("twin front -- curl -s -f http://back", "twin front -- curl -s -f http://back"),
    ("twin -f a.yaml front -- curl http://back", "twin -f a.yaml front -- curl http://back"),
    ("twin -f a.yaml b.yaml front -- ls", "twin -f a.yaml -f b.yaml front -- ls"),
    ("twin front -f a.yaml b.yaml -- ls", "twin -f a.yaml -f b.yaml front -- ls"),
    ("twin -f a.yaml front", "twin -f a.yaml front"),
    ("map -f a.yaml b.yaml -o svg", "map -o svg -f a.yaml -f b.yaml"),
    ("nonsense -f a b", "nonsense -f a b"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "meant"), ROWS, ids=[typed or "(nothing)" for typed, _ in ROWS])
def test_each_file_gets_its_own_option(typed: str, meant: str) -> None:
    assert shlex.join(spread(COMMAND, shlex.split(typed))) == meant


def test_the_last_word_of_twin_is_a_file_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.yaml").write_text("")
    assert spread(COMMAND, ["twin", "-f", "a.yaml", "b.yaml"]) == ["twin", "-f", "a.yaml", "-f", "b.yaml"]
