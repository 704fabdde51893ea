"""The progress file: kept, atomic, and forgiving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubenet_lab.course.answers import Progress, place


def test_it_keeps_answer_tries_and_hints(tmp_path: Path) -> None:
    file = tmp_path / ".kubenet" / "progress.json"
    Progress(file).hinted("00-a", 2)
    Progress(file).checked("00-a", "wrong", False)
    Progress(file).checked("00-a", "right", True)
    entry = Progress(file).entry("00-a")
    assert (entry.status, entry.answer, entry.attempts, entry.hints) == ("passed", "right", 2, 2)
    assert [p.name for p in file.parent.iterdir()] == ["progress.json"]


def test_a_later_wrong_answer_does_not_take_a_pass_away(tmp_path: Path) -> None:
    held = Progress(tmp_path / "p.json")
    held.checked("00-a", "right", True)
    held.checked("00-a", "wrong", False)
    assert (held.entry("00-a").status, held.entry("00-a").answer) == ("passed", "right")


def test_a_broken_file_is_kept_beside_and_named(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    file.write_text("{not json")
    held = Progress(file)
    assert held.all() == {}
    assert "progress.json.broken" in held.trouble
    assert (tmp_path / "progress.json.broken").read_text() == "{not json"


def test_a_folder_that_cannot_be_written_does_not_stop_anybody(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    held = Progress(blocked / "progress.json")
    held.checked("00-a", "x", True)
    assert held.entry("00-a").status == "passed"
    assert "cannot be saved" in held.trouble


def test_two_readers_see_each_other(tmp_path: Path) -> None:
    one, other = Progress(tmp_path / "p.json"), Progress(tmp_path / "p.json")
    one.checked("00-a", "x", True)
    other.checked("05-b", "y", False)
    assert set(one.all()) == {"00-a", "05-b"}
    assert set(json.loads((tmp_path / "p.json").read_text())["exercises"]) == {"00-a", "05-b"}


def test_forgetting_begins_anew(tmp_path: Path) -> None:
    held = Progress(tmp_path / "p.json")
    held.checked("00-a", "x", True)
    held.forget("00-a")
    assert held.entry("00-a").status == "new"


def test_the_workspace_is_the_nearest_folder_with_a_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBENET_PROGRESS", raising=False)
    (tmp_path / ".kubenet").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert place(deep) == tmp_path / ".kubenet" / "progress.json"
    monkeypatch.setenv("KUBENET_PROGRESS", "off")
    assert place(deep) is None
    monkeypatch.setenv("KUBENET_PROGRESS", str(tmp_path / "other.json"))
    assert place(deep) == tmp_path / "other.json"
