"""The learner's folder: new files come, unedited ones are brought up to date, theirs are never touched."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from kubenet_lab.course import launcher
from kubenet_lab.course.launcher import KEPT, NEW, SAME, UPDATED, arguments, beside, sync
from kubenet_lab.errors import InputError


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    (folder / "images").mkdir(parents=True)
    (folder / "00_start_here.ipynb").write_text("start 1")
    (folder / "05_across_nodes.ipynb").write_text("across 1")
    (folder / "images" / "trip.svg").write_text("<svg/>")
    (folder / "conftest.py").write_text("of the tests, not of the course")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "00_start_here-checkpoint.ipynb").write_text("no")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and launcher.STATE not in path.parts
    }


def test_everything_is_new_the_first_time_and_the_same_the_second(origin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert set(sync(home, origin).files.values()) == {NEW}
    assert contents(home) == {
        "00_start_here.ipynb": "start 1",
        "05_across_nodes.ipynb": "across 1",
        "images/trip.svg": "<svg/>",
    }
    assert set(sync(home, origin).files.values()) == {SAME}


def test_an_unedited_file_is_brought_up_to_date(origin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    sync(home, origin)
    (origin / "00_start_here.ipynb").write_text("start 2")
    done = sync(home, origin)
    assert done.files["00_start_here.ipynb"] == UPDATED
    assert contents(home)["00_start_here.ipynb"] == "start 2"
    assert "  1 file brought up to date" in done.lines()


def test_an_edited_file_is_kept_and_the_new_one_put_beside_it_once(origin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    sync(home, origin)
    mine = home / "00_start_here.ipynb"
    mine.write_text("my notes")
    assert sync(home, origin).files["00_start_here.ipynb"] == KEPT
    assert not beside(mine).exists(), "there is nothing newer than what was edited"
    (origin / "00_start_here.ipynb").write_text("start 2")
    done = sync(home, origin)
    assert done.files["00_start_here.ipynb"] == KEPT
    assert mine.read_text() == "my notes"
    assert (home / "00_start_here.new.ipynb").read_text() == "start 2"
    assert any("yours is kept" in line for line in done.lines())
    beside(mine).unlink()
    sync(home, origin)
    assert not beside(mine).exists(), "the learner threw it away; it does not come back"
    assert mine.read_text() == "my notes"


def test_a_file_that_was_there_before_is_the_learners(origin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "00_start_here.ipynb").write_text("somebody else's")
    assert sync(home, origin).files["00_start_here.ipynb"] == KEPT
    assert contents(home)["00_start_here.ipynb"] == "somebody else's"


@pytest.mark.parametrize("manifest", ["", "not json", "[]"])
def test_without_a_readable_manifest_nothing_is_overwritten(
    manifest: str, origin: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    sync(home, origin)
    (home / "00_start_here.ipynb").write_text("my notes")
    (home / launcher.STATE / "manifest.json").write_text(manifest)
    (origin / "00_start_here.ipynb").write_text("start 2")
    (origin / "05_across_nodes.ipynb").write_text("across 2")
    files = sync(home, origin).files
    assert files == {"00_start_here.ipynb": KEPT, "05_across_nodes.ipynb": KEPT, "images/trip.svg": SAME}
    assert contents(home)["05_across_nodes.ipynb"] == "across 1"


def test_a_file_the_learner_deleted_comes_back(origin: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    sync(home, origin)
    (home / "05_across_nodes.ipynb").unlink()
    assert sync(home, origin).files["05_across_nodes.ipynb"] == NEW


def test_a_folder_that_cannot_be_written_is_named(origin: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another folder with --dir"):
        sync(tmp_path / "file" / "home", origin)


def test_jupyterlab_is_asked_for_loopback_and_no_news(tmp_path: Path) -> None:
    plain = arguments(tmp_path)
    assert "--ServerApp.ip=127.0.0.1" in plain
    assert "--LabApp.news_url=None" in plain
    assert "--no-browser" not in plain
    assert "--allow-root" not in plain
    assert {"--no-browser", "--allow-root"} <= {*arguments(tmp_path, browser=False, root=True)}
    (tmp_path / "00_start_here.ipynb").write_text("{}")
    assert "--LabApp.default_url=/lab/tree/00_start_here.ipynb" in arguments(tmp_path)


@pytest.mark.slow
def test_the_course_opens(tmp_path: Path) -> None:
    """The real program: it copies the course, starts JupyterLab, and that answers, with news switched off."""
    home = tmp_path / "home"
    runtime = tmp_path / "runtime"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from kubenet_lab.cli import main; main()",
            "--dir",
            str(home),
            "--no-browser",
        ],
        env={
            **os.environ,
            "JUPYTER_RUNTIME_DIR": str(runtime),
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        server = _started(runtime, process)
        assert Path(server["root_dir"]) == home
        assert re.match(r"http://(127\.0\.0\.1|localhost):", server["url"])
        page = _get(f"{server['url']}lab?token={server['token']}")
        assert "<title>JupyterLab</title>" in page
        assert '"news": {"disabled": true}' in page
        listing = json.loads(_get(f"{server['url']}api/contents?token={server['token']}"))
        names = {entry["name"] for entry in listing["content"]}
        origin = launcher.source()
        assert names == {path.relative_to(origin).parts[0] for path in launcher.course_files(origin)}
    finally:
        process.terminate()
        process.wait(timeout=20)
        if process.stdout is not None:
            process.stdout.close()
    assert (home / launcher.STATE / "manifest.json").exists()


def _started(runtime: Path, process: subprocess.Popen[str]) -> dict[str, str]:
    """The running server's own description, as soon as it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout and process.stdout.read()
        for file in runtime.glob("jpserver-*.json"):
            if file.stat().st_size:
                server: dict[str, str] = json.loads(file.read_text())
                try:
                    _get(f"{server['url']}api/status?token={server['token']}")
                except OSError:
                    continue
                return server
        time.sleep(0.1)
    raise AssertionError("JupyterLab did not start within a minute")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
