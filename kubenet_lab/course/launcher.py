"""Copies the course to a folder of the learner's and opens JupyterLab there.

A file the learner changed is never overwritten. `.kubenet/manifest.json` in the folder holds the hash of each
file as it was last written here: a file with that hash is unedited and may be brought up to date.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from kubenet_lab.errors import InputError

STATE = ".kubenet"
"""Folder in the learner's folder: the manifest, their progress, and JupyterLab's settings for this folder."""

FIRST = "00_start_here.ipynb"

NEW, SAME, UPDATED, KEPT = "new", "same", "updated", "kept"


class Copied(Struct, frozen=True):
    """What became of each file of the course: its path in the folder -> new, same, updated or kept."""

    folder: Path
    files: Mapping[str, str]

    def lines(self) -> list[str]:
        """Say it in words, a line a fact."""
        out = [f"The course is in {self.folder}."]
        for action, words in ((NEW, "new"), (UPDATED, "brought up to date")):
            names = [name for name, what in self.files.items() if what == action]
            if names:
                out.append(f"  {len(names)} {'file' if len(names) == 1 else 'files'} {words}")
        kept = [name for name, what in self.files.items() if what == KEPT]
        for name in kept:
            newer = beside(self.folder / name)
            if newer.exists():
                out.append(f"  {name}: yours is kept; the new one is beside it as {newer.name}")
        return out


def source() -> Path:
    """Return the folder the course is copied from: packaged, or the checkout's in an editable install.

    Raises InputError when neither is there.
    """
    here = Path(__file__).resolve()
    for folder in (here.parent / "notebooks", here.parents[2] / "notebooks"):
        if folder.is_dir():
            return folder
    raise InputError(
        f"the course's notebooks are not installed: neither {here.parent / 'notebooks'} nor a checkout"
    )


def course_files(origin: Path) -> list[Path]:
    """Return what a learner gets: notebooks and their words, and all that is in folders beside them (pictures).

    What the tests keep beside the notebooks stays behind.
    """
    out = []
    for file in sorted(origin.rglob("*")):
        parts = file.relative_to(origin).parts
        hidden = any(part.startswith((".", "__")) for part in parts)
        if file.is_file() and not hidden and (len(parts) > 1 or file.suffix in (".ipynb", ".md")):
            out.append(file)
    return out


def beside(path: Path) -> Path:
    """Return where a new version goes beside a file the learner changed: `x.ipynb` -> `x.new.ipynb`."""
    return path.with_name(f"{path.stem}.new{path.suffix}")


def sync(folder: Path, origin: Path | None = None) -> Copied:
    """Copy the course; safe to call again, and after an interruption.

    Raises InputError when the folder cannot be made or written.
    """
    origin = origin or source()
    try:
        return Copied(folder, _sync(folder, origin))
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror}; choose another folder with --dir"
        ) from error


def _sync(folder: Path, origin: Path) -> dict[str, str]:
    state = folder / STATE / "manifest.json"
    state.parent.mkdir(parents=True, exist_ok=True)
    written = _manifest(state)
    done: dict[str, str] = {}
    for file in course_files(origin):
        relative = file.relative_to(origin)
        name, target, new = relative.as_posix(), folder / relative, digest(file)
        if not target.exists():
            done[name] = NEW
        elif digest(target) == new:
            done[name] = SAME
        elif written.get(name) == digest(target):
            done[name] = UPDATED
        else:
            done[name] = KEPT
            if written.get(name) != new:
                _copy(file, beside(target))
            written[name] = new
            continue
        if done[name] in (NEW, UPDATED):
            _copy(file, target)
        written[name] = new
    _replace(state, json.dumps(written, indent=1, sort_keys=True).encode())
    return done


def _manifest(path: Path) -> dict[str, str]:
    """What was written last time.

    A manifest that cannot be read counts as none: then every file is the learner's.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {str(k): str(v) for k, v in content.items()} if isinstance(content, dict) else {}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex (`sha256sum FILE`)."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, file.read_bytes())


def _replace(target: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    os.replace(part, target)


def arguments(folder: Path, *, port: int = 8888, browser: bool = True, root: bool = False) -> list[str]:
    """Return JupyterLab's command line: this folder, loopback only, and nothing that asks the network."""
    first = f"/tree/{FIRST}" if (folder / FIRST).exists() else ""
    return [
        f"--ServerApp.root_dir={folder}",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        f"--LabApp.default_url=/lab{first}",
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--LanguageServerManager.autodetect=False",  # it would look for Node and npm
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if root else []),
    ]


def launch(folder: Path, *, port: int = 8888, browser: bool = True) -> int:
    """Run JupyterLab until it is stopped; its settings and workspaces stay in the folder.

    Returns the exit status. Raises InputError when JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise InputError("JupyterLab is not installed here; write: python -m pip install jupyterlab")
    lab = folder / STATE / "lab"
    os.environ["JUPYTERLAB_SETTINGS_DIR"] = str(lab / "settings")
    os.environ["JUPYTERLAB_WORKSPACES_DIR"] = str(lab / "workspaces")
    from jupyterlab.labapp import LabApp

    root = hasattr(os, "geteuid") and os.geteuid() == 0
    LabApp.launch_instance(arguments(folder, port=port, browser=browser, root=root))
    return 0
